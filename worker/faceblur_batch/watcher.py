"""Keeps a destination in step with its source: decides when a pass of the job begins, and at what it looks.

Each interval the source is listed and compared with the ledger; what is new or changed is done by a pass over these
objects, and where nothing is, nothing is written. Between listings passes look at the keys in the inbox. Nothing here
is state that could be lost: the ledger has the passes, the inbox the keys, and a new process begins with a listing.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from .difference import Found
from .driver import Ended, Ending
from .errors import BatchError, StorageError
from .generation import Generation, is_complete, latest
from .inbox import Inbox
from .ledger import Ledger, Mark, State
from .planner import Phase, Status
from .storage.store import ObjectInfo, ObjectStore
from .upkeep import forget, trim
from .watched import Watched

log = logging.getLogger(__name__)

_LONGEST_PAUSE = 60.0
_PATIENCE = 6
_DAY = 24 * 3600.0
_HALTS = (State.CANCEL, State.STOP)


class Passes(Protocol):
    """What is needed of `driver.Driver`."""

    def missing(self, most: int, *, ending: Ending, beat: Callable[[], object]) -> Found | None:
        """See `driver.Driver.missing`."""

    def look_at(self, keys: Collection[str], *, beat: Callable[[], object]) -> Found:
        """See `driver.Driver.look_at`."""

    def run(
        self,
        *,
        named: Sequence[ObjectInfo] | None = None,
        begun: Callable[[bool], object],
        seen: Callable[[Status], object],
        ending: Ending,
    ) -> Ended:
        """See `driver.Driver.run`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """When what is done.

    Attributes:
        every: Seconds between two listings.
        settle: A pass begins when no key came for so many seconds, and at the latest after six times as many.
        most: Objects that a pass looks at, if it does not look at everything.
        keep: Seconds after which generations are removed; 0: never.
        poll: Seconds between two looks at what a person asks for.
    """

    every: float
    settle: float
    most: int
    keep: float
    poll: float


class _Ending(Exception):
    """The process is asked to end."""


