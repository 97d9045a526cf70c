"""A FaceBlur server for your own tests: real gRPC on a loopback port of this process, with a stand-in for the engine.

It needs nothing but the SDK. No face is searched for: every picture has the faces that the test says, and the result
is a PNG of one grey and of the picture's size, never the picture::

    from faceblur import FaceBlurClient, OverloadedError
    from faceblur.testing import serving

    with serving() as server, FaceBlurClient(server.target) as client:
        server.fail_next(OverloadedError("busy", retry_after=0.01))
        assert client.blur("a.jpg").receipt.faces == server.faces
        assert [call.method for call in server.calls] == ["BlurImage", "BlurImage"]
"""

from __future__ import annotations

import contextlib
import hashlib
import struct
import threading
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias

import grpc
from google.rpc import status_pb2

from . import _messages
from ._errors import DETAILS_KEY, EmptyImageError, FaceBlurError, ProtocolError, UnsupportedFormatError, status_from
from ._types import Box, Face, Format, ModelInfo, Options, Profile, Receipt, Region, Shape
from ._version import __version__
from .v1 import errors_pb2, faceblur_service_pb2, faceblur_service_pb2_grpc, info_pb2, options_pb2

__all__ = ["FakeServer", "ReceivedCall", "serving"]

MODEL = ModelInfo("stand-in", "0" * 64, "python")
_REQUEST_ID_KEY = "x-request-id"
_CHUNK_BYTES = 64 * 1024
_THREADS = 32
_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}
_PARTS_OF_JPEG_WITH_SIZE = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}

Context: TypeAlias = "grpc.ServicerContext"


@dataclass(frozen=True, slots=True)
class ReceivedCall:
    """A picture that came in.

    Attributes:
        method: Of the contract, such as ``BlurImage``.
        image: The picture's bytes.
        options: What was asked for.
        request_id: As the client sent it.
    """

    method: str
    image: bytes = field(repr=False)
    options: Options
    request_id: str


class FakeServer:
    """A running server; `serving` makes one.

    Attributes:
        port: On 127.0.0.1.
        calls: What came in, in order.
        faces: What every picture has.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        max_message_bytes: int = 16 * 1024 * 1024,
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        """Start a server.

        Args:
            port: To listen on; 0: a free one.
            max_message_bytes: Largest message that is taken.
            credentials: For TLS. None: plain text.

        Raises:
            RuntimeError: The port is in use.
        """
        self.calls: list[ReceivedCall] = []
        self.faces: tuple[Face, ...] = (Face(Box(2, 2, 8, 10), 0.9, MODEL.name),)
        self._max_message_bytes = max_message_bytes
        self._failures: deque[FaceBlurError | grpc.StatusCode] = deque()
        self._lock = threading.Lock()
        self._free = threading.Event()
        self._free.set()
        self._waiting = threading.Semaphore(0)
        self._pool = ThreadPoolExecutor(_THREADS, "faceblur-testing")
        limits = [("grpc.max_receive_message_length", max_message_bytes), ("grpc.so_reuseport", 0)]
        self._server = grpc.server(self._pool, options=limits)
        faceblur_service_pb2_grpc.add_FaceBlurServiceServicer_to_server(_Servicer(self), self._server)
        address = f"127.0.0.1:{port}"
        if credentials is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, credentials)
        self._server.start()

    @property
    def target(self) -> str:
        """What a client dials."""
        return f"127.0.0.1:{self.port}"

    def fail_next(self, error: FaceBlurError | grpc.StatusCode, times: int = 1) -> None:
        """Let the next calls fail.

        Args:
            error: As a worker would answer with it; a status code alone stands for gRPC itself or a proxy.
            times: How many calls.
        """
        with self._lock:
            self._failures.extend([error] * times)

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Answer no call as long as the context lasts, like a server that hangs."""
        self._free.clear()
        try:
            yield
        finally:
            self._free.set()

    def wait_for_held(self, count: int = 1, timeout: float = 30) -> None:
        """Wait until so many more calls have come in and are being held.

        Raises:
            TimeoutError: They did not come.
        """
        for _ in range(count):
            if not self._waiting.acquire(timeout=timeout):
                raise TimeoutError(f"no call came within {timeout:g} s")

    def stop(self) -> None:
        """End at once, as a killed process does; calls inside are lost."""
        stopped = self._server.stop(None)
        self._free.set()
        stopped.wait()
        self._pool.shutdown()

    def _answer(
        self, method: str, image: bytes, message: options_pb2.Options, request_id: str
    ) -> tuple[bytes, Receipt]:
        """Take a call down and do what stands in for work.

        Raises:
            FaceBlurError: The test wants it, or the picture is none.
            _Bare: The test wants a status without details.
        """
        options = _messages.options_from(message)
        with self._lock:
            self.calls.append(ReceivedCall(method, image, options, request_id))
            failure = self._failures.popleft() if self._failures else None
        if not self._free.is_set():
            self._waiting.release()
            self._free.wait()
        if isinstance(failure, grpc.StatusCode):
            raise _Bare(failure)
        if failure is not None:
            raise failure
        kind, width, height = _measure(image)
        result = b"" if method.startswith("Detect") else _grey(width, height)
        regions = tuple(Region(face.box, Shape.BOX, 0) for face in self.faces)
        receipt = Receipt(
            version=__version__,
            input_sha256=hashlib.sha256(image).hexdigest(),
            output_sha256=hashlib.sha256(result).hexdigest() if result else None,
            input_bytes=len(image),
            output_bytes=len(result),
            format=kind,
            output_format=Format.PNG if result else None,
            width=width,
            height=height,
            faces=self.faces,
            regions=regions + tuple(Region(box, Shape.BOX, 0) for box in options.regions),
            models=(MODEL,),
            options=options,
            milliseconds={"total": 0.0},
        )
        return result, receipt


