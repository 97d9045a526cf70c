"""The report: one page to look at after a run, with nothing in it that a browser would have to fetch.

It is written as the run goes: what grows with the number of pictures goes to nameless temporary files, so a report
about a hundred thousand pictures takes no more memory than one about ten. It shows results, never originals.
"""

from __future__ import annotations

import base64
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from importlib import resources
from pathlib import Path
from typing import IO, Any

from faceblur_engine.types import Face, Options, Region, Shape

from . import files
from .exits import CannotGoOnError, UsageError
from .names import Labels, printable
from .records import Record, Status, Tally

MAX_PROBLEMS = 5000

_FACES = (("0", 0), ("1", 1), ("2", 2), ("3–5", 5), ("6–10", 10), ("11–20", 20), ("21–50", 50), ("> 50", None))
_SIZES = (
    ("< 10", 10),
    ("10–20", 20),
    ("20–40", 40),
    ("40–80", 80),
    ("80–160", 160),
    ("160–320", 320),
    ("320–640", 640),
    ("≥ 640", None),
)
_TIMES = (
    ("< 10", 10),
    ("10–20", 20),
    ("20–50", 50),
    ("50–100", 100),
    ("100–200", 200),
    ("200–500", 500),
    ("0.5–1 s", 1000),
    ("≥ 1 s", None),
)
_STAGES = ("decode", "detect", "redact", "encode", "verify")


