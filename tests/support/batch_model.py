"""A batch as a model: planner, broker, batch workers, store and workers as queues, with measured service times.

It follows the code step for step: the planner's loop with its bound and polls, pages that grow, the pictures of a page
in work side by side, the requests of the ledger. What it leaves out are failures, and the share of a machine's caches.
"""

from __future__ import annotations

import math
import random
from collections import Counter, deque
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import simpy
from simpy.resources.resource import Request

Steps: TypeAlias = Generator[simpy.Event, Any, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Seconds that each step takes.

    Attributes:
        pictures: Of a worker's core, for pictures that are equally frequent.
        batch: Of a batch worker's core, for a picture from its get to its put, with the SDK.
        store: Of a store's core, by kind of request: get, put (of pictures), read, write (of the ledger), list (1,000).
        wait: From sending such a request to its answer, when nobody else asks.
        plan_page: Of the planner, to write a page.
        plan_object: Of the planner, to look at a listed object and to write its line.
        tally: Of the planner, to read an outcome in a segment that has come.
        look: Of the planner, to read the mark and look for new segments.
        publish: Of the planner, to hand out a page.
        conclude_object: Of the planner, for an object's line in the manifest.
        broker_page: Of the broker's core, to take a task, hand it out and forget it.
        broker_idle: Of the broker's core, for each second that a batch worker waits for tasks.
        start: From the planner's start to its first page.
    """

    pictures: tuple[float, ...]
    batch: float
    store: dict[str, float]
    wait: dict[str, float]
    plan_page: float
    plan_object: float
    tally: float
    look: float
    publish: float
    conclude_object: float
    broker_page: float
    broker_idle: float
    start: float

    @property
    def picture(self) -> float:
        """Of a worker's core, on average."""
        return sum(self.pictures) / len(self.pictures)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """What there is to work with.

    Attributes:
        workers: How many.
        threads: Of each worker, a core for each.
        batch_workers: How many, with a core for each.
        pages: That a batch worker works on at the same time.
        concurrency: Pictures of a page in work at the same time.
        store_cores: Of the store.
        distance: Seconds that a request to the store takes beside the store's own work, more than was measured.
        shared: Cores that everything shares; None: everything has its own.
    """

    workers: int
    threads: int = 2
    batch_workers: int
    pages: int = 4
    concurrency: int = 8
    store_cores: int = 32
    distance: float = 0.0
    shared: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be done.

    Attributes:
        objects: How many pictures.
        page_size: Of the largest pages.
        parallelism: Pages at once, as the planner is told.
        growth: The first pages are smaller by this factor.
        flush_objects: Outcomes after which a segment is written.
        flush_seconds: And seconds.
        poll: Seconds between the planner's looks.
        slow: Pictures at the end of the listing that take `slower` times as long.
        slower: See `slow`.
        seed: Of the order of pictures.
    """

    objects: int
    page_size: int = 1000
    parallelism: int
    growth: int = 16
    flush_objects: int = 500
    flush_seconds: float = 30.0
    poll: float = 2.0
    slow: int = 0
    slower: float = 1.0
    seed: int = 1


@dataclass(slots=True)
class Run:
    """What came of it.

    Attributes:
        seconds: From the planner's start to the root of the manifest.
        blurred_after: When the last picture was written.
        done: How often each picture was written.
        ideal: Seconds that the workers need for all pictures if no thread ever waits.
        rate: Pictures per second while most of the job is done: between a fifth and four fifths of its pictures.
        share: Of its capacity that ``worker``, ``batch worker``, ``broker`` and ``store`` used in the same part of the
            job. The planner works ahead of everybody; its share is its work on the whole job, without the manifest, by
            the time until the last picture was written.
        requests: Of the store, by kind.
        pages: How many there were.
    """

    seconds: float
    blurred_after: float
    done: list[int]
    ideal: float
    rate: float
    share: dict[str, float]
    requests: Counter[str]
    pages: int

    @property
    def tail(self) -> float:
        """Seconds from the moment at which everything could have been blurred to that at which it was."""
        return self.blurred_after - self.ideal


class _Cores:
    """Cores of one kind of machine, and how long they were busy."""

    def __init__(self, env: simpy.Environment, count: int, machine: _Cores | None = None) -> None:
        self._env = env
        self._cores = simpy.Resource(env, count)
        self._machine = machine
        self.count = count
        self.busy = 0.0

    def work(self, seconds: float) -> Steps:
        """Keep a core busy, in slices if others wait for the same machine."""
        if self._machine is not None:
            self.busy += seconds
            yield from self._machine._share(seconds)
            return
        with self._cores.request() as turn:
            yield turn
            yield self._env.timeout(seconds)
            self.busy += seconds

    def _share(self, seconds: float) -> Steps:
        while seconds > 1e-9:
            with self._cores.request() as turn:
                yield turn
                part = min(seconds, _SLICE)
                yield self._env.timeout(part)
                seconds -= part


_SLICE = 0.004


@dataclass(slots=True)
class _Page:
    number: int
    pictures: range
    segments: int = 0
    done: bool = False


@dataclass(slots=True)
class _Marks:
    """What was counted when a part of the job began or ended."""

    at: float = 0.0
    done: int = 0
    busy: dict[str, float] = field(default_factory=dict)


class Model:
    """One job on some machines; `run` it once."""

    def __init__(self, costs: Costs, machines: Machines, job: Job) -> None:
        self._costs = costs
        self._machines = machines
        self._job = job
        env = self._env = simpy.Environment()
        machine = _Cores(env, machines.shared) if machines.shared else None
        self._workers = [_Cores(env, machines.threads, machine) for _ in range(machines.workers)]
        self._threads = [simpy.Resource(env, machines.threads) for _ in range(machines.workers)]
        self._batch_workers = [_Cores(env, 1, machine) for _ in range(machines.batch_workers)]
        self._store = _Cores(env, machines.store_cores, machine)
        self._broker = _Cores(env, 1, machine)
        self._planner = _Cores(env, 1, machine)
        self._queue: simpy.Store = simpy.Store(env)
        self._turn = 0
        self._requests: Counter[str] = Counter()
        self._pages: list[_Page] = []
        self._segments = 0
        self._unread = (0, 0)
        self._done = [0] * job.objects
        self._left = job.objects
        self._marks = [_Marks(), _Marks()]
        self._blurred_after = 0.0
        self._planned = 0.0
        chance = random.Random(job.seed)
        self._seconds = [chance.choice(costs.pictures) for _ in range(job.objects)]
        for number in range(job.objects - job.slow, job.objects):
            self._seconds[number] *= job.slower

    def run(self) -> Run:
        """Let the job go to its end."""
        for cores in self._batch_workers:
            for _ in range(self._machines.pages):
                self._env.process(self._take(cores))
        self._env.run(self._env.process(self._plan()))
        first, last = self._marks
        spent = max(last.at - first.at, 1e-9)
        return Run(
            seconds=self._env.now,
            blurred_after=self._blurred_after,
            done=self._done,
            ideal=sum(self._seconds) / (self._machines.workers * self._machines.threads),
            rate=(last.done - first.done) / spent,
            share={
                name: (last.busy[name] - first.busy[name]) / spent / capacity
                for name, capacity in self._capacity().items()
            }
            | {"planner": self._planned / self._blurred_after},
            requests=self._requests,
            pages=len(self._pages),
        )

    def _busy(self) -> dict[str, float]:
        idle = self._env.now * len(self._batch_workers) * self._costs.broker_idle
        return {
            "worker": sum(cores.busy for cores in self._workers),
            "batch worker": sum(cores.busy for cores in self._batch_workers),
            "broker": self._broker.busy + idle,
            "store": self._store.busy,
        }

    def _capacity(self) -> dict[str, float]:
        machines = self._machines
        return {
            "worker": machines.workers * machines.threads,
            "batch worker": machines.batch_workers,
            "broker": 1,
            "store": machines.store_cores,
        }

    # The planner

    def _plan(self) -> Steps:
        job, costs, env = self._job, self._costs, self._env
        yield env.timeout(costs.start)
        refreshed, planned = -job.poll, 0
        waiting: deque[_Page] = deque()
        out: list[_Page] = []
        first_open = 0
        while True:
            if env.now >= refreshed + job.poll:
                refreshed = env.now
                open_segments = self._segments - sum(page.segments for page in self._pages[:first_open])
                yield from self._busy_planner(costs.look, reads=1, lists=max(1, math.ceil(open_segments / 1000)))
                segments, outcomes, self._unread = *self._unread, (0, 0)
                yield from self._busy_planner(costs.tally * outcomes + costs.wait["read"] * segments, reads=segments)
                while first_open < len(self._pages) and self._pages[first_open].done:
                    first_open += 1
                out = [page for page in out if not page.done]
            if planned < job.objects:
                number = len(self._pages)
                size = min(self._size_of(number), job.objects - planned)
                listed = size * costs.wait["list"] / 1000
                seconds = costs.plan_page + size * costs.plan_object + listed
                yield from self._busy_planner(seconds, writes=1, lists=size / 1000)
                page = _Page(number, range(planned, planned + size))
                planned += size
                self._pages.append(page)
                waiting.append(page)
            while waiting and len(out) < 2 * job.parallelism:
                yield from self._busy_planner(costs.publish)
                yield from self._broker.work(costs.broker_page / 2)
                out.append(waiting[0])
                yield self._queue.put(waiting.popleft())
            if planned == job.objects:
                if first_open == len(self._pages):
                    self._planned = self._planner.busy
                    yield from self._busy_planner(job.objects * costs.conclude_object)
                    self._requests["read"] += len(self._pages) + self._segments
                    return
                yield env.timeout(max(0.0, refreshed + job.poll - env.now))

    def _busy_planner(self, seconds: float, *, reads: float = 0, writes: float = 0, lists: float = 0) -> Steps:
        """Its seconds hold the store's answers, so they only count there, and do not wait for others."""
        for kind, count in (("read", reads), ("write", writes), ("list", lists)):
            if count:
                self._requests[kind] += count  # type: ignore[assignment]
                self._store.busy += count * self._costs.store[kind]
        if seconds:
            yield from self._planner.work(seconds + self._machines.distance * (reads + writes + lists))

    def _size_of(self, page: int) -> int:
        least = max(1, self._job.page_size // self._job.growth)
        return min(self._job.page_size, least << min(page // self._job.parallelism, self._job.growth.bit_length()))

    # Batch workers

    def _take(self, cores: _Cores) -> Steps:
        while True:
            page = yield self._queue.get()
            yield from self._broker.work(self._costs.broker_page / 2)
            yield from self._work_on(cores, page)

    def _work_on(self, cores: _Cores, page: _Page) -> Steps:
        env, job, concurrency = self._env, self._job, self._machines.concurrency
        for kind in ("read", "write"):  # the page; the first segment
            yield from self._ask(kind)
        self._segment(page)  # which the planner does not read
        todo, begun, outcomes = iter(page.pictures), env.now, Counter[str]()
        puts = simpy.Resource(env, concurrency)

        def put(number: int, turn: Request) -> Steps:
            yield from cores.work(self._costs.batch / 2)
            yield from self._ask("put")
            puts.release(turn)
            self._finish(number)
            outcomes["open"] += 1
            if outcomes["open"] == job.flush_objects:
                outcomes["open"] = 0
                yield from self._ask("write")
                self._segment(page, outcomes=job.flush_objects)

        def slot() -> Steps:
            for number in todo:
                yield from self._ask("get")
                yield from cores.work(self._costs.batch / 2)
                yield from self._blur(self._seconds[number])
                turn = puts.request()
                yield turn
                waiting.append(env.process(put(number, turn)))

        waiting: list[simpy.Process] = []
        yield env.all_of([env.process(slot()) for _ in range(concurrency)])
        yield env.all_of([process for process in waiting if process.is_alive])
        quiet = int((env.now - begun) / job.flush_seconds)
        for _ in range(quiet):
            yield from self._ask("write")
            self._segment(page, outcomes=0)
        yield from self._ask("write")
        self._segment(page, outcomes=outcomes["open"])
        page.done = True

    def _segment(self, page: _Page, outcomes: int | None = None) -> None:
        page.segments += 1
        self._segments += 1
        if outcomes is not None:
            self._unread = (self._unread[0] + 1, self._unread[1] + outcomes)

    def _blur(self, seconds: float) -> Steps:
        self._turn = (self._turn + 1) % len(self._workers)  # the SDK goes round
        worker, thread = self._workers[self._turn], self._threads[self._turn]
        if self._machines.shared is None:
            yield from worker.work(seconds)
            return
        with thread.request() as turn:
            yield turn
            yield from worker.work(seconds)

    def _ask(self, kind: str) -> Steps:
        self._requests[kind] += 1
        yield from self._store.work(self._costs.store[kind])
        rest = self._costs.wait[kind] - self._costs.store[kind] + self._machines.distance
        if rest > 0:
            yield self._env.timeout(rest)

    def _finish(self, number: int) -> None:
        self._done[number] += 1
        self._left -= 1
        share = 1 - self._left / self._job.objects
        for mark, at in zip(self._marks, (0.2, 0.8), strict=True):
            if share >= at and not mark.busy:
                mark.at, mark.done, mark.busy = self._env.now, self._job.objects - self._left, self._busy()
        if not self._left:
            self._blurred_after = self._env.now
