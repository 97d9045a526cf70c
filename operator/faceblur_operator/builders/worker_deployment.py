"""The workers themselves."""

from __future__ import annotations

import copy
from typing import Any

from .. import compare, naming
from ..api.v1alpha1 import FaceBlurCluster
from ..observed import Manifest
from . import pod as pods
from .worker_environment import CLIENT_CA_FOLDER, TLS_FOLDER, worker_environment


def build_worker_deployment(cluster: FaceBlurCluster, *, default_image: str, replicas: int | None) -> Manifest:
    """Return the Deployment. Its pods keep to the restricted Pod Security Standard.

    Args:
        cluster: Whose workers.
        default_image: Used where the spec names none.
        replicas: Number of workers; None leaves it to whoever owns the field.
    """
    template = _template(cluster, cluster.spec.image or default_image)
    template["metadata"]["annotations"][naming.TEMPLATE_ANNOTATION] = compare.digest(template)
    spec: dict[str, Any] = {
        "selector": {"matchLabels": naming.selector_labels(cluster)},
        # A worker only goes when its successor answers, so a broken image never takes the old ones away.
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}},
        "progressDeadlineSeconds": 600,
        "revisionHistoryLimit": 3,
        "template": template,
    }
    if replicas is not None:
        spec["replicas"] = replicas
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": naming.metadata(cluster, naming.worker_name(cluster.name)),
        "spec": spec,
    }


def _template(cluster: FaceBlurCluster, image: str) -> dict[str, Any]:
    spec = cluster.spec
    pod = spec.pod_template
    return {
        "metadata": {
            "labels": {**(pod.labels or {}), **naming.labels(cluster)},
            "annotations": dict(pod.annotations or {}),
        },
        "spec": {
            "serviceAccountName": naming.worker_name(cluster.name),
            **copy.deepcopy(dict(pods.POD)),
            "terminationGracePeriodSeconds": spec.workers.grace_seconds + pods.KILL_AFTER_GRACE_SECONDS,
            "containers": [_container(cluster, image)],
            "volumes": [
                dict(pods.HOME_VOLUME),
                *(_secret_volume(name, secret, files) for name, secret, files, _ in _certificates(cluster)),
                *(volume.model_dump(mode="json", by_alias=True, exclude_none=True) for volume in pod.volumes),
            ],
            **pods.placement(spec, spec.scheduling, naming.selector_labels(cluster)),
        },
    }


def _container(cluster: FaceBlurCluster, image: str) -> dict[str, Any]:
    spec = cluster.spec
    return {
        "name": naming.WORKER,
        "image": image,
        "imagePullPolicy": spec.image_pull_policy.value,
        "env": _environment(cluster),
        "ports": [
            {"name": "grpc", "containerPort": naming.GRPC_PORT, "protocol": "TCP"},
            {"name": "health", "containerPort": naming.HEALTH_PORT, "protocol": "TCP"},
            {"name": "metrics", "containerPort": naming.METRICS_PORT, "protocol": "TCP"},
        ],
        "resources": {
            kind: amounts for kind, amounts in spec.workers.resources.model_dump(mode="json").items() if amounts
        },
        # Loading the models takes seconds, on a busy node more; nothing else is asked until that is done.
        "startupProbe": _probe("readiness", period=1, failures=180),
        "readinessProbe": _probe("readiness", period=5, failures=2),
        "livenessProbe": _probe("liveness", period=10, failures=3),
        **copy.deepcopy(dict(pods.CONTAINER)),
        "volumeMounts": [
            dict(pods.HOME_MOUNT),
            *({"name": name, "mountPath": folder, "readOnly": True} for name, _, _, folder in _certificates(cluster)),
            *spec.pod_template.volume_mounts,
        ],
    }


def _environment(cluster: FaceBlurCluster) -> list[dict[str, Any]]:
    """The worker's variables win over the user's; a name that is there twice would be refused."""
    variables: dict[str, dict[str, Any]] = {"HOME": {"name": "HOME", "value": pods.HOME}}
    for variable in cluster.spec.pod_template.env:
        variables[variable.name] = variable.model_dump(mode="json", by_alias=True, exclude_none=True)
    for name, value in worker_environment(cluster).items():
        variables[name] = {"name": name, "value": value}
    return list(variables.values())


def _certificates(cluster: FaceBlurCluster) -> list[tuple[str, str, tuple[str, ...], str]]:
    """Volumes with certificates: name, Secret, its files, and where they go."""
    tls = cluster.spec.tls
    secret = naming.tls_secret_name(cluster)
    if tls is None or secret is None:
        return []
    found: list[tuple[str, str, tuple[str, ...], str]] = [("tls", secret, ("tls.crt", "tls.key"), TLS_FOLDER)]
    if tls.mutual:
        found.append(("client-ca", tls.mutual.ca_secret_name, ("ca.crt",), CLIENT_CA_FOLDER))
    return found


def _secret_volume(name: str, secret: str, files: tuple[str, ...]) -> dict[str, Any]:
    # Readable for the pod's group alone. Not mounted by subPath, so that the kubelet writes renewed files into it.
    items = [{"key": file, "path": file} for file in files]
    return {"name": name, "secret": {"secretName": secret, "defaultMode": 0o440, "items": items}}


def _probe(service: str, *, period: int, failures: int) -> dict[str, Any]:
    return {
        "grpc": {"port": naming.HEALTH_PORT, "service": service},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }
