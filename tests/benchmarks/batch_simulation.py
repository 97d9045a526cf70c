"""How far a batch scales: what each step costs is measured here, and a model says what many machines make of it.

    python tests/benchmarks/batch_simulation.py measure --samples examples/photos
    python tests/benchmarks/batch_simulation.py run

`measure` writes ``measured.json``: seconds of CPU and of waiting for each step, each taken with real processes on this
machine, and how; and, with them, what whole jobs with one worker really reached. `run` reads it, predicts those jobs,
and then simulates 1 to 64 workers with machines of their own, and more until something is at its limit. It writes
``simulation.md`` and ``simulation.html``, which needs nothing else to be shown. The model is `support.batch_model`.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import html
import json
import math
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import redis
from batch_bars import ELSEWHERE, TICK, Listing, Rounds
from worker_empty import EmptyEngine

import faceblur
from faceblur_batch.app import CeleryQueue, make_app
from faceblur_batch.conclusion import conclude
from faceblur_batch.driver import Driver
from faceblur_batch.generation import begin
from faceblur_batch.job import JobSpec
from faceblur_batch.local import Command, worker_command
from faceblur_batch.outcomes import Kind, Outcome
from faceblur_batch.planner import Planner, Watch
from faceblur_batch.progress import Progress
from faceblur_batch.storage.opening import open_store
from faceblur_batch.storage.store import ObjectStore
from faceblur_batch.workplaces import ticket_for
from faceblur_engine.types import Options, Result
from faceblur_worker.__main__ import main as serve
from support.batch_model import Costs, Job, Machines, Model, Run
from support.batches import Blurrer
from support.memory_store import EVERYTHING
from support.s3_server import S3Server, running_s3, s3_binary

OUT = Path(__file__).parents[2] / "build" / "simulation"
WORKERS = (1, 2, 4, 8, 16, 32, 64)
LIMIT = 0.5


# Measuring


class StandIn(EmptyEngine):
    """Gives back what it gets and a byte, so that everything but the engine has its usual work."""

    def redact(self, data: bytes, options: Options, *, checkpoint: Callable[[], None] | None = None) -> Result:
        """Answer at once, with a receipt that is true."""
        image = data + b"\0"
        receipt = self._receipt(data, options, len(image))
        hashes = {"input_sha256": hashlib.sha256(data).hexdigest(), "output_sha256": hashlib.sha256(image).hexdigest()}
        return Result(image, dataclasses.replace(receipt, **hashes))


def measure(samples: Path, pictures: int, rounds: int) -> dict[str, Any]:
    """Everything that the model needs, and what it is compared with."""
    s3 = s3_binary() is not None
    with contextlib.ExitStack() as stack:
        real = _real(Rounds(stack, samples, pictures, s3=s3), rounds, s3=s3)
    with contextlib.ExitStack() as stack:
        stand_in = Command("worker", (sys.executable, __file__, "stand-in"), worker_command().environment)
        running = Rounds(stack, samples, pictures, s3=s3, worker=stand_in)
        batch = {place: running.job(place)[1]["batch worker"] for place in (["folder", "S3"] if s3 else ["folder"])}
        broker = _broker(running)
    stores = {"folder": _folder()}
    if s3:
        with tempfile.TemporaryDirectory() as folder, running_s3(Path(folder)) as server:
            stores["S3"] = _s3(samples, server)
    return {
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}, {platform.system()}",
        "pictures": pictures,
        "samples": {"files": len(_files(samples)), "bytes": round(statistics.mean(map(len, _contents(samples))))},
        **real,
        "batch_seconds": batch,
        **broker,
        "stores": stores,
        "how": HOW,
    }


HOW = {
    "alone": "pictures per second of blur_many with 8 in work, files read by the SDK, in rounds with the jobs",
    "jobs": "pictures per second of a whole job, from the planner's start to the root of the manifest",
    "elsewhere_cores": "cores that other processes, and the machine's host, used meanwhile (/proc/stat)",
    "worker_seconds": "CPU of the worker process for a picture while blur_many keeps both its threads busy",
    "sdk_seconds": "CPU of this process for a picture in the same time",
    "shape": "engine time of each sample by its receipts, one picture at a time, by their mean",
    "batch_seconds": "CPU of the batch worker process for a picture, with a worker whose engine answers at once",
    "start_seconds": "from Driver.run to the planner's first look at a job whose worker's engine answers at once",
    "broker_page_seconds": "CPU of the broker (INFO) for each of 500 tasks, each handed out and acknowledged",
    "publish_seconds": "time of the planner for the same",
    "broker_idle_seconds": "CPU of the broker for each second that one batch worker waits",
    "stores": "wait: answer time of requests one after the other, the list's for 1,000 keys; work: CPU of the server "
    "for them (folder: none, it is the batch worker's); plan_page, plan_object: line through the times of pages of 62 "
    "to 1,000 objects, without the list; tally: to read an outcome of 6,000 in segments; look: to read the mark and "
    "list; conclude_object: the manifest of 6,000",
}


def _real(running: Rounds, rounds: int, *, s3: bool) -> dict[str, Any]:
    """The engine, the SDK, and jobs with both, in turn."""
    files = {path.read_bytes(): path for path in running.paths}
    times = []
    with faceblur.FaceBlurClient(running.settings.server) as client:
        for content in files:
            taken = [client.blur(content).receipt.milliseconds["total"] for _ in range(12)]
            times.append(statistics.median(taken))
    alone: list[float] = []
    worker: list[float] = []
    sdk: list[float] = []
    jobs: dict[str, list[float]] = {"folder": [], "S3": []} if s3 else {"folder": []}
    spent: dict[str, dict[str, float]] = {}
    elsewhere: dict[str, list[float]] = {place: [] for place in jobs}
    for _ in range(rounds):
        rate, used = running.alone()
        alone.append(rate)
        worker.append(used["worker"])
        sdk.append(used["this process"])
        for place, rates in jobs.items():
            rate, spent[place] = running.job(place)
            rates.append(rate)
            elsewhere[place].append(rate * spent[place][ELSEWHERE])
    return {
        "alone": alone,
        "jobs": jobs,
        "job_cpu_seconds": spent,
        "elsewhere_cores": {place: statistics.median(cores) for place, cores in elsewhere.items()},
        "worker_seconds": statistics.median(worker),
        "sdk_seconds": statistics.median(sdk),
        "shape": [taken / statistics.mean(times) for taken in times],
    }


def _broker(running: Rounds) -> dict[str, float]:
    """What a page costs the broker, by tasks for a page that is done already; and a planner's start."""
    source, destination = running.places["folder"]
    spec = JobSpec(source=source, destination=f"{destination}-broker", page_size=200, parallelism=4)
    begun = time.monotonic()
    first: list[float] = []
    ended = Driver(spec, running.settings).run(seen=lambda status: first.append(time.monotonic() - begun))
    server = redis.Redis(unix_socket_path=running.settings.broker_url().partition("://")[2])

    def used() -> float:
        info: Any = server.info("cpu")
        return float(info["used_cpu_user"] + info["used_cpu_sys"])

    queue = CeleryQueue(make_app(running.settings), running.settings.queue, ticket_for(spec, ended.generation, 0))
    queue.publish(0)
    time.sleep(2)
    before, count = used(), 500
    begun = time.monotonic()
    for _ in range(count):
        queue.publish(0)
    published = time.monotonic() - begun
    while queue.waiting():
        time.sleep(0.1)
    time.sleep(0.5)
    page, idle, seconds = (used() - before) / count, used(), 5.0
    time.sleep(seconds)
    return {
        "start_seconds": first[0],
        "broker_page_seconds": page,
        "publish_seconds": published / count,
        "broker_idle_seconds": (used() - idle) / seconds,
    }


