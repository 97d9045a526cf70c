"""What goes wrong in a cluster, done on purpose: calls go on where a second worker is there, and the state returns."""

from __future__ import annotations

import os
import shlex
import subprocess

import pytest

from support.certificates import Authority
from support.cluster import Cluster, RefusedError, condition
from support.eventual import eventually
from support.operator import Operator
from support.workers import Callers, Workers, fixed

pytestmark = pytest.mark.timeout(420)


@pytest.fixture
def workers(kube: Cluster, operator: Operator, namespace: str) -> Workers:
    return Workers(kube, namespace)


@pytest.fixture
def two(workers: Workers) -> Workers:
    """Two workers that answer."""
    workers.apply(fixed(2))
    workers.wait_ready(2)
    return workers


@pytest.fixture
def callers(kube: Cluster, two: Workers, worker_image: str) -> Callers:
    """Four clients that call them all the time."""
    callers = Callers(kube, two.namespace, "callers")
    callers.start(worker_image, "--target", two.get()["status"]["address"], "--clients", "4", "--rate", "12")
    return callers


def may_evict(kube: Cluster, namespace: str) -> None:
    """Wait until the disruption budget's controller has seen enough ready workers; it learns of them after we do."""

    def allowed() -> int:
        budget = kube.get("policy/v1", "PodDisruptionBudget", "demo-worker", namespace) or {}
        return int(budget.get("status", {}).get("disruptionsAllowed", 0))

    eventually(allowed, 60, "the budget's leave")


