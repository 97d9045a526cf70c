"""What all tests share."""

from __future__ import annotations

from hypothesis import settings

# A deadline per example is an assertion on time, and fails on a busy machine.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")
