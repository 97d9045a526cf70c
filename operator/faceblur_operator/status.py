"""Says how a cluster is, from nothing but what was observed: a function of the world, not of what was done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from . import naming, pods
from .api.v1alpha1 import (
    AutoscalingMode,
    BatchAutoscalingMode,
    BatchStatus,
    Condition,
    ConditionStatus,
    FaceBlurClusterStatus,
    ModelVersion,
    ObjectMeta,
    ServiceType,
)
from .builders.batch_environment import secrets_of
from .builders.batch_scaling import KEDA_API, build_trigger_authentication
from .conditions import ConditionType, Finding, Reason, with_findings
from .observed import Manifest, ObjectKey, Observed
from .pods import Problem

CERT_MANAGER_API = "cert-manager.io/v1"
MONITORING_API = "monitoring.coreos.com/v1"

# Metrics of new pods take a while to arrive; an autoscaler without them is no trouble before that.
_METRICS_DELAY = timedelta(minutes=2)

# Stands for the address of a node in an external address: callers know better which one they reach.
_ANY_NODE = "NODE"

_NOUNS = {naming.WORKER: "worker", naming.BATCH: "batch worker", naming.BROKER: "embedded broker"}

_TRUE, _FALSE, _UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


@dataclass(frozen=True, slots=True)
class Workload:
    """A Deployment.

    Attributes:
        wanted: As it should be.
        live: As it is, where it belongs to the cluster.
        stale: Whether the live one has to get another template.
    """

    wanted: Manifest
    live: Manifest | None
    stale: bool

    @property
    def key(self) -> ObjectKey:
        """Its place."""
        return naming.key_of(self.wanted)

    @property
    def template(self) -> str:
        """Digest of what its pods should be made from."""
        return str(self.wanted["spec"]["template"]["metadata"]["annotations"][naming.TEMPLATE_ANNOTATION])

    def count(self, name: str) -> int:
        """A number of the live Deployment's status."""
        return int((self.live or {}).get("status", {}).get(name) or 0)

    @property
    def desired(self) -> int:
        """Number of pods that there should be now."""
        spec = (self.live or self.wanted)["spec"]
        return int(spec.get("replicas", 1))

    @property
    def is_current(self) -> bool:
        """Whether the live Deployment is that of the present spec, and its status is about it."""
        live = self.live
        return (
            live is not None
            and not self.stale
            and self.count("observedGeneration") >= live["metadata"].get("generation", 1)
        )


@dataclass(frozen=True, slots=True)
class View:
    """What a status is made of.

    Attributes:
        observed: The look at the cluster.
        workloads: The Deployments by component.
        own: The live objects that belong to the cluster.
        taken: Those that are in the way.
        refused: Why the API server did not take an object that still has to be written.
        domain: DNS domain of the Kubernetes cluster. An address with it is found without asking for other names.
        now: Aware of its time zone.
    """

    observed: Observed
    workloads: Mapping[str, Workload]
    own: Mapping[ObjectKey, Manifest]
    taken: Mapping[ObjectKey, Manifest]
    refused: Mapping[ObjectKey, str]
    domain: str
    now: datetime

    @property
    def workers(self) -> Workload:
        """The workers' Deployment."""
        return self.workloads[naming.WORKER]

    def pods(self, component: str) -> list[Manifest]:
        """The pods of a component."""
        return pods.of(component, self.observed.pods)


