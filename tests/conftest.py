"""What all tests share."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from hypothesis import settings

from support.signals import let_children_be_interrupted

# A deadline per example is an assertion on time, and fails on a busy machine.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")


def pytest_configure() -> None:
    """Whatever runs the tests, what they start can be interrupted."""
    let_children_be_interrupted()


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """Take out the handlers that a process's start, run in a test, has put in: their stream ends with the test."""
    level = logging.root.level
    yield
    for handler in [handler for handler in logging.root.handlers if type(handler) is logging.StreamHandler]:
        logging.root.removeHandler(handler)
    logging.root.setLevel(level)
