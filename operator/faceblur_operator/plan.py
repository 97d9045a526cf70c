"""Decides what to write for a cluster, from one look at it. Pure: the same look gives the same plan.

The reconciler carries a plan out as it is. What it observes for the next one: all `places`, the workers' pods, the
Secrets that `secrets` names, and which of `OPTIONAL_APIS` there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from . import compare, naming
from .api.v1alpha1 import AutoscalingMode, Batch, BatchAutoscalingMode, FaceBlurCluster, FaceBlurClusterStatus
from .builders.autoscaler import build_autoscaler
from .builders.batch_deployment import build_batch_deployment
from .builders.batch_environment import build_profiles, secrets_of
from .builders.batch_network_policy import (
    build_batch_network_policy,
    build_broker_network_policy,
    build_planner_network_policy,
)
from .builders.batch_scaling import (
    KEDA_API,
    build_batch_autoscaler,
    build_batch_scaled_object,
    build_trigger_authentication,
)
from .builders.broker import build_broker_deployment, build_broker_service
from .builders.certificate import build_certificate
from .builders.disruption_budget import build_disruption_budget
from .builders.network_policy import build_network_policy
from .builders.pod_monitor import build_pod_monitor
from .builders.scaled_object import build_scaled_object
from .builders.service_account import (
    build_batch_service_account,
    build_broker_service_account,
    build_service_account,
)
from .builders.service_monitor import build_service_monitor
from .builders.worker_deployment import build_worker_deployment
from .builders.worker_service import build_external_service, build_worker_service
from .conditions import events_between
from .observed import Manifest, Memory, ObjectKey, Observed, Plan
from .ownership import is_due, is_going, split, stamped
from .status import CERT_MANAGER_API, MONITORING_API, View, Workload, invalid_status, make_status

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


def make_plan(
    observed: Observed, settings: PlanSettings, now: datetime, memory: Memory | None = None
) -> Plan[FaceBlurClusterStatus]:
    """Decide what brings a cluster to its spec, and what its status is.

    Args:
        observed: One look at the cluster. Live objects need their ``metadata.managedFields``.
        settings: About the operator.
        now: For the conditions; aware of its time zone.
        memory: Of the last writes.
    """
    memory = memory or Memory()
    cluster = observed.cluster
    own, taken = split(observed.objects, cluster.metadata.uid)
    deployments, keep = _deployments(observed, settings, own)
    wanted = {naming.key_of(manifest): manifest for manifest in _wanted(observed, settings, own, deployments)}
    due = [
        manifest
        for key, manifest in ((key, stamped(manifest)) for key, manifest in wanted.items())
        if key not in taken and is_due(own.get(key), manifest, memory.accepted.get(key))
    ]
    obsolete = [key for key, live in own.items() if key not in wanted and not is_going(live)]
    stale = {naming.key_of(manifest) for manifest in due if _changes_template(own, manifest)}
    if cluster.spec.paused:
        due, obsolete, keep = [], [], ()
    status = make_status(
        View(
            observed=observed,
            workloads={
                component: Workload(manifest, own.get(key := naming.key_of(manifest)), key in stale)
                for component, manifest in deployments.items()
            },
            own=own,
            taken={key: live for key, live in taken.items() if key in wanted},
            refused={key: memory.refused[key] for key in map(naming.key_of, due) if key in memory.refused},
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
    worker, batch = naming.worker_name(cluster.name), naming.batch_name(cluster.name)
    broker = naming.broker_name(cluster.name)
    found = [
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
    ]
    if cluster.spec.batch or cluster.status.batch:  # the status tells while something may be left
        found += [
            ObjectKey("networking.k8s.io/v1", "NetworkPolicy", batch),
            ObjectKey("networking.k8s.io/v1", "NetworkPolicy", broker),
            ObjectKey("networking.k8s.io/v1", "NetworkPolicy", naming.planner_name(cluster.name)),
            ObjectKey("v1", "ServiceAccount", batch),
            ObjectKey("v1", "ServiceAccount", broker),
            ObjectKey("v1", "ConfigMap", batch),
            ObjectKey("v1", "Service", broker),
            ObjectKey("apps/v1", "Deployment", broker),
            ObjectKey("apps/v1", "Deployment", batch),
            ObjectKey("autoscaling/v2", "HorizontalPodAutoscaler", batch),
            ObjectKey(KEDA_API, "TriggerAuthentication", batch),
            ObjectKey(KEDA_API, "ScaledObject", batch),
            ObjectKey(MONITORING_API, "PodMonitor", batch),
        ]
    return tuple(found)


def secrets(cluster: FaceBlurCluster) -> tuple[str, ...]:
    """The Secrets whose versions `Observed.secrets` has to tell."""
    tls = cluster.spec.tls
    names = (
        naming.tls_secret_name(cluster),
        tls.mutual.ca_secret_name if tls and tls.mutual else None,
        *(secrets_of(cluster) if cluster.spec.batch else ()),
    )
    return tuple(dict.fromkeys(name for name in names if name))


@dataclass(frozen=True, slots=True)
class _Scaling:
    """Who decides on the replicas of a Deployment.

    Attributes:
        fixed: The spec, or whoever stands in for it: so many. None: an autoscaler.
        fewest: That the autoscaler keeps.
        most: That the autoscaler keeps.
        wakes: Whether the autoscaler brings the first one back when there is none.
    """

    fixed: int | None = None
    fewest: int = 0
    most: int = 0
    wakes: bool = False


def _deployments(
    observed: Observed, settings: PlanSettings, own: Mapping[ObjectKey, Manifest]
) -> tuple[Mapping[str, Manifest], tuple[Manifest, ...]]:
    """Return the Deployments by component, and what to apply before they are."""
    cluster = observed.cluster
    live = own.get(ObjectKey("apps/v1", "Deployment", naming.worker_name(cluster.name)))
    replicas, keep = _decide_replicas(_scaling(observed), live)
    image = settings.worker_image
    found = {naming.WORKER: build_worker_deployment(cluster, default_image=image, replicas=replicas)}
    if batch := cluster.spec.batch:
        if batch.broker.embedded:
            embedded = batch.broker.embedded
            found[naming.BROKER] = build_broker_deployment(cluster, batch, embedded, default_image=image)
        live = own.get(ObjectKey("apps/v1", "Deployment", naming.batch_name(cluster.name)))
        replicas, more = _decide_replicas(_batch_scaling(observed, batch), live)
        found[naming.BATCH] = build_batch_deployment(
            cluster,
            batch,
            default_image=image,
            cluster_domain=settings.cluster_domain,
            replicas=replicas,
            secrets=observed.secrets,
            live=live,
        )
        keep += more
    return found, keep


def _wanted(
    observed: Observed,
    settings: PlanSettings,
    own: Mapping[ObjectKey, Manifest],
    deployments: Mapping[str, Manifest],
) -> Iterator[Manifest]:
    """What the spec asks for and this Kubernetes cluster can have, in the order in which it is applied."""
    cluster = observed.cluster
    spec = cluster.spec
    deployment = deployments[naming.WORKER]
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
    if spec.batch:
        yield from _wanted_for_batches(observed, spec.batch, settings, own, deployments)


def _wanted_for_batches(
    observed: Observed,
    batch: Batch,
    settings: PlanSettings,
    own: Mapping[ObjectKey, Manifest],
    deployments: Mapping[str, Manifest],
) -> Iterator[Manifest]:
    cluster = observed.cluster
    policies, domain = cluster.spec.network_policy.enabled, settings.cluster_domain
    if policies:
        yield build_batch_network_policy(cluster, batch)
        yield build_planner_network_policy(cluster, batch)
    if batch.broker.embedded:
        if policies:
            yield build_broker_network_policy(cluster, batch)
        yield build_broker_service_account(cluster)
        yield build_broker_service(cluster)
        yield deployments[naming.BROKER]
    yield build_batch_service_account(cluster, batch)
    yield build_profiles(cluster)
    deployment = deployments[naming.BATCH]
    target = naming.key_of(deployment)
    if target not in own and not all(observed.secrets.get(name) for name in secrets_of(cluster)):
        return  # none could start, and the Secrets' versions are a part of the template
    yield deployment
    scaler = None
    if _counts_pages(observed, batch):
        authentication = build_trigger_authentication(cluster, batch)
        if authentication:
            yield authentication
        scaler = build_batch_scaled_object(cluster, batch, cluster_domain=domain)
    elif batch.autoscaling.mode is not BatchAutoscalingMode.FIXED:
        scaler = build_batch_autoscaler(cluster, batch)
    if scaler and _may_scale(scaler, observed, own, target):
        yield scaler
    if cluster.spec.metrics.service_monitor.enabled and MONITORING_API in observed.apis:
        yield build_pod_monitor(cluster)


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
    kinds = ("HorizontalPodAutoscaler", "ScaledObject")
    return key in own or not any(other.kind in kinds and other.name == key.name for other in own)


def _scaling(observed: Observed) -> _Scaling:
    spec = observed.cluster.spec
    scaling = spec.autoscaling
    if scaling.mode is AutoscalingMode.FIXED:
        return _Scaling(fixed=spec.replicas or 0)
    if scaling.mode is AutoscalingMode.KEDA and KEDA_API not in observed.apis:
        return _Scaling(fixed=max(1, scaling.min_replicas))
    return _Scaling(fewest=scaling.min_replicas, most=scaling.max_replicas, wakes=scaling.mode is AutoscalingMode.KEDA)


def _batch_scaling(observed: Observed, batch: Batch) -> _Scaling:
    scaling = batch.autoscaling
    if scaling.mode is BatchAutoscalingMode.FIXED:
        return _Scaling(fixed=batch.replicas or 0)
    counts = _counts_pages(observed, batch)
    fewest = scaling.min_replicas if counts else max(1, scaling.min_replicas)
    return _Scaling(fewest=fewest, most=scaling.max_replicas, wakes=counts)


def _counts_pages(observed: Observed, batch: Batch) -> bool:
    """Whether KEDA scales by the length of the queue."""
    return batch.autoscaling.mode is BatchAutoscalingMode.QUEUE and KEDA_API in observed.apis


def _decide_replicas(scaling: _Scaling, live: Manifest | None) -> tuple[int | None, tuple[Manifest, ...]]:
    """Return the replicas to apply, None to leave them out, and what to apply before they are left out.

    An autoscaler owns the field as soon as there is a Deployment for it to scale. Only one that has been scaled to
    zero by hand is taken up again, because a HorizontalPodAutoscaler lets it be.
    """
    if scaling.fixed is not None:
        return scaling.fixed, ()
    if live is None:
        return scaling.fewest, ()
    count = int(live["spec"].get("replicas", 1))
    if _applies_replicas(live):
        within = min(max(count, scaling.fewest), scaling.most)
        return (within, ()) if within != count else (None, (_replicas_alone(live, count),))
    if count == 0 and not scaling.wakes:
        return scaling.fewest, ()
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


def _changes_template(own: Mapping[ObjectKey, Manifest], manifest: Manifest) -> bool:
    """Whether applying a manifest makes new pods."""
    live = own.get(naming.key_of(manifest))
    if manifest["kind"] != "Deployment" or live is None:
        return False
    return not compare.contains(live["spec"]["template"], manifest["spec"]["template"])
