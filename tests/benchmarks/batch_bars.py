"""What a batch costs: planning a million keys, and pictures per second beside the SDK alone.

    python tests/benchmarks/batch_bars.py planning --objects 1000000
    python tests/benchmarks/batch_bars.py throughput --samples examples/photos --pictures 400 --rounds 5 [--s3]

`planning` runs the planner of a synthetic listing against a ledger on the disk, while other processes write pages down
as done as fast as they can. It gives objects per second, the planner's largest memory and the requests per object that
are not a picture's own get and put. `throughput` starts one worker and gives the rate of whole jobs as a share of what
`blur_many` reaches alone just before, with every process's CPU time for a picture; with ``--s3`` also for jobs whose
pictures come from and go to a versitygw (its CPU is that of ``others``), while `blur_many` still reads files.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import faceblur
from faceblur_batch.config import BatchSettings
from faceblur_batch.driver import Driver
from faceblur_batch.generation import begin
from faceblur_batch.job import JobSpec
from faceblur_batch.ledger import Ledger
from faceblur_batch.local import Command, Local
from faceblur_batch.outcomes import Kind, Outcome
from faceblur_batch.planner import ENDED, Planner, Watch
from faceblur_batch.storage.opening import open_store
from faceblur_batch.storage.store import ObjectHeaders, ObjectInfo, ObjectStore, StoredObject
from faceblur_batch.summary import Summary
from faceblur_process.settings import read
from support.batches import Blurrer
from support.memory import peak_memory
from support.memory_store import EVERYTHING
from support.s3_server import running_s3

TICK = os.sysconf("SC_CLK_TCK")
ELSEWHERE = "not of these"  # and what the machine's host kept for itself
START = datetime(2026, 1, 1, tzinfo=UTC)


class Counting:
    """A store whose requests are counted; a listing is one for each 1,000 objects, as with S3."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.requests: Counter[str] = Counter()

    @property
    def location(self) -> str:
        return self._store.location

    def list(self, prefix: str = "", *, after: str | None = None) -> Iterator[ObjectInfo]:
        for number, info in enumerate(self._store.list(prefix, after=after)):
            if number % 1000 == 0:
                self.requests["list"] += 1
            yield info

    def head(self, key: str) -> ObjectInfo:
        self.requests["head"] += 1
        return self._store.head(key)

    def get(self, key: str, *, if_match: str | None = None) -> StoredObject:
        self.requests["get"] += 1
        return self._store.get(key, if_match=if_match)

    def put(self, key: str, data: bytes, *, headers: ObjectHeaders = ObjectHeaders(), **more: Any) -> str:  # noqa: B008
        self.requests["put"] += 1
        return self._store.put(key, data, headers=headers, **more)

    def delete(self, key: str) -> None:
        self._store.delete(key)


class Listing:
    """A bucket whose objects are made as they are listed."""

    location = "synthetic"

    def __init__(self, count: int) -> None:
        self._count = count

    def list(self, prefix: str = "", *, after: str | None = None) -> Iterator[ObjectInfo]:
        first = 0 if after is None else int(after.rpartition("-")[2][:-4]) + 1
        for number in range(first, self._count):
            key = f"2026/camera-{number // 10_000:04d}/picture-{number:08d}.jpg"
            yield ObjectInfo(key, 250_000, f'"{number:032x}"', START)


