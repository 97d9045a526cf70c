"""What the operator saw of one resource, and what it decided: the values between `kube`, the plans and `reconciler`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from .api.v1alpha1 import FaceBlurCluster, FaceBlurClusterStatus, ModelVersion
from .api.v1alpha1_job import FaceBlurJob, FaceBlurJobStatus

Manifest = dict[str, Any]
S = TypeVar("S", FaceBlurClusterStatus, FaceBlurJobStatus)


class Key(NamedTuple):
    """A resource that the operator serves.

    Attributes:
        kind: Of our own kinds.
        namespace: That it is in.
        name: Its name.
    """

    kind: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class ObjectKey:
    """A place in the namespace of a resource that one object can take.

    Attributes:
        api_version: Such as ``apps/v1``.
        kind: Such as ``Deployment``.
        name: Of the object.
    """

    api_version: str
    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What a ready worker says that it runs.

    Attributes:
        version: Of FaceBlur.
        models: With their hashes.
    """

    version: str
    models: tuple[ModelVersion, ...]


@dataclass(frozen=True, slots=True)
class Observed:
    """One look at a cluster and all that belongs to it.

    Attributes:
        cluster: The resource, validated.
        objects: The live objects at every place that a plan may want, whoever owns them.
        pods: The live pods of the workers.
        secrets: For each Secret that the spec names, its version; empty where there is none.
        apis: Versions of optional APIs that the API server has, such as ``keda.sh/v1alpha1``.
        report: Of a ready worker with the present configuration; None where none was asked or none answered.
    """

    cluster: FaceBlurCluster
    objects: Mapping[ObjectKey, Manifest] = field(default_factory=dict)
    pods: tuple[Manifest, ...] = ()
    secrets: Mapping[str, str] = field(default_factory=dict)
    apis: frozenset[str] = frozenset()
    report: WorkerReport | None = None


@dataclass(frozen=True, slots=True)
class JobObserved:
    """One look at a FaceBlurJob and all that belongs to it.

    Attributes:
        job: The resource, validated.
        cluster: The FaceBlurCluster that it names, with its status; None where there is none that can be read.
        objects: The live objects at every place that a plan may want, whoever owns them.
        runs: The live Kubernetes Jobs of a schedule.
        pods: The live pods of planners.
        secrets: For each Secret that a planner mounts, its version; empty where there is none.
    """

    job: FaceBlurJob
    cluster: FaceBlurCluster | None = None
    objects: Mapping[ObjectKey, Manifest] = field(default_factory=dict)
    runs: tuple[Manifest, ...] = ()
    pods: tuple[Manifest, ...] = ()
    secrets: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Memory:
    """What the operator remembers of its own last writes for one resource. Losing it costs one write an object.

    Attributes:
        accepted: For objects that still differed right after an apply, since the API server or an admission webhook
            changed what was sent: the `compare.residue` of that difference. It is not repaired again.
        refused: Why the API server did not take an object, in its words. An entry is dropped when an apply succeeds.
    """

    accepted: Mapping[ObjectKey, str] = field(default_factory=dict)
    refused: Mapping[ObjectKey, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes Event about the resource.

    Attributes:
        reason: One word for programs.
        message: A sentence for people.
        warning: Whether somebody should look.
    """

    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Plan(Generic[S]):
    """What to write, in this order: keep, apply, delete, status, events.

    Attributes:
        keep_replicas: Manifests with nothing but ``spec.replicas``, to apply first with the field manager
            `naming.REPLICAS_FIELD_MANAGER` and without force: the apply that follows drops the field, and a field
            that nobody owns falls back to its default of 1. A conflict means that an autoscaler owns it by now,
            which is as good.
        apply: Manifests to apply.
        delete: Objects of ours that the spec no longer asks for.
        status: Of the resource.
        events: Worth telling.
        again: Seconds after which there is something to do although nothing will have happened; None: there is not.
        expired: The resource itself is to be deleted.
    """

    keep_replicas: tuple[Manifest, ...]
    apply: tuple[Manifest, ...]
    delete: tuple[ObjectKey, ...]
    status: S
    events: tuple[Event, ...] = ()
    again: float | None = None
    expired: bool = False
