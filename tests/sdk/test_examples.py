"""The examples do what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import faceblur
from faceblur.testing import FakeServer
from support.running_worker import picture

EXAMPLES = Path(__file__).parents[2] / "examples"
DOCS = Path(__file__).parents[2] / "docs"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=50)


def pictures(folder: Path) -> list[Path]:
    paths = [folder / "a.png", folder / "b.jpg", folder / "broken.jpg"]
    for path, content in zip(paths, [picture(), picture(64, 48, "JPEG"), b"nothing"], strict=True):
        path.write_bytes(content)
    return paths


def test_client(server: FakeServer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    done = run(EXAMPLES / "client.py", server.target, out, *pictures(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "b.jpg"]
    assert f"{tmp_path / 'b.jpg'}: 1 faces, 64x48\n" in done.stdout
    assert f"failed, and nothing was written: {tmp_path / 'broken.jpg'}: " in done.stdout
    assert all(call.options.verify for call in server.calls)


def test_client_says_when_workers_cannot_keep_up(server: FakeServer, tmp_path: Path) -> None:
    server.fail_next(faceblur.OverloadedError("busy"), times=3)
    done = run(EXAMPLES / "client.py", server.target, tmp_path, *pictures(tmp_path)[:1])
    assert (done.returncode, done.stdout) == (1, "")
    assert "try again later" in done.stderr


def test_client_async(server: FakeServer, tmp_path: Path) -> None:
    paths = pictures(tmp_path)[:2]
    done = run(EXAMPLES / "client_async.py", server.target, *paths)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"{path}: 8x10 at 2,2, score 0.90" for path in paths]


def test_my_service() -> None:
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", EXAMPLES, EXAMPLES / "test_my_service.py")
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


def test_the_documentation_names_every_error_and_every_setting() -> None:
    text = (DOCS / "sdk.md").read_text()
    for name in faceblur.__all__:
        kind = getattr(faceblur, name)
        if isinstance(kind, type) and issubclass(kind, faceblur.FaceBlurError):
            assert f"`{name}`" in text
    for config in (faceblur.TlsConfig, faceblur.RetryConfig, faceblur.KeepaliveConfig):
        for name in config.__slots__:
            assert f"`{name}`" in text
