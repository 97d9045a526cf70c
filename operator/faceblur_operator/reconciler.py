"""Brings a cluster to its spec: looks at all that belongs to it, lets `plan` decide, and writes what was decided.

Nothing is remembered that a look could tell, so a reconcile may come at any time, for any reason, and twice. What is
kept between two of them only saves work: which versions were seen, which differences the API server insists on.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from pydantic import ValidationError

from . import compare, naming
from .api.v1alpha1 import API_VERSION, CLUSTER_KIND, FaceBlurCluster, FaceBlurClusterStatus, ObjectMeta
from .kube import Conflict, KubeError, Terminating, Unauthorized, Unreachable
from .logs import CLUSTER
from .metrics import Metrics
from .observed import Event, Manifest, Memory, ObjectKey, Observed, Plan
from .plan import OPTIONAL_APIS, PlanSettings, invalid_status, make_plan, places, secrets
from .watches import Watches
from .workers import Reports

Key = tuple[str, str]

log = logging.getLogger(__name__)


class Kube(Protocol):
    """What a reconcile needs of the API server; `kube.Kube` is the real one. Everything raises `KubeError`."""

    async def get(self, key: ObjectKey, namespace: str) -> Manifest | None:
        """The object at a place, None where there is none."""

    async def pods(self, namespace: str, selector: str) -> list[Manifest]:
        """The pods with these labels."""

    async def secret_exists(self, namespace: str, name: str) -> bool:
        """Whether there is a Secret of that name."""

    async def apply(
        self, manifest: Manifest, *, manager: str = ..., force: bool = ..., subresource: str = ...
    ) -> Manifest:
        """Server-side apply; returns the object as it is afterwards."""

    async def delete(self, key: ObjectKey, namespace: str, uid: str) -> None:
        """Delete an object unless another one has taken its place."""

    async def post_event(self, cluster: Manifest, event: Event) -> None:
        """Write an Event about a cluster."""


@dataclass(slots=True)
class Known:
    """What is kept about a cluster between two reconciles.

    Attributes:
        looked: When it was looked at last, by the monotonic clock.
        patience: Share of the configured time after which it is looked at again, so that not all come at once.
        ready: Whether it was Ready.
        secrets: Which of the Secrets that it names were there.
        memory: Of the last writes.
        told: The last failure that an Event was written about.
    """

    looked: float = 0.0
    patience: float = field(default_factory=lambda: random.uniform(0.7, 1))  # noqa: S311
    ready: bool = False
    secrets: Mapping[str, bool] = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory)
    told: str = ""


class Reconciler:
    """Reconciles clusters. Two calls for the same cluster must not overlap: `workqueue.Queue` sees to that."""

    def __init__(
        self,
        kube: Kube,
        settings: PlanSettings,
        *,
        watches: Watches,
        reports: Reports,
        metrics: Metrics,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Put the parts together.

        Args:
            kube: The API server.
            settings: What plans need to know.
            watches: Learns what every look has seen.
            reports: What the workers say.
            metrics: Counts what happens.
            now: The time for conditions.
        """
        self.apis: frozenset[str] = frozenset()
        self.known: dict[Key, Known] = {}
        self._kube = kube
        self._settings = settings
        self._watches = watches
        self._reports = reports
        self._metrics = metrics
        self._now = now

    async def reconcile(self, key: Key) -> float | None:
        """Bring a cluster to its spec; a no-op when it is gone or going.

        Args:
            key: Its namespace and name.

        Returns:
            None when all is done; else after how many seconds it makes sense to try again at the earliest.
        """
        token = CLUSTER.set(key)
        started = time.perf_counter()
        retry: float | None = None
        try:
            result = await self._reconcile(key)
            if result == "refused":
                retry = 0.0
        except Terminating:
            result = "gone"
        except KubeError as error:
            result, retry = "failed", error.retry_after or 0.0
            self._metrics.errors.labels(type(error).__name__).inc()
            log.warning("not reconciled, it is tried again: %s", error)
            await self._tell(key, error)
        except Exception as error:
            result, retry = "failed", 0.0
            self._metrics.errors.labels(type(error).__name__).inc()
            log.exception("not reconciled by a defect, please report it: %s", type(error).__name__)
        finally:
            CLUSTER.reset(token)
        self._metrics.reconciles.labels(result).inc()
        self._metrics.seconds.observe(time.perf_counter() - started)
        return retry

    def forget(self, key: Key) -> None:
        """Drop what is kept about a cluster that is gone."""
        self.known.pop(key, None)
        self._metrics.conditions.pop(key, None)
        self._watches.forget(key)
        self._reports.forget(key)

    async def _reconcile(self, key: Key) -> str:
        namespace, name = key
        since = time.monotonic()
        raw = await self._kube.get(ObjectKey(API_VERSION, CLUSTER_KIND, name), namespace)
        if raw is None or "deletionTimestamp" in raw["metadata"]:
            self.forget(key)
            return "gone"
        known = self.known.setdefault(key, Known())
        known.looked = since
        previous = _status_of(raw)
        try:
            cluster = FaceBlurCluster.model_validate(
                {"metadata": raw["metadata"], "spec": raw.get("spec") or {}, "status": previous}
            )
        except ValidationError as error:
            self._watches.seen(key, _versions([(CLUSTER_KIND, raw)]), since)
            meta = ObjectMeta.model_validate(raw["metadata"])
            status = invalid_status(meta, previous, _explain(error), self._now())
            await self._write_status(key, raw, previous, status)
            return "invalid"
        observed = await self._look(key, raw, cluster, since)
        known.secrets = observed.secrets
        plan = make_plan(observed, self._settings, self._now(), known.memory)
        before = known.memory
        known.memory = await self._carry_out(observed, plan, before)
        if known.memory.refused != before.refused:
            plan = make_plan(observed, self._settings, self._now(), known.memory)
        await self._write_status(key, raw, previous, plan.status)
        for event in plan.events:
            await self._post(raw, event)
        if known.memory.refused:
            return "refused"
        known.told = ""
        return "done"

    async def _look(self, key: Key, raw: Manifest, cluster: FaceBlurCluster, since: float) -> Observed:
        """Look at everything that belongs to a cluster."""
        namespace, apis = cluster.namespace, self.apis & OPTIONAL_APIS
        wanted = [place for place in places(cluster) if place.api_version not in OPTIONAL_APIS - apis]
        names = secrets(cluster)
        pods, objects, exist = await asyncio.gather(
            self._kube.pods(namespace, naming.selector(cluster)),
            asyncio.gather(*(self._kube.get(place, namespace) for place in wanted)),
            asyncio.gather(*(self._kube.secret_exists(namespace, name) for name in names)),
        )
        live = {place: found for place, found in zip(wanted, objects, strict=True) if found is not None}
        belongings = [*((place.kind, found) for place, found in live.items()), *(("Pod", pod) for pod in pods)]
        watched = [(kind, item) for kind, item in belongings if _is_managed(item)]
        self._watches.seen(key, _versions([(CLUSTER_KIND, raw), *watched]), since)
        return Observed(
            cluster=cluster,
            objects=live,
            pods=tuple(pods),
            secrets=dict(zip(names, exist, strict=True)),
            apis=apis,
            report=self._reports.of(key, pods),
        )

    async def _carry_out(self, observed: Observed, plan: Plan, memory: Memory) -> Memory:
        """Write what was decided; returns what to remember of it.

        An object that is refused does not keep the others from being written, but nothing is deleted then.

        Raises:
            KubeError: The API server cannot be reached or does not know the operator, or the namespace is going.
        """
        accepted, refused = dict(memory.accepted), {}
        for manifest in plan.keep_replicas:
            try:
                await self._apply(manifest, manager=naming.REPLICAS_FIELD_MANAGER, force=False)
            except Conflict:
                log.debug("an autoscaler owns the replicas already")
        for manifest in plan.apply:
            place = naming.key_of(manifest)
            try:
                live = await self._apply(manifest)
            except (Unreachable, Unauthorized, Terminating):
                raise
            except KubeError as error:
                self._metrics.errors.labels(type(error).__name__).inc()
                refused[place] = error.message
                if memory.refused.get(place) != error.message:
                    log.warning("refused, it is tried again: %s", error)
                continue
            if left := compare.residue(live, manifest):
                accepted[place] = left
                log.debug("the API server keeps %s %s different from what was applied", place.kind, place.name)
            else:
                accepted.pop(place, None)
        for place in () if refused else plan.delete:
            uid = observed.objects[place]["metadata"]["uid"]
            await self._kube.delete(place, observed.cluster.namespace, uid)
            accepted.pop(place, None)
            self._metrics.writes.labels(place.kind, "delete").inc()
            log.info("deleted", extra={"kind": place.kind, "object": place.name})
        return Memory(accepted=accepted, refused=refused)

    async def _apply(self, manifest: Manifest, **options: Any) -> Manifest:
        live = await self._kube.apply(manifest, **options)
        self._metrics.writes.labels(manifest["kind"], "apply").inc()
        log.info("applied", extra={"kind": manifest["kind"], "object": manifest["metadata"]["name"]})
        return live

    async def _write_status(
        self, key: Key, raw: Manifest, previous: FaceBlurClusterStatus, status: FaceBlurClusterStatus
    ) -> None:
        """Write the status where it says something else than before."""
        conditions = {condition.type: condition for condition in status.conditions}
        self._metrics.conditions[key] = {name: str(condition.status) for name, condition in conditions.items()}
        ready = conditions.get("Ready")
        self.known[key].ready = ready is not None and ready.status == "True"
        if status == previous:
            return
        metadata = raw["metadata"]
        await self._kube.apply(
            {
                "apiVersion": API_VERSION,
                "kind": CLUSTER_KIND,
                "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]},
                "status": status.model_dump(mode="json", by_alias=True, exclude_none=True),
            },
            subresource="status",
        )
        self._metrics.writes.labels(CLUSTER_KIND, "status").inc()
        was = {condition.type: condition for condition in previous.conditions}
        for name, condition in conditions.items():
            if name not in was or (was[name].status, was[name].reason) != (condition.status, condition.reason):
                log.info("%s is %s: %s", name, condition.status, condition.message, extra={"reason": condition.reason})

    async def _tell(self, key: Key, error: KubeError) -> None:
        """Write an Event about a failure, once for as long as it stays the same, if that can be done at all."""
        known = self.known.get(key)
        if known is None or isinstance(error, Unreachable | Unauthorized | Conflict) or known.told == error.message:
            return
        known.told = error.message
        try:
            raw = await self._kube.get(ObjectKey(API_VERSION, CLUSTER_KIND, key[1]), key[0])
        except KubeError:
            return
        if raw is not None:
            await self._post(raw, Event("ReconcileFailed", str(error), warning=True))

    async def _post(self, raw: Manifest, event: Event) -> None:
        """Write an Event; a cluster is not worse off without it."""
        try:
            await self._kube.post_event(raw, event)
        except Terminating:
            return
        except KubeError as error:
            self._metrics.errors.labels(type(error).__name__).inc()
            log.warning("no Event was written: %s", error)


def _is_managed(item: Manifest) -> bool:
    """Whether the watches tell about an object: they select by label."""
    return (item["metadata"].get("labels") or {}).get(naming.MANAGED_BY_LABEL) == naming.MANAGED_BY


def _versions(items: Iterable[tuple[str, Manifest]]) -> dict[str, tuple[str, str]]:
    """Kind and version of objects by their ids."""
    return {item["metadata"]["uid"]: (kind, item["metadata"]["resourceVersion"]) for kind, item in items}


def _status_of(raw: Manifest) -> FaceBlurClusterStatus:
    """The status of a cluster; empty where there is none that can be read."""
    try:
        return FaceBlurClusterStatus.model_validate(raw.get("status") or {})
    except ValidationError:
        return FaceBlurClusterStatus()


def _explain(error: ValidationError) -> str:
    """A sentence on the first thing that is wrong with a spec."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
