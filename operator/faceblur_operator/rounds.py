"""Asks the API server at regular times for what no watch tells, and for what a watch may have missed.

A round is two requests for what the API server has, one for the metadata of all resources of each kind, and one for
each Secret that one of them waits for. It notices kinds that are installed or removed, Secrets, resources that no watch
has told of, and it has every resource looked at again when its time has come.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Protocol

from .api.v1alpha1 import API_VERSION, CLUSTER_KIND
from .api.v1alpha1_job import JOB_KIND, JOB_PLURAL
from .kube import Forbidden, KubeError, Unauthorized, Unreachable
from .metrics import Metrics
from .observed import Key, Manifest
from .plan import OPTIONAL_APIS
from .reconciler import Known, Reconciler
from .watches import Watches

JOBS = f"{API_VERSION}/{JOB_PLURAL}"
"""What the API server has where our second kind is installed."""

_UNREADY_SECONDS = 60.0
_SECRETS_EVERY = 4

log = logging.getLogger(__name__)


class Kube(Protocol):
    """What a round needs of the API server; `kube.Kube` is the real one. Everything raises `KubeError`."""

    async def apis(self) -> frozenset[str]:
        """Every group with its versions that the API server has, and our own kinds."""

    async def resources(self, kind: str, namespace: str | None) -> list[Manifest]:
        """The metadata of all resources of one of our kinds in a namespace, None for all namespaces."""

    async def secret_version(self, namespace: str, name: str) -> str:
        """The version of a Secret, empty where there is none of that name."""


class Wanted(Protocol):
    """What a round tells; `workqueue.Queue` is the real one."""

    def add(self, key: Key) -> None:
        """Have a resource reconciled after this moment."""

    def suggest(self, key: Key) -> None:
        """Have a resource reconciled, unless that is under way: the next round will notice what is left."""


class Rounds:
    """The rounds.

    Attributes:
        changed: Set when kinds have been installed or removed; whoever watches them clears it.
    """

    def __init__(
        self,
        kube: Kube,
        reconciler: Reconciler,
        *,
        queue: Wanted,
        watches: Watches,
        metrics: Metrics,
        namespaces: tuple[str, ...],
        tick_seconds: float,
        resync_seconds: float,
        time_has_come: Callable[[Key], None] = lambda key: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Put the parts together; `run` begins.

        Args:
            kube: The API server.
            reconciler: Knows the resources, learns the optional kinds.
            queue: Has resources reconciled.
            watches: Tells what was seen already.
            metrics: Counts what happens.
            namespaces: That are served, none for all.
            tick_seconds: Between two rounds.
            resync_seconds: After which a resource is looked at again.
            time_has_come: Called with a resource before it is looked at again for no other reason.
            clock: In seconds.
        """
        self.changed = asyncio.Event()
        self._kube = kube
        self._reconciler = reconciler
        self._queue = queue
        self._watches = watches
        self._metrics = metrics
        self._namespaces = namespaces
        self._tick_seconds = tick_seconds
        self._resync_seconds = resync_seconds
        self._time_has_come = time_has_come
        self._clock = clock
        self._last = clock()
        self._count = 0
        self._installed: bool | None = None

    def age(self) -> float:
        """Seconds since the last round that succeeded."""
        return self._clock() - self._last

    async def run(self) -> None:
        """Go round for ever."""
        while True:
            try:
                await self.tick()
            except KubeError as error:
                self._warn(error)
            await asyncio.sleep(self._tick_seconds * random.uniform(0.9, 1.1))  # noqa: S311

    async def tick(self) -> None:
        """Go round once.

        Raises:
            KubeError: The API server cannot be reached, or a right is missing.
        """
        await self._look_for_kinds()
        if self._installed:
            await self._look_for_resources()
            await self._look_for_secrets()
            self._look_for_time()
        self._count += 1
        self._last = self._clock()

    async def _look_for_kinds(self) -> None:
        apis = await self._kube.apis() & (OPTIONAL_APIS | {API_VERSION, JOBS})
        installed = API_VERSION in apis
        if installed != self._installed and not installed:
            log.error("the kind %s is not installed, nothing is served until it is", CLUSTER_KIND)
        elif installed and JOBS not in apis and (JOBS in self._reconciler.apis or self._installed is None):
            log.warning("the kind %s is not installed, batches are not served until it is", JOB_KIND)
        if apis != self._reconciler.apis or installed != self._installed:
            log.info("optional kinds", extra={"apis": sorted(apis - {API_VERSION})})
            self._reconciler.apis = apis
            self._installed = installed
            self.changed.set()
            for key in self._reconciler.known:
                self._queue.add(key)

    async def _look_for_resources(self) -> None:
        kinds = [CLUSTER_KIND, *([JOB_KIND] if JOBS in self._reconciler.apis else [])]
        listed: set[Key] = set()
        unlisted: set[tuple[str, str | None]] = set()
        for kind, namespace in ((kind, namespace) for kind in kinds for namespace in self._namespaces or (None,)):
            try:
                items = await self._kube.resources(kind, namespace)
            except (Unreachable, Unauthorized):
                raise
            except KubeError as error:  # one namespace that is closed to the operator does not close the others
                self._warn(error)
                unlisted.add((kind, namespace))
                continue
            for item in items:
                metadata = item["metadata"]
                key = Key(kind, metadata["namespace"], metadata["name"])
                listed.add(key)
                if not self._watches.has_seen(key, metadata["uid"], metadata["resourceVersion"]):
                    self._queue.suggest(key)
        for key in self._reconciler.known.keys() - listed:
            if not {(key.kind, key.namespace), (key.kind, None)} & unlisted:
                self._queue.suggest(key)

    async def _look_for_secrets(self) -> None:
        """Secrets that are there are looked for less often than those that are waited for."""
        for key, known in list(self._reconciler.known.items()):
            if self._count % _SECRETS_EVERY and all(known.secrets.values()):
                continue
            for secret, version in known.secrets.items():
                try:
                    found = await self._kube.secret_version(key.namespace, secret)
                except Forbidden as error:
                    self._warn(error)
                    continue
                if found != version:
                    self._queue.suggest(key)

    def _look_for_time(self) -> None:
        for key, known in self._reconciler.known.items():
            if self._clock() - known.looked >= self._patience(known):
                self._time_has_come(key)
                self._queue.suggest(key)
            elif known.again is not None and self._clock() >= known.again:
                self._queue.suggest(key)

    def _patience(self, known: Known) -> float:
        """Seconds after which a resource is looked at again: soon, if it is in a state that it should not stay in."""
        seconds = self._resync_seconds if known.ready else min(self._resync_seconds, _UNREADY_SECONDS)
        return seconds * known.patience - self._tick_seconds

    def _warn(self, error: KubeError) -> None:
        self._metrics.errors.labels(type(error).__name__).inc()
        log.warning("the API server does not answer as it should: %s", error)
