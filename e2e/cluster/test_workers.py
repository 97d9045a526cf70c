"""A FaceBlurCluster from its creation to its end: what is made, what is said about it, and what is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from support.cluster import Cluster, condition
from support.eventual import eventually
from support.workers import Callers, Workers, fixed

pytestmark = [pytest.mark.usefixtures("operator"), pytest.mark.timeout(300)]

OWNED = (
    ("apps/v1", "Deployment"),
    ("apps/v1", "ReplicaSet"),
    ("v1", "Service"),
    ("v1", "Pod"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("policy/v1", "PodDisruptionBudget"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
)


@pytest.fixture
def workers(kube: Cluster, namespace: str) -> Workers:
    return Workers(kube, namespace)


@pytest.fixture
def callers(kube: Cluster, namespace: str) -> Callers:
    return Callers(kube, namespace, "callers")


def owned(kube: Cluster, namespace: str) -> dict[str, list[str]]:
    """Names of what a cluster makes, by kind; Kubernetes' own Service account and the like are not among it."""
    names = {kind: [item["metadata"]["name"] for item in kube.list(api, kind, namespace)] for api, kind in OWNED}
    names["ServiceAccount"] = [
        item["metadata"]["name"]
        for item in kube.list("v1", "ServiceAccount", namespace)
        if item["metadata"]["name"] != "default"
    ]
    return {kind: found for kind, found in names.items() if found}


def test_an_empty_spec_becomes_workers_that_answer_and_deleting_it_leaves_nothing(
    kube: Cluster, workers: Workers, callers: Callers, worker_image: str
) -> None:
    """The pods run where only restricted ones are admitted: the namespace enforces it."""
    workers.apply({"autoscaling": {"minReplicas": 1, "maxReplicas": 2}})
    body = workers.wait_ready(1)
    status = body["status"]
    assert status["observedGeneration"] == body["metadata"]["generation"]
    assert status["address"] == f"dns:///demo.{workers.namespace}.svc.cluster.local:50051"
    assert status["image"] == worker_image
    assert {(c["type"], c["status"]) for c in status["conditions"]} >= {
        ("Ready", "True"),
        ("Progressing", "False"),
        ("Degraded", "False"),
    }
    workers.wait_condition("Autoscaling")
    reported = workers.wait(lambda found: found["status"].get("models"), 30)["status"]
    assert [model["name"] for model in reported["models"]] == ["blazeface_full_range"]
    assert all(len(model["sha256"]) == 64 for model in reported["models"])

    callers.start(worker_image, "--target", status["address"])
    summary = callers.stop()
    assert summary["failed"] == {}
    assert summary["answered"] > 0

    columns = kube.kubectl("-n", workers.namespace, "get", "faceblurclusters").splitlines()
    assert columns[1].split()[0] == "demo"
    kube.kubectl("-n", workers.namespace, "delete", "pod", "callers", "--now")
    assert owned(kube, workers.namespace).keys() == {kind for _, kind in OWNED} | {"ServiceAccount"}
    workers.delete()
    eventually(lambda: not owned(kube, workers.namespace), 60, "the end of what the cluster made")


def test_kubectl_scale_sets_a_fixed_number_of_workers(kube: Cluster, workers: Workers) -> None:
    workers.apply(fixed(1))
    workers.wait_ready(1)
    kube.kubectl("-n", workers.namespace, "scale", "faceblurcluster/demo", "--replicas=2")
    workers.wait_ready(2)
    kube.kubectl("-n", workers.namespace, "scale", "faceblurcluster/demo", "--replicas=0")
    workers.wait(lambda body: body["status"].get("replicas", 0) == 0 and body["spec"]["replicas"] == 0)


def test_what_a_spec_no_longer_asks_for_goes(kube: Cluster, workers: Workers) -> None:
    def there(api_version: str, kind: str, name: str) -> Callable[[], bool]:
        return lambda: kube.get(api_version, kind, name, workers.namespace) is not None

    autoscaler = there("autoscaling/v2", "HorizontalPodAutoscaler", "demo-worker")
    budget = there("policy/v1", "PodDisruptionBudget", "demo-worker")
    policy = there("networking.k8s.io/v1", "NetworkPolicy", "demo-worker")
    external = there("v1", "Service", "demo-external")
    workers.apply({"autoscaling": {"minReplicas": 2}, "service": {"type": "ClusterIP"}})
    workers.wait_ready(2)
    eventually(lambda: autoscaler() and budget() and policy() and external(), 20, "what the spec asks for")
    off: dict[str, Any] = {"disruptionBudget": {"enabled": False}, "networkPolicy": {"enabled": False}}
    workers.apply({**fixed(2), **off})
    eventually(lambda: not (autoscaler() or budget() or policy() or external()), 20, "the end of what is not asked for")
    assert workers.deployment()["spec"]["replicas"] == 2, "the workers stay as they are when their autoscaler goes"
    workers.apply({**off, "autoscaling": {"minReplicas": 2}})
    eventually(autoscaler, 20, "the autoscaler")
    assert workers.deployment()["spec"]["replicas"] == 2, "the workers stay as they are when an autoscaler comes"
    workers.wait_ready(2)


def test_a_paused_cluster_is_left_as_it_is_and_says_so(kube: Cluster, workers: Workers) -> None:
    workers.apply(fixed(1))
    workers.wait_ready(1)
    workers.apply({**fixed(1), "paused": True, "redaction": {"method": "solid"}})
    workers.wait_condition("Paused")
    generation = workers.deployment()["metadata"]["generation"]
    kube.delete("v1", "Service", "demo", workers.namespace)
    kube.patch(
        "apps/v1",
        "Deployment",
        "demo-worker",
        workers.namespace,
        {"metadata": {"labels": {"app.kubernetes.io/part-of": "somebody-else"}}},
    )
    workers.apply({**fixed(1), "redaction": {"method": "solid"}})
    workers.wait_ready(1)
    assert workers.deployment()["metadata"]["generation"] == generation + 1, (
        "the change waited for the end of the pause"
    )
    eventually(lambda: kube.get("v1", "Service", "demo", workers.namespace), 30, "the Service's return")
    assert not condition(workers.get(), "Paused") or condition(workers.get(), "Paused")["status"] == "False"


def test_an_object_of_somebody_else_is_never_touched(kube: Cluster, workers: Workers) -> None:
    theirs = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "demo", "namespace": workers.namespace, "labels": {"owner": "somebody"}},
        "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]},
    }
    version = kube.apply(theirs)["metadata"]["resourceVersion"]
    workers.apply(fixed(1))
    found = workers.wait_condition("Degraded", reason="NameTaken")
    assert "Service demo" in found["message"]
    workers.delete()
    eventually(lambda: not workers.pods(), 60, "the workers' end")
    after = kube.get("v1", "Service", "demo", workers.namespace)
    assert after is not None
    assert after["metadata"]["resourceVersion"] == version