def _folder() -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="faceblur-simulation-"))
    try:
        (folder / "in").mkdir()
        _fill(folder / "in")
        listed = _timed(lambda: sum(1 for _ in open_store(str(folder / "in")).list()))[0] / (FILES / 1000)
        nothing = dict.fromkeys(REQUESTS, 0.0)
        return {"wait": nothing | {"list": listed}, "work": nothing, **_planner(open_store(str(folder / "out")))}
    finally:
        shutil.rmtree(folder)


def _s3(samples: Path, server: S3Server) -> dict[str, Any]:
    """Requests one after the other, and the CPU that the server needs for them."""
    assert server.process
    stat = Path(f"/proc/{server.process.pid}/stat")

    def used() -> float:
        fields = stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    _fill(server.buckets / "pictures" / "in")
    store = open_store("s3://pictures/requests/", server.settings())
    contents, segment = _contents(samples), _segment_bytes()
    for number, content in enumerate(contents):
        store.put(f"sample-{number}", content)
    store.put("segment", segment)
    each: dict[str, Callable[[int], object]] = {
        "get": lambda number: store.get(f"sample-{number % len(contents)}"),
        "put": lambda number: store.put(f"new-{number}", contents[number % len(contents)], only_if_absent=True),
        "read": lambda number: store.get("segment"),
        "write": lambda number: store.put(f"segment-{number}", segment, only_if_absent=True),
        "list": lambda number: sum(1 for _ in open_in.list()),
    }
    open_in = open_store("s3://pictures/in/", server.settings())
    wait, work = {}, {}
    for kind, ask in each.items():
        times = 3 if kind == "list" else SMALL
        count = times * FILES / 1000 if kind == "list" else times
        before, begun = used(), time.monotonic()
        for number in range(times):
            ask(number)
        wait[kind], work[kind] = (time.monotonic() - begun) / count, (used() - before) / count
    return {
        "wait": wait,
        "work": work,
        **_planner(open_store("s3://pictures/planned/", server.settings())),
    }