def evict(kube: Cluster, namespace: str, pod: str) -> None:
    """Ask for a pod's end as `kubectl drain` does."""
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}}
    kube.request("POST", f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction", eviction)


def unharmed(callers: Callers) -> None:
    """Every call was answered, and nothing came back as it was sent."""
    summary = callers.stop()
    assert summary["failed"] == {}
    assert summary["answered"] > 20


def test_changes_roll_through_without_a_failed_call(two: Workers, callers: Callers) -> None:
    for method in ("solid", "mosaic"):
        two.apply({**fixed(2), "redaction": {"method": method}})
        two.wait_ready(2)
        callers.goes_on()
    unharmed(callers)


def test_killed_and_evicted_workers_are_replaced_without_a_failed_call(
    kube: Cluster, two: Workers, callers: Callers
) -> None:
    for number in range(3):
        victim = two.pods(ready=True)[0]["metadata"]["name"]
        if number < 2:
            kube.kubectl("-n", two.namespace, "delete", "pod", victim, "--grace-period=0", "--force")
        else:
            may_evict(kube, two.namespace)
            evict(kube, two.namespace, victim)
        eventually(lambda gone=victim: gone not in [p["metadata"]["name"] for p in two.pods()], 30, "the worker's end")
        two.wait_ready(2)
        callers.goes_on()
    unharmed(callers)


def test_the_disruption_budget_keeps_a_worker_during_evictions(kube: Cluster, two: Workers) -> None:
    may_evict(kube, two.namespace)
    first, second = (pod["metadata"]["name"] for pod in two.pods(ready=True))
    evict(kube, two.namespace, first)
    with pytest.raises(RefusedError) as caught:
        evict(kube, two.namespace, second)
    assert caught.value.status == 429


def test_what_hands_have_changed_or_deleted_is_put_right(kube: Cluster, two: Workers, callers: Callers) -> None:
    before = two.deployment()["spec"]["template"]
    container = {"name": "worker", "image": "localhost/somebody-elses:1"}
    kube.patch(
        "apps/v1",
        "Deployment",
        "demo-worker",
        two.namespace,
        {"spec": {"replicas": 1, "template": {"spec": {"containers": [container]}}}},
    )
    eventually(lambda: two.deployment()["spec"]["template"] == before, 30, "the Deployment's repair")
    eventually(lambda: two.deployment()["spec"]["replicas"] == 2, 30, "the number of workers")
    service = kube.get("v1", "Service", "demo", two.namespace)
    assert service is not None
    kube.delete("v1", "Service", "demo", two.namespace)
    eventually(
        lambda: (
            (kube.get("v1", "Service", "demo", two.namespace) or service)["metadata"]["uid"]
            != service["metadata"]["uid"]
        ),
        30,
        "a new Service",
    )
    for api_version, kind in (
        ("policy/v1", "PodDisruptionBudget"),
        ("networking.k8s.io/v1", "NetworkPolicy"),
        ("apps/v1", "Deployment"),
    ):
        old = kube.get(api_version, kind, "demo-worker", two.namespace)
        assert old is not None
        if kind != "Deployment":
            kube.delete(api_version, kind, "demo-worker", two.namespace)
            eventually(
                lambda a=api_version, k=kind, o=old: (
                    (kube.get(a, k, "demo-worker", two.namespace) or o)["metadata"]["uid"] != o["metadata"]["uid"]
                ),
                30,
                f"a new {kind}",
            )
    two.wait_ready(2)
    unharmed(callers)


def test_a_broken_image_leaves_the_old_workers_and_the_condition_says_why(two: Workers, callers: Callers) -> None:
    old = {pod["metadata"]["name"] for pod in two.pods(ready=True)}
    two.apply({**fixed(2), "image": "localhost/there-is-no-such-image:1"})
    found = two.wait_condition("Degraded", seconds=60)
    assert found["reason"] in ("ImagePullBackOff", "ErrImagePull")
    assert "localhost/there-is-no-such-image:1" in found["message"]
    assert old <= {pod["metadata"]["name"] for pod in two.pods(ready=True)}
    callers.goes_on()
    two.apply(fixed(2))
    two.wait_condition("Degraded", "False")
    unharmed(callers)


def test_a_worker_that_cannot_start_is_quoted(workers: Workers, operator_image: str) -> None:
    """The operator's image has no worker in it: its container ends with a Python error as its last words."""
    workers.apply(
        {**fixed(1), "image": operator_image, "podTemplate": {"env": [{"name": "PYTHONPATH", "value": "/x"}]}}
    )
    workers.wait_condition("Degraded", seconds=120)
    body = workers.wait(lambda body: condition(body, "Degraded").get("reason") == "CrashLoopBackOff", 120)
    assert condition(body, "Ready")["status"] == "False"
    assert condition(body, "Degraded")["message"]


def test_the_operator_may_be_killed_at_any_time(two: Workers, callers: Callers, operator: Operator) -> None:
    two.apply({**fixed(2), "redaction": {"method": "solid"}})
    operator.kill()
    callers.goes_on()
    two.wait_ready(2, 120)
    variables = {
        e["name"]: e.get("value") for e in two.deployment()["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    assert variables["FACEBLUR_WORKER_METHOD"] == "solid"
    unharmed(callers)


def test_a_secret_that_goes_and_comes_back_is_told(kube: Cluster, workers: Workers) -> None:
    authority = Authority()
    certificate, key = authority.issue(f"demo.{workers.namespace}.svc")
    content = {"tls.crt": certificate, "tls.key": key}
    workers.apply({**fixed(1), "tls": {"secretName": "workers-tls"}})
    assert "workers-tls" in workers.wait_condition("TLS", "False", "SecretMissing")["message"]
    kube.put_secret("workers-tls", workers.namespace, content)
    workers.wait_ready(1, 120)
    workers.wait_condition("TLS", "True")
    kube.delete("v1", "Secret", "workers-tls", workers.namespace)
    workers.wait_condition("TLS", "False", "SecretMissing", seconds=90)
    assert condition(workers.get(), "Ready")["status"] == "True", "workers that run keep their certificate"
    kube.put_secret("workers-tls", workers.namespace, content)
    workers.wait_condition("TLS", "True", seconds=90)


def test_calls_go_on_while_the_api_server_is_restarted(
    kube: Cluster, two: Workers, callers: Callers, operator: Operator
) -> None:
    command = os.environ.get("FACEBLUR_RESTART")
    if not command:
        pytest.skip("FACEBLUR_RESTART does not name a command that restarts a process of the cluster")
    subprocess.run([*shlex.split(command), "kube-apiserver", "5"], check=True, timeout=60)
    eventually(kube.answers, 90, "the API server's return")
    two.apply({**fixed(2), "redaction": {"method": "mosaic"}})
    two.wait_ready(2, 150)
    assert operator.restarts() == 0, "the operator waited for the API server"
    unharmed(callers)
