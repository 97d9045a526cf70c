"""Pictures through threads, in order, with a bounded look-ahead.

Threads, not processes: decoding, inference and encoding release the interpreter lock, the model is in memory once, and
a flag stops them all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

from .exits import CannotGoOnError
from .interruption import Interrupted, Stop

T = TypeVar("T")
R = TypeVar("R")

# Submitted and not yet reported, per thread: enough that one large picture at the head holds nobody up for long.
LOOK_AHEAD = 16


def in_order(items: Iterable[T], work: Callable[[T], R], *, jobs: int, stop: Stop) -> Iterator[R]:
    """Yield ``work(item)`` for each item, in the items' order, running `jobs` at once.

    When `stop` is set no further item is begun; what was finished by then is still yielded.

    Raises:
        CannotGoOnError: As raised by `work`, after everything else that was finished was yielded.
    """
    window: deque[Future[R]] = deque()
    fatal: CannotGoOnError | None = None

    def settled(future: Future[R]) -> Iterator[R]:
        nonlocal fatal
        if stop.is_set() and future.cancel():
            return
        # A signal that comes just before a lock is waited for is only seen when the wait ends, so it ends soon.
        while not wait([future], timeout=0.2).done:
            pass
        try:
            yield future.result()
        except Interrupted:
            pass
        except CannotGoOnError as error:
            fatal = fatal or error

    def guarded(item: T) -> R:
        try:
            return work(item)
        except CannotGoOnError:
            stop.set()  # here, so that no thread begins another item meanwhile
            raise

    with ThreadPoolExecutor(jobs, thread_name_prefix="faceblur") as pool:
        try:
            for item in items:
                if stop.is_set():
                    break
                window.append(pool.submit(guarded, item))
                while window and (len(window) >= LOOK_AHEAD * jobs or window[0].done()):
                    yield from settled(window.popleft())
            while window:
                yield from settled(window.popleft())
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if fatal:
        raise fatal