class Report:
    """A report that is being written."""

    def __init__(self, path: Path, labels: Labels, pictures: int) -> None:
        """Check that the report can be written, and start it.

        Args:
            path: Where it will be; what is there is replaced when the run is over.
            labels: What stands for file names.
            pictures: How many results are shown.

        Raises:
            UsageError: The path is not that of an HTML file, or cannot be written.
        """
        if path.suffix.lower() not in (".html", ".htm"):
            raise UsageError(f"the report's name has to end in .html, {printable(str(path))} does not")
        self.path = path
        self.pictures = pictures
        self._labels = labels
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._gallery: IO[bytes] = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115  closed by close()
            self._problems: IO[bytes] = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115
        except OSError as error:
            raise UsageError(f"cannot write {printable(str(path))}: {error.strerror}") from error
        self._started = datetime.now().astimezone()
        self._shown = self._listed = self._number = 0
        self._faces: Counter[str] = Counter()
        self._sizes: Counter[str] = Counter()
        self._times: Counter[str] = Counter()
        self._stages: Counter[str] = Counter()
        self._models: dict[str, tuple[str, str]] = {}
        self._reasons: Counter[str] = Counter()

    def add(self, record: Record) -> None:
        """Add what became of one path.

        Raises:
            CannotGoOnError: The disk is full.
        """
        if record.status is Status.SKIPPED:
            return
        self._number += 1
        try:
            if record.status is Status.FAILED:
                self._reasons[record.reason or ""] += 1
                self._problem(record, "failed", f"{record.message} [{record.reason}]")
            elif record.warning:
                self._problem(record, "warning", record.warning)
            if record.receipt:
                self._count(record)
                if record.thumbnail:
                    self._shown += 1
                    self._gallery.write(self._figure(record).encode())
        except OSError as error:
            raise CannotGoOnError(f"cannot write {printable(str(self.path))}: {error.strerror}") from error

    def finish(self, tally: Tally, sentence: str, version: str, options: Options) -> None:
        """Write the page.

        Raises:
            CannotGoOnError: It cannot be written.
        """
        for spool in (self._gallery, self._problems):
            spool.seek(0)
        temporary = self.path.with_name(files.TEMPORARY.format("report", time.monotonic_ns()))
        try:
            with temporary.open("xb") as page:
                page.write(self._head(tally, sentence).encode())
                if self._listed:
                    page.write(self._problems_head().encode())
                    shutil.copyfileobj(self._problems, page)
                    page.write(b"</tbody></table></section>\n")
                page.write(self._settings(version, options).encode())
                page.write(self._gallery_head(tally).encode())
                shutil.copyfileobj(self._gallery, page)
                page.write(b"</div></section>\n</main></body></html>\n")
            temporary.replace(self.path)
        except OSError as error:
            raise CannotGoOnError(f"cannot write {printable(str(self.path))}: {error.strerror}") from error
        finally:
            temporary.unlink(missing_ok=True)
            self.close()

    def close(self) -> None:
        """Drop what was collected."""
        self._gallery.close()
        self._problems.close()

    def _label(self, record: Record) -> str:
        label = self._labels(record.file)
        return f"picture {self._number}" if label is None else escape(printable(label))

    def _problem(self, record: Record, kind: str, text: str) -> None:
        self._listed += 1
        if self._listed <= MAX_PROBLEMS:
            row = f'<tr class="{kind}"><td>{self._label(record)}</td><td>{kind}</td><td>{escape(text)}</td></tr>\n'
            self._problems.write(row.encode())

    def _count(self, record: Record) -> None:
        receipt = record.receipt
        assert receipt is not None
        self._faces[_bin(len(receipt.faces), _FACES, inclusive=True)] += 1
        for face in receipt.faces:
            self._sizes[_bin(max(face.box.w, face.box.h), _SIZES)] += 1
        self._times[_bin(receipt.milliseconds.get("total", 0), _TIMES)] += 1
        for stage in _STAGES:
            self._stages[stage] += int(1000 * receipt.milliseconds.get(stage, 0))
        for model in receipt.models:
            self._models[model.name] = model.sha256, model.runtime

    def _figure(self, record: Record) -> str:
        receipt, thumbnail = record.receipt, record.thumbnail
        assert receipt is not None
        assert thumbnail is not None
        width, height = receipt.width, receipt.height
        image = base64.b64encode(thumbnail).decode()
        count = len(receipt.faces)
        milliseconds = receipt.milliseconds.get("total", 0)
        facts = f"{width} × {height} · {count} face{'' if count == 1 else 's'} · {milliseconds:.0f} ms"
        return (
            f'<figure><div class="picture"><img loading="lazy" decoding="async" alt="" '
            f'style="aspect-ratio:{width}/{height}" src="data:image/webp;base64,{image}">'
            f'<svg viewBox="0 0 {width} {height}">'
            f"{''.join(map(_region, receipt.regions))}{_scores(receipt.faces, max(width, height) / 26)}</svg></div>"
            f"<figcaption><b>{self._label(record)}</b><span>{facts}</span></figcaption></figure>\n"
        )

    def _head(self, tally: Tally, sentence: str) -> str:
        style = resources.files(__package__).joinpath("report.css").read_text(encoding="utf-8")
        tiles = [
            ("pictures", f"{tally.done:,}", ""),
            ("faces", f"{tally.faces:,}", ""),
            ("failed", f"{tally.failed:,}", " bad" if tally.failed else ""),
            ("unchanged", f"{tally.unchanged:,}", ""),
            ("other files", f"{tally.skipped:,}", ""),
            ("pictures/s", f"{tally.done / max(tally.seconds, 1e-3):.1f}", ""),
        ]
        charts = [
            _chart("Faces per picture", self._faces, _FACES),
            _chart("Longer side of the faces, pixels", self._sizes, _SIZES),
            _chart("Time per picture, ms", self._times, _TIMES),
            self._stage_chart(),
        ]
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>FaceBlur report</title>\n'
            '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
            # A browser that obeys it cannot fetch or run anything, whatever a file is called.
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
            "style-src 'unsafe-inline'\">\n"
            f"<style>{style}</style></head><body><main>\n"
            f"<header><h1>FaceBlur report</h1><p>{self._started:%Y-%m-%d %H:%M %Z} · {escape(sentence)}</p></header>\n"
            f'<section class="tiles">{"".join(_tile(*tile) for tile in tiles)}</section>\n'
            f'<section class="charts">{"".join(charts)}</section>\n'
        )

    def _stage_chart(self) -> str:
        total = sum(self._stages.values())
        if not total:
            return ""
        done = max(1, sum(self._times.values()))
        bars = [(stage, self._stages[stage], f"{self._stages[stage] / 1000 / done:.1f}") for stage in _STAGES]
        return _bars("Mean time per stage, ms", [bar for bar in bars if bar[1]])

    def _problems_head(self) -> str:
        more = f" (the first {MAX_PROBLEMS:,} of {self._listed:,})" if self._listed > MAX_PROBLEMS else ""
        reasons = ", ".join(f"{escape(reason)} {count:,}" for reason, count in self._reasons.most_common())
        return (
            f"<section><h2>Problems{more}</h2>{f'<p>{reasons}</p>' if reasons else ''}"
            "<table><thead><tr><th>picture</th><th></th><th>what happened</th></tr></thead><tbody>\n"
        )

    def _settings(self, version: str, options: Options) -> str:
        default = Options().as_dict()
        rows = []
        for name, value in options.as_dict().items():
            changed = ' class="changed"' if value != default[name] else ""
            rows.append(f"<tr{changed}><td>{name.replace('_', '-')}</td><td>{escape(_shown(value))}</td></tr>")
        models = [
            f"<tr><td>{escape(name)}</td><td>{escape(runtime)}</td><td><code>{escape(digest)}</code></td></tr>"
            for name, (digest, runtime) in sorted(self._models.items())
        ]
        return (
            f"<section><details><summary>Version {escape(version)}, models and options</summary>"
            f"<table><thead><tr><th>model</th><th>runs on</th><th>SHA-256</th></tr></thead><tbody>{''.join(models)}"
            "</tbody></table><table><thead><tr><th>option</th><th>value</th></tr></thead><tbody>"
            f"{''.join(rows)}</tbody></table></details></section>\n"
        )

    def _gallery_head(self, tally: Tally) -> str:
        some = f"{self._shown:,} of {tally.done:,}" if self._shown < tally.done else f"{self._shown:,}"
        return (
            '<section class="gallery"><input type="checkbox" id="regions" checked>'
            f"<h2>Results <small>{some}</small></h2>"
            '<label for="regions">regions and scores</label><div class="grid">\n'
        )


