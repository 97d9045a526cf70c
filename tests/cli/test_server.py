"""`--server`: the same run with the work done by a real worker on a real socket."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

import faceblur as sdk
from faceblur import testing
from faceblur_cli import server
from faceblur_cli.exits import CannotGoOnError, Exit
from faceblur_cli.files import FileProblem
from faceblur_cli.interruption import Interrupted
from faceblur_cli.main import main
from faceblur_engine import errors
from faceblur_engine.detectors import default_margin
from faceblur_engine.pipeline import Engine
from faceblur_engine.types import ModelInfo, Options, Profile
from support.certificates import Authority
from support.eventual import eventually
from support.fake_engine import FakeEngine
from support.running_worker import Hold, LoopThread, RunningWorker, running

from .conftest import Outcome, Run, files_in, picture
from .test_rerun import counts

EXAMPLES = Path(__file__).parents[2] / "examples/photos"
ALL_OPTIONS: list[object] = [
    *("--profile", "thorough", "--min-score", 0.3, "--min-face", 1, "--max-face", 900, "--denoise", 2),
    *("--region", "1,2,3,4", "--region", "5,6,7,8", "--shape", "ellipse", "--margin", "0.1,0.2,0.3,4"),
    *("--method", "solid", "--cells", 3, "--feather", 0.2, "--color", "010203", "--contour", "--verify"),
    *("--format", "png", "--quality", 55, "--subsampling", "4:2:0", "--keep", "gps,author"),
    *("--max-bytes", "1M", "--max-width", 2000, "--max-height", 3000, "--max-pixels", 400000, "--max-scans", 5),
]


@pytest.fixture(scope="module")
def loop() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.fixture
def serve(loop: LoopThread, engine: FakeEngine) -> Callable[..., AbstractContextManager[RunningWorker]]:
    """Runs a worker on the same stand-in that local runs have."""
    return lambda **settings: running(loop, engine, **{"profiles": "balanced,fast,thorough", **settings})


@pytest.fixture
def worker(serve: Callable[..., AbstractContextManager[RunningWorker]]) -> Iterator[RunningWorker]:
    with serve() as running_worker:
        yield running_worker


def lines_of(path: Path) -> list[dict[str, Any]]:
    return sorted(map(json.loads, path.read_text().splitlines()), key=lambda line: line["file"])


@pytest.mark.parametrize("options", [[], ALL_OPTIONS], ids=["no options", "all options"])
def test_results_receipts_and_report_are_those_of_a_local_run(
    faceblur: Run, worker: RunningWorker, photos: Path, tmp_path: Path, options: list[object]
) -> None:
    (photos / "bad.jpg").write_bytes(b"no picture")
    written: list[Any] = []
    for name, where in (("local", []), ("remote", ["--server", worker.target])):
        out, receipts, report = tmp_path / name, tmp_path / f"{name}.jsonl", tmp_path / f"{name}.html"
        done = faceblur("blur", photos, "-o", out, "--receipts", receipts, "--report", report, *options, *where)
        written.append(
            [
                done.code,
                {file: (out / file).read_bytes() for file in files_in(out) if not file.endswith(".jsonl")},
                lines_of(receipts),
                report.read_text().count("<figure>"),
                (out / "faceblur-state.jsonl").read_text().splitlines()[0],
            ]
        )
    assert written[0] == written[1]
    assert written[0][0] == Exit.SOME_FAILED


def test_detection_prints_the_same(faceblur: Run, worker: RunningWorker, photos: Path, tmp_path: Path) -> None:
    local = faceblur("detect", photos, "--draw", tmp_path / "local")
    remote = faceblur("detect", photos, "--draw", tmp_path / "remote", "--server", worker.target)
    assert (remote.code, remote.lines) == (local.code, local.lines)
    assert len(remote.lines) == 3
    assert files_in(tmp_path / "local") == files_in(tmp_path / "remote")


def test_the_real_engine_gives_the_same_bytes_on_a_server(
    loop: LoopThread, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real: Any = Engine(profiles=(Profile.BALANCED,), concurrency=2)
    with running(loop, real, profiles="balanced") as worker:
        for name, where in (("local", []), ("remote", ["--server", worker.target])):
            run = ["blur", str(EXAMPLES), "-o", str(tmp_path / name), "--threads", "1", "--jobs", "2"]
            assert main([*(run if not where else run[:-4]), *where]) == Exit.OK
    capsys.readouterr()
    names = [name for name in files_in(tmp_path / "local") if not name.endswith(".jsonl")]
    assert len(names) == 4
    for name in names:
        result = (tmp_path / "local" / name).read_bytes()
        assert result == (tmp_path / "remote" / name).read_bytes()
        assert result != (EXAMPLES / name).read_bytes()


class TestRerun:
    def test_what_is_done_is_not_sent_again(
        self, faceblur: Run, worker: RunningWorker, engine: FakeEngine, photos: Path, out: Path
    ) -> None:
        run = ["blur", photos, "-o", out, "--json", "--server", worker.target]
        assert counts(faceblur(*run)) == (3, 0, 0)
        engine.seen.clear()
        assert counts(faceblur(*run)) == (0, 3, 0)
        assert engine.seen == []
        assert counts(faceblur(*run, "--max-bytes", "1G")) == (0, 3, 0)  # it has a lower limit, which stays
        assert counts(faceblur(*run[:-2])) == (0, 3, 0)  # nor is it repeated here

    def test_defaults_that_the_server_changed_repeat(
        self, faceblur: Run, serve: Callable[..., AbstractContextManager[RunningWorker]], photos: Path, out: Path
    ) -> None:
        for settings, expected in (({}, 3), ({"margin_top": 0.5}, 3), ({"margin_top": 0.5}, 0), ({"cells": 4}, 3)):
            with serve(**settings) as worker:
                outcome = faceblur("blur", photos, "-o", out, "--json", "--server", worker.target)
            assert counts(outcome) == (expected, 3 - expected, 0)

    def test_another_model_repeats_but_not_one_of_another_profile(
        self, faceblur: Run, serve: Callable[..., AbstractContextManager[RunningWorker]], photos: Path, out: Path
    ) -> None:
        with serve() as worker:
            run = ["blur", photos, "-o", out, "--json"]
            assert counts(faceblur(*run, "--server", worker.target)) == (3, 0, 0)
        one, two = FakeEngine(), FakeEngine(version="2")
        blazeface = ModelInfo("blazeface_full_range", "0" * 64, "python")
        for engine, models, expected in ((one, (*one.models, blazeface), 0), (two, two.models, 3)):
            engine.models = models
            with running(worker.loop, engine) as other:
                assert counts(faceblur(*run, "--server", other.target))[0] == expected

    def test_what_a_worker_of_another_version_did_is_repeated(
        self, faceblur: Run, worker: RunningWorker, engine: FakeEngine, photos: Path, out: Path
    ) -> None:
        """Behind one name, in the midst of an update: the one that was asked is not the one that did it."""
        run = ["blur", photos, "-o", out, "--json", "--server", worker.target]
        engine.version = "0.0.1"
        assert counts(faceblur(*run)) == (3, 0, 0)
        engine.version = sdk.__version__
        assert counts(faceblur(*run)) == (3, 0, 0)
        assert counts(faceblur(*run)) == (0, 3, 0)


def test_what_is_not_asked_for_is_as_the_server_has_it(
    faceblur: Run, serve: Callable[..., AbstractContextManager[RunningWorker]], photos: Path, tmp_path: Path
) -> None:
    configured = {"profiles": "thorough,fast", "cells": 4, "margin_top": 0.5, "max_image_bytes": 50_000}
    receipts = tmp_path / "receipts.jsonl"
    with serve(**configured) as worker:
        run = ["blur", photos / "a.jpg", "-o", tmp_path / "out", "--receipts", receipts, "--server", worker.target]
        for options in ([], ["--profile", "fast", "--method", "mosaic", "--max-bytes", "1G", "--max-width", 70]):
            assert faceblur(*run, *options).code == Exit.OK
        assert faceblur(*run, "--profile", "balanced").code == Exit.USAGE
    first, second = (json.loads(line)["options"] for line in receipts.read_text().splitlines())
    assert (first["profile"], first["method"], first["cells"]) == ("thorough", "blur", 4)
    assert first["limits"]["max_bytes"] == second["limits"]["max_bytes"] == 50_000
    assert (second["profile"], second["method"], second["cells"]) == ("fast", "mosaic", 4)
    assert second["limits"]["max_width"] == 70
    for options, profile in ((first, Profile.THOROUGH), (second, Profile.FAST)):
        assert options["margin"]["top"] == 0.5
        assert options["margin"]["sides"] == default_margin(profile).sides


REFUSALS = [
    *(kind("why") for kind in errors.ImageError.__subclasses__() if kind is not errors.LimitExceeded),
    errors.LimitExceeded("max_scans", 500, 100),
    errors.ImageError("why"),
    errors.VerificationFailed("why"),
    errors.InvalidOptions("why"),
    errors.ModelError("why"),
    errors.RuntimeUnavailable("why"),
]


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: type(error).__name__)
def test_every_refusal_of_the_engine_is_the_same_from_a_server(
    faceblur: Run, worker: RunningWorker, engine: FakeEngine, photos: Path, tmp_path: Path, error: Exception
) -> None:
    def refuse(data: bytes) -> None:
        raise error

    engine.hook = refuse
    outcomes: list[Outcome] = [
        faceblur("blur", photos / "a.jpg", "-o", tmp_path / name, "--json", *where)
        for name, where in (("local", []), ("remote", ["--server", worker.target]))
    ]
    local, remote = outcomes
    assert local.code == remote.code != Exit.OK
    assert local.err == remote.err
    assert [line for line in local.lines if "file" in line] == [line for line in remote.lines if "file" in line]
    assert "a.jpg" not in files_in(tmp_path / "remote")


def leaves(kind: type[Exception]) -> list[type[Exception]]:
    below = kind.__subclasses__()
    return [kind, *(leaf for child in below for leaf in leaves(child))]


@pytest.mark.parametrize("kind", leaves(sdk.FaceBlurError))
def test_every_error_of_the_sdk_means_something_to_the_command(kind: type[sdk.FaceBlurError]) -> None:
    meant = server.error_of(kind("why"))
    assert isinstance(meant, errors.EngineError | FileProblem | CannotGoOnError | Interrupted)
    if isinstance(meant, errors.EngineError | FileProblem):
        assert meant.reason != errors.EngineError.reason


class TestTrouble:
    @pytest.fixture
    def fake(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[testing.FakeServer]:
        monkeypatch.setattr(server, "_RETRY", sdk.RetryConfig(attempts=1))
        with testing.serving() as running_server:
            yield running_server

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (sdk.OverloadedError("busy"), "OVERLOADED"),
            (sdk.DeadlineTooShortError("late"), "DEADLINE_TOO_SHORT"),
            (sdk.DeadlineExceededError("late"), "DEADLINE_EXCEEDED"),
            (sdk.ServerError("broken"), "INTERNAL_ERROR"),
        ],
    )
    def test_what_concerns_one_picture_fails_that_picture(
        self, fake: testing.FakeServer, faceblur: Run, photos: Path, out: Path, error: Any, reason: str
    ) -> None:
        fake.fail_next(error)
        outcome = faceblur("blur", photos, "-o", out, "--json", "--jobs", 1, "--server", fake.target)
        assert (outcome.code, outcome.of("a.jpg")["reason"]) == (Exit.SOME_FAILED, reason)
        assert counts(outcome) == (2, 0, 1)

    @pytest.mark.parametrize("error", [sdk.UnavailableError("gone"), sdk.AccessDeniedError("not you")])
    def test_what_concerns_all_ends_the_run(
        self, fake: testing.FakeServer, faceblur: Run, photos: Path, out: Path, error: Any
    ) -> None:
        fake.fail_next(error)
        outcome = faceblur("blur", photos, "-o", out, "--jobs", 1, "--server", fake.target)
        assert outcome.code == Exit.CANNOT
        assert str(error) in outcome.err
        assert faceblur("blur", photos, "-o", out, "--server", fake.target).code == Exit.OK

    def test_a_server_that_is_not_there_is_said_at_once(
        self, faceblur: Run, photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server, "_FIRST_ANSWER", 0.2)
        outcome = faceblur("blur", photos, "-o", out, "--server", "127.0.0.1:1")
        assert outcome.code == Exit.CANNOT
        assert "127.0.0.1:1" in outcome.err
        assert not out.exists()

    def test_a_result_that_is_not_the_receipt_s_is_never_written(
        self, fake: testing.FakeServer, faceblur: Run, photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        blur = sdk.FaceBlurClient.blur

        def echoing(client: sdk.FaceBlurClient, data: bytes, options: sdk.Options) -> sdk.BlurResult:
            return sdk.BlurResult(data, blur(client, data, options).receipt)

        monkeypatch.setattr(sdk.FaceBlurClient, "blur", echoing)
        outcome = faceblur("blur", photos, "-o", out, "--server", fake.target)
        assert outcome.code == Exit.CANNOT
        assert "not about this picture" in outcome.err
        assert files_in(out) == ["faceblur-state.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--server", "nonsense"], "HOST:PORT"),
        (["--server", "localhost:1", "--threads", 2], "--threads"),
        (["--server", "localhost:1", "--runtime", "auto"], "--runtime"),
        (["--server", "localhost:1", "--server-ca", "none.pem"], "none.pem"),
        (["--server", "localhost:1", "--server-key", "none.pem"], "certificate and key"),
        (["--server", "localhost:1", "--min-score", 9], "--min-score is 9"),
        (["--server-ca", "none.pem"], "--server-ca is for --server"),
    ],
)
@pytest.mark.parametrize("command", ["blur", "detect"])
def test_what_makes_no_sense_is_refused_with_one_line(
    faceblur: Run, photos: Path, out: Path, command: str, arguments: list[object], words: str
) -> None:
    outcome = faceblur(command, photos, *(["-o", out] if command == "blur" else []), *arguments)
    assert outcome.code == Exit.USAGE
    assert words in outcome.err.splitlines()[0]
    assert not out.exists()


def test_jobs_are_the_calls_in_flight(
    faceblur: Run, serve: Callable[..., AbstractContextManager[RunningWorker]], tmp_path: Path, engine: FakeEngine
) -> None:
    for number in range(12):
        (tmp_path / f"{number}.png").write_bytes(picture("PNG"))
    engine.hook = hold = Hold()
    with serve(threads=8) as worker:
        command = ["blur", tmp_path, "-o", tmp_path / "out", "--server", worker.target, "--jobs", 5]
        codes: list[int] = []
        run = threading.Thread(target=lambda: codes.append(faceblur(*command).code))
        run.start()
        hold.wait_until_begun(5)
        assert worker.worker.gate.inside == 5
        hold.let_go.set()
        run.join(20)
    assert codes == [Exit.OK]


def test_tls_proves_who_is_who(
    faceblur: Run, serve: Callable[..., AbstractContextManager[RunningWorker]], photos: Path, tmp_path: Path
) -> None:
    authority = Authority()
    files = {"ca": authority.pem}
    for name in ("server", "client"):
        files[f"{name}-certificate"], files[f"{name}-key"] = authority.issue(name)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    settings = {
        "tls_certificate": tmp_path / "server-certificate",
        "tls_key": tmp_path / "server-key",
        "tls_client_ca": tmp_path / "ca",
        "allowed_identities": "client",
    }
    with serve(**settings) as worker:
        given = ["--server-ca", tmp_path / "ca", "--server-certificate", tmp_path / "client-certificate"]
        given += ["--server-key", tmp_path / "client-key"]
        address = f"localhost:{worker.worker.port}"
        assert faceblur("blur", photos, "-o", tmp_path / "out", "--server", address, *given).code == Exit.OK


def test_a_signal_ends_calls_that_are_in_flight(worker: RunningWorker, photos: Path, out: Path) -> None:
    worker.engine.hook = hold = Hold()
    command = [sys.executable, "-m", "faceblur_cli", "blur", str(photos), "-o", str(out), "--server", worker.target]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ | {"NO_COLOR": "1"}) as process:
        hold.wait_until_begun(2)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        said = process.stderr.read().decode()
        assert process.wait(20) == Exit.INTERRUPTED
    hold.let_go.set()
    assert "goes on from here" in said
    assert files_in(out) == ["faceblur-state.jsonl"]
    eventually(lambda: worker.worker.gate.inside == 0)


def test_a_server_s_defaults_are_read_as_the_engine_s_own() -> None:
    assert server._options_from(sdk.Options()) == Options()
