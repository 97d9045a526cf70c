"""Decides what is worked on: promptly, in order, and never more than fits into the time and the memory there is.

gRPC would queue without end, and a picture that is done after its caller has gone helps nobody. So every picture
needs a `Ticket`. A single call gets one, or is refused, when its first headers arrive, before its picture is read:
a refused picture costs almost nothing, and what is being received is bounded as well. Streams wait instead of being
refused, which stops reading from them, and leave half of the places to single calls.

A picture that is complete goes into the engine threads' own queue, so that a thread that is done goes on with the next
one at once: sent for by the event loop, which has messages to see to, it would stand idle for some 2 ms each time. When
its turn has come, a picture is looked at once more. That and the work happen on an engine thread, which only reads the
gate's estimates and writes its picture's times; all else happens on the event loop. So nothing here needs a lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from .errors import DeadlinePassed, DeadlineTooShort, Overloaded, ShuttingDown

T = TypeVar("T")

_SMOOTHING = 0.1  # weight of the newest measurement in a moving average
_CAUTION = 4  # mean deviations that a wait may last longer than expected, as RFC 6298 does for round trips
_SHORTEST_HINT = 0.01  # seconds
_LONGEST_HINT = 10.0  # seconds; what is known about the queue says nothing about later


class Abandoned(Exception):
    """Ends the work on a picture whose caller has gone; raised out of a checkpoint of the engine."""


class Ticket:
    """The right of one picture to be received, to wait and to be worked on.

    Attributes:
        size: Bytes of the picture that count against the gate's bound.
        entered: When the place was taken.
        turn: When an engine thread was expected to be free for it.
        asked: When the picture was complete.
        prompt: An engine thread was free for it then.
        begun: When an engine thread took it, None as long as none has.
        ended: When that was done with it.
        worked: Seconds that an engine thread took for the result, None without a result.
        abandoned: Nobody waits for the result; the work ends at its next checkpoint.
    """

    def __init__(self, gate: Gate, deadline: float, size: int, turn: float) -> None:
        """Note whose it is; only the gate makes tickets."""
        self.size = size
        self.entered = gate.clock()
        self.turn = turn
        self.asked = self.ended = self.entered
        self.prompt = False
        self.begun: float | None = None
        self.worked: float | None = None
        self.abandoned = False
        self._gate = gate
        self._deadline = deadline
        self._work: deque[Callable[[], Any]] = deque()

    @property
    def waited(self) -> float:
        """Seconds between being complete and being taken by an engine thread."""
        return 0.0 if self.begun is None else self.begun - self.asked

    def give(self, work: Callable[[], Any]) -> None:
        """Put down what is to be done."""
        self._work.append(work)

    def take(self) -> Callable[[], Any] | None:
        """Return what is to be done to the first who asks, and None to the second; any thread may ask."""
        try:
            return self._work.pop()
        except IndexError:
            return None

    def remaining(self) -> float:
        """Return the seconds until the deadline; infinite without one, 0 or less once it has passed."""
        return self._deadline - self._gate.clock()

    def received(self, size: int) -> None:
        """Count the picture's bytes, and look again whether it can be done in time.

        Args:
            size: Length of the picture in bytes, known or announced.

        Raises:
            DeadlinePassed: Receiving it took too long.
            Overloaded: The pictures that are inside are too long already.
            DeadlineTooShort: What is waiting leaves too little time.
        """
        self._gate.count(self, size)

    def checkpoint(self) -> None:
        """Stop the work if nobody waits for it any more; called by engine threads between stages.

        Raises:
            Abandoned: The caller has gone.
            DeadlinePassed: The time is up.
        """
        if self.abandoned:
            raise Abandoned
        if self.remaining() <= 0:
            raise DeadlinePassed("the deadline passed while the picture was worked on")


class Gate:
    """The queue in front of the engine threads.

    Attributes:
        clock: Seconds, monotonic.
        workers: Engine threads.
        inside: Pictures that are being received, wait or are worked on.
        bytes: Length of all pictures whose calls are not over.
        closing: Set once nothing is taken in any more.
    """

    def __init__(
        self, *, workers: int, places: int, max_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Open the gate and start its engine threads.

        Args:
            workers: Engine threads.
            places: Pictures that may be received or wait at the same time, beside those worked on.
            max_bytes: Length of all pictures that are inside; one alone may be longer.
            clock: Seconds, monotonic.
        """
        self.clock = clock
        self.workers = workers
        self.inside = 0
        self.bytes = 0
        self.closing = asyncio.Event()
        self._places = places
        self._max_bytes = max_bytes
        self._service = 0.0  # moving averages in seconds: of the work on a picture,
        self._transfer = 0.0  # of receiving it and sending its result,
        self._surprise = 0.0  # and of how much earlier or later than expected its turn comes
        self._patient: deque[tuple[asyncio.Future[Ticket], float, int]] = deque()
        self._handed: set[Ticket] = set()  # over to the engine threads, and not back yet
        self._placed: set[Ticket] = set()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="engine")

    @property
    def waiting(self) -> int:
        """Pictures that are complete and wait for an engine thread."""
        return sum(ticket.begun is None and not ticket.abandoned for ticket in self._handed)

    @property
    def running(self) -> int:
        """Pictures that engine threads work on."""
        return sum(ticket.begun is not None for ticket in self._handed)

    def longest_run(self) -> float:
        """Return for how many seconds the oldest piece of work has been going on, 0 if there is none."""
        now = self.clock()
        return max((now - ticket.begun for ticket in self._handed if ticket.begun is not None), default=0.0)

    @contextlib.contextmanager
    def ticket(self, seconds: float | None) -> Iterator[Ticket]:
        """Take a place for a picture that is about to be received, or refuse it at once.

        Args:
            seconds: That the caller still waits; None for ever.

        Raises:
            ShuttingDown: Nothing is taken in any more.
            DeadlinePassed: There is no time left.
            Overloaded: All places are taken.
            DeadlineTooShort: All engine threads are taken, and what is inside leaves too little time.
        """
        if self.closing.is_set():
            raise ShuttingDown("this worker is about to end; ask another one", retry_after=0.1)
        if seconds is not None and seconds <= 0:
            raise DeadlinePassed("the deadline has already passed")
        ahead = self._ahead()
        if ahead > self._places:
            raise Overloaded(f"{self.inside} pictures are inside already; try again later", self._hint(ahead / 2))
        self._check(ahead, seconds)
        ticket = self._enter(self._deadline(seconds))
        try:
            yield ticket
        finally:
            self._close(ticket)

    @contextlib.asynccontextmanager
    async def patient_ticket(self, seconds: float | None, size: int) -> AsyncIterator[Ticket]:
        """Wait for a place for a picture of a stream, which has been received already.

        Args:
            seconds: That the caller still waits; None for ever.
            size: Length of the picture in bytes.
        """
        deadline = self._deadline(seconds)
        if not self._patient and self._has_room(size):
            ticket = self._enter(deadline, size)
        else:
            turn: asyncio.Future[Ticket] = asyncio.get_running_loop().create_future()
            self._patient.append((turn, deadline, size))
            try:
                ticket = await turn
            except asyncio.CancelledError:
                if not turn.cancelled():  # given in the very moment of the cancellation
                    self._close(turn.result())
                raise
        try:
            yield ticket
        finally:
            self._close(ticket)

    async def run(self, ticket: Ticket, work: Callable[[], T]) -> T:
        """Do a picture's work on an engine thread when its turn comes.

        If the caller is cancelled meanwhile, a thread that works on it goes on to the next checkpoint, and counts as
        taken till then.

        Args:
            ticket: Of the picture.
            work: Blocks, and calls the ticket's checkpoint between its stages.

        Raises:
            DeadlinePassed: The deadline passed before the turn came.
            DeadlineTooShort: When the turn came, too little time was left.
        """
        ticket.asked = self.clock()
        ticket.prompt = len(self._handed) < self.workers
        ticket.give(work)
        self._handed.add(ticket)
        job = asyncio.get_running_loop().run_in_executor(self._pool, self._do, ticket)
        job.add_done_callback(functools.partial(self._done, ticket))
        return await asyncio.shield(job)

    def count(self, ticket: Ticket, size: int) -> None:
        """See `Ticket.received`."""
        left = ticket.remaining()
        if left <= 0:
            raise DeadlinePassed("the deadline passed while the picture was received")
        if not self._fits(size):
            message = f"pictures of {self.bytes} bytes are inside already; try again later"
            raise Overloaded(message, self._hint(max(1, self.inside // 2)))
        self._check(len(self._handed) - self.workers + 1, left)
        ticket.size = size
        self.bytes += size

    def close(self) -> None:
        """Take nothing in any more; what is inside is finished."""
        self.closing.set()

    def shut(self) -> None:
        """Let the engine threads end once they are done."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _check(self, ahead: int, seconds: float | None) -> None:
        """Refuse what would be done too late, if so many have to be done before it begins."""
        # With a free thread the answer is always to try: too high an estimate would never be corrected otherwise.
        if seconds is None or ahead <= 0:
            return
        # Whoever enters is almost never refused later, when the wait was in vain: that is what the margin is for.
        needed = self._needed(ahead) + _CAUTION * self._surprise
        if needed > seconds:
            message = f"the picture would be done in about {needed:.2f} s, and the deadline is in {seconds:.2f} s"
            raise DeadlineTooShort(message, self._hint(ahead))

    def _ahead(self) -> int:
        """Pictures that have to be done before one that enters now begins; 0 or less: a thread is free for it."""
        return self.inside - self.workers + 1

    def _needed(self, ahead: int) -> float:
        """Seconds until a picture is with its caller, if so many have to be done before it begins."""
        return self._wait(ahead) + self._service + self._transfer

    def _wait(self, ahead: float) -> float:
        """Seconds in which so many pictures are worked on."""
        return ahead * self._service / self.workers

    def _hint(self, ahead: float) -> float:
        """Seconds after which asking again makes sense, with so many pictures to be worked on before."""
        return min(max(self._wait(ahead), _SHORTEST_HINT), _LONGEST_HINT)

    def _fits(self, size: int) -> bool:
        return self.bytes == 0 or self.bytes + size <= self._max_bytes

    def _has_room(self, size: int) -> bool:
        return self.inside < self.workers + self._places // 2 and self._fits(size)

    def _deadline(self, seconds: float | None) -> float:
        return math.inf if seconds is None else self.clock() + seconds

    def _enter(self, deadline: float, size: int = 0) -> Ticket:
        turn = self.clock() + self._wait(max(0, self._ahead()))
        ticket = Ticket(self, deadline, size, turn)
        self.bytes += size
        self._placed.add(ticket)
        self.inside += 1
        return ticket

    def _close(self, ticket: Ticket) -> None:
        """End a call: what it holds is free, unless an engine thread still works on it.

        One that waits for a thread keeps its place till its turn comes: it still stands in the threads' queue, whose
        length is bounded by nothing else.
        """
        ticket.abandoned = True
        if ticket.worked is not None:
            transfer = self.clock() - ticket.entered - ticket.waited - ticket.worked
            self._transfer += (transfer - self._transfer) * _SMOOTHING
        handed = ticket in self._handed
        if not handed or ticket.take() is not None:
            self.bytes -= ticket.size
            ticket.size = 0
        if not handed:
            self._leave(ticket)
        self._call_patient()

    def _leave(self, ticket: Ticket) -> None:
        if ticket in self._placed:
            self._placed.remove(ticket)
            self.inside -= 1

    def _do(self, ticket: Ticket) -> Any:
        """Do a picture's work, if there still is a point in it; runs on an engine thread."""
        work = ticket.take()
        if work is None:
            raise Abandoned
        ticket.begun = ticket.ended = self.clock()
        left = ticket.remaining()
        if left <= 0:
            raise DeadlinePassed("the deadline passed while the picture waited")
        # Whoever found a thread free is tried, see `_check`.
        if not ticket.prompt and left <= self._needed(0):
            raise DeadlineTooShort(
                "the picture waited for longer than expected", self._hint(self.inside - self.workers)
            )
        try:
            return work()
        finally:
            ticket.ended = self.clock()

    def _done(self, ticket: Ticket, job: asyncio.Future[Any]) -> None:
        """Take back what an engine thread is done with; runs on the event loop."""
        failed = job.cancelled() or job.exception() is not None
        self._handed.remove(ticket)
        self._leave(ticket)
        if ticket.begun is not None:
            surprise = abs(ticket.begun - max(ticket.turn, ticket.asked))
            self._surprise += (surprise - self._surprise) * _SMOOTHING
            if not failed:
                ticket.worked = ticket.ended - ticket.begun
                self._service += (ticket.worked - self._service) * (_SMOOTHING if self._service else 1)
        if ticket.abandoned:
            self._close(ticket)
        self._call_patient()

    def _call_patient(self) -> None:
        while self._patient:
            turn, deadline, size = self._patient[0]
            if not turn.done():
                if not self._has_room(size):
                    return
                turn.set_result(self._enter(deadline, size))
            self._patient.popleft()
