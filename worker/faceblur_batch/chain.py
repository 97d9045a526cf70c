"""What several generations of a job say together: of each object, what the newest of them says."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import Any

from .generation import Generation, load
from .manifest import order, receipts_in
from .storage.store import ObjectStore

FOLDED = "known"
"""Stem of the names of objects in which a generation repeats what those before it say."""


def receipts_of(destination: ObjectStore, job: str, numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
    """The newest receipts in the order of keys, each with the version of the workers that it was made by.

    Args:
        destination: Has the ledgers.
        job: The job's id.
        numbers: Of complete generations, ascending. One that folds stands for those before it too.

    Raises:
        StorageError: A ledger cannot be read.
        LedgerUnreadable: There is no such generation.
    """
    generations = (load(destination, job, number) for number in numbers)
    return _newest([_ranked(destination, g, FOLDED if g.folds else "manifest") for g in generations])


def receipts_to_fold(destination: ObjectStore, generation: Generation) -> Iterator[dict[str, Any]]:
    """The newest receipts of a generation, whose manifest is written, and of those since its base.

    Raises:
        StorageError: See `receipts_of`.
        LedgerUnreadable: See `receipts_of`.
    """
    since = (load(destination, generation.job, number) for number in generation.since)
    streams = [_ranked(destination, g, FOLDED if g.folds else "manifest") for g in since]
    return _newest([*streams, _ranked(destination, generation, "manifest")])


_Ranked = Iterator[tuple[bytes, int, dict[str, Any]]]


def _newest(streams: Sequence[_Ranked]) -> Iterator[dict[str, Any]]:
    last = b""
    for key, _, receipt in heapq.merge(*streams):
        if key != last:
            last = key
            yield receipt


def _ranked(destination: ObjectStore, generation: Generation, stem: str) -> _Ranked:
    """The receipts of a generation, so that a newer one sorts first where the key is the same."""
    for receipt in receipts_in(generation.ledger(destination), stem):
        receipt.setdefault("version", generation.version)
        yield order(receipt["key"]), -generation.number, receipt
