"""The planner of a generation: plans pages, keeps the broker supplied, watches, and concludes.

One loop without threads. All its state is in the ledger; what it holds besides can be lost at any time. It may be
killed and started again, and two of them do not harm each other.
"""

from __future__ import annotations

import logging
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import chain
from typing import Any, Protocol

from .chain import receipts_of
from .conclusion import conclude
from .errors import BatchError, TransientStorageError, Unsupported
from .generation import Generation, is_complete
from .job import JobSpec
from .ledger import Entry, Ledger, Mark, Page, PageHead, State, Totals, with_page
from .manifest import Receipts, order
from .outcomes import Kind, Outcome
from .progress import Progress
from .storage.store import ObjectInfo, ObjectStore
from .summary import Summary, outcome_of

log = logging.getLogger(__name__)

MOST_LINES = 10_000
"""Of a page, with the objects for which nothing has to be done."""
MOST_HAND_OUTS = 20
"""Of a page that was lost; more is no bad luck."""
PATIENCE = 10
"""Times the stall that a page may be silent while tasks wait in the queue."""
_GROWTH = 16
_LEAST_FOR_PERCENT = 100


class BrokerUnavailable(BatchError):
    """The broker takes no tasks now."""

    reason = "BROKER_UNAVAILABLE"


class Queue(Protocol):
    """Where tasks go."""

    def publish(self, page: int) -> None:
        """Hand out a page.

        Raises:
            BrokerUnavailable: Not now.
        """

    def waiting(self) -> int | None:
        """Tasks that nobody has taken yet; None: it cannot be told."""


class Phase(StrEnum):
    """Where a generation stands."""

    PLANNING = "planning"
    RUNNING = "running"
    CONCLUDING = "concluding"
    COMPLETED = "completed"
    SUSPENDED = "suspended"
    CANCELLED = "cancelled"
    STOPPED = "stopped"
    SUPERSEDED = "superseded"


ENDED = frozenset({Phase.COMPLETED, Phase.SUSPENDED, Phase.CANCELLED, Phase.STOPPED, Phase.SUPERSEDED})
_PHASE_OF = {
    State.SUSPEND: Phase.SUSPENDED,
    State.CANCEL: Phase.CANCELLED,
    State.STOP: Phase.STOPPED,
    State.SUPERSEDED: Phase.SUPERSEDED,
}


