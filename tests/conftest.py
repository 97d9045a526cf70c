"""What all tests share."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

# A deadline per example is an assertion on time, and fails on a busy machine.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")


def pytest_configure() -> None:
    """Let the processes that tests start be interrupted, also where the tests themselves run in the background.

    A shell makes the commands that it starts in the background ignore SIGINT, and `nohup` makes them ignore SIGHUP;
    their children inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """Take out the handlers that a process's start, run in a test, has put in: their stream ends with the test."""
    level = logging.root.level
    yield
    for handler in [handler for handler in logging.root.handlers if type(handler) is logging.StreamHandler]:
        logging.root.removeHandler(handler)
    logging.root.setLevel(level)
