"""What the operator's tests share: tests may be coroutines, each in a loop of its own."""

from __future__ import annotations

import asyncio
import inspect
import os

import pytest

from support.skipping_loop import SkippingLoop

SECONDS = 20


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "real_time: a coroutine that waits for what is not in its event loop")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test to its end, in a loop that skips the time in which there is nothing to do."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}

    async def run() -> None:
        async with asyncio.timeout(SECONDS):
            await pyfuncitem.obj(**arguments)

    with asyncio.Runner(loop_factory=None if pyfuncitem.get_closest_marker("real_time") else SkippingLoop) as runner:
        runner.run(run())
    return True


@pytest.fixture(autouse=True)
def no_authorities(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read none of the system's authorities: no server here is theirs, and every client would read them anew."""
    monkeypatch.setenv("SSL_CERT_FILE", os.devnull)
