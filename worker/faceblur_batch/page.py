"""The work on one page: get, blur, put, and a line in the page's log for each object. Knows nothing of Celery.

Objects go through three stages that overlap: the SDK's threads get the next ones and wait for the workers, threads of
this module put what came back. What is held in memory is bounded by twice the concurrency.
"""

from __future__ import annotations

import hashlib
import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

import faceblur

from .errors import BatchError, StorageError
from .generation import Generation
from .ledger import Attempt, Entry, Ledger, Mark, Page, State
from .outcomes import Kind, Outcome, PageState, Record, better, fold, refusal
from .output import Outputs, Read, Superseded
from .storage.store import NO_HEADERS, ObjectStore, StoredObject
from .summary import Summary, outcome_of
from .verdicts import Verdict, given_up, judge, reason_of

log = logging.getLogger(__name__)

CHUNK = 16
"""Objects that a careful attempt announces together."""


class Blurrer(Protocol):
    """What is needed of `faceblur.FaceBlurClient`."""

    def blur_many(
        self,
        sources: Iterable[_Input],
        options: faceblur.Options | None = None,
        *,
        concurrency: int = ...,
        timeout: float | None = None,
    ) -> Iterator[faceblur.Outcome[_Input]]:
        """See `faceblur.FaceBlurClient.blur_many`."""

    def info(self, *, timeout: float | None = None) -> faceblur.ServerInfo:
        """See `faceblur.FaceBlurClient.info`."""


class PageLeft(BatchError):
    """The page is left for now, in order: it was asked for, or the process ends."""

    reason = "LEFT"


class PageInTrouble(BatchError):
    """The workers or the store cannot be used now; the page has to be tried again later."""

    reason = "TROUBLE"


class GenerationHopeless(BatchError):
    """No picture can be done with these options."""

    reason = "HOPELESS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How a page is worked on.

    Attributes:
        concurrency: Pictures in work at the same time.
        timeout: Seconds for a picture with all tries of its call.
        flush_objects: Outcomes after which a segment is written.
        flush_seconds: Seconds after which one is written, be it empty: the sign of life.
        pause: Longest pause between two tries of one picture, seconds.
    """

    concurrency: int = 8
    timeout: float = 120.0
    flush_objects: int = 500
    flush_seconds: float = 30.0
    pause: float = 5.0

    @property
    def tolerance(self) -> int:
        """Pictures that may fail side by side before they are tried alone: those beside one that kills a worker."""
        return 2 * self.concurrency + 2

    @property
    def lease(self) -> timedelta:
        """After this time without a sign an attempt is dead."""
        return timedelta(seconds=self.timeout + 2 * self.flush_seconds)


@dataclass(frozen=True, slots=True)
class Workplace:
    """What a page is worked on with.

    Attributes:
        generation: What is asked for.
        ledger: Where it is written down.
        source: Where pictures come from.
        client: Obscures them.
        pace: How fast, how patient.
        mark: What is asked for now; may be some seconds old.
        ending: Whether this process is about to end.
        sleep: Lets seconds pass, less if the process is about to end.
        count: Called for each outcome, for metrics.
        threads: Makes what puts so many results at the same time.
    """

    generation: Generation
    ledger: Ledger
    source: ObjectStore
    client: Blurrer
    pace: Pace
    mark: Callable[[], Mark]
    ending: Callable[[], bool] = lambda: False
    sleep: Callable[[float], object] = time.sleep
    count: Callable[[Outcome, Entry], None] = lambda outcome, entry: None
    threads: Callable[[int], Executor] = ThreadPoolExecutor


def work_on(place: Workplace, number: int) -> Summary | None:
    """Bring a page to its end, from wherever earlier attempts left it.

    Args:
        place: What to work with.
        number: Of the page.

    Returns:
        What the page came to; None if it had come to its end already.

    Raises:
        PageLeft: Work is not wanted any more, or not by this process.
        PageInTrouble: It has to be tried again later.
        GenerationHopeless: It has to be tried never again.
        StorageError: The ledger cannot be read or written.
    """
    _look(place)
    page = place.ledger.page(number)
    attempt = place.ledger.claim(number)
    if attempt is None:
        return None
    run = _Run(place, page, attempt)
    try:
        run.all()
    except (PageLeft, PageInTrouble, GenerationHopeless, StorageError):
        run.end()
        raise
    return run.finish()


def _look(place: Workplace) -> None:
    """Go on only if it is wanted.

    Raises:
        PageLeft: It is not.
    """
    if place.ending():
        raise PageLeft("the process is about to end")
    mark = place.mark()
    if mark.state is not State.RUN:
        raise PageLeft(f"the mark says {mark.state}")


class _Settled(OSError):
    """There is nothing to blur: the object has its outcome already. An OSError, for so it comes through the SDK."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.kind)
        self.outcome = outcome


