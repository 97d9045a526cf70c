"""The task through Celery: applied in place, and with a real worker on a real broker."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.contrib.testing.worker import start_worker
from celery.exceptions import Retry

from faceblur import InvalidOptionsError
from faceblur.testing import FakeServer
from faceblur_batch.app import PAGE_TASK, CeleryQueue, make_app
from faceblur_batch.config import BatchSettings
from faceblur_batch.errors import TransientStorageError
from faceblur_batch.generation import begin
from faceblur_batch.ledger import Mark, State
from faceblur_batch.metrics import Metrics
from faceblur_batch.planner import Phase, Planner, Watch
from faceblur_batch.tasks import register
from faceblur_batch.workplaces import Workplaces, ticket_for
from support.batches import Batch
from support.memory_store import EVERYTHING, START

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x10\0\0\0\x10"


class Process:
    """A batch worker's parts, on memory stores."""

    def __init__(self, batch: Batch, **settings: Any) -> None:
        self.batch = batch
        self.settings = BatchSettings(
            **{"metrics_address": "", "mark_seconds": 0, "retry_seconds": 0.01, "queue": f"test-{uuid.uuid4().hex}"}
            | settings
        )
        stores = {"s3://source/": batch.source, "s3://destination/": batch.destination}
        self.metrics = Metrics("1", "test")
        self.places = Workplaces(
            self.settings, open_at=lambda location, profile: stores[location], count=self.metrics.count
        )
        self.app = make_app(self.settings)
        self.task = register(self.app, self.settings, self.places, self.metrics)

    def begin(self) -> None:
        batch = self.batch
        batch.generation, batch.ledger = begin(
            batch.spec, batch.destination, self.places.client.info(), EVERYTHING, START
        )

    def planner(self, queue: Any, **more: Any) -> Planner:
        batch = self.batch
        return Planner(batch.generation, batch.ledger, batch.source, queue, watch=Watch(poll=0.02, stall=30), **more)

    def tickets(self) -> CeleryQueue:
        return CeleryQueue(self.app, self.settings.queue, ticket_for(self.batch.spec, self.batch.generation, 0))

    def ticket(self, page: int = 0) -> dict[str, Any]:
        generation = self.batch.generation
        return {
            "destination": "s3://destination/",
            "profile": "",
            "job": generation.job,
            "generation": generation.number,
            "page": page,
        }

    def ends(self, name: str) -> float:
        return self.metrics.pages.labels(name)._value.get()


@pytest.fixture
def batch() -> Batch:
    batch = Batch(**{"page_size": 8, "parallelism": 2})
    for number in range(30):
        batch.add(f"{number:02d}.png", PNG + bytes([number]))
    return batch


@pytest.fixture
def process(batch: Batch, blur_server: FakeServer) -> Iterator[Process]:
    process = Process(batch, server=blur_server.target, broker="redis://127.0.0.1:1/0")
    process.begin()
    yield process
    process.places.close()


def planned(process: Process) -> Planner:
    planner = process.planner(process.batch.queue)
    while not planner.status().planned:
        planner.step()
    return planner


def test_the_task_does_a_page_and_a_second_delivery_does_nothing(process: Process, blur_server: FakeServer) -> None:
    planned(process)
    process.task.apply(kwargs=process.ticket(), throw=True)
    done = len(blur_server.calls)
    assert done > 0
    process.task.apply(kwargs=process.ticket(), throw=True)
    assert len(blur_server.calls) == done
    assert (process.ends("done"), process.ends("known")) == (1, 1)


def test_a_task_carries_a_ticket_and_no_key(process: Process) -> None:
    sent: list[dict[str, Any]] = []
    process.app.send_task = lambda name, **more: sent.append({"name": name, **more})  # type: ignore[method-assign]
    process.tickets().publish(7)
    assert sent == [
        {"name": PAGE_TASK, "kwargs": process.ticket(7), "queue": process.settings.queue, "ignore_result": True}
    ]


