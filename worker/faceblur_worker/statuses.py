"""The one table from errors to gRPC status, with the google.rpc details that make them readable to programs."""

from __future__ import annotations

import datetime

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from faceblur_engine import errors as engine

from . import errors as worker

DOMAIN = "faceblur.io"
DETAILS_KEY = "grpc-status-details-bin"

STATUS_OF: dict[type[Exception], grpc.StatusCode] = {
    engine.EngineError: grpc.StatusCode.INTERNAL,
    engine.InvalidOptions: grpc.StatusCode.INVALID_ARGUMENT,
    engine.ModelError: grpc.StatusCode.INTERNAL,
    engine.RuntimeUnavailable: grpc.StatusCode.INTERNAL,
    engine.VerificationFailed: grpc.StatusCode.FAILED_PRECONDITION,
    engine.ImageError: grpc.StatusCode.INVALID_ARGUMENT,
    engine.EmptyImage: grpc.StatusCode.INVALID_ARGUMENT,
    engine.UnsupportedFormat: grpc.StatusCode.INVALID_ARGUMENT,
    engine.UnreadableImage: grpc.StatusCode.INVALID_ARGUMENT,
    engine.MultipleFrames: grpc.StatusCode.INVALID_ARGUMENT,
    engine.LimitExceeded: grpc.StatusCode.INVALID_ARGUMENT,
    worker.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    worker.DeadlineTooShort: grpc.StatusCode.RESOURCE_EXHAUSTED,
    worker.DeadlinePassed: grpc.StatusCode.DEADLINE_EXCEEDED,
    worker.Stalled: grpc.StatusCode.DEADLINE_EXCEEDED,
    worker.ShuttingDown: grpc.StatusCode.UNAVAILABLE,
    worker.MalformedUpload: grpc.StatusCode.INVALID_ARGUMENT,
    worker.ResultTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    worker.IdentityNotAllowed: grpc.StatusCode.PERMISSION_DENIED,
}
BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}
INTERNAL = "INTERNAL"


def status_of(error: Exception, request_id: str) -> status_pb2.Status:
    """Return the status that tells a client about an error.

    Args:
        error: Of the engine or of the worker; anything else is a defect, of which the client learns no detail.
        request_id: Under which the log tells more.
    """
    code = next((STATUS_OF[kind] for kind in type(error).__mro__ if kind in STATUS_OF), None)
    if code is None or not isinstance(error, engine.EngineError | worker.Refusal):
        message = f"the server failed; its log says more under the request id {request_id}"
        return _status(grpc.StatusCode.INTERNAL, message, [_info(INTERNAL)])
    message = str(error)
    details: list[Message] = []
    if isinstance(error, engine.LimitExceeded):
        details.append(_info(error.reason, limit=error.limit, value=str(error.value), allowed=str(error.allowed)))
    else:
        details.append(_info(error.reason))
    if isinstance(error, engine.ImageError):
        details.append(_bad_request("image", message))
    elif isinstance(error, engine.InvalidOptions):
        details.append(_bad_request("options", message))
    if isinstance(error, worker.Refusal) and error.retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromTimedelta(datetime.timedelta(seconds=error.retry_after))
        details.append(retry)
    return _status(code, message, details)


def reason_of(error: Exception) -> str:
    """Return the stable reason of an error, as the details of its status carry it."""
    return error.reason if isinstance(error, engine.EngineError | worker.Refusal) else INTERNAL


def _status(code: grpc.StatusCode, message: str, details: list[Message]) -> status_pb2.Status:
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        status.details.add().Pack(detail)
    return status


def _info(reason: str, **metadata: str) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)


def _bad_request(field: str, description: str) -> error_details_pb2.BadRequest:
    violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=description)
    return error_details_pb2.BadRequest(field_violations=[violation])
