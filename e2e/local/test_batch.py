"""A batch as processes on this machine, with one after the other killed in the middle of the work."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from faceblur_batch.config import BatchSettings
from faceblur_batch.driver import Driver
from faceblur_batch.job import JobSpec
from faceblur_batch.local import Command, Local, worker_command
from faceblur_batch.storage.opening import open_store
from faceblur_batch.storage.store import ObjectStore
from faceblur_process.settings import read
from support.bad_pictures import REFUSED
from support.batch_processes import (
    PAGE_SIZE,
    QUICK,
    TESTS,
    Processes,
    assert_sound,
    concluded,
    fill,
    interrupt,
    manifest,
    running,
    written,
)
from support.eventual import eventually
from support.ports import free_port
from support.running_worker import BREAKS, HANGS, KILLS, picture
from support.s3_server import NEEDED, S3Server, frontend, running_s3, s3_binary

COUNT = 400
SEEDS = range(1, 1 + int(os.environ.get("FACEBLUR_KILLS", "2")))
BAD = 3
AWAY = float(os.environ.get("FACEBLUR_AWAY_SECONDS", "6"))  # longer than requests are sent again here


class Place:
    """Where a batch reads from and writes to."""

    def __init__(self, source: str, destination: str, stores: tuple[ObjectStore, ObjectStore], profiles: Path) -> None:
        self.source, self.destination = source, destination
        self.stores = stores
        self.settings = {"STORAGE_PROFILES": profiles}


def folders(tmp_path: Path) -> Place:
    names = [str(tmp_path / name) for name in ("in", "out")]
    profiles = tmp_path / "profiles.json"
    profiles.write_text("{}")
    return Place(*names, (open_store(names[0]), open_store(names[1])), profiles)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return folders(tmp_path)


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[S3Server]:
    if not s3_binary():
        pytest.skip(NEEDED)
    with running_s3(tmp_path / "s3") as server:
        yield server


def bucket(server: S3Server, tmp_path: Path, **more: Any) -> Place:
    """A place in a bucket; `more` are settings of the processes, not of the test."""
    profiles = tmp_path / "profiles.json"
    profiles.write_text(json.dumps({"": server.settings(retries=5, **more).model_dump(mode="json")}))
    names = ("s3://pictures/in/", "s3://pictures/out/")
    stores = (open_store(names[0], server.settings()), open_store(names[1], server.settings()))
    return Place(*names, stores, profiles)


def complete(
    place: Place,
    tmp_path: Path,
    disturb: Callable[[Processes, Any], None],
    count: int = COUNT,
    repeated: int | None = None,
) -> None:
    """Run a job to its end; `repeated` is how many pictures may at most be blurred more than once."""
    inputs = fill(place.stores[0].put, count)
    with Processes(settings=place.settings) as processes:
        planner = processes.planner(place.source, place.destination)
        with running(planner):
            disturb(processes, planner)
            assert planner.wait() == 1, planner.text[-5:]  # some pictures are none
        if repeated is not None:
            assert processes.blurred() <= count + repeated
    outcomes = assert_sound(inputs, place.stores[1], tmp_path / "manifest")
    assert outcomes == {"blurred": count, "refused": BAD}


def at(seed: int, place: Place, kill: Callable[[], None], start: Callable[[], None]) -> None:
    """Kill in the middle of the job, at a moment that the seed chooses, and start again."""
    moment = random.Random(seed).randint(1, COUNT * 2 // 3)
    eventually(lambda: written(place.stores[1]) >= moment, 60)
    assert not concluded(place.stores[1])
    kill()
    start()


@pytest.mark.timeout(180)
def test_a_batch_over_folders(place: Place, tmp_path: Path) -> None:
    complete(place, tmp_path, lambda processes, planner: None)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("victim", ["planner", "batch worker", "blur worker", "broker with its data"])
def test_a_batch_in_which_something_is_killed(place: Place, tmp_path: Path, victim: str, seed: int) -> None:
    def disturb(processes: Processes, planner: Any) -> None:
        assert processes.broker is not None
        program = {
            "planner": planner,
            "batch worker": processes.batch_workers[0],
            "blur worker": processes.blur_workers[0],
            "broker with its data": processes.broker,
        }[victim]
        at(seed, place, program.kill, program.start)

    # Each thread of a killed batch worker leaves one page unfinished, and a new planner hands out anew what each thread
    # of both is at. A worker that is killed takes its count with it; a broker without its data forgets who has what.
    pages = {"planner": 2 * QUICK["THREADS"], "batch worker": QUICK["THREADS"]}.get(victim)
    complete(place, tmp_path, disturb, repeated=None if pages is None else round(pages * PAGE_SIZE))


@pytest.mark.timeout(240)
def test_a_batch_in_which_everything_is_killed(place: Place, tmp_path: Path) -> None:
    def disturb(processes: Processes, planner: Any) -> None:
        assert processes.broker is not None
        eventually(lambda: written(place.stores[1]) > COUNT // 4, 60)
        programs = [planner, *processes.batch_workers, *processes.blur_workers, processes.broker]
        for program in programs:
            program.kill()
        for program in reversed(programs):
            program.start()

    complete(place, tmp_path, disturb)


@pytest.mark.timeout(180)
def test_a_batch_over_s3(s3: S3Server, tmp_path: Path) -> None:
    complete(bucket(s3, tmp_path), tmp_path, lambda processes, planner: None)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_batch_whose_s3_server_goes_away(s3: S3Server, tmp_path: Path, seed: int) -> None:
    def start_later() -> None:
        time.sleep(AWAY)
        s3.start()

    place = bucket(s3, tmp_path)
    complete(place, tmp_path, lambda processes, planner: at(seed, place, s3.stop, start_later))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_batch_whose_s3_server_is_slow_and_often_unwell(s3: S3Server, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)

    def unwell(method: str, path: str) -> int | None:
        if chance.random() < 0.01:
            time.sleep(0.5)
        return 503 if chance.random() < 0.05 else None

    with frontend(s3.url, unwell) as front:
        complete(bucket(s3, tmp_path, endpoint=front.url), tmp_path, lambda processes, planner: None)


@pytest.mark.timeout(180)
def test_a_planner_that_is_asked_to_end_suspends_the_job_and_goes_on_later(place: Place, tmp_path: Path) -> None:
    inputs = fill(place.stores[0].put, COUNT)
    with Processes(settings=place.settings) as processes:
        planner = processes.planner(place.source, place.destination)
        with running(planner):
            eventually(lambda: written(place.stores[1]) > 20, 60)
            assert interrupt(planner) == 130
            assert planner.lines[-1]["phase"] == "suspended"
        with running(planner):
            assert planner.wait() == 1
    assert assert_sound(inputs, place.stores[1], tmp_path / "manifest").total() == COUNT + BAD


@pytest.mark.timeout(180)
def test_a_batch_worker_that_is_asked_to_end_hands_its_pages_on(place: Place, tmp_path: Path) -> None:
    def disturb(processes: Processes, planner: Any) -> None:
        eventually(lambda: written(place.stores[1]) > 20, 60)
        worker = processes.batch_workers[0]
        worker.signal(signal.SIGTERM)
        assert worker.wait(30) == 0

    complete(place, tmp_path, disturb)


def rabbitmq(tmp_path: Path) -> Iterator[str]:
    # What Debian has in PATH wants to become another user.
    program = shutil.which("rabbitmq-server", path="/usr/lib/rabbitmq/bin") or shutil.which("rabbitmq-server")
    if program is None:
        pytest.skip("needs rabbitmq-server, a package of Debian and others")
    port, name = free_port(), f"faceblur-{free_port()}@localhost"
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "RABBITMQ_NODENAME": name,
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(tmp_path / "mnesia"),
        "RABBITMQ_LOG_BASE": str(tmp_path / "log"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(tmp_path / "plugins"),
        "RABBITMQ_PID_FILE": str(tmp_path / "pid"),
        "RABBITMQ_CONFIG_FILE": str(tmp_path / "none"),
        "ERL_EPMD_PORT": str(free_port()),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
    }
    with (tmp_path / "rabbitmq.log").open("wb") as log:
        # Started here so that it can be ended here: by itself it would become a daemon.
        names = subprocess.Popen(["epmd"], env=environment, stdout=log, stderr=log)
        process = subprocess.Popen([program], env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        url = f"amqp://guest:guest@127.0.0.1:{port}//"
        eventually(lambda: _answers(url) or process.poll() is not None, 90)
        assert process.poll() is None, (tmp_path / "rabbitmq.log").read_text()
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        names.kill()
        names.wait()


def _answers(url: str) -> bool:
    from kombu import Connection

    try:
        with Connection(url, connect_timeout=2) as connection:
            connection.connect()
            return True
    except OSError:
        return False


@pytest.mark.timeout(300)
def test_a_batch_through_rabbitmq_with_a_batch_worker_killed(place: Place, tmp_path: Path) -> None:
    broker = rabbitmq(tmp_path)
    url = next(broker)
    try:
        inputs = fill(place.stores[0].put, COUNT)
        with Processes(broker=url, settings=place.settings) as processes:
            planner = processes.planner(place.source, place.destination)
            with running(planner):
                worker = processes.batch_workers[0]
                at(1, place, worker.kill, worker.start)
                assert planner.wait() == 1
        assert assert_sound(inputs, place.stores[1], tmp_path / "manifest").total() == COUNT + BAD
    finally:
        broker.close()


@pytest.mark.timeout(600)
def test_poison_among_many_good_pictures_is_refused_each_with_its_reason(place: Place, tmp_path: Path) -> None:
    source, destination = place.stores
    good = {f"good/{number:05d}.jpg": tiny(number) for number in range(2000)}
    bad = {f"good/{number * 7:05d}-{name}.jpg": build() for number, (name, (build, _)) in enumerate(REFUSED.items())}
    for key, data in (good | bad).items():
        source.put(key, data)
    with Local(fast_worker()) as machine:
        settings = read(BatchSettings, {"server": machine.worker(), "broker": machine.broker(), **LOCAL})
        machine.batch_worker(settings)
        ended = Driver(JobSpec(source=place.source, destination=place.destination, page_size=200), settings).run()
    assert assert_sound(good | bad, destination, tmp_path / "manifest").keys() <= {"no_face", "blurred", "refused"}
    summary = ended.status.summary
    assert summary.kinds["refused"] == len(bad)
    assert {reason.split()[1] for reason in summary.reasons} == REASONS


@contextlib.contextmanager
def started_again(programs: list[Any]) -> Iterator[None]:
    """Start what ends by itself again, as Kubernetes would, until the context is left."""
    enough = threading.Event()

    def watch() -> None:
        while not enough.wait(0.1):
            for program in programs:
                if program.ended:
                    program.kill()
                    program.start()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


@pytest.mark.timeout(600)
def test_poison_that_kills_and_hangs_workers_among_many_good_pictures_is_quarantined(
    place: Place, tmp_path: Path
) -> None:
    source, destination = place.stores
    good = {f"{number:05d}.png": picture(16 + number % 40, 16) + number.to_bytes(4, "big") for number in range(2000)}
    ends = {"KILLS": (KILLS, 2), "HANGS": (HANGS, 1), "BREAKS": (BREAKS, 2)}
    bad = {
        f"{700 * number + 50:05d}-{name}.png": picture() + bytes([number]) + end
        for name, (end, count) in ends.items()
        for number in range(count)
    }
    for key, data in (good | bad).items():
        source.put(key, data)
    with Processes(settings=place.settings, picture_seconds=0) as processes:
        planner = processes.planner(place.source, place.destination)
        with started_again(processes.blur_workers), running(planner):
            assert planner.wait(500) == 1, planner.text[-5:]
    outcomes = assert_sound(good | bad, destination, tmp_path / "manifest")
    assert outcomes == {"blurred": len(good), "quarantined": 3, "failed": 2}
    reasons = {line["key"][6:-4]: line["reason"] for line in manifest(destination, tmp_path) if "reason" in line}
    assert reasons.pop("BREAKS") == "INTERNAL"
    # Which of the two depends on how long the SDK was looking for another worker.
    assert set(reasons.values()) <= {"UNAVAILABLE", "DEADLINE_EXCEEDED"}


LOCAL = {"threads": 2, "concurrency": 4, "flush_seconds": 2.0, "poll_seconds": 0.5, "stall_seconds": 60.0}
REASONS = {"EMPTY_IMAGE", "UNSUPPORTED_FORMAT", "UNREADABLE_IMAGE", "MULTIPLE_FRAMES", "LIMIT_EXCEEDED"}


def fast_worker() -> Command:
    command = worker_command()
    return dataclasses.replace(command, environment=command.environment | {"FACEBLUR_WORKER_PROFILES": "fast"})


def tiny(number: int) -> bytes:
    """A picture of one colour; only its comment keeps a result without faces from being the same bytes."""
    out = io.BytesIO()
    colour = (number % 256, number // 256, 90)
    Image.new("RGB", (48 + number % 16, 32), colour).save(out, "JPEG", comment=b"taken by Ada")
    return out.getvalue()


# On one machine, with everything started by the command


def processes_below(marker: str) -> list[str]:
    """Command lines of processes that have the marker in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


