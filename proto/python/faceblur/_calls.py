"""What a call consists of: attempts, pauses, which way a picture goes. No input or output happens here.

Both clients need the same decisions, one blocking and one with asyncio. So each call is a generator that says what it
wants done (`Invoke`, `Pause`) and gets the answer sent, or gRPC's error thrown, by whoever drives it (see `_client`).
"""

from __future__ import annotations

import itertools
import math
import random
import time
import uuid
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import grpc

from ._config import RetryConfig
from ._errors import (
    DeadlineExceededError,
    FaceBlurError,
    MessageTooLargeError,
    ProtocolError,
    TransientError,
    error_from,
)
from ._messages import info_from, options_to, receipt_from, result_from
from ._types import BlurResult, Options, Receipt, ServerInfo
from .v1 import faceblur_service_pb2, info_pb2, options_pb2

T = TypeVar("T")

REQUEST_ID_KEY = "x-request-id"
CHUNK_BYTES = 60 * 1024  # no worker has a limit below 64 KiB
# Below the limit that workers have by default, so that there is room for what surrounds the picture. A worker with a
# lower limit refuses, and the picture goes in chunks.
MESSAGE_BYTES = 15 * 1024 * 1024
SMALL_BYTES = 32 * 1024  # every worker takes messages of twice that


@dataclass(frozen=True, slots=True)
class Upload:
    """A picture in parts, as `BlurLargeImage` and `DetectLargeImage` take it; can be iterated for every attempt."""

    part: Any
    image: bytes
    options: options_pb2.Options

    def __iter__(self) -> Iterator[Any]:
        """The header, then the chunks."""
        header = faceblur_service_pb2.UploadHeader(options=self.options, total_bytes=len(self.image))
        yield self.part(header=header)
        view = memoryview(self.image)
        for start in range(0, len(view), CHUNK_BYTES):
            yield self.part(chunk=bytes(view[start : start + CHUNK_BYTES]))


@dataclass(frozen=True, slots=True)
class Invoke:
    """Asks for one attempt of a call; the answer is a message, or a list of them from a method that streams."""

    method: str
    request: Any
    timeout: float
    metadata: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Pause:
    """Asks for time to pass."""

    seconds: float


Work: TypeAlias = Generator[Invoke | Pause, Any, T]


class Calls:
    """Makes the calls of one client.

    Attributes:
        target: What is called.
        timeout: Seconds that a call may take, if it has no time of its own.
    """

    def __init__(self, target: str, timeout: float, retry: RetryConfig) -> None:
        self.target = target
        self.timeout = checked_timeout(timeout)
        self._retry = retry
        self._message_bytes = MESSAGE_BYTES

    def blur(
        self, image: bytes, name: str, options: Options | None, timeout: float | None, request_id: str | None
    ) -> Work[BlurResult]:
        """Obscure the faces of one picture."""
        call = self._begin(name, timeout, request_id)
        with call.named():
            wanted = options_to(options)
            if len(image) <= self._message_bytes:
                try:
                    request = faceblur_service_pb2.BlurImageRequest(image=image, options=wanted)
                    response = yield from call.attempts("BlurImage", request)
                    return _whole(response.image, len(response.image), response.receipt)
                except MessageTooLargeError as error:
                    self._learn(error, len(image))
            upload = Upload(faceblur_service_pb2.BlurLargeImageRequest, image, wanted)
            parts = yield from call.attempts("BlurLargeImage", upload)
            if not parts or parts[0].WhichOneof("part") != "header":
                raise ProtocolError(f"the result from {self.target} does not begin with its header")
            result = b"".join(part.chunk for part in parts)
            return _whole(result, parts[0].header.total_bytes, parts[0].header.receipt)

    def detect(
        self, image: bytes, name: str, options: Options | None, timeout: float | None, request_id: str | None
    ) -> Work[Receipt]:
        """Find the faces of one picture."""
        call = self._begin(name, timeout, request_id)
        with call.named():
            wanted = options_to(options)
            if len(image) <= self._message_bytes:
                try:
                    request = faceblur_service_pb2.DetectFacesRequest(image=image, options=wanted)
                    response = yield from call.attempts("DetectFaces", request)
                    return receipt_from(response.receipt)
                except MessageTooLargeError as error:
                    self._learn(error, len(image))
            upload = Upload(faceblur_service_pb2.DetectLargeImageRequest, image, wanted)
            response = yield from call.attempts("DetectLargeImage", upload)
            return receipt_from(response.receipt)

    def info(self, timeout: float | None) -> Work[ServerInfo]:
        """Ask what the server is."""
        call = self._begin("", timeout, None)
        with call.named():
            return info_from((yield from call.attempts("GetInfo", info_pb2.GetInfoRequest())))

    def _begin(self, name: str, timeout: float | None, request_id: str | None) -> _Call:
        seconds = self.timeout if timeout is None else checked_timeout(timeout)
        return _Call(self.target, self._retry, seconds, name, request_id or uuid.uuid4().hex)

    def _learn(self, error: MessageTooLargeError, size: int) -> None:
        """Do not send a picture of that size again to be refused; if only the result was too large, others may fit.

        Raises:
            MessageTooLargeError: A small picture is over no server's limit, so something else is exhausted.
        """
        if not error.reason:
            if size < SMALL_BYTES:
                raise error
            self._message_bytes = min(self._message_bytes, size - 1)


