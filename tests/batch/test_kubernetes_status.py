"""What a planner tells Kubernetes, against an API server of one page."""

from __future__ import annotations

import http.server
import json
import os
import re
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from faceblur_batch.kubernetes_status import Reporter, Target, progress_of, reporter
from faceblur_batch.ledger import Totals
from faceblur_batch.outcomes import Kind
from faceblur_batch.planner import Phase, Status
from faceblur_batch.summary import Summary
from support.certificates import Authority
from support.eventual import eventually

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


def status(phase: Phase = Phase.RUNNING, done: int = 7, **more: Any) -> Status:
    summary = Summary()
    summary.kinds.update({Kind.BLURRED: done - 1, Kind.NO_FACE: 1})
    return replace(
        Status(
            job="0123abcd",
            generation=3,
            phase=phase,
            reason="",
            totals=Totals(objects=10, skipped=2),
            planned=True,
            summary=summary,
            rate=12.345,
            seconds_left=75.2,
        ),
        **more,
    )


class Api:
    """An API server that writes down what it is asked, and answers as it is told.

    Attributes:
        target: How it is reached.
        asked: Path, headers and body of every request.
        answers: What it answers next; then 200.
    """

    def __init__(self, folder: Path) -> None:
        authority = Authority()
        (folder / "ca.crt").write_bytes(authority.pem)
        (folder / "token").write_text("first\n")
        (folder / "server.pem").write_bytes(b"".join(authority.issue("api server")))
        self.folder = folder
        self.asked: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.answers: list[int] = []
        self.answered = threading.Event()
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_PATCH(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                api.asked.append((self.path, dict(self.headers), body))
                self.send_response(api.answers.pop(0) if api.answers else 200)
                self.send_header("Content-Length", "2")
                self.send_header("Location", "https://elsewhere.example/")
                self.end_headers()
                self.wfile.write(b"{}")
                api.answered.set()

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.pem")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.target = Target(
            server=f"https://localhost:{self.server.server_address[1]}",
            credentials=folder,
            namespace="shop",
            name="photos",
            uid="uid-of-photos",
            run="run-1",
        )

    def reporter(self, **more: Any) -> Reporter:
        return Reporter(self.target, first_pause=0.01, **more)

    def progress(self) -> list[dict[str, Any]]:
        """What was written, one after the other."""
        return [body["status"]["progress"] for _, _, body in self.asked]


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    made = Api(tmp_path)
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


def test_progress_is_applied_to_the_status_of_its_own_job_by_a_manager_of_its_own(api: Api) -> None:
    with api.reporter() as report:
        report(status())
    ((path, headers, body),) = api.asked
    assert path == (
        "/apis/faceblur.io/v1alpha1/namespaces/shop/faceblurjobs/photos/status?fieldManager=faceblur-planner&force=true"
    )
    assert headers["Content-Type"] == "application/apply-patch+yaml"
    assert headers["Authorization"] == "Bearer first"
    assert body["metadata"] == {"name": "photos", "namespace": "shop", "uid": "uid-of-photos"}
    assert body["status"].keys() == {"progress"}


def test_a_status_is_told_in_the_words_of_the_definition() -> None:
    said = progress_of(status(), "run-1", NOW)
    assert (said["done"], said["blurred"], said["noFace"], said["objects"], said["percent"]) == (7, 6, 1, 10, 70)
    assert (said["rate"], said["timeLeft"], said["updated"]) == ("12.3/s", "1m15s", "2026-05-04T12:00:00Z")
    assert (said["run"], said["phase"], said["report"]) == ("run-1", "running", "")
    ended = progress_of(status(Phase.STOPPED, reason="x" * 5000), "run-1", NOW)
    assert ended["report"] == ".faceblur/jobs/0123abcd/00000003/report.html"
    assert (ended["timeLeft"], len(ended["reason"])) == ("", 1000)


def test_all_is_not_said_to_be_done_before_it_is() -> None:
    almost = status(done=1999, totals=Totals(objects=2000))
    assert progress_of(almost, "run-1", NOW)["percent"] == 99
    assert "percent" not in progress_of(status(planned=False), "run-1", NOW)


