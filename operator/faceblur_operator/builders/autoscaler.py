"""Scales the workers with what every Kubernetes cluster has: CPU."""

from __future__ import annotations

from typing import Any

from .. import naming
from ..api.v1alpha1 import FaceBlurCluster
from ..observed import Manifest


def build_autoscaler(cluster: FaceBlurCluster) -> Manifest:
    """Return the HorizontalPodAutoscaler.

    It looks at the worker's container alone, so that a side-car without a CPU request does not blind it.
    """
    scaling = cluster.spec.autoscaling
    name = naming.worker_name(cluster.name)
    spec: dict[str, Any] = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicas": scaling.min_replicas,
        "maxReplicas": scaling.max_replicas,
        "metrics": [
            {
                "type": "ContainerResource",
                "containerResource": {
                    "name": "cpu",
                    "container": naming.WORKER,
                    "target": {"type": "Utilization", "averageUtilization": scaling.target_cpu_percent},
                },
            }
        ],
    }
    if scaling.behavior:
        spec["behavior"] = scaling.behavior
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": naming.metadata(cluster, name),
        "spec": spec,
    }
