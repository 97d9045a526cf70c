"""That the allocator keeps what is freed: in a process of its own, as it cannot be told otherwise again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
from faceblur_process.memory import keep_freed_buffers

taken = keep_freed_buffers({arenas})

def faults(size):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    "x" * size
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

first, second = faults(20 << 20), faults(20 << 20)
print(taken, second < first / 10)
"""


@pytest.mark.parametrize("arenas", [None, 2])
def test_a_large_buffer_is_had_again_without_asking_the_kernel(arenas: int | None) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(arenas=arenas)], capture_output=True, text=True, check=True
    )
    taken, kept = done.stdout.split()
    if platform.libc_ver()[0] == "glibc":
        assert (taken, kept) == ("True", "True")
    else:
        assert taken == "False"
