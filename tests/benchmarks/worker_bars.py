"""Measures what a worker promises: overhead, the reference load, the highest rate, overload, memory, time to ready.

The worker is a process of its own, and so is the load generator (worker_load.py); both run on this machine's cores, so
the CPU time of both sides is part of the lines. Pictures are composed from the samples, so that anyone can repeat it.

    python tests/benchmarks/worker_bars.py reference --samples examples/photos
    python tests/benchmarks/worker_bars.py overhead highest overload memory start --seconds 6
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from PIL import Image
from worker_load import percentile

from faceblur.v1 import faceblur_service_pb2, faceblur_service_pb2_grpc, options_pb2
from faceblur_engine.pipeline import Engine
from faceblur_engine.types import Options, Profile
from faceblur_process.memory import keep_freed_buffers
from faceblur_process.turns import take_turns_soon

HERE = Path(__file__).parent
THREADS = 2
ROUNDS = 7
FULL_HD, VGA = (1920, 1080), (640, 480)
CANVASES = 24
TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def compose(samples: Path, size: tuple[int, int], folder: Path, *, faces: tuple[int, int] = (5, 15)) -> Path:
    """Fill canvases with parts of the samples until each has so many faces; returns the folder of JPEG files."""
    chance = random.Random(7)
    engine = Engine(profiles=(Profile.BALANCED,))
    pictures = [Image.open(path).convert("RGB") for path in sorted(samples.rglob("*.jp*g"))]
    if not pictures:
        sys.exit(f"no JPEG files in {samples}")
    folder.mkdir()
    made = 0
    for _ in range(CANVASES * 200):
        if made == CANVASES:
            return folder
        canvas, across = Image.new("RGB", size), chance.choice((1, 2, 3))
        tile = (size[0] // across + 1, size[1] // across + 1)
        for cell in range(across * across):
            picture = chance.choice(pictures)
            scale = max(tile[0] / picture.width, tile[1] / picture.height) * chance.uniform(1, 1.6)
            grown = picture.resize((int(picture.width * scale) + 1, int(picture.height * scale) + 1))
            left, top = chance.randint(0, grown.width - tile[0]), chance.randint(0, grown.height - tile[1])
            part = grown.crop((left, top, left + tile[0], top + tile[1]))
            canvas.paste(part, (cell % across * tile[0], cell // across * tile[1]))
        encoded = io.BytesIO()
        canvas.save(encoded, "JPEG", quality=90)
        if faces[0] <= len(engine.detect(encoded.getvalue()).faces) <= faces[1]:
            (folder / f"{made:02d}.jpg").write_bytes(encoded.getvalue())
            made += 1
    sys.exit(f"the samples in {samples} do not give pictures of {faces[0]} to {faces[1]} faces")


class RunningProcess:
    """A worker in a process of its own; an empty one has an engine that does nothing."""

    def __init__(self, profile: str, *, empty: bool = False, **environment: str) -> None:
        begun = time.perf_counter()
        settings = {
            "FACEBLUR_WORKER_PROFILES": profile,
            "FACEBLUR_WORKER_THREADS": str(THREADS),
            "FACEBLUR_WORKER_LOG_LEVEL": "info",
            "FACEBLUR_WORKER_SETTLE_SECONDS": "0",
            **{f"FACEBLUR_WORKER_{name}": "127.0.0.1:0" for name in ("ADDRESS", "HEALTH_ADDRESS", "METRICS_ADDRESS")},
        }
        program = [str(HERE / "worker_empty.py")] if empty else ["-m", "faceblur_worker"]
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed by stop
        self._process = subprocess.Popen(
            [sys.executable, *program], env={**os.environ, **settings, **environment}, stderr=self._log
        )
        while not (ready := re.search(r'"message": "ready".*"port": (\d+)', self._written())):
            if self._process.poll() is not None:
                sys.exit(self._written())
            time.sleep(0.01)
        self.start_seconds = time.perf_counter() - begun
        self.target = f"127.0.0.1:{ready[1]}"

    def _written(self) -> str:
        # Not by seek and read: the process writes where the position is that it shares with this one.
        log = self._log.fileno()
        return os.pread(log, os.fstat(log).st_size, 0).decode()

    def refusal_seconds(self) -> list[float]:
        """How long after their beginning calls were refused for lack of room or time."""
        calls = [json.loads(line) for line in self._written().splitlines()]
        return [call["seconds"] for call in calls if call.get("reason") in ("OVERLOADED", "DEADLINE_TOO_SHORT")]

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def megabytes(self, name: str = "VmRSS") -> float:
        """Resident memory now, or at its highest (VmHWM)."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(re.search(rf"{name}:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]

    def stop(self) -> None:
        """End it in order."""
        self._process.terminate()
        self._process.wait(40)
        self._log.close()


@contextlib.contextmanager
def worker(profile: str, *, empty: bool = False, **environment: str) -> Iterator[RunningProcess]:
    """Run a worker as long as the context lasts."""
    process = RunningProcess(profile, empty=empty, **environment)
    try:
        yield process
    finally:
        process.stop()


