"""What the tests with real processes share."""

from __future__ import annotations

from support.signals import let_children_be_interrupted


def pytest_configure() -> None:
    """Whatever runs the tests, what they start can be interrupted."""
    let_children_be_interrupted()
