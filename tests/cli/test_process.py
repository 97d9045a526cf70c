"""The command as a process: signals, pipes, a terminal, what it imports."""

from __future__ import annotations

import io
import json
import os
import pty
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from faceblur_cli.exits import Exit

from .conftest import Run, files_in, picture

TESTS = Path(__file__).parents[1]
STATE = "faceblur-state.jsonl"


def start(*arguments: object, **settings: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "support.fake_engine", *map(str, arguments)]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(TESTS)}, **pipes | settings)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_drops_what_is_in_work_and_leaves_no_half_file(photos: Path, out: Path, number: int) -> None:
    marker = out.with_name("go on")
    process = start("--wait-for", marker, "blur", photos, "-o", out, "--jobs", 2)
    assert process.stdout is not None
    for _ in range(2):
        assert process.stdout.readline() == b"working\n"
    process.send_signal(number)
    marker.touch()
    _, err = process.communicate()
    assert process.returncode == Exit.INTERRUPTED
    assert err.decode().splitlines()[-1].startswith("interrupted, the same command goes on from here; 0 pictures")
    assert files_in(out) == [STATE]


def test_a_second_signal_ends_it_at_once(photos: Path, out: Path) -> None:
    process = start("--wait-for", out / "never", "blur", photos, "-o", out)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == Exit.INTERRUPTED
    assert files_in(out) == [STATE]


def test_an_interrupted_run_goes_on_where_it_stopped(photos: Path, out: Path) -> None:
    marker = out.with_name("go on")
    process = start("--wait-for", marker, "blur", photos, "-o", out, "--jobs", 1)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    marker.touch()
    process.communicate()
    process = start("blur", photos, "-o", out, "--json")
    stdout, _ = process.communicate()
    assert json.loads(stdout.splitlines()[-1])["summary"]["pictures"] == 3
    assert files_in(out) == ["a.jpg", "b.png", STATE, "trip/c.webp"]


def test_a_picture_goes_through_a_pipe() -> None:
    process = start("blur", "-", stdin=subprocess.PIPE)
    stdout, err = process.communicate(picture("PNG"))
    assert process.returncode == Exit.OK
    assert b"1 picture, 1 face" in err
    with Image.open(io.BytesIO(stdout)) as result:
        assert result.format == "PNG"


def test_a_picture_comes_from_a_socket_and_goes_to_a_file(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = start("blur", "-", "-o", tmp_path / "x.webp", stdin=theirs.fileno())
        theirs.close()
        ours.sendall(picture())
        ours.shutdown(socket.SHUT_WR)
        process.communicate()
    assert process.returncode == Exit.OK
    assert files_in(tmp_path) == ["x.webp"]


def test_a_file_goes_to_stdout(photos: Path) -> None:
    process = start("blur", photos / "a.jpg", "-o", "-", "-q")
    stdout, err = process.communicate()
    assert (process.returncode, err, stdout[:2]) == (Exit.OK, b"", b"\xff\xd8")


def test_nothing_comes_out_of_a_pipe_into_which_no_picture_went() -> None:
    process = start("blur", "-", stdin=subprocess.PIPE)
    stdout, err = process.communicate(b"no picture")
    assert (process.returncode, stdout) == (Exit.SOME_FAILED, b"")
    assert b"UNSUPPORTED_FORMAT" in err


def test_a_large_pipe_is_refused_at_the_limit() -> None:
    process = start("blur", "-", "--max-bytes", "100", stdin=subprocess.PIPE)
    _, err = process.communicate(picture("PNG") + bytes(1000))
    assert process.returncode == Exit.SOME_FAILED
    assert b"LIMIT_EXCEEDED" in err


@pytest.mark.parametrize("arguments", [["detect"], ["blur", "-o", "out", "--json"]])
def test_a_reader_that_stops_reading_ends_the_run(tmp_path: Path, arguments: list[str]) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "0.jpg").write_bytes(picture())
    for number in range(1, 700):  # more lines than a pipe holds
        os.link(folder / "0.jpg", folder / f"{number}.jpg")
    process = start(*arguments, folder, cwd=tmp_path)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait() == Exit.PIPE_CLOSED
    process.stderr.close()
    assert b"Traceback" not in err
    assert b"Exception ignored" not in err
    assert not [name for name in files_in(tmp_path) if name.endswith(".tmp")]


def test_a_terminal_gets_a_bar_and_a_last_line(photos: Path, out: Path) -> None:
    (photos / "bad.jpg").write_text("no picture")
    ours, theirs = pty.openpty()
    process = start("blur", photos, "-o", out, stderr=theirs, stdout=subprocess.DEVNULL)
    os.close(theirs)
    seen = b""
    try:
        while chunk := os.read(ours, 65536):
            seen += chunk
    except OSError:  # how Linux says that the other side is closed
        pass
    os.close(ours)
    assert process.wait() == Exit.SOME_FAILED
    text = seen.decode()
    assert "━" in text
    assert "bad.jpg: the content is not that of a picture [UNSUPPORTED_FORMAT]" in text
    assert "3 pictures, 3 faces, 1 failed" in text.splitlines()[-2] + text.splitlines()[-1]


def test_core_dumps_are_off(faceblur: Run) -> None:
    assert faceblur("models", "--json").code == Exit.OK
    assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from faceblur_cli.main import main\n"
        "try: main(['blur', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'numpy', 'cv2', 'openvino', 'PIL', 'rich', 'faceblur_engine.pipeline'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
