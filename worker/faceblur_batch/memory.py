"""Tells the C library's allocator that this process has the same few large buffers again and again: pictures.

By default glibc gives a freed one back to the kernel and asks for it again with the next picture. Having those pages
cleared each time was a tenth of a batch worker's CPU time.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_MIB = 1024 * 1024


def keep_freed_buffers() -> bool:
    """Let freed buffers of up to 32 MiB stay in the process; returns whether the allocator took that (glibc does)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    taken = [mallopt(_M_MMAP_THRESHOLD, 32 * _MIB), mallopt(_M_TRIM_THRESHOLD, 64 * _MIB)]
    return taken == [1, 1]