@pytest.mark.timeout(180)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_local_batch_leaves_nothing_running(tmp_path: Path, number: int) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for index in range(300):
        (source / f"{index}.png").write_bytes(picture(400, 300) + bytes([index % 256]))
    marker = f"FACEBLUR_TEST_MARKER={tmp_path}"
    name, _, value = marker.partition("=")
    command = [sys.executable, "-m", "faceblur_cli", "batch", "run", str(source), str(tmp_path / "out"), "--json"]
    environment = {**os.environ, "PYTHONPATH": str(TESTS), name: value}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["done"] > 0:
                break
        assert len(processes_below(marker)) >= 4
        process.send_signal(number)
        process.stdout.read()
        code = process.wait(60)
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    eventually(lambda: not processes_below(marker), 40)


@pytest.mark.timeout(180)
def test_a_local_batch_goes_from_a_folder_to_a_folder(tmp_path: Path) -> None:
    """Of the evaluation set where FACEBLUR_EVALSET names it, else of the sample photographs."""
    evalset = os.environ.get("FACEBLUR_EVALSET")
    samples = Path(evalset, "images") if evalset else Path(__file__).parents[2] / "examples" / "photos"
    run = [sys.executable, "-m", "faceblur_cli", "batch"]
    out = tmp_path / "out"
    first = subprocess.run([*run, "run", str(samples), str(out)], capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr
    assert {path.name for path in out.glob("[!.]*")} == {path.name for path in samples.iterdir()}
    status = json.loads(subprocess.check_output([*run, "status", str(out)]))
    assert (status["phase"], status["percent"]) == ("completed", 100.0)
    subprocess.run([*run, "report", str(out), "--to", str(tmp_path / "report"), "--samples", "1"], check=True)
    audit = [sys.executable, "-m", "faceblur_cli", "audit", "verify", str(tmp_path / "report")]
    assert subprocess.run(audit, check=False, stdout=subprocess.DEVNULL).returncode == 0
    manifest = tmp_path / "report" / "manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes().replace(b'"faces":', b'"facez":', 1))
    altered = subprocess.run(audit, check=False, capture_output=True, text=True)
    assert altered.returncode == 1
    assert "line " in altered.stdout