class _Call:
    """One call with all its attempts."""

    def __init__(self, target: str, retry: RetryConfig, timeout: float, name: str, request_id: str) -> None:
        self._target = target
        self._retry = retry
        self._timeout = timeout
        self._end = time.monotonic() + timeout
        self._name = name
        self._request_id = request_id
        self._attempt = 1

    def named(self) -> _Named:
        """Errors raised within tell which picture and which call they belong to."""
        return _Named(self._name, self._request_id, self)

    @property
    def attempt(self) -> int:
        """How many attempts have been made."""
        return self._attempt

    def attempts(self, method: str, request: Any) -> Work[Any]:
        """Try until there is an answer, an error that repeating does not mend, or no attempt or time left."""
        for self._attempt in itertools.count(1):
            left = self._end - time.monotonic()
            if left <= 0:
                raise DeadlineExceededError(f"there was no answer from {self._target} within {self._timeout:g} s")
            timeout = min(left, self._retry.attempt_timeout or left)
            try:
                return (yield Invoke(method, request, timeout, ((REQUEST_ID_KEY, self._request_id),)))
            except grpc.RpcError as failure:
                error = error_from(failure, self._target)
                pause = self._pause(error)
                if pause is None:
                    raise error from failure
            yield Pause(pause)
        raise AssertionError("unreachable")

    def _pause(self, error: FaceBlurError) -> float | None:
        """Seconds until the next attempt; None: there is none."""
        if not isinstance(error, TransientError) or (error.needs_hint and error.retry_after is None):
            return None
        if self._attempt >= self._retry.attempts:
            return None
        growing = self._retry.first_pause * self._retry.factor ** min(self._attempt - 1, 30)  # a float ends somewhere
        pause = min(growing, self._retry.longest_pause) * random.uniform(0.5, 1)  # noqa: S311  not a secret
        if error.retry_after is not None:
            pause = max(pause, error.retry_after * random.uniform(1, 1.25))  # noqa: S311
        return pause if time.monotonic() + pause < self._end else None


class _Named:
    """See `_Call.named`."""

    def __init__(self, name: str, request_id: str, call: _Call) -> None:
        self._name = name
        self._request_id = request_id
        self._call = call

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if isinstance(error, FaceBlurError):
            error.source = self._name
            error.request_id = self._request_id
            error.attempts = self._call.attempt


def checked_timeout(timeout: float) -> float:
    """Return the timeout.

    Raises:
        ValueError: It is not a number of seconds above 0.
    """
    if not 0 < timeout < math.inf:
        raise ValueError(f"timeout is {timeout} s, it has to be above 0 and finite")
    return timeout


def content_of(source: Any) -> bytes:
    """Return the bytes of a picture.

    Args:
        source: Its bytes, its path, or a file.

    Raises:
        OSError: The file cannot be read.
        TypeError: It is none of these.
    """
    if isinstance(source, bytes):
        return source
    if isinstance(source, bytearray | memoryview):
        return bytes(source)
    if isinstance(source, str) or hasattr(source, "__fspath__"):
        return Path(source).read_bytes()
    if hasattr(source, "read"):
        content = source.read()
        if not isinstance(content, bytes):
            raise TypeError(f"read() of the picture's file gave {type(content).__name__}; open it in binary mode")
        return content
    raise TypeError(f"a picture is bytes, a path or a binary file, not {type(source).__name__}")


def name_of(source: Any) -> str:
    """Return the path of a picture, as far as it is known."""
    if isinstance(source, str) or hasattr(source, "__fspath__"):
        return str(source)
    name = getattr(source, "name", "")
    return name if isinstance(name, str) else ""


def _whole(image: bytes, announced: int, receipt: Any) -> BlurResult:
    """The result, if it is as long as was announced and as its receipt says."""
    if not image or len(image) != announced or len(image) != receipt.output_bytes:
        raise ProtocolError(
            f"the result is not whole: {len(image)} bytes came of {max(announced, receipt.output_bytes)}"
        )
    return result_from(image, receipt)
