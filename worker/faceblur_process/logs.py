"""Log lines: one JSON object each for the machines that collect them, or text for a person at a terminal.

Both have the same fields in the same order: what the process says about all its lines, then those of the line. No
picture content, names or keys of pictures, face boxes or metadata ever go into a record.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias

Context: TypeAlias = Callable[[], Mapping[str, Any]]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class TextFormatter(logging.Formatter):
    """One line per record, with its fields behind the message."""

    def __init__(self, context: Context = dict, left_out: Collection[str] = ()) -> None:
        """Prepare.

        Args:
            context: Returns the fields of whatever is going on where the record is made.
            left_out: ``extra`` fields of libraries that say nothing to those who read the lines.
        """
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")
        self._context = context
        self._left_out = _STANDARD.union(left_out)

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """Return the context and the ``extra`` fields."""
        extra = {name: value for name, value in vars(record).items() if name not in self._left_out}
        return {**self._context(), **extra}

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  the name is logging's
        """Return the line without a traceback."""
        fields = (f"{name}={value}" for name, value in self.fields(record).items())
        return " ".join([super().formatMessage(record), *fields])


class JsonFormatter(TextFormatter):
    """One JSON object per record; its fields become members."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self.fields(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure(
    level: str,
    style: str,
    *,
    context: Context = dict,
    left_out: Collection[str] = (),
    quiet: Collection[str] = (),
) -> None:
    """Send all records to standard error.

    Args:
        level: The lowest that is written.
        style: ``json`` or ``text``.
        context: See `TextFormatter`.
        left_out: See `TextFormatter`.
        quiet: Loggers of libraries whose records below warnings say nothing to those who read the lines.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter((JsonFormatter if style == "json" else TextFormatter)(context, left_out))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in quiet:
        logging.getLogger(name).setLevel(logging.WARNING)
