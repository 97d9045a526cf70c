"""Log lines: readable to machines, tied to their request, and silent about pictures."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator

import grpc
import pytest

from faceblur.v1 import faceblur_service_pb2
from faceblur_process.logs import JsonFormatter
from faceblur_worker.calls import log_context
from support.fake_engine import FakeEngine
from support.running_worker import RunningWorker, picture


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """Every line that the worker writes."""
    written: list[str] = []
    formatter = JsonFormatter(log_context)

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(formatter.format(record))

    handler = Keeping()
    level = logging.root.level
    logging.root.addHandler(handler)
    logging.root.setLevel("DEBUG")
    yield written
    logging.root.removeHandler(handler)
    logging.root.setLevel(level)


def test_every_call_writes_one_json_line_with_its_request_id(
    start: Callable[..., RunningWorker], lines: list[str]
) -> None:
    worker = start()
    ask = faceblur_service_pb2.BlurImageRequest(image=picture())
    worker.stub.BlurImage(ask, metadata=(("x-request-id", "job-9"),), timeout=20)
    with pytest.raises(grpc.RpcError):
        worker.blur(b"text")
    worker.loop.run(worker.worker.stop(settle_seconds=0))  # all lines are written
    calls = [json.loads(line) for line in lines if '"message": "call"' in line]
    assert [(call["method"], call["code"]) for call in calls] == [
        ("BlurImage", "OK"),
        ("BlurImage", "INVALID_ARGUMENT"),
    ]
    assert calls[0]["request_id"] == "job-9"
    assert calls[1]["reason"] == "UNSUPPORTED_FORMAT"
    assert {"time", "level", "logger", "seconds"} <= calls[0].keys()


def test_no_line_says_anything_of_a_picture(
    start: Callable[..., RunningWorker], engine: FakeEngine, lines: list[str]
) -> None:
    worker = start()
    secret = "anna-at-the-beach"
    stream = worker.stub.BlurImages(
        iter([faceblur_service_pb2.BlurImagesRequest(id=secret, image=image) for image in (picture(), b"text")]),
        timeout=20,
    )
    assert len(list(stream)) == 2

    def defect(data: bytes) -> None:
        raise RuntimeError

    engine.hook = defect
    with pytest.raises(grpc.RpcError):
        worker.blur(picture())
    worker.loop.run(worker.worker.stop(settle_seconds=0))
    everything = "\n".join(lines)
    assert "traceback" in everything
    assert secret not in everything
    assert repr(picture()[:8])[2:-1] not in everything
    assert "box" not in everything
