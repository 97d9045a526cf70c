"""Serves faceblur.v1.FaceBlurService on top of an engine. Translates and carries; the gate decides."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
from collections.abc import Iterator
from typing import Protocol

from faceblur.v1 import errors_pb2, faceblur_service_pb2, info_pb2, options_pb2
from faceblur_engine.errors import LimitExceeded
from faceblur_engine.models import MODELS
from faceblur_engine.types import Format, Options, Receipt, Result

from . import translate
from .admission import Gate, Ticket
from .calls import Call
from .config import WorkerSettings
from .engine import Engine
from .errors import MalformedUpload, Overloaded, Refusal, ShuttingDown, Stalled
from .metrics import Metrics
from .statuses import INTERNAL, reason_of, status_of
from .tracing import Tracing

_CHUNK_BYTES = 512 * 1024
_MAX_ID_BYTES = 1024

log = logging.getLogger(__name__)


class FaceBlurServicer:
    """The methods of the contract; `Calls.register` finds them by name."""

    def __init__(
        self, engine: Engine, gate: Gate, metrics: Metrics, tracing: Tracing, settings: WorkerSettings, version: str
    ) -> None:
        self._engine = engine
        self._gate = gate
        self._metrics = metrics
        self._tracing = tracing
        self._settings = settings
        self._defaults = {profile: settings.default_options(profile) for profile in settings.profiles}
        self._chunk_bytes = min(_CHUNK_BYTES, settings.max_message_bytes // 2)
        self._streams = 0
        self._info = self._describe(version)

    async def GetInfo(self, call: Call) -> None:  # noqa: N802  name fixed by the contract
        """Tell what the worker is and can do."""
        await call.request()
        await call.write(self._info)

    async def BlurImage(self, call: Call) -> None:  # noqa: N802
        """Obscure one picture."""
        with self._counted(), self._gate.ticket(call.remaining()) as ticket:
            request = await call.request()
            options = self._options(request)
            image = request.image
            ticket.received(len(image))
            del request
            result = await self._redact(ticket, image, options)
            response = faceblur_service_pb2.BlurImageResponse()
            _fill(response, result, options)
            await call.write(response)
            self._note(result.receipt, ticket)

    async def BlurImages(self, call: Call) -> None:  # noqa: N802
        """Obscure the pictures of a stream, several at a time."""
        if self._gate.closing.is_set():
            raise _ending()
        if self._streams >= self._settings.max_streams:
            raise Overloaded(f"{self._streams} streams are open already; try again later", retry_after=1.0)
        self._streams += 1
        window = asyncio.Semaphore(self._settings.max_stream_in_flight)
        try:
            async with asyncio.TaskGroup() as pictures:
                while (request := await self._next(call, window)) is not None:
                    pictures.create_task(self._answer(call, request, window))
                    del request
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None  # all of them come from the one connection
        finally:
            self._streams -= 1
        if self._gate.closing.is_set():
            raise _ending()

    async def BlurLargeImage(self, call: Call) -> None:  # noqa: N802
        """Obscure one picture that comes and goes in chunks."""
        with self._counted(), self._gate.ticket(call.remaining()) as ticket:
            image, options = await self._upload(call, ticket)
            result = await self._redact(ticket, image, options)
            del image
            receipt = translate.receipt_to(result.receipt, options)
            header = faceblur_service_pb2.DownloadHeader(receipt=receipt, total_bytes=len(result.image))
            await call.write(faceblur_service_pb2.BlurLargeImageResponse(header=header))
            for start in range(0, len(result.image), self._chunk_bytes):
                chunk = result.image[start : start + self._chunk_bytes]
                await call.write(faceblur_service_pb2.BlurLargeImageResponse(chunk=chunk))
            self._note(result.receipt, ticket)

    async def DetectFaces(self, call: Call) -> None:  # noqa: N802
        """Find the faces in one picture."""
        with self._counted(), self._gate.ticket(call.remaining()) as ticket:
            request = await call.request()
            options = self._options(request)
            ticket.received(len(request.image))
            receipt = await self._detect(ticket, request.image, options)
            await call.write(faceblur_service_pb2.DetectFacesResponse(receipt=translate.receipt_to(receipt, options)))
            self._note(receipt, ticket)

    async def DetectLargeImage(self, call: Call) -> None:  # noqa: N802
        """Find the faces in one picture that comes in chunks."""
        with self._counted(), self._gate.ticket(call.remaining()) as ticket:
            image, options = await self._upload(call, ticket)
            receipt = await self._detect(ticket, image, options)
            await call.write(
                faceblur_service_pb2.DetectLargeImageResponse(receipt=translate.receipt_to(receipt, options))
            )
            self._note(receipt, ticket)

    async def _next(self, call: Call, window: asyncio.Semaphore) -> faceblur_service_pb2.BlurImagesRequest | None:
        """The next picture of a stream, once there is room for it; None at the end of the stream, or of the worker."""
        await window.acquire()
        reading = asyncio.ensure_future(call.read(patiently=True))
        closing = asyncio.ensure_future(self._gate.closing.wait())
        try:
            await asyncio.wait((reading, closing), return_when=asyncio.FIRST_COMPLETED)
            return reading.result() if reading.done() else None
        finally:
            reading.cancel()
            closing.cancel()

    async def _answer(
        self, call: Call, request: faceblur_service_pb2.BlurImagesRequest, window: asyncio.Semaphore
    ) -> None:
        """Answer one picture of a stream, with its result or with its error."""
        response = faceblur_service_pb2.BlurImagesResponse(id=request.id)
        try:
            with self._counted():
                if len(request.id.encode()) > _MAX_ID_BYTES:
                    raise MalformedUpload(f"the id of a picture has more than {_MAX_ID_BYTES} bytes")
                options = self._options(request)
                async with self._gate.patient_ticket(call.remaining(), len(request.image)) as ticket:
                    result = await self._redact(ticket, request.image, options)
                    _fill(response.result, result, options)
                    await call.write(response)
                    self._note(result.receipt, ticket)
        except Stalled:
            raise
        except Exception as error:
            if reason_of(error) == INTERNAL:
                log.exception("a picture of a stream failed; this is a defect, please report it")
            status = status_of(error, call.request_id)
            failure = errors_pb2.PictureError(code=status.code, message=status.message, details=status.details)
            await call.write(faceblur_service_pb2.BlurImagesResponse(id=request.id[:_MAX_ID_BYTES], error=failure))
        finally:
            window.release()

    async def _upload(self, call: Call, ticket: Ticket) -> tuple[bytes, Options]:
        """Read a picture that comes in chunks; its announced length decides before it is read."""
        first = await call.request()
        if first.WhichOneof("part") != "header":
            raise MalformedUpload("the first part of an upload has to be its header")
        options = self._options(first.header)
        total = first.header.total_bytes
        if total > options.limits.max_bytes:
            raise LimitExceeded("max_bytes", total, options.limits.max_bytes)
        ticket.received(total)
        image = bytearray()
        while (part := await call.read()) is not None:
            if part.WhichOneof("part") != "chunk":
                raise MalformedUpload("an upload has one header, then only chunks")
            image += part.chunk
            if len(image) > total:
                raise MalformedUpload(f"the header announced {total} bytes, and more came")
        if len(image) < total:
            raise MalformedUpload(f"the header announced {total} bytes, and {len(image)} came")
        return bytes(image), options

    async def _redact(self, ticket: Ticket, image: bytes, options: Options) -> Result:
        return await self._gate.run(ticket, lambda: self._engine.redact(image, options, checkpoint=ticket.checkpoint))

    async def _detect(self, ticket: Ticket, image: bytes, options: Options) -> Receipt:
        return await self._gate.run(ticket, lambda: self._engine.detect(image, options, checkpoint=ticket.checkpoint))

    def _options(self, request: _WithOptions) -> Options:
        return translate.options_from(request.options, self._defaults)

    def _note(self, receipt: Receipt, ticket: Ticket) -> None:
        self._metrics.done(receipt, ticket.waited)
        self._tracing.picture(receipt, ticket.waited)

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        """Count a picture that gets no result, by its reason."""
        try:
            yield
        except BaseException as error:
            reason = reason_of(error) if isinstance(error, Exception) else "CANCELLED"
            self._metrics.pictures.labels(reason).inc()
            if isinstance(error, Refusal):
                self._metrics.refusals.labels(reason).inc()
            raise

    def _describe(self, version: str) -> info_pb2.GetInfoResponse:
        settings = self._settings
        known = {model.name: model for model in MODELS}
        info = info_pb2.GetInfoResponse(
            version=version,
            profiles=[number for number, profile in translate.PROFILES.items() if profile in settings.profiles],
            methods=list(translate.METHODS),
            defaults=translate.options_to(self._defaults[settings.profiles[0]]),
            max_message_bytes=settings.max_message_bytes,
            max_stream_in_flight=settings.max_stream_in_flight,
            concurrency=self._gate.workers,
            input_formats=[number for number, kind in translate.FORMATS.items() if _is_readable(kind)],
        )
        for model in self._engine.models:
            loaded = info.models.add(name=model.name, sha256=model.sha256, runtime=model.runtime)
            if origin := known.get(model.name):
                loaded.license, loaded.origin = origin.licence, origin.source
        return info


class _WithOptions(Protocol):
    @property
    def options(self) -> options_pb2.Options: ...


def _fill(response: faceblur_service_pb2.BlurImageResponse, result: Result, options: Options) -> None:
    response.image = result.image
    response.receipt.CopyFrom(translate.receipt_to(result.receipt, options))


def _is_readable(kind: Format) -> bool:
    return kind is not Format.HEIC or importlib.util.find_spec("pi_heif") is not None


def _ending() -> ShuttingDown:
    return ShuttingDown("this worker is about to end; send what has no answer to another one", retry_after=0.1)
