"""The clients. All that they decide is in `_calls`; here it is done, once blocking and once with asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
import grpc.aio

from . import _calls
from ._calls import Calls, Invoke, Work
from ._config import KeepaliveConfig, RetryConfig, TlsConfig, channel_credentials, channel_options, target_of
from ._errors import ClientClosedError, FaceBlurError
from ._types import BlurResult, Options, Outcome, Receipt, ServerInfo, Source, SourceT
from .v1 import faceblur_service_pb2_grpc

T = TypeVar("T")

_TIMEOUT = 60.0
_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_CONCURRENCY = 8
_CLOSED = "the client was closed"
_SENDING_FAILED = "Internal error from Core"


class FaceBlurClient:
    """Sends pictures to FaceBlur workers; to be used by any number of threads at once.

    The connection is made by the first call. Close the client, or use it as a context manager.
    """

    def __init__(
        self,
        server: str,
        *,
        tls: TlsConfig | None = None,
        timeout: float = _TIMEOUT,
        retry: RetryConfig | None = None,
        keepalive: KeepaliveConfig | None = None,
        max_message_bytes: int = _MAX_MESSAGE_BYTES,
    ) -> None:
        """Prepare a client; nothing is connected yet.

        Args:
            server: ``HOST:PORT``, or a gRPC target such as ``dns:///HOST:PORT`` or
                ``ipv4:10.0.0.1:50051,10.0.0.2:50051``. Calls go in turn to all addresses that it has.
            tls: How to prove who is who. None: no encryption and no proof.
            timeout: Seconds that a call may take with all its attempts, unless the call says otherwise.
            retry: When a call is tried again.
            keepalive: How dead connections are found.
            max_message_bytes: Largest message that is taken; larger results come in chunks.

        Raises:
            ValueError: The server is not an address, or the timeout not above 0.
            OSError: A file of `tls` cannot be read.
        """
        self._calls = Calls(target_of(server), timeout, retry or RetryConfig())
        options = channel_options(keepalive or KeepaliveConfig(), max_message_bytes, tls)
        if tls is None:
            self._channel = grpc.insecure_channel(self._calls.target, options)
        else:
            self._channel = grpc.secure_channel(self._calls.target, channel_credentials(tls), options)
        self._stub = faceblur_service_pb2_grpc.FaceBlurServiceStub(self._channel)
        self._lock = threading.Lock()
        self._groups: set[_Group] = set()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; calls that other threads wait for end with `ClientClosedError`."""
        with self._lock:
            self._closed = True
            groups = list(self._groups)
        for group in groups:
            group.stop()
        self._channel.close()

    def blur(
        self,
        source: Source,
        options: Options | None = None,
        *,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> BlurResult:
        """Obscure the faces in one picture.

        Args:
            source: The picture: bytes, a path, or an open binary file.
            options: What is asked for. None: the server's defaults.
            timeout: Seconds for all attempts together. None: the client's.
            request_id: Under which the worker logs the call, up to 64 letters, digits and "-_.:". None: a random one.

        Returns:
            The obscured picture and what was done to it.

        Raises:
            FaceBlurError: There is no result; see `InvalidImageError`, `TransientError` and the others.
            OSError: The file cannot be read.
        """
        image = _calls.content_of(source)
        work = self._calls.blur(image, _calls.name_of(source), options, timeout, request_id)
        with self._group() as group:
            return self._perform(work, group)

    def detect(
        self,
        source: Source,
        options: Options | None = None,
        *,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> Receipt:
        """Find the faces in one picture; only coordinates leave the worker.

        Args:
            source: The picture: bytes, a path, or an open binary file.
            options: What is asked for; what concerns a result has no effect. None: the server's defaults.
            timeout: Seconds for all attempts together. None: the client's.
            request_id: Under which the worker logs the call, up to 64 letters, digits and "-_.:". None: a random one.

        Returns:
            Faces, the regions that would be obscured, and measurements.

        Raises:
            FaceBlurError: There is no answer; see `InvalidImageError`, `TransientError` and the others.
            OSError: The file cannot be read.
        """
        image = _calls.content_of(source)
        work = self._calls.detect(image, _calls.name_of(source), options, timeout, request_id)
        with self._group() as group:
            return self._perform(work, group)

    def blur_many(
        self,
        sources: Iterable[SourceT],
        options: Options | None = None,
        *,
        concurrency: int = _CONCURRENCY,
        timeout: float | None = None,
    ) -> Iterator[Outcome[SourceT]]:
        """Obscure the faces in many pictures; yields each as it is finished, not in their order.

        Each picture is a call of its own, so that they spread over all workers and one that fails is tried again alone.
        The iterable is read as there is room, in the thread that iterates over the results. No more than
        `concurrency` pictures, in work or finished and not taken yet, are held. To end early, leave
        the loop and let go of the iterator (or `close` it): what is in work is cancelled.

        Args:
            sources: Pictures: bytes, paths, open binary files.
            options: What is asked for, for all of them. None: the server's defaults.
            concurrency: Pictures in work at the same time, at least 1.
            timeout: Seconds for each picture. None: the client's.

        Yields:
            For each picture its result or its error: a bad one does not end the rest.

        Raises:
            ValueError: The concurrency is below 1.
            ClientClosedError: The client was closed.
        """
        _check_concurrency(concurrency)
        return self._many(sources, options, concurrency, timeout)

    def info(self, *, timeout: float | None = None) -> ServerInfo:
        """Ask one server what it is and can do.

        Args:
            timeout: Seconds for all attempts together. None: the client's.

        Raises:
            FaceBlurError: There is no answer.
        """
        with self._group() as group:
            return self._perform(self._calls.info(timeout), group)

    def _many(
        self, sources: Iterable[SourceT], options: Options | None, concurrency: int, timeout: float | None
    ) -> Iterator[Outcome[SourceT]]:
        def one(index: int, source: SourceT) -> Outcome[SourceT]:
            try:
                image = _calls.content_of(source)
                work = self._calls.blur(image, _calls.name_of(source), options, timeout, None)
                return Outcome(index=index, source=source, result=self._perform(work, group))
            except ClientClosedError:
                raise
            except (FaceBlurError, OSError) as error:
                return Outcome(index=index, source=source, error=error)

        pending: set[Future[Outcome[SourceT]]] = set()
        done: set[Future[Outcome[SourceT]]] = set()
        items = enumerate(sources)
        more = True
        with ThreadPoolExecutor(concurrency, "faceblur") as pool, self._group() as group:
            try:
                while True:
                    # One at a time, for a source that is slow must not hold up results that are there.
                    if more and len(pending) + len(done) < concurrency:
                        try:
                            pending.add(pool.submit(one, *next(items)))
                        except StopIteration:
                            more = False
                        now_done, pending = wait(pending, timeout=0)
                        done |= now_done
                        if not done:
                            continue
                    elif not done:
                        if not pending:
                            return
                        done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    yield done.pop().result()
            finally:
                group.stop()

    def _perform(self, work: Work[T], group: _Group) -> T:
        """Do what the work wants until it has its result."""
        try:
            step = next(work)
            while True:
                try:
                    answer = None
                    if isinstance(step, Invoke):
                        answer = self._invoke(step, group)
                    else:
                        group.pause(step.seconds)
                except grpc.RpcError as failure:
                    step = work.throw(failure)
                else:
                    step = work.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            work.close()

    def _invoke(self, step: Invoke, group: _Group) -> Any:
        method: Any = getattr(self._stub, step.method)
        streams = isinstance(step.request, _calls.Upload)
        start = method if isinstance(method, grpc.StreamStreamMultiCallable) else method.future
        request = iter(step.request) if streams else step.request
        call = group.start(lambda: start(request, timeout=step.timeout, metadata=step.metadata))
        try:
            return list(call) if start is method else call.result()
        except (grpc.RpcError, grpc.FutureCancelledError) as error:
            if group.stopped or isinstance(error, grpc.FutureCancelledError):
                raise ClientClosedError(_CLOSED) from None
            raise
        finally:
            group.end(call)

    def _group(self) -> _Group:
        group = _Group(self._forget)
        with self._lock:
            if self._closed:
                raise ClientClosedError(_CLOSED)
            self._groups.add(group)
        return group

    def _forget(self, group: _Group) -> None:
        with self._lock:
            self._groups.discard(group)


class _Group:
    """Calls that are ended together, from any thread: those of one `blur` or of one `blur_many`."""

    def __init__(self, forget: Callable[[_Group], None]) -> None:
        self._forget = forget
        self._lock = threading.Lock()
        self._running: set[Any] = set()
        self._stopped = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._forget(self)

    @property
    def stopped(self) -> bool:
        """Whether nothing is to be started any more."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Cancel what runs, end pauses, and start nothing any more."""
        with self._lock:
            self._stopped.set()
            running = list(self._running)
        for call in running:
            call.cancel()

    def start(self, starting: Callable[[], Any]) -> Any:
        """Start a call."""
        with self._lock:
            if self._stopped.is_set():
                raise ClientClosedError(_CLOSED)
            call = starting()
            self._running.add(call)
            return call

    def end(self, call: Any) -> None:
        """Forget a call, which is cancelled if it still runs because its caller was interrupted."""
        with self._lock:
            self._running.discard(call)
        call.cancel()

    def pause(self, seconds: float) -> None:
        """Let time pass."""
        if self._stopped.wait(seconds):
            raise ClientClosedError(_CLOSED)


class AsyncFaceBlurClient:
    """Sends pictures to FaceBlur workers, for asyncio; to be used by any number of tasks of one event loop.

    The connection is made by the first call. Close the client, or use it as an asynchronous context manager.
    """

    def __init__(
        self,
        server: str,
        *,
        tls: TlsConfig | None = None,
        timeout: float = _TIMEOUT,
        retry: RetryConfig | None = None,
        keepalive: KeepaliveConfig | None = None,
        max_message_bytes: int = _MAX_MESSAGE_BYTES,
    ) -> None:
        """Prepare a client; nothing is connected yet. Arguments and errors are those of `FaceBlurClient`."""
        self._calls = Calls(target_of(server), timeout, retry or RetryConfig())
        self._options = channel_options(keepalive or KeepaliveConfig(), max_message_bytes, tls)
        self._credentials = None if tls is None else channel_credentials(tls)
        self._channel: grpc.aio.Channel | None = None
        self._stub: Any = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; calls that other tasks wait for end with `ClientClosedError`."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close()

    async def blur(
        self,
        source: Source,
        options: Options | None = None,
        *,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> BlurResult:
        """Obscure the faces in one picture; files are read in a thread. See `FaceBlurClient.blur`."""
        image = await _content_of(source)
        return await self._perform(self._calls.blur(image, _calls.name_of(source), options, timeout, request_id))

    async def detect(
        self,
        source: Source,
        options: Options | None = None,
        *,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> Receipt:
        """Find the faces in one picture; files are read in a thread. See `FaceBlurClient.detect`."""
        image = await _content_of(source)
        return await self._perform(self._calls.detect(image, _calls.name_of(source), options, timeout, request_id))

    def blur_many(
        self,
        sources: Iterable[SourceT] | AsyncIterable[SourceT],
        options: Options | None = None,
        *,
        concurrency: int = _CONCURRENCY,
        timeout: float | None = None,
    ) -> AsyncIterator[Outcome[SourceT]]:
        """Obscure the faces in many pictures, also of an asynchronous iterable. See `FaceBlurClient.blur_many`.

        If the loop over the results is left early, what is in work is cancelled when the iterator is closed:
        at once with `contextlib.aclosing`, otherwise when it is collected.
        """
        _check_concurrency(concurrency)
        return self._many(sources, options, concurrency, timeout)

    async def info(self, *, timeout: float | None = None) -> ServerInfo:
        """Ask one server what it is and can do. See `FaceBlurClient.info`."""
        return await self._perform(self._calls.info(timeout))

    async def _many(
        self,
        sources: Iterable[SourceT] | AsyncIterable[SourceT],
        options: Options | None,
        concurrency: int,
        timeout: float | None,
    ) -> AsyncIterator[Outcome[SourceT]]:
        async def one(index: int, source: SourceT) -> Outcome[SourceT]:
            try:
                result = await self.blur(source, options, timeout=timeout)
                return Outcome(index=index, source=source, result=result)
            except ClientClosedError:
                raise
            except (FaceBlurError, OSError) as error:
                return Outcome(index=index, source=source, error=error)

        items = _each(sources)
        pull: asyncio.Task[tuple[int, SourceT] | None] | None = None
        more = True
        pending: set[asyncio.Task[Outcome[SourceT]]] = set()
        done: set[asyncio.Task[Outcome[SourceT]]] = set()
        try:
            while True:
                if more and pull is None and len(pending) + len(done) < concurrency:
                    pull = asyncio.create_task(_next(items))
                if not done:
                    waiting: set[asyncio.Task[Any]] = pending | ({pull} if pull else set())
                    if not waiting:
                        return
                    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                    done = {task for task in pending if task.done()}
                    pending -= done
                if pull is not None and pull.done():
                    item, pull = pull.result(), None
                    if item is None:
                        more = False
                    else:
                        pending.add(asyncio.create_task(one(*item)))
                if done:
                    yield done.pop().result()
        finally:
            left = [*pending, *done, *([pull] if pull else [])]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            await items.aclose()

    async def _perform(self, work: Work[T]) -> T:
        """Do what the work wants until it has its result."""
        try:
            step = next(work)
            while True:
                try:
                    answer = await (self._invoke(step) if isinstance(step, Invoke) else asyncio.sleep(step.seconds))
                except grpc.RpcError as failure:
                    step = work.throw(failure)
                else:
                    step = work.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            work.close()

    async def _invoke(self, step: Invoke) -> Any:
        if self._closed:
            raise ClientClosedError(_CLOSED)
        method = getattr(self._connected(), step.method)
        uploads = isinstance(step.request, _calls.Upload)
        request = iter(step.request) if uploads else step.request
        call = method(request, timeout=step.timeout, metadata=step.metadata)
        ends: list[grpc.aio.AioRpcError] = []
        if uploads:
            call.add_done_callback(lambda done: ends.append(_failure_of(done)))
        try:
            return [part async for part in call] if isinstance(call, grpc.aio.StreamStreamCall) else await call
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closed and not (task and task.cancelling()):
                raise ClientClosedError(_CLOSED) from None  # `close` has cancelled the call, and nobody the task
            raise
        except grpc.aio.AioRpcError as failure:
            raise _why(ends, failure) from None
        finally:
            call.cancel()

    def _connected(self) -> Any:
        """The stub; made by the first call, since a channel belongs to the event loop that runs then."""
        if self._channel is None:
            target = self._calls.target
            if self._credentials is None:
                self._channel = grpc.aio.insecure_channel(target, self._options)
            else:
                self._channel = grpc.aio.secure_channel(target, self._credentials, self._options)
            self._stub = faceblur_service_pb2_grpc.FaceBlurServiceStub(self._channel)
        return self._stub


def _check_concurrency(concurrency: int) -> None:
    if concurrency < 1:
        raise ValueError(f"concurrency is {concurrency}, it has to be at least 1")


def _at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise RuntimeError("the coroutine had to wait")


def _failure_of(call: Any) -> grpc.aio.AioRpcError:
    """Return how a call ended that is done."""
    status = (call.code(), call.initial_metadata(), call.trailing_metadata(), call.details())
    code, initial, trailing, details = map(_at_once, status)
    return grpc.aio.AioRpcError(code, initial, trailing, details)


def _why(ends: list[grpc.aio.AioRpcError], failure: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
    """Return why a call failed.

    When a server answers an upload before all of it was sent, grpc.aio replaces the server's status by its own failure
    to send. So it is noted how the call ended at first; if that is nothing else, the connection broke.

    Args:
        ends: How the call ended, as often as it was said to have ended.
        failure: As it was raised.
    """
    if failure.details() != _SENDING_FAILED:
        return failure
    nothing = grpc.aio.Metadata()
    broken = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing, "the connection broke")
    return next((end for end in ends if end.details() != _SENDING_FAILED), broken)


async def _content_of(source: Source) -> bytes:
    if isinstance(source, bytes):
        return source
    return await asyncio.to_thread(_calls.content_of, source)


async def _each(sources: Iterable[SourceT] | AsyncIterable[SourceT]) -> Any:
    index = -1
    if isinstance(sources, AsyncIterable):
        async for source in sources:
            yield (index := index + 1), source
    else:
        for source in sources:
            yield (index := index + 1), source


async def _next(items: Any) -> Any | None:
    return await anext(items, None)
