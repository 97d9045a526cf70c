"""The end of a generation: manifest, report and root, made of the pages and their logs, one page at a time."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from datetime import datetime
from functools import reduce
from itertools import groupby
from typing import Any

from .chain import FOLDED, receipts_to_fold
from .errors import NotFound
from .generation import Generation
from .ledger import Entry, Ledger, SegmentInfo, dump_json
from .manifest import FORMAT, ManifestWriter
from .outcomes import Outcome, better
from .report import Report, render
from .storage.store import NO_HEADERS, ObjectHeaders
from .summary import outcome_of

_LINES = ObjectHeaders(content_type="application/x-ndjson")
_HTML = ObjectHeaders(content_type="text/html; charset=utf-8")


def conclude(ledger: Ledger, generation: Generation, *, pages: int, now: datetime) -> None:
    """Write manifest, report and, last, the root. Doing it again gives the same manifest.

    Args:
        ledger: Of the generation.
        generation: Every object of which has an outcome.
        pages: How many there are.
        now: The time.

    Raises:
        BatchError: An object has no outcome.
        StorageError: The ledger cannot be read or written.
    """
    manifest = ManifestWriter(lambda name, data: ledger.put(name, data, _LINES))
    manifest.add(_opening(generation))
    report = Report(generation)
    for entry, noted in outcomes(ledger, generation, pages):
        outcome = outcome_of(entry, noted)
        receipt = outcome.as_dict()
        if outcome.written:
            receipt["output"] = generation.output_key(entry.key)
        manifest.add({"key": entry.key, "etag": entry.etag, "size": entry.size, **receipt})
        report.add(entry, outcome)
    chain = manifest.close(report.summary.as_dict())
    if generation.folds:
        _fold(ledger, generation)
    write_report(ledger, report, "completed", "", now, samples=generation.spec.samples)
    root = {"format": FORMAT, "job": generation.job, "generation": generation.number, "concluded": now.isoformat()}
    ledger.put("root.json", dump_json(root | chain | {"summary": report.summary.as_dict()}))


def _fold(ledger: Ledger, generation: Generation) -> None:
    """Repeat what this generation and those since the base say, so that the next ones need to ask this one only."""
    known = ManifestWriter(lambda name, data: ledger.put(name, data, _LINES), stem=FOLDED)
    for receipt in receipts_to_fold(ledger.store, generation):
        known.add({name: value for name, value in receipt.items() if name not in ("prev", "sha256")})
    known.close({})


def report_so_far(ledger: Ledger, generation: Generation, *, pages: int) -> Report:
    """The report of a generation that has not ended, or has ended early."""
    report = Report(generation)
    for entry, noted in outcomes(ledger, generation, pages):
        if entry.before is None and noted is None:
            report.open += 1
        else:
            report.add(entry, outcome_of(entry, noted))
    return report


def write_report(
    ledger: Ledger,
    report: Report,
    phase: str,
    reason: str,
    now: datetime,
    *,
    ended: datetime | None = None,
    samples: int = 0,
) -> dict[str, Any]:
    """Write `report.json` and `report.html`, and return what the former says.

    Args:
        ledger: Of the generation.
        report: Everything that was counted.
        phase: Where the generation stands.
        reason: Why it does not go on, if it does not.
        now: The time.
        ended: When the generation was complete, if it is.
        samples: Results that the page shows; they are copied into it.
    """
    values = report.as_dict(phase, reason, now, ended)
    shown = []
    for key in report.shown[:samples]:
        with contextlib.suppress(NotFound):
            stored = ledger.store.get(key)
            kind = (stored.info.headers or NO_HEADERS).content_type or "image/*"
            shown.append((key, f"data:{kind};base64,{base64.b64encode(stored.data).decode()}"))
    ledger.put("report.json", dump_json(values))
    ledger.put("report.html", render(values, shown).encode(errors="backslashreplace"), _HTML)
    return values


def outcomes(ledger: Ledger, generation: Generation, pages: int) -> Iterator[tuple[Entry, Outcome | None]]:
    """Every planned object, in order, with what was noted of it."""
    logs = groupby(ledger.segments(), key=lambda segment: segment.page)
    number, log = next(logs, (pages, iter(())))
    for page in range(pages):
        candidates: dict[int, list[Outcome]] = {}
        while number < page:
            number, log = next(logs, (pages, iter(())))
        if number == page:
            candidates = _noted(ledger, log)
        for index, entry in enumerate(ledger.page(page).entries):
            found = candidates.get(index)
            yield entry, _settled(ledger, generation, entry, found) if found else None


def _noted(ledger: Ledger, log: Iterator[SegmentInfo]) -> dict[int, list[Outcome]]:
    """All outcomes in a page's log, by index, in its order."""
    candidates: dict[int, list[Outcome]] = {}
    for info in sorted(log, key=lambda segment: (segment.attempt, segment.number)):
        if info.number > 0:  # the first of an attempt has no outcomes
            for record in ledger.read(info).records:
                if "outcome" in record:
                    candidates.setdefault(int(record["outcome"]), []).append(Outcome.from_dict(record))
    return candidates


def _settled(ledger: Ledger, generation: Generation, entry: Entry, found: list[Outcome]) -> Outcome:
    """The outcome that holds. Where the store cannot create only what is absent, two attempts may have written."""
    outcome = reduce(better, found[1:], found[0])
    outputs = {other.output_sha256: other for other in found if other.written}
    if len(outputs) < 2:
        return outcome
    try:
        headers = ledger.store.head(generation.output_key(entry.key)).headers
    except NotFound:
        return outcome
    return outputs.get(headers.metadata.get("faceblur-output-sha256", "") if headers else "", outcome)


def _opening(generation: Generation) -> dict[str, Any]:
    """The first line."""
    return {
        "manifest": FORMAT,
        "job": generation.job,
        "generation": generation.number,
        "base": generation.base,
        "created": generation.created.isoformat(),
        "source": generation.spec.source,
        "destination": generation.spec.destination,
        "options": generation.resolved,
        "options_sha256": generation.options_sha256,
        "models": generation.models,
        "version": generation.version,
    }
