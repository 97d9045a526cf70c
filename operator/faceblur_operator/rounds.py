"""Asks the API server at regular times for what no watch tells, and for what a watch may have missed.

A round is one request for the API groups, one for the metadata of all clusters, and one for each Secret that a cluster
waits for. It notices kinds that are installed or removed, Secrets, clusters that no watch has told of, and it has every
cluster looked at again when its time has come.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Protocol

from .api.v1alpha1 import API_VERSION, CLUSTER_KIND
from .kube import Forbidden, KubeError, Unauthorized, Unreachable
from .metrics import Metrics
from .observed import Manifest
from .plan import OPTIONAL_APIS
from .reconciler import Key, Known, Reconciler
from .watches import Watches
from .workers import Reports

_UNREADY_SECONDS = 60.0
_SECRETS_EVERY = 4

log = logging.getLogger(__name__)


class Kube(Protocol):
    """What a round needs of the API server; `kube.Kube` is the real one. Everything raises `KubeError`."""

    async def apis(self) -> frozenset[str]:
        """Every group with its versions that the API server has."""

    async def clusters(self, namespace: str | None) -> list[Manifest]:
        """The metadata of all FaceBlurClusters of a namespace, None for all namespaces."""

    async def secret_exists(self, namespace: str, name: str) -> bool:
        """Whether there is a Secret of that name."""


class Wanted(Protocol):
    """What a round tells; `workqueue.Queue` is the real one."""

    def add(self, key: Key) -> None:
        """Have a cluster reconciled after this moment."""

    def suggest(self, key: Key) -> None:
        """Have a cluster reconciled, unless that is under way: the next round will notice what is left."""


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
        reports: Reports,
        metrics: Metrics,
        namespaces: tuple[str, ...],
        tick_seconds: float,
        resync_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Put the parts together; `run` begins.

        Args:
            kube: The API server.
            reconciler: Knows the clusters, learns the optional kinds.
            queue: Has clusters reconciled.
            watches: Tells what was seen already.
            reports: Asks workers again that have not answered.
            metrics: Counts what happens.
            namespaces: That are served, none for all.
            tick_seconds: Between two rounds.
            resync_seconds: After which a cluster is looked at again.
            clock: In seconds.
        """
        self.changed = asyncio.Event()
        self._kube = kube
        self._reconciler = reconciler
        self._queue = queue
        self._watches = watches
        self._reports = reports
        self._metrics = metrics
        self._namespaces = namespaces
        self._tick_seconds = tick_seconds
        self._resync_seconds = resync_seconds
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
            await self._look_for_clusters()
            await self._look_for_secrets()
            self._look_for_time()
        self._count += 1
        self._last = self._clock()

    async def _look_for_kinds(self) -> None:
        apis = await self._kube.apis() & (OPTIONAL_APIS | {API_VERSION})
        installed = API_VERSION in apis
        if installed != self._installed and not installed:
            log.error("the kind %s is not installed, nothing is served until it is", CLUSTER_KIND)
        if apis != self._reconciler.apis or installed != self._installed:
            log.info("optional kinds", extra={"apis": sorted(apis - {API_VERSION})})
            self._reconciler.apis = apis
            self._installed = installed
            self.changed.set()
            for key in self._reconciler.known:
                self._queue.add(key)

    async def _look_for_clusters(self) -> None:
        listed, unlisted = set(), set()
        for namespace in self._namespaces or (None,):
            try:
                items = await self._kube.clusters(namespace)
            except (Unreachable, Unauthorized):
                raise
            except KubeError as error:  # one namespace that is closed to the operator does not close the others
                self._warn(error)
                unlisted.add(namespace)
                continue
            for item in items:
                metadata = item["metadata"]
                key = (metadata["namespace"], metadata["name"])
                listed.add(key)
                if not self._watches.has_seen(key, metadata["uid"], metadata["resourceVersion"]):
                    self._queue.suggest(key)
        for key in self._reconciler.known.keys() - listed:
            if not {key[0], None} & unlisted:
                self._queue.suggest(key)

    async def _look_for_secrets(self) -> None:
        """Secrets that are there are looked for less often than those that are waited for."""
        for key, known in list(self._reconciler.known.items()):
            if self._count % _SECRETS_EVERY and all(known.secrets.values()):
                continue
            for secret, was_there in known.secrets.items():
                try:
                    is_there = await self._kube.secret_exists(key[0], secret)
                except Forbidden as error:
                    self._warn(error)
                    continue
                if is_there != was_there:
                    self._queue.suggest(key)

    def _look_for_time(self) -> None:
        for key, known in self._reconciler.known.items():
            if self._clock() - known.looked >= self._patience(known):
                self._reports.ask_again(key)
                self._queue.suggest(key)

    def _patience(self, known: Known) -> float:
        """Seconds after which a cluster is looked at again: soon, if it is in a state that it should not stay in."""
        seconds = self._resync_seconds if known.ready else min(self._resync_seconds, _UNREADY_SECONDS)
        return seconds * known.patience - self._tick_seconds

    def _warn(self, error: KubeError) -> None:
        self._metrics.errors.labels(type(error).__name__).inc()
        log.warning("the API server does not answer as it should: %s", error)
