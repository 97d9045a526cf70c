"""Log lines: the same fields for machines and for persons, in the same order, a record a line."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator

import pytest

from faceblur_process.logs import JsonFormatter, TextFormatter, configure


def record(message: str, **extra: object) -> logging.LogRecord:
    return logging.makeLogRecord({"name": "faceblur.test", "levelname": "INFO", "msg": message, **extra})


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, which is as it was afterwards."""
    logger = logging.getLogger()
    before = logger.handlers[:], logger.level
    yield logger
    logger.handlers[:], logger.level = before


def test_a_line_has_what_goes_on_and_then_its_own_fields() -> None:
    made = record("call", method="BlurImage", data=b"not for readers")

    def context() -> dict[str, str]:
        return {"request_id": "7"}

    line = json.loads(JsonFormatter(context, ("data",)).format(made))
    assert list(line) == ["time", "level", "logger", "message", "request_id", "method"]
    assert line["time"].endswith("+00:00")
    assert (line["level"], line["logger"], line["method"]) == ("info", "faceblur.test", "BlurImage")
    assert TextFormatter(context, ("data",)).format(made).endswith("INFO    call request_id=7 method=BlurImage")


def test_a_traceback_is_on_the_line_for_machines_and_below_it_for_persons() -> None:
    made = record("broken", page=3)
    try:
        raise ValueError("why")
    except ValueError:
        made.exc_info = sys.exc_info()
    line = JsonFormatter().format(made)
    assert "\n" not in line
    assert "ValueError: why" in json.loads(line)["traceback"]
    first, *others = TextFormatter().format(made).splitlines()
    assert first.endswith("broken page=3")
    assert others[-1] == "ValueError: why"


def test_all_records_go_to_standard_error_in_the_style_that_is_asked_for(
    root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    configure("info", "json", context=lambda: {"job": "a"})
    logging.getLogger("x").debug("not this")
    logging.getLogger("x").info("page %s", "done", extra={"page": 3})
    line = json.loads(capsys.readouterr().err)
    assert (line["message"], line["job"], line["page"]) == ("page done", "a", 3)
    configure("warning", "text", left_out=("data",))
    logging.getLogger("x").info("not this")
    logging.getLogger("x").warning("page done", extra={"page": 3, "data": 4})
    assert capsys.readouterr().err.endswith("WARNING page done page=3\n")


def test_a_library_that_talks_is_heard_only_when_something_is_wrong(
    root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    configure("debug", "text", quiet=("talker.of.the.test",))
    logging.getLogger("talker.of.the.test").info("about itself")
    logging.getLogger("talker.of.the.test").warning("something is wrong")
    logging.getLogger("another.of.the.test").debug("heard")
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("something is wrong")
    assert second.endswith("heard")