def make_status(view: View) -> FaceBlurClusterStatus:
    """Return the status; the same again when it is asked for with the result in place."""
    observed = view.observed
    cluster = observed.cluster
    previous = cluster.status
    of_workers = _problems_of_workers(view)
    findings = {
        ConditionType.READY: _ready(view, of_workers),
        ConditionType.PROGRESSING: _progressing(view),
        ConditionType.DEGRADED: _degraded([*_problems_of_objects(view), *of_workers, *_problems_of_batches(view)]),
    }
    if cluster.spec.paused:
        findings[ConditionType.PAUSED] = Finding(
            _TRUE, Reason.PAUSED, "The operator writes nothing for this cluster until spec.paused is false."
        )
    for name, find in _PARTS.items():
        finding = find(view)
        if finding:
            findings[name] = finding
    return FaceBlurClusterStatus(
        observed_generation=cluster.metadata.generation,
        conditions=with_findings(previous.conditions, findings, cluster.metadata.generation, view.now),
        replicas=view.workers.count("replicas"),
        ready_replicas=view.workers.count("readyReplicas"),
        updated_replicas=view.workers.count("updatedReplicas") if view.workers.is_current else 0,
        desired_replicas=view.workers.desired,
        selector=naming.selector(cluster),
        # Where the name is somebody else's, so would be the pictures.
        address=""
        if _service_key(view) in view.taken
        else f"dns:///{naming.host(cluster)}.{view.domain}:{naming.GRPC_PORT}",
        external_address=_external_address(view),
        batch=_batch_workers(view),
        **_running(view, previous),
    )


def invalid_status(
    metadata: ObjectMeta, previous: FaceBlurClusterStatus, message: str, now: datetime
) -> FaceBlurClusterStatus:
    """Return the status of a cluster whose spec cannot be read: as it was, but neither Ready nor unnoticed.

    Args:
        metadata: Of the cluster.
        previous: Its status so far.
        message: What is wrong, as a sentence.
        now: For the conditions; aware of its time zone.
    """
    findings = {c.type: Finding(c.status, c.reason, c.message) for c in previous.conditions} | {
        name: Finding(status, Reason.INVALID_SPEC, message)
        for name, status in (
            (ConditionType.READY, _FALSE),
            (ConditionType.PROGRESSING, _FALSE),
            (ConditionType.DEGRADED, _TRUE),
        )
    }
    conditions: tuple[Condition, ...] = with_findings(previous.conditions, findings, metadata.generation, now)
    return previous.model_copy(update={"observed_generation": metadata.generation, "conditions": conditions})


def _problems_of_objects(view: View) -> list[Problem]:
    """What cannot be written."""
    problems = [Problem(Reason.NAME_TAKEN, _taken(view, key)) for key in view.taken]
    return problems + [Problem(Reason.APPLY_REFUSED, _refused(view, key)) for key in view.refused]


def _problems_of_workers(view: View) -> list[Problem]:
    """What keeps workers from running, the most telling first."""
    if view.workers.live is None:
        return []
    problems = []
    tls = _tls(view)
    if tls and tls.reason in (Reason.SECRET_MISSING, Reason.CERT_MANAGER_MISSING):
        problems.append(Problem(tls.reason, tls.message))
    return problems + _problems_of(view, naming.WORKER)


def _problems_of(view: View, component: str) -> list[Problem]:
    """What keeps pods of a component from running."""
    workload, problems = view.workloads[component], []
    failing = pods.problem_of(view.pods(component), workload.template)
    if failing:
        problems.append(failing)
    failure = _conditions_of(workload.live or {}).get("ReplicaFailure", {})
    if failure.get("status") == "True":
        reason, what = failure.get("reason") or "ReplicaFailure", _NOUNS[component]
        problems.append(Problem(reason, f"No further {what} can be created: {failure.get('message', '')}"))
    if _is_late(workload) and not failing:
        problems.append(Problem(Reason.DEADLINE_EXCEEDED, _late(workload, component)))
    return problems


def _problems_of_batches(view: View) -> list[Problem]:
    finding = _batch(view)
    if finding and finding.status is _FALSE:
        return [Problem(finding.reason, finding.message)]
    components = [component for component in (naming.BROKER, naming.BATCH) if component in view.workloads]
    return [problem for component in components for problem in _problems_of(view, component)]


