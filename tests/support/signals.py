"""Signals that tests send to processes they start."""

from __future__ import annotations

import signal


def let_children_be_interrupted() -> None:
    """Let the processes that tests start be interrupted, also where the tests themselves run in the background.

    A shell makes the commands that it starts in the background ignore SIGINT, and `nohup` makes them ignore SIGHUP;
    their children inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
