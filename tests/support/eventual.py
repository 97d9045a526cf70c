"""Waiting in tests of coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(ask: Callable[[], T], seconds: float = 10) -> T:
    """Ask until the answer is true; the last answer is in the failure."""
    end = asyncio.get_running_loop().time() + seconds
    while True:
        answer = ask()
        if answer:
            return answer
        if asyncio.get_running_loop().time() > end:
            raise AssertionError(f"it did not come true within {seconds} s, the last answer was {answer!r}")
        await asyncio.sleep(0.01)
