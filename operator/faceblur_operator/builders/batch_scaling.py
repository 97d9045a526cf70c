"""Scales the batch workers: by the pages that wait, where KEDA is there to count them, else by CPU."""

from __future__ import annotations

from typing import Any

from .. import naming
from ..api.v1alpha1 import Batch, BrokerType, FaceBlurCluster
from ..observed import Manifest

KEDA_API = "keda.sh/v1alpha1"
# Where `faceblur_batch.app` has Celery keep the tasks that are worked on.
_IN_WORK_SUFFIX = ".unacked"


def build_batch_autoscaler(cluster: FaceBlurCluster, batch: Batch) -> Manifest:
    """Return the HorizontalPodAutoscaler on CPU, which cannot bring the first batch worker."""
    scaling = batch.autoscaling
    spec: dict[str, Any] = {
        "scaleTargetRef": _target(cluster),
        "minReplicas": max(1, scaling.min_replicas),
        "maxReplicas": scaling.max_replicas,
        "metrics": [
            {
                "type": "ContainerResource",
                "containerResource": {
                    "name": "cpu",
                    "container": naming.BATCH,
                    "target": {"type": "Utilization", "averageUtilization": scaling.target_cpu_percent},
                },
            }
        ],
    }
    if scaling.behavior:
        spec["behavior"] = scaling.behavior
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": naming.metadata(cluster, naming.batch_name(cluster.name), naming.BATCH),
        "spec": spec,
    }


def build_batch_scaled_object(cluster: FaceBlurCluster, batch: Batch, *, cluster_domain: str) -> Manifest:
    """Return the ScaledObject on the length of the queue.

    In Redis the pages in work are counted too: as many batch workers stay as are busy, and the last one does not go in
    the middle of a page. RabbitMQ only tells of those that wait; a page that a batch worker leaves is put back there,
    and brings another one.
    """
    scaling = batch.autoscaling
    triggers = _triggers(cluster, batch, cluster_domain)
    advanced: dict[str, Any] = {}
    if len(triggers) > 1:
        advanced["scalingModifiers"] = {
            # As KEDA would write it itself.
            "formula": f"float({' + '.join(trigger['name'] for trigger in triggers)})",
            "target": str(_pages_per_worker(batch)),
            "metricType": "AverageValue",
        }
    if scaling.behavior:
        advanced["horizontalPodAutoscalerConfig"] = {"behavior": scaling.behavior}
    spec: dict[str, Any] = {
        "scaleTargetRef": _target(cluster),
        "minReplicaCount": scaling.min_replicas,
        "maxReplicaCount": scaling.max_replicas,
        "pollingInterval": scaling.polling_interval_seconds,
        "cooldownPeriod": scaling.cooldown_seconds,
        "triggers": triggers,
        **({"advanced": advanced} if advanced else {}),
    }
    return {
        "apiVersion": KEDA_API,
        "kind": "ScaledObject",
        "metadata": naming.metadata(cluster, naming.batch_name(cluster.name), naming.BATCH),
        "spec": spec,
    }


def build_trigger_authentication(cluster: FaceBlurCluster, batch: Batch) -> Manifest | None:
    """Return what lets KEDA read the broker's Secret; None where it needs nothing of it."""
    parameters = _parameters(batch)
    if not parameters:
        return None
    return {
        "apiVersion": KEDA_API,
        "kind": "TriggerAuthentication",
        "metadata": naming.metadata(cluster, naming.batch_name(cluster.name), naming.BATCH),
        "spec": {
            "secretTargetRef": [
                {"parameter": parameter, "name": secret, "key": key} for parameter, (secret, key) in parameters.items()
            ]
        },
    }


def _target(cluster: FaceBlurCluster) -> dict[str, str]:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "name": naming.batch_name(cluster.name)}


def _parameters(batch: Batch) -> dict[str, tuple[str, str]]:
    """What KEDA's scaler takes from Secrets: its parameters, with names and keys."""
    broker = batch.broker
    found: list[tuple[str, str | None, str | None]] = []
    if broker.type is BrokerType.RABBITMQ:
        found.append(("host", broker.secret_name, broker.key))
    elif broker.redis:
        found.append(("username", broker.secret_name, broker.redis.username_key))
        found.append(("password", broker.secret_name, broker.redis.password_key))
        if broker.redis.tls:
            found.append(("ca", broker.ca_secret_name, "ca.crt"))
            found.append(("cert", broker.client_secret_name, "tls.crt"))
            found.append(("key", broker.client_secret_name, "tls.key"))
    return {parameter: (secret, key) for parameter, secret, key in found if secret and key}


def _triggers(cluster: FaceBlurCluster, batch: Batch, domain: str) -> list[dict[str, Any]]:
    queue, broker = naming.queue(cluster), batch.broker
    pages = str(_pages_per_worker(batch))
    reference = {"authenticationRef": {"name": naming.batch_name(cluster.name)}} if _parameters(batch) else {}
    if broker.type is BrokerType.RABBITMQ:
        metadata = {"queueName": queue, "mode": "QueueLength", "value": pages}
        return [{"type": "rabbitmq", "name": "waiting", "metadata": metadata, **reference}]
    redis = broker.redis
    where = {
        "address": redis.address if redis else f"{naming.broker_host(cluster)}.{domain}:{naming.BROKER_PORT}",
        "databaseIndex": str(redis.database if redis else 0),
        "enableTLS": str(bool(redis and redis.tls)).lower(),
    }
    lists = {"waiting": queue, "working": queue + _IN_WORK_SUFFIX}
    return [
        {"type": "redis", "name": name, "metadata": {**where, "listName": key, "listLength": pages}, **reference}
        for name, key in lists.items()
    ]


def _pages_per_worker(batch: Batch) -> int:
    return batch.autoscaling.pages_per_worker or batch.workers.threads
