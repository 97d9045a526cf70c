"""A folder as a store: an output is an ordinary file in an ordinary tree.

obstore's own store for folders has no user metadata, no replacing by ETag and no listing in order, and it takes the
whole of a folder into memory; so this is written out.

- The ETag is made of inode, modification time in nanoseconds and size. Nothing has to be read for it; a file that is
  copied or replaced has another one. Files written here get the clock's own nanoseconds, not the file system's ticks.
- A file is written under ``.faceblur/local/tmp`` and then takes its name by a link (which fails if there is a file)
  or by a rename: at its name there is all of it or nothing. It is not flushed to the disk, so after a power cut it may
  be empty or missing.
- Headers lie in ``.faceblur/local/headers`` under a hash of the key *and the ETag*: they are written before the file
  takes its name, and from then on are its headers. A file that was put there otherwise has none.
- Symbolic links to files are followed inside the folder, never out of it; links to folders are not followed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import heapq
import json
import logging
import os
import secrets
import stat
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from ..errors import (
    AccessDenied,
    AlreadyExists,
    InvalidLocation,
    KeyRefused,
    LocationNotFound,
    NotFound,
    ObjectChanged,
    StorageError,
    StorageFailure,
    StoreFull,
    TransientStorageError,
)
from .keys import RESERVED
from .store import NO_HEADERS, ObjectHeaders, ObjectInfo, StoredObject, printable

OWN = f"{RESERVED}local/"
"""What the store keeps for itself; no object is listed or written there."""

NAMES_AT_ONCE = 50_000
"""Of one folder that are held in memory for sorting; a larger folder is read several times."""

_ABANDONED_SECONDS = 24 * 3600
_READS = 3
_log = logging.getLogger(__name__)


class FolderStore:
    """A folder and all below it."""

    def __init__(self, root: Path, *, names_at_once: int = NAMES_AT_ONCE) -> None:
        """Make a store of `root`, which is created when something is written."""
        self._root = Path(os.path.realpath(root))
        self._own = self._root / OWN
        self._headers_folder = f"{self._own}/headers"
        self._names_at_once = names_at_once
        self._scratch: Path | None = None

    @property
    def location(self) -> str:
        """See `ObjectStore`."""
        return f"{self._root}/"

    def list(self, prefix: str = "", *, after: str | None = None) -> Iterator[ObjectInfo]:
        """See `ObjectStore`. In the order of keys' bytes."""
        try:
            if not stat.S_ISDIR(self._root.stat().st_mode):
                raise InvalidLocation(f"{self._root} is a file; a folder is needed")
            yield from self._walk("", os.fsencode(prefix), None if after is None else os.fsencode(after))
        except FileNotFoundError:
            raise LocationNotFound(f"there is no folder {self._root}") from None
        except OSError as error:
            _raise(error, f"{self._root}: listing it")

    def head(self, key: str) -> ObjectInfo:
        """See `ObjectStore`."""
        path = self._existing(key)
        try:
            info = path.stat()
        except OSError as error:
            _raise(error, self._where(key))
        if not stat.S_ISREG(info.st_mode):
            raise NotFound(f"{self._where(key)}: there is no such file")
        return self._info(key, info, with_headers=True)

    def get(self, key: str, *, if_match: str | None = None) -> StoredObject:
        """See `ObjectStore`."""
        path = self._existing(key)
        for _ in range(_READS):
            try:
                before, data, after = _read(path)
            except OSError as error:
                _raise(error, self._where(key))
            if not stat.S_ISREG(before.st_mode):
                raise NotFound(f"{self._where(key)}: there is no such file")
            if if_match is not None and _etag(before) != if_match:
                raise ObjectChanged(f"{self._where(key)}: the file was changed or replaced")
            if _etag(before) == _etag(after) and len(data) == after.st_size:
                return StoredObject(self._info(key, after, with_headers=True), data)
        raise TransientStorageError(f"{self._where(key)}: the file is being written")

    def put(
        self,
        key: str,
        data: bytes,
        *,
        headers: ObjectHeaders = NO_HEADERS,
        only_if_absent: bool = False,
        if_match: str | None = None,
    ) -> str:
        """See `ObjectStore`."""
        path = self._path(key)
        self._refuse_outside(path.parent, key)
        written = kept = None
        try:
            if not path.parent.is_dir():
                _make_folder(path.parent)
            written, etag = self._write(data)
            if headers != NO_HEADERS:
                kept = self._headers_file(key, etag)
                _write_text(kept, json.dumps([headers.content_type, headers.cache_control, dict(headers.metadata)]))
            if not (only_if_absent and _took_free_name(written, path)):
                self._replace(key, path, written, only_if_absent=only_if_absent, if_match=if_match)
            kept = None
        except FileExistsError:
            raise AlreadyExists(f"{self._where(key)}: there is a file already") from None
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise StorageFailure(f"{self._where(key)}: it lies on another file system than {self._own}") from error
            if error.errno in (errno.ENOTDIR, errno.EISDIR):
                raise KeyRefused(f"{self._where(key)}: a file lies where a folder is needed, or the reverse") from error
            _raise(error, self._where(key), writing=True)
        finally:
            for leftover in (written, kept):
                if leftover is not None:
                    with contextlib.suppress(OSError):
                        leftover.unlink()
        return etag

    def _replace(self, key: str, path: Path, written: Path, *, only_if_absent: bool, if_match: str | None) -> None:
        with self._locked(key):
            replaced = _etag_at(path)
            if only_if_absent and replaced is not None:
                raise AlreadyExists(f"{self._where(key)}: there is a file already")
            if if_match is not None and replaced != if_match:
                raise ObjectChanged(f"{self._where(key)}: the file was changed, replaced or removed")
            written.replace(path)
        if replaced is not None:
            self._headers_file(key, replaced).unlink(missing_ok=True)

    def delete(self, key: str) -> None:
        """See `ObjectStore`."""
        path = self._path(key)
        self._refuse_outside(path.parent, key)
        if not os.path.lexists(path) or (path.is_dir() and not path.is_symlink()):
            return
        try:
            with self._locked(key):
                etag = _etag_at(path)
                path.unlink(missing_ok=True)
            if etag is not None:
                self._headers_file(key, etag).unlink(missing_ok=True)
        except OSError as error:
            _raise(error, self._where(key), writing=True)

    def _walk(self, folder: str, prefix: bytes, after: bytes | None) -> Iterator[ObjectInfo]:
        for name in self._sorted_names(folder, after):
            key = folder + os.fsdecode(name)
            raw = os.fsencode(key)
            if name.endswith(b"/"):
                passed = after is not None and raw <= after and not after.startswith(raw)
                if key != OWN and not passed and (raw.startswith(prefix) or prefix.startswith(raw)):
                    yield from self._walk(key, prefix, after)
            elif raw.startswith(prefix) and (after is None or raw > after) and (info := self._found(key)):
                yield info

    def _sorted_names(self, folder: str, after: bytes | None) -> Iterator[bytes]:
        """Yield the names in a folder, those of folders with a slash, in order, with bounded memory."""
        low = b""
        if after is not None and after.startswith(base := os.fsencode(folder)):
            low = after[len(base) :].partition(b"/")[0]
        while True:
            try:
                entries = os.scandir(self._root / folder)
            except (FileNotFoundError, NotADirectoryError):
                if not folder:
                    raise
                return  # removed meanwhile
            with entries:
                names = (
                    os.fsencode(f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name)
                    for entry in entries
                )
                batch = heapq.nsmallest(self._names_at_once, (name for name in names if name >= low))
            yield from batch
            if len(batch) < self._names_at_once:
                return
            low = batch[-1] + b"\0"

    def _found(self, key: str) -> ObjectInfo | None:
        path = self._root / key
        try:
            info = path.stat()
        except FileNotFoundError:  # removed meanwhile, or a link to nothing, which is reported when it is read
            try:
                info = path.lstat()
            except FileNotFoundError:
                return None
        except OSError:
            info = path.lstat()
        if stat.S_ISDIR(info.st_mode):
            _log.warning("the link %r leads to a folder and is not followed; name that folder as a source", key)
        return self._info(key, info) if stat.S_ISREG(info.st_mode) or stat.S_ISLNK(info.st_mode) else None

    def _path(self, key: str) -> Path:
        names = key.split("/")
        if any(name in ("", ".", "..") or "\0" in name for name in names) or key.startswith(OWN):
            raise KeyRefused(f"{self._where(key)}: a file cannot be called so")
        return self._root.joinpath(*names)

    def _existing(self, key: str) -> Path:
        """The path of a file to read, with links resolved."""
        try:
            path = Path(os.path.realpath(self._path(key), strict=True))
        except OSError as error:
            _raise(error, self._where(key))
        if not path.is_relative_to(self._root):
            self._refuse_link(key)
        return path

    def _refuse_outside(self, path: Path, key: str) -> None:
        if not Path(os.path.realpath(path)).is_relative_to(self._root):
            self._refuse_link(key)

    def _refuse_link(self, key: str) -> NoReturn:
        raise KeyRefused(f"{self._where(key)}: a symbolic link leads out of the folder, which is not followed")

    def _where(self, key: str) -> str:
        return f"{self._root}/{printable(key)}"

    def _info(self, key: str, info: os.stat_result, *, with_headers: bool = False) -> ObjectInfo:
        modified = datetime.fromtimestamp(info.st_mtime, UTC)
        headers = self._headers(key, _etag(info)) if with_headers else None
        return ObjectInfo(key, info.st_size, _etag(info), modified, headers)

    def _headers(self, key: str, etag: str) -> ObjectHeaders:
        try:
            content_type, cache_control, metadata = json.loads(self._headers_file(key, etag).read_text())
            return ObjectHeaders(content_type, cache_control, metadata)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return NO_HEADERS

    def _headers_file(self, key: str, etag: str) -> Path:
        name = hashlib.sha256(os.fsencode(key) + b"\0" + etag.encode()).hexdigest()
        return Path(f"{self._headers_folder}/{name[:3]}/{name[3:40]}")

    def _write(self, data: bytes) -> tuple[Path, str]:
        if self._scratch is None:
            self._scratch = self._cleared_scratch()
        path = self._scratch / f"{os.getpid()}-{secrets.token_hex(8)}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fd, rest) :]
            now = time.time_ns()
            os.utime(fd, ns=(now, now))
            return path, _etag(os.fstat(fd))
        except BaseException:
            path.unlink()
            raise
        finally:
            os.close(fd)

    def _cleared_scratch(self) -> Path:
        """Make the folder for what is half written, and remove what killed processes left in it."""
        folder = self._own / "tmp"
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                    path.unlink()
        return folder

    @contextlib.contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Keep other threads and processes from replacing the same file between looking at it and replacing it."""
        path = self._own / "locks" / hashlib.sha256(os.fsencode(key)).hexdigest()[:2]
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _etag(info: os.stat_result) -> str:
    return f'"{info.st_ino:x}-{info.st_mtime_ns:x}-{info.st_size:x}"'


def _etag_at(path: Path) -> str | None:
    try:
        info = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISDIR(info.st_mode):
        raise IsADirectoryError(errno.EISDIR, "a folder")
    return _etag(info)


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, "a file") from error


def _read(path: Path) -> tuple[os.stat_result, bytes, os.stat_result]:
    # A pipe would wait for its writer.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            return before, b"", before
        with open(fd, "rb", closefd=False) as file:
            data = file.read()
        return before, data, os.fstat(fd)
    finally:
        os.close(fd)


def _write_text(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _took_free_name(written: Path, path: Path) -> bool:
    """Give a file its name, if nothing has it; False: this file system has no links.

    Raises:
        FileExistsError: There is a file.
        IsADirectoryError: There is a folder.
    """
    try:
        path.hardlink_to(written)
    except FileExistsError:
        _etag_at(path)
        raise
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP):
            raise
        return False
    return True


_MEANINGS: dict[int, tuple[type[StorageError], str]] = {
    errno.ENOENT: (NotFound, "there is no such file"),
    errno.ENOTDIR: (NotFound, "there is no such file"),
    errno.EACCES: (AccessDenied, "this user may not do that; grant it on the file and its folders"),
    errno.EPERM: (AccessDenied, "this user may not do that; grant it on the file and its folders"),
    errno.ENOSPC: (StoreFull, "the disk is full"),
    errno.EDQUOT: (StoreFull, "the quota is used up"),
    errno.EROFS: (StoreFull, "the file system is read-only"),
    errno.ENAMETOOLONG: (KeyRefused, "the name is too long for this file system"),
    errno.EILSEQ: (KeyRefused, "the file system refuses the name"),
    errno.EINVAL: (KeyRefused, "the file system refuses the name"),
    errno.ELOOP: (KeyRefused, "a symbolic link leads back to itself"),
    errno.EIO: (TransientStorageError, "the disk or the network below it failed"),
    errno.ESTALE: (TransientStorageError, "the network file system lost it; it may come back"),
    errno.ETIMEDOUT: (TransientStorageError, "the network file system does not answer"),
    errno.EMFILE: (TransientStorageError, "too many files are open"),
    errno.ENFILE: (TransientStorageError, "too many files are open"),
}


def _raise(error: OSError, where: str, *, writing: bool = False) -> NoReturn:
    kind, meaning = _MEANINGS.get(error.errno or 0, (StorageFailure, error.strerror or type(error).__name__))
    if writing and kind is NotFound:
        kind, meaning = StorageFailure, "its folder was removed meanwhile"
    raise kind(f"{where}: {meaning}") from error
