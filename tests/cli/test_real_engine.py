"""The command on the real engine: what it writes, and that it opens no connection."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from faceblur_cli.exits import Exit
from faceblur_cli.main import main
from faceblur_engine.models import BLAZEFACE, CENTERFACE
from support import pictures

from .conftest import files_in, kind_of

EXAMPLES = Path(__file__).parents[2] / "examples"

# Refuses what could leave the machine and lets everything else be: sockets between parts of one machine are fine.
GUARD = """
import socket, sys

def guard(event, arguments):
    if event == "socket.__new__" and arguments[1] not in (getattr(socket, "AF_UNIX", None),):
        raise PermissionError(f"a socket of family {arguments[1]} was opened")
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.connect", "socket.sendto"):
        raise PermissionError(f"{event} was called")

sys.addaudithook(guard)
from faceblur_cli.main import main
sys.exit(main())
"""


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """The sample photographs, and pictures of other formats and shapes."""
    folder = tmp_path / "samples"
    folder.mkdir()
    for path in [*EXAMPLES.rglob("*.jpg"), *EXAMPLES.rglob("*.png")]:
        shutil.copy(path, folder)
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        made = pictures.saved(pictures.image(pictures.photo(160, 120)), kind)
        (folder / f"made.{kind.lower()}").write_bytes(made)
    (folder / "broken.jpg").write_bytes((folder / "made.jpeg").read_bytes()[:900])
    return folder


def test_results_receipts_and_report_come_out_of_the_real_engine(
    samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, report, receipts = tmp_path / "out", tmp_path / "report.html", tmp_path / "receipts.jsonl"
    run = ["blur", str(samples), "-o", str(out), "--report", str(report), "--receipts", str(receipts)]
    run += ["--region", "10,10,40,40", "--method", "solid", "--color", "00ff00"]
    assert main(run) == Exit.SOME_FAILED
    err = capsys.readouterr().err
    assert "broken.jpg: " in err
    assert "UNREADABLE_IMAGE" in err
    assert "broken.jpg" not in files_in(out)
    assert (kind_of(out / "made.webp"), kind_of(out / "made.tiff")) == ("WEBP", "TIFF")
    with Image.open(out / "made.png") as result:
        assert result.convert("RGB").getpixel((30, 30)) == (0, 255, 0)
    lines = {Path(line["file"]).name: line for line in map(json.loads, receipts.read_text().splitlines())}
    receipt = lines["made.png"]
    assert receipt["output_sha256"] == hashlib.sha256((out / "made.png").read_bytes()).hexdigest()
    assert CENTERFACE.sha256 in [model["sha256"] for model in receipt["models"]]
    assert report.read_text().count("<img ") == len(files_in(out)) - 1
    assert main([*run, "--json"]) == Exit.SOME_FAILED
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])["summary"]
    assert (summary["pictures"], summary["failed"]) == (0, 1)


@pytest.mark.parametrize("profile", ["fast", "balanced"])
def test_detect_finds_the_same_as_blur(
    samples: Path, tmp_path: Path, profile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    receipts = tmp_path / "receipts.jsonl"
    arguments = [str(samples), "--profile", profile, "--jobs", "2"]
    main(["blur", *arguments, "-o", str(tmp_path / "out"), "--receipts", str(receipts)])
    blurred = {line["file"]: line for line in map(json.loads, receipts.read_text().splitlines())}
    capsys.readouterr()
    main(["detect", *arguments, "--draw", str(tmp_path / "drawn")])
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(found) == len(blurred)
    for line in found:
        assert line["file"] in blurred
        assert len(line["faces"]) == len(blurred[line["file"]].get("faces", ()))
        assert len(line["masks"]) == len(blurred[line["file"]].get("regions", ()))
    assert kind_of(tmp_path / "drawn" / "made.png.jpg") == "JPEG"


def test_models_are_listed_with_licence_and_hash(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == Exit.OK
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["sha256"] for line in lines} >= {CENTERFACE.sha256, BLAZEFACE.sha256}
    assert all(line["verified"] and line["licence"] and line["source"] for line in lines)
    assert main(["models"]) == Exit.OK
    assert CENTERFACE.sha256 in capsys.readouterr().out


def test_a_model_that_is_not_the_pinned_one_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.resources.abc.Traversable.read_bytes", lambda self: b"another", raising=False)
    monkeypatch.setattr(Path, "read_bytes", lambda self: b"another")
    assert main(["models"]) == Exit.CANNOT
    assert "is not the pinned one" in capsys.readouterr().out


def test_doctor_times_every_profile(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faceblur_cli.doctor.RUNTIMES", ("auto", "openvino"))
    monkeypatch.setattr("faceblur_cli.doctor._MOMENT", 0)
    assert main(["doctor", "--json"]) == Exit.OK
    (found,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert set(found["profiles"]) == {"fast", "balanced", "thorough"}
    assert all(profile["milliseconds"] > 0 for profile in found["profiles"].values())
    assert found["problems"] == []


def test_no_python_code_opens_a_connection(samples: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", GUARD, "blur", samples, "-o", tmp_path / "out", "--report", tmp_path / "r.html"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == Exit.SOME_FAILED, done.stderr
    assert "1 failed" in done.stderr


def test_the_guard_of_the_test_above_guards() -> None:
    code = GUARD.replace("from faceblur_cli", "socket.socket(socket.AF_INET)\nfrom faceblur_cli")
    done = subprocess.run([sys.executable, "-c", code, "models"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "was opened" in done.stderr


@functools.cache
def works(*command: str) -> bool:
    return bool(shutil.which(command[0])) and not subprocess.run([*command, "true"], capture_output=True).returncode


def test_no_native_code_asks_the_kernel_for_a_connection(samples: Path, tmp_path: Path) -> None:
    if not works("strace", "-f", "-o", os.devnull):
        pytest.skip("strace is not installed or not permitted here")
    log = tmp_path / "network.log"
    trace = ["strace", "-f", "-qq", "-e", "trace=network", "-o", log]
    faceblur = [sys.executable, "-m", "faceblur_cli", "blur", samples, "-o", tmp_path / "out"]
    done = subprocess.run([*trace, *faceblur], capture_output=True, text=True)
    assert done.returncode == Exit.SOME_FAILED, done.stderr
    calls = log.read_text().splitlines()
    assert not [call for call in calls if "AF_" in call and "AF_UNIX" not in call]
    assert not [call for call in calls if "connect(" in call and "AF_UNIX" in call and "nscd" not in call]


def test_it_works_where_there_is_no_network(samples: Path) -> None:
    without = ("unshare", "--net") if os.geteuid() == 0 else ("unshare", "--net", "--map-root-user")
    if not works(*without):
        pytest.skip("network namespaces are not permitted here")
    faceblur = [sys.executable, "-m", "faceblur_cli", "blur", "-"]
    done = subprocess.run([*without, *faceblur], input=(samples / "made.png").read_bytes(), capture_output=True)
    assert done.returncode == Exit.OK, done.stderr
    with Image.open(io.BytesIO(done.stdout)) as result:
        assert result.size == (160, 120)


@pytest.mark.skipif(sys.platform != "linux", reason="counts the threads in /proc")
def test_the_engine_comes_without_threads_that_it_has_no_use_for() -> None:
    program = """
import os
from faceblur_cli.redactor import open_engine
from faceblur_engine.types import Profile

open_engine(profiles=[Profile.FAST], runtime="auto", threads=1, concurrency=2)
print(len(os.listdir("/proc/self/task")))
"""
    surroundings = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", program], env=surroundings, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
