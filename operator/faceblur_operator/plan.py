"""Decides what to write for a cluster, from one look at it. Pure: the same look gives the same plan.

The reconciler carries a plan out as it is. What it observes for the next one: all `places`, the workers' pods, the
Secrets that `secrets` names, and which of `OPTIONAL_APIS` there are.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from . import compare, naming
from .api.v1alpha1 import AutoscalingMode, FaceBlurCluster
from .builders.autoscaler import build_autoscaler
from .builders.certificate import build_certificate
from .builders.disruption_budget import build_disruption_budget
from .builders.network_policy import build_network_policy
from .builders.scaled_object import build_scaled_object
from .builders.service_account import build_service_account
from .builders.service_monitor import build_service_monitor
from .builders.worker_deployment import build_worker_deployment
from .builders.worker_service import build_external_service, build_worker_service
from .conditions import events_between
from .observed import Manifest, Memory, ObjectKey, Observed, Plan
from .status import CERT_MANAGER_API, KEDA_API, MONITORING_API, View, invalid_status, make_status

__all__ = ["OPTIONAL_APIS", "PlanSettings", "invalid_status", "make_plan", "places", "secrets"]

OPTIONAL_APIS = frozenset({KEDA_API, MONITORING_API, CERT_MANAGER_API})


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """What a plan needs to know about the operator and the Kubernetes cluster that it is in.

    Attributes:
        worker_image: Image of workers where a cluster names none.
        operator_namespace: Where the operator runs; empty where that is not known, as outside the cluster.
        operator_labels: Labels that select the operator's pods, so that a NetworkPolicy lets them read metrics.
        cluster_domain: DNS domain, for addresses and certificates.
    """

    worker_image: str
    operator_namespace: str
    operator_labels: Mapping[str, str]
    cluster_domain: str = "cluster.local"


def make_plan(observed: Observed, settings: PlanSettings, now: datetime, memory: Memory | None = None) -> Plan:
    """Decide what brings a cluster to its spec, and what its status is.

    Args:
        observed: One look at the cluster. Live objects need their ``metadata.managedFields``.
        settings: About the operator.
        now: For the conditions; aware of its time zone.
        memory: Of the last writes.
    """
    memory = memory or Memory()
    cluster = observed.cluster
    own = {key: live for key, live in observed.objects.items() if _belongs(live, cluster)}
    taken = {key: live for key, live in observed.objects.items() if key not in own}
    replicas, keep = _decide_replicas(observed, own)
    deployment = build_worker_deployment(cluster, default_image=settings.worker_image, replicas=replicas)
    wanted = {naming.key_of(manifest): manifest for manifest in _wanted(observed, settings, own, deployment)}
    due = [
        stamped
        for key, stamped in ((key, _stamped(manifest)) for key, manifest in wanted.items())
        if key not in taken and _is_due(own.get(key), stamped, memory.accepted.get(key))
    ]
    obsolete = [key for key, live in own.items() if key not in wanted and not _is_going(live)]
    stale = any(_changes_template(own.get(naming.key_of(manifest)), manifest) for manifest in due)
    if cluster.spec.paused:
        due, obsolete, keep = [], [], ()
    status = make_status(
        View(
            observed=observed,
            deployment=deployment,
            own=own,
            taken={key: live for key, live in taken.items() if key in wanted},
            refused={key: memory.refused[key] for key in map(naming.key_of, due) if key in memory.refused},
            stale=stale,
            domain=settings.cluster_domain,
            now=now,
        )
    )
    return Plan(
        keep_replicas=keep,
        apply=tuple(due),
        delete=tuple(obsolete),
        status=status,
        events=events_between(cluster.status.conditions, status.conditions),
    )


def places(cluster: FaceBlurCluster) -> tuple[ObjectKey, ...]:
    """Every place that a plan may want to apply to or delete from: what `Observed.objects` has to cover.

    Those whose ``api_version`` is one of `OPTIONAL_APIS` only exist where `Observed.apis` has it.
    """
    worker = naming.worker_name(cluster.name)
    return (
        ObjectKey("v1", "ServiceAccount", worker),
        ObjectKey("networking.k8s.io/v1", "NetworkPolicy", worker),
        ObjectKey(CERT_MANAGER_API, "Certificate", worker),
        ObjectKey("v1", "Service", naming.service_name(cluster.name)),
        ObjectKey("v1", "Service", naming.external_service_name(cluster.name)),
        ObjectKey("apps/v1", "Deployment", worker),
        ObjectKey("policy/v1", "PodDisruptionBudget", worker),
        ObjectKey("autoscaling/v2", "HorizontalPodAutoscaler", worker),
        ObjectKey(KEDA_API, "ScaledObject", worker),
        ObjectKey(MONITORING_API, "ServiceMonitor", worker),
    )


def secrets(cluster: FaceBlurCluster) -> tuple[str, ...]:
    """The Secrets whose existence `Observed.secrets` has to tell."""
    tls = cluster.spec.tls
    names = (naming.tls_secret_name(cluster), tls.mutual.ca_secret_name if tls and tls.mutual else None)
    return tuple(dict.fromkeys(name for name in names if name))


def _wanted(
    observed: Observed, settings: PlanSettings, own: Mapping[ObjectKey, Manifest], deployment: Manifest
) -> Iterator[Manifest]:
    """What the spec asks for and this Kubernetes cluster can have, in the order in which it is applied."""
    cluster = observed.cluster
    spec = cluster.spec
    yield build_service_account(cluster)
    if spec.network_policy.enabled:
        yield build_network_policy(
            cluster, operator_namespace=settings.operator_namespace, operator_labels=settings.operator_labels
        )
    if spec.tls and spec.tls.issuer and CERT_MANAGER_API in observed.apis:
        yield build_certificate(cluster, spec.tls.issuer, cluster_domain=settings.cluster_domain)
    yield build_worker_service(cluster)
    external = build_external_service(cluster)
    if external:
        yield external
    yield deployment
    if spec.disruption_budget.enabled:
        yield build_disruption_budget(cluster)
    scaler = _autoscaler(observed)
    if scaler and _may_scale(scaler, observed, own, naming.key_of(deployment)):
        yield scaler
    if spec.metrics.service_monitor.enabled and MONITORING_API in observed.apis:
        yield build_service_monitor(cluster)


def _autoscaler(observed: Observed) -> Manifest | None:
    mode = observed.cluster.spec.autoscaling.mode
    if mode is AutoscalingMode.CPU:
        return build_autoscaler(observed.cluster)
    if mode is AutoscalingMode.KEDA and KEDA_API in observed.apis:
        return build_scaled_object(observed.cluster)
    return None


def _may_scale(scaler: Manifest, observed: Observed, own: Mapping[ObjectKey, Manifest], target: ObjectKey) -> bool:
    """Never somebody else's Deployment, and not before the autoscaler of the former mode is gone.

    Two of them would fight, and KEDA refuses a Deployment that has an autoscaler already.
    """
    if target in observed.objects and target not in own:
        return False
    key = naming.key_of(scaler)
    return key in own or not any(other.kind in ("HorizontalPodAutoscaler", "ScaledObject") for other in own)


def _decide_replicas(observed: Observed, own: Mapping[ObjectKey, Manifest]) -> tuple[int | None, tuple[Manifest, ...]]:
    """Return the replicas to apply, None to leave them out, and what to apply before they are left out.

    An autoscaler owns the field as soon as there is a Deployment for it to scale. Only one that has been scaled to
    zero by hand is taken up again, because a HorizontalPodAutoscaler lets it be.
    """
    spec = observed.cluster.spec
    scaling = spec.autoscaling
    if scaling.mode is AutoscalingMode.FIXED:
        return spec.replicas or 0, ()
    if scaling.mode is AutoscalingMode.KEDA and KEDA_API not in observed.apis:
        return max(1, scaling.min_replicas), ()
    live = own.get(ObjectKey("apps/v1", "Deployment", naming.worker_name(observed.cluster.name)))
    if live is None:
        return scaling.min_replicas, ()
    count = int(live["spec"].get("replicas", 1))
    if _applies_replicas(live):
        within = min(max(count, scaling.min_replicas), scaling.max_replicas)
        return (within, ()) if within != count else (None, (_replicas_alone(live, count),))
    if count == 0 and scaling.mode is AutoscalingMode.CPU:
        return scaling.min_replicas, ()
    return None, ()


def _applies_replicas(live: Manifest) -> bool:
    """Whether the operator's last apply had replicas in it."""
    return any(
        entry.get("manager") == naming.FIELD_MANAGER
        and entry.get("operation") == "Apply"
        and "f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {})
        for entry in live["metadata"].get("managedFields") or ()
    )