def load(process: RunningProcess, pictures: Path, profile: str, **flags: Any) -> dict[str, Any]:
    """Run the load generator in a process of its own; returns its figures and the worker's."""
    arguments = [f"--{name}={value}" for name, value in {**flags, "profile": profile, "pictures": pictures}.items()]
    before = process.cpu_seconds()
    command = [sys.executable, str(HERE / "worker_load.py"), f"--target={process.target}", *arguments]
    figures: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    figures["worker_cpu_seconds"] = round(process.cpu_seconds() - before, 2)
    figures["megabytes"] = round(process.megabytes("VmHWM"))
    return figures


def closed_loop(process: RunningProcess, pictures: list[bytes], profile: str, method: str, count: int) -> float:
    """Pictures per second with 8 in flight."""
    options = options_pb2.Options(profile=options_pb2.Profile.Value(f"PROFILE_{profile.upper()}"))

    async def run() -> float:
        limits = [("grpc.max_receive_message_length", 64 << 20)]
        async with grpc.aio.insecure_channel(process.target, options=limits) as channel:
            stub: Any = faceblur_service_pb2_grpc.FaceBlurServiceStub(channel)
            numbers = iter(range(count))
            begin = time.perf_counter()
            if method == "BlurImage":

                async def one_by_one() -> None:
                    for number in numbers:
                        image = pictures[number % len(pictures)]
                        await stub.BlurImage(faceblur_service_pb2.BlurImageRequest(image=image, options=options))

                await asyncio.gather(*(one_by_one() for _ in range(8)))
            else:
                free = asyncio.Semaphore(8)

                async def requests() -> Any:
                    for number in numbers:
                        await free.acquire()
                        image = pictures[number % len(pictures)]
                        yield faceblur_service_pb2.BlurImagesRequest(id=str(number), image=image, options=options)

                async for answer in stub.BlurImages(requests()):
                    if answer.WhichOneof("outcome") != "result":
                        sys.exit(str(answer.error))
                    free.release()
            return count / (time.perf_counter() - begin)

    return asyncio.run(run())


def in_process(engine: Engine, pictures: list[bytes], profile: str, count: int) -> float:
    """Pictures per second of the engine alone."""
    options = Options(profile=Profile(profile))
    with ThreadPoolExecutor(THREADS) as threads:
        begin = time.perf_counter()
        for _ in threads.map(lambda number: engine.redact(pictures[number % len(pictures)], options), range(count)):
            pass
        return count / (time.perf_counter() - begin)


def is_held(figures: dict[str, Any]) -> bool:
    """Whether a rate was answered as a caller would wish."""
    return bool(figures["p95"] <= 120 and set(figures["outcomes"]) == {"ok"})


def spread(values: list[float], digits: int) -> dict[str, float]:
    """Minimum, median and maximum."""
    found = {"minimum": min(values), "median": statistics.median(values), "maximum": max(values)}
    return {name: round(value, digits) for name, value in found.items()}


def say(bar: str, **figures: Any) -> None:
    """Print one line."""
    sys.stdout.write(json.dumps({"bar": bar, **figures}) + "\n")
    sys.stdout.flush()


