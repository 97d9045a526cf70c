"""The embedded broker: one Valkey in memory, for trying out. What it loses, planners hand out again."""

from __future__ import annotations

import copy
from typing import Any

from .. import compare, naming, quantities
from ..api.v1alpha1 import Batch, EmbeddedBroker, FaceBlurCluster
from ..observed import Manifest
from . import pod as pods

# The rest is for connections and for what the allocator leaves unused.
_SHARE_FOR_TASKS = 3, 4
_GRACE_SECONDS = 5


def build_broker_deployment(
    cluster: FaceBlurCluster, batch: Batch, embedded: EmbeddedBroker, *, default_image: str
) -> Manifest:
    """Return the Deployment of the single broker. Two at a time would each have a part of the pages."""
    name = naming.broker_name(cluster.name)
    template = _template(cluster, batch, embedded, cluster.spec.image or default_image)
    template["metadata"]["annotations"] = {naming.TEMPLATE_ANNOTATION: compare.digest(template)}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": naming.metadata(cluster, name, naming.BROKER),
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": naming.selector_labels(cluster, naming.BROKER)},
            "strategy": {"type": "Recreate"},
            "revisionHistoryLimit": 3,
            "template": template,
        },
    }


def build_broker_service(cluster: FaceBlurCluster) -> Manifest:
    """Return the Service by which batch workers, planners and KEDA find the broker.

    Headless: who still calls when it is deleted finds no name, instead of calling an address that is nobody's by then,
    or the next Service's.
    """
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": naming.metadata(cluster, naming.broker_name(cluster.name), naming.BROKER),
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "None",
            "publishNotReadyAddresses": True,  # there is one pod; until it listens, callers are refused and come again
            "selector": naming.selector_labels(cluster, naming.BROKER),
            "ports": [
                {"name": "redis", "port": naming.BROKER_PORT, "targetPort": naming.BROKER_PORT, "protocol": "TCP"}
            ],
        },
    }


def _template(cluster: FaceBlurCluster, batch: Batch, embedded: EmbeddedBroker, image: str) -> dict[str, Any]:
    memory = quantities.parse(embedded.memory) or 0
    share, whole = _SHARE_FOR_TASKS
    container = {
        "name": naming.BROKER,
        "image": image,
        "imagePullPolicy": cluster.spec.image_pull_policy.value,
        "command": ["python", "-m", "faceblur_batch.broker"],
        "args": [str(naming.BROKER_PORT), str(int(memory * share / whole))],
        "env": [{"name": "HOME", "value": pods.HOME}],
        "ports": [{"name": "redis", "containerPort": naming.BROKER_PORT, "protocol": "TCP"}],
        "resources": {
            "requests": {"cpu": "50m", "memory": embedded.memory},
            "limits": {"memory": embedded.memory},
        },
        "readinessProbe": _probe(period=2, failures=1),
        "livenessProbe": _probe(period=10, failures=3),
        **copy.deepcopy(dict(pods.CONTAINER)),
        "volumeMounts": [dict(pods.HOME_MOUNT)],
    }
    selector = naming.selector_labels(cluster, naming.BROKER)
    return {
        "metadata": {"labels": naming.labels(cluster, naming.BROKER)},
        "spec": {
            "serviceAccountName": naming.broker_name(cluster.name),
            **copy.deepcopy(dict(pods.POD)),
            "terminationGracePeriodSeconds": _GRACE_SECONDS,
            "containers": [container],
            "volumes": [dict(pods.HOME_VOLUME)],
            **pods.placement(cluster.spec, batch.scheduling, selector, spread=False),
        },
    }


def _probe(*, period: int, failures: int) -> dict[str, Any]:
    return {
        "tcpSocket": {"port": "redis"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }
