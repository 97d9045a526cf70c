"""Closes the network around batch workers, planners and the embedded broker, and opens what they need."""

from __future__ import annotations

from typing import Any

from .. import naming
from ..api.v1alpha1 import Batch, BatchAutoscalingMode, FaceBlurCluster
from ..observed import Manifest

# Questions to the DNS; on some platforms it listens on the second port, behind a Service on the first.
_DNS_PORTS = (53, 5353)
_API_SERVER_PORTS = (443, 6443)
# Its pods are in a namespace that is not known here; all its ways to be installed have this label.
_KEDA_LABELS = {"app": "keda-operator"}


def build_batch_network_policy(cluster: FaceBlurCluster, batch: Batch) -> Manifest:
    """Return the policy of the batch workers: metrics are read, pages and pictures are fetched and sent."""
    monitors = list(cluster.spec.network_policy.monitors) or [{"namespaceSelector": {}}]
    ingress = [{"ports": _tcp(naming.BATCH_METRICS_PORT), "from": monitors}]
    name = naming.batch_name(cluster.name)
    return _policy(cluster, name, naming.BATCH, ingress, _egress(cluster, batch))


def build_planner_network_policy(cluster: FaceBlurCluster, batch: Batch) -> Manifest:
    """Return the policy of the planners of all jobs: besides what batch workers do, they tell the API server."""
    egress = [*_egress(cluster, batch), {"ports": _tcp(*_API_SERVER_PORTS)}]
    return _policy(cluster, naming.planner_name(cluster.name), naming.PLANNER, [], egress)


def build_broker_network_policy(cluster: FaceBlurCluster, batch: Batch) -> Manifest:
    """Return the policy of the embedded broker, which has no password: nobody else reaches it."""
    peers: list[dict[str, Any]] = clients(cluster)
    if batch.autoscaling.mode is BatchAutoscalingMode.QUEUE:
        peers.append({"namespaceSelector": {}, "podSelector": {"matchLabels": dict(_KEDA_LABELS)}})
    ingress = [{"ports": _tcp(naming.BROKER_PORT), "from": peers}]
    return _policy(cluster, naming.broker_name(cluster.name), naming.BROKER, ingress, [])


def clients(cluster: FaceBlurCluster) -> list[dict[str, Any]]:
    """Return the peers that batch workers and planners are for others."""
    return [_pods(cluster, component) for component in (naming.BATCH, naming.PLANNER)]


def _egress(cluster: FaceBlurCluster, batch: Batch) -> list[dict[str, Any]]:
    dns = [{"port": port, "protocol": protocol} for port in _DNS_PORTS for protocol in ("UDP", "TCP")]
    rules: list[dict[str, Any]] = [
        {"ports": dns},
        {"ports": _tcp(naming.GRPC_PORT), "to": [_pods(cluster, naming.WORKER)]},
    ]
    if batch.broker.embedded:
        rules.append({"ports": _tcp(naming.BROKER_PORT), "to": [_pods(cluster, naming.BROKER)]})
    return rules + (list(batch.egress) or [{"ports": [{"protocol": "TCP"}]}])


def _policy(
    cluster: FaceBlurCluster,
    name: str,
    component: str,
    ingress: list[dict[str, Any]],
    egress: list[dict[str, Any]],
) -> Manifest:
    rules = {"ingress": ingress, "egress": egress}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": naming.metadata(cluster, name, component),
        "spec": {
            "podSelector": {"matchLabels": naming.selector_labels(cluster, component)},
            "policyTypes": ["Ingress", "Egress"],
            **{direction: found for direction, found in rules.items() if found},  # without rules nothing passes
        },
    }


def _pods(cluster: FaceBlurCluster, component: str) -> dict[str, Any]:
    return {"podSelector": {"matchLabels": naming.selector_labels(cluster, component)}}


def _tcp(*numbers: int) -> list[dict[str, Any]]:
    return [{"port": number, "protocol": "TCP"} for number in numbers]
