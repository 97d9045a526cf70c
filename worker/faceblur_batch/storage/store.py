"""The seam between a batch and where its pictures lie: what a store can do, and nothing about how.

A store is a bucket with a prefix or a folder. Its keys are relative to that, segments are separated by ``/``, and they
are taken literally: nothing is decoded, normalised or joined. All methods may be called from several threads at once.

Every method raises `StorageError`; the ones that a caller is expected to tell apart are named. Each has already tried
again what can pass by itself, so `TransientStorageError` means that it did not pass in the configured time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ObjectHeaders:
    """What is kept beside an object's bytes.

    Attributes:
        content_type: As in HTTP, ``image/jpeg``.
        cache_control: As in HTTP.
        metadata: User metadata. Names are lower-case ``[a-z0-9-]``, values are printable ASCII, 2 KiB in all:
            what every store gives back as it was.
    """

    content_type: str | None = None
    cache_control: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


NO_HEADERS = ObjectHeaders()


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object without its bytes.

    Attributes:
        key: Relative to the store.
        size: Bytes.
        etag: Opaque, as the store gives it; it differs whenever the content does. It may say nothing about equality
            across stores, and is no checksum.
        modified: When it was written, with a time zone.
        headers: Known from `ObjectStore.head` and `ObjectStore.get`, None in a listing.
    """

    key: str
    size: int
    etag: str
    modified: datetime
    headers: ObjectHeaders | None = None


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object and its bytes, of the same version."""

    info: ObjectInfo
    data: bytes


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store was seen to do, see `faceblur_batch.storage.probe`.

    Attributes:
        create_only: ``put(only_if_absent=True)`` leaves alone what is there.
        replace_if_match: ``put(if_match=...)`` leaves alone what has another ETag.
        metadata: User metadata comes back as it was written.
        sorted_listing: `ObjectStore.list` is in the order of keys' UTF-8 bytes.
    """

    create_only: bool
    replace_if_match: bool
    metadata: bool
    sorted_listing: bool


def printable(key: str) -> str:
    """Return `key` for messages: on one line, without control characters."""
    return key if key.isprintable() else key.encode("unicode_escape").decode()


class ObjectStore(Protocol):
    """A bucket with a prefix, or a folder."""

    @property
    def location(self) -> str:
        """What a person calls it, ``s3://bucket/prefix/``; for messages, without credentials."""

    def list(self, prefix: str = "", *, after: str | None = None) -> Iterator[ObjectInfo]:
        """Every object whose key starts with `prefix`, page by page as the iterator is asked; nothing is kept.

        Args:
            prefix: Compared as text: ``a`` also finds ``ab/c``.
            after: Only keys that sort behind this one, which need not exist: to go on where another listing ended.

        Raises:
            LocationNotFound: There is no such bucket or folder. An existing one without objects is no error.
        """

    def head(self, key: str) -> ObjectInfo:
        """Return what is known of an object, with its headers.

        Raises:
            NotFound: There is none.
        """

    def get(self, key: str, *, if_match: str | None = None) -> StoredObject:
        """Read an object.

        Args:
            key: Which.
            if_match: Its ETag in a listing.

        Raises:
            NotFound: There is none.
            ObjectChanged: It has another ETag than `if_match`.
        """

    def put(
        self,
        key: str,
        data: bytes,
        *,
        headers: ObjectHeaders = NO_HEADERS,
        only_if_absent: bool = False,
        if_match: str | None = None,
    ) -> str:
        """Write an object, all of it or nothing, and return its new ETag.

        A condition holds only where `Capabilities` says so. A request that was sent again after its answer was lost
        may find what it wrote itself, and then raises `AlreadyExists` or `ObjectChanged` although it was the one: a
        caller that cares looks at the object.

        Args:
            key: Where; what is there is replaced, unless a condition says otherwise.
            data: The whole content.
            headers: What to keep beside it.
            only_if_absent: Write only if nothing is there.
            if_match: Write only over this ETag.

        Raises:
            AlreadyExists: `only_if_absent`, and there is an object.
            ObjectChanged: `if_match`, and the object has another ETag or is gone.
            KeyRefused: Such a key cannot be stored; `faceblur_batch.storage.keys` makes keys that always can.
        """

    def delete(self, key: str) -> None:
        """Remove an object; that there is none is no error."""