class _Unread(OSError):
    """The object could not be read; the cause says why."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class _Input:
    """An object of the source, read when and where the SDK wants its bytes."""

    def __init__(self, index: int, get: Callable[[int], StoredObject]) -> None:
        self.index = index
        self.was = Read("", NO_HEADERS)
        self._get = get

    def read(self) -> bytes:
        """Get the object."""
        stored = self._get(self.index)
        self.was = Read(hashlib.sha256(stored.data).hexdigest(), stored.info.headers or NO_HEADERS)
        return stored.data


@dataclass(slots=True)
class _Troubles:
    """What went wrong in one round."""

    suspects: dict[int, Exception] = field(default_factory=dict)
    trouble: Exception | None = None
    hopeless: Exception | None = None


class _Run:
    """One attempt at one page."""

    def __init__(self, place: Workplace, page: Page, attempt: Attempt) -> None:
        self._place = place
        self._page = page
        self._attempt = attempt
        self._outputs = Outputs(place.generation, place.ledger)
        # Who is not the first may find outputs that nobody wrote down.
        self._looks_first = place.generation.check or attempt.number > 1
        self._state = PageState()
        if attempt.earlier:
            segments = [place.ledger.read(info) for info in attempt.earlier]
            self._state = fold(segments, now=attempt.begun(), lease=place.pace.lease)
        self._alone_last = False
        self._pending: list[Record] = []
        self._flushed = time.monotonic()

    def all(self) -> None:
        """Give every object an outcome."""
        state, pace = self._state, self._place.pace
        todo = [i for i, e in enumerate(self._page.entries) if e.before is None and i not in state.outcomes]
        if self._attempt.number % 2 == 0:
            todo.reverse()  # should the other attempt be alive, they share the page
        rest = [index for index in todo if index not in state.suspects]
        careful = state.careful or bool(state.suspects)
        while rest:
            chunk = rest[:CHUNK] if careful else rest
            if careful or self._alone_last:
                self._flush([{"try": chunk if careful else "all"}])
            self._alone_last = False
            for index in self._round(chunk, pace.concurrency).suspects:
                self._alone(index)
            rest = [index for index in rest if index not in state.outcomes]
        for index in todo:
            if index not in state.outcomes:
                self._alone(index)

    def end(self) -> None:
        """Say that the attempt ends here, and what it has done; what cannot be written is done again."""
        try:
            self._flush([{"end": "left"}])
        except BatchError as error:
            log.warning("the end of an attempt at page %d was not written: %s", self._page.head.page, error.reason)

    def finish(self) -> Summary:
        """Say that every object has an outcome."""
        summary = Summary()
        for index, entry in enumerate(self._page.entries):
            summary.add(outcome_of(entry, self._state.outcomes.get(index)), entry.size)
        self._attempt.finish(self._pending, summary.as_dict())
        return summary

    def _alone(self, index: int) -> None:
        """Try one picture by itself until it has an outcome or has had its tries."""
        place, state = self._place, self._state
        allowed, last = place.generation.attempts, state.reasons.get(index, "")
        message: object = last
        while state.blames[index] < allowed:
            _look(place)
            self._assure_surroundings()
            self._flush([{"try": [index]}])
            self._alone_last = True
            troubles = self._round([index], 1)
            if index in state.outcomes:
                return
            error = troubles.suspects[index]
            message, last = error, reason_of(error)
            state.blame(index, last)
            self._pending.append({"blame": index, "reason": last})
            if state.blames[index] < allowed:
                place.sleep(min(place.pace.pause, 2.0 ** state.blames[index]) * random.uniform(0.5, 1))  # noqa: S311
        self._note(index, given_up(last, message, state.blames[index]))

    def _assure_surroundings(self) -> None:
        """Find out whether a failure would be the picture's.

        Raises:
            PageInTrouble: It would not: the workers or the source do not answer.
        """
        try:
            self._place.client.info(timeout=min(10.0, self._place.pace.timeout))
            next(iter(self._place.source.list()), None)
        except (faceblur.FaceBlurError, BatchError) as error:
            raise PageInTrouble("the workers or the source do not answer") from error

    def _round(self, indices: Sequence[int], concurrency: int) -> _Troubles:
        """Get, blur and put objects side by side; note every outcome, and return what else happened."""
        place, troubles = self._place, _Troubles()
        left: PageLeft | None = None

        def inputs() -> Iterator[_Input]:
            nonlocal left
            for index in indices:
                if troubles.trouble or troubles.hopeless or len(troubles.suspects) > place.pace.tolerance:
                    return
                try:
                    _look(place)
                except PageLeft as reason:
                    left = reason
                    return
                yield _Input(index, self._get)

        results = place.client.blur_many(
            inputs(), place.generation.options, concurrency=concurrency, timeout=place.pace.timeout
        )
        puts: dict[Future[Outcome], int] = {}
        with place.threads(concurrency) as pool:
            for result in results:
                index = result.source.index
                if result.result is None:
                    self._judge(index, _cause(result.error), troubles)
                else:
                    if len(puts) >= concurrency:
                        wait(puts, return_when=FIRST_COMPLETED)
                    entry, was = self._page.entries[index], result.source.was
                    puts[pool.submit(self._outputs.write, entry, was, result.result)] = index
                self._collect(puts, troubles)
                self._flush_if_due()
            wait(puts)
            self._collect(puts, troubles)
        if troubles.hopeless:
            raise GenerationHopeless(str(troubles.hopeless)) from troubles.hopeless
        if troubles.trouble:
            raise PageInTrouble(reason_of(troubles.trouble)) from troubles.trouble
        if left:
            raise left
        return troubles

    def _collect(self, puts: dict[Future[Outcome], int], troubles: _Troubles) -> None:
        for future in [future for future in puts if future.done()]:
            index = puts.pop(future)
            try:
                self._note(index, future.result())
            except (BatchError, faceblur.FaceBlurError) as error:
                self._judge(index, error, troubles)

    def _judge(self, index: int, error: Exception, troubles: _Troubles) -> None:
        if isinstance(error, _Settled):
            self._note(index, error.outcome)
            return
        if not isinstance(error, BatchError | faceblur.FaceBlurError):
            raise error
        if isinstance(error, Superseded):
            raise PageLeft(str(error)) from error
        judgement = judge(error)
        if isinstance(judgement, Outcome):
            self._note(index, judgement)
        elif judgement is Verdict.SUSPECT:
            troubles.suspects[index] = error
        elif judgement is Verdict.HOPELESS:
            troubles.hopeless = error
        else:
            troubles.trouble = error

    def _get(self, index: int) -> StoredObject:
        """Called by the SDK's threads.

        Raises:
            OSError: There is nothing to blur, or the object cannot be read.
        """
        place, entry = self._place, self._page.entries[index]
        limit = place.generation.max_bytes
        if entry.size > limit:
            raise _Settled(refusal(Kind.REFUSED, "LIMIT_EXCEEDED", f"{entry.size} bytes; at most {limit} are taken"))
        try:
            if self._looks_first and (outcome := self._outputs.existing(entry)):
                raise _Settled(outcome)
            return place.source.get(entry.key, if_match=entry.etag)
        except BatchError as error:
            raise _Unread(error) from error

    def _note(self, index: int, outcome: Outcome) -> None:
        self._state.outcomes[index] = better(self._state.outcomes.get(index), outcome)
        self._pending.append({"outcome": index, **outcome.as_dict()})
        self._place.count(outcome, self._page.entries[index])

    def _flush_if_due(self) -> None:
        pace = self._place.pace
        if len(self._pending) >= pace.flush_objects or time.monotonic() - self._flushed >= pace.flush_seconds:
            self._flush()

    def _flush(self, more: Sequence[Record] = ()) -> None:
        self._attempt.append([*self._pending, *more])
        self._pending.clear()
        self._flushed = time.monotonic()


def _cause(error: Exception | None) -> Exception:
    assert error is not None
    return error.cause if isinstance(error, _Unread) else error
