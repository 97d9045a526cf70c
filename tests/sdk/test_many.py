"""Many pictures: each gets its result or its error as it is finished, and only so many are held."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import grpc
import pytest

from faceblur import AsyncFaceBlurClient, ClientClosedError, EmptyImageError, FaceBlurError, UnsupportedFormatError
from faceblur.testing import FakeServer
from support.running_worker import LoopThread, picture

from .conftest import QUICK, Aside, Client, Connect
from .test_retries import connected


def test_every_picture_gets_a_result_with_its_place_and_source(client: Client) -> None:
    sources = [picture(20 + i, 10) for i in range(30)]
    outcomes = sorted(client.blur_many(sources), key=lambda outcome: outcome.index)
    assert [outcome.index for outcome in outcomes] == list(range(30))
    assert [outcome.source for outcome in outcomes] == sources
    assert [outcome.unwrap().receipt.width for outcome in outcomes] == list(range(20, 50))


def test_a_bad_picture_does_not_end_the_rest(client: Client, tmp_path: Path) -> None:
    gone = tmp_path / "gone.jpg"
    sources = [picture(), b"", gone, b"garbage", picture()]
    outcomes = sorted(client.blur_many(sources), key=lambda outcome: outcome.index)
    kinds = [type(outcome.error) for outcome in outcomes]
    assert kinds == [type(None), EmptyImageError, FileNotFoundError, UnsupportedFormatError, type(None)]
    with pytest.raises(FileNotFoundError):
        outcomes[2].unwrap()


def test_a_failing_call_is_tried_again_alone(client: Client, server: FakeServer) -> None:
    server.fail_next(grpc.StatusCode.UNAVAILABLE, times=3)
    assert all(outcome.result for outcome in client.blur_many([picture()] * 5))
    assert len(server.calls) == 8


def test_results_come_as_they_are_finished(connect: Connect, server: FakeServer, other: FakeServer) -> None:
    client = connected(connect, server, other)
    seen = len(server.calls)
    with server.holding():
        outcomes = client.blur_many([picture()] * 4, concurrency=4)
        first = [next(outcomes), next(outcomes)]
        server.wait_for_held(2)
        assert len(server.calls) == seen + 2  # two hang there, and those of the other have arrived
    assert sorted(outcome.index for outcome in [*first, *outcomes]) == [0, 1, 2, 3]


def test_no_more_pictures_are_held_than_allowed(client: Client, server: FakeServer) -> None:
    pulled = itertools.count()
    last = 0

    def endless() -> Iterator[bytes]:
        nonlocal last
        for number in pulled:
            last = number
            yield picture()

    outcomes = client.blur_many(endless(), concurrency=3)
    with server.holding():
        taking = Aside(lambda: next(outcomes))
        server.wait_for_held(3)
        assert (len(server.calls), last) == (3, 2)
    assert taking.outcome.result
    for taken in range(2, 20):
        assert next(outcomes).result
        assert last <= taken + 1
    outcomes.close()  # type: ignore[attr-defined]


def test_leaving_early_cancels_what_is_in_work(client: Client, server: FakeServer) -> None:
    outcomes = client.blur_many(itertools.repeat(picture()), concurrency=4)
    assert next(outcomes).result
    with server.holding():
        taking = Aside(lambda: [next(outcomes) for _ in range(8)])
        server.wait_for_held(4)
        client.close()
        assert isinstance(taking.outcome, ClientClosedError)


def test_an_error_of_the_iterable_ends_the_call_with_it(client: Client) -> None:
    def broken() -> Iterator[bytes]:
        yield picture()
        raise KeyError("the caller's own")

    with pytest.raises(KeyError, match="own"):
        list(client.blur_many(broken()))


def test_nothing_in_is_nothing_out(client: Client) -> None:
    assert list(client.blur_many([])) == []


def test_concurrency_is_at_least_one(client: Client) -> None:
    with pytest.raises(ValueError, match="concurrency"):
        client.blur_many([], concurrency=0)


def test_a_closed_client_does_not_answer_every_picture_with_that(client: Client) -> None:
    client.close()
    with pytest.raises(ClientClosedError):
        next(client.blur_many(itertools.repeat(picture())))


def test_a_slow_asynchronous_source_holds_up_no_result(loop: LoopThread, server: FakeServer) -> None:
    async def work() -> list[int]:
        taken = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield picture()
            await taken.wait()
            yield picture()

        indices = []
        async with AsyncFaceBlurClient(server.target) as client:
            async for outcome in client.blur_many(slow()):
                indices.append(outcome.index)
                taken.set()
        return indices

    assert loop.run(work()) == [0, 1]


def test_a_cancelled_task_ends_at_once_and_its_call_with_it(loop: LoopThread, server: FakeServer) -> None:
    async def work() -> None:
        async with AsyncFaceBlurClient(server.target, retry=QUICK) as client:
            task = asyncio.create_task(client.blur(picture()))
            await asyncio.to_thread(server.wait_for_held)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    with server.holding():
        loop.run(work())
    assert len(server.calls) == 1


def test_leaving_an_asynchronous_loop_cancels_what_is_in_work(loop: LoopThread, server: FakeServer) -> None:
    async def work() -> int:
        async with AsyncFaceBlurClient(server.target, retry=QUICK) as client:
            before = len(asyncio.all_tasks())
            async with aclosing(client.blur_many(itertools.repeat(picture()))) as outcomes:  # type: ignore[type-var]
                async for outcome in outcomes:
                    assert outcome.result
                    break
            return len(asyncio.all_tasks()) - before

    assert loop.run(work()) == 0


def test_errors_keep_to_their_pictures(client: Client, server: FakeServer) -> None:
    server.fail_next(FaceBlurError("odd"), times=1)
    outcomes = list(client.blur_many([picture()] * 6))
    assert sum(outcome.error is not None for outcome in outcomes) == 1
