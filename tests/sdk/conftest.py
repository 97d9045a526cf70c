"""Clients and servers on loopback sockets. What both clients promise is tested with both, behind one blocking face."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from faceblur import AsyncFaceBlurClient, BlurResult, FaceBlurClient, Outcome, Receipt, RetryConfig, ServerInfo
from faceblur.testing import FakeServer, serving
from support.running_worker import LoopThread

QUICK = RetryConfig(first_pause=0.001, longest_pause=0.01)


class BlockingFace:
    """An asyncio client for tests that do not care."""

    def __init__(self, loop: LoopThread, client: AsyncFaceBlurClient) -> None:
        self.loop = loop
        self.client = client

    def blur(self, *args: Any, **more: Any) -> BlurResult:
        return self.loop.run(self.client.blur(*args, **more))

    def detect(self, *args: Any, **more: Any) -> Receipt:
        return self.loop.run(self.client.detect(*args, **more))

    def info(self, **more: Any) -> ServerInfo:
        return self.loop.run(self.client.info(**more))

    def blur_many(self, sources: Iterable[Any], *args: Any, **more: Any) -> Iterator[Outcome[Any]]:
        outcomes: Any = self.client.blur_many(sources, *args, **more)
        return self._taken(outcomes)

    def _taken(self, outcomes: Any) -> Iterator[Outcome[Any]]:
        async def take() -> Any:
            return await anext(outcomes, None)

        try:
            while (outcome := self.loop.run(take())) is not None:
                yield outcome
        finally:
            self.loop.run(outcomes.aclose())

    def close(self) -> None:
        self.loop.run(self.client.close())


Client = FaceBlurClient | BlockingFace
Connect = Callable[..., Client]


@pytest.fixture(scope="session")
def loop() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving() as running:
        yield running


@pytest.fixture
def other() -> Iterator[FakeServer]:
    with serving() as running:
        yield running


@pytest.fixture(params=["blocking", "asyncio"])
def connect(request: pytest.FixtureRequest, loop: LoopThread) -> Iterator[Connect]:
    """Makes clients of both kinds, which pause only shortly between attempts."""
    with ExitStack() as stack:

        def connecting(*servers: FakeServer | str, **settings: Any) -> Client:
            targets = [server if isinstance(server, str) else server.target for server in servers]
            target = targets[0] if len(targets) == 1 else f"ipv4:{','.join(targets)}"
            settings = {"retry": QUICK, "timeout": 20, **settings}
            made = FaceBlurClient if request.param == "blocking" else AsyncFaceBlurClient
            client: Any = made(target, **settings)
            if request.param == "asyncio":
                client = BlockingFace(loop, client)
            stack.callback(client.close)
            return client  # type: ignore[no-any-return]

        yield connecting


@pytest.fixture
def client(connect: Connect, server: FakeServer) -> Client:
    return connect(server)


class Aside(threading.Thread):
    """Runs something in a thread; `outcome` is what it returned or raised."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._outcome: Any = None
        self.start()

    def run(self) -> None:
        try:
            self._outcome = self._work()
        except BaseException as error:
            self._outcome = error

    @property
    def outcome(self) -> Any:
        self.join(20)
        assert not self.is_alive()
        return self._outcome
