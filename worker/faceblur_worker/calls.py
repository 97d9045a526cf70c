"""What every call has around it: a request id, who may call, the status of its error, metrics, one log line, a trace.

All methods are registered as bidirectional streams, whatever the contract says, which on the wire is the same: gRPC's
own unary methods receive the whole request before any of our code runs, and count an answer as given before the
client has taken it, so the one could not be refused early and the other not be bounded.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Collection
from contextvars import ContextVar
from typing import Any, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from faceblur.v1 import faceblur_service_pb2

from .errors import IdentityNotAllowed, MalformedUpload, ResultTooLarge, Stalled
from .metrics import Metrics
from .statuses import BY_NUMBER, DETAILS_KEY, INTERNAL, reason_of, status_of
from .tracing import Tracing

SERVICE = faceblur_service_pb2.DESCRIPTOR.services_by_name["FaceBlurService"]
REQUEST_ID_KEY = "x-request-id"

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_VALID_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
_IDENTITY_KEYS = ("x509_subject_alternative_name", "x509_common_name")

log = logging.getLogger(__name__)


def log_context() -> dict[str, str]:
    """What the log lines of a call have in common."""
    request_id = _REQUEST_ID.get()
    return {"request_id": request_id} if request_id else {}


class Call:
    """One call as the methods of the service see it: messages in and out, each within the time for a transfer."""

    def __init__(self, context: Context, request_id: str, transfer_seconds: float, max_message_bytes: int) -> None:
        self.request_id = request_id
        self._context = context
        self._transfer_seconds = transfer_seconds
        self._max_message_bytes = max_message_bytes
        self._writing = asyncio.Lock()
        self._begun = False
        self._stalled: Stalled | None = None

    def remaining(self) -> float | None:
        """Return the seconds until the deadline, None without one."""
        return self._context.time_remaining()

    async def read(self, *, patiently: bool = False) -> Any | None:
        """Return the next message, None at the end of the client's stream.

        Args:
            patiently: It may take as long as the call lasts.

        Raises:
            Stalled: It does not come in time.
        """
        try:
            async with asyncio.timeout(None if patiently else self._transfer_seconds):
                message = await self._context.read()
        except TimeoutError as error:
            raise Stalled(f"the request did not arrive within {self._transfer_seconds:g} s") from error
        return None if message is grpc.aio.EOF else message

    async def request(self) -> Any:
        """Return the first message.

        Raises:
            Stalled: It does not come in time.
            MalformedUpload: The stream ends instead.
        """
        message = await self.read()
        if message is None:
            raise MalformedUpload("the call ended before its request was complete")
        return message

    async def write(self, message: Message) -> None:
        """Send a message, one at a time; returns when the client's flow control has let it go.

        Raises:
            ResultTooLarge: It is over the limit; nothing has been sent.
            Stalled: The client does not take it, or did not take an earlier one, in time.
        """
        size = message.ByteSize()
        if size > self._max_message_bytes:
            raise ResultTooLarge(
                f"the result takes {size} bytes, a message at most {self._max_message_bytes}; use BlurLargeImage"
            )
        async with self._writing:
            if self._stalled:
                raise self._stalled
            try:
                async with asyncio.timeout(self._transfer_seconds):
                    if not self._begun:
                        # Not together with the message: if that stalls, gRPC would want to send the metadata again
                        # with the status, fail, and leave the client without an answer.
                        await self._context.send_initial_metadata(())
                        self._begun = True
                    await self._context.write(message)
            except TimeoutError:
                self._stalled = Stalled(f"the result was not taken within {self._transfer_seconds:g} s")
                raise self._stalled from None


Method: TypeAlias = Callable[[Call], Awaitable[None]]


class Calls:
    """Registers the methods of the service with everything that belongs around them."""

    def __init__(
        self,
        *,
        metrics: Metrics,
        tracing: Tracing,
        allowed_identities: Collection[str],
        transfer_seconds: float,
        max_message_bytes: int,
    ) -> None:
        self._metrics = metrics
        self._tracing = tracing
        self._allowed = frozenset(allowed_identities)
        self._transfer_seconds = transfer_seconds
        self._max_message_bytes = max_message_bytes

    def register(self, server: grpc.aio.Server, servicer: object) -> None:
        """Make the server answer every method of the contract with the servicer's method of that name."""
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        for method in SERVICE.methods:
            request = GetMessageClass(method.input_type)
            response = GetMessageClass(method.output_type)
            handlers[method.name] = grpc.stream_stream_rpc_method_handler(
                self._around(method.name, getattr(servicer, method.name)),
                request.FromString,
                response.SerializeToString,
            )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE.full_name, handlers),))

    def _around(self, name: str, method: Method) -> Callable[[object, Context], Awaitable[None]]:
        seconds = self._metrics.seconds.labels(name)
        ok = self._metrics.requests.labels(name, grpc.StatusCode.OK.name)

        async def handle(_: object, context: Context) -> None:
            began = time.perf_counter()
            metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
            request_id = _request_id(metadata)
            token = _REQUEST_ID.set(request_id)
            code, reason = grpc.StatusCode.OK, ""
            try:
                with self._tracing.call(name, metadata, request_id):
                    self._check_identity(context)
                    await method(Call(context, request_id, self._transfer_seconds, self._max_message_bytes))
                context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))
            except asyncio.CancelledError:
                late = context.time_remaining()
                code = grpc.StatusCode.CANCELLED if late is None or late > 0 else grpc.StatusCode.DEADLINE_EXCEEDED
                raise
            except Exception as error:
                status = status_of(error, request_id)
                code, reason = BY_NUMBER[status.code], reason_of(error)
                if reason == INTERNAL:
                    log.exception("%s failed; this is a defect, please report it", name)
                trailing = ((REQUEST_ID_KEY, request_id), (DETAILS_KEY, status.SerializeToString()))
                # A client that takes nothing does not take its status either; the end of its connection's age ends it.
                async with asyncio.timeout(self._transfer_seconds):
                    await context.abort(code, status.message, trailing)
            finally:
                took = time.perf_counter() - began
                seconds.observe(took)
                (ok if code is grpc.StatusCode.OK else self._metrics.requests.labels(name, code.name)).inc()
                if log.isEnabledFor(logging.INFO):
                    extra = {"method": name, "code": code.name, "seconds": round(took, 4)}
                    log.info("call", extra={**extra, "reason": reason} if reason else extra)
                _REQUEST_ID.reset(token)

        return handle

    def _check_identity(self, context: Context) -> None:
        if not self._allowed:
            return
        shown = context.auth_context()
        names = {name.decode(errors="replace") for key in _IDENTITY_KEYS for name in shown.get(key, ())}
        if not names & self._allowed:
            raise IdentityNotAllowed("the certificate of this client names nobody who may call")


def _request_id(metadata: dict[str, str]) -> str:
    given = metadata.get(REQUEST_ID_KEY, "")
    return given if _VALID_ID.fullmatch(given) else uuid.uuid4().hex
