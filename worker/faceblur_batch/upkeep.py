"""Keeping the ledger of a job that is never done from growing without end."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from .generation import Generation, LedgerUnreadable, load
from .ledger import ROOT, Mark, State, generations
from .storage.store import ObjectStore


def trim(destination: ObjectStore, latest: Generation, beat: Callable[[], object] = lambda: None) -> None:
    """Remove pages and their logs of the generation before a complete one. Its manifest says all that they say.

    Args:
        destination: Has the ledgers.
        latest: The complete one.
        beat: Called now and then.

    Raises:
        StorageError: The ledger cannot be written.
    """
    try:
        before = load(destination, latest.job, latest.number - 1)
    except LedgerUnreadable:
        return
    ledger = before.ledger(destination)
    # A task that was handed out twice may still come, and has to find out that there is nothing to do for it.
    ledger.set_mark(Mark(State.SUPERSEDED, f"by generation {latest.number}"))
    for folder in ("pages/", "work/"):
        _remove(destination, ledger.prefix + folder, beat)


def forget(
    destination: ObjectStore, latest: Generation, until: datetime, beat: Callable[[], object] = lambda: None
) -> int:
    """Remove old generations that nothing goes by any more, and return how many.

    Args:
        destination: Has the ledgers.
        latest: The last generation; those that it goes by stay.
        until: Those that began later stay.
        beat: Called now and then.

    Raises:
        StorageError: The ledger cannot be written.
    """
    needed, removed = {latest.base, *latest.since, latest.number}, 0
    for number in generations(destination, latest.job):
        if number in needed:
            continue
        try:
            if load(destination, latest.job, number).created > until:
                break
        except LedgerUnreadable:  # its removal was cut off
            pass
        _remove(destination, f"{ROOT}{latest.job}/{number:08d}/", beat)
        removed += 1
    return removed


def _remove(destination: ObjectStore, prefix: str, beat: Callable[[], object]) -> None:
    for info in destination.list(prefix):
        destination.delete(info.key)
        beat()