REQUESTS = ("get", "put", "read", "write", "list")
FILES, SMALL = 6000, 300


def _timed(work: Callable[[], object]) -> tuple[float, object]:
    begun = time.monotonic()
    result = work()
    return time.monotonic() - begun, result


def _planner(destination: ObjectStore) -> dict[str, float]:
    """What the planner needs for its steps, in seconds, but for the listing."""
    spec = JobSpec(source="s3://in", destination="s3://out", page_size=1000, parallelism=2)
    generation, ledger = begin(spec, destination, Blurrer().info(), EVERYTHING, datetime.now(UTC))
    planner = Planner(generation, ledger, Listing(FILES), _Nowhere(), watch=Watch(poll=1e9, stall=1e9))
    sizes: list[int] = []
    times: list[float] = []
    planned = 0
    while not planner.status().planned:
        times.append(_timed(planner.step)[0])
        total = planner.status().totals.objects
        sizes.append(total - planned)
        planned = total
    # The first page holds the first look, the last one the rest.
    slope, intercept = statistics.linear_regression(sizes[1:-1], times[1:-1])
    noted = _outcome().as_dict()
    for page in range(planner.pages):
        attempt = ledger.claim(page)
        assert attempt
        entries = len(ledger.page(page).entries)
        attempt.append({"outcome": number, **noted} for number in range(min(500, entries)))
        if entries > 500:
            attempt.append({"outcome": number, **noted} for number in range(500, entries))
    progress = Progress(ledger)
    tallied, _ = _timed(lambda: progress.refresh(0.0))
    looks = 10
    look, _ = _timed(lambda: [(ledger.mark(), progress.refresh(0.0)) for _ in range(looks)])
    concluded, _ = _timed(lambda: conclude(ledger, generation, pages=planner.pages, now=datetime.now(UTC)))
    return {
        "plan_page": max(0.0, intercept),
        "plan_object": slope,
        "tally": tallied / planned,
        "look": look / looks,
        "conclude_object": concluded / planned,
    }


