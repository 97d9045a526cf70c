"""Every error of the worker becomes a typed error of the SDK, and none is without a worker's."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import grpc
import pytest

import faceblur
from faceblur import FaceBlurClient, FaceBlurError, LimitExceededError, OverloadedError, TransientError
from faceblur._errors import ERROR_OF, error_from, status_from
from faceblur_engine.errors import EngineError, LimitExceeded
from faceblur_worker import statuses
from faceblur_worker.errors import Refusal
from support.fake_engine import FakeEngine
from support.running_worker import LoopThread, picture, running

from .conftest import QUICK

WORKERS = {(code, statuses.reason_of(kind.__new__(kind))) for kind, code in statuses.STATUS_OF.items()} | {
    (grpc.StatusCode.INTERNAL, statuses.INTERNAL)
}
WITHOUT_ROW = {FaceBlurError, TransientError, faceblur.ClientClosedError}


def tree(kind: type[FaceBlurError]) -> Iterator[type[FaceBlurError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from tree(child)


KINDS = list(tree(FaceBlurError))


class Failed(grpc.RpcError):
    """A failed call, as gRPC raises it."""

    def __init__(self, code: grpc.StatusCode, message: str = "", details: bytes | None = None) -> None:
        self._code, self._message, self._details = code, message, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._message

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        return () if self._details is None else (("grpc-status-details-bin", self._details),)


def test_the_table_has_exactly_the_rows_of_the_worker() -> None:
    assert set(ERROR_OF) == WORKERS


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_has_a_row_and_is_public(kind: type[FaceBlurError]) -> None:
    assert (kind in ERROR_OF.values()) != (kind in WITHOUT_ROW)
    assert getattr(faceblur, kind.__name__) is kind


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in WITHOUT_ROW])
def test_every_error_survives_the_wire(kind: type[FaceBlurError]) -> None:
    error = kind("because of this", retry_after=1.5)
    status = status_from(error)
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    back = error_from(Failed(code, status.message, status.SerializeToString()), "host:1")
    assert (type(back), str(back)) == (kind, "because of this")
    assert (code, back.reason) in ERROR_OF


@pytest.mark.parametrize("kind", [kind for kind in statuses.STATUS_OF if issubclass(kind, EngineError)])
def test_every_error_of_the_engine_reaches_the_caller_of_a_real_worker(loop: LoopThread, kind: type[Exception]) -> None:
    error = LimitExceeded("max_pixels", 7, 5) if kind is LimitExceeded else kind("because of this")

    def fail(data: bytes) -> None:
        raise error

    with (
        running(loop, FakeEngine(fail)) as worker,
        FaceBlurClient(worker.target, retry=QUICK) as client,
        pytest.raises(FaceBlurError) as caught,
    ):
        client.blur(picture())
    assert str(caught.value) == str(error)
    assert type(caught.value) is ERROR_OF[statuses.STATUS_OF[kind], statuses.reason_of(error)]
    assert caught.value.attempts == 1
    if isinstance(caught.value, LimitExceededError):
        assert (caught.value.limit, caught.value.value, caught.value.allowed) == ("max_pixels", 7, 5)


def test_every_refusal_of_the_worker_has_a_kind_of_its_own() -> None:
    refusals = [kind for kind in statuses.STATUS_OF if issubclass(kind, Refusal)]
    assert len(refusals) > 5
    for kind in refusals:
        status = statuses.status_of(kind("because of this", 0.5), "id")
        back = error_from(Failed(statuses.STATUS_OF[kind], status.message, status.SerializeToString()), "host:1")
        assert type(back) is ERROR_OF[statuses.STATUS_OF[kind], kind.reason]
        assert (str(back), back.retry_after) == ("because of this", 0.5)


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_a_status_without_details_says_who_was_called_and_what_grpc_said(code: grpc.StatusCode) -> None:
    error = error_from(Failed(code, "some text"), "dns:///host:1")
    assert "dns:///host:1" in str(error)
    assert "some text" in str(error)
    assert error.reason == ""


def test_details_that_are_no_details_are_passed_over() -> None:
    error = error_from(Failed(grpc.StatusCode.UNAVAILABLE, "x", b"\xff\xff"), "host:1")
    assert type(error) is faceblur.UnavailableError


def test_a_reason_that_is_newer_than_this_sdk_is_kept() -> None:
    status = status_from(OverloadedError("sorry"))
    info = faceblur._errors.error_details_pb2.ErrorInfo(reason="MOON_PHASE", domain="faceblur.io")
    status.details[0].Pack(info)
    error = error_from(Failed(grpc.StatusCode.UNAVAILABLE, "sorry", status.SerializeToString()), "host:1")
    assert (type(error), error.reason, str(error)) == (faceblur.UnavailableError, "MOON_PHASE", "sorry")


@pytest.mark.parametrize("kind", KINDS)
def test_errors_can_be_pickled(kind: type[FaceBlurError]) -> None:
    error = kind("why", reason="R", retry_after=1)
    error.source = "a.jpg"
    back = pickle.loads(pickle.dumps(error))
    assert (type(back), vars(back), str(back)) == (kind, vars(error), "a.jpg: why")
