"""How the command ends: exit codes, and the two errors that end it before or between pictures.

Scripts read these numbers, so they are written down once, here, and shown by ``--help`` and docs/cli.md.
"""

from enum import IntEnum


class Exit(IntEnum):
    """The exit codes."""

    OK = 0
    SOME_FAILED = 1
    USAGE = 2
    CANNOT = 3
    INTERRUPTED = 130
    PIPE_CLOSED = 141


MEANINGS = {
    Exit.OK: "every picture is done (or was, with the same options)",
    Exit.SOME_FAILED: "some pictures failed, each is named; the others are done",
    Exit.USAGE: "the command line is wrong; nothing was written",
    Exit.CANNOT: "no picture found, or it cannot go on: no usable model, runtime, server; OUT not writable; disk full",
    Exit.INTERRUPTED: "interrupted by Ctrl-C, SIGTERM or SIGHUP; run it again to go on",
    Exit.PIPE_CLOSED: "whoever read the output stopped reading",
}


class UsageError(Exception):
    """What was asked for makes no sense; the message says what would. Ends with `Exit.USAGE`."""


class CannotGoOnError(Exception):
    """The surroundings do not allow (more) work, such as a full disk. Ends with `Exit.CANNOT`."""