class _Nowhere:
    """A queue that takes everything."""

    def publish(self, page: int) -> None:
        pass

    def waiting(self) -> int | None:
        return None


def _outcome() -> Outcome:
    return Outcome(
        kind=Kind.BLURRED,
        input_sha256="a" * 64,
        output_sha256="b" * 64,
        output_bytes=200_000,
        faces=3,
        models=("c" * 64,),
        version="0.1.0",
        milliseconds=23.5,
    )


def _segment_bytes() -> bytes:
    line = json.dumps({"outcome": 123, **_outcome().as_dict()}).encode() + b"\n"
    return line * 500


def _fill(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for number in range(FILES):
        (folder / f"picture-{number:08d}.jpg").touch()


def _files(samples: Path) -> list[Path]:
    return [path for path in sorted(samples.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg", ".png")]


def _contents(samples: Path) -> list[bytes]:
    return [path.read_bytes() for path in _files(samples)]


# Simulating


def costs_from(measured: dict[str, Any], place: str) -> Costs:
    """What the model needs, for jobs from and to a folder or a bucket."""
    store = measured["stores"][place]
    steps = {name: store[name] for name in ("plan_page", "plan_object", "tally", "look", "conclude_object")}
    return Costs(
        pictures=tuple(measured["worker_seconds"] * part for part in measured["shape"]),
        batch=measured["batch_seconds"][place],
        store=store["work"],
        wait=store["wait"],
        publish=measured["publish_seconds"],
        broker_page=measured["broker_page_seconds"],
        broker_idle=measured["broker_idle_seconds"],
        start=measured["start_seconds"],
        **steps,
    )


def predicted(measured: dict[str, Any], place: str) -> float:
    """Pictures per second of the jobs that were measured, with everything on what there was of one machine's cores."""
    machines = Machines(workers=1, batch_workers=1, concurrency=4, shared=2)
    job = Job(objects=measured["pictures"], page_size=200, parallelism=4, flush_seconds=2.0, poll=0.5)
    left = 1 - measured["elsewhere_cores"][place] / 2
    return left * job.objects / Model(costs_from(measured, place), machines, job).run().seconds


def machines_for(workers: int, store_cores: int, distance: float) -> Machines:
    """A batch worker for each worker: four pages at once with eight pictures each, sixteen in work for each thread."""
    return Machines(workers=workers, batch_workers=workers, store_cores=store_cores, distance=distance)


def scaled(costs: Costs, machines: Machines) -> Run:
    """A job long enough to see what is steady."""
    objects = min(6000 * machines.workers, 300_000)
    return Model(costs, machines, Job(objects=objects, parallelism=machines.batch_workers * machines.pages)).run()


def run(measured: dict[str, Any], out: Path, store_cores: int, distance: float) -> None:
    """Predict what was measured, then 1 to 64 workers and more; write and print what comes out."""
    place = "S3" if "S3" in measured["stores"] else "folder"
    costs = costs_from(measured, place)
    lines = [*_validation(measured), ""]
    runs = {count: scaled(costs, machines_for(count, store_cores, distance)) for count in WORKERS}
    last = runs[WORKERS[-1]]
    shares = {name: share for name, share in last.share.items() if name not in ("worker", "batch worker")}
    first, share = max(shares.items(), key=lambda item: item[1])
    limit = WORKERS[-1] / share
    beyond = [count for count in (128, 256, 512, 1024) if count <= 2 * limit]
    runs |= {count: scaled(costs, machines_for(count, store_cores, distance)) for count in beyond}
    bytes_each = measured["samples"]["bytes"]
    lines += _table(runs, bytes_each, store_cores)
    verdict = "all" if max(shares.values()) <= LIMIT else "not all"
    most = max(result.rate for result in runs.values())
    reached = f"{most:,.0f} pictures/s at most, what {most / runs[1].rate:.0f} workers do"
    lines += [
        "",
        f"At {WORKERS[-1]} workers {verdict} of broker, store and planner are below {LIMIT:.0%}: "
        + ", ".join(f"{name} {value:.1%}" for name, value in shares.items())
        + f". The first limit is the {first}: {reached}.",
        "",
        *_tails(costs, store_cores, distance),
    ]
    out.mkdir(parents=True, exist_ok=True)
    (out / "simulation.md").write_text("\n".join(lines) + "\n")
    (out / "simulation.html").write_text(_page(runs, lines))
    print("\n".join(lines))
    print(f"\n{out / 'simulation.html'} shows it.")


def _validation(measured: dict[str, Any]) -> Iterator[str]:
    yield "| one worker on this machine | measured, median (range) | of blur_many alone | predicted | off by |"
    yield "|---|---|---|---|---|"
    for place, rates in measured["jobs"].items():
        rate, forecast = statistics.median(rates), predicted(measured, place)
        spread = f"{min(rates):.1f} to {max(rates):.1f}"
        shares = [job / alone for job, alone in zip(rates, measured["alone"], strict=True)]
        share = f"{statistics.median(shares):.0%} ({min(shares):.0%} to {max(shares):.0%})"
        off = forecast / rate - 1
        yield f"| job, {place} | {rate:.1f} pictures/s ({spread}) | {share} | {forecast:.1f} | {off:+.0%} |"


def _table(runs: dict[int, Run], bytes_each: int, store_cores: int) -> Iterator[str]:
    yield (
        "| workers | pictures/s | of the workers' most | batch workers | broker | planner "
        f"| store, {store_cores} cores | requests/s | of them the ledger's | Gbit/s each way | tail, s |"
    )
    yield "|---" * 11 + "|"
    for workers, result in runs.items():
        ledger = sum(result.requests[kind] for kind in ("read", "write", "list")) / len(result.done)
        most, share = result.share["worker"], result.share
        cells = [
            f"{result.rate:,.0f}",
            f"{most:.0%}",
            f"{share['batch worker']:.0%}",
            f"{share['broker']:.1%}",
            f"{share['planner']:.1%}",
            f"{share['store']:.1%}",
            f"{result.rate * (2 + ledger):,.0f}",
            f"{ledger / (2 + ledger):.2%}",
            f"{result.rate * bytes_each * 8 / 1e9:.2f}",
            f"{result.tail:.1f}",
        ]
        yield f"| {workers} | " + " | ".join(cells) + " |"


def _tails(costs: Costs, store_cores: int, distance: float) -> Iterator[str]:
    """What page size and parallelism do to the end of a job with slow pictures there."""
    machines, objects = machines_for(16, store_cores, distance), 32_000
    at_once = machines.batch_workers * machines.pages
    yield (
        f"{objects:,} pictures on 16 workers, the last 1 % of them 20 times as slow; seconds until the last one is "
        "written, and in brackets how many more than if no thread had ever waited:"
    )
    yield ""
    yield "| page size | " + " | ".join(f"parallelism {at_once * part // 4}" for part in (1, 2, 4, 8)) + " |"
    yield "|---" * 5 + "|"
    for size in (100, 250, 1000, 4000):
        cells = []
        for part in (1, 2, 4, 8):
            job = Job(
                objects=objects, page_size=size, parallelism=at_once * part // 4, slow=objects // 100, slower=20.0
            )
            result = Model(costs, machines, job).run()
            cells.append(f"{result.blurred_after:.0f} ({result.tail:.0f})")
        yield f"| {size:,} | " + " | ".join(cells) + " |"


# Showing


def _page(runs: dict[int, Run], lines: Sequence[str]) -> str:
    """One page with both plots and the tables; it loads nothing."""
    counts = list(runs)
    alone = runs[counts[0]].rate
    rates = _plot(
        "Pictures per second",
        counts,
        {"simulated": [runs[n].rate for n in counts], "as many times one worker": [alone * n for n in counts]},
        logarithmic=True,
    )
    names = ("batch worker", "broker", "planner", "store")
    shares = _plot(
        "Share of one node's capacity, %",
        counts,
        {name: [100 * runs[n].share[name] for n in counts] for name in names},
        logarithmic=False,
    )
    text = html.escape("\n".join(lines))
    return (
        '<!doctype html><meta charset="utf-8"><title>A batch on many workers</title>'
        "<style>body{font:14px system-ui,sans-serif;margin:2em;color:#222}svg{margin-right:2em}"
        "pre{white-space:pre-wrap}</style><h1>A batch on many workers</h1>"
        f"{rates}{shares}<pre>{text}</pre>"
    )


COLOURS = ("#1f6feb", "#d1570c", "#2d8f4e", "#8a3ffc")
WIDTH, HEIGHT, EDGE = 520, 320, 48


def _plot(title: str, xs: Sequence[int], series: dict[str, list[float]], *, logarithmic: bool) -> str:
    """A line for each series over a logarithmic number of workers, as SVG."""
    most = max(max(ys) for ys in series.values())
    if logarithmic:
        low, high = math.log10(min(min(ys) for ys in series.values())), math.log10(most)
        ticks = [10.0**power for power in range(math.ceil(low), math.floor(high) + 1)]
    else:
        low, high = 0.0, max(100.0, most)
        ticks = [0.0, 25.0, 50.0, 75.0, 100.0]

    def x(value: float) -> float:
        return EDGE + (WIDTH - 2 * EDGE) * math.log2(value / xs[0]) / math.log2(xs[-1] / xs[0])

    def y(value: float) -> float:
        place = (math.log10(value) if logarithmic else value) - low
        return HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * place / (high - low)

    parts = [f'<text x="{EDGE}" y="24" font-weight="bold">{title}</text>']
    for tick in ticks:
        dashes = ' stroke-dasharray="4 3"' if tick == 100 * LIMIT and not logarithmic else ""
        parts.append(
            f'<path d="M{EDGE} {y(tick):.1f}H{WIDTH - EDGE}" stroke="#bbb"{dashes}/>'
            f'<text x="{EDGE - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:,.0f}</text>'
        )
    parts += [f'<text x="{x(n):.1f}" y="{HEIGHT - EDGE + 18}" text-anchor="middle">{n}</text>' for n in xs]
    for number, (name, ys) in enumerate(series.items()):
        colour = COLOURS[number]
        points = " ".join(f"{x(n):.1f},{y(value):.1f}" for n, value in zip(xs, ys, strict=True))
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
            f'<text x="{EDGE + 10}" y="{EDGE + 4 + 16 * number}" fill="{colour}">{name}</text>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" '
        f'font-size="12">{"".join(parts)}</svg>'
    )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    taking = commands.add_parser("measure")
    taking.add_argument("--samples", type=Path, required=True)
    taking.add_argument("--pictures", type=int, default=400)
    taking.add_argument("--rounds", type=int, default=5)
    taking.add_argument("--out", type=Path, default=OUT / "measured.json")
    simulating = commands.add_parser("run")
    simulating.add_argument("--measured", type=Path, default=OUT / "measured.json")
    simulating.add_argument("--out", type=Path, default=OUT)
    simulating.add_argument("--store-cores", type=int, default=32)
    simulating.add_argument("--distance", type=float, default=0.001, help="seconds more for a request than measured")
    args = parser.parse_args()
    if args.command == "measure":
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(measure(args.samples, args.pictures, args.rounds), indent=2) + "\n")
        print(f"{args.out} has what was measured")
    else:
        run(json.loads(args.measured.read_text()), args.out, args.store_cores, args.distance)


if __name__ == "__main__":
    if sys.argv[1:2] == ["stand-in"]:
        sys.exit(serve(sys.argv[2:], lambda settings: StandIn()))
    main()
