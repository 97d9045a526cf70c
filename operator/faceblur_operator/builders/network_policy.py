"""Closes the network around the workers, and opens what is needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import naming
from ..api.v1alpha1 import FaceBlurCluster, ServiceType
from ..observed import Manifest
from .batch_network_policy import clients


def build_network_policy(
    cluster: FaceBlurCluster, *, operator_namespace: str, operator_labels: Mapping[str, str]
) -> Manifest:
    """Return the NetworkPolicy of the workers.

    Pictures come in from the callers, metrics are read by monitors and the operator, and nothing leaves but what the
    spec lists, not even questions to the DNS. Nobody may reach the health port: probes come from the worker's own
    node, which no policy keeps out.

    Args:
        cluster: Whose workers. Its batch workers and planners are callers, too.
        operator_namespace: Where the operator runs; empty where that is not known, as outside the cluster.
        operator_labels: Labels of the operator's pods.
    """
    policy = cluster.spec.network_policy
    pictures: dict[str, Any] = {"ports": [_port(naming.GRPC_PORT)]}
    if policy.callers:
        pictures["from"] = [*policy.callers, *(clients(cluster) if cluster.spec.batch else ())]
    elif cluster.spec.service.type not in (ServiceType.NODE_PORT, ServiceType.LOAD_BALANCER):
        pictures["from"] = [{"podSelector": {}}]
    monitors = list(policy.monitors) or [{"namespaceSelector": {}}]
    if policy.monitors and operator_namespace:
        monitors.append(
            {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": operator_namespace}},
                "podSelector": {"matchLabels": dict(operator_labels)},
            }
        )
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": naming.metadata(cluster, naming.worker_name(cluster.name)),
        "spec": {
            "podSelector": {"matchLabels": naming.selector_labels(cluster)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [pictures, {"ports": [_port(naming.METRICS_PORT)], "from": monitors}],
            **({"egress": list(policy.egress)} if policy.egress else {}),  # without rules nothing leaves
        },
    }


def _port(number: int) -> dict[str, Any]:
    return {"port": number, "protocol": "TCP"}
