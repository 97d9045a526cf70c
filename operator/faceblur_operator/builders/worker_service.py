"""How callers find the workers."""

from __future__ import annotations

from typing import Any

from .. import naming
from ..api.v1alpha1 import FaceBlurCluster, ServiceType
from ..observed import Manifest


def build_worker_service(cluster: FaceBlurCluster) -> Manifest:
    """Return the headless Service: its name resolves to all ready workers, among which a gRPC client balances."""
    return _service(
        cluster,
        naming.service_name(cluster.name),
        {
            "type": "ClusterIP",
            "clusterIP": "None",
            "ports": [_port("grpc", naming.GRPC_PORT), _port("metrics", naming.METRICS_PORT)],
        },
    )


def build_external_service(cluster: FaceBlurCluster) -> Manifest | None:
    """Return the Service with an address of its own, for callers that do not balance; None where none is asked for.

    It has no metrics port, so that a ServiceMonitor finds each worker once.
    """
    service = cluster.spec.service
    if service.type is ServiceType.HEADLESS:
        return None
    port = _port("grpc", naming.GRPC_PORT)
    if service.node_port is not None:
        port["nodePort"] = service.node_port
    spec: dict[str, Any] = {"type": service.type.value, "ports": [port]}
    if service.load_balancer_class is not None:
        spec["loadBalancerClass"] = service.load_balancer_class
    return _service(cluster, naming.external_service_name(cluster.name), spec)


def _service(cluster: FaceBlurCluster, name: str, spec: dict[str, Any]) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": naming.metadata(cluster, name, annotations=cluster.spec.service.annotations),
        "spec": {"selector": naming.selector_labels(cluster), **spec},
    }


def _port(name: str, number: int) -> dict[str, Any]:
    return {"name": name, "port": number, "targetPort": name, "protocol": "TCP"}
