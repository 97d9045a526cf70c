"""A watched batch in one process: a watcher over memory stores, with a clock that tests turn."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from typing import Any

from faceblur_batch.difference import Found, look_at, missing
from faceblur_batch.driver import Ended, Ending
from faceblur_batch.errors import BatchError
from faceblur_batch.generation import decide
from faceblur_batch.inbox import Inbox
from faceblur_batch.ledger import ROOT
from faceblur_batch.planner import ENDED, Status
from faceblur_batch.storage.store import ObjectInfo
from faceblur_batch.watcher import Rhythm, Watcher

from .batches import Batch
from .memory_store import EVERYTHING, START

EVERY, SETTLE = 1000.0, 10.0


class MemoryPasses:
    """What `faceblur_batch.driver.Driver` does, with a batch in memory.

    Attributes:
        ran: For each pass: how many objects it looked at, None: the whole source.
        listings: How often the source was compared.
        fails: What the next calls raise.
    """

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self.ran: list[int | None] = []
        self.listings = 0
        self.fails: list[BaseException] = []
        self.before_run: Callable[[], object] = lambda: None

    def missing(self, most: int, *, ending: Ending, beat: Callable[[], object]) -> Found | None:
        self._fail()
        self.listings += 1
        batch = self._batch
        following = decide(batch.spec, batch.destination, batch.blurrer.info(), EVERYTHING, START)
        if following.found or following.generation.base is None:
            return None
        return missing(following.generation, batch.source, batch.destination, most, beat)

    def look_at(self, keys: Collection[str], *, beat: Callable[[], object]) -> Found:
        self._fail()
        return look_at(self._batch.spec, self._batch.source, keys, beat)

    def run(
        self,
        *,
        named: Sequence[ObjectInfo] | None = None,
        begun: Callable[[bool], object],
        seen: Callable[[Status], object],
        ending: Ending,
    ) -> Ended:
        self._fail()
        batch = self._batch
        batch.seconds += 1
        planner = batch.start(named=named)
        begun(batch.generation.created == START + timedelta(seconds=batch.seconds))
        self.ran.append(None if batch.generation.named is None else len(batch.generation.named))
        self.before_run()
        if planner.status().phase not in ENDED:
            batch.run()
        seen(planner.status())
        batch.planner = None
        return Ended(planner.status(), batch.generation, batch.ledger)

    def _fail(self) -> None:
        if self.fails:
            raise self.fails.pop(0)


class Watching:
    """A watched batch. Everything but the stores can be thrown away at any time: `die`."""

    def __init__(self, count: int = 0, *, most: int = 100, keep: float = 0.0, **spec: Any) -> None:
        self.batch = Batch(count, **spec)
        self._rhythm = Rhythm(every=EVERY, settle=SETTLE, most=most, keep=keep, poll=5.0)
        self.seconds = 0.0
        self.ended: Counter[tuple[str, str]] = Counter()
        self.die()

    def die(self) -> None:
        """Lose everything that is not in a store, and begin anew."""
        self.batch.die()
        self.ending = threading.Event()
        self.passes = MemoryPasses(self.batch)
        self.inbox = self.other_inbox()
        self.watcher = self.other()

    def other_inbox(self) -> Inbox:
        return Inbox(self.batch.destination, self.job, self._rhythm.most, monotonic=lambda: self.seconds)

    def other(self, *, resume: bool = False) -> Watcher:
        return Watcher(
            self.passes,
            self.batch.destination,
            self.job,
            self.inbox,
            self._rhythm,
            self.ending,
            resume=resume,
            ended=lambda what, end: self.ended.update([(what, str(end))]),
            monotonic=lambda: self.seconds,
            now=lambda: START + timedelta(seconds=self.seconds),
        )

    @property
    def job(self) -> str:
        return self.batch.spec.id

    def settle(self, seconds: float = 0.0) -> None:
        """Let time pass, and the watcher do what there is to do."""
        self.seconds += seconds
        for _ in range(100):
            if self.watcher.step() > 0:
                return
        raise AssertionError("the watcher does not come to rest")

    def tell(self, *keys: str) -> None:
        """Have the store notify of objects, and wait until the watcher looks at them."""
        self.inbox.add(set(keys))
        self.settle(SETTLE)

    def put(self, key: str, content: bytes | None = None) -> bytes:
        return self.batch.add(key, content)

    def keys(self, folder: str = "") -> list[str]:
        """What the ledger has beside generations."""
        return self.batch.destination.keys(f"{ROOT}{self.job}/{folder}")

    def state(self) -> dict[str, Any]:
        noted = self.watcher.watched.noted()
        assert noted is not None
        return noted

    def error(self) -> BatchError:
        return BatchError("nobody answers")

    def in_step(self) -> bool:
        """Whether each picture of the source has an output that was made of it."""
        return {key: stored.info.headers.metadata["faceblur-etag"] for key, stored in self._outputs()} == {
            key: stored.info.etag.strip('"') for key, stored in self.batch.source.objects.items()
        }

    def _outputs(self) -> list[tuple[str, Any]]:
        objects = self.batch.destination.objects
        return [(key, stored) for key, stored in objects.items() if not key.startswith(".faceblur/")]


def last_manifest(watching: Watching) -> list[dict[str, Any]]:
    """The receipts of the last generation."""
    number = watching.batch.generation.number
    data = watching.batch.destination.get(f"{ROOT}{watching.job}/{number:08d}/manifest.jsonl").data
    return [line for line in map(json.loads, data.splitlines()) if "key" in line]
