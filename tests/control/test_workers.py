"""Asking workers what they run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import generate_latest

from faceblur_operator.naming import METRICS_PORT
from faceblur_operator.observed import Manifest, WorkerReport
from faceblur_operator.workers import Reports, WorkerClient, newest_ready, read_report
from faceblur_worker.admission import Gate
from faceblur_worker.config import WorkerSettings
from faceblur_worker.metrics import Metrics
from support.clusters import running_pod
from support.eventual import eventually_async
from support.fake_engine import FakeEngine

KEY = ("shop", "demo")
REPORT = WorkerReport("1.2.3", ())


def metrics_of_a_worker() -> bytes:
    return generate_latest(
        Metrics(Gate(workers=1, places=1, max_bytes=1), "1.2.3", "balanced", FakeEngine().models).registry
    )


def pod(name: str, generation: str = "g1", made: int = 0, ready: bool = True) -> Manifest:
    found = running_pod(name)
    found["metadata"] |= {
        "labels": {"pod-template-hash": generation},
        "creationTimestamp": f"2026-05-04T12:00:{made:02}Z",
    }
    found["status"]["podIP"] = f"ip-of-{name}"
    found["status"]["conditions"][1]["status"] = str(ready)
    return found


async def elsewhere(_: web.Request) -> web.Response:
    return web.Response(body=metrics_of_a_worker())


@asynccontextmanager
async def answering(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_get("/metrics", handler)
    app.router.add_get("/elsewhere", elsewhere)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def ask(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> WorkerReport | None:
    async with answering(handler) as port, WorkerClient(port) as client:
        return await client.ask("127.0.0.1")


async def test_a_worker_says_its_version_and_models() -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=metrics_of_a_worker())

    report = await ask(handler)
    assert report is not None
    assert report.version == "1.2.3"
    assert [(model.name, model.sha256) for model in report.models] == [
        (model.name, model.sha256) for model in sorted(FakeEngine().models, key=lambda model: model.name)
    ]


def test_workers_publish_their_metrics_where_they_are_asked() -> None:
    assert WorkerSettings().metrics_address.endswith(f":{METRICS_PORT}")


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 500},
        {"status": 302, "headers": {"Location": "/elsewhere"}},
        {"body": b"<html>no metrics</html>"},
        {"body": b"\xff\xfe"},
        {"body": metrics_of_a_worker() + b"# padding\n" * 200_000},
        {"body": b'faceblur_worker_info{version="' + b"9" * 100 + b'"} 1\n'},
        {
            "body": b'faceblur_worker_info{version="1"} 1\nfaceblur_worker_model_info{name="m",sha256="'
            + b"a" * 65
            + b'"} 1\n'
        },
        {"body": b"up 1\n"},
    ],
)
async def test_an_answer_that_no_worker_gives_is_no_answer(answer: dict[str, Any]) -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(**answer)

    assert await ask(handler) is None


async def test_a_worker_that_is_not_there_is_no_answer() -> None:
    async def handler(_: web.Request) -> web.Response:
        raise AssertionError("it was asked")

    async with answering(handler) as port:
        pass
    async with WorkerClient(port) as client:
        assert await client.ask("127.0.0.1") is None


def test_no_version_is_no_report() -> None:
    assert read_report('faceblur_worker_model_info{name="m",sha256="s"} 1\n') is None


def test_the_newest_ready_pod_is_asked() -> None:
    pods = [pod("a", made=1), pod("b", made=3, ready=False), pod("c", made=2), pod("d", made=4), pod("e", made=5)]
    pods[3]["metadata"]["deletionTimestamp"] = "2026-05-04T12:10:00Z"
    del pods[4]["status"]["podIP"]
    assert newest_ready(pods) is pods[2]
    assert newest_ready([]) is None


class Asked:
    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.answer: WorkerReport | None = REPORT
        self.told: list[tuple[str, str]] = []
        self.reports = Reports(self.ask, self.told.append)

    async def ask(self, address: str) -> WorkerReport | None:
        self.addresses.append(address)
        return self.answer


async def test_each_generation_of_pods_is_asked_once_and_the_answer_is_told() -> None:
    asked = Asked()
    assert asked.reports.of(KEY, [pod("a")]) is None, "nobody waits for it"
    await eventually_async(lambda: asked.told == [KEY])
    assert asked.reports.of(KEY, [pod("a"), pod("b")]) == REPORT
    assert asked.addresses == ["ip-of-a"]
    assert asked.reports.of(KEY, [pod("a"), pod("c", "g2", made=9)]) is None
    await eventually_async(lambda: len(asked.told) == 2)
    assert asked.addresses == ["ip-of-a", "ip-of-c"]


async def test_a_worker_that_gave_no_answer_is_asked_again_only_when_told_so() -> None:
    asked = Asked()
    asked.answer = None
    asked.reports.of(KEY, [pod("a")])
    await eventually_async(lambda: asked.addresses)
    assert asked.reports.of(KEY, [pod("a")]) is None
    asked.answer = REPORT
    asked.reports.ask_again(KEY)
    asked.reports.of(KEY, [pod("a")])
    await eventually_async(lambda: asked.told)
    asked.reports.ask_again(KEY)
    assert asked.reports.of(KEY, [pod("a")]) == REPORT
    assert len(asked.addresses) == 2


async def test_an_answer_that_comes_after_the_cluster_is_gone_is_dropped() -> None:
    asked = Asked()
    asked.reports.of(KEY, [pod("a")])
    asked.reports.forget(KEY)
    await eventually_async(lambda: asked.addresses)
    await asked.reports.close()
    assert not asked.told


async def test_no_pod_is_no_report() -> None:
    asked = Asked()
    assert asked.reports.of(KEY, [pod("a", ready=False)]) is None
    assert not asked.addresses
