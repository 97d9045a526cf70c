"""Keeps drains and evictions from taking too many workers at once."""

from __future__ import annotations

from .. import naming
from ..api.v1alpha1 import FaceBlurCluster
from ..observed import Manifest


def build_disruption_budget(cluster: FaceBlurCluster) -> Manifest:
    """Return the PodDisruptionBudget. Workers that are not ready may always be evicted: they serve nobody."""
    budget = cluster.spec.disruption_budget
    if budget.min_available is not None:
        bound = {"minAvailable": budget.min_available}
    else:
        bound = {"maxUnavailable": 1 if budget.max_unavailable is None else budget.max_unavailable}
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": naming.metadata(cluster, naming.worker_name(cluster.name)),
        "spec": {
            "selector": {"matchLabels": naming.selector_labels(cluster)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            **bound,
        },
    }
