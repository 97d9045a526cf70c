"""Reading pictures and writing results so that neither an error nor a signal leaves half a file.

A result is written under a temporary name in the folder where it will lie and then renamed, so that its name either
has all of it or does not exist. Nothing is flushed to the disk per file: after a power cut a result may be missing or
empty, which a rerun sees (its size is not the noted one) and repeats.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from faceblur_engine.errors import LimitExceeded

from .exits import CannotGoOnError, UsageError
from .names import printable

TEMPORARY = ".faceblur-{}-{}.tmp"
_NO_MORE_WRITES = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_numbers = itertools.count()
_temporaries: set[Path] = set()


class FileProblem(Exception):
    """One file cannot be read or written, or the server gives no result for it.

    Attributes:
        reason: A stable name, such as ``NOT_FOUND``; the engine's errors carry theirs the same way.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def problem_of(error: OSError, path: Path, doing: str = "read") -> FileProblem:
    """Say what an OSError means for `path`. The name stays out of the message: receipts may have to omit it."""
    if isinstance(error, FileNotFoundError) and path.is_symlink():
        return FileProblem("BROKEN_LINK", "the link points to nothing")
    if isinstance(error, FileNotFoundError):
        return FileProblem("NOT_FOUND", "there is no such file or folder")
    if isinstance(error, PermissionError):
        return FileProblem("NO_PERMISSION", f"no permission to {doing} it")
    if error.errno == errno.ELOOP:
        return FileProblem("BROKEN_LINK", "the link leads back to itself")
    return FileProblem(f"{doing.upper()}_FAILED", f"cannot {doing} it: {error.strerror or type(error).__name__}")


def open_picture(path: Path | None, *, named: bool) -> tuple[int, os.stat_result]:
    """Open a source for reading.

    Args:
        path: The file, a link is followed; None is stdin.
        named: The user named this very path, so a pipe (``<(command)``) is meant. Found in a folder, a pipe or device
            is refused, and opening it does not wait for its writer.

    Returns:
        A descriptor for the caller to close, and what it is.

    Raises:
        FileProblem: It cannot be opened or holds no bytes by nature.
    """
    if path is None:
        fd = os.dup(0)  # /dev/stdin could not be opened where it is a socket
        return fd, os.fstat(fd)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | (0 if named else os.O_NONBLOCK))
    except OSError as error:
        raise problem_of(error, path) from error
    info = os.fstat(fd)
    regular = stat.S_ISREG(info.st_mode)
    if regular or (named and not stat.S_ISDIR(info.st_mode)):
        return fd, info
    os.close(fd)
    if stat.S_ISDIR(info.st_mode):
        raise FileProblem("IS_A_FOLDER", "it is a folder")
    raise FileProblem("NOT_A_FILE", "it is a pipe, socket or device")


def read(fd: int, size: int, max_bytes: int) -> bytes:
    """Read to the end.

    Args:
        fd: An open descriptor.
        size: What fstat said; 0 for a pipe.
        max_bytes: The largest picture that is taken; nothing is read of a file that is larger.

    Raises:
        LimitExceeded: There are more than `max_bytes`.
        OSError: Reading failed.
    """
    if size > max_bytes:
        raise LimitExceeded("max_bytes", size, max_bytes)
    chunks: list[bytes] = []
    total = 0
    while chunk := os.read(fd, max(size + 1 - total, 1 << 16)):
        chunks.append(chunk)
        total += len(chunk)
        if total > max_bytes:
            raise LimitExceeded("max_bytes", total, max_bytes)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write every byte of `data`; a short write goes on."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def write_atomically(
    path: Path, data: bytes, before_rename: Callable[[os.stat_result], None] = lambda written: None
) -> None:
    """Write `data` to `path`, all or nothing, with the mode that the umask gives.

    Args:
        path: Where it will be; its folder is made if need be. What is there is replaced (of a link, the link itself).
        data: The whole content.
        before_rename: Gets the finished file's stat before it takes its name.

    Raises:
        CannotGoOnError: The disk is full or read-only.
        FileProblem: This file cannot be written.
    """
    try:
        temporary, fd = _temporary_in(path.parent)
        try:
            try:
                write_all(fd, data)
            finally:
                os.close(fd)
            before_rename(temporary.stat())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        finally:
            _temporaries.discard(temporary)
    except OSError as error:
        fail_if_full(error, path)
        raise problem_of(error, path, "write") from error


def fail_if_full(error: OSError, path: Path) -> None:
    """Raise `CannotGoOnError` if nothing more can be written where `path` is, however often it is tried."""
    if error.errno in _NO_MORE_WRITES:
        raise CannotGoOnError(f"cannot write to {printable(str(path.parent))}: {error.strerror}") from error


def _temporary_in(folder: Path) -> tuple[Path, int]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    while True:
        path = folder / TEMPORARY.format(os.getpid(), next(_numbers))
        # Noted first: between the two lines a second signal may end the process.
        _temporaries.add(path)
        try:
            return path, os.open(path, flags, 0o666)
        except FileNotFoundError:
            _temporaries.discard(path)
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:  # left by a process that was killed and had our number
            _temporaries.discard(path)
        except BaseException:
            _temporaries.discard(path)
            raise


def remove_temporaries() -> None:
    """Remove what is half written; the process ends right after."""
    for path in list(_temporaries):
        with contextlib.suppress(OSError):
            path.unlink()


def drop_torn_line(fd: int) -> None:
    """Cut off what follows the last newline: a line that a crash left unfinished."""
    end = size = os.fstat(fd).st_size
    while end > 0:
        start = max(0, end - 4096)
        newline = os.pread(fd, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end != size:
        os.ftruncate(fd, end)


class LineFile:
    """A JSON lines file that is appended to, one write per line, so that a crash can tear only the last one."""

    def __init__(self, path: Path) -> None:
        """Open `path`, or make it.

        Raises:
            UsageError: What is there is something else, which must not be written to.
            OSError: It cannot be opened.
        """
        self.path = path
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            if stat.S_ISREG(os.fstat(self._fd).st_mode):
                if os.pread(self._fd, 1, 0) not in (b"", b"{"):
                    raise UsageError(
                        f"{printable(str(path))} holds something else than JSON lines; choose another name"
                    )
                drop_torn_line(self._fd)
        except BaseException:
            os.close(self._fd)
            raise

    def append(self, line: str) -> None:
        """Append one line; any thread may.

        Raises:
            CannotGoOnError: It cannot be written, and going on would leave a picture without its line.
        """
        try:
            with self._lock:
                write_all(self._fd, line.encode() + b"\n")
        except OSError as error:
            raise CannotGoOnError(f"cannot write {printable(str(self.path))}: {error.strerror}") from error

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def is_terminal(stream: object) -> bool:
    """Whether `stream` is a terminal; a stream that is closed or missing is not."""
    try:
        return bool(getattr(stream, "isatty", lambda: False)())
    except ValueError:
        return False


def stderr(text: str) -> None:
    """Write a line to stderr; that nobody reads it is no reason to stop."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
