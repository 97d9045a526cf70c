"""The command in this process, on a fake engine, and little pictures to feed it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from faceblur_cli.main import main
from support.fake_engine import FakeEngine


def picture(kind: str = "JPEG", color: str = "navy", size: tuple[int, int] = (32, 24)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, color).save(out, kind)
    return out.getvalue()


@dataclass
class Outcome:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def summary(self) -> dict[str, Any]:
        summary: dict[str, Any] = self.lines[-1]["summary"]
        return summary

    def of(self, end: str) -> dict[str, Any]:
        """The one line about the file whose name ends so."""
        (line,) = (line for line in self.lines if line.get("file", "").endswith(end))
        return line


Run = Callable[..., Outcome]


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def faceblur(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object) -> Outcome:
        code = main(list(map(str, arguments)), open_redactor=engine.open)
        return Outcome(int(code), *capsys.readouterr())

    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """photos/a.jpg, photos/b.png, photos/trip/c.webp and a text."""
    folder = tmp_path / "photos"
    (folder / "trip").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(picture())
    (folder / "b.png").write_bytes(picture("PNG"))
    (folder / "trip" / "c.webp").write_bytes(picture("WEBP"))
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def kind_of(path: Path) -> str | None:
    with Image.open(path) as opened:
        return opened.format
