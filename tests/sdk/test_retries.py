"""What is tried again, when and where; and what is not."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from faceblur import (
    DeadlineExceededError,
    DeadlineTooShortError,
    EmptyImageError,
    FaceBlurError,
    InvalidOptionsError,
    OverloadedError,
    RetryConfig,
    ServerError,
    UnavailableError,
    VerificationFailedError,
)
from faceblur._calls import Calls, Invoke, Pause
from faceblur._errors import DETAILS_KEY, status_from
from faceblur.testing import FakeServer, serving
from faceblur.v1 import faceblur_service_pb2
from support.running_worker import picture

from .conftest import QUICK, Aside, Client, Connect
from .test_errors import Failed

AGAIN: list[FaceBlurError | grpc.StatusCode] = [
    OverloadedError("busy", retry_after=0.001),
    DeadlineTooShortError("no time", retry_after=0.001),
    UnavailableError("ending", retry_after=0.001),
    UnavailableError("ending"),
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
]
NEVER: list[FaceBlurError | grpc.StatusCode] = [
    OverloadedError("busy"),
    DeadlineTooShortError("no time"),
    EmptyImageError("empty"),
    InvalidOptionsError("no"),
    VerificationFailedError("a face"),
    ServerError("a defect"),
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.UNAUTHENTICATED,
]


def named(failure: FaceBlurError | grpc.StatusCode) -> str:
    return failure.name if isinstance(failure, grpc.StatusCode) else f"{type(failure).__name__}-{failure.retry_after}"


@pytest.mark.parametrize("failure", AGAIN, ids=named)
def test_what_may_succeed_later_is_tried_again(
    client: Client, server: FakeServer, failure: FaceBlurError | grpc.StatusCode
) -> None:
    server.fail_next(failure, times=2)
    assert client.blur(picture()).image
    assert len(server.calls) == 3
    assert len({call.request_id for call in server.calls}) == 1


@pytest.mark.parametrize("failure", NEVER, ids=named)
def test_what_cannot_succeed_is_not_tried_again(
    client: Client, server: FakeServer, failure: FaceBlurError | grpc.StatusCode
) -> None:
    server.fail_next(failure)
    with pytest.raises(FaceBlurError) as caught:
        client.blur(picture())
    assert len(server.calls) == caught.value.attempts == 1


def test_detection_and_chunked_calls_are_tried_again_too(connect: Connect) -> None:
    with serving(max_message_bytes=100_000) as server:
        client = connect(server)
        for ask in (client.blur, client.detect):
            server.fail_next(grpc.StatusCode.UNAVAILABLE)
            ask(picture() + bytes(200_000))
        methods = ["BlurLargeImage"] * 2 + ["DetectLargeImage"] * 2
        assert [call.method for call in server.calls] == methods
        server.fail_next(grpc.StatusCode.UNAVAILABLE)
        assert client.detect(picture())


def test_attempts_are_counted_and_the_last_error_is_raised(connect: Connect, server: FakeServer) -> None:
    server.fail_next(OverloadedError("busy", retry_after=0.001), times=9)
    with pytest.raises(OverloadedError, match=r"^busy$") as caught:
        connect(server, retry=RetryConfig(attempts=3, first_pause=0.001)).blur(picture())
    assert len(server.calls) == caught.value.attempts == 3


def test_nothing_is_tried_again_if_so_configured(connect: Connect, server: FakeServer) -> None:
    server.fail_next(grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(UnavailableError):
        connect(server, retry=RetryConfig(attempts=1)).blur(picture())
    assert len(server.calls) == 1


def test_a_pause_that_would_outlast_the_timeout_is_not_begun(client: Client, server: FakeServer) -> None:
    server.fail_next(OverloadedError("busy", retry_after=1000))
    with pytest.raises(OverloadedError) as caught:
        client.blur(picture())
    assert caught.value.retry_after == 1000


def pauses(config: RetryConfig, failure: Failed) -> list[float]:
    """The pauses between all attempts of a call that fails each time."""
    work = Calls("host:1", 1000, config).blur(b"x", "", None, None, None)
    found = []
    step: Any = next(work)
    try:
        while True:
            if isinstance(step, Pause):
                found.append(step.seconds)
                step = work.send(None)
            else:
                assert isinstance(step, Invoke)
                step = work.throw(failure)
    except FaceBlurError:
        return found


def test_pauses_grow_up_to_a_limit_and_differ_by_chance() -> None:
    config = RetryConfig(attempts=7, first_pause=1, longest_pause=8, factor=2)
    runs = [pauses(config, Failed(grpc.StatusCode.UNAVAILABLE)) for _ in range(20)]
    for longest, seconds in zip([1, 2, 4, 8, 8, 8], zip(*runs, strict=True), strict=True):
        assert all(longest / 2 <= pause <= longest for pause in seconds)
        assert len(set(seconds)) > 10


def test_a_pause_is_never_shorter_than_the_server_asks_for() -> None:
    status = status_from(OverloadedError("busy", retry_after=3))
    failure = Failed(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy", status.SerializeToString())
    config = RetryConfig(attempts=4, first_pause=0.1, longest_pause=0.2)
    assert all(3 <= pause <= 3.75 for pause in pauses(config, failure))


def test_each_attempt_gets_the_time_that_is_left() -> None:
    config = RetryConfig(attempts=3, first_pause=0.001, attempt_timeout=4)
    for timeout, most in ((100, 4), (2, 2)):
        work = Calls("host:1", timeout, config).blur(b"x", "", None, None, None)
        step = next(work)
        assert isinstance(step, Invoke)
        assert most - 1 < step.timeout <= most
        assert isinstance(step.request, faceblur_service_pb2.BlurImageRequest)
        work.close()


def test_the_details_key_is_that_of_grpc() -> None:
    assert DETAILS_KEY == "grpc-status-details-bin"


def connected(connect: Connect, *servers: FakeServer, **settings: Any) -> Client:
    """A client that has found all servers; the second connection may be made a little later than the first."""
    client = connect(*servers, **settings)
    while not all(server.calls for server in servers):
        client.blur(picture())
    return client


def test_calls_go_to_all_servers_in_turn(connect: Connect, server: FakeServer, other: FakeServer) -> None:
    client = connected(connect, server, other)
    before = len(server.calls), len(other.calls)
    for _ in range(10):
        client.blur(picture())
    assert (len(server.calls) - before[0], len(other.calls) - before[1]) == (5, 5)


def test_a_killed_server_s_work_is_finished_by_the_other(
    connect: Connect, server: FakeServer, other: FakeServer
) -> None:
    client = connected(connect, server, other)
    before = len(other.calls)
    with server.holding(), other.holding():
        calls = [Aside(lambda: client.blur(picture())) for _ in range(4)]
        server.wait_for_held(2)
        other.wait_for_held(2)
        server.stop()
    assert [call.outcome.receipt.width for call in calls] == [32] * 4
    assert len(other.calls) == before + 4


def test_what_hangs_on_one_server_is_finished_by_the_other(
    connect: Connect, server: FakeServer, other: FakeServer
) -> None:
    retry = RetryConfig(attempts=10, first_pause=0.001, longest_pause=0.01, attempt_timeout=0.3)
    client = connected(connect, server, other, retry=retry)
    before = len(server.calls)
    with server.holding():
        assert all(client.blur(picture()).image for _ in range(4))
        assert len(server.calls) > before


def test_a_server_that_never_answers_costs_no_more_than_the_timeout(connect: Connect, server: FakeServer) -> None:
    client = connect(server, retry=RetryConfig(attempts=100, first_pause=0.001, attempt_timeout=0.1))
    with server.holding(), pytest.raises(DeadlineExceededError) as caught:
        client.blur(picture(), timeout=0.5)
    assert caught.value.attempts > 1


def test_a_server_that_comes_back_is_found_again(connect: Connect) -> None:
    with serving() as first:
        client = connect(first, retry=RetryConfig(attempts=100, first_pause=0.05, longest_pause=0.2))
        client.blur(picture())
    call = Aside(lambda: client.blur(picture()))
    with serving(port=first.port) as second:
        assert call.outcome.receipt.width == 32
        assert len(second.calls) == 1


def test_nobody_at_the_address_is_an_error_that_names_it(connect: Connect) -> None:
    with serving() as gone:
        pass
    with pytest.raises(UnavailableError, match=gone.target) as caught:
        connect(gone, retry=QUICK).blur(picture())
    assert caught.value.attempts == QUICK.attempts


def test_something_else_on_the_port_is_an_error_that_says_so(connect: Connect, server: FakeServer) -> None:
    server.fail_next(grpc.StatusCode.UNIMPLEMENTED)
    with pytest.raises(FaceBlurError, match="no FaceBlur worker"):
        connect(server).blur(picture())


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": 0},
        {"first_pause": 0},
        {"first_pause": 2, "longest_pause": 1},
        {"factor": 0.5},
        {"attempt_timeout": 0},
    ],
)
def test_a_configuration_that_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RetryConfig(**wrong)