@pytest.mark.parametrize(
    ("seconds", "text"), [(9.6, "10s"), (60, "1m0s"), (3599.9, "1h0m"), (90_000, "1d1h"), (None, "")]
)
def test_the_time_left_is_short(seconds: float | None, text: str) -> None:
    assert progress_of(status(seconds_left=seconds), "run-1", NOW)["timeLeft"] == text


def test_what_could_not_be_told_is_told_later_and_only_the_last_of_it(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    api.answers = [503, 503, 503]
    with api.reporter() as report:
        report(status(done=1))
        assert api.answered.wait(10)
        report(status(done=2))
        report(status(done=3))
        eventually(lambda: bool(api.progress()) and api.progress()[-1]["done"] == 3, 10)
    assert len(api.asked) >= 4
    assert caplog.text.count("the API server answers 503") == 1, "the same trouble is said once"


def test_the_last_status_is_written_before_the_planner_ends(api: Api) -> None:
    api.answers = [500, 500]
    with api.reporter() as report:
        report(status())
        report(status(Phase.COMPLETED))
    assert api.progress()[-1]["phase"] == "completed"


def test_a_renewed_token_is_used(api: Api) -> None:
    with api.reporter() as report:
        report(status())
        eventually(lambda: len(api.asked) == 1, 10)
        (api.folder / "token").write_text("second")
        report(status(done=8))
    assert [headers["Authorization"] for _, headers, _ in api.asked] == ["Bearer first", "Bearer second"]


@pytest.mark.parametrize("code", [404, 409])
def test_a_job_that_is_gone_is_not_asked_for_again_and_again(api: Api, code: int) -> None:
    api.answers = [code] * 5
    with api.reporter() as report:
        report(status())
    assert len(api.asked) == 1


def test_the_token_goes_nowhere_else(api: Api) -> None:
    api.answers = [307]
    with api.reporter() as report:
        report(status())
    assert len(api.asked) == 2, "no redirection is followed, it is asked again"


@pytest.mark.parametrize("missing", ["token", "ca.crt"])
def test_no_failure_ends_or_delays_a_planner(api: Api, missing: str, caplog: pytest.LogCaptureFixture) -> None:
    (api.folder / missing).unlink()
    with api.reporter(patience=0.05) as report:
        report(status())
    assert not api.asked
    assert "is not written" in caplog.text


def test_a_server_of_somebody_else_is_not_told(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    (api.folder / "ca.crt").write_bytes(Authority().pem)
    with api.reporter(patience=0.05) as report:
        report(status())
    assert not api.asked


def test_a_planner_of_no_job_tells_nobody() -> None:
    for environment in ({}, {"FACEBLUR_JOB_NAME": "photos"}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}):
        with reporter(environment) as report:
            report(status())
            assert not isinstance(report, Reporter)


def test_a_planner_of_a_job_knows_whom_to_tell() -> None:
    found: Any = reporter(
        {
            "FACEBLUR_JOB_NAME": "photos",
            "FACEBLUR_JOB_NAMESPACE": "shop",
            "FACEBLUR_JOB_UID": "u",
            "FACEBLUR_JOB_RUN": "r",
            "KUBERNETES_SERVICE_HOST": "fd00::1",
            "KUBERNETES_SERVICE_PORT": "6443",
        }
    )
    assert isinstance(found, Reporter)
    assert found._target.server == "https://[fd00::1]:6443"


@pytest.mark.parametrize(
    ("broken", "code", "says"),
    [
        ("not json", 2, "spec.json"),
        (
            json.dumps({"source": "in", "destination": "out"}),
            5,
            r"no worker answers at 127.0.0.1:1: .* \[NO_WORKERS\]$",
        ),
    ],
)
def test_exit_codes_and_last_words_are_those_that_kubernetes_goes_by(
    tmp_path: Path, broken: str, code: int, says: str
) -> None:
    (tmp_path / "spec.json").write_text(broken)
    (tmp_path / "in").mkdir()
    command = "import faceblur_batch.driver as d, runpy; d.Driver.run.__kwdefaults__['patience'] = 0.1; " + (
        "runpy.run_module('faceblur_batch.plan', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", command, str(tmp_path / "spec.json")],
        cwd=tmp_path,
        env={**os.environ, "FACEBLUR_BATCH_SERVER": "127.0.0.1:1"},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == code, done.stderr
    assert re.search(says, done.stderr.splitlines()[-1])
