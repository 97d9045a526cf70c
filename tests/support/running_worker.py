"""A worker on real loopback sockets in this process, for tests that talk to it with blocking stubs.

Run as a module it is `faceblur serve` with a fake engine, for tests that need a process of their own::

    python -m support.running_worker --address 127.0.0.1:0

There every picture takes as long as the file named by FACEBLUR_TEST_HOLD exists, or FACEBLUR_TEST_SECONDS; what ends
with one of POISONS does what it says.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import sys
import threading
import time
import urllib.request
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.rpc import error_details_pb2, status_pb2
from PIL import Image
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from faceblur.v1 import faceblur_service_pb2, faceblur_service_pb2_grpc, receipt_pb2
from faceblur_worker.config import WorkerSettings
from faceblur_worker.server import Worker, serving

from .fake_engine import FakeEngine

T = TypeVar("T")
ANY_PORTS = {"address": "127.0.0.1:0", "health_address": "127.0.0.1:0", "metrics_address": "127.0.0.1:0"}


def picture(width: int = 32, height: int = 24, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), "navy").save(out, kind)
    return out.getvalue()


class LoopThread:
    """An event loop in a thread; gRPC wants one for all servers of a process."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="loop", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class RunningWorker:
    """What a test needs of a worker that runs."""

    def __init__(self, worker: Worker, engine: FakeEngine, channel: grpc.Channel, loop: LoopThread) -> None:
        self.worker = worker
        self.engine = engine
        self.channel = channel
        self.loop = loop
        self.stub = faceblur_service_pb2_grpc.FaceBlurServiceStub(channel)

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.worker.port}"

    def blur(self, image: bytes, timeout: float | None = 20, **options: Any) -> faceblur_service_pb2.BlurImageResponse:
        request = faceblur_service_pb2.BlurImageRequest(image=image, options=options or None)  # type: ignore[arg-type]
        return self.stub.BlurImage(request, timeout=timeout)

    def metrics(self) -> list[Metric]:
        """What Prometheus reads."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.worker.metrics_port}/metrics", timeout=20) as answer:
            return list(text_string_to_metric_families(answer.read().decode()))

    def samples(self) -> dict[str, float]:
        """The same by name, its labels behind it."""
        return {
            " ".join([sample.name, *(value for _, value in sorted(sample.labels.items()))]): sample.value
            for family in self.metrics()
            for sample in family.samples
        }

    def upload(
        self, image: bytes, chunk: int = 1000, announced: int | None = None
    ) -> tuple[receipt_pb2.Receipt, bytes]:
        """Blur through the chunked way; returns the receipt and the result."""
        parts = [faceblur_service_pb2.BlurLargeImageRequest()]
        parts[0].header.total_bytes = len(image) if announced is None else announced
        parts += [
            faceblur_service_pb2.BlurLargeImageRequest(chunk=image[start : start + chunk])
            for start in range(0, len(image), chunk)
        ]
        answers = list(self.stub.BlurLargeImage(iter(parts), timeout=20))
        result = b"".join(answer.chunk for answer in answers[1:])
        assert len(result) == answers[0].header.total_bytes
        return answers[0].header.receipt, result


class Hold:
    """A hook that keeps the engine busy until it is let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.begun = threading.Semaphore(0)

    def __call__(self, data: bytes) -> None:
        self.begun.release()
        assert self.let_go.wait(20)

    def wait_until_begun(self, count: int = 1) -> None:
        for _ in range(count):
            assert self.begun.acquire(timeout=20)


@contextlib.contextmanager
def running(loop: LoopThread, engine: FakeEngine, **settings: Any) -> Iterator[RunningWorker]:
    """Run a worker with the given settings until the context ends."""
    context = serving(WorkerSettings(**{**ANY_PORTS, "threads": 2, "grace_seconds": 10, **settings}), engine)
    worker = loop.run(context.__aenter__())
    try:
        with grpc.insecure_channel(f"127.0.0.1:{worker.port}") as channel:
            yield RunningWorker(worker, engine, channel, loop)
    finally:
        loop.run(context.__aexit__(None, None, None))


def details_of(error: grpc.RpcError) -> tuple[str, list[Any]]:
    """The reason, and all details, of a failed call."""
    trailing = dict(error.trailing_metadata() or ())  # type: ignore[attr-defined]
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    assert status.message == error.details()  # type: ignore[attr-defined]
    return unpacked(status.details)


def unpacked(details: Any) -> tuple[str, list[Any]]:
    kinds = (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo)
    found = []
    for detail in details:
        for kind in kinds:
            message = kind()
            if detail.Unpack(message):
                found.append(message)
    (info,) = (message for message in found if isinstance(message, error_details_pb2.ErrorInfo))
    assert info.domain == "faceblur.io"
    return info.reason, found


KILLS, HANGS, BREAKS = POISONS = (b"kills the worker", b"takes 8 seconds", b"breaks the engine")


def _poison(data: bytes) -> None:
    if data.endswith(KILLS):
        os._exit(1)
    if data.endswith(HANGS):
        time.sleep(8)
    if data.endswith(BREAKS):
        raise RuntimeError("broken")
    time.sleep(float(os.environ.get("FACEBLUR_TEST_SECONDS", "0")))


def _hold(data: bytes) -> None:
    marker = Path(os.environ["FACEBLUR_TEST_HOLD"])
    if marker.exists():
        sys.stdout.write("working\n")
        sys.stdout.flush()
    while marker.exists():
        time.sleep(0.01)


if __name__ == "__main__":
    from faceblur_worker.__main__ import main

    fake = FakeEngine(_hold if "FACEBLUR_TEST_HOLD" in os.environ else _poison)
    sys.exit(main(sys.argv[1:], lambda settings: fake))
