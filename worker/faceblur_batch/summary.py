"""What pages come to, added up: the one thing that progress, error budgets and reports count with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .errors import BatchError
from .ledger import Entry
from .outcomes import ERRORS, Kind, Outcome


@dataclass(slots=True)
class Summary:
    """Counts of outcomes.

    Attributes:
        kinds: Objects by what became of them.
        reasons: Objects without an output, by kind and reason: ``refused UNREADABLE_IMAGE``.
        bytes_in: Length of the objects, as they were listed.
        bytes_out: Length of the outputs.
        faces: Found and obscured.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    bytes_in: int = 0
    bytes_out: int = 0
    faces: int = 0

    @property
    def objects(self) -> int:
        """How many have an outcome."""
        return self.kinds.total()

    @property
    def errors(self) -> int:
        """How many count against an error budget."""
        return sum(self.kinds[kind] for kind in ERRORS)

    def add(self, outcome: Outcome, size: int) -> None:
        """Count an object."""
        self.kinds[outcome.kind] += 1
        if outcome.reason:
            self.reasons[f"{outcome.kind} {outcome.reason}"] += 1
        self.bytes_in += size
        self.bytes_out += outcome.output_bytes
        self.faces += outcome.faces

    def merge(self, other: Summary) -> None:
        """Count what another has counted."""
        self.kinds.update(other.kinds)
        self.reasons.update(other.reasons)
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out
        self.faces += other.faces

    def as_dict(self) -> dict[str, Any]:
        """JSON-compatible values; every kind is there."""
        return {
            "objects": self.objects,
            **{str(kind): self.kinds[kind] for kind in Kind},
            "reasons": dict(sorted(self.reasons.items())),
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "faces": self.faces,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Summary:
        """The summary that `as_dict` was called on."""
        return cls(
            kinds=Counter({str(kind): values[kind] for kind in Kind if values[kind]}),
            reasons=Counter(values["reasons"]),
            bytes_in=values["bytes_in"],
            bytes_out=values["bytes_out"],
            faces=values["faces"],
        )


def outcome_of(entry: Entry, noted: Outcome | None) -> Outcome:
    """What became of an object of a page that has come to its end.

    Raises:
        BatchError: The page has not.
    """
    if entry.before is not None:
        before = Outcome.from_dict(entry.before)
        return replace(before, kind=Kind.UNCHANGED) if before.written else before
    if noted is None:
        raise BatchError("a page was said to be done, and an object of it has no outcome")
    return noted