class ToOthers:
    """Hands pages to the processes that write them down as done."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def publish(self, page: int) -> None:
        self._queue.put(page)

    def waiting(self) -> int | None:
        return None


def write_down(folder: str, job: str, queue: Any, requests: Any) -> None:
    """What a batch worker does with the ledger, without the pictures."""
    store = Counting(open_store(folder))
    ledger = Ledger(store, job, 1, EVERYTHING)
    outcome = Outcome(
        kind=Kind.BLURRED,
        input_sha256="a" * 64,
        output_sha256="b" * 64,
        output_bytes=200_000,
        faces=3,
        models=("c" * 64,),
        version="0.1.0",
        milliseconds=23.5,
    )
    values = outcome.as_dict()
    while (number := queue.get()) is not None:
        page = ledger.page(number)
        ledger.mark()
        attempt = ledger.claim(number)
        if attempt is None:
            continue
        summary = Summary()
        for entry in page.entries:
            summary.add(outcome, entry.size)
        records = [{"outcome": index, **values} for index in range(len(page.entries))]
        for start in range(0, len(records) - 500, 500):
            attempt.append(records[start : start + 500])
        attempt.finish(records[-500:], summary.as_dict())
    requests.put(dict(store.requests))


def planning(objects: int) -> None:
    """Plan, tally and conclude a synthetic listing."""
    folder = tempfile.mkdtemp(prefix="faceblur-planning-")
    context = multiprocessing.get_context("spawn")
    queue, counted = context.Queue(), context.Queue()
    spec = JobSpec(source="s3://synthetic", destination=folder, parallelism=64)
    store = Counting(open_store(folder))
    generation, ledger = begin(spec, store, Blurrer().info(), EVERYTHING, datetime.now(UTC))
    others = [
        context.Process(target=write_down, args=(folder, generation.job, queue, counted), daemon=True) for _ in range(2)
    ]
    for other in others:
        other.start()
    try:
        planner = Planner(generation, ledger, Listing(objects), ToOthers(queue), watch=Watch(stall=3600))
        begun = time.monotonic()
        planned_after = 0.0
        while planner.status().phase not in ENDED:
            pause = planner.step()
            if planner.status().planned and not planned_after:
                planned_after = time.monotonic() - begun
            time.sleep(min(pause, 0.5))
        seconds = time.monotonic() - begun
        for _ in others:
            queue.put(None)
        total = Counter(store.requests)
        for _ in others:
            total.update(counted.get())
        memory = peak_memory() / 2**20
        print(f"{objects:,} objects in {planner.pages:,} pages; all done {planner.status().summary.objects:,}")
        print(f"planned {objects / planned_after:,.0f} objects/s; planned, tallied and concluded in {seconds:.0f} s")
        print(f"planner's memory at most {memory:.0f} MB")
        print(f"requests {dict(total)}, {sum(total.values()) / objects:.4f} per object")
    finally:
        for other in others:
            other.terminate()
        shutil.rmtree(folder)


class Rounds:
    """One worker and one batch worker on this machine, and the same pictures in a folder and, if asked, in a bucket.

    Attributes:
        machine: The processes.
        paths: The pictures, in the folder.
        places: Where jobs read and write, by name: ``folder`` and ``S3``.
        settings: Of the batch worker and of planners.
    """

    def __init__(
        self, stack: contextlib.ExitStack, samples: Path, pictures: int, *, s3: bool, worker: Command | None = None
    ) -> None:
        folder = Path(tempfile.mkdtemp(prefix="faceblur-throughput-"))
        stack.callback(shutil.rmtree, folder)
        files = [path for path in sorted(samples.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg", ".png")]
        if not files:
            sys.exit(f"no pictures in {samples}")
        source = folder / "in"
        source.mkdir()
        for number, path in zip(range(pictures), itertools.cycle(files), strict=False):
            shutil.copy(path, source / f"{number:05d}{path.suffix}")
        self.paths = sorted(source.iterdir())
        self.places = {"folder": (str(source), f"{folder}/out")}
        more: dict[str, Any] = {}
        if s3:
            server = stack.enter_context(running_s3(folder / "s3"))
            bucket = open_store("s3://pictures/in/", server.settings())
            for path in self.paths:
                bucket.put(path.name, path.read_bytes())
            more["storage_profiles"] = folder / "profiles.json"
            more["storage_profiles"].write_text(json.dumps({"": server.settings().model_dump(mode="json")}))
            self.places["S3"] = ("s3://pictures/in/", "s3://pictures/out")
        self.machine = stack.enter_context(Local(worker))
        given = {"server": self.machine.worker(), "broker": self.machine.broker(), "threads": 4, "concurrency": 4}
        self.settings = read(BatchSettings, given | {"flush_seconds": 2.0, "poll_seconds": 0.5} | more)
        self.machine.batch_worker(self.settings)
        self._client = stack.enter_context(faceblur.FaceBlurClient(self.settings.server))
        list(self._client.blur_many(self.paths[:50], concurrency=8))  # warm
        self._jobs = 0

    def alone(self) -> tuple[float, dict[str, float]]:
        """Pictures per second of `blur_many` without a batch, and everybody's CPU seconds for a picture."""
        before, begun = cpu(self.machine), time.monotonic()
        done = sum(1 for outcome in self._client.blur_many(self.paths, concurrency=8) if outcome.result)
        return done / (time.monotonic() - begun), self._spent(before, done)

    def job(self, place: str) -> tuple[float, dict[str, float]]:
        """Pictures per second of a job from its beginning to its end, and everybody's CPU seconds for a picture."""
        source, destination = self.places[place]
        self._jobs += 1
        spec = JobSpec(source=source, destination=f"{destination}{self._jobs}", page_size=200, parallelism=4)
        before, begun = cpu(self.machine), time.monotonic()
        done = Driver(spec, self.settings).run().status.summary.objects
        return done / (time.monotonic() - begun), self._spent(before, done)

    def _spent(self, before: dict[str, float], pictures: int) -> dict[str, float]:
        spent = {name: after - before.get(name, 0) for name, after in cpu(self.machine).items()}
        spent[ELSEWHERE] -= sum(seconds for name, seconds in spent.items() if name != ELSEWHERE)
        return {name: seconds / pictures for name, seconds in spent.items()}


