"""The order of work: one at a time for a key, exactly once more for what came meanwhile, again after a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from faceblur_operator.workqueue import Queue
from support.eventual import eventually_async


class Work:
    """Work that waits to be let go and remembers what it did."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.running = 0
        self.most = 0
        self.gate = asyncio.Event()
        self.answers: list[float | Exception | None] = []

    async def __call__(self, key: str) -> float | None:
        self.begun.append(key)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.gate.wait()
        finally:
            self.running -= 1
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer


def make(
    work: Work, concurrency: int = 4, spread: Callable[[float, float], float] = lambda least, most: 0
) -> Queue[str]:
    return Queue(work, concurrency=concurrency, pause_seconds=0, spread=spread)


async def test_what_comes_while_it_runs_is_done_exactly_once_more() -> None:
    work = Work()
    queue = make(work)
    queue.add("a")
    await eventually_async(lambda: work.running)
    for _ in range(5):
        queue.add("a")
    work.gate.set()
    await eventually_async(lambda: not len(queue))
    assert work.begun == ["a", "a"]


async def test_a_key_is_never_worked_on_twice_at_a_time_and_others_are_not_held_up() -> None:
    work = Work()
    queue = make(work)
    for key in "aabbc":
        queue.add(key)
    await eventually_async(lambda: work.running == 3)
    work.gate.set()
    await eventually_async(lambda: not len(queue))
    assert sorted(work.begun) == ["a", "b", "c"]


async def test_no_more_keys_than_allowed_are_worked_on_at_a_time() -> None:
    work = Work()
    queue = make(work, concurrency=2)
    for number in range(9):
        queue.add(str(number))
    await eventually_async(lambda: work.running)
    work.gate.set()
    await eventually_async(lambda: not len(queue))
    assert (len(work.begun), work.most) == (9, 2)


async def test_a_failure_is_tried_again_with_longer_and_longer_waits_up_to_a_bound() -> None:
    waits: list[tuple[float, float]] = []

    def spread(least: float, most: float) -> float:
        waits.append((least, most))
        return 0

    work = Work()
    work.gate.set()
    work.answers = [*[0.0] * 9, 100.0, None]
    queue = make(work, spread=spread)
    queue.add("a")
    await eventually_async(lambda: not len(queue))
    assert [most for _, most in waits] == [1, 2, 4, 8, 16, 32, 60, 60, 60, 100]
    assert waits[2][0] == 2
    assert waits[-1][0] == 100, "the API server has asked for that"


async def test_a_change_ends_the_wait_after_a_failure() -> None:
    work = Work()
    work.gate.set()
    work.answers = [0.0]
    queue = make(work, spread=lambda least, most: 1000)
    queue.add("a")
    await eventually_async(lambda: work.begun == ["a"])
    queue.add("a")
    await eventually_async(lambda: not len(queue))
    assert work.begun == ["a", "a"]


async def test_a_suggestion_starts_work_but_neither_adds_to_it_nor_ends_a_wait() -> None:
    work = Work()
    work.answers = [0.0]
    queue = make(work, spread=lambda least, most: 1000)
    queue.suggest("a")
    await eventually_async(lambda: work.running)
    queue.suggest("a")
    work.gate.set()
    await eventually_async(lambda: not work.running)
    queue.suggest("a")
    queue.suggest("b")
    await eventually_async(lambda: len(queue) == 1)
    assert work.begun == ["a", "b"]
    await queue.close()


async def test_work_that_breaks_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    work = Work()
    work.gate.set()
    work.answers = [ValueError("a defect")]
    queue = make(work)
    queue.add("a")
    await eventually_async(lambda: not len(queue))
    assert work.begun == ["a", "a"]
    assert "a defect" in caplog.text


async def test_closing_ends_all_work_and_takes_in_no_more() -> None:
    work = Work()
    queue = make(work)
    queue.add("a")
    await eventually_async(lambda: work.running)
    await queue.close()
    queue.add("b")
    assert (work.running, len(queue), work.begun) == (0, 0, ["a"])
