"""Ends what a library has started, when the library itself leaves that to the end of the process.

When one watch of kopf fails, kopf gives up, and the other watches run on. Here the process goes on as well, so they
have to end, or each new start would add a set of watches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

Family = set[asyncio.Future[Any]]

_FAMILY: ContextVar[Family | None] = ContextVar("family", default=None)


@contextmanager
def family() -> Iterator[Family]:
    """Collect the tasks that are made inside and not done yet, and those that these make.

    What is made with a context of its own is no relative. One family at a time: the event loop is told to help.
    """
    loop = asyncio.get_running_loop()
    relatives: Family = set()

    def leave(task: asyncio.Future[Any]) -> None:
        relatives.discard(task)
        if not task.cancelled():
            task.exception()  # kopf has logged it; asyncio would do so again, since kopf does not look at all of them

    def factory(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=loop, **options)
        context = options.get("context")
        if (_FAMILY.get() if context is None else context.get(_FAMILY)) is relatives:
            relatives.add(task)
            task.add_done_callback(leave)
        return task

    token, before = _FAMILY.set(relatives), loop.get_task_factory()
    loop.set_task_factory(cast(Any, factory))
    try:
        yield relatives
    finally:
        loop.set_task_factory(before)
        _FAMILY.reset(token)


async def end(relatives: Family, last: str = "") -> None:
    """Cancel tasks until none is left.

    Some make others to end, whoever cleans up needs time for it, and a cancellation that comes just as a task's wait is
    over gets lost: hence again, after a while.

    Args:
        relatives: The tasks.
        last: Name of the one that cleans up when the others have ended; told once, it is left to that.
    """
    me, told = asyncio.current_task(), False
    while left := [task for task in relatives if task is not me]:
        others = [task for task in left if not (told and isinstance(task, asyncio.Task) and task.get_name() == last)]
        for task in others or left:
            task.cancel()
        await asyncio.wait(left, timeout=1 if others else 5)
        told = True
