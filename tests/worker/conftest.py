"""Workers on a fake engine, all on one event loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from support.eventual import eventually
from support.fake_engine import FakeEngine
from support.running_worker import Hold, LoopThread, RunningWorker, running


@pytest.fixture(scope="session")
def loop() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def start(loop: LoopThread, engine: FakeEngine) -> Iterator[Callable[..., RunningWorker]]:
    with ExitStack() as stack:

        def starting(**settings: Any) -> RunningWorker:
            return stack.enter_context(running(loop, engine, **settings))

        yield starting


@pytest.fixture(scope="session")
def shared(loop: LoopThread) -> Iterator[RunningWorker]:
    with running(loop, FakeEngine()) as worker:
        yield worker


@pytest.fixture
def worker(shared: RunningWorker) -> Iterator[RunningWorker]:
    """A worker with default settings, shared by tests; its engine's hook is theirs."""
    yield shared
    shared.engine.hook = lambda data: None
    eventually(lambda: shared.worker.gate.inside == 0)


@pytest.fixture
def hold() -> Iterator[Hold]:
    holding = Hold()
    yield holding
    holding.let_go.set()
