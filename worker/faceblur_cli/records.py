"""What became of each path, and the sum of it: what displays, receipts, the report and the exit code are made from."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import StrEnum

from faceblur_engine.types import Receipt

from .exits import Exit


class Status(StrEnum):
    """What became of a path."""

    DONE = "done"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Record:
    """What became of one path.

    Attributes:
        file: The path, as `sources.Item.file`.
        status: The outcome.
        output: Where the result lies, if there is one.
        reason: Of a failure or skip: a stable name, such as ``UNREADABLE_IMAGE``.
        message: Of a failure or skip: a sentence without the file's name.
        warning: A sentence about a picture that was processed all the same.
        receipt: Of a picture that was processed.
        thumbnail: Of the result, encoded as WebP, where the report will show it.
    """

    file: str
    status: Status
    output: str | None = None
    reason: str | None = None
    message: str | None = None
    warning: str | None = None
    receipt: Receipt | None = None
    thumbnail: bytes | None = None


@dataclass(slots=True)
class Tally:
    """Counts over a run."""

    done: int = 0
    unchanged: int = 0
    failed: int = 0
    skipped: int = 0
    faces: int = 0
    started: float = field(default_factory=time.monotonic)

    def add(self, record: Record) -> None:
        """Count `record`."""
        match record.status:
            case Status.DONE:
                self.done += 1
            case Status.UNCHANGED:
                self.unchanged += 1
            case Status.FAILED:
                self.failed += 1
            case Status.SKIPPED:
                self.skipped += 1
        if record.receipt:
            self.faces += len(record.receipt.faces)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.started

    @property
    def found(self) -> int:
        """Pictures that were found, whatever became of them."""
        return self.done + self.unchanged + self.failed

    @property
    def exit_code(self) -> Exit:
        """How the command ends if nothing else stops it."""
        if not self.found:
            return Exit.CANNOT
        return Exit.SOME_FAILED if self.failed else Exit.OK

    def sentence(self) -> str:
        """Return the last line: ``412 pictures, 1,390 faces, 3 failed in 24.1 s (17.1 pictures/s)``."""
        seconds = self.seconds
        parts = [_count(self.done, "picture"), _count(self.faces, "face")]
        parts += [f"{n:,} {word}" for n, word in ((self.unchanged, "unchanged"), (self.failed, "failed")) if n]
        if self.skipped:
            parts.append(f"{_count(self.skipped, 'other file')} skipped")
        rate = f" ({self.done / seconds:.1f} pictures/s)" if self.done > 1 and seconds > 0 else ""
        return f"{', '.join(parts)} in {seconds:.1f} s{rate}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
