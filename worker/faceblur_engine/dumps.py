"""Keeps pictures out of core dumps: whatever holds one in memory calls this when it starts."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

_FILTER = Path("/proc/self/coredump_filter")


def forbid_core_dumps() -> None:
    """See to it that a crash of this process, or of one that it starts, puts no memory on a disk.

    The size limit alone does not: where the kernel pipes dumps to a program, as systemd and others have it, the limit
    is not looked at. So on Linux the dump is also told to hold registers and no memory. Unlike making the process
    undumpable, that leaves it as it was for profilers, debuggers and its own reading of ``/proc``.
    """
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):
        _FILTER.write_text("0")
