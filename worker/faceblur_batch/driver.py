"""A planner process from its beginning to its end: opens the stores, asks the workers, runs the loop, reports."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Protocol

from celery import Celery

import faceblur

from .app import CeleryQueue, make_app
from .conclusion import report_so_far, write_report
from .config import BatchSettings
from .difference import Found, look_at, missing
from .errors import BatchError
from .generation import Generation, begin, decide
from .job import JobSpec
from .ledger import ROOT, Ledger, Mark, State
from .planner import ENDED, Before, Phase, Planner, Status
from .storage.opening import check_apart, open_store
from .storage.probe import probe
from .storage.store import Capabilities, ObjectInfo, ObjectStore
from .workplaces import ticket_for

log = logging.getLogger(__name__)

_EVERYTHING = Capabilities(create_only=True, replace_if_match=True, metadata=True, sorted_listing=True)
PLANNER_ENDED = "its planner has ended; it goes on when one is started"


class WorkersMissing(BatchError):
    """No worker answers."""

    reason = "NO_WORKERS"


class Ending(Protocol):
    """Whether the process has to end; a `threading.Event` is one."""

    def is_set(self) -> bool:
        """Whether it has."""

    def wait(self, timeout: float | None = None) -> bool:
        """Let seconds pass, less if it has; returns whether it has."""


class _Ending(Exception):
    """The planner is asked to end."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a planner ended.

    Attributes:
        status: The last one.
        generation: That was worked on.
        ledger: Its ledger.
    """

    status: Status
    generation: Generation
    ledger: Ledger


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a job would do.

    Attributes:
        objects: That the selection means.
        bytes: Their length.
        unchanged: Of them, those that are done already as far as the ledger tells.
        skipped: Objects that the selection leaves out.
    """

    objects: int
    bytes: int
    unchanged: int
    skipped: int


