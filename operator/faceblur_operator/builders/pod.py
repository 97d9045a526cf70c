"""What all pods have in common: they keep to the restricted Pod Security Standard, and are placed as the spec says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..api.v1alpha1 import FaceBlurClusterSpec, Scheduling

# The images' user. Numbers, so that the kubelet can see that it is not root.
_USER = 65532
# Who is told to go ends by itself before it is killed.
KILL_AFTER_GRACE_SECONDS = 5
HOME = "/tmp"  # noqa: S108  the pod's own, in memory

CONTAINER: Mapping[str, Any] = {
    # The last lines of the log become the termination message: nobody needs the right to read logs to say why.
    "terminationMessagePolicy": "FallbackToLogsOnError",
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    },
}
POD: Mapping[str, Any] = {
    "automountServiceAccountToken": False,
    "enableServiceLinks": False,
    "securityContext": {
        "runAsNonRoot": True,
        "runAsUser": _USER,
        "runAsGroup": _USER,
        "fsGroup": _USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    },
}
HOME_VOLUME: Mapping[str, Any] = {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}}
HOME_MOUNT: Mapping[str, Any] = {"name": "tmp", "mountPath": HOME}


def placement(
    spec: FaceBlurClusterSpec, scheduling: Scheduling, selector: Mapping[str, str], *, spread: bool = True
) -> dict[str, Any]:
    """Return where a pod runs and with what its image is fetched.

    Args:
        spec: Of the cluster.
        scheduling: Of the component.
        selector: Labels of its pods.
        spread: Whether there may be several of them.
    """
    fields = {
        "imagePullSecrets": [secret.model_dump() for secret in spec.image_pull_secrets],
        "nodeSelector": scheduling.node_selector,
        "tolerations": list(scheduling.tolerations),
        "affinity": scheduling.affinity,
        "topologySpreadConstraints": _spread(scheduling, selector) if spread else None,
        "priorityClassName": scheduling.priority_class_name,
        "runtimeClassName": scheduling.runtime_class_name,
    }
    return {name: value for name, value in fields.items() if value}


def _spread(scheduling: Scheduling, labels: Mapping[str, str]) -> list[dict[str, Any]]:
    selector = {"labelSelector": {"matchLabels": dict(labels)}}
    constraints = scheduling.topology_spread_constraints
    if constraints is not None:
        return [{**selector, **constraint} for constraint in constraints]
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "matchLabelKeys": ["pod-template-hash"],  # the workers that go do not count for those that come
            **selector,
        }
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]
