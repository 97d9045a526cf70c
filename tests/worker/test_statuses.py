"""Every error class has its row, its reason in the contract, and reaches a client as that."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from google.rpc import error_details_pb2

from faceblur.v1 import errors_pb2
from faceblur_engine.errors import EngineError, ImageError, InvalidOptions, LimitExceeded
from faceblur_worker import errors
from faceblur_worker.statuses import STATUS_OF
from support.running_worker import RunningWorker, details_of, picture


def tree(kind: type[Exception]) -> Iterator[type[Exception]]:
    yield kind
    for child in kind.__subclasses__():
        yield from tree(child)


KINDS = [*tree(EngineError), *tree(errors.Refusal)]
RAISED = [kind for kind in KINDS if kind is not errors.Refusal]


def made(kind: type[Exception]) -> Exception:
    return kind("max_pixels", 7, 5) if kind is LimitExceeded else kind("because of this")


@pytest.mark.parametrize("kind", RAISED)
def test_every_error_has_a_row_of_its_own(kind: type[Exception]) -> None:
    assert kind in STATUS_OF


@pytest.mark.parametrize("kind", RAISED)
def test_every_reason_is_in_the_contract(kind: type[EngineError]) -> None:
    assert f"ERROR_REASON_{kind.reason}" in set(errors_pb2.ErrorReason.keys())


def test_the_contract_names_no_reason_that_nothing_raises() -> None:
    names = {name.removeprefix("ERROR_REASON_") for name in list(errors_pb2.ErrorReason.keys())}
    assert names == {"UNSPECIFIED", "INTERNAL"} | {kind.reason for kind in RAISED}  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", RAISED)
def test_every_error_reaches_the_client(worker: RunningWorker, kind: type[Exception]) -> None:
    error = made(kind)

    def fail(data: bytes) -> None:
        raise error

    worker.engine.hook = fail
    with pytest.raises(grpc.RpcError) as caught:
        worker.blur(picture())
    assert caught.value.code() is STATUS_OF[kind]
    assert caught.value.details() == str(error)
    reason, details = details_of(caught.value)
    assert reason == kind.reason  # type: ignore[attr-defined]
    fields = [v.field for d in details if isinstance(d, error_details_pb2.BadRequest) for v in d.field_violations]
    assert fields == (["image"] if isinstance(error, ImageError) else ["options"] if kind is InvalidOptions else [])


def test_a_limit_is_told_to_programs_too(worker: RunningWorker) -> None:
    def fail(data: bytes) -> None:
        raise LimitExceeded("max_pixels", 7, 5)

    worker.engine.hook = fail
    with pytest.raises(grpc.RpcError) as caught:
        worker.blur(picture())
    _, details = details_of(caught.value)
    assert dict(details[0].metadata) == {"limit": "max_pixels", "value": "7", "allowed": "5"}


def test_a_defect_tells_the_client_nothing_but_the_request_id(
    worker: RunningWorker, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(data: bytes) -> None:
        raise RuntimeError("a secret")

    worker.engine.hook = fail
    with pytest.raises(grpc.RpcError) as caught:
        worker.blur(picture())
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in caught.value.details()
    request_id = dict(caught.value.trailing_metadata())["x-request-id"]
    assert request_id in caught.value.details()
    assert details_of(caught.value)[0] == "INTERNAL"
    assert "a secret" in caplog.text  # the log has the traceback
