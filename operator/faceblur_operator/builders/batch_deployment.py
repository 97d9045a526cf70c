"""The batch workers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from .. import compare, naming
from ..api.v1alpha1 import Batch, FaceBlurCluster
from ..observed import Manifest
from . import pod as pods
from .batch_environment import PREFIX, build_batch_environment, build_profiles, secrets_read_once


def build_batch_deployment(
    cluster: FaceBlurCluster,
    batch: Batch,
    *,
    default_image: str,
    cluster_domain: str,
    replicas: int | None,
    secrets: Mapping[str, str],
    live: Manifest | None = None,
) -> Manifest:
    """Return the Deployment. Its pods keep to the restricted Pod Security Standard.

    A batch worker reads the broker's URL, certificates and storage profiles when it starts, so their versions are a
    part of the template. A Secret that is gone makes no new pods: they could not start, and the old ones go on.

    Args:
        cluster: Whose batch workers.
        batch: Of its spec.
        default_image: Used where the spec names none.
        cluster_domain: DNS domain of the Kubernetes cluster.
        replicas: Number of batch workers; None leaves it to whoever owns the field.
        secrets: Versions of the Secrets, empty for those that do not exist.
        live: The Deployment as it is.
    """
    name = naming.batch_name(cluster.name)
    template = _template(cluster, batch, cluster.spec.image or default_image, cluster_domain)
    annotations = template["metadata"]["annotations"]
    versions = [secrets.get(secret, "") for secret in secrets_read_once(cluster)]
    known = _annotations(live).get(naming.READ_ANNOTATION)
    annotations[naming.READ_ANNOTATION] = (
        compare.digest([versions, build_profiles(cluster)["data"]]) if all(versions) or not known else known
    )
    annotations[naming.TEMPLATE_ANNOTATION] = compare.digest(template)
    spec: dict[str, Any] = {
        "selector": {"matchLabels": naming.selector_labels(cluster, naming.BATCH)},
        # One only goes when its successor takes pages, so a broken image or broker never takes the old ones away.
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
        "metadata": naming.metadata(cluster, name, naming.BATCH),
        "spec": spec,
    }


def _template(cluster: FaceBlurCluster, batch: Batch, image: str, domain: str) -> dict[str, Any]:
    spec = cluster.spec
    access = build_batch_environment(cluster, cluster_domain=domain)
    settings = {
        "threads": batch.workers.threads,
        "concurrency": batch.workers.concurrency,
        "grace_seconds": batch.workers.grace_seconds,
        "metrics_address": f"0.0.0.0:{naming.BATCH_METRICS_PORT}",
    }
    own = [{"name": PREFIX + name.upper(), "value": str(value)} for name, value in settings.items()]
    container = {
        "name": naming.BATCH,
        "image": image,
        "imagePullPolicy": spec.image_pull_policy.value,
        "command": ["python", "-m", "faceblur_batch"],
        "env": [{"name": "HOME", "value": pods.HOME}, *access.env, *own],
        "ports": [{"name": "metrics", "containerPort": naming.BATCH_METRICS_PORT, "protocol": "TCP"}],
        "resources": {
            kind: amounts for kind, amounts in batch.workers.resources.model_dump(mode="json").items() if amounts
        },
        "startupProbe": _probe("/healthz", period=1, failures=60),
        # Ready is who takes pages, which takes a broker; who waits for one is not ready, but alive.
        "readinessProbe": _probe("/readyz", period=5, failures=2),
        "livenessProbe": _probe("/healthz", period=10, failures=3),
        **copy.deepcopy(dict(pods.CONTAINER)),
        "volumeMounts": [dict(pods.HOME_MOUNT), *access.mounts],
    }
    return {
        "metadata": {
            "labels": {**(batch.pod_labels or {}), **naming.labels(cluster, naming.BATCH)},
            "annotations": dict(batch.pod_annotations or {}),
        },
        "spec": {
            "serviceAccountName": naming.batch_name(cluster.name),
            **copy.deepcopy(dict(pods.POD)),
            "terminationGracePeriodSeconds": batch.workers.grace_seconds + pods.KILL_AFTER_GRACE_SECONDS,
            "containers": [container],
            "volumes": [dict(pods.HOME_VOLUME), *access.volumes],
            **pods.placement(spec, batch.scheduling, naming.selector_labels(cluster, naming.BATCH)),
        },
    }


def _annotations(live: Manifest | None) -> Mapping[str, str]:
    return (live["spec"]["template"]["metadata"].get("annotations") or {}) if live else {}


def _probe(path: str, *, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "metrics"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }
