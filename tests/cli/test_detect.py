"""`faceblur detect`: JSON lines in the form that scorers read, and drawings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from faceblur_cli.exits import Exit
from support.fake_engine import FakeEngine

from .conftest import Run, files_in, kind_of, picture


def test_each_picture_has_a_line_with_faces_and_masks_in_the_order_of_the_walk(faceblur: Run, photos: Path) -> None:
    outcome = faceblur("detect", photos, "--jobs", 3)
    assert outcome.code == Exit.OK
    assert [Path(line["file"]).name for line in outcome.lines] == ["a.jpg", "b.png", "c.webp"]
    assert outcome.lines[0] == {
        "file": (photos / "a.jpg").as_posix(),
        "width": 32,
        "height": 24,
        "format": "jpeg",
        "milliseconds": 4.5,
        "faces": [{"x": 2, "y": 2, "w": 8, "h": 10, "score": 0.9, "model": "fake"}],
        "masks": [{"x": 2, "y": 2, "w": 8, "h": 10, "shape": "rounded", "radius": 2}],
    }
    assert "3 pictures, 3 faces" in outcome.err


def test_names_are_as_given_or_relative_to_the_root(
    faceblur: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    assert faceblur("detect", "trip").lines[0]["file"] == "trip/c.webp"
    assert faceblur("detect", ".", "--root", "..").lines[0]["file"] == "photos/a.jpg"


def test_a_picture_that_fails_has_a_line_that_says_so_and_no_faces(faceblur: Run, photos: Path) -> None:
    (photos / "bad.jpg").write_text("no picture")
    outcome = faceblur("detect", photos)
    assert outcome.code == Exit.SOME_FAILED
    assert outcome.of("bad.jpg") == {
        "file": (photos / "bad.jpg").as_posix(),
        "error": "UNSUPPORTED_FORMAT",
        "message": "the content is not that of a picture",
        "faces": [],
        "masks": [],
    }


def test_no_picture_is_an_error(faceblur: Run, photos: Path) -> None:
    (photos / "trip" / "c.webp").unlink()
    assert faceblur("detect", photos / "trip").code == Exit.CANNOT


def test_drawings_lie_in_their_folder_and_are_no_input(faceblur: Run, photos: Path) -> None:
    for _ in range(2):
        outcome = faceblur("detect", photos, "--draw", photos / "drawn")
        assert (outcome.code, len(outcome.lines)) == (Exit.OK, 3)
    assert files_in(photos / "drawn") == ["a.jpg", "b.jpg", "faceblur-state.jsonl", "trip/c.jpg"]
    assert kind_of(photos / "drawn" / "b.jpg") == "JPEG"
    outcome = faceblur("detect", photos)
    assert len(outcome.lines) == 3


def test_a_drawing_replaces_neither_its_source_nor_a_file_that_is_not_ours(
    faceblur: Run, photos: Path, out: Path
) -> None:
    out.mkdir()
    os.link(photos / "a.jpg", out / "a.jpg")
    (out / "b.jpg").write_bytes(before := picture())
    outcome = faceblur("detect", photos, "--draw", out)
    assert outcome.code == Exit.SOME_FAILED
    assert (outcome.of("a.jpg")["error"], outcome.of("b.png")["error"]) == ("SAME_FILE", "OUTPUT_EXISTS")
    assert (out / "b.jpg").read_bytes() == before


def test_options_reach_the_engine(faceblur: Run, engine: FakeEngine, photos: Path) -> None:
    outcome = faceblur("detect", photos, "--profile", "fast", "--runtime", "litert", "-q")
    assert engine.opened["profiles"] == ["fast"]
    assert engine.opened["runtime"] == "litert"
    assert outcome.err == ""