def _ready(view: View, problems: list[Problem]) -> Finding:
    for key in (view.workers.key, _service_key(view)):
        missing = None if key in view.own else _not_there(view, key)
        if missing:
            return replace(missing, status=_FALSE)
    available, needed = view.workers.count("availableReplicas"), _needed(view)
    if needed == 0:
        return Finding(_TRUE, Reason.SCALED_TO_ZERO, "No worker is asked for at present.")
    asked_for = max(view.workers.desired, needed)
    text = f"{min(available, asked_for)} of {asked_for} workers answer"  # a rollout has one more for a while
    if available >= needed:
        return Finding(_TRUE, Reason.WORKERS_READY, f"{text}.")
    if problems:
        return Finding(_FALSE, problems[0].reason, f"{text}. {problems[0].message}")
    return Finding(_FALSE, Reason.WORKERS_UNAVAILABLE, f"{text}.")


def _needed(view: View) -> int:
    """Workers that have to answer so that the cluster is ready."""
    spec = view.observed.cluster.spec
    if spec.autoscaling.mode is AutoscalingMode.FIXED:
        return spec.replicas or 0
    if spec.autoscaling.min_replicas == 0 and view.workers.desired == 0:
        return 0
    return max(1, spec.autoscaling.min_replicas)


def _progressing(view: View) -> Finding:
    key = view.workers.key
    if key in view.taken:
        return Finding(_FALSE, Reason.NAME_TAKEN, _taken(view, key))
    if key in view.refused:
        return Finding(_FALSE, Reason.APPLY_REFUSED, _refused(view, key))
    if view.observed.cluster.spec.paused and not view.workers.is_current:
        return Finding(_FALSE, Reason.PAUSED, "What the spec asks of the workers waits until spec.paused is false.")
    if view.workers.live is None:
        return Finding(_TRUE, Reason.CREATING, "The workers are about to be created.")
    if not view.workers.is_current:
        return Finding(_TRUE, Reason.ROLLING_OUT, "The workers are about to get the present configuration.")
    if _is_late(view.workers):
        return Finding(_FALSE, Reason.DEADLINE_EXCEEDED, _late(view.workers))
    desired, updated = view.workers.desired, view.workers.count("updatedReplicas")
    if updated < desired or view.workers.count("replicas") > updated:
        return Finding(_TRUE, Reason.ROLLING_OUT, f"{updated} of {desired} workers have the present configuration.")
    if view.workers.count("availableReplicas") < desired:
        text = f"{view.workers.count('availableReplicas')} of {desired} workers answer."
        return Finding(_TRUE, Reason.WAITING_FOR_WORKERS, text)
    return Finding(_FALSE, Reason.COMPLETE, "All workers have the present configuration and answer.")


def _degraded(problems: list[Problem]) -> Finding:
    if not problems:
        return Finding(_FALSE, Reason.AS_EXPECTED, "Nothing keeps the cluster from its spec.")
    return Finding(_TRUE, problems[0].reason, " ".join(dict.fromkeys(problem.message for problem in problems)))


def _autoscaling(view: View) -> Finding | None:
    scaling = view.observed.cluster.spec.autoscaling
    name = naming.worker_name(view.observed.cluster.name)
    if scaling.mode is AutoscalingMode.FIXED:
        return None
    if scaling.mode is AutoscalingMode.KEDA and KEDA_API not in view.observed.apis:
        text = f"KEDA is not installed; the number of workers is {max(1, scaling.min_replicas)} until it is."
        return Finding(_FALSE, Reason.KEDA_MISSING, text)
    bounds = f"between {scaling.min_replicas} and {scaling.max_replicas} workers"
    if scaling.mode is AutoscalingMode.KEDA:
        key = ObjectKey(KEDA_API, "ScaledObject", name)
        return _not_there(view, key) or _ready_condition(view.own[key], f"KEDA keeps {bounds}.")
    key = ObjectKey("autoscaling/v2", "HorizontalPodAutoscaler", name)
    return _not_there(view, key) or _on_cpu(view, view.own[key], bounds)


