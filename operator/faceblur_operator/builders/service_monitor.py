"""Tells a Prometheus of the Prometheus operator to read the workers' metrics."""

from __future__ import annotations

from .. import naming
from ..api.v1alpha1 import FaceBlurCluster
from ..observed import Manifest


def build_service_monitor(cluster: FaceBlurCluster) -> Manifest:
    """Return the ServiceMonitor, which finds the workers through the headless Service."""
    monitor = cluster.spec.metrics.service_monitor
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": naming.metadata(cluster, naming.worker_name(cluster.name), more_labels=monitor.labels),
        "spec": {
            "selector": {"matchLabels": naming.selector_labels(cluster)},
            "endpoints": [{"port": "metrics", "interval": f"{monitor.interval_seconds}s"}],
        },
    }