def _replicas_alone(live: Manifest, count: int) -> Manifest:
    metadata = {name: live["metadata"][name] for name in ("name", "namespace", "uid")}  # the uid: never create one
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {"replicas": count}}


def _changes_template(live: Manifest | None, manifest: Manifest) -> bool:
    """Whether applying a manifest makes new pods."""
    if manifest["kind"] != "Deployment" or live is None:
        return False
    return not compare.contains(live["spec"]["template"], manifest["spec"]["template"])


def _belongs(live: Manifest, cluster: FaceBlurCluster) -> bool:
    references = live["metadata"].get("ownerReferences") or ()
    return any(reference.get("uid") == cluster.metadata.uid for reference in references)


def _is_going(live: Manifest) -> bool:
    return bool(live["metadata"].get("deletionTimestamp"))


def _stamped(manifest: Manifest) -> Manifest:
    """The manifest with what tells later that the live object was made from it."""
    stamped = copy.deepcopy(manifest)
    stamped["metadata"].setdefault("annotations", {})[naming.APPLIED_ANNOTATION] = compare.digest(manifest)
    return stamped


def _is_due(live: Manifest | None, manifest: Manifest, accepted: str | None) -> bool:
    """Whether a manifest has to be applied: nothing is there, something else was applied last, or it was changed.

    That something was left out of the manifest since then only shows in its stamp.
    """
    if live is None:
        return True
    residue = compare.residue(live, manifest)
    return bool(residue) and residue != accepted
