"""What a process holds to work on pages: stores, one client of the workers, marks; shared by its threads.

Everything is opened when it is first used, in the process that uses it: neither gRPC nor obstore survives a fork.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import faceblur

from .config import BatchSettings
from .generation import Generation, load
from .job import JobSpec
from .ledger import Entry, Ledger, Mark, State
from .outcomes import Outcome
from .page import Workplace
from .storage.opening import open_store
from .storage.store import ObjectStore

_MOST = 64


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a task says: which page. No keys, no pictures, no credentials.

    Attributes:
        destination: Where the ledger is.
        profile: Name of the destination's storage profile.
        job: The job's id.
        generation: From 1.
        page: From 0.
    """

    destination: str
    profile: str
    job: str
    generation: int
    page: int


class Workplaces:
    """See the module; may be used by several threads at once."""

    def __init__(
        self,
        settings: BatchSettings,
        *,
        open_at: Callable[[str, str], ObjectStore] | None = None,
        count: Callable[[Outcome, Entry], None] = lambda outcome, entry: None,
    ) -> None:
        """Prepare; nothing is opened yet.

        Args:
            settings: Of the process.
            open_at: Opens a location with the storage profile of a name.
            count: Called for each outcome.
        """
        self._settings = settings
        self._open_at = open_at or (lambda location, profile: open_store(location, settings.storage(profile)))
        self._count = count
        self._lock = threading.Lock()
        self._stores: dict[tuple[str, str], ObjectStore] = {}
        self._generations: dict[tuple[str, str, int], tuple[Generation, Ledger, _Marks]] = {}
        self._ending = threading.Event()

    @cached_property
    def client(self) -> faceblur.FaceBlurClient:
        """The client of all threads."""
        return self._settings.client()

    def store(self, location: str, profile: str) -> ObjectStore:
        """The store at a location."""
        with self._lock:
            if (location, profile) not in self._stores:
                self._stores[location, profile] = self._open_at(location, profile)
            return self._stores[location, profile]

    def workplace(self, ticket: Ticket) -> Workplace:
        """What a page is worked on with.

        Raises:
            StorageError: The ledger cannot be read.
            BatchError: There is no such generation.
        """
        generation, ledger, marks = self._generation(ticket)
        return Workplace(
            generation=generation,
            ledger=ledger,
            source=self.store(generation.spec.source, generation.spec.source_profile),
            client=self.client,
            pace=self._settings.pace(),
            mark=marks,
            ending=self._ending.is_set,
            sleep=self._ending.wait,
            count=self._count,
        )

    @property
    def ending(self) -> bool:
        """Whether the process is about to end."""
        return self._ending.is_set()

    def wait(self, seconds: float) -> None:
        """Let seconds pass, less if the process is about to end."""
        self._ending.wait(seconds)

    def end(self) -> None:
        """Let the pages that are worked on be left, in order."""
        self._ending.set()

    def close(self) -> None:
        """Close the connections."""
        self.end()
        if "client" in vars(self):
            self.client.close()

    def _generation(self, ticket: Ticket) -> tuple[Generation, Ledger, _Marks]:
        name = (ticket.destination, ticket.job, ticket.generation)
        with self._lock:
            found = self._generations.get(name)
        if found is None:
            destination = self.store(ticket.destination, ticket.profile)
            generation = load(destination, ticket.job, ticket.generation)
            ledger = generation.ledger(destination)
            found = (generation, ledger, _Marks(ledger, self._settings.mark_seconds))
            with self._lock:
                if len(self._generations) >= _MOST:
                    self._generations.clear()
                found = self._generations.setdefault(name, found)
        return found


class _Marks:
    """The mark of a generation, read again when it is too old; the threads of a process share it.

    One that asks to stop is read each time: a page that is left for one that was taken back lies until the planner
    misses it.
    """

    def __init__(self, ledger: Ledger, seconds: float) -> None:
        self._ledger = ledger
        self._seconds = seconds
        self._lock = threading.Lock()
        self._running_until = -math.inf

    def __call__(self) -> Mark:
        with self._lock:
            now = time.monotonic()
            if now < self._running_until:
                return Mark()
            mark = self._ledger.mark()
            if mark.state is State.RUN:
                self._running_until = now + self._seconds
            return mark


def ticket_for(spec: JobSpec, generation: Generation, page: int) -> Ticket:
    """What a task says of a page."""
    return Ticket(spec.destination, spec.destination_profile, generation.job, generation.number, page)
