"""From a notification to keys in the inbox, whichever way it comes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from .errors import InvalidLocation
from .events import parse
from .inbox import Inbox
from .job import JobSpec
from .storage.location import parse_location

log = logging.getLogger(__name__)

_LONGEST_KEY = 1024
"""Bytes, on every store that sends notifications."""


class Intake:
    """Reads notifications of one source. May be used by several threads at once."""

    def __init__(
        self, spec: JobSpec, inbox: Inbox, count: Callable[[str, int], object] = lambda kind, number: None
    ) -> None:
        """Prepare for a job.

        Args:
            spec: Of the job.
            inbox: Where keys go.
            count: Called with ``object``, ``removed`` or ``elsewhere`` and how many.

        Raises:
            InvalidLocation: The source is a folder, and folders notify nobody.
        """
        place = parse_location(spec.source)
        if not place.bucket:
            raise InvalidLocation(f"{spec.source} is a folder, which sends no notifications: it can only be listed")
        self._bucket, self._prefix = place.bucket, place.prefix
        self._selection = spec.selection
        self._inbox = inbox
        self._count = count

    @property
    def open(self) -> bool:
        """Whether keys are taken."""
        return not self._inbox.closed.is_set()

    def keys_in(self, body: bytes | str) -> set[str]:
        """The keys of the source that a notification names and the job may mean.

        Raises:
            NotUnderstood: It cannot be read.
        """
        keys: set[str] = set()
        for notice in parse(body):
            meant = [key for key in notice.keys if notice.bucket == self._bucket and self._means(key)]
            if notice.removed:
                # Its output stays, as with every pass.
                self._count("removed", 1)
            else:
                self._count("object" if meant else "elsewhere", 1)
                keys.update(key[len(self._prefix) :] for key in meant)
        return keys

    def keep(self, keys: Iterable[str]) -> None:
        """Put keys into the inbox. When this returns, the notifications may be acknowledged.

        Raises:
            InboxClosed: They may not.
        """
        if wanted := set(keys):
            self._inbox.add(wanted)

    def _means(self, key: str) -> bool:
        try:
            fits = len(key.encode()) <= _LONGEST_KEY and "\0" not in key
        except UnicodeEncodeError:
            return False
        own = key[len(self._prefix) :]
        return fits and bool(own) and key.startswith(self._prefix) and self._selection.fits(own)