class Watcher:
    """See the module.

    Attributes:
        beaten: When it last showed that it lives, by its clock.
        passing: A pass is running.
    """

    def __init__(
        self,
        passes: Passes,
        destination: ObjectStore,
        job: str,
        inbox: Inbox,
        rhythm: Rhythm,
        ending: Ending,
        *,
        resume: bool = False,
        seen: Callable[[Status], object] = lambda status: None,
        ended: Callable[[str, str], object] = lambda what, phase: None,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Take up a job where the ledger says that it is.

        Args:
            passes: Does them.
            destination: Has the ledger.
            job: The job's id.
            inbox: Of the job.
            rhythm: When what is done.
            ending: Set when the process has to end.
            resume: Go on also if the job was cancelled or stopped.
            seen: Called with the status of a running pass now and then.
            ended: Called when something has ended: what, and how.
            monotonic: Seconds that only grow.
            now: The time.
        """
        self.watched = Watched(destination, job)
        self._passes = passes
        self._destination = destination
        self._job = job
        self._inbox = inbox
        self._rhythm = rhythm
        self._ending = ending
        self._resume = resume
        self._seen = seen
        self._ended = ended
        self._monotonic = monotonic
        self._now = now
        self._loaded = False
        self._unfinished = True
        self._stopped: Ledger | None = None
        self._listed: float | None = None
        self._forgot: float | None = None
        self._troubles = 0
        self._said = ""
        self._last_pass = self._last_listing = ""
        self.beaten = monotonic()
        self.passing = False

    def run(self) -> None:
        """Watch until the process has to end."""
        while not self._ending.is_set():
            self._ending.wait(self.step())
        self.close()

    def close(self) -> None:
        """Say in the ledger that nobody watches any more."""
        if not self.halted:
            self._note("ended", "")

    def step(self) -> float:
        """Do the next thing there is to do, and return after how many seconds there may be something again."""
        try:
            pause = self._step()
        except _Ending:
            return 0.0
        except BatchError as error:
            self._troubles += 1
            # What a store says names objects, whose keys are in no log.
            log.warning("the watch waits: %s", error.reason if isinstance(error, StorageError) else error)
            self._note("trouble", error.reason)
            return min(_LONGEST_PAUSE, 2.0**self._troubles) * random.uniform(0.5, 1)  # noqa: S311
        self._troubles = 0
        return pause

    @property
    def halted(self) -> bool:
        """Whether a person or a budget has stopped it."""
        return self._inbox.closed.is_set()

    def _step(self) -> float:
        self._beat()
        if self._resume:
            self._wake()
            self._resume = False
        if mark := self._halt():
            self._inbox.closed.set()
            self._note("stopped" if mark.state is State.STOP else "cancelled", mark.reason)
            return self._rhythm.poll
        self._inbox.closed.clear()
        if not self._loaded:
            self._inbox.load()
            self._loaded = True
        if self._unfinished:
            last = latest(self._destination, self._job)
            if last is not None and not is_complete(last.ledger(self._destination)):
                self._pass("unfinished")
                return 0.0
            self._unfinished = False
        return self._next()

    def _wake(self) -> None:
        """Take back what a person or a budget has asked for."""
        self.watched.set_mark(Mark())
        last = latest(self._destination, self._job)
        if last is not None and (ledger := last.ledger(self._destination)).mark().state in _HALTS:
            ledger.set_mark(Mark())

    def _halt(self) -> Mark | None:
        """Why nothing is done; None: something is."""
        mark = self.watched.mark()
        if mark.state in _HALTS:
            return mark
        if self._stopped is not None:
            mark = self._stopped.mark()
            if mark.state in _HALTS and not is_complete(self._stopped):
                return mark
            self._stopped, self._unfinished = None, True
        return None

    def _next(self) -> float:
        now, rhythm, waiting = self._monotonic(), self._rhythm, self._inbox.waiting()
        listing = 0.0 if self._listed is None or waiting.everything else self._listed + rhythm.every - now
        if listing <= 0:
            self._list(now)
            return 0.0
        looking = listing
        if waiting.keys:
            settled = min(waiting.last + rhythm.settle, waiting.first + _PATIENCE * rhythm.settle)
            looking = 0.0 if waiting.keys >= rhythm.most else settled - now
        if looking <= 0:
            self._look()
            return 0.0
        self._note("watching", "")
        return max(0.0, min(listing, looking, rhythm.poll))

    def _list(self, now: float) -> None:
        """Compare the source with the ledger, and do what is missing."""
        self._inbox.take()  # what has happened until now is in the listing
        self._note("listing", "")
        found = self._passes.missing(self._rhythm.most, ending=self._ending, beat=self._beat)
        if found is None:
            done = self._pass("everything")
        elif found.objects:
            done = self._pass("listing", found.objects)
        else:
            self._inbox.drop()
            self._ended("listing", "nothing")
            done = True
        if done:
            self._listed, self._last_listing = now, self._now().isoformat()

    def _look(self) -> None:
        """Do what notifications have named."""
        taken = self._inbox.take()
        if taken.everything:
            return
        found = self._passes.look_at(taken.keys, beat=self._beat)
        if found.unseen:
            log.warning("%d objects could not be looked at: the source is listed", found.unseen)
            self._inbox.add_everything()
        if found.gone:
            log.info("%d keys that were named have no object any more", found.gone)
        if found.objects:
            self._pass("named", found.objects)
        else:
            self._inbox.drop()
            self._ended("named", "nothing")

    def _pass(self, what: str, named: Sequence[ObjectInfo] | None = None) -> bool:
        """Run a pass, and return whether it was one that began with this.

        Raises:
            BatchError: It cannot go on now.
        """
        new = False

        def begun(by_us: bool) -> None:
            nonlocal new
            new = by_us and what != "unfinished"
            if new:
                self._inbox.drop()

        self._note("working", what)
        self._unfinished, self.passing = True, True
        try:
            ended = self._passes.run(named=named, begun=begun, seen=self._see, ending=self._ending)
        finally:
            self.passing = False
        phase = ended.status.phase
        self._ended(what, phase)
        if phase in (Phase.CANCELLED, Phase.STOPPED):
            self._stopped = ended.ledger
        elif phase is Phase.COMPLETED:
            self._unfinished = False
            self._last_pass = self._now().isoformat()
            self._keep_up(ended.generation)
        return new

    def _see(self, status: Status) -> None:
        self.beaten = self._monotonic()
        self._seen(status)

    def _keep_up(self, generation: Generation) -> None:
        now, keep = self._monotonic(), self._rhythm.keep
        try:
            trim(self._destination, generation, self._beat)
            if keep and (self._forgot is None or now - self._forgot >= min(keep, _DAY)):
                if removed := forget(self._destination, generation, self._now() - timedelta(seconds=keep), self._beat):
                    log.info("%d old generations were removed", removed)
                self._forgot = now
        except BatchError as error:
            log.warning("the ledger could not be tidied up: %s", error.reason)

    def _beat(self) -> None:
        self.beaten = self._monotonic()
        if self._ending.is_set():
            raise _Ending

    def _note(self, state: str, reason: str) -> None:
        """Say in the ledger how it is, if that is not said yet."""
        if self._said == (said := f"{state} {reason} {self._last_pass} {self._last_listing}"):
            return
        values: dict[str, Any] = {"state": state, "reason": reason, "since": self._now().isoformat()}
        values |= {"last_pass": self._last_pass, "last_listing": self._last_listing, "every": self._rhythm.every}
        try:
            self.watched.note(values)
        except BatchError as error:
            log.warning("the state of the watch was not written: %s", error.reason)
        else:
            self._said = said
