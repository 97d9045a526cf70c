"""What becomes of the objects of a page, and how the log of a page is read: pure, no I/O.

Several attempts may have written to the log of one page, at the same time or one after the other has died. `fold` makes
one state of it by rules that do not depend on who reads or when, apart from the lease after which an attempt that
does not show itself counts as dead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

Record = dict[str, Any]
"""One line of a segment: what is about to be tried, an outcome, a blame, or the attempt's end."""

DIED = "DIED"
MESSAGE_LENGTH = 300


class Kind(StrEnum):
    """What became of an object. Every object of a complete generation has exactly one."""

    BLURRED = "blurred"
    NO_FACE = "no_face"
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    FAILED = "failed"
    QUARANTINED = "quarantined"
    CHANGED = "changed"


WRITTEN = frozenset({Kind.BLURRED, Kind.NO_FACE, Kind.UNCHANGED})
"""There is an output."""
ERRORS = frozenset({Kind.REFUSED, Kind.FAILED, Kind.QUARANTINED})
"""What an error budget counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one object.

    Attributes:
        kind: See `Kind`.
        reason: Stable, in capitals, why there is no output; otherwise empty.
        message: The same for a person.
        input_sha256: In hexadecimal, of what was read.
        output_sha256: In hexadecimal, of what was written.
        output_bytes: Length of what was written.
        faces: Found and obscured.
        models: SHA-256 of every model that ran, sorted.
        version: Of the worker.
        milliseconds: That the worker took for it.
    """

    kind: Kind
    reason: str = ""
    message: str = ""
    input_sha256: str = ""
    output_sha256: str = ""
    output_bytes: int = 0
    faces: int = 0
    models: tuple[str, ...] = ()
    version: str = ""
    milliseconds: float = 0.0

    @property
    def written(self) -> bool:
        """Whether there is an output."""
        return self.kind in WRITTEN

    def as_dict(self) -> dict[str, Any]:
        """Everything that is not empty, as JSON-compatible values."""
        values = {name: getattr(self, name) for name in _FIELDS}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items() if v or name == "kind"}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Outcome:
        """The outcome that `as_dict` was called on; other members are left out."""
        known = {name: values[name] for name in _FIELDS if name in values}
        known["kind"] = Kind(known["kind"])
        known["models"] = tuple(known.get("models", ()))
        return cls(**known)


_FIELDS = tuple(f.name for f in fields(Outcome))


def refusal(kind: Kind, reason: str, message: object) -> Outcome:
    """An outcome without an output."""
    return Outcome(kind=kind, reason=reason, message=str(message)[:MESSAGE_LENGTH])


def better(first: Outcome | None, second: Outcome) -> Outcome:
    """Of two outcomes of one object, in the order of the log, the one that holds."""
    return second if first is None or (second.written and not first.written) else first


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a page's log.

    Attributes:
        attempt: From 1.
        number: Within the attempt, from 0.
        modified: By the store's clock.
        records: See `Record`.
    """

    attempt: int
    number: int
    modified: datetime
    records: tuple[Record, ...]


@dataclass(slots=True)
class PageState:
    """What a page's log says.

    Attributes:
        outcomes: By the object's index in the page.
        blames: How often an object was tried alone and did not survive it, and the last reason.
        suspects: Objects to be tried alone.
        careful: An attempt died and did not say where.
    """

    outcomes: dict[int, Outcome] = field(default_factory=dict)
    blames: Counter[int] = field(default_factory=Counter)
    reasons: dict[int, str] = field(default_factory=dict)
    suspects: set[int] = field(default_factory=set)
    careful: bool = False

    def blame(self, index: int, reason: str) -> None:
        """Note that an object was tried alone in vain."""
        self.blames[index] += 1
        self.reasons[index] = reason
        self.suspects.add(index)


def fold(segments: Iterable[Segment], *, now: datetime, lease: timedelta) -> PageState:
    """Read the log of a page.

    Args:
        segments: In any order.
        now: By the store's clock.
        lease: An attempt without an end whose last segment is older than this is dead.
    """
    state = PageState()
    ordered = sorted(segments, key=lambda s: (s.attempt, s.number))
    for attempt in sorted({segment.attempt for segment in ordered}):
        own = [segment for segment in ordered if segment.attempt == attempt]
        open_try: set[int] | None = None
        alone, tries_all, ended = False, True, False
        for record in (record for segment in own for record in segment.records):
            if "outcome" in record:
                index = int(record["outcome"])
                state.outcomes[index] = better(state.outcomes.get(index), Outcome.from_dict(record))
                if open_try:
                    open_try.discard(index)
            elif "blame" in record:
                state.blame(int(record["blame"]), record["reason"])
                if open_try:
                    open_try.discard(int(record["blame"]))
            elif "try" in record:
                tries_all = record["try"] == "all"
                open_try = set() if tries_all else set(record["try"])
                alone = len(open_try) == 1
            elif "end" in record:
                ended = True
        if ended or now - max(segment.modified for segment in own) < lease:
            continue
        if tries_all:
            state.careful = True
        elif open_try and alone:
            state.blame(open_try.pop(), DIED)
        elif open_try:
            state.suspects |= open_try
    state.suspects -= state.outcomes.keys()
    return state
