"""The SDK against the real worker server, with an engine that needs no models."""

from __future__ import annotations

import json
from typing import Any

import pytest

from faceblur import (
    Box,
    FaceBlurClient,
    Format,
    InvalidOptionsError,
    LimitExceededError,
    Limits,
    Options,
    OverloadedError,
    Profile,
    RetryConfig,
    UnsupportedFormatError,
)
from support.eventual import eventually
from support.fake_engine import COLOR, FakeEngine
from support.running_worker import Hold, LoopThread, picture, running

from .conftest import QUICK, Aside, Connect
from .test_calls import EVERYTHING


def test_receipts_say_what_the_engine_s_own_do(connect: Connect, loop: LoopThread) -> None:
    engine = FakeEngine()
    receipts: list[Any] = []
    redact = engine.redact

    def listening(*args: Any, **more: Any) -> Any:
        result = redact(*args, **more)
        receipts.append(result.receipt)
        return result

    engine.redact = listening  # type: ignore[method-assign]
    with running(loop, engine, profiles="fast,balanced,thorough") as worker:
        for options in (None, EVERYTHING):
            result = connect(worker.target).blur(picture(), options)
            assert json.loads(json.dumps(receipts[-1].as_dict())) == result.receipt.as_dict()
        assert result.receipt.options.regions == (Box(1, 2, 3, 4), Box(-5, 6, 7, 8.5))


def test_detection_too(connect: Connect, loop: LoopThread) -> None:
    with running(loop, FakeEngine()) as worker:
        assert connect(worker.target).detect(picture()).faces[0].box == Box(2, 2, 8, 10)


def test_large_pictures_go_and_come_in_chunks(connect: Connect, loop: LoopThread) -> None:
    large = picture(2000, 1000, "TIFF")
    with running(loop, FakeEngine(), max_message_bytes=1_000_000) as worker:
        client = connect(worker.target)
        assert len(large) > 1_000_000
        result = client.blur(large)
        assert len(result.image) > 1_000_000
        assert client.detect(large).width == 2000
        assert bytes(COLOR) in result.image


def test_a_result_that_is_too_large_for_a_message_comes_in_chunks(connect: Connect, loop: LoopThread) -> None:
    with running(loop, FakeEngine(), max_message_bytes=1_000_000) as worker:
        result = connect(worker.target).blur(picture(2000, 1000), Options(format=Format.TIFF))
    assert len(result.image) > 1_000_000


def test_typed_errors_come_from_the_worker(connect: Connect, loop: LoopThread) -> None:
    with running(loop, FakeEngine(), profiles="balanced") as worker:
        client = connect(worker.target)
        with pytest.raises(InvalidOptionsError, match="cells is 9"):
            client.blur(picture(), Options(cells=9))
        with pytest.raises(InvalidOptionsError, match="not served"):
            client.blur(picture(), Options(profile=Profile.THOROUGH))
        with pytest.raises(UnsupportedFormatError):
            client.blur(b"no picture")
        with pytest.raises(LimitExceededError) as caught:
            connect(worker.target).blur(bytes(20_000_000), Options(limits=Limits(max_bytes=10)))
        assert (caught.value.limit, caught.value.value, caught.value.allowed) == ("max_bytes", 20_000_000, 10)


def test_the_worker_tells_what_it_is(connect: Connect, loop: LoopThread) -> None:
    with running(loop, FakeEngine(), profiles="balanced,fast") as worker:
        info = connect(worker.target).info()
    assert set(info.profiles) == {Profile.BALANCED, Profile.FAST}
    assert info.defaults.limits is not None
    assert info.models[0].name == "fake"


def test_an_overloaded_worker_is_asked_again_until_it_has_room(connect: Connect, loop: LoopThread) -> None:
    hold = Hold()
    with running(loop, FakeEngine(hold), threads=1, max_waiting=1) as worker:
        blunt = connect(worker.target, retry=RetryConfig(attempts=1))
        patient = connect(worker.target, retry=RetryConfig(attempts=1000, first_pause=0.01, longest_pause=0.05))
        calls = [Aside(lambda: patient.blur(picture())) for _ in range(5)]
        hold.wait_until_begun()
        eventually(lambda: worker.worker.gate.waiting == 1)
        with pytest.raises(OverloadedError):
            blunt.blur(picture())
        hold.let_go.set()
        assert all(call.outcome.image for call in calls)


def test_a_worker_that_goes_loses_no_picture(loop: LoopThread) -> None:
    """Many pictures over two workers, one of which ends in the middle."""
    one, two = FakeEngine(), FakeEngine()
    with running(loop, two) as staying, running(loop, one) as going:
        target = f"ipv4:{going.target},{staying.target}"
        with FaceBlurClient(target, retry=QUICK) as client:
            outcomes = client.blur_many([picture()] * 200)
            results = []
            stopping = None
            for outcome in outcomes:
                results.append(outcome.unwrap())
                if stopping is None and len(one.seen) > 10:
                    stopping = Aside(lambda: loop.run(going.worker.stop(settle_seconds=0)))
            assert stopping is not None
            assert stopping.outcome is True
    assert len(results) == 200
    assert len(one.seen) + len(two.seen) >= 200