def _on_cpu(view: View, autoscaler: Manifest, bounds: str) -> Finding:
    said = _conditions_of(autoscaler)
    for name in ("AbleToScale", "ScalingActive"):
        condition = said.get(name)
        if condition is None:
            return Finding(_UNKNOWN, Reason.PENDING, "The autoscaler has not looked at the workers yet.")
        if condition["status"] != "True":
            since = condition.get("lastTransitionTime")
            if since and view.now - datetime.fromisoformat(since) < _METRICS_DELAY:
                text = "The autoscaler waits for the first figures about CPU use."
                return Finding(_UNKNOWN, Reason.WAITING_FOR_METRICS, text)
            return Finding(_FALSE, condition.get("reason") or name, _period(condition.get("message", "")))
    limited = said.get("ScalingLimited", {})
    if limited.get("status") == "True" and limited.get("reason") == "TooManyReplicas":
        text = f"The autoscaler would start more than autoscaling.maxReplicas allows; it keeps {bounds}."
        return Finding(_TRUE, Reason.AT_MAXIMUM, text)
    return Finding(_TRUE, Reason.IN_PLACE, f"The autoscaler keeps {bounds}.")


def _tls(view: View) -> Finding | None:
    cluster = view.observed.cluster
    tls, name = cluster.spec.tls, naming.tls_secret_name(cluster)
    if tls is None or name is None:
        return None
    if tls.mutual and not view.observed.secrets.get(tls.mutual.ca_secret_name):
        return _no_secret(tls.mutual.ca_secret_name)
    if tls.issuer is None:
        if not view.observed.secrets.get(name):
            return _no_secret(name)
        return Finding(_TRUE, Reason.SECRET_PRESENT, f"Workers use the certificate in Secret {name}.")
    if CERT_MANAGER_API not in view.observed.apis:
        text = f"cert-manager is not installed; new workers wait until Secret {name} exists."
        return Finding(_FALSE, Reason.CERT_MANAGER_MISSING, text)
    key = ObjectKey(CERT_MANAGER_API, "Certificate", naming.worker_name(cluster.name))
    finding = _not_there(view, key) or _ready_condition(
        view.own[key], f"Workers use the certificate that cert-manager keeps in Secret {name}."
    )
    if finding.status is _TRUE and not view.observed.secrets.get(name):
        return _no_secret(name)
    return finding


def _no_secret(name: str) -> Finding:
    text = f"Secret {name} does not exist; workers that run keep their certificates, new ones wait for it."
    return Finding(_FALSE, Reason.SECRET_MISSING, text)


def _monitoring(view: View) -> Finding | None:
    cluster = view.observed.cluster
    if not cluster.spec.metrics.service_monitor.enabled:
        return None
    if MONITORING_API not in view.observed.apis:
        text = "The Prometheus operator's kinds are not installed; nothing reads the workers' metrics because of this."
        return Finding(_FALSE, Reason.PROMETHEUS_OPERATOR_MISSING, text)
    keys = [ObjectKey(MONITORING_API, "ServiceMonitor", naming.worker_name(cluster.name))]
    if cluster.spec.batch:
        keys.append(ObjectKey(MONITORING_API, "PodMonitor", naming.batch_name(cluster.name)))
    names = " and ".join(f"{key.kind} {key.name}" for key in keys)
    are = "are" if len(keys) > 1 else "is"
    return _first_missing(view, keys) or Finding(_TRUE, Reason.IN_PLACE, f"{names} {are} in place.")


def _disruption_budget(view: View) -> Finding | None:
    cluster = view.observed.cluster
    if not cluster.spec.disruption_budget.enabled:
        return None
    key = ObjectKey("policy/v1", "PodDisruptionBudget", naming.worker_name(cluster.name))
    missing = _not_there(view, key)
    if missing:
        return missing
    status = view.own[key].get("status", {})
    expected = status.get("expectedPods") or 0
    if 0 < expected <= (status.get("desiredHealthy") or 0):
        text = f"All {expected} workers have to stay, so no drain can take one; more workers or another bound help."
        return Finding(_TRUE, Reason.BLOCKS_DRAINS, text)
    return Finding(_TRUE, Reason.IN_PLACE, "Drains and evictions leave enough workers.")


