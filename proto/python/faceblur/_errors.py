"""Why there is no result, and the one table from what a server answers to that.

The tree, each leaf with the reasons of the contract (errors.proto) or the codes of gRPC that become it::

    FaceBlurError
    ├── InvalidOptionsError         INVALID_OPTIONS
    ├── InvalidImageError           IMAGE_ERROR           the picture is at fault
    │   ├── EmptyImageError         EMPTY_IMAGE
    │   ├── UnsupportedFormatError  UNSUPPORTED_FORMAT
    │   ├── UnreadableImageError    UNREADABLE_IMAGE      truncated, corrupt, lies about itself
    │   ├── MultipleFramesError     MULTIPLE_FRAMES       animated, or more than one page
    │   └── LimitExceededError      LIMIT_EXCEEDED        names the limit, the value and what is allowed
    ├── VerificationFailedError     VERIFICATION_FAILED   a face is still found in the result
    ├── TransientError              (the same call may succeed later or elsewhere; the clients have tried)
    │   ├── OverloadedError         OVERLOADED
    │   ├── DeadlineTooShortError   DEADLINE_TOO_SHORT    refused, because it would not have been done in time
    │   ├── DeadlineExceededError   DEADLINE_EXCEEDED
    │   └── UnavailableError        SHUTTING_DOWN; UNAVAILABLE or CANCELLED from gRPC itself
    ├── AccessDeniedError           IDENTITY_NOT_ALLOWED; PERMISSION_DENIED or UNAUTHENTICATED from a proxy
    ├── MessageTooLargeError        MESSAGE_TOO_LARGE; RESOURCE_EXHAUSTED from gRPC itself
    ├── ProtocolError               MALFORMED_UPLOAD; UNIMPLEMENTED; an answer that breaks the contract
    ├── ServerError                 INTERNAL, ENGINE_ERROR; every other code
    │   ├── ModelUnusableError      MODEL_UNUSABLE
    │   └── RuntimeUnavailableError RUNTIME_UNAVAILABLE
    └── ClientClosedError           `close` was called before or during the call

Messages are sentences for a person: what happened, to which picture, and what to do. They never hold picture content.
"""

from __future__ import annotations

import datetime
from typing import Any, ClassVar, Protocol, cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "faceblur.io"
DETAILS_KEY = "grpc-status-details-bin"


