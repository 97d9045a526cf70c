"""Log lines: one JSON object each, with the resource that they are about, for the machines that collect them."""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from .observed import Key

RESOURCE: ContextVar[Key | None] = ContextVar("resource", default=None)

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_OF_KOPF = frozenset({"settings", "k8s_skip", "k8s_ref"})


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    key = RESOURCE.get()
    about = {"namespace": key.namespace, key.kind.removeprefix("FaceBlur").lower(): key.name} if key else {}
    return about | {name: value for name, value in vars(record).items() if name not in _STANDARD | _OF_KOPF}


class JsonFormatter(logging.Formatter):
    """One JSON object per record; ``extra`` fields become members."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """For a person at a terminal."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with the ``extra`` fields behind the message."""
        return " ".join([super().format(record), *(f"{name}={value}" for name, value in _extra(record).items())])


def configure(level: str, style: str) -> None:
    """Send all records to standard error.

    Args:
        level: The lowest that is written.
        style: ``json`` or ``text``.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Below warnings kopf and asyncio tell about themselves, in debug with whole objects.
    for name in ("kopf", "asyncio", "aiohttp"):
        logging.getLogger(name).setLevel(logging.WARNING)
