"""Runs the reconciles: one at a time for a cluster, never more often than needed, again when one fails."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Generic, TypeVar

K = TypeVar("K")

log = logging.getLogger(__name__)


class Queue(Generic[K]):
    """Keys that want work.

    However often a key is added while its work waits or runs, the work is done exactly once more. The first addition
    after a pause is served at once; then there is a pause, in which a burst of events becomes one.
    """

    def __init__(
        self,
        work: Callable[[K], Awaitable[float | None]],
        *,
        concurrency: int,
        pause_seconds: float = 0.2,
        longest_retry: float = 60,
        spread: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """Set up an empty queue.

        Args:
            work: Does the work of a key. None says that it is done; seconds, that it has failed and has to be done
                again after that time at the least.
            concurrency: Keys that are worked on at the same time.
            pause_seconds: Between the end of a key's work and its next start.
            longest_retry: Longest wait after a failure, in seconds, unless the work asks for more.
            spread: Chooses a time between two, so that what failed together does not come again together.
        """
        self._work = work
        self._slots = asyncio.Semaphore(concurrency)
        self._pause = pause_seconds
        self._longest_retry = longest_retry
        self._spread = spread
        self._wanted: dict[K, asyncio.Event] = {}
        self._tasks: dict[K, asyncio.Task[None]] = {}
        self._closed = False

    def __len__(self) -> int:
        """How many keys wait or are worked on."""
        return len(self._tasks)

    def add(self, key: K) -> None:
        """Want the work of a key to be done after this moment."""
        if self._closed:
            return
        if key in self._tasks:
            self._wanted[key].set()
            return
        self._wanted[key] = asyncio.Event()
        self._wanted[key].set()
        # In a context of its own: the work is not part of whatever noticed that it is wanted.
        self._tasks[key] = asyncio.create_task(self._drive(key), name=f"reconcile {key}", context=Context())

    def suggest(self, key: K) -> None:
        """Want the work of a key to be done, unless it is under way or waits to be tried again already."""
        if key not in self._tasks:
            self.add(key)

    async def close(self) -> None:
        """End all work where it is."""
        self._closed = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _drive(self, key: K) -> None:
        """Work on a key until it wants nothing any more."""
        wanted, failures = self._wanted[key], 0
        try:
            while wanted.is_set():
                async with self._slots:
                    wanted.clear()
                    try:
                        retry = await self._work(key)
                    except Exception:
                        log.exception("a defect ended the work of %s, please report it", key)
                        retry = 0.0
                await asyncio.sleep(self._pause)
                if retry is None:
                    failures = 0
                    continue
                failures += 1
                longest = max(retry, min(self._longest_retry, 2.0 ** min(failures - 1, 16)))
                # A change may be the cure, so it ends the wait; the failures count on.
                try:
                    await asyncio.wait_for(wanted.wait(), self._spread(max(retry, longest / 2), longest))
                except TimeoutError:
                    wanted.set()
        finally:
            del self._tasks[key], self._wanted[key]
