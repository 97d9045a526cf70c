"""Copies of manifests: the models of API servers copy whatever comes in and goes out, so this is most of their work."""

from __future__ import annotations

import pickle
from typing import TypeVar

T = TypeVar("T")


def copied(value: T) -> T:
    """What `copy.deepcopy` makes of plain values, several times as fast."""
    copy: T = pickle.loads(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))
    return copy
