"""Ending all that was started inside, and nothing else."""

from __future__ import annotations

import asyncio
from contextvars import Context

from faceblur_operator.families import end, family


async def forever() -> None:
    await asyncio.Event().wait()


async def test_tasks_of_tasks_end_and_what_has_a_context_of_its_own_goes_on() -> None:
    before = asyncio.create_task(forever())
    made: list[asyncio.Task[None]] = []

    async def parent() -> None:
        made.append(asyncio.create_task(forever()))
        made.append(asyncio.create_task(forever(), context=Context()))

    with family() as relatives:
        await asyncio.create_task(parent())
        assert relatives == {made[0]}
        await end(relatives)
    after = asyncio.create_task(forever())
    assert made[0].cancelled()
    assert not any(task.done() for task in (before, made[1], after))
    for task in (before, made[1], after):
        task.cancel()


async def test_a_task_that_makes_another_one_to_end_is_waited_for() -> None:
    ended = []

    async def clean_up() -> None:
        await asyncio.sleep(0)
        ended.append("clean")

    async def stubborn() -> None:
        try:
            await forever()
        finally:
            await asyncio.shield(asyncio.create_task(clean_up(), context=Context()))

    with family() as relatives:
        task = asyncio.create_task(stubborn())
        await asyncio.sleep(0)
        await end(relatives)
    assert task.cancelled()
    assert ended == ["clean"]


async def test_an_error_that_nobody_looks_at_is_not_told_twice() -> None:
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))

    async def broken() -> None:
        raise ValueError("why")

    with family() as relatives:
        asyncio.create_task(broken())  # noqa: RUF006
        await asyncio.sleep(0)
        await end(relatives)
    await asyncio.sleep(0)
    assert not relatives
    assert not told
