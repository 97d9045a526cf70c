"""An object store in memory that does what a test wants: counts requests, breaks them, dies in the middle of one."""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from faceblur_batch.errors import AlreadyExists, NotFound, ObjectChanged
from faceblur_batch.storage.store import NO_HEADERS, Capabilities, ObjectHeaders, ObjectInfo, StoredObject

EVERYTHING = Capabilities(create_only=True, replace_if_match=True, metadata=True, sorted_listing=True)
START = datetime(2026, 1, 1, tzinfo=UTC)
LIST_PAGE = 1000


def order(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


class Clock:
    """A store's clock; every write takes a second."""

    def __init__(self) -> None:
        self._seconds = itertools.count()
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return START + timedelta(seconds=next(self._seconds)) + self.ahead


@dataclass(frozen=True)
class Operation:
    """One request."""

    store: str
    name: str
    key: str


Hook = Callable[[Operation, bool], None]
"""Called before a request has an effect (False) and after it (True); what it raises is what the caller sees."""


@dataclass
class MemoryStore:
    """See the module."""

    name: str
    can: Capabilities = EVERYTHING
    hook: Hook = lambda operation, done: None
    clock: Clock = field(default_factory=Clock)
    objects: dict[str, StoredObject] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _versions: Iterator[int] = field(default_factory=itertools.count, repr=False)

    @property
    def location(self) -> str:
        return f"memory://{self.name}/"

    def list(self, prefix: str = "", *, after: str | None = None) -> Iterator[ObjectInfo]:
        with self._lock:
            keys = sorted((key for key in self.objects if key.startswith(prefix)), key=order)
        keys = [key for key in keys if after is None or order(key) > order(after)]
        for start in range(0, max(1, len(keys)), LIST_PAGE):
            self._ask("list", prefix)
            for key in keys[start : start + LIST_PAGE]:
                with self._lock:
                    stored = self.objects.get(key)
                if stored is not None:
                    info = stored.info
                    yield ObjectInfo(info.key, info.size, info.etag, info.modified)

    def head(self, key: str) -> ObjectInfo:
        self._ask("head", key)
        return self._stored(key).info

    def get(self, key: str, *, if_match: str | None = None) -> StoredObject:
        self._ask("get", key)
        stored = self._stored(key)
        if if_match is not None and stored.info.etag != if_match:
            raise ObjectChanged(f"{key} is not what was listed")
        return stored

    def put(
        self,
        key: str,
        data: bytes,
        *,
        headers: ObjectHeaders = NO_HEADERS,
        only_if_absent: bool = False,
        if_match: str | None = None,
    ) -> str:
        self._ask("put", key)
        with self._lock:
            there = self.objects.get(key)
            if only_if_absent and self.can.create_only and there is not None:
                raise AlreadyExists(f"{key} exists")
            if if_match is not None and self.can.replace_if_match and (there is None or there.info.etag != if_match):
                raise ObjectChanged(f"{key} has changed")
            etag = f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}-{next(self._versions)}"'
            info = ObjectInfo(key, len(data), etag, self.clock(), headers)
            self.objects[key] = StoredObject(info, data)
        self.hook(Operation(self.name, "put", key), True)
        return etag

    def delete(self, key: str) -> None:
        self._ask("delete", key)
        with self._lock:
            self.objects.pop(key, None)

    def keys(self, prefix: str = "") -> list[str]:
        """What is there, for assertions."""
        with self._lock:
            return sorted(key for key in self.objects if key.startswith(prefix))

    def _ask(self, name: str, key: str) -> None:
        with self._lock:
            self.requests[name] += 1
        self.hook(Operation(self.name, name, key), False)

    def _stored(self, key: str) -> StoredObject:
        with self._lock:
            if key not in self.objects:
                raise NotFound(f"there is no {key}")
            return self.objects[key]