@contextlib.contextmanager
def serving(
    *, port: int = 0, max_message_bytes: int = 16 * 1024 * 1024, credentials: grpc.ServerCredentials | None = None
) -> Iterator[FakeServer]:
    """Run a server as long as the context lasts. Arguments and errors are those of `FakeServer`."""
    server = FakeServer(port=port, max_message_bytes=max_message_bytes, credentials=credentials)
    try:
        yield server
    finally:
        server.stop()


class _Bare(Exception):
    """A status without details."""

    def __init__(self, code: grpc.StatusCode) -> None:
        super().__init__(code.name)
        self.code = code


class _Servicer(faceblur_service_pb2_grpc.FaceBlurServiceServicer):
    """The contract on top of `FakeServer._answer`."""

    def __init__(self, server: FakeServer) -> None:
        self._server = server

    def BlurImage(self, request: Any, context: Any) -> Any:  # noqa: N802  names fixed by the contract
        image, receipt = self._do("BlurImage", request, context)
        return faceblur_service_pb2.BlurImageResponse(image=image, receipt=_messages.receipt_to(receipt))

    def DetectFaces(self, request: Any, context: Any) -> Any:  # noqa: N802
        _, receipt = self._do("DetectFaces", request, context)
        return faceblur_service_pb2.DetectFacesResponse(receipt=_messages.receipt_to(receipt))

    def BlurLargeImage(self, request_iterator: Any, context: Any) -> Any:  # noqa: N802
        image, receipt = self._do("BlurLargeImage", self._collected(request_iterator, context), context)
        header = faceblur_service_pb2.DownloadHeader(receipt=_messages.receipt_to(receipt), total_bytes=len(image))
        yield faceblur_service_pb2.BlurLargeImageResponse(header=header)
        for start in range(0, len(image), _CHUNK_BYTES):
            yield faceblur_service_pb2.BlurLargeImageResponse(chunk=image[start : start + _CHUNK_BYTES])

    def DetectLargeImage(self, request_iterator: Any, context: Any) -> Any:  # noqa: N802
        _, receipt = self._do("DetectLargeImage", self._collected(request_iterator, context), context)
        return faceblur_service_pb2.DetectLargeImageResponse(receipt=_messages.receipt_to(receipt))

    def BlurImages(self, request_iterator: Any, context: Any) -> Any:  # noqa: N802
        for request in request_iterator:
            answer = faceblur_service_pb2.BlurImagesResponse(id=request.id)
            try:
                image, receipt = self._server._answer("BlurImages", request.image, request.options, _id_of(context))
                answer.result.image = image
                answer.result.receipt.CopyFrom(_messages.receipt_to(receipt))
            except (FaceBlurError, _Bare) as error:
                status = _status_of(error)
                failure = errors_pb2.PictureError(code=status.code, message=status.message, details=status.details)
                answer.error.CopyFrom(failure)
            yield answer

    def GetInfo(self, request: Any, context: Any) -> Any:  # noqa: N802
        return info_pb2.GetInfoResponse(
            version=__version__,
            profiles=[number for number in options_pb2.Profile.values() if number],
            methods=[number for number in options_pb2.Method.values() if number],
            models=[info_pb2.LoadedModel(name=MODEL.name, sha256=MODEL.sha256, runtime=MODEL.runtime)],
            defaults=_messages.options_to(Options(profile=Profile.BALANCED)),
            max_message_bytes=self._server._max_message_bytes,
            max_stream_in_flight=1,
            concurrency=_THREADS,
            input_formats=[number for number in options_pb2.Format.values() if number],
        )

    def _do(self, method: str, request: Any, context: Any) -> tuple[bytes, Receipt]:
        request_id = _id_of(context)
        context.set_trailing_metadata(((_REQUEST_ID_KEY, request_id),))
        try:
            return self._server._answer(method, request.image, request.options, request_id)
        except (FaceBlurError, _Bare) as error:
            _abort(context, error)

    def _collected(self, parts: Iterable[Any], context: Any) -> Any:
        """The picture of an upload, as the request of one message."""
        image, header = bytearray(), None
        for part in parts:
            if part.WhichOneof("part") == "header":
                header = part.header
            image += part.chunk
        if header is None or header.total_bytes != len(image):
            _abort(context, ProtocolError("the upload is not whole"))
        return faceblur_service_pb2.BlurImageRequest(image=bytes(image), options=header.options)