class Bars:
    """The measurements, each a method."""

    def __init__(self, samples: Path, scratch: Path, seconds: float) -> None:
        self._samples = samples
        self._scratch = scratch
        self._seconds = seconds

    def _pictures(self, size: tuple[int, int]) -> Path:
        folder = self._scratch / f"{size[0]}x{size[1]}"
        if not folder.exists():
            compose(self._samples, size, folder, faces=(5, 15) if size == FULL_HD else (1, 15))
        return folder

    def start(self) -> None:
        """Time from the start of the process to ready."""
        for profile in ("fast", "balanced"):
            with worker(profile) as process:
                say(
                    "start",
                    profile=profile,
                    seconds=round(process.start_seconds, 2),
                    megabytes=round(process.megabytes()),
                )

    def overhead(self) -> None:
        """Throughput over the wire as a share of the engine's in this process, round by round."""
        pictures = [path.read_bytes() for path in sorted(self._pictures(FULL_HD).iterdir())]
        for profile in ("balanced", "fast"):
            engine = Engine(profiles=(Profile(profile),), concurrency=THREADS)
            count = max(40, round(self._seconds * (20 if profile == "balanced" else 60)))
            with worker(profile) as process:
                ways: dict[str, Callable[[], float]] = {
                    "engine": lambda: in_process(engine, pictures, profile, count),  # noqa: B023
                    "BlurImage": lambda: closed_loop(process, pictures, profile, "BlurImage", count),  # noqa: B023
                    "BlurImages": lambda: closed_loop(process, pictures, profile, "BlurImages", count),  # noqa: B023
                }
                rates: dict[str, list[float]] = {name: [] for name in ways}
                for _ in range(ROUNDS):
                    for name, way in ways.items():
                        rates[name].append(way())
            for name, values in rates.items():
                shares = [rate / engine for rate, engine in zip(values, rates["engine"], strict=True)]
                say("overhead", profile=profile, way=name, rates=spread(values, 1), shares=spread(shares, 3))

    def reference(self) -> None:
        """88 pictures per second over 100 connections; then the same with an engine that does nothing.

        The callers are on the same cores as the worker. What they cost, and what the worker costs without its engine,
        is what the second run takes.
        """
        pictures = self._pictures(FULL_HD)
        runs: dict[str, dict[str, Any]] = {}
        for name in ("whole", "empty"):
            with worker("fast", empty=name == "empty") as process:
                load(process, pictures, "fast", rate=20, seconds=2)
                runs[name] = load(process, pictures, "fast", rate=88, seconds=self._seconds)
        cost = {
            f"{side}_{name}": round(1000 * run[key] / run["sent"], 2)
            for name, run in runs.items()
            for side, key in (("callers", "cpu_seconds"), ("worker", "worker_cpu_seconds"))
        }
        engine = round(cost["worker_whole"] - cost["worker_empty"], 2)
        say("reference", **runs["whole"], empty=runs["empty"], cpu_ms_per_picture={**cost, "engine": engine})

    def highest(self) -> None:
        """The highest rate held at a P95 of 120 ms or less without an error; none under one a second is looked for."""
        for profile in ("fast", "balanced"):
            for size in (VGA, FULL_HD):
                pictures = self._pictures(size)
                with worker(profile) as process:
                    rate, figures = self._highest(process, profile, pictures)
                    while rate >= 1 and not is_held(
                        figures := load(process, pictures, profile, rate=rate, seconds=self._seconds)
                    ):
                        rate = round(rate * 0.95, 1)
                say("highest", profile=profile, size=f"{size[0]}x{size[1]}", rate=rate, **figures)

    def _highest(self, process: RunningProcess, profile: str, pictures: Path) -> tuple[float, dict[str, Any]]:
        """Narrow down between a rate that is held for a short while and one that is not, to 3 percent."""
        encoded = [path.read_bytes() for path in sorted(pictures.iterdir())]
        high = closed_loop(process, encoded, profile, "BlurImage", 100) * 1.1
        low, held = 0.0, {}
        seconds = min(self._seconds, 10)
        while high > 1 and (low == 0 or high / low > 1.03):
            rate = round((low or high * 0.6) * 0.5 + high * 0.5, 1)
            figures = load(process, pictures, profile, rate=rate, seconds=seconds)
            if is_held(figures):
                low, held = rate, figures
            else:
                high = rate
        return low, held

    def overload(self) -> None:
        """Three times the highest rate, then the highest rate again at once."""
        pictures = self._pictures(FULL_HD)
        with worker("fast") as process:
            rate, at_capacity = self._highest(process, "fast", pictures)
            deadline = 2 * at_capacity["p95"] / 1000
            before = len(process.refusal_seconds())
            over = load(process, pictures, "fast", rate=3 * rate, seconds=self._seconds / 2, deadline=deadline)
            refused_in = percentile(process.refusal_seconds()[before:], 0.95)
            after = load(process, pictures, "fast", rate=rate * 0.9, seconds=2)
            peak = process.megabytes("VmHWM")
        say(
            "overload",
            capacity=rate,
            goodput=round(over["per_second"] / rate, 3),
            at_capacity=at_capacity,
            over=over,
            refused_in_p95=round(refused_in * 1000, 1),
            after=after,
            peak=round(peak),
        )

    def memory(self) -> None:
        """Resident memory over many pictures of mixed sizes."""
        pictures = [path.read_bytes() for size in (VGA, FULL_HD) for path in sorted(self._pictures(size).iterdir())]
        total = round(20_000 * self._seconds / 60)
        for profile in ("fast", "balanced"):
            with worker(profile) as process:
                closed_loop(process, pictures, profile, "BlurImage", total // 10)
                first = process.megabytes()
                closed_loop(process, pictures, profile, "BlurImage", total - total // 10)
                last, peak = process.megabytes(), process.megabytes("VmHWM")
            say(
                "memory",
                profile=profile,
                requests=total,
                first=round(first),
                grown=round(last - first, 1),
                peak=round(peak),
            )


def main() -> None:
    """Measure what the command line names."""
    names = [name for name in vars(Bars) if not name.startswith("_")]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bars", nargs="*", default=names, metavar="BAR", help=f"of {', '.join(names)}; all by default")
    parser.add_argument("--samples", type=Path, default=HERE.parents[1] / "examples", help="a folder with photographs")
    parser.add_argument("--seconds", type=float, default=60, help="of each measurement; 6 for a first impression")
    given = parser.parse_args()
    keep_freed_buffers(4)
    take_turns_soon()
    with tempfile.TemporaryDirectory() as scratch:
        bars = Bars(given.samples, Path(scratch), given.seconds)
        for name in given.bars:
            if name not in names:
                parser.error(f"there is no bar {name}")
            getattr(bars, name)()


if __name__ == "__main__":
    main()