def test_a_cancelled_generation_is_left_alone(process: Process, blur_server: FakeServer) -> None:
    planned(process)
    process.batch.ledger.set_mark(Mark(State.CANCEL, "by a test"))
    process.task.apply(kwargs=process.ticket(), throw=True)
    assert blur_server.calls == []
    assert process.ends("left") == 1


def test_a_mark_that_is_taken_back_is_seen_at_once(batch: Batch, blur_server: FakeServer) -> None:
    process = Process(batch, server=blur_server.target, broker="redis://127.0.0.1:1/0", mark_seconds=3600)
    process.begin()
    try:
        planned(process)
        process.batch.ledger.set_mark(Mark(State.SUSPEND, "by a test"))
        process.task.apply(kwargs=process.ticket(), throw=True)
        process.batch.ledger.set_mark(Mark())
        process.task.apply(kwargs=process.ticket(), throw=True)
        assert (process.ends("left"), process.ends("done")) == (1, 1)
    finally:
        process.places.close()


def test_trouble_is_tried_again_and_says_no_key(
    process: Process, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    planned(process)
    tries = 0

    def hook(operation: Any, done: bool) -> None:
        nonlocal tries
        if operation.name == "get" and "/pages/" in operation.key:
            tries += 1
            if tries < 4:
                raise TransientStorageError(f"{operation.key} of maria.png cannot be read")

    process.batch.destination.hook = hook
    process.task.apply(kwargs=process.ticket())
    assert tries == 4
    assert (process.ends("trouble"), process.ends("done")) == (3, 1)
    assert "STORAGE_UNAVAILABLE" in caplog.text
    assert "maria" not in caplog.text


def test_options_that_no_worker_takes_stop_the_generation(process: Process, blur_server: FakeServer) -> None:
    planned(process)
    blur_server.fail_next(InvalidOptionsError("cells is 99"), times=100)
    process.task.apply(kwargs=process.ticket(), throw=True)
    mark = process.batch.ledger.mark()
    assert mark.state is State.STOP
    assert "cells is 99" in mark.reason


def test_a_ledger_that_is_gone_is_given_up_without_a_retry(process: Process) -> None:
    planned(process)
    process.task.apply(kwargs=process.ticket() | {"generation": 9}, throw=True)
    assert process.ends("given_up") == 1


def test_a_process_that_ends_hands_its_page_on(process: Process, blur_server: FakeServer) -> None:
    planned(process)
    process.places.end()
    with pytest.raises(Retry):
        process.task.apply(kwargs=process.ticket(), throw=True)
    assert blur_server.calls == []


@pytest.mark.parametrize(
    ("url", "quorum"), [("amqp://guest@broker//", True), ("valkey://broker/0", False), ("rediss://broker/0", False)]
)
def test_the_broker_decides_about_the_queue(url: str, quorum: bool) -> None:
    app = make_app(BatchSettings(broker=url, queue="cluster-a", visibility_seconds=77))
    (queue,) = app.conf.task_queues
    assert queue.name == "cluster-a"
    assert (queue.queue_arguments == {"x-queue-type": "quorum"}) is quorum
    options = app.conf.broker_transport_options
    assert options.get("confirm_publish", False) is quorum
    assert options.get("visibility_timeout") == (None if quorum else 77)
    assert app.conf.accept_content == ["json"]
    assert app.conf.result_backend is None


def test_a_job_through_a_real_broker_and_a_real_worker(
    tmp_path: Path, batch: Batch, valkey: str, blur_server: FakeServer
) -> None:
    process = Process(batch, server=blur_server.target, broker=valkey, threads=2)
    process.begin()
    queue = process.tickets()
    assert queue.waiting() == 0
    pool = {"pool": "threads", "concurrency": 2, "loglevel": "WARNING", "perform_ping_check": False}
    with start_worker(process.app, queues=[process.settings.queue], shutdown_timeout=30, **pool):
        phase = process.planner(queue).run(sleep=threading.Event().wait)
    process.places.close()
    assert phase is Phase.COMPLETED
    assert batch.outcomes() == {"blurred": 30}
    assert len(blur_server.calls) == 30
    assert batch.outputs().keys() == batch.source.objects.keys()
    assert queue.waiting() == 0