def _id_of(context: Any) -> str:
    return str(dict(context.invocation_metadata()).get(_REQUEST_ID_KEY, ""))


def _status_of(error: FaceBlurError | _Bare) -> status_pb2.Status:
    if isinstance(error, _Bare):
        return status_pb2.Status(code=error.code.value[0], message=str(error))
    return status_from(error)


def _abort(context: Any, error: FaceBlurError | _Bare) -> NoReturn:
    status = _status_of(error)
    details = ((DETAILS_KEY, status.SerializeToString()),) if status.details else ()
    context.set_trailing_metadata(((_REQUEST_ID_KEY, _id_of(context)), *details))
    context.abort(_BY_NUMBER[status.code], status.message)
    raise AssertionError("abort raises")


def _measure(image: bytes) -> tuple[Format, int, int]:
    """Format and size in pixels; the size of what is neither PNG nor JPEG is taken to be 16 x 16.

    Raises:
        EmptyImageError: There are no bytes.
        UnsupportedFormatError: They do not begin like a picture.
    """
    if not image:
        raise EmptyImageError("the picture is empty")
    if image.startswith(b"\x89PNG\r\n\x1a\n") and len(image) >= 24:
        width, height = struct.unpack(">II", image[16:24])
        return Format.PNG, width, height
    if image.startswith(b"\xff\xd8\xff"):
        return (Format.JPEG, *_size_of_jpeg(image))
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return Format.WEBP, 16, 16
    if image[:4] in (b"II*\0", b"MM\0*"):
        return Format.TIFF, 16, 16
    if image[4:8] == b"ftyp":
        return (Format.AVIF if image[8:12] == b"avif" else Format.HEIC), 16, 16
    raise UnsupportedFormatError("the content is not that of a picture")


def _size_of_jpeg(image: bytes) -> tuple[int, int]:
    at = 2
    while at + 9 <= len(image):
        marker, length = image[at + 1], int.from_bytes(image[at + 2 : at + 4], "big")
        if marker in _PARTS_OF_JPEG_WITH_SIZE:
            height, width = struct.unpack(">HH", image[at + 5 : at + 9])
            return width, height
        at += 2 + length
    return 16, 16


def _grey(width: int, height: int) -> bytes:
    """A PNG of 2 bits per pixel, all of one grey."""

    def part(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    row = b"\0" + b"\xaa" * ((width * 2 + 7) // 8)
    deflate = zlib.compressobj(1)
    pixels = b"".join(deflate.compress(row) for _ in range(height)) + deflate.flush()
    header = struct.pack(">IIBBBBB", width, height, 2, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", pixels) + part(b"IEND", b"")
