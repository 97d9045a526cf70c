"""What is done in a folder of results, so that a rerun repeats nothing and mistakes nothing.

`faceblur-state.jsonl` lies in OUT, where the user sees it: JSON lines, of two kinds. One says with which version,
options and models pictures were processed::

    {"settings": "3f1c…", "format": 1, "version": "0.1.0", "options": {…}, "models": {"centerface": "69bd…"}}

and one says what a result was made from. A picture's line is written *before* its result takes its name, so whatever
bears a noted name was ours to write; where size or time differ from what is noted, it is written again::

    {"out": "a.jpg", "settings": "3f1c…", "size": 81920, "mtime_ns": 17…, "sha256": "…",
     "out_size": 80113, "out_mtime_ns": 17…, "out_sha256": "…"}

The last line about a name holds. A torn last line is dropped, others that cannot be read are ignored.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from faceblur_engine.types import ModelInfo, Options

from . import files
from .exits import CannotGoOnError
from .names import printable

NAME = "faceblur-state.jsonl"
FORMAT = 1
_SYNC_EVERY = 1.0


@dataclass(frozen=True, slots=True)
class Entry:
    """What a result was made from, and what it was when it was written."""

    out: str
    settings: str
    size: int
    mtime_ns: int
    sha256: str
    out_size: int
    out_mtime_ns: int
    out_sha256: str


def settings_of(version: str, options: Options, models: Iterable[ModelInfo]) -> dict[str, Any]:
    """Return the settings line: all that makes one run's results different from another's.

    The inference runtime is not part of it: results of all runtimes are held to be the same (to half a pixel).
    """
    content = {
        "version": version,
        "options": options.as_dict(),
        "models": {model.name: model.sha256 for model in sorted(models, key=lambda model: model.name)},
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return {"settings": digest[:16], "format": FORMAT, **content}


class State:
    """The open state file of one folder, locked against a second run. Threads may share it."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        """Open or make the file; the folder is made too.

        Raises:
            CannotGoOnError: It cannot be written, or another run holds it.
        """
        self.path = folder / NAME
        self.settings: str = settings["settings"]
        self._lock = threading.Lock()
        self._next_sync = 0.0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._fd = self._locked()
            try:
                files.drop_torn_line(self._fd)
                # Of each entry only the place is kept: a folder of a million pictures is a few hundred MB of lines.
                self._places, known, lines = _index(self._fd)
                if lines > 2 * len(self._places) + 1000:
                    self._compact()
                    known.clear()
                if self.settings not in known:
                    files.write_all(self._fd, _line(settings))
            except BaseException:
                os.close(self._fd)
                raise
        except OSError as error:
            raise CannotGoOnError(f"cannot write {printable(str(self.path))}: {error.strerror}") from error

    def find(self, out: str) -> Entry | None:
        """Return what is noted about the result `out`, by runs before this one."""
        place = self._places.get(out)
        if place is None:
            return None
        offset, length = place
        return _entry(json.loads(os.pread(self._fd, length, offset)))

    def note(self, entry: Entry) -> None:
        """Append an entry.

        Raises:
            CannotGoOnError: The disk is full, or the file is gone.
        """
        line = _line(asdict(entry))
        try:
            with self._lock:
                files.write_all(self._fd, line)
                due = time.monotonic() >= self._next_sync
                if due:
                    self._next_sync = time.monotonic() + _SYNC_EVERY
            if due:
                self._sync()
        except OSError as error:
            raise CannotGoOnError(f"cannot write {printable(str(self.path))}: {error.strerror}") from error

    @property
    def folds_case(self) -> bool:
        """Whether the folder's file system takes upper and lower case for the same name."""
        return self.path.with_name(NAME.upper()).exists()

    def close(self) -> None:
        """Close and unlock the file."""
        with contextlib.suppress(OSError):
            self._sync()
        os.close(self._fd)

    def _sync(self) -> None:
        # After a power cut a result whose line is lost would be taken for somebody else's file.
        try:
            os.fsync(self._fd)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that cannot
                raise

    def _locked(self) -> int:
        while True:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
            try:
                _lock(fd)
                # Another run may have put a compacted file in this one's place before we had the lock.
                if os.path.samestat(os.fstat(fd), self.path.stat()):
                    return fd
            except BlockingIOError as error:
                os.close(fd)
                folder = printable(str(self.path.parent))
                raise CannotGoOnError(
                    f"another faceblur writes to {folder}; wait for it, or take another folder"
                ) from error
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    def _compact(self) -> None:
        """Rewrite the file with the lines that hold."""
        temporary = self.path.with_name(files.TEMPORARY.format(os.getpid(), "state"))
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            _lock(fd)
            used = set()
            for offset, length in self._places.values():
                line = os.pread(self._fd, length, offset)
                used.add(json.loads(line)["settings"])
                files.write_all(fd, line)
            for settings in _settings_lines(self._fd):
                if settings["settings"] in used:
                    files.write_all(fd, _line(settings))
            temporary.replace(self.path)
        except BaseException:
            os.close(fd)
            temporary.unlink(missing_ok=True)
            raise
        os.close(self._fd)
        self._fd = fd
        self._places, _, _ = _index(fd)


def outputs_in(folder: Path) -> Collection[str]:
    """Return the names, relative to `folder`, of the results that its state file notes; none without one."""
    try:
        fd = os.open(folder / NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return ()
    try:
        return _index(fd)[0].keys()
    except OSError:
        return ()
    finally:
        os.close(fd)


def _lock(fd: int) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # A file system without locks: nothing to hold a second run off with, and no reason to refuse the first.
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise


def _line(content: dict[str, Any]) -> bytes:
    # ASCII, so that a name that is no UTF-8 goes through as the escape of its surrogate.
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"


def _lines(fd: int) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Offset, length and content of every readable line."""
    offset = 0
    with open(os.dup(fd), "rb") as file:  # noqa: PTH123  a descriptor
        file.seek(0)
        for line in file:
            try:
                content = json.loads(line)
            except ValueError:
                content = None
            if isinstance(content, dict):
                yield offset, len(line), content
            offset += len(line)


def _index(fd: int) -> tuple[dict[str, tuple[int, int]], set[str], int]:
    """Where each result's last line is, the settings that have a line, and how many lines there are."""
    places: dict[str, tuple[int, int]] = {}
    settings = set()
    lines = 0
    for offset, length, content in _lines(fd):
        lines += 1
        if _entry(content):
            places[content["out"]] = offset, length
        elif content.get("format") == FORMAT:
            settings.add(str(content.get("settings")))
    return places, settings, lines


def _settings_lines(fd: int) -> Iterator[dict[str, Any]]:
    return (content for _, _, content in _lines(fd) if "format" in content and "settings" in content)


def _entry(content: dict[str, Any]) -> Entry | None:
    try:
        entry = Entry(**content)
    except TypeError:
        return None
    return entry if isinstance(entry.out, str) else None
