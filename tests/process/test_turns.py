"""That a thread waits for the interpreter no longer than a millisecond."""

from __future__ import annotations

import sys

from faceblur_process.turns import take_turns_soon


def test_a_waiting_thread_has_its_turn_within_a_millisecond() -> None:
    before = sys.getswitchinterval()
    try:
        take_turns_soon()
        assert 0 < sys.getswitchinterval() <= 0.001
    finally:
        sys.setswitchinterval(before)