def _network_policy(view: View) -> Finding | None:
    cluster = view.observed.cluster
    if not cluster.spec.network_policy.enabled:
        return None
    names = [naming.worker_name(cluster.name)]
    if cluster.spec.batch:
        names += [naming.batch_name(cluster.name), naming.planner_name(cluster.name)]
        names += [naming.broker_name(cluster.name)] if cluster.spec.batch.broker.embedded else []
    missing = _first_missing(view, [ObjectKey("networking.k8s.io/v1", "NetworkPolicy", name) for name in names])
    if missing:
        return missing
    if cluster.spec.workers.trace_endpoint and not cluster.spec.network_policy.egress:
        text = "Traces cannot leave: workers.traceEndpoint is set, but networkPolicy.egress lists no way out."
        return Finding(_FALSE, Reason.TRACES_BLOCKED, text)
    return Finding(_TRUE, Reason.IN_PLACE, "The policy is in place; it takes a network that enforces policies.")


def _external_access(view: View) -> Finding | None:
    service = view.observed.cluster.spec.service
    if service.type is ServiceType.HEADLESS:
        return None
    missing = _not_there(view, _external_key(view))
    if missing:
        return missing
    address = _external_address(view)
    if not address:
        return Finding(_UNKNOWN, Reason.ADDRESS_PENDING, "The Service has no address yet.")
    where = f"Port {address.rpartition(':')[2]} of every node" if address.startswith(_ANY_NODE) else address
    return Finding(_TRUE, Reason.IN_PLACE, f"{where} leads to the workers.")


def _batch(view: View) -> Finding | None:
    """Whether pages find batch workers that take them."""
    batch = view.observed.cluster.spec.batch
    if batch is None:
        return None
    for secret in secrets_of(view.observed.cluster):
        if not view.observed.secrets.get(secret):
            text = f"Secret {secret} does not exist; batch workers that run go on, new ones and planners wait for it."
            return Finding(_FALSE, Reason.SECRET_MISSING, text)
    keys = [ObjectKey("v1", "ConfigMap", naming.batch_name(view.observed.cluster.name))]
    keys += [view.workloads[name].key for name in (naming.BROKER, naming.BATCH) if name in view.workloads]
    missing = _first_missing(view, keys)
    if missing:
        return missing
    for component, needed in ((naming.BROKER, 1), (naming.BATCH, _needed_for_batches(view))):
        if component in view.workloads:
            short = _short(view, component, needed)
            if short:
                return short
    workload = view.workloads[naming.BATCH]
    if workload.desired == 0:
        return Finding(_TRUE, Reason.SCALED_TO_ZERO, "No batch worker is there: no page waits, or none is asked for.")
    available = min(workload.count("availableReplicas"), workload.desired)
    return Finding(_TRUE, Reason.BATCH_WORKERS_READY, f"{available} of {workload.desired} batch workers answer.")


def _short(view: View, component: str, needed: int) -> Finding | None:
    """Why there are not enough pods of a component; None where there are."""
    workload = view.workloads[component]
    available, asked_for = workload.count("availableReplicas"), max(needed, workload.desired)
    if available >= needed:
        return None
    text = f"{min(available, asked_for)} of {asked_for} {_NOUNS[component]}s answer."
    problems = _problems_of(view, component)
    if problems:
        return Finding(_FALSE, problems[0].reason, f"{text} {problems[0].message}")
    hint = " One answers once it has reached the broker." if component == naming.BATCH else ""
    if _conditions_of(workload.live or {}).get("Progressing", {}).get("reason") != "NewReplicaSetAvailable":
        return Finding(_UNKNOWN, Reason.PENDING, f"{text} They are being started.{hint}")
    reason = Reason.BATCH_WORKERS_UNAVAILABLE if component == naming.BATCH else Reason.BROKER_UNAVAILABLE
    return Finding(_FALSE, reason, text + hint)