@dataclass(frozen=True, slots=True)
class Status:
    """What a person wants to see.

    Attributes:
        job: The job's id.
        generation: Its number.
        phase: Where the generation stands.
        reason: Why, if it does not go on.
        totals: What is planned so far.
        planned: Whether that is all.
        summary: What has an outcome.
        rate: Objects per second of late.
        seconds_left: At that rate; None: not known yet.
    """

    job: str
    generation: int
    phase: Phase
    reason: str
    totals: Totals
    planned: bool
    summary: Summary
    rate: float
    seconds_left: float | None

    @property
    def percent(self) -> float | None:
        """Of all objects, how many have an outcome; None: how many there are is not known yet."""
        if not self.planned:
            return None
        return 100.0 * self.summary.objects / self.totals.objects if self.totals.objects else 100.0

    def as_dict(self) -> dict[str, Any]:
        """JSON-compatible values, for programs and for whoever shows a job's status."""
        percent, left = self.percent, self.seconds_left
        return {
            "job": self.job,
            "generation": self.generation,
            "phase": str(self.phase),
            "reason": self.reason,
            "objects": self.totals.objects,
            "planned": self.planned,
            "skipped": self.totals.skipped,
            "done": self.summary.objects,
            "errors": self.summary.errors,
            "percent": None if percent is None else round(percent, 1),
            "pictures_per_second": round(self.rate, 2),
            "seconds_left": None if left is None else round(left),
            "summary": self.summary.as_dict(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """How a planner waits.

    Attributes:
        poll: Seconds between two looks at the ledger.
        stall: Seconds without a sign of life after which a page is handed out again, if nothing waits in the queue.
        window: Seconds over which the rate is taken.
    """

    poll: float = 2.0
    stall: float = 240.0
    window: float = 60.0


class Planner:
    """See the module."""

    def __init__(
        self,
        generation: Generation,
        ledger: Ledger,
        source: ObjectStore,
        queue: Queue,
        *,
        spec: JobSpec | None = None,
        watch: Watch | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Take up a generation where the ledger says that it is.

        Args:
            generation: What is done.
            ledger: Its ledger.
            source: Where pictures come from.
            queue: Where tasks go.
            spec: Budget, deadline and parallelism, if they are not those that the generation began with.
            watch: How to wait.
            monotonic: Seconds that only grow.
            now: The time.
        """
        self._generation = generation
        self._ledger = ledger
        self._source = source
        self._queue = queue
        self._spec = spec or generation.spec
        self._watch = watch or Watch()
        self._monotonic = monotonic
        self._now = now
        self._progress = Progress(ledger)
        self._phase = Phase.COMPLETED if is_complete(ledger) else Phase.PLANNING
        self._reason = ""
        self._refreshed: float | None = None
        self._history: deque[tuple[float, int]] = deque()
        self._published: dict[int, float] = {}
        self._handed_out: Counter[int] = Counter()
        self._said = 0.0
        self._next = 0
        last = ledger.last_page()
        self._head = last.head if last else PageHead(-1, "", False, 0, Totals())
        self._listing: Iterator[ObjectInfo] | None = None
        self._before: Before | None = None

    @property
    def bound(self) -> int:
        """Most pages that are handed out and not done."""
        return 2 * self._spec.parallelism

    def step(self) -> float:
        """Do the next thing there is to do.

        Returns:
            Seconds until there may be something again; 0: there is.

        Raises:
            StorageError: The source or the ledger cannot be read or written.
        """
        if self._phase in ENDED:
            return 0.0
        try:
            if self._due():
                self._refresh()
                if self._phase in ENDED:
                    return 0.0
            if not self._head.final:
                self._plan_page()
            self._publish()
            if self._head.final and self._progress.first_unfinished > self._head.page:
                self._phase = Phase.CONCLUDING
                conclude(self._ledger, self._generation, pages=self._head.page + 1, now=self._now())
                self._phase = Phase.COMPLETED
                return 0.0
        except (TransientStorageError, BrokerUnavailable) as error:
            self._listing = None  # it may be at its end without having said so
            log.warning("planner waits: %s", error.reason)
            return self._watch.poll * random.uniform(0.5, 1.5)  # noqa: S311
        if not self._head.final:
            return 0.0
        self._phase = Phase.RUNNING
        assert self._refreshed is not None
        return max(0.0, self._refreshed + self._watch.poll - self._monotonic())

    def run(
        self, sleep: Callable[[float], object] = time.sleep, seen: Callable[[Status], object] | None = None
    ) -> Phase:
        """Work until the generation has ended.

        Args:
            sleep: Lets time pass; may raise to end the planner.
            seen: Called with the status now and then.
        """
        shown = -1.0
        while self._phase not in ENDED:
            pause = self.step()
            if seen and (self._phase in ENDED or pause or self._monotonic() - shown > 1):
                seen(self.status())
                shown = self._monotonic()
            if pause:
                sleep(pause)
        return self._phase

    def look(self) -> None:
        """Read the ledger, decide nothing and hand out nothing; for who wants to know how far it is.

        Raises:
            StorageError: It cannot be read.
        """
        if self._phase is Phase.COMPLETED:
            self._progress.refresh(self._monotonic())
            return
        mark = self._ledger.mark()
        self._progress.refresh(self._monotonic())
        if mark.state is not State.RUN:
            self._end(mark)
        elif self._head.final:
            self._phase = Phase.RUNNING

    @property
    def pages(self) -> int:
        """How many are planned."""
        return self._head.page + 1

    def status(self) -> Status:
        """How far it is."""
        summary = self._progress.summary()
        rate = 0.0
        if len(self._history) > 1:
            (before, first), (last, count) = self._history[0], self._history[-1]
            rate = (count - first) / max(last - before, 1e-9)
        left = None
        if self._head.final and rate > 0:
            left = (self._head.totals.objects - summary.objects) / rate
        return Status(
            job=self._generation.job,
            generation=self._generation.number,
            phase=self._phase,
            reason=self._reason,
            totals=self._head.totals,
            planned=self._head.final,
            summary=summary,
            rate=rate,
            seconds_left=left,
        )

    # Watching

    def _due(self) -> bool:
        return self._refreshed is None or self._monotonic() - self._refreshed >= self._watch.poll

    def _refresh(self) -> None:
        mark = self._ledger.mark()
        if mark.state is not State.RUN:
            self._end(mark)
            return
        self._refreshed = now = self._monotonic()
        self._progress.refresh(now)
        summary = self._progress.summary()
        self._history.append((now, summary.objects - summary.kinds[Kind.UNCHANGED]))
        while now - self._history[0][0] > self._watch.window and len(self._history) > 2:
            self._history.popleft()
        if reason := self._too_much(summary):
            self._stop(reason)
            return
        self._publish_lost(now)

    def _stop(self, reason: str) -> None:
        mark = Mark(State.STOP, reason)
        self._ledger.set_mark(mark)
        self._end(mark)

    def _end(self, mark: Mark) -> None:
        self._phase, self._reason = _PHASE_OF[mark.state], mark.reason

    def _too_much(self, summary: Summary) -> str:
        """Why the generation must not go on; empty: it may."""
        spec, errors = self._spec, summary.errors
        if spec.max_errors is not None and errors > spec.max_errors:
            return f"{errors} objects have no result; {spec.max_errors} are allowed"
        everything = self._head.final and summary.objects == self._head.totals.objects
        # The one new picture of the last minute is no share of anything.
        everything = everything and self._generation.named is None
        if spec.max_error_percent is not None and (everything or summary.objects >= _LEAST_FOR_PERCENT):
            percent = 100.0 * errors / max(1, summary.objects)
            if percent > spec.max_error_percent:
                return f"{percent:.1f} % of the objects have no result; {spec.max_error_percent:g} % are allowed"
        seconds = spec.deadline_seconds
        if seconds is not None and self._now() > self._generation.created + timedelta(seconds=seconds):
            return f"it is not done {seconds:g} s after it began"
        return ""

    # Handing out

    def _publish(self) -> None:
        """Hand out planned pages, up to the bound.

        Raises:
            BrokerUnavailable: Not now.
        """
        while len(self._published) < self.bound or self._forget_done():
            if self._next > self._head.page:
                return
            page, self._next = self._next, self._next + 1
            if self._progress.is_done(page):
                continue
            try:
                self._hand_out(page)
            except BrokerUnavailable:
                self._next = page
                raise

    def _forget_done(self) -> bool:
        done = [page for page in self._published if self._progress.is_done(page)]
        for page in done:
            del self._published[page]
            del self._handed_out[page]
        return bool(done)

    def _publish_lost(self, now: float) -> None:
        """Hand out again what nobody works on and nobody will.

        Raises:
            BrokerUnavailable: Not now.
        """
        self._forget_done()
        silence = {
            page: now - max(published, self._progress.last_change(page) or 0.0)
            for page, published in self._published.items()
        }
        silent = [page for page, seconds in silence.items() if seconds >= self._watch.stall]
        if not silent:
            return
        waiting = self._queue.waiting()
        if waiting == 0:
            for page in silent:
                self._handed_out[page] += 1
        else:
            # They may be among those that wait, unless that is what others have in the same queue.
            silent = [page for page in silent if silence[page] >= PATIENCE * self._watch.stall]
            if waiting and now - self._said >= self._watch.stall:
                self._said = now
                log.warning("%d tasks wait in the queue: are there enough batch workers?", waiting)
        if silent:
            log.warning("%d pages show no sign of life; they are handed out again", len(silent))
        for page in silent:
            self._hand_out(page)
            if self._handed_out[page] >= MOST_HAND_OUTS:
                self._stop(
                    f"page {page} was lost {self._handed_out[page]} times and never came to its end; "
                    "see what the batch workers' logs say of it"
                )
                return

    def _hand_out(self, page: int) -> None:
        self._queue.publish(page)
        self._published[page] = self._monotonic()

    # Planning

    def _plan_page(self) -> None:
        """Collect the objects of the next page and write it."""
        number = self._head.page + 1
        size = self._size_of(number)
        if self._listing is None:
            self._listing = self._generation.objects(self._source, after=self._head.last or None)
            self._before = Before(self._ledger.store, self._generation, behind=self._head.last)
        entries: list[Entry] = []
        work = skipped = 0
        last = self._head.last
        while work < size and len(entries) < MOST_LINES and skipped < MOST_LINES:
            info = next(self._listing, None)
            if info is None:
                break
            if order(info.key) <= order(last) and last:
                raise Unsupported(f"{self._source.location} does not list in the order of keys, and a batch needs that")
            last = info.key
            if not self._generation.selects(info):
                skipped += 1
                continue
            before = self._before.receipt_of(info) if self._before else None
            entries.append(Entry(info.key, info.etag, info.size, before))
            work += before is None
        following = next(self._listing, None)
        if following is not None:
            self._listing = chain((following,), self._listing)
        totals = with_page(self._head.totals, entries=entries, skipped=skipped)
        head = PageHead(number, last, following is None, work, totals)
        planned = self._ledger.create_page(Page(head, tuple(entries)))
        if planned.head != head:
            self._listing = None  # another planner was here first: its page holds
        self._head = planned.head
        if planned.head.work == 0:
            self._finish(planned)

    def _finish(self, page: Page) -> None:
        """Write down that nothing has to be done for a page."""
        summary = Summary()
        for entry in page.entries:
            summary.add(outcome_of(entry, None), entry.size)
        if attempt := self._ledger.claim(page.head.page):
            attempt.finish([], summary.as_dict())
        self._progress.finish(page.head.page, summary)

    def _size_of(self, page: int) -> int:
        """Pages grow, so that a small job gives every worker something to do."""
        least = max(1, self._spec.page_size // _GROWTH)
        doubled = min(page // self._spec.parallelism, _GROWTH.bit_length())
        return int(min(self._spec.page_size, least << doubled))


class Before:
    """What the generations before say of objects, where it still holds."""

    def __init__(self, destination: ObjectStore, generation: Generation, *, behind: str = "") -> None:
        """Open the manifests of the generations before, if there are any to go by.

        Args:
            destination: Has the ledgers.
            generation: That is planned. One over named objects goes by nothing: it looks at each output.
            behind: Keys up to this one are not asked for.
        """
        self._generation = generation
        self._receipts: Receipts | None = None
        if generation.base is not None and generation.named is None:
            numbers = (generation.base, *generation.since)
            self._receipts = Receipts(receipts_of(destination, generation.job, numbers), behind=behind)

    def receipt_of(self, info: ObjectInfo) -> dict[str, Any] | None:
        """The outcome of an object for which nothing has to be done; to be asked for in the order of keys."""
        outcome = self._outcome_of(info)
        if outcome is None:
            return None
        if outcome.written:
            return outcome.as_dict() if set(outcome.models) <= self._generation.models.keys() else None
        return outcome.as_dict() if outcome.kind is Kind.REFUSED and self._final(outcome) else None

    def leaves(self, info: ObjectInfo) -> bool:
        """Whether nothing is to be done without being asked for; to be asked in the order of keys.

        What took workers with it is tried again when a person runs the job, and not because an hour has passed.
        """
        outcome = self._outcome_of(info)
        if outcome is None:
            return False
        if outcome.written:
            return set(outcome.models) <= self._generation.models.keys()
        return outcome.kind in (Kind.REFUSED, Kind.QUARANTINED) and self._final(outcome)

    def _outcome_of(self, info: ObjectInfo) -> Outcome | None:
        line = self._receipts.of(info.key) if self._receipts else None
        return Outcome.from_dict(line) if line is not None and line["etag"] == info.etag else None

    def _final(self, outcome: Outcome) -> bool:
        """A refusal is as final as a result, until a newer version may know better."""
        return outcome.version == self._generation.version
