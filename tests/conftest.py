"""What all tests share."""

from __future__ import annotations

import signal

from hypothesis import settings

# A deadline per example is an assertion on time, and fails on a busy machine.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")


def pytest_configure() -> None:
    """Let the processes that tests start be interrupted, also where the tests themselves run in the background.

    A shell makes the commands that it starts in the background ignore SIGINT, and their children inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
