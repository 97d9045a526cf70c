"""The audit trail: one JSON line per picture, appended run after run.

A line says what went in and what came out (SHA-256 each), what ran, with which options, what was found and how long it
took; or why there is no result. Lines are in the order in which pictures were finished, and what an earlier run did has
its line from then. They hold no picture content. File names are personal data too, see `names.Labels`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from faceblur_engine.types import Receipt

from .exits import UsageError
from .files import LineFile
from .names import Labels, printable
from .records import Record


class Receipts:
    """An open receipts file."""

    def __init__(self, path: Path, labels: Labels) -> None:
        """Open `path` to append to it.

        Raises:
            UsageError: It cannot be opened, or holds something else.
        """
        self._labels = labels
        try:
            self._file = LineFile(path)
        except OSError as error:
            raise UsageError(f"cannot write {printable(str(path))}: {error.strerror}") from error

    def done(self, file: str, receipt: Receipt) -> None:
        """Append a picture's receipt. Called by its thread before the result takes its name.

        So a result without a receipt does not exist, however the run ends.

        Raises:
            CannotGoOnError: It cannot be written.
        """
        self._append(file, receipt.as_dict())

    def failed(self, record: Record) -> None:
        """Append why there is no result.

        Raises:
            CannotGoOnError: It cannot be written.
        """
        self._append(record.file, {"error": record.reason, "message": record.message})

    def _append(self, file: str, content: dict[str, Any]) -> None:
        label = self._labels(file)
        line = content if label is None else {"file": label} | content
        self._file.append(json.dumps(line, separators=(",", ":")))

    def close(self) -> None:
        """Close the file."""
        self._file.close()
