"""The report, the receipts, and what both say in place of names."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from faceblur_cli.exits import CannotGoOnError, Exit
from faceblur_cli.files import LineFile
from faceblur_cli.thumbnails import SIDE, thumbnail_of
from support.fake_engine import COLOR, FakeEngine

from .conftest import Run, files_in, picture


class _Page(HTMLParser):
    """Collects what a browser would load, and checks that tags close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        assert tag not in ("script", "link", "iframe", "object")
        self.sources += [value or "" for name, value in names.items() if name in ("src", "href", "srcset")]
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def page_of(path: Path) -> _Page:
    page = _Page(path.read_text())
    assert page.open == []
    return page


def test_the_report_shows_results_and_loads_nothing(faceblur: Run, photos: Path, out: Path, tmp_path: Path) -> None:
    (photos / "bad <b>.jpg").write_text("no picture")
    report = tmp_path / "deep" / "report.html"
    assert faceblur("blur", photos, "-o", out, "--report", report, "--cells", 5).code == Exit.SOME_FAILED
    page = page_of(report)
    assert len(page.sources) == 3
    for source in page.sources:
        head, _, data = source.partition(",")
        assert head == "data:image/webp;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as shown:
            pixel = shown.convert("RGB").getpixel((5, 5))
        assert isinstance(pixel, tuple)
        assert max(abs(a - b) for a, b in zip(pixel, COLOR, strict=True)) < 12, "the thumbnail is not of the result"
    text = " ".join(page.text)
    for words in ("bad <b>.jpg", "UNSUPPORTED_FORMAT", "3 pictures, 3 faces, 1 failed", "0.90", "trip/c.webp", "cells"):
        assert words in text
    assert "url(" not in report.read_text()
    assert files_in(report.parent) == ["report.html"]


def test_the_report_shows_as_many_results_as_asked_for(faceblur: Run, photos: Path, out: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    faceblur("blur", photos, "-o", out, "--report", report, "--report-pictures", 2)
    assert len(page_of(report).sources) == 2
    assert "2 of 3" in report.read_text()
    faceblur("blur", photos, "-o", out, "--report", report)
    assert page_of(report).sources == []
    assert "3 unchanged" in report.read_text()


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("RGB", "JPEG"),
        ("L", "JPEG"),
        ("CMYK", "JPEG"),
        ("RGBA", "PNG"),
        ("P", "PNG"),
        ("I;16", "PNG"),
        ("1", "PNG"),
        ("LA", "PNG"),
        ("RGB", "AVIF"),
        ("RGB", "TIFF"),
    ],
)
def test_a_thumbnail_is_small_and_without_metadata(mode: str, kind: str) -> None:
    large = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "MARKER"
    extra = {"exif": exif} if kind in ("JPEG", "PNG", "AVIF") else {}
    Image.new(mode, (900, 600)).save(large, kind, **extra)
    small = thumbnail_of(large.getvalue())
    assert small is not None
    assert b"MARKER" not in small
    with Image.open(io.BytesIO(small)) as shown:
        assert (shown.format, max(shown.size)) == ("WEBP", SIDE)


def test_a_thumbnail_of_16_bit_keeps_its_brightness() -> None:
    large = io.BytesIO()
    Image.new("I;16", (8, 8), 0x8000).save(large, "PNG")
    small = thumbnail_of(large.getvalue())
    assert small is not None
    with Image.open(io.BytesIO(small)) as shown:
        value = shown.convert("L").getpixel((4, 4))
    assert isinstance(value, int)
    assert abs(value - 128) < 6


def test_what_cannot_be_shown_has_no_thumbnail() -> None:
    assert thumbnail_of(b"no picture") is None


def test_receipts_say_what_went_in_and_came_out_and_grow_run_by_run(
    faceblur: Run, engine: FakeEngine, photos: Path, out: Path, tmp_path: Path
) -> None:
    receipts = tmp_path / "audit" / "receipts.jsonl"
    (photos / "bad.jpg").write_text("no picture")
    for _ in range(2):
        faceblur("blur", photos, "-o", out, "--receipts", receipts)
    lines = [json.loads(line) for line in receipts.read_text().splitlines()]
    by_name = {Path(line["file"]).name: line for line in lines}
    assert len(lines) == 5, "one each, and one more for the picture that failed twice"
    first = by_name["a.jpg"]
    assert first["input_sha256"] == hashlib.sha256((photos / "a.jpg").read_bytes()).hexdigest()
    assert first["output_sha256"] == hashlib.sha256((out / "a.jpg").read_bytes()).hexdigest()
    assert first["models"][0]["sha256"] == engine.models[0].sha256
    assert first["options"]["cells"] == 8
    assert by_name["bad.jpg"] == {
        "file": str(photos / "bad.jpg"),
        "error": "UNSUPPORTED_FORMAT",
        "message": "the content is not that of a picture",
    }


def test_a_torn_receipt_is_dropped_when_the_next_run_appends(faceblur: Run, photos: Path, out: Path) -> None:
    receipts = photos.parent / "r.jsonl"
    receipts.write_text('{"file": "x"}\n{"fi')
    faceblur("blur", photos / "a.jpg", "-o", out, "--receipts", receipts)
    lines = [json.loads(line) for line in receipts.read_text().splitlines()]
    assert [Path(line["file"]).name for line in lines] == ["x", "a.jpg"]


@pytest.mark.parametrize("names", ["hash", "omit"])
def test_names_can_be_kept_out_of_receipts_and_report(faceblur: Run, photos: Path, tmp_path: Path, names: str) -> None:
    (photos / "jane-doe.jpg").write_bytes(picture("PNG"))  # with a warning
    (photos / "john-doe.jpg").write_text("no picture")
    report, receipts = tmp_path / "r.html", tmp_path / "r.jsonl"
    arguments = ("--report", report, "--receipts", receipts, "--names", names)
    faceblur("blur", photos, "-o", tmp_path / "results", *arguments)
    for text in (report.read_text(), receipts.read_text()):
        for name in ("a.jpg", "b.png", "doe", "trip", str(tmp_path)):
            assert name not in text
    assert page_of(report).sources


def test_hashed_names_differ_by_run_unless_a_key_is_given(faceblur: Run, photos: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(bytes(range(32)))

    def labels(run: int, *more: object) -> list[str]:
        receipts = tmp_path / f"r{run}.jsonl"
        faceblur("blur", photos, "-o", tmp_path / str(run), "--receipts", receipts, "--names", "hash", *more)
        return sorted(json.loads(line)["file"] for line in receipts.read_text().splitlines())

    first, second = labels(1), labels(2)
    assert all(re.fullmatch("[0-9a-f]{32}", label) for label in first)
    assert not set(first) & set(second)
    assert labels(3, "--names-key", key) == labels(4, "--names-key", key)


def test_a_short_key_is_no_secret(faceblur: Run, photos: Path, out: Path) -> None:
    (photos / "key").write_text("short")
    assert faceblur("blur", photos, "-o", out, "--names", "hash", "--names-key", photos / "key").code == Exit.USAGE


def test_no_result_is_without_a_receipt_even_if_the_receipt_cannot_be_written(
    faceblur: Run, photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: LineFile, line: str) -> None:
        raise CannotGoOnError("cannot write the receipt")

    monkeypatch.setattr(LineFile, "append", full)
    assert faceblur("blur", photos, "-o", out, "--receipts", photos.parent / "r.jsonl").code == Exit.CANNOT
    assert files_in(out) == ["faceblur-state.jsonl"]
