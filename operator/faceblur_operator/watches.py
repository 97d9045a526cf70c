"""Compares what the watches tell with what is seen by asking: a watch that has died silently tells nothing.

The same record answers a second question: whether an event is news, or is about a version of an object that the last
look at its resource has seen already.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .api.v1alpha1 import CLUSTER_KIND
from .api.v1alpha1_job import JOB_KIND
from .observed import Key


@dataclass(slots=True)
class _Record:
    told: dict[str, tuple[str, float]] = field(default_factory=dict)
    seen: dict[str, str] = field(default_factory=dict)
    behind: dict[str, float] = field(default_factory=dict)


class Watches:
    """Versions of all objects, by resource and by the objects' unique ids.

    A kind that no watch has ever told of is one that the operator may not watch, and a restart would not help: only the
    resources themselves are missed then.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nothing.

        Args:
            clock: In seconds.
        """
        self._clock = clock
        self._records: dict[Key, _Record] = {}
        self._last_told = clock()
        self._kinds = {CLUSTER_KIND, JOB_KIND}

    def told(self, key: Key, kind: str, uid: str, version: str, *, gone: bool = False) -> bool:
        """Take in an event; returns whether it is news.

        Args:
            key: Of the resource.
            kind: Of the object.
            uid: Of the object.
            version: Its resource version.
            gone: Whether it was deleted.
        """
        self._last_told = self._clock()
        self._kinds.add(kind)
        record = self._records.setdefault(key, _Record())
        record.behind.pop(uid, None)
        if gone:
            record.told.pop(uid, None)
            return True
        record.told[uid] = (version, self._last_told)
        return record.seen.get(uid) != version

    def seen(self, key: Key, objects: Mapping[str, tuple[str, str]], since: float) -> None:
        """Take in a look at a resource.

        Args:
            key: Of the resource.
            objects: Kind and resource version of all its objects that are watched, by their ids.
            since: When the look began, by the clock.
        """
        record = self._records.setdefault(key, _Record())
        record.seen = {uid: version for uid, (_, version) in objects.items()}
        # What is there no more and was told of before the look is over; what came during the look is kept.
        record.told = {uid: told for uid, told in record.told.items() if uid in objects or told[1] >= since}
        record.behind = {
            uid: record.behind.get(uid, self._clock())
            for uid, (kind, version) in objects.items()
            if kind in self._kinds and (uid not in record.told or record.told[uid][0] != version)
        }

    def has_seen(self, key: Key, uid: str, version: str) -> bool:
        """Whether the last look at a resource saw this version of an object."""
        record = self._records.get(key)
        return record is not None and record.seen.get(uid) == version

    def forget(self, key: Key) -> None:
        """Drop all about a resource that is gone."""
        self._records.pop(key, None)

    def restarted(self) -> None:
        """New watches will tell of every object again: until then none is behind."""
        for record in self._records.values():
            record.told.clear()
            record.behind = dict.fromkeys(record.behind, self._clock())

    def silence(self) -> float:
        """Seconds since anything was told."""
        return self._clock() - self._last_told

    def lag(self) -> float:
        """Seconds since the oldest change was seen that no watch has told of."""
        oldest = min((since for record in self._records.values() for since in record.behind.values()), default=None)
        return 0.0 if oldest is None else self._clock() - oldest