def _needed_for_batches(view: View) -> int:
    """Batch workers that have to take pages so that all is well."""
    batch = view.observed.cluster.spec.batch
    assert batch is not None
    if batch.autoscaling.mode is BatchAutoscalingMode.FIXED:
        return batch.replicas or 0
    if batch.autoscaling.min_replicas == 0 and view.workloads[naming.BATCH].desired == 0:
        return 0
    return max(1, batch.autoscaling.min_replicas)


def _batch_autoscaling(view: View) -> Finding | None:
    batch = view.observed.cluster.spec.batch
    if batch is None or batch.autoscaling.mode is BatchAutoscalingMode.FIXED:
        return None
    scaling, name = batch.autoscaling, naming.batch_name(view.observed.cluster.name)
    on_queue = scaling.mode is BatchAutoscalingMode.QUEUE
    if on_queue and KEDA_API in view.observed.apis:
        bounds = f"between {scaling.min_replicas} and {scaling.max_replicas} batch workers"
        keys = [ObjectKey(KEDA_API, "ScaledObject", name)]
        if build_trigger_authentication(view.observed.cluster, batch):
            keys.append(ObjectKey(KEDA_API, "TriggerAuthentication", name))
        return _first_missing(view, keys) or _ready_condition(view.own[keys[0]], f"KEDA keeps {bounds}.")
    if on_queue:
        text = "KEDA is not installed; the number of batch workers follows their CPU use until it is."
        return Finding(_FALSE, Reason.KEDA_MISSING, text)
    key = ObjectKey("autoscaling/v2", "HorizontalPodAutoscaler", name)
    bounds = f"between {scaling.min_replicas} and {scaling.max_replicas} batch workers"
    return _not_there(view, key) or _on_cpu(view, view.own[key], bounds)


def _batch_workers(view: View) -> BatchStatus | None:
    """What the status tells of batches: something for as long as anything of them may be there, see `plan.places`."""
    workload = view.workloads.get(naming.BATCH)
    if workload:
        return BatchStatus(
            replicas=workload.count("replicas"),
            ready_replicas=workload.count("readyReplicas"),
            desired_replicas=workload.desired,
        )
    left = {key.name for key in view.own} & naming.batch_names(view.observed.cluster.name)
    return BatchStatus() if left else None


_PARTS: Mapping[str, Callable[[View], Finding | None]] = {
    ConditionType.AUTOSCALING: _autoscaling,
    ConditionType.TLS: _tls,
    ConditionType.MONITORING: _monitoring,
    ConditionType.DISRUPTION_BUDGET: _disruption_budget,
    ConditionType.NETWORK_POLICY: _network_policy,
    ConditionType.EXTERNAL_ACCESS: _external_access,
    ConditionType.BATCH: _batch,
    ConditionType.BATCH_AUTOSCALING: _batch_autoscaling,
}


def _not_there(view: View, key: ObjectKey) -> Finding | None:
    """Why an object is not as it should be; None where it is."""
    if key in view.taken:
        return Finding(_FALSE, Reason.NAME_TAKEN, _taken(view, key))
    if key in view.refused:
        return Finding(_FALSE, Reason.APPLY_REFUSED, _refused(view, key))
    if key not in view.own:
        return Finding(_UNKNOWN, Reason.PENDING, f"{key.kind} {key.name} is not there yet.")
    return None


def _first_missing(view: View, keys: list[ObjectKey]) -> Finding | None:
    """Why one of several objects is not as it should be, those that cannot be first; None where all are."""
    found = [finding for key in keys if (finding := _not_there(view, key))]
    return min(found, key=lambda finding: finding.status is not _FALSE, default=None)