def throughput(samples: Path, pictures: int, rounds: int, *, s3: bool) -> None:
    """Pictures per second: `blur_many` alone and jobs in turn, so that what else the machine does meets them all."""
    places = ["folder", "S3"] if s3 else ["folder"]
    shares: dict[str, list[float]] = {place: [] for place in places}
    with contextlib.ExitStack() as stack:
        running = Rounds(stack, samples, pictures, s3=s3)
        for _ in range(rounds):
            alone, used = running.alone()
            print(f"blur_many alone: {alone:.1f} pictures/s; {in_words(used)}")
            for place in places:
                rate, used = running.job(place)
                shares[place].append(100 * rate / alone)
                print(f"job, {place}: {rate:.1f} pictures/s, {shares[place][-1]:.0f} % of it; {in_words(used)}")
    for place, found in shares.items():
        middle = statistics.median(found)
        print(f"{place}: {middle:.0f} % of blur_many alone ({min(found):.0f} to {max(found):.0f} %)")


def in_words(used: dict[str, float]) -> str:
    """CPU time for a picture."""
    return "CPU ms for a picture: " + ", ".join(f"{name} {1000 * value:.1f}" for name, value in used.items())


def cpu(machine: Local) -> dict[str, float]:
    """CPU seconds of each process so far, with what it has started, and of the whole machine (Linux only)."""
    parents, seconds = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        pid = int(stat.parent.name)
        parents[pid], seconds[pid] = int(fields[1]), (int(fields[11]) + int(fields[12])) / TICK
    leashes = {process.pid for _, process in machine.processes}
    below = {name: [pid for pid in parents if parents[pid] == process.pid] for name, process in machine.processes}
    below["others"] = [pid for pid in parents if parents[pid] == os.getpid() and pid not in leashes]
    own = {name: sum(seconds[pid] for pid in pids) for name, pids in below.items()}
    user, nice, system, _, _, *interrupts = map(int, Path("/proc/stat").read_text().split(maxsplit=9)[1:9])
    machine = (user + nice + system + sum(interrupts)) / TICK
    return {"this process": time.process_time()} | own | {ELSEWHERE: machine}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    plan = commands.add_parser("planning")
    plan.add_argument("--objects", type=int, default=1_000_000)
    rate = commands.add_parser("throughput")
    rate.add_argument("--samples", type=Path, required=True)
    rate.add_argument("--pictures", type=int, default=400)
    rate.add_argument("--rounds", type=int, default=5)
    rate.add_argument("--s3", action="store_true")
    args = parser.parse_args()
    if args.command == "planning":
        planning(args.objects)
    else:
        throughput(args.samples, args.pictures, args.rounds, s3=args.s3)
