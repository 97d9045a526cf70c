"""Credentials of an S3 store, read anew for every request so that replacing them needs no restart."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from ..errors import AccessDenied

_FILES = {
    "access_key": {"accesskeyid", "accesskey"},
    "secret_key": {"secretaccesskey", "secretkey"},
    "token": {"sessiontoken", "token"},
}


@dataclass(frozen=True, slots=True)
class Credentials:
    """What requests are signed with; nothing of it is shown when it is printed."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


class CredentialSource(Protocol):
    """Gives the credentials of this moment."""

    def __call__(self) -> Credentials:
        """Return them.

        Raises:
            AccessDenied: There are none; the message says where they were looked for.
        """


class EnvironmentCredentials:
    """Takes credentials from environment variables that begin with `prefix`."""

    def __init__(self, prefix: str = "AWS_") -> None:
        self._prefix = prefix

    def __call__(self) -> Credentials:  # noqa: D102
        access, secret, token = (
            os.environ.get(self._prefix + name, "") for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN")
        )
        if not access or not secret:
            raise AccessDenied(
                f"there are no credentials: set {self._prefix}ACCESS_KEY_ID and {self._prefix}SECRET_ACCESS_KEY, "
                "or name a folder that holds them (credentials_folder), or ask without any (credentials=anonymous)"
            )
        return Credentials(access, secret, token or None)


class FolderCredentials:
    """Takes credentials from the files of a folder, as Kubernetes mounts a secret.

    File names are compared without case, punctuation and a leading ``aws``: ``AWS_ACCESS_KEY_ID``, ``access-key-id``
    and ``accessKey`` are the same.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self) -> Credentials:  # noqa: D102
        found: dict[str, str] = {}
        try:
            with contextlib.ExitStack() as stack:
                folder = self._open()
                stack.callback(os.close, folder)
                for name in sorted(os.listdir(folder)):  # noqa: PTH208  of a descriptor
                    if (part := _part(name)) and (text := _text(name, folder)):
                        if part in found:
                            raise AccessDenied(f"{self._folder} has several files for the same: {name} is one of them")
                        found[part] = text
        except (OSError, UnicodeDecodeError) as error:
            raise AccessDenied(f"the credentials in {self._folder} cannot be read: {_reason(error)}") from None
        if "access_key" not in found or "secret_key" not in found:
            raise AccessDenied(
                f"{self._folder} holds no credentials; the files AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are needed"
            )
        return Credentials(found["access_key"], found["secret_key"], found.get("token"))

    def _open(self) -> int:
        # Kubernetes replaces all files at once by turning the link `..data` to another folder: once that is open, both
        # halves of a pair are of the same age.
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return os.open(self._folder / "..data", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


class Latest:
    """Reads credentials, and remembers them for whoever has to do with those that were read last."""

    def __init__(self, source: CredentialSource) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._read: Credentials | None = None

    def __call__(self) -> Credentials:  # noqa: D102
        with self._lock:  # an older reading must not take the place of a newer one
            self._read = self._source()
            return self._read

    def again(self) -> Credentials:
        """What was read last.

        Raises:
            AccessDenied: See `CredentialSource`.
        """
        return self._read or self()


def _text(name: str, folder: int) -> str:
    with open(name, encoding="utf-8", opener=lambda path, flags: os.open(path, flags, dir_fd=folder)) as file:
        return file.read().strip()


@lru_cache
def _part(file: str) -> str | None:
    name = re.sub(r"[^a-z]", "", file.lower()).removeprefix("aws")
    return next((part for part, names in _FILES.items() if name in names), None)


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or "they are not text"