def _ready_condition(live: Manifest, text: str) -> Finding:
    """What another operator says of its object."""
    said = _conditions_of(live)
    ready = said.get("Ready")
    issuing = said.get("Issuing", {}).get("status") == "True"  # a Certificate that is not Ready yet
    if ready is None or ready["status"] == "Unknown" or (issuing and ready["status"] == "False"):
        return Finding(_UNKNOWN, Reason.PENDING, f"{live['kind']} {live['metadata']['name']} is being set up.")
    if ready["status"] == "True":
        return Finding(_TRUE, Reason.IN_PLACE, text)
    return Finding(_FALSE, ready.get("reason") or "NotReady", _period(ready.get("message", "")))


def _taken(view: View, key: ObjectKey) -> str:
    cluster = view.observed.cluster
    for reference in view.taken[key]["metadata"].get("ownerReferences") or ():
        if (reference["kind"], reference["name"]) == ("FaceBlurCluster", cluster.name):
            return f"{key.kind} {key.name} belongs to an earlier FaceBlurCluster of this name and has to go first."
    return (
        f"{key.kind} {key.name} does not belong to this cluster and is left alone; delete it, or choose another name "
        "for the cluster."
    )


def _refused(view: View, key: ObjectKey) -> str:
    return _period(f"{key.kind} {key.name} was refused: {view.refused[key]}")


def _is_late(workload: Workload) -> bool:
    progressing = _conditions_of(workload.live or {}).get("Progressing", {})
    return workload.is_current and progressing.get("reason") == Reason.DEADLINE_EXCEEDED


def _late(workload: Workload, component: str = naming.WORKER) -> str:
    updated, desired = workload.count("updatedReplicas"), workload.desired
    return f"New {_NOUNS[component]}s did not come up in time; {updated} of {desired} have the present configuration."


def _conditions_of(live: Manifest) -> dict[str, Any]:
    return {condition["type"]: condition for condition in live.get("status", {}).get("conditions") or ()}


def _period(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def _service_key(view: View) -> ObjectKey:
    return ObjectKey("v1", "Service", naming.service_name(view.observed.cluster.name))


def _external_key(view: View) -> ObjectKey:
    return ObjectKey("v1", "Service", naming.external_service_name(view.observed.cluster.name))


def _external_address(view: View) -> str:
    """Where callers that do not balance by themselves reach the workers, as far as that is known."""
    cluster = view.observed.cluster
    live = view.own.get(_external_key(view))
    if live is None or cluster.spec.service.type is ServiceType.HEADLESS:
        return ""
    if cluster.spec.service.type is ServiceType.CLUSTER_IP:
        return f"{naming.external_host(cluster)}.{view.domain}:{naming.GRPC_PORT}"
    if cluster.spec.service.type is ServiceType.NODE_PORT:
        port = live["spec"]["ports"][0].get("nodePort")
        return f"{_ANY_NODE}:{port}" if port else ""
    for ingress in live.get("status", {}).get("loadBalancer", {}).get("ingress") or ():
        host = ingress.get("hostname") or ingress.get("ip") or ""
        return f"[{host}]:{naming.GRPC_PORT}" if ":" in host else f"{host}:{naming.GRPC_PORT}"
    return ""


def _running(view: View, previous: FaceBlurClusterStatus) -> dict[str, Any]:
    """What runs: of ready workers, of those with the present configuration where there are any."""
    ready = [pod for pod in pods.alive(view.pods(naming.WORKER)) if pods.is_ready(pod)] if view.workers.live else []
    if not ready:
        return {}
    pod = min(ready, key=lambda pod: not pods.is_of(pod, view.workers.template))
    image = next((c["image"] for c in pod["spec"]["containers"] if c["name"] == naming.WORKER), "")
    image_id = str(pods.worker_status(pod).get("imageID", "")).rpartition("@")[2]
    report = view.observed.report
    version: str = report.version if report else ""
    models: tuple[ModelVersion, ...] = report.models if report else ()
    if report is None and (image, image_id) == (previous.image, previous.image_id):
        version, models = previous.version, previous.models  # the same image says the same
    return {"image": image, "image_id": image_id, "version": version, "models": models}
