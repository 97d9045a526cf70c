"""Waiting in tests for what cannot be watched: it is asked for again and again, and nobody sleeps for a fixed time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(ask: Callable[[], T], seconds: float = 30, what: str = "it") -> T:
    """Ask until the answer is true, and return it; the last one is in the failure. For tests that may block."""
    end = time.monotonic() + seconds
    pause = 0.005
    while not (answer := ask()):
        assert time.monotonic() < end, _too_late(seconds, what, answer)
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
    return answer


async def eventually_async(ask: Callable[[], T], seconds: float = 30, what: str = "it") -> T:
    """The same in a coroutine, whose event loop goes on meanwhile."""
    end = asyncio.get_running_loop().time() + seconds
    while not (answer := ask()):
        assert asyncio.get_running_loop().time() < end, _too_late(seconds, what, answer)
        await asyncio.sleep(0.05)
    return answer


def _too_late(seconds: float, what: str, answer: object) -> str:
    return f"{what} did not happen within {seconds:g} s; the last answer was {answer!r}"
