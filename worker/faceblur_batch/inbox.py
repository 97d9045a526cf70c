"""Keys that notifications have named and no pass has looked at yet: in the ledger before anybody is told "received".

Each object under ``DEST/.faceblur/jobs/<job>/inbox/`` has some keys, or says that more came than are kept and
everything has to be looked at. A pass takes what is there, and removes it once the pass itself is in the ledger: a
process that is killed in between finds the same keys again, which is harmless.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from .errors import BatchError, NotFound, StorageError
from .ledger import ROOT, dump_lines, load_lines
from .storage.store import ObjectHeaders, ObjectStore

log = logging.getLogger(__name__)

_AT_ONCE = 16
_EVERYTHING = ".all"
_LINES = ObjectHeaders(content_type="application/x-ndjson")


class InboxClosed(BatchError):
    """Nothing can be kept now; whoever sent it shall send it again."""

    reason = "INBOX_CLOSED"


@dataclass(frozen=True, slots=True)
class Waiting:
    """What no pass looks at yet.

    Attributes:
        keys: How many.
        everything: There were more than are kept.
        first: When the first of them came, by the clock of the inbox.
        last: When the last one came.
    """

    keys: int
    everything: bool
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class Taken:
    """What a pass looks at.

    Attributes:
        names: Of the objects of the inbox.
        keys: In them.
        everything: The keys are not all.
    """

    names: tuple[str, ...]
    keys: frozenset[str]
    everything: bool


@dataclass(slots=True)
class _Commit:
    """What is written together."""

    keys: set[str] = field(default_factory=set)
    tried: bool = False
    error: StorageError | None = None


class Inbox:
    """See the module. `add` may be called by several threads at once, the rest by one."""

    def __init__(
        self, store: ObjectStore, job: str, most: int, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Name an inbox; nothing is read or written yet.

        Args:
            store: The job's destination.
            job: Its id.
            most: Keys that are kept; should more come, everything is looked at.
            monotonic: Seconds that only grow.
        """
        self._store = store
        self._prefix = f"{ROOT}{job}/inbox/"
        self._most = most
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._next = _Commit()
        self._names: list[str] = []
        self._keys: set[str] = set()
        self._everything = False
        self._first = self._last = 0.0
        self._taken = Taken((), frozenset(), everything=False)
        self._spent: set[str] = set()
        self.closed = threading.Event()

    def add(self, keys: Collection[str]) -> None:
        """Keep keys. When this returns, they are in the ledger.

        Raises:
            InboxClosed: They are not.
        """
        if self.closed.is_set():
            raise InboxClosed("nothing is taken now")
        with self._lock:
            commit = self._next
            commit.keys.update(keys)
        # One writes for all who came while another was writing: the slower the store, the larger the parts.
        with self._writing:
            if not commit.tried:
                with self._lock:
                    self._next = _Commit()
                commit.tried = True
                try:
                    self._write(commit.keys)
                except StorageError as error:
                    commit.error = error
        if commit.error is not None:
            raise InboxClosed(f"the destination keeps nothing now [{commit.error.reason}]") from commit.error

    def add_everything(self) -> None:
        """Keep that everything has to be looked at.

        Raises:
            StorageError: It cannot be written.
        """
        with self._writing:
            self._put((), everything=True)

    def load(self) -> None:
        """Read what another process has left.

        Raises:
            StorageError: It cannot be read.
        """
        known = {*self._names, *self._taken.names, *self._spent}
        for info in self._store.list(self._prefix):
            if info.key in known:
                continue
            everything = info.key.endswith(_EVERYTHING) or len(self._keys) > self._most
            try:
                keys = () if everything else load_lines(self._store.get(info.key).data)
            except NotFound:  # somebody else has done it meanwhile
                continue
            except ValueError:
                everything, keys = True, ()
            self._note(info.key, keys, everything=everything)

    def waiting(self) -> Waiting:
        """What is there."""
        with self._lock:
            everything = self._everything or self._taken.everything
            return Waiting(len(self._keys) + len(self._taken.keys), everything, self._first, self._last)

    def take(self) -> Taken:
        """Take what is there, and what was taken before and not removed. What comes from now on is kept for later."""
        with self._lock:
            names, keys = (*self._taken.names, *self._names), self._taken.keys | self._keys
            everything = self._taken.everything or self._everything or len(keys) > self._most
            self._taken = Taken(names, frozenset() if everything else keys, everything)
            self._names, self._keys, self._everything = [], set(), False
            return self._taken

    def drop(self) -> None:
        """Remove what was taken: a pass that looks at it is in the ledger."""
        self._spent.update(self._taken.names)
        self._taken = Taken((), frozenset(), everything=False)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            errors = [error for error in pool.map(self._remove, tuple(self._spent)) if error]
        if errors:
            # It is looked at once more by the next process, no more.
            log.warning("%d parts of the inbox could not be removed: %s", len(errors), errors[0].reason)

    def _remove(self, name: str) -> StorageError | None:
        try:
            self._store.delete(name)
        except StorageError as error:
            return error
        self._spent.discard(name)
        return None

    def _write(self, keys: set[str]) -> None:
        with self._lock:
            new = keys - self._keys
            # What is looked at together with everything else need not be named.
            if not new or self._everything:
                return
            everything = len(self._keys) + len(new) > self._most
        self._put(new, everything=everything)

    def _put(self, keys: Collection[str], *, everything: bool) -> None:
        name = f"{self._prefix}{time.time_ns():020d}-{uuid.uuid4().hex[:8]}{_EVERYTHING if everything else '.jsonl'}"
        self._store.put(name, b"" if everything else dump_lines(sorted(keys)), headers=_LINES)
        self._note(name, keys, everything=everything)

    def _note(self, name: str, keys: Collection[str], *, everything: bool) -> None:
        now = self._monotonic()
        with self._lock:
            if not self._names and not self._taken.names:
                self._first = now
            self._last = now
            self._names.append(name)
            self._keys.update(keys)
            self._everything = self._everything or everything
