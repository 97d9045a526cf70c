"""Names, labels and ports of everything that belongs to a cluster.

Every object's name is the cluster's with a suffix, so that nothing about an object has to be stored to find it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .api.v1alpha1 import API_VERSION, CLUSTER_KIND, GROUP, FaceBlurCluster
from .observed import Manifest, ObjectKey

FIELD_MANAGER = "faceblur-operator"
REPLICAS_FIELD_MANAGER = "faceblur-operator-replicas"

NAME_LABEL = "app.kubernetes.io/name"
INSTANCE_LABEL = "app.kubernetes.io/instance"
COMPONENT_LABEL = "app.kubernetes.io/component"
PART_OF_LABEL = "app.kubernetes.io/part-of"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
NAME = "faceblur"
MANAGED_BY = "faceblur-operator"
WORKER = "worker"

GRPC_PORT = 50051
HEALTH_PORT = 50052
METRICS_PORT = 9464

# What an object was made from, so that it is only written when that changes; and a pod, so that it can be told from
# those of an older configuration.
APPLIED_ANNOTATION = f"{GROUP}/applied"
TEMPLATE_ANNOTATION = f"{GROUP}/template"

_WORKER_SUFFIX = "-worker"
_EXTERNAL_SUFFIX = "-external"
_CERTIFICATE_SUFFIX = "-worker-tls"
# A Service's name is a DNS label that starts with a letter, and so is what a cluster may be called.
_LABEL_LENGTH = 63
MAX_NAME_LENGTH = _LABEL_LENGTH - max(map(len, (_WORKER_SUFFIX, _EXTERNAL_SUFFIX, _CERTIFICATE_SUFFIX)))
NAME_PATTERN = "^[a-z]([-a-z0-9]*[a-z0-9])?$"


def worker_name(name: str) -> str:
    """Name of all objects about the workers but the Services: Deployment, autoscaler, budget and the like."""
    return name + _WORKER_SUFFIX


def service_name(name: str) -> str:
    """Name of the headless Service: the cluster's own, since it is what callers dial."""
    return name


def external_service_name(name: str) -> str:
    """Name of the Service for callers that do not balance by themselves."""
    return name + _EXTERNAL_SUFFIX


def tls_secret_name(cluster: FaceBlurCluster) -> str | None:
    """Name of the Secret with the workers' certificate: the user's, or the one that cert-manager fills."""
    tls = cluster.spec.tls
    return (tls.secret_name or cluster.name + _CERTIFICATE_SUFFIX) if tls else None


def host(cluster: FaceBlurCluster) -> str:
    """DNS name of the headless Service, short of the cluster's domain."""
    return f"{service_name(cluster.name)}.{cluster.namespace}.svc"


def external_host(cluster: FaceBlurCluster) -> str:
    """DNS name of the other Service, short of the cluster's domain."""
    return f"{external_service_name(cluster.name)}.{cluster.namespace}.svc"


def labels(cluster: FaceBlurCluster) -> dict[str, str]:
    """Labels of every object of a cluster."""
    return {**selector_labels(cluster), PART_OF_LABEL: NAME, MANAGED_BY_LABEL: MANAGED_BY}


def selector_labels(cluster: FaceBlurCluster) -> dict[str, str]:
    """Labels that select the workers. Never to be extended: a Deployment's selector cannot be changed."""
    return {NAME_LABEL: NAME, INSTANCE_LABEL: cluster.name, COMPONENT_LABEL: WORKER}


def selector(cluster: FaceBlurCluster) -> str:
    """The same as a string, as the API takes it."""
    return ",".join(f"{key}={value}" for key, value in sorted(selector_labels(cluster).items()))


def metadata(
    cluster: FaceBlurCluster,
    name: str,
    *,
    more_labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Metadata of an object of a cluster; what the user adds never wins over what the operator needs.

    The owner reference does not block the owner's deletion: that would need the right to set finalizers on clusters
    where the admission plugin OwnerReferencesPermissionEnforcement runs, and only changes the order of deletion.
    """
    return {
        "name": name,
        "namespace": cluster.namespace,
        "labels": {**(more_labels or {}), **labels(cluster)},
        **({"annotations": dict(annotations)} if annotations else {}),
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": CLUSTER_KIND,
                "name": cluster.name,
                "uid": cluster.metadata.uid,
                "controller": True,
            }
        ],
    }


def key_of(manifest: Manifest) -> ObjectKey:
    """The place that a manifest or a live object takes."""
    return ObjectKey(manifest["apiVersion"], manifest["kind"], manifest["metadata"]["name"])
