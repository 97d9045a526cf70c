"""Runs a command that must not outlive whoever started it: ``python -m faceblur_batch.leash COMMAND ...``.

Standard input is the leash: whoever starts this holds the other end of the pipe and never writes. When that end is
gone, in order or by SIGKILL, the command is ended: SIGTERM, and after a grace SIGKILL. Should this process itself be
killed, the kernel kills the command (Linux only). The command gets a session of its own, so that Ctrl-C at a terminal
reaches only the one who then ends everything in order.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO

GRACE = 20.0
_PR_SET_PDEATHSIG = 1


def start(
    command: Sequence[str], *, environment: Mapping[str, str] | None = None, stderr: int | IO[bytes] | None = None
) -> subprocess.Popen[bytes]:
    """Start a command on a leash; close the process's ``stdin`` to end it.

    Args:
        command: Program and arguments.
        environment: Of the command. None: this process's.
        stderr: As for `subprocess.Popen`.
    """
    return subprocess.Popen(
        [sys.executable, "-m", __name__, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        env=environment,
        start_new_session=True,
    )


def end(process: subprocess.Popen[bytes], timeout: float = GRACE + 10) -> int:
    """End a command that `start` has started, and return its exit code."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def main(command: Sequence[str]) -> int:
    """Run a command until it ends, or until nobody holds the leash."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent())
    held_by = os.getppid()

    def watch() -> None:
        # A read ends when the other end is closed; who starts us never writes.
        with contextlib.suppress(OSError):
            while os.read(0, 1024):
                pass
        _end(process)

    threading.Thread(target=watch, daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: _end(process, wait=False))
    if os.getppid() != held_by:
        _end(process)
    return process.wait()


def _end(process: subprocess.Popen[bytes], *, wait: bool = True) -> None:
    process.terminate()
    if wait:
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()


def _die_with_parent() -> Callable[[], None] | None:
    """What has the kernel kill the command with its parent; None where the kernel does not know how."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def set_signal() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died in between
            os._exit(1)

    return set_signal


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
