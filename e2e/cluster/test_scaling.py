"""Workers come with the load and go with it, new ones get their share, and no call fails on the way."""

from __future__ import annotations

import os
import shlex
import subprocess

import pytest

from support.cluster import Cluster, condition
from support.eventual import eventually
from support.operator import Operator
from support.workers import Callers, Workers, fixed

pytestmark = pytest.mark.timeout(600)

# Scales down at once, so that a test sees it.
QUICK = {
    "scaleDown": {"stabilizationWindowSeconds": 0, "policies": [{"type": "Percent", "value": 100, "periodSeconds": 1}]}
}


# What the autoscaler measures by: a few calls a second are far below it on a slow machine too, a full load far above.
REQUESTED = {"resources": {"requests": {"cpu": "300m"}}, "maxConnectionAgeSeconds": 5}


@pytest.fixture
def workers(kube: Cluster, operator: Operator, namespace: str) -> Workers:
    return Workers(kube, namespace)


def callers_of(workers: Workers, image: str, name: str, *arguments: str) -> Callers:
    callers = Callers(workers.kube, workers.namespace, name)
    callers.start(image, "--target", workers.get()["status"]["address"], *arguments)
    return callers


def test_load_brings_workers_and_its_end_takes_them_away(workers: Workers, worker_image: str) -> None:
    autoscaling = {"minReplicas": 1, "maxReplicas": 3, "targetCPUPercent": 60, "behavior": QUICK}
    workers.apply({"autoscaling": autoscaling, "workers": REQUESTED})
    workers.wait_ready(1)
    steady = callers_of(workers, worker_image, "steady", "--clients", "2", "--rate", "1")
    load = callers_of(workers, worker_image, "load", "--clients", "8", "--in-flight", "1")
    body = workers.wait(lambda found: found["status"].get("readyReplicas", 0) >= 2, 180)
    assert condition(body, "Autoscaling")["status"] == "True"
    before = workers.pictures()
    new = [pod["metadata"]["name"] for pod in workers.pods(ready=True)]
    eventually(
        lambda: all(workers.pictures().get(name, 0) > before.get(name, 0) + 20 for name in new), 60, "a share for each"
    )
    assert load.stop()["failed"] == {}
    workers.wait(lambda found: found["status"].get("replicas") == 1, 240)
    steady.goes_on()
    summary = steady.stop()
    assert summary["failed"] == {}


def test_scaling_by_hand_under_load_fails_no_call_and_shares_the_calls(workers: Workers, worker_image: str) -> None:
    workers.apply({**fixed(1), "workers": {"maxConnectionAgeSeconds": 5}})
    workers.wait_ready(1)
    callers = callers_of(workers, worker_image, "callers", "--clients", "8", "--rate", "24")
    workers.apply({**fixed(4), "workers": {"maxConnectionAgeSeconds": 5}})
    workers.wait_ready(4)

    def shares() -> dict[str, float]:
        """How many pictures each worker answers while the callers get 120 answers."""
        before = workers.pictures()
        callers.goes_on(120, 60)
        return {name: count - before.get(name, 0) for name, count in workers.pictures().items()}

    def fair() -> bool:
        counted = shares()
        mean = sum(counted.values()) / 4
        return len(counted) == 4 and all(abs(count - mean) <= mean / 4 for count in counted.values())

    eventually(fair, 90, "a fair share for each worker")
    workers.apply({**fixed(1), "workers": {"maxConnectionAgeSeconds": 5}})
    workers.wait_ready(1)
    callers.goes_on()
    assert callers.stop()["failed"] == {}


def test_keda_is_missed_then_used(kube: Cluster, workers: Workers, worker_image: str) -> None:
    """Without KEDA the fewest workers are there and the condition says why; installed, it takes over."""
    command = os.environ.get("FACEBLUR_ADD_KEDA")
    if not command:
        pytest.skip("FACEBLUR_ADD_KEDA does not name a command that installs KEDA in the cluster")
    autoscaling = {"mode": "KEDA", "minReplicas": 1, "maxReplicas": 3, "targetCPUPercent": 60, "behavior": QUICK}
    workers.apply({"autoscaling": autoscaling, "workers": REQUESTED})
    workers.wait_ready(1)
    found = condition(workers.get(), "Autoscaling")
    if found["status"] != "True":
        assert found["reason"] == "KEDAMissing"
        subprocess.run(shlex.split(command), check=True, env=kube.environment(), timeout=900)
    workers.wait_condition("Autoscaling", "True", seconds=120)
    load = callers_of(workers, worker_image, "load", "--clients", "8", "--in-flight", "1")
    workers.wait(lambda found: found["status"].get("readyReplicas", 0) >= 2, 240)
    assert load.stop()["failed"] == {}
    workers.wait(lambda found: found["status"].get("replicas") == 1, 300)
