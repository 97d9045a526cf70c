"""An event loop that does not wait: while nobody has anything to do, its clock goes straight to when somebody has.

So tests of what happens in time take as long as the work that is done in it, and the clock stands still while that is
done: no busy machine makes anything late. All of it has to run in this one loop, servers, clients and connections
between them. What a thread or a process is at cannot be seen from here, so this loop starts none.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_DELIVERY = 0.001  # what was sent to a socket of this machine has arrived by then


class _Selector(selectors.DefaultSelector):
    """Skips what others wait for.

    Attributes:
        skipped: Seconds, all in all.
    """

    def __init__(self) -> None:
        super().__init__()
        self.skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        ready = super().select(min(timeout, _DELIVERY))
        if not ready:
            self.skipped += timeout
        return ready


class SkippingLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self._idle = _Selector()
        super().__init__(self._idle)

    def time(self) -> float:
        """Seconds that were skipped."""
        return self._idle.skipped

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Run it here and now: the clock would not wait for a thread."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    async def subprocess_exec(self, *arguments: Any, **options: Any) -> Any:
        raise AssertionError("the clock would not wait for a process: this needs an event loop that waits")
