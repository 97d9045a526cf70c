"""The report of a generation: what came of it in figures, as JSON and as one page that a browser shows offline.

Its memory does not grow with the number of objects: it counts, and of the problems it lists the first.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from html import escape
from importlib import resources
from typing import Any

from .generation import Generation
from .ledger import Entry
from .outcomes import Kind, Outcome
from .summary import Summary

FORMAT = 1
MOST_PROBLEMS = 1000
MOST_SAMPLES = 100
SAMPLE_BYTES = 1024 * 1024

_FACES = (("0", 0), ("1", 1), ("2", 2), ("3–5", 3), ("6–10", 6), ("11–20", 11), ("21–50", 21), ("> 50", 51))
_KIB = 1024
_BYTES = (
    ("< 64 KiB", 0),
    ("64–256 KiB", 64 * _KIB),
    ("256 KiB–1 MiB", 256 * _KIB),
    ("1–4 MiB", _KIB**2),
    ("4–16 MiB", 4 * _KIB**2),
    ("≥ 16 MiB", 16 * _KIB**2),
)
_TIMES = (
    ("< 10 ms", 0),
    ("10–20 ms", 10),
    ("20–50 ms", 20),
    ("50–100 ms", 50),
    ("100–200 ms", 100),
    ("200–500 ms", 200),
    ("0.5–1 s", 500),
    ("≥ 1 s", 1000),
)
_HISTOGRAMS: tuple[tuple[str, str, Sequence[tuple[str, float]]], ...] = (
    ("faces", "Faces per picture", _FACES),
    ("bytes", "Length of the sources", _BYTES),
    ("milliseconds", "Worker's time per picture", _TIMES),
)


class Report:
    """Adds up the outcomes of a generation.

    Attributes:
        summary: Of what was added.
        open: Objects without an outcome.
        shown: Keys of the first results that are small enough to be shown.
    """

    def __init__(self, generation: Generation) -> None:
        self.summary = Summary()
        self.open = 0
        self.shown: list[str] = []
        self._generation = generation
        self._histograms: dict[str, Counter[str]] = {name: Counter() for name, _, _ in _HISTOGRAMS}
        self._problems: list[dict[str, str]] = []
        self._models: Counter[str] = Counter()
        self._versions: Counter[str] = Counter()
        self._milliseconds = 0.0

    def add(self, entry: Entry, outcome: Outcome) -> None:
        """Count an object."""
        self.summary.add(outcome, entry.size)
        self._count("bytes", entry.size)
        if outcome.written:
            self._count("faces", outcome.faces)
            self._models.update(outcome.models)
            self._versions[outcome.version] += 1
            if len(self.shown) < MOST_SAMPLES and outcome.output_bytes <= SAMPLE_BYTES:
                self.shown.append(self._generation.output_key(entry.key))
        elif len(self._problems) < MOST_PROBLEMS:
            problem = {"key": entry.key, "outcome": str(outcome.kind), "reason": outcome.reason}
            self._problems.append(problem | {"message": outcome.message})
        if outcome.milliseconds and outcome.kind is not Kind.UNCHANGED:
            self._count("milliseconds", outcome.milliseconds)
            self._milliseconds += outcome.milliseconds

    def as_dict(self, phase: str, reason: str, now: datetime, ended: datetime | None = None) -> dict[str, Any]:
        """What `report.json` says.

        Args:
            phase: Where the generation stands.
            reason: Why it does not go on, if it does not.
            now: The time.
            ended: When the generation was complete, if it is.
        """
        generation = self._generation
        seconds = ((ended or now) - generation.created).total_seconds()
        worked = self.summary.objects - self.summary.kinds[Kind.UNCHANGED]
        return {
            "format": FORMAT,
            "job": generation.job,
            "generation": generation.number,
            "phase": phase,
            "reason": reason,
            "source": generation.spec.source,
            "destination": generation.spec.destination,
            "created": generation.created.isoformat(),
            "reported": now.isoformat(),
            "seconds": round(seconds, 3),
            "pictures_per_second": round(worked / seconds, 3) if seconds > 0 else 0.0,
            "worker_seconds": round(self._milliseconds / 1000, 3),
            "summary": self.summary.as_dict(),
            "open": self.open,
            "histograms": {
                name: [[label, self._histograms[name][label]] for label, _ in bins] for name, _, bins in _HISTOGRAMS
            },
            "problems": self._problems,
            "options": generation.resolved,
            "options_sha256": generation.options_sha256,
            "models": {sha256: [generation.models.get(sha256, ""), n] for sha256, n in sorted(self._models.items())},
            "versions": dict(sorted(self._versions.items())),
        }

    def _count(self, name: str, value: float) -> None:
        bins = next(bins for known, _, bins in _HISTOGRAMS if known == name)
        self._histograms[name][bins[bisect_right([least for _, least in bins], value) - 1][0]] += 1


def render(report: dict[str, Any], samples: Sequence[tuple[str, str]] = ()) -> str:
    """Return `report.html`.

    Args:
        report: What `Report.as_dict` returned.
        samples: Keys of results and their content as ``data:`` URLs, to be shown.
    """
    summary, style = report["summary"], resources.files(__package__).joinpath("report.css").read_text(encoding="utf-8")
    title = f"Job {report['job']}, generation {report['generation']}"
    reported = datetime.fromisoformat(report["reported"])
    sentence = f"{report['phase']}{': ' + report['reason'] if report['reason'] else ''}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>FaceBlur batch report</title>\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        # A browser that obeys it cannot fetch or run anything, whatever an object is called.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<style>{style}</style></head><body><main>\n"
        f"<header><h1>{escape(title)}</h1><p>{escape(sentence)} · {reported:%Y-%m-%d %H:%M:%S %Z}<br>"
        f"{escape(report['source'])} → {escape(report['destination'])}</p></header>\n"
        f'<section class="tiles">{_tiles(report, summary)}</section>\n'
        f'<section class="charts">{_charts(report, summary)}</section>\n'
        f"{_reasons(summary)}{_problems(report['problems'], summary)}{_gallery(samples)}{_settings(report)}"
        "</main></body></html>\n"
    )


def _tiles(report: dict[str, Any], summary: dict[str, Any]) -> str:
    errors = sum(summary[kind] for kind in ("refused", "failed", "quarantined"))
    tiles = [
        ("objects", f"{summary['objects'] + report['open']:,}", False),
        ("results", f"{sum(summary[kind] for kind in ('blurred', 'no_face', 'unchanged')):,}", False),
        ("faces", f"{summary['faces']:,}", False),
        ("without a result", f"{errors:,}", errors > 0),
        ("changed meanwhile", f"{summary['changed']:,}", summary["changed"] > 0),
        ("open", f"{report['open']:,}", report["open"] > 0),
        ("read", _size(summary["bytes_in"]), False),
        ("written", _size(summary["bytes_out"]), False),
        ("pictures/s", f"{report['pictures_per_second']:.1f}", False),
    ]
    return "".join(
        f'<div class="tile{" bad" if bad else ""}"><b>{value}</b><span>{name}</span></div>'
        for name, value, bad in tiles
    )


def _charts(report: dict[str, Any], summary: dict[str, Any]) -> str:
    kinds = [(kind.replace("_", " "), summary[kind]) for kind in map(str, Kind)]
    charts = [_bars("What became of them", kinds)]
    charts += [_bars(title, report["histograms"][name]) for name, title, _ in _HISTOGRAMS]
    return "".join(charts)


def _bars(title: str, bars: Sequence[tuple[str, int]], labels: int = 96) -> str:
    """A horizontal bar chart with so much room for the labels; nothing where there is nothing to show."""
    top = max((count for _, count in bars), default=0)
    if not top:
        return ""
    rows = "".join(
        f'<text x="{labels}" y="{22 * i + 15}" text-anchor="end">{escape(name)}</text>'
        f'<rect x="{labels + 8}" y="{22 * i + 3}" width="{160 * count / top:.1f}" height="16" rx="2"/>'
        f'<text x="{labels + 14 + 160 * count / top:.1f}" y="{22 * i + 15}">{f"{count:,}" if count else ""}</text>'
        for i, (name, count) in enumerate(bars)
    )
    svg = f'<svg viewBox="0 0 {labels + 234} {22 * len(bars) + 4}">{rows}</svg>'
    return f'<figure class="chart"><figcaption>{title}</figcaption>{svg}</figure>'


def _reasons(summary: dict[str, Any]) -> str:
    if not summary["reasons"]:
        return ""
    bars = [(reason.split(" ")[1], count) for reason, count in summary["reasons"].items()]
    chart = _bars("Objects without a result, by reason", bars, labels=240)
    return f'<section class="charts wide">{chart}</section>\n'


def _problems(problems: Sequence[dict[str, str]], summary: dict[str, Any]) -> str:
    if not problems:
        return ""
    total = sum(summary["reasons"].values())
    more = f" <small>the first {len(problems):,} of {total:,}</small>" if total > len(problems) else ""
    rows = "".join(
        f"<tr><td>{escape(p['key'])}</td><td>{escape(p['outcome'])}</td><td>{escape(p['reason'])}</td>"
        f"<td>{escape(p['message'])}</td></tr>\n"
        for p in problems
    )
    head = "<tr><th>object</th><th>outcome</th><th>reason</th><th>what happened</th></tr>"
    return (
        f"<section><h2>Objects without a result{more}</h2>"
        f"<table><thead>{head}</thead><tbody>\n{rows}</tbody></table></section>\n"
    )


def _gallery(samples: Sequence[tuple[str, str]]) -> str:
    if not samples:
        return ""
    figures = "".join(
        f'<figure><img alt="" loading="lazy" src="{escape(url)}"><figcaption>{escape(key)}</figcaption></figure>\n'
        for key, url in samples
    )
    return f'<section><h2>Results</h2><div class="grid">\n{figures}</div></section>\n'


def _settings(report: dict[str, Any]) -> str:
    options = "".join(
        f"<tr><td>{escape(name.replace('_', '-'))}</td><td>{escape(_shown(value))}</td></tr>"
        for name, value in report["options"].items()
    )
    models = "".join(
        f"<tr><td>{escape(name)}</td><td>{count:,}</td><td><code>{escape(sha256)}</code></td></tr>"
        for sha256, (name, count) in report["models"].items()
    )
    versions = ", ".join(f"{escape(version)} ({count:,})" for version, count in report["versions"].items())
    return (
        f"<section><details><summary>Versions, models and options</summary><p>Workers' version: {versions or '–'}</p>"
        f"<table><thead><tr><th>model</th><th>results</th><th>SHA-256</th></tr></thead><tbody>{models}</tbody></table>"
        f"<table><thead><tr><th>option</th><th>value</th></tr></thead><tbody>{options}</tbody></table>"
        "</details></section>\n"
    )


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', '-')} {_shown(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_shown, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None else str(value)


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
