"""How far a generation is, kept up with by reading each segment of its ledger once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from .ledger import Ledger, SegmentInfo
from .outcomes import Outcome, Record, better
from .summary import Summary


@dataclass(slots=True)
class _Open:
    """A page that has begun and not come to its end."""

    outcomes: dict[int, Outcome] = field(default_factory=dict)
    seen: set[tuple[int, int]] = field(default_factory=set)
    changed: float = 0.0


class Progress:
    """What the logs of the pages say; its memory is that of the unfinished pages."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._finished = Summary()
        self._first = 0
        self._done: set[int] = set()
        self._open: dict[int, _Open] = {}

    @property
    def first_unfinished(self) -> int:
        """Every page before this one has come to its end."""
        return self._first

    @property
    def pages_done(self) -> int:
        """Pages that have come to their end."""
        return self._first + len(self._done)

    def is_done(self, page: int) -> bool:
        """Whether a page has come to its end."""
        return page < self._first or page in self._done

    def last_change(self, page: int) -> float | None:
        """When `refresh` last found something new of a page, by its caller's clock; None: nobody has begun."""
        return self._open[page].changed if page in self._open else None

    def finish(self, page: int, summary: Summary) -> None:
        """Count a page that has come to its end."""
        if self.is_done(page):
            return
        self._open.pop(page, None)
        self._done.add(page)
        self._finished.merge(summary)
        while self._first in self._done:
            self._done.remove(self._first)
            self._first += 1

    def refresh(self, now: float) -> None:
        """Read what is new.

        Args:
            now: Seconds that only grow.

        Raises:
            StorageError: The ledger cannot be read.
        """
        behind = self._first - 1
        for info in self._ledger.segments(behind=behind if behind >= 0 else None):
            if self.is_done(info.page):
                continue
            page = self._open.setdefault(info.page, _Open())
            if (info.attempt, info.number) in page.seen:
                continue
            if info.number > 0:  # the first of an attempt has no outcomes
                self._read(page, info)
            page.changed = now
            page.seen.add((info.attempt, info.number))

    def summary(self) -> Summary:
        """Counts of all outcomes so far."""
        total = Summary()
        total.merge(self._finished)
        for page in self._open.values():
            for outcome in page.outcomes.values():
                total.add(outcome, 0)
        return total

    def _read(self, page: _Open, info: SegmentInfo) -> None:
        records: Iterable[Record] = self._ledger.read(info).records
        for record in records:
            if "summary" in record:
                self.finish(info.page, Summary.from_dict(record["summary"]))
            elif "outcome" in record:
                index = int(record["outcome"])
                page.outcomes[index] = better(page.outcomes.get(index), Outcome.from_dict(record))