class FaceBlurError(Exception):
    """Anything for which a call gives no result.

    Attributes:
        reason: The stable name of the contract (`ErrorReason` in errors.proto); empty if the error is not a server's.
        source: The path of the picture; empty if it did not come from a named file.
        request_id: Under which the server's log tells more.
        retry_after: Seconds after which the server says the same call may succeed; None: it does not say.
        attempts: How often the call was tried.
    """

    def __init__(self, message: str, *, reason: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after = retry_after
        self.source = ""
        self.request_id = ""
        self.attempts = 1

    def __str__(self) -> str:
        message = str(self.args[0])
        return f"{self.source}: {message}" if self.source else message


class InvalidOptionsError(FaceBlurError):
    """An option is out of its range, is not known to the server, or two contradict each other."""


class InvalidImageError(FaceBlurError):
    """The picture itself cannot be processed; trying again gives the same answer."""


class EmptyImageError(InvalidImageError):
    """There are no bytes."""


class UnsupportedFormatError(InvalidImageError):
    """The content is of no format that is read, whatever the file is called."""


class UnreadableImageError(InvalidImageError):
    """The content starts like a picture but is truncated or corrupt."""


class MultipleFramesError(InvalidImageError):
    """The file is animated or has several pages, and only all of them or none may be published."""


class LimitExceededError(InvalidImageError):
    """The picture has more than a limit allows; nothing was decoded.

    Attributes:
        limit: The name of the limit, a field of `Limits`.
        value: What the picture has.
        allowed: What the limit allows.
    """

    def __init__(self, message: str, *, limit: str = "", value: int = 0, allowed: int = 0, **more: Any) -> None:
        super().__init__(message, **more)
        self.limit = limit
        self.value = value
        self.allowed = allowed


class VerificationFailedError(FaceBlurError):
    """The detector still finds a face outside the obscured regions of the result, so there is none."""


class TransientError(FaceBlurError):
    """The same call may succeed later or at another worker; it is raised when attempts or time were used up.

    Attributes:
        needs_hint: It is only tried again if the server says when.
    """

    needs_hint: ClassVar[bool] = False


class OverloadedError(TransientError):
    """As much is waiting as the server takes."""

    needs_hint = True


class DeadlineTooShortError(TransientError):
    """The picture would not have been done in the time that was left, so the server did not begin."""

    needs_hint = True


class DeadlineExceededError(TransientError):
    """There was no answer in time."""


class UnavailableError(TransientError):
    """No server could be reached, the connection was lost, or the server is about to end."""


class AccessDeniedError(FaceBlurError):
    """This client may not call: its certificate is not on the server's list, or a proxy wants other credentials."""


class MessageTooLargeError(FaceBlurError):
    """A message is over a limit. The clients then send a picture in chunks, so this is rarely seen."""


class ProtocolError(FaceBlurError):
    """What answered breaks the contract: an older server, something else on the port, a result that is not whole."""


class ServerError(FaceBlurError):
    """The server failed; its log tells more under the request id."""


class ModelUnusableError(ServerError):
    """A model's file is missing on the server or is not the pinned one."""


class RuntimeUnavailableError(ServerError):
    """The inference runtime cannot run on the server."""


class ClientClosedError(FaceBlurError):
    """The client was closed before or during the call."""


_INVALID = grpc.StatusCode.INVALID_ARGUMENT
_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED

ERROR_OF: dict[tuple[grpc.StatusCode, str], type[FaceBlurError]] = {
    (_INVALID, "INVALID_OPTIONS"): InvalidOptionsError,
    (_INVALID, "IMAGE_ERROR"): InvalidImageError,
    (_INVALID, "EMPTY_IMAGE"): EmptyImageError,
    (_INVALID, "UNSUPPORTED_FORMAT"): UnsupportedFormatError,
    (_INVALID, "UNREADABLE_IMAGE"): UnreadableImageError,
    (_INVALID, "MULTIPLE_FRAMES"): MultipleFramesError,
    (_INVALID, "LIMIT_EXCEEDED"): LimitExceededError,
    (_INVALID, "MALFORMED_UPLOAD"): ProtocolError,
    (grpc.StatusCode.FAILED_PRECONDITION, "VERIFICATION_FAILED"): VerificationFailedError,
    (_EXHAUSTED, "OVERLOADED"): OverloadedError,
    (_EXHAUSTED, "DEADLINE_TOO_SHORT"): DeadlineTooShortError,
    (_EXHAUSTED, "MESSAGE_TOO_LARGE"): MessageTooLargeError,
    (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"): DeadlineExceededError,
    (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN"): UnavailableError,
    (grpc.StatusCode.PERMISSION_DENIED, "IDENTITY_NOT_ALLOWED"): AccessDeniedError,
    (grpc.StatusCode.INTERNAL, "INTERNAL"): ServerError,
    (grpc.StatusCode.INTERNAL, "ENGINE_ERROR"): ServerError,
    (grpc.StatusCode.INTERNAL, "MODEL_UNUSABLE"): ModelUnusableError,
    (grpc.StatusCode.INTERNAL, "RUNTIME_UNAVAILABLE"): RuntimeUnavailableError,
}
"""By code and reason of the contract."""

# By code alone: from gRPC itself, from a proxy, or with a reason that is newer than this SDK.
_BY_CODE: dict[grpc.StatusCode, tuple[type[FaceBlurError], str]] = {
    grpc.StatusCode.UNAVAILABLE: (
        UnavailableError,
        "no worker could be reached at {target}, or the connection was lost",
    ),
    grpc.StatusCode.CANCELLED: (UnavailableError, "the worker at {target} dropped the call before it began"),
    grpc.StatusCode.DEADLINE_EXCEEDED: (DeadlineExceededError, "there was no answer from {target} in time"),
    _EXHAUSTED: (MessageTooLargeError, "a message is too large for {target} or for this client"),
    _INVALID: (InvalidImageError, "{target} refused the picture"),
    grpc.StatusCode.PERMISSION_DENIED: (AccessDeniedError, "{target} does not let this client in"),
    grpc.StatusCode.UNAUTHENTICATED: (AccessDeniedError, "{target} does not know this client"),
    grpc.StatusCode.UNIMPLEMENTED: (ProtocolError, "what answers at {target} is no FaceBlur worker, or an older one"),
}


class Failure(Protocol):
    """A failed call, as both of gRPC's interfaces raise it."""

    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...
    def trailing_metadata(self) -> Any: ...


def error_from(failure: grpc.RpcError, target: str) -> FaceBlurError:
    """Return the error that a failed call means.

    Args:
        failure: Raised by gRPC's blocking or asyncio interface.
        target: What was called, for the message.
    """
    call = cast("Failure", failure)
    code, said = call.code(), call.details() or ""
    info, retry_after = _details(call)
    if info is None or (code, info.reason) not in ERROR_OF:
        kind, happened = _BY_CODE.get(code, (ServerError, "{target} failed"))
        reason = "" if info is None else info.reason
        # A server of ours that is newer than this SDK speaks for itself.
        message = said if info is not None else f"{happened.format(target=target)} ({code.name}: {said})"
        return kind(message, reason=reason, retry_after=retry_after)
    kind = ERROR_OF[code, info.reason]
    if kind is LimitExceededError:
        numbers = {name: int(info.metadata.get(name, "0")) for name in ("value", "allowed")}
        return LimitExceededError(said, limit=info.metadata.get("limit", ""), reason=info.reason, **numbers)
    return kind(said, reason=info.reason, retry_after=retry_after)


def status_from(error: FaceBlurError) -> status_pb2.Status:
    """Return the status with which a server means the error; `faceblur.testing` answers with it."""
    rows = [row for row, kind in ERROR_OF.items() if kind is type(error)]
    code, reason = next(
        (row for row in rows if row[1] == error.reason), rows[0] if rows else (grpc.StatusCode.INTERNAL, "INTERNAL")
    )
    metadata = {}
    if isinstance(error, LimitExceededError):
        metadata = {"limit": error.limit, "value": str(error.value), "allowed": str(error.allowed)}
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)]
    if error.retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromTimedelta(datetime.timedelta(seconds=error.retry_after))
        details.append(retry)
    status = status_pb2.Status(code=code.value[0], message=str(error))
    for detail in details:
        status.details.add().Pack(detail)
    return status


def _details(call: Failure) -> tuple[Any | None, float | None]:
    """The ErrorInfo of our domain and the retry hint, where there are such."""
    info, retry_after = None, None
    for key, value in call.trailing_metadata() or ():
        if key != DETAILS_KEY:
            continue
        try:
            details = status_pb2.Status.FromString(value).details
            for detail in details:
                candidate, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
                if detail.Unpack(candidate) and candidate.domain == DOMAIN:
                    info = candidate
                elif detail.Unpack(retry):
                    retry_after = retry.retry_delay.ToTimedelta().total_seconds()
        except DecodeError:
            continue  # something between us and the server wrote this; the code is what is left
    return info, retry_after
