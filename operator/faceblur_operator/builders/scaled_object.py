"""Scales the workers with KEDA: from zero, and on anything that KEDA can ask."""

from __future__ import annotations

from typing import Any

from .. import naming
from ..api.v1alpha1 import FaceBlurCluster
from ..observed import Manifest


def build_scaled_object(cluster: FaceBlurCluster) -> Manifest:
    """Return the ScaledObject. KEDA makes a HorizontalPodAutoscaler of its own from it, which is none of ours."""
    scaling = cluster.spec.autoscaling
    name = naming.worker_name(cluster.name)
    on_cpu = {
        "type": "cpu",
        "metricType": "Utilization",
        "metadata": {"value": str(scaling.target_cpu_percent), "containerName": naming.WORKER},
    }
    spec: dict[str, Any] = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicaCount": scaling.min_replicas,
        "maxReplicaCount": scaling.max_replicas,
        "pollingInterval": scaling.keda.polling_interval_seconds,
        "cooldownPeriod": scaling.keda.cooldown_seconds,
        "triggers": list(scaling.keda.triggers) or [on_cpu],
    }
    if scaling.behavior:
        spec["advanced"] = {"horizontalPodAutoscalerConfig": {"behavior": scaling.behavior}}
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": naming.metadata(cluster, name),
        "spec": spec,
    }