class Driver:
    """Opens what a job needs, and drives it."""

    def __init__(self, spec: JobSpec, settings: BatchSettings) -> None:
        """Open the stores; nothing is asked of them yet.

        Args:
            spec: What is asked for.
            settings: Of the process.

        Raises:
            InvalidLocation: A location cannot be used, or one lies in the other.
            UnusableSetting: A storage profile is missing or wrong.
        """
        self.spec = spec
        self.settings = settings
        self._app: tuple[str, Celery] | None = None
        source, destination = settings.storage(spec.source_profile), settings.storage(spec.destination_profile)
        check_apart(spec.source, spec.destination, source, destination)
        self.source: ObjectStore = open_store(spec.source, source)
        self.destination: ObjectStore = open_store(spec.destination, destination)

    def forecast(self, patience: float = 10.0) -> Forecast:
        """Count what a run would do. Nothing is written.

        Args:
            patience: Seconds to wait for a worker.

        Raises:
            BatchError: It cannot be found out.
        """
        following = decide(self.spec, self.destination, self._info(patience), _EVERYTHING, datetime.now(UTC))
        before = Before(self.destination, following.generation)
        objects = length = unchanged = skipped = 0
        for info in self.source.list(self.spec.selection.prefix):
            if not following.generation.selects(info):
                skipped += 1
                continue
            objects, length = objects + 1, length + info.size
            unchanged += before.receipt_of(info) is not None
        return Forecast(objects, length, unchanged, skipped)

    def missing(
        self, most: int, *, ending: Ending, patience: float = 60.0, beat: Callable[[], object] = lambda: None
    ) -> Found | None:
        """List the source and find what is to be done. Nothing is written.

        Args:
            most: Objects that are found at most.
            ending: Set when the process has to end.
            patience: Seconds to wait for a worker.
            beat: Called now and then.

        Returns:
            None: they are more, or nothing is known yet of what is there; everything has to be looked at.

        Raises:
            BatchError: It cannot be found out.
        """
        info = self._info(patience, ending)
        following = decide(self.spec, self.destination, info, _EVERYTHING, datetime.now(UTC))
        if following.found or following.generation.base is None:
            return None
        return missing(following.generation, self.source, self.destination, most, beat)

    def look_at(self, keys: Collection[str], *, beat: Callable[[], object] = lambda: None) -> Found:
        """Look at objects of the source; see `difference.look_at`."""
        return look_at(self.spec, self.source, keys, beat)

    def run(
        self,
        *,
        named: Sequence[ObjectInfo] | None = None,
        begun: Callable[[bool], object] = lambda new: None,
        seen: Callable[[Status], object] = lambda status: None,
        ending: Ending | None = None,
        resume: bool = False,
        patience: float = 60.0,
    ) -> Ended:
        """Drive the job until its generation has ended, or until this process has to.

        Args:
            named: Look at these objects only, if the ledger has a generation that has looked at everything.
            begun: Called when the generation is in the ledger, with whether it was begun by this call.
            seen: Called with the status now and then.
            ending: Set when the process has to end; the generation is then suspended.
            resume: Go on also if it was cancelled or stopped.
            patience: Seconds to wait for a worker.

        Raises:
            BatchError: It cannot go on.
        """
        ending = ending or threading.Event()
        info = self._info(patience, ending)
        now = datetime.now(UTC)
        generation, ledger = begin(
            self.spec, self.destination, info, self._capabilities, now, resume=resume, named=named
        )
        begun(generation.created == now)
        log.info("generation %d of job %s", generation.number, generation.job)
        queue = CeleryQueue(self._broker(), self.settings.queue, ticket_for(self.spec, generation, 0))
        planner = Planner(generation, ledger, self.source, queue, spec=self.spec, watch=self.settings.watch())

        def sleep(seconds: float) -> None:
            if ending.wait(seconds):
                raise _Ending

        said = False

        def look(status: Status) -> None:
            nonlocal said
            said = status.phase in ENDED
            seen(status)
            if ending.is_set():
                raise _Ending

        try:
            planner.run(sleep, look)
        except _Ending:
            ledger.set_mark(Mark(State.SUSPEND, PLANNER_ENDED))
            planner.look()
        status = planner.status()
        if not said:
            seen(status)
        if status.phase is not Phase.COMPLETED:
            write_report_so_far(ledger, generation, status)
        return Ended(status, generation, ledger)

    def _broker(self) -> Celery:
        """The application, with the broker's password of this moment; each that is made costs memory for good."""
        url = self.settings.broker_url()
        if self._app is None or self._app[0] != url:
            self._app = url, make_app(self.settings)
        return self._app[1]

    @cached_property
    def _capabilities(self) -> Capabilities:
        """What the destination can do; found out once."""
        return probe(self.destination, ROOT.removesuffix("jobs/"))

    def _info(self, patience: float, ending: Ending | None = None) -> faceblur.ServerInfo:
        """What the workers are.

        Raises:
            WorkersMissing: None answers.
        """
        end = time.monotonic() + patience
        pause: Ending = ending or threading.Event()
        with self.settings.client() as client:
            while True:
                try:
                    return client.info(timeout=max(1.0, min(10.0, end - time.monotonic())))
                except faceblur.TransientError as error:
                    if time.monotonic() > end or pause.wait(0.5):
                        raise WorkersMissing(f"no worker answers at {self.settings.server}: {error}") from error
                except faceblur.FaceBlurError as error:
                    raise WorkersMissing(f"the workers at {self.settings.server}: {error}") from error


def status_of(ledger: Ledger, generation: Generation) -> Status:
    """Where a generation stands, by its ledger alone.

    Raises:
        StorageError: It cannot be read.
    """
    planner = Planner(generation, ledger, ledger.store, _NoQueue())
    planner.look()
    return planner.status()


def write_report_so_far(ledger: Ledger, generation: Generation, status: Status, samples: int = 0) -> dict[str, Any]:
    """Write the report of a generation that may not have ended, and return what `report.json` says.

    Args:
        ledger: Of the generation.
        generation: What is reported on.
        status: Where it stands.
        samples: Results that the page shows.

    Raises:
        StorageError: The ledger cannot be read or written.
    """
    last = ledger.last_page()
    report = report_so_far(ledger, generation, pages=last.head.page + 1 if last else 0)
    root = ledger.get("root.json")
    ended = datetime.fromisoformat(json.loads(root)["concluded"]) if root else None
    return write_report(ledger, report, status.phase, status.reason, datetime.now(UTC), ended=ended, samples=samples)


class _NoQueue:
    """For who only looks."""

    def publish(self, page: int) -> None:
        raise AssertionError("who only looks hands nothing out")

    def waiting(self) -> int | None:
        return None