def _bin(value: float, bins: Sequence[tuple[str, int | None]], *, inclusive: bool = False) -> str:
    for name, limit in bins:
        if limit is None or value < limit or (inclusive and value == limit):
            return name
    raise AssertionError("the last bin has no limit")


def _tile(name: str, value: str, kind: str) -> str:
    return f'<div class="tile{kind}"><b>{value}</b><span>{name}</span></div>'


def _chart(title: str, counts: Mapping[str, int], bins: Sequence[tuple[str, int | None]]) -> str:
    return _bars(title, [(name, counts.get(name, 0), f"{counts.get(name, 0):,}") for name, _ in bins])


def _bars(title: str, bars: Sequence[tuple[str, int, str]]) -> str:
    """A horizontal bar chart of (name, value, text)."""
    top = max([value for _, value, _ in bars] + [1])
    rows = "".join(
        f'<text x="66" y="{22 * i + 15}" text-anchor="end">{escape(name)}</text>'
        f'<rect x="74" y="{22 * i + 3}" width="{190 * value / top:.1f}" height="16" rx="2"/>'
        f'<text x="{80 + 190 * value / top:.1f}" y="{22 * i + 15}">{text if value else ""}</text>'
        for i, (name, value, text) in enumerate(bars)
    )
    svg = f'<svg viewBox="0 0 330 {22 * len(bars) + 4}">{rows}</svg>'
    return f'<figure class="chart"><figcaption>{title}</figcaption>{svg}</figure>'


def _region(region: Region) -> str:
    box = region.box
    if region.shape is Shape.ELLIPSE:
        center = f'cx="{box.x + box.w / 2:.1f}" cy="{box.y + box.h / 2:.1f}"'
        return f'<ellipse {center} rx="{box.w / 2:.1f}" ry="{box.h / 2:.1f}"/>'
    return f'<rect x="{box.x:.1f}" y="{box.y:.1f}" width="{box.w:.1f}" height="{box.h:.1f}" rx="{region.radius:.1f}"/>'


def _scores(faces: Sequence[Face], size: float) -> str:
    texts = "".join(
        f'<text x="{face.box.x:.0f}" y="{max(size, face.box.y - size / 4):.0f}">{face.score:.2f}</text>'
        for face in faces
    )
    return f'<g font-size="{size:.0f}">{texts}</g>' if texts else ""


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', '-')} {_shown(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_shown, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None else str(value)
