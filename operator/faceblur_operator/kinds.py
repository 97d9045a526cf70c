"""What differs between the kinds that the operator serves: what a look reads, and which plan decides.

Everything else about a reconcile is the same for all of them, and in `reconciler`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Protocol, TypeAlias

from pydantic import ValidationError

from . import job_naming, naming
from .api.v1alpha1 import API_VERSION, CLUSTER_KIND, CLUSTER_PLURAL, FaceBlurCluster, FaceBlurClusterStatus, ObjectMeta
from .api.v1alpha1_job import JOB_KIND, JOB_PLURAL, FaceBlurJob, FaceBlurJobStatus, Phase
from .job_conditions import ConditionType
from .job_plan import invalid_status as invalid_job_status
from .job_plan import job_places, job_secrets, make_job_plan
from .observed import Event, JobObserved, Key, Manifest, Memory, ObjectKey, Observed, Plan
from .plan import OPTIONAL_APIS, PlanSettings, invalid_status, make_plan, places, secrets
from .workers import Reports

Status: TypeAlias = FaceBlurClusterStatus | FaceBlurJobStatus
AnyPlan: TypeAlias = Plan[FaceBlurClusterStatus] | Plan[FaceBlurJobStatus]


class Kube(Protocol):
    """What a reconcile needs of the API server; `kube.Kube` is the real one. Everything raises `KubeError`."""

    async def get(self, key: ObjectKey, namespace: str) -> Manifest | None:
        """The object at a place, None where there is none."""

    async def pods(self, namespace: str, selector: str) -> list[Manifest]:
        """The pods with these labels."""

    async def jobs(self, namespace: str, selector: str) -> list[Manifest]:
        """The Kubernetes Jobs with these labels."""

    async def secret_version(self, namespace: str, name: str) -> str:
        """The version of a Secret, empty where there is none of that name."""

    async def apply(
        self, manifest: Manifest, *, manager: str = ..., force: bool = ..., subresource: str = ...
    ) -> Manifest:
        """Server-side apply; returns the object as it is afterwards."""

    async def delete(self, key: ObjectKey, namespace: str, uid: str, version: str = ...) -> None:
        """Delete an object unless another one has taken its place."""

    async def post_event(self, resource: Manifest, event: Event) -> None:
        """Write an Event about a resource."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a look has seen.

    Attributes:
        plan: Decides by it, given the time and the memory of the last writes.
        objects: The live objects at all places.
        others: Live objects besides, with their kinds.
        secrets: Versions of the Secrets that matter, empty where there is none.
        needs: Another resource whose changes concern this one.
    """

    plan: Callable[[datetime, Memory], AnyPlan]
    objects: Mapping[ObjectKey, Manifest]
    others: tuple[tuple[str, Manifest], ...] = ()
    secrets: Mapping[str, str] = field(default_factory=dict)
    needs: Key | None = None


class Kind(Protocol):
    """One of our kinds."""

    name: ClassVar[str]
    plural: ClassVar[str]

    def status_of(self, raw: Manifest) -> Status:
        """The status of a resource; empty where there is none that can be read."""

    async def look(self, raw: Manifest, status: Status, apis: frozenset[str]) -> Look:
        """Look at everything that belongs to a resource.

        Args:
            raw: The live resource.
            status: Of it.
            apis: What the API server has.

        Raises:
            ValidationError: The spec cannot be read.
            KubeError: The API server does not answer as it should.
        """

    def invalid(self, raw: Manifest, status: Status, message: str, now: datetime) -> Status:
        """The status of a resource whose spec cannot be read."""

    def is_at_rest(self, status: Status) -> bool:
        """Whether a resource is in a state that it may stay in."""


class ClusterKind:
    """FaceBlurClusters."""

    name: ClassVar[str] = CLUSTER_KIND
    plural: ClassVar[str] = CLUSTER_PLURAL

    def __init__(self, kube: Kube, settings: PlanSettings, reports: Reports) -> None:
        """Put the parts together.

        Args:
            kube: The API server.
            settings: What plans need to know.
            reports: What the workers say.
        """
        self._kube = kube
        self._settings = settings
        self._reports = reports

    def status_of(self, raw: Manifest) -> FaceBlurClusterStatus:
        """See `Kind`."""
        try:
            return FaceBlurClusterStatus.model_validate(raw.get("status") or {})
        except ValidationError:
            return FaceBlurClusterStatus()

    async def look(self, raw: Manifest, status: Status, apis: frozenset[str]) -> Look:
        """See `Kind`."""
        cluster = FaceBlurCluster.model_validate(
            {"metadata": raw["metadata"], "spec": raw.get("spec") or {}, "status": status}
        )
        apis &= OPTIONAL_APIS
        wanted = [place for place in places(cluster) if place.api_version not in OPTIONAL_APIS - apis]
        pods, objects, versions = await asyncio.gather(
            self._kube.pods(cluster.namespace, naming.pods_selector(cluster)),
            _at(self._kube, wanted, cluster.namespace),
            _versions_of(self._kube, secrets(cluster), cluster.namespace),
        )
        workers = [pod for pod in pods if _component(pod) in ("", naming.WORKER)]
        observed = Observed(
            cluster=cluster,
            objects=objects,
            pods=tuple(pods),
            secrets=versions,
            apis=apis,
            report=self._reports.of(Key(self.name, cluster.namespace, cluster.name), workers),
        )
        return Look(
            plan=lambda now, memory: make_plan(observed, self._settings, now, memory),
            objects=objects,
            others=tuple(("Pod", pod) for pod in pods),
            secrets=versions,
        )

    def invalid(self, raw: Manifest, status: Status, message: str, now: datetime) -> Status:
        """See `Kind`."""
        assert isinstance(status, FaceBlurClusterStatus)
        return invalid_status(ObjectMeta.model_validate(raw["metadata"]), status, message, now)

    def is_at_rest(self, status: Status) -> bool:
        """See `Kind`."""
        return any(condition.type == "Ready" and condition.status == "True" for condition in status.conditions)


class JobKind:
    """FaceBlurJobs."""

    name: ClassVar[str] = JOB_KIND
    plural: ClassVar[str] = JOB_PLURAL

    def __init__(self, kube: Kube, settings: PlanSettings) -> None:
        """Put the parts together.

        Args:
            kube: The API server.
            settings: What plans need to know.
        """
        self._kube = kube
        self._settings = settings

    def status_of(self, raw: Manifest) -> FaceBlurJobStatus:
        """See `Kind`."""
        try:
            return FaceBlurJobStatus.model_validate(raw.get("status") or {})
        except ValidationError:
            return FaceBlurJobStatus()

    async def look(self, raw: Manifest, status: Status, apis: frozenset[str]) -> Look:
        """See `Kind`."""
        job = FaceBlurJob.model_validate({"metadata": raw["metadata"], "spec": raw.get("spec") or {}, "status": status})
        namespace, selector = job.namespace, job_naming.selector(job)
        cluster = await self._cluster_of(job)
        pods, runs, objects, versions = await asyncio.gather(
            self._kube.pods(namespace, selector),
            self._kube.jobs(namespace, selector) if job.spec.schedule else _nothing(),
            _at(self._kube, job_places(job), namespace),
            _versions_of(self._kube, job_secrets(cluster), namespace),
        )
        observed = JobObserved(
            job=job, cluster=cluster, objects=objects, runs=tuple(runs), pods=tuple(pods), secrets=versions
        )
        return Look(
            plan=lambda now, memory: make_job_plan(observed, self._settings, now, memory),
            objects=objects,
            others=(*(("Pod", pod) for pod in pods), *(("Job", run) for run in runs)),
            secrets=versions,
            needs=Key(CLUSTER_KIND, namespace, job.spec.cluster_ref.name),
        )

    def invalid(self, raw: Manifest, status: Status, message: str, now: datetime) -> Status:
        """See `Kind`."""
        assert isinstance(status, FaceBlurJobStatus)
        return invalid_job_status(ObjectMeta.model_validate(raw["metadata"]), status, message, now)

    def is_at_rest(self, status: Status) -> bool:
        """See `Kind`."""
        assert isinstance(status, FaceBlurJobStatus)
        holds = {condition.type for condition in status.conditions if condition.status == "True"}
        waits = status.phase in (None, Phase.PENDING) and ConditionType.SCHEDULED not in holds
        return not waits and ConditionType.DEGRADED not in holds

    async def _cluster_of(self, job: FaceBlurJob) -> FaceBlurCluster | None:
        """The cluster that a job names; None where there is none, or none that stays or can be read."""
        name = job.spec.cluster_ref.name
        raw = await self._kube.get(ObjectKey(API_VERSION, CLUSTER_KIND, name), job.namespace)
        if raw is None or "deletionTimestamp" in raw["metadata"]:
            return None
        try:
            return FaceBlurCluster.model_validate(raw)
        except ValidationError:
            return None


async def _nothing() -> list[Manifest]:
    return []


async def _at(kube: Kube, wanted: list[ObjectKey] | tuple[ObjectKey, ...], namespace: str) -> dict[ObjectKey, Manifest]:
    """The live objects at these places."""
    found = await asyncio.gather(*(kube.get(place, namespace) for place in wanted))
    return {place: live for place, live in zip(wanted, found, strict=True) if live is not None}


async def _versions_of(kube: Kube, names: tuple[str, ...], namespace: str) -> dict[str, str]:
    """The versions of Secrets."""
    found = await asyncio.gather(*(kube.secret_version(namespace, name) for name in names))
    return dict(zip(names, found, strict=True))


def _component(pod: Manifest) -> str:
    return str((pod["metadata"].get("labels") or {}).get(naming.COMPONENT_LABEL, ""))
