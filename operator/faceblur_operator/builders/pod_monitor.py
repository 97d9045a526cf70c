"""Tells a Prometheus of the Prometheus operator to read the batch workers' metrics; they have no Service."""

from __future__ import annotations

from .. import naming
from ..api.v1alpha1 import FaceBlurCluster
from ..observed import Manifest


def build_pod_monitor(cluster: FaceBlurCluster) -> Manifest:
    """Return the PodMonitor of the batch workers."""
    monitor = cluster.spec.metrics.service_monitor
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": naming.metadata(cluster, naming.batch_name(cluster.name), naming.BATCH, more_labels=monitor.labels),
        "spec": {
            "selector": {"matchLabels": naming.selector_labels(cluster, naming.BATCH)},
            "podMetricsEndpoints": [{"port": "metrics", "interval": f"{monitor.interval_seconds}s"}],
        },
    }
