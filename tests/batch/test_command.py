"""`faceblur batch` and `faceblur audit`, with a batch worker in this process."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.contrib.testing.worker import start_worker

import faceblur
from faceblur.testing import FakeServer
from faceblur_batch import plan, watch
from faceblur_batch.app import make_app
from faceblur_batch.config import BatchSettings
from faceblur_batch.generation import latest
from faceblur_batch.ledger import ROOT, Mark, State, jobs
from faceblur_batch.metrics import Metrics
from faceblur_batch.planner import Phase, Status
from faceblur_batch.storage.opening import open_store
from faceblur_batch.tasks import register
from faceblur_batch.watched import Watched
from faceblur_batch.workplaces import Workplaces
from faceblur_cli.main import main
from faceblur_process.settings import read
from support.eventual import eventually

EXAMPLES = Path(__file__).parents[2] / "examples"
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x10\0\0\0\x10"


class Command:
    """The command on two folders."""

    def __init__(self, folder: Path, surroundings: list[str], capture: pytest.CaptureFixture[str]) -> None:
        self.source, self.destination = folder / "in", folder / "out"
        self.source.mkdir()
        self._surroundings = surroundings
        self._capture = capture

    def fill(self, *names: str) -> None:
        for name in names:
            path = self.source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(PNG + name.encode())

    def run(self, *more: str) -> tuple[int, list[dict[str, Any]]]:
        places = [str(self.source), str(self.destination)]
        code = self(["run", *places, *self._surroundings, "--json", "--page-size", "4", *more])
        return code, [json.loads(line) for line in self.out.splitlines()]

    def __call__(self, arguments: list[str], command: str = "batch") -> int:
        self._capture.readouterr()
        try:
            code = int(main([command, *arguments]))
        except SystemExit as end:
            code = int(end.code or 0)
        self.out, self.err = self._capture.readouterr()
        return code


@pytest.fixture
def command(
    tmp_path: Path,
    blur_server: FakeServer,
    valkey: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Command]:
    queue = f"test-{uuid.uuid4().hex}"
    for name, value in {"POLL_SECONDS": 0.05, "MARK_SECONDS": 0, "METRICS_ADDRESS": "", "RETRY_SECONDS": 0.1}.items():
        monkeypatch.setenv(f"FACEBLUR_BATCH_{name}", str(value))
    settings = read(BatchSettings, {"broker": valkey, "queue": queue, "server": blur_server.target})
    places = Workplaces(settings)
    app = make_app(settings)
    register(app, settings, places, Metrics("1", queue))
    surroundings = ["--cluster", blur_server.target, "--broker", valkey, "--queue", queue]
    pool = {"pool": "threads", "concurrency": 2, "loglevel": "WARNING", "perform_ping_check": False}
    with contextlib.closing(places), start_worker(app, queues=[queue], shutdown_timeout=30, **pool):
        yield Command(tmp_path, surroundings, capsys)


def test_a_folder_is_blurred_into_another(command: Command, blur_server: FakeServer) -> None:
    command.fill("a.png", "b/c.png", "b/d.png")
    (command.source / "notes.txt").write_text("no picture")
    code, lines = command.run("--cells", "4", "--samples", "1")
    assert code == 0
    assert lines[-1]["phase"] == "completed"
    assert (lines[-1]["done"], lines[-1]["skipped"], lines[-1]["percent"]) == (3, 1, 100.0)
    assert sorted(path.name for path in command.destination.rglob("*.png")) == ["a.png", "c.png", "d.png"]
    assert {call.options.cells for call in blur_server.calls} == {4}
    assert Path(lines[-1]["report"]).exists()


def command_status(command: Command) -> dict[str, Any]:
    assert command(["status", str(command.destination)]) == 0
    status: dict[str, Any] = json.loads(command.out)
    return status


def test_a_dry_run_counts_and_writes_nothing(command: Command) -> None:
    command.fill("a.png", "b.png")
    code, lines = command.run("--dry-run")
    assert code == 0
    assert lines == [{"objects": 2, "bytes": 2 * (len(PNG) + 5), "unchanged": 0, "skipped": 0}]
    assert not command.destination.exists()
    command.run()
    command.fill("c.png")
    assert command.run("--dry-run")[1] == [{"objects": 3, "bytes": 3 * (len(PNG) + 5), "unchanged": 2, "skipped": 0}]


def test_a_picture_without_a_result_is_told_by_the_exit_code(command: Command) -> None:
    command.fill("a.png")
    (command.source / "bad.png").write_bytes(b"no picture")
    code, lines = command.run()
    assert code == 1
    assert lines[-1]["summary"]["reasons"] == {"refused UNSUPPORTED_FORMAT": 1}


def test_a_job_over_its_budget_is_stopped_and_goes_on_with_another(command: Command) -> None:
    command.fill("a.png")
    (command.source / "bad.png").write_bytes(b"no picture")
    code, _ = command.run("--max-errors", "0")
    assert code == 3
    assert "1 objects have no result" in command.err
    assert command_status(command)["phase"] == "stopped"
    code, lines = command.run("--max-errors", "1")
    assert (code, lines[-1]["generation"]) == (1, 1)


def test_a_job_is_cancelled_and_resumed(command: Command, blur_server: FakeServer) -> None:
    command.fill(*(f"{number}.png" for number in range(20)))
    blur_server.fail_next(faceblur.InvalidOptionsError("not now"), times=100)
    assert command.run()[0] == 3
    status = command_status(command)
    assert status["phase"] == "stopped"
    assert "not now" in status["reason"]
    assert command(["cancel", str(command.destination)]) == 0
    assert command_status(command)["phase"] == "cancelled"
    blur_server._failures.clear()
    assert command(["resume", str(command.destination), *command._surroundings, "--json"]) == 0
    assert command_status(command)["summary"]["blurred"] == 20
    assert command(["cancel", str(command.destination)]) == 3
    assert "ended already" in command.err


def test_report_and_manifest_are_fetched_and_verified(command: Command, tmp_path: Path) -> None:
    command.fill("a.png", "b.png")
    command.run()
    to = tmp_path / "fetched"
    assert command(["report", str(command.destination), "--to", str(to), "--samples", "1"]) == 0
    assert {path.name for path in to.iterdir()} == {"manifest.jsonl", "report.html", "report.json", "root.json"}
    assert "data:image/png" in (to / "report.html").read_text()
    assert command(["verify", str(to)], "audit") == 0
    assert command.out.startswith("intact: 4 lines, root ")
    manifest = to / "manifest.jsonl"
    example = [sys.executable, str(EXAMPLES / "show_manifest.py"), str(manifest)]
    shown = subprocess.run(example, check=True, capture_output=True, text=True).stdout.splitlines()
    assert [line.split()[:3] for line in shown[1:]] == [["a.png", "blurred", "1"], ["b.png", "blurred", "1"]]
    manifest.write_bytes(manifest.read_bytes().replace(b'"faces":1', b'"faces":0', 1))
    assert command(["verify", str(manifest)], "audit") == 1
    assert "manifest.jsonl, line 2: " in command.out
    assert command(["verify", str(manifest), "--root", "nonsense"], "audit") == 3


def test_of_several_jobs_one_has_to_be_named(command: Command) -> None:
    command.fill("a.png")
    command.run("--name", "first")
    command.run("--name", "second")
    assert command(["status", str(command.destination)]) == 2
    assert "/.faceblur/jobs/first" in command.err
    assert command(["status", f"{command.destination}/.faceblur/jobs/second"]) == 0
    assert json.loads(command.out)["job"] == "second"
    assert command(["status", f"{command.destination}/.faceblur/jobs/third"]) == 2


def test_a_planner_for_machines_takes_its_job_from_a_file(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command.fill("a.png", "b.png")
    cluster, broker, queue = command._surroundings[1::2]
    for name, value in {"SERVER": cluster, "BROKER": broker, "QUEUE": queue}.items():
        monkeypatch.setenv(f"FACEBLUR_BATCH_{name}", value)
    spec = tmp_path / "spec.json"
    spec.write_text(
        json.dumps({"source": str(command.source), "destination": str(command.destination), "token": "once"})
    )
    seen: list[Status] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    handlers = list(logging.getLogger().handlers)
    try:
        assert plan.main([str(spec)], report=seen.append) == 0
        assert seen[-1].phase is Phase.COMPLETED
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["done"] == 2
        assert plan.main([str(spec)]) == 0  # the same token: nothing is done again
        assert latest_of(command) == 1
        (command.source / "bad.png").write_bytes(b"no picture")
        spec.write_text(spec.read_text().replace("once", "again"))
        assert plan.main([str(spec)]) == 1
        assert latest_of(command) == 2
        spec.write_text(json.dumps({"source": "x", "destination": "x/y"}))
        assert plan.main([str(spec)]) == 2
        spec.write_text(json.dumps({"source": "x", "destination": "y", "pagesize": 3}))
        assert plan.main([str(spec)]) == 2
        assert "pagesize" in capsys.readouterr().err
    finally:
        logging.getLogger().handlers[:] = handlers
        for number, handler in before.items():
            signal.signal(number, handler)


def meanwhile(*steps: Callable[[], object]) -> threading.Thread:
    """Have somebody else do something while a command runs."""

    def run() -> None:
        for step in steps:
            step()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def appears(command: Command, name: str) -> Callable[[], None]:
    return lambda: eventually((command.destination / name).exists, 30)


def watched(command: Command) -> Watched:
    store = open_store(str(command.destination))
    (job,) = jobs(store)
    return Watched(store, job)


def test_a_folder_is_watched_until_a_person_cancels_that_and_goes_on_when_it_is_watched_again(command: Command) -> None:
    command.fill("a.png")
    person = meanwhile(
        appears(command, "a.png"),
        lambda: command.fill("b.png"),
        appears(command, "b.png"),
        lambda: watched(command).set_mark(Mark(State.CANCEL, "cancelled")),
    )
    places = [str(command.source), str(command.destination)]
    code = command(["watch", *places, *command._surroundings, "--every", "0.1s"])
    person.join()
    assert code == 3
    assert "was cancelled" in command.err
    assert "completed: 1 of 1 pictures" in command.err
    assert command_status_of_watch(command) == "cancelled"
    assert command(["resume", str(command.destination), *command._surroundings]) == 0
    assert "goes on with it" in command.err
    command.fill("c.png")
    person = meanwhile(appears(command, "c.png"), lambda: watched(command).set_mark(Mark(State.CANCEL, "cancelled")))
    assert command(["watch", *places, *command._surroundings, "--every", "0.1s", "-q"]) == 3
    person.join()


def command_status_of_watch(command: Command) -> str:
    assert command(["status", str(command.destination)]) == 0
    return str(json.loads(command.out)["watch"]["state"])


def test_a_run_does_everything_also_where_a_watch_was_killed_in_the_middle(command: Command) -> None:
    command.fill("a.png", "b.png")
    command.run()
    command.fill("c.png", "d.png")
    store = open_store(str(command.destination))
    (job,) = jobs(store)
    before = latest(store, job)
    assert before is not None
    info = open_store(str(command.source)).head("c.png")
    values = before.model_dump(mode="json") | {"number": 2, "base": 1, "check": True}
    values["named"] = [["c.png", info.etag, info.size, info.modified.timestamp()]]
    store.put(f"{ROOT}{job}/00000002/spec.json", json.dumps(values).encode())
    code, lines = command.run()
    assert code == 0
    assert (lines[-1]["generation"], lines[-1]["done"]) == (3, 4)
    assert lines[-1]["summary"]["unchanged"] == 3


def test_a_watch_for_machines_takes_its_job_from_a_file_and_works_until_it_is_told_to_end(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command.fill("a.png")
    cluster, broker, queue = command._surroundings[1::2]
    for name, value in {"SERVER": cluster, "BROKER": broker, "QUEUE": queue, "WATCH_EVERY_SECONDS": "0.1"}.items():
        monkeypatch.setenv(f"FACEBLUR_BATCH_{name}", value)
    spec = tmp_path / "spec.json"
    spec.write_text(
        json.dumps({"source": str(command.source), "destination": str(command.destination), "token": "once"})
    )
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    handlers = list(logging.getLogger().handlers)
    try:
        kubernetes = meanwhile(
            appears(command, "a.png"),
            lambda: command.fill("b.png"),
            appears(command, "b.png"),
            lambda: os.kill(os.getpid(), signal.SIGTERM),
        )
        assert watch.main([str(spec)]) == 4
        kubernetes.join()
        assert command_status_of_watch(command) == "ended"
        spec.write_text(json.dumps({"source": "x", "destination": "x/y"}))
        assert watch.main([str(spec)]) == 2
        spec.write_text(json.dumps({"source": "x", "destination": "y", "pagesize": 3}))
        assert watch.main([str(spec)]) == 2
        spec.write_text(json.dumps({"source": "x", "destination": "y"}))
        monkeypatch.setenv("FACEBLUR_BATCH_WEBHOOK_ADDRESS", "127.0.0.1:0")
        assert watch.main([str(spec)]) == 2
        monkeypatch.setenv("FACEBLUR_BATCH_WEBHOOK_ADDRESS", "0.0.0.0:0")
        assert watch.main([str(spec)]) == 2
        said = capsys.readouterr().err
    finally:
        logging.getLogger().handlers[:] = handlers
        for number, handler in before.items():
            signal.signal(number, handler)
    for part in (
        "choose a destination beside the source",
        "pagesize",
        "can only be listed",
        "token_file has to be set",
    ):
        assert part in said


def latest_of(command: Command) -> int:
    return int(command_status(command)["generation"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "in", "in/out"], "choose a destination beside the source"),
        (["run", "in", "s3://u:p@bucket/x"], "--destination"),
        (["run", "in", "out", "--template", "{stem}"], "--template"),
        (["run", "in", "out", "--page-size", "-1"], "--page-size"),
        (["run", "in", "out", "--broker", "http://x"], "--broker"),
        (["run", "in", "out", "--newer-than", "yesterday"], "is not a time"),
        (["run", "in", "out", "--source-profile", "x"], "storage profile 'x'"),
        (["watch", "in", "out", "--every", "often"], "is not a time, such as 30s"),
        (["watch", "in", "out", "--every", "0s"], "is not a time, such as 30s"),
        (["watch", "in", "out", "--webhook", "127.0.0.1:8080"], "can only be listed"),
        (["watch", "in", "out", "--webhook", "0.0.0.0:8080"], "webhook_token_file has to be set"),
        (["watch", "in", "out", "--sqs", "queue"], "sqs_url"),
        (["watch", "in", "out", "--dry-run"], "--dry-run"),
        (["status", "in"], "0 jobs"),
        ([], "ACTION"),
    ],
)
def test_what_cannot_be_meant_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    if arguments[:1] in (["run"], ["watch"]) and "--broker" not in arguments:
        arguments = [*arguments, "--broker", "redis://127.0.0.1:1/0"]
    surroundings = ["--cluster", "127.0.0.1:1"] if arguments[:1] in (["run"], ["watch"]) else []
    try:
        code = main(["batch", *arguments, *surroundings])
    except SystemExit as end:
        code = int(end.code or 0)
    assert code == 2
    said = capsys.readouterr().err
    assert says in said
    assert "Traceback" not in said
