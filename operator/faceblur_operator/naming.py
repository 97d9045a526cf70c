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
BATCH = "batch"
BROKER = "broker"
PLANNER = "planner"

GRPC_PORT = 50051
HEALTH_PORT = 50052
METRICS_PORT = 9464
BROKER_PORT = 6379
BATCH_METRICS_PORT = 9465

# What an object was made from, so that it is only written when that changes; and a pod, so that it can be told from
# those of an older configuration.
APPLIED_ANNOTATION = f"{GROUP}/applied"
TEMPLATE_ANNOTATION = f"{GROUP}/template"
# What batch workers read at their start, so that a change of it makes new ones.
READ_ANNOTATION = f"{GROUP}/read"

_WORKER_SUFFIX = "-worker"
_EXTERNAL_SUFFIX = "-external"
_CERTIFICATE_SUFFIX = "-worker-tls"
_BATCH_SUFFIX = "-batch"
_BROKER_SUFFIX = "-broker"
_PLANNER_SUFFIX = "-planner"
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


def batch_name(name: str) -> str:
    """Name of all objects about the batch workers: Deployment, autoscaler, ConfigMap and the like."""
    return name + _BATCH_SUFFIX


def broker_name(name: str) -> str:
    """Name of all objects about the embedded broker."""
    return name + _BROKER_SUFFIX


def planner_name(name: str) -> str:
    """Name of all objects about planners: of a job's, and of the NetworkPolicy of all planners of a cluster."""
    return name + _PLANNER_SUFFIX


def batch_names(name: str) -> frozenset[str]:
    """Names of all objects of a cluster that are there for batches alone."""
    return frozenset((batch_name(name), broker_name(name), planner_name(name)))


def queue(cluster: FaceBlurCluster) -> str:
    """Queue in the broker on which the cluster's pages wait; several clusters may share a broker."""
    return f"{NAME}.{cluster.namespace}.{cluster.name}"


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


def broker_host(cluster: FaceBlurCluster) -> str:
    """DNS name of the embedded broker's Service, short of the cluster's domain."""
    return f"{broker_name(cluster.name)}.{cluster.namespace}.svc"


def labels(cluster: FaceBlurCluster, component: str = WORKER) -> dict[str, str]:
    """Labels of every object of a cluster."""
    return {**selector_labels(cluster, component), PART_OF_LABEL: NAME, MANAGED_BY_LABEL: MANAGED_BY}


def selector_labels(cluster: FaceBlurCluster, component: str = WORKER) -> dict[str, str]:
    """Labels that select the pods of a component. Never to be extended: a Deployment's selector cannot be changed."""
    return {NAME_LABEL: NAME, INSTANCE_LABEL: cluster.name, COMPONENT_LABEL: component}


def selector(cluster: FaceBlurCluster) -> str:
    """Those of the workers as a string, as the API takes it."""
    return ",".join(f"{key}={value}" for key, value in sorted(selector_labels(cluster).items()))


def pods_selector(cluster: FaceBlurCluster) -> str:
    """The same for the pods of all components."""
    return f"{INSTANCE_LABEL}={cluster.name},{NAME_LABEL}={NAME}"


def metadata(
    cluster: FaceBlurCluster,
    name: str,
    component: str = WORKER,
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
        "labels": {**(more_labels or {}), **labels(cluster, component)},
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
