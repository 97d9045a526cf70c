"""Ctrl-C and SIGTERM: stop soon, leave no half file, say where it stopped.

An exception out of a signal handler could land between any two lines of the main thread, such as between writing a
file and noting that it was written. So the first signal only sets a flag, which workers and the engine look at between
steps; the second one ends the process at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from . import files
from .exits import Exit

_SIGNALS = [s for s in (getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")) if s is not None]


class Interrupted(BaseException):
    """Ends work in a thread after the first signal. Not an `Exception`: nothing may swallow it on the way."""


class Stop:
    """The flag. Set by a signal, or by the main thread when it makes no sense to go on."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.is_set = self._event.is_set
        self.wait = self._event.wait
        self.set = self._event.set
        self.signalled = False

    def checkpoint(self) -> None:
        """Raise `Interrupted` if work should end."""
        if self._event.is_set():
            raise Interrupted


@contextlib.contextmanager
def stop_on_signal(*, announce: bool) -> Iterator[Stop]:
    """Yield a `Stop` that signals set; the handlers before are put back on the way out.

    Args:
        announce: Say on a terminal that the first signal was seen.
    """
    stop = Stop()

    def handler(number: int, frame: FrameType | None) -> None:
        if stop.signalled:
            files.remove_temporaries()
            os._exit(Exit.INTERRUPTED)
        stop.signalled = True
        stop.set()
        if announce and os.isatty(2):
            # Not through sys.stderr, in the midst of whose write this may be.
            os.write(2, b"\nstopping; Ctrl-C once more stops at once\n")

    with _handling(handler):
        yield stop


@contextlib.contextmanager
def closing(close: Callable[[], None], stop: Stop) -> Iterator[None]:
    """Close something when work should end, or else at the end of the context.

    For calls that look at no checkpoint. A thread does it: a signal comes at any place of the main one, also where it
    holds a lock that closing needs.
    """

    def wait() -> None:
        stop.wait()
        close()

    thread = threading.Thread(target=wait, name="closing", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextlib.contextmanager
def raise_on_signal() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt as Ctrl-C does, while nothing is being written yet."""

    def handler(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handling(handler):
        yield


@contextlib.contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # A signal that the parent has us ignore (nohup, a shell's background job) stays ignored.
    before = {s: signal.getsignal(s) for s in _SIGNALS if signal.getsignal(s) is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
