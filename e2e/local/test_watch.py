"""A watched bucket as processes on this machine: notifications of a real store and of a real queue, and kills."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from faceblur_batch.generation import latest
from faceblur_batch.job import JobSpec
from faceblur_batch.ledger import ROOT, generations
from faceblur_batch.storage.opening import open_store
from faceblur_batch.storage.store import ObjectStore
from faceblur_batch.watched import Watched
from support.batch_processes import TESTS, Processes, Program, fill
from support.eventual import eventually
from support.notifications import records
from support.ports import free_port
from support.running_worker import picture
from support.s3_server import ACCESS_KEY, NEEDED, SECRET_KEY, S3Server, running_s3, s3_binary

SOURCE, DESTINATION = "s3://pictures/in/", "s3://pictures/out/"
BAD = 3


class Place:
    """A bucket, and a process that watches a folder of it."""

    def __init__(self, server: S3Server, folder: Path, processes: Processes, settings: dict[str, object]) -> None:
        self.server = server
        self.stores = tuple(open_store(name, server.settings()) for name in (SOURCE, DESTINATION))
        self.spec = folder / "spec.json"
        values = {"source": SOURCE, "destination": DESTINATION, "page_size": 32, "parallelism": 4}
        self.spec.write_text(json.dumps(values))
        self.job = JobSpec(**values).id
        self.health = free_port()
        self.watch = Program(
            "-m",
            "faceblur_batch.watch",
            str(self.spec),
            environment={
                **processes.environment,
                "PYTHONPATH": os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH")))),
                "FACEBLUR_BATCH_METRICS_ADDRESS": f"127.0.0.1:{self.health}",
                "FACEBLUR_BATCH_WATCH_SETTLE_SECONDS": 0.2,
                **{f"FACEBLUR_BATCH_{name}": value for name, value in settings.items()},
            },
            stdout=True,
        )

    @property
    def source(self) -> ObjectStore:
        return self.stores[0]

    @property
    def destination(self) -> ObjectStore:
        return self.stores[1]

    def start(self) -> None:
        self.watch.start()
        eventually(lambda: self.asked("/healthz") == 200, 30)

    def asked(self, path: str) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health}{path}", timeout=5) as answer:
                return int(answer.status)
        except (OSError, http.client.HTTPException):
            return 0

    def state(self) -> str:
        return str((Watched(self.destination, self.job).noted() or {}).get("state", ""))

    def metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.health}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[:1] != "#")}

    def outputs(self) -> dict[str, str]:
        """For each output, the ETag of what it was made of."""
        keys = [info.key for info in self.destination.list() if not info.key.startswith(".faceblur/")]
        found = {}
        for key in keys:
            headers = self.destination.head(key).headers
            assert headers is not None
            found[key] = headers.metadata["faceblur-etag"]
        return found

    def in_step(self) -> bool:
        """Whether each picture has an output that was made of what it is now, and nothing else has."""
        return self.outputs() == {
            info.key: info.etag.strip('"') for info in self.source.list() if not info.key.startswith("bad/")
        }

    def put(self, key: str, number: int) -> None:
        self.source.put(key, picture(16 + number % 40, 16) + number.to_bytes(4, "big"))

    def assert_sound(self) -> None:
        """No original is at any output key, and each object of each pass has one outcome."""
        originals = {hashlib.sha256(self.source.get(info.key).data).hexdigest() for info in self.source.list()}
        for key in self.outputs():
            assert hashlib.sha256(self.destination.get(key).data).hexdigest() not in originals
        for number in generations(self.destination, self.job):
            folder = f"{ROOT}{self.job}/{number:08d}/"
            data = self.destination.get(folder + "manifest.jsonl").data
            keys = [line["key"] for line in map(json.loads, data.splitlines()) if "key" in line]
            assert len(keys) == len(set(keys))

    def inbox(self) -> set[str]:
        prefix = f"{ROOT}{self.job}/inbox/"
        return {
            json.loads(line)
            for info in self.destination.list(prefix)
            for line in self.destination.get(info.key).data.splitlines()
        }


@contextlib.contextmanager
def place(tmp_path: Path, **settings: object) -> Iterator[Place]:
    """A bucket, and workers; nobody watches yet."""
    if not s3_binary():
        pytest.skip(NEEDED)
    with running_s3(tmp_path / "s3") as server:
        profiles = tmp_path / "profiles.json"
        profiles.write_text(json.dumps({"": server.settings(retries=5).model_dump(mode="json")}))
        with Processes(settings={"STORAGE_PROFILES": profiles}) as processes:
            place = Place(server, tmp_path, processes, settings)
            try:
                yield place
            finally:
                place.watch.kill()


@pytest.mark.timeout(180)
def test_a_listing_at_intervals_keeps_a_bucket_in_step(tmp_path: Path) -> None:
    with place(tmp_path, WATCH_EVERY_SECONDS=1) as watched:
        fill(watched.source.put, 60)
        watched.start()
        eventually(watched.in_step, 60)
        for number in range(10):
            watched.put(f"new/ü {number}+.png", number)
            watched.put(f"{number % 7}/{number:05d}.png", number + 100)
        eventually(watched.in_step, 60)
        watched.watch.signal(signal.SIGTERM)
        assert watched.watch.wait(60) == 4
        assert watched.state() == "ended"
        watched.assert_sound()
        passes = len(list(generations(watched.destination, watched.job)))
        watched.start()
        eventually(
            lambda: watched.metrics().get('faceblur_watch_passes_total{end="nothing",what="listing"}', 0) > 1, 60
        )
        assert len(list(generations(watched.destination, watched.job))) == passes


@pytest.mark.timeout(240)
def test_notifications_of_a_store_keep_a_bucket_in_step(tmp_path: Path) -> None:
    port = free_port()
    with place(tmp_path, WEBHOOK_ADDRESS=f"127.0.0.1:{port}", WATCH_EVERY_SECONDS=3600) as watched:
        fill(watched.source.put, 20)
        watched.start()
        eventually(lambda: watched.in_step() and watched.state() == "watching", 60)
        watched.server.stop()
        watched.server.notify(f"http://127.0.0.1:{port}/")
        watched.server.start()
        names = ["a b+c.png", "ü/é.png", "100%.png", "deep/er/x.png", "plain.png"]
        for number, name in enumerate(names):
            watched.put(f"new/{name}", number)
        watched.source.delete("1/00001.png")
        watched.put("2/00002.png", 1000)
        watched.source.put("new/notes.txt", b"no picture")
        expected = {f"new/{name.replace('%', '%25')}" for name in names}

        def done() -> bool:
            outputs = watched.outputs()
            changed = watched.source.head("2/00002.png").etag.strip('"')
            return outputs.keys() >= expected and outputs["2/00002.png"] == changed

        eventually(done, 60)
        metrics = watched.metrics()
        assert metrics['faceblur_watch_notifications_total{kind="object"}'] >= 6
        assert metrics['faceblur_watch_notifications_total{kind="removed"}'] >= 1
        assert 'faceblur_watch_passes_total{end="completed",what="listing"}' not in metrics
        assert "1/00001.png" in watched.outputs()  # what is removed from the source stays in the destination
        watched.assert_sound()


def post(port: int, value: Any) -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/", json.dumps(value).encode(), method="POST")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", range(1, 1 + int(os.environ.get("FACEBLUR_KILLS", "2"))))
def test_a_notification_that_was_acknowledged_survives_a_kill(tmp_path: Path, seed: int) -> None:
    port = free_port()
    settings = {"WEBHOOK_ADDRESS": f"127.0.0.1:{port}", "WATCH_EVERY_SECONDS": 3600}
    with place(tmp_path, **settings) as watched:
        fill(watched.source.put, 10)
        watched.start()
        eventually(lambda: watched.in_step() and watched.state() == "watching", 60)
        acknowledged: set[str] = set()
        for round_ in range(3):
            for number in range(5 * seed):
                key = f"new/{round_}-{number}.png"
                watched.put(key, number)
                if post(port, records(f"in/{key}")) == 200:
                    acknowledged.add(key)
            watched.watch.kill()  # at whatever it is: about to look, in the middle of a pass, behind it
            assert acknowledged <= watched.inbox() | named_in_passes(watched) | watched.outputs().keys()
            watched.start()
        assert len(acknowledged) == 15 * seed
        eventually(watched.in_step, 60)
        eventually(lambda: watched.state() == "watching", 60)
        assert watched.inbox() == set()
        watched.assert_sound()


def named_in_passes(watched: Place) -> set[str]:
    last = latest(watched.destination, watched.job)
    assert last is not None
    return {info.key for info in last.objects(watched.source)}


@pytest.mark.timeout(240)
def test_a_job_that_is_watched_is_cancelled_and_resumed_from_the_command_line(tmp_path: Path) -> None:
    with place(tmp_path, WATCH_EVERY_SECONDS=1) as watched:
        fill(watched.source.put, 20)
        watched.start()
        eventually(lambda: watched.in_step() and watched.state() == "watching", 60)
        command = [sys.executable, "-m", "faceblur_cli", "batch"]
        profiles = ["--storage-profiles", str(tmp_path / "profiles.json")]

        def batch(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run([*command, *arguments, *profiles], capture_output=True, text=True, check=False)

        assert batch("cancel", DESTINATION).returncode == 0
        eventually(lambda: watched.state() == "cancelled", 60)
        watched.put("new/1.png", 1)
        status = json.loads(batch("status", DESTINATION).stdout)
        assert status["watch"]["state"] == "cancelled"
        assert batch("report", DESTINATION, "--to", str(tmp_path / "report")).returncode == 0
        assert (tmp_path / "report" / "report.html").exists()
        assert "new/1.png" not in watched.outputs()
        assert batch("resume", DESTINATION).returncode == 0
        eventually(watched.in_step, 60)


@pytest.mark.timeout(120)
def test_the_command_watches_a_folder_and_leaves_nothing_running(tmp_path: Path) -> None:
    source, destination = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    with Processes() as processes:
        surroundings = [
            "--broker",
            processes.broker_url,
            "--cluster",
            str(processes.environment["FACEBLUR_BATCH_SERVER"]),
        ]
        watch = Program(
            *("-m", "faceblur_cli", "batch", "watch", str(source), str(destination), "--every", "0.5s", "--json"),
            *surroundings,
            environment=processes.environment,
            stdout=True,
        )
        watch.start()
        try:
            for number in range(3):
                (source / f"{number}.png").write_bytes(picture(16 + number, 16))
                eventually((destination / f"{number}.png").exists, 60)
            watch.signal(signal.SIGINT)
            assert watch.wait(60) == 130
        finally:
            watch.kill()


# A real queue


def moto() -> str | None:
    return os.environ.get("FACEBLUR_MOTO") or shutil.which("moto_server")


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, str]]:
    """A client of a queue, and the queue's URL."""
    program = moto()
    if program is None or importlib.util.find_spec("boto3") is None:
        pytest.skip("needs boto3 (faceblur[sqs]) and moto_server: name it in FACEBLUR_MOTO or put it on PATH")
    import boto3

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    port = free_port()
    process = subprocess.Popen(
        [program, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        client = boto3.client("sqs", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1")
        eventually(lambda: _there(client), 60)
        answer = client.create_queue(QueueName="pictures", Attributes={"VisibilityTimeout": "3"})
        yield client, answer["QueueUrl"]
    finally:
        process.kill()
        process.wait()


def _there(client: Any) -> bool:
    with contextlib.suppress(Exception):
        client.list_queues()
        return True
    return False


@pytest.mark.timeout(240)
def test_notifications_from_a_queue_survive_kills(tmp_path: Path, queue: tuple[Any, str]) -> None:
    client, url = queue
    settings = {"SQS_URL": url, "SQS_ALLOW_HTTP": "true", "SQS_REGION": "us-east-1", "WATCH_EVERY_SECONDS": 3600}
    with place(tmp_path, **settings) as watched:
        fill(watched.source.put, 10)
        watched.start()
        eventually(lambda: watched.in_step() and watched.state() == "watching", 60)
        for round_ in range(3):
            for number in range(25):
                key = f"new/{round_}-{number}.png"
                watched.put(key, number)
                client.send_message(QueueUrl=url, MessageBody=json.dumps(records(f"in/{key}")))
            client.send_message(QueueUrl=url, MessageBody='{"Service": "Amazon S3", "Event": "s3:TestEvent"}')
            if round_ < 2:
                watched.watch.kill()
                watched.start()

        def empty() -> bool:
            names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
            answer = client.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
            return all(answer[name] == "0" for name in names)

        eventually(lambda: empty() and watched.in_step(), 90)
        watched.assert_sound()
