"""A FaceBlurCluster as tests on a real cluster see it: small, watched, and called from a pod."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from support.cluster import Cluster, Manifest, condition
from support.eventual import eventually

API_VERSION = "faceblur.io/v1alpha1"
KIND = "FaceBlurCluster"
SAMPLE = Path(__file__).parents[2] / "examples" / "photos" / "city.jpg"
CALLERS = Path(__file__).parents[2] / "e2e" / "cluster" / "callers.py"

# A test node has two cores, whatever a production default asks for.
SMALL: Mapping[str, Any] = {
    "detection": {"profile": "fast"},
    "workers": {
        "threads": 1,
        "settleSeconds": 3,
        "graceSeconds": 20,
        "resources": {"requests": {"cpu": "100m", "memory": "200Mi"}, "limits": {"memory": "700Mi"}},
    },
}

RESTRICTED_POD = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}
RESTRICTED_CONTAINER = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def fixed(replicas: int) -> dict[str, Any]:
    """The part of a spec that asks for a fixed number of workers."""
    return {"replicas": replicas, "autoscaling": {"mode": "Fixed"}}


def merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Two specs in one; the second wins."""
    result = dict(base)
    for key, value in more.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


@dataclass(frozen=True)
class Workers:
    """One FaceBlurCluster and what belongs to it.

    Attributes:
        kube: The cluster it is in.
        namespace: Of the resource.
        name: Of the resource.
    """

    kube: Cluster
    namespace: str
    name: str = "demo"

    def apply(self, spec: Mapping[str, Any], *, small: bool = True) -> Manifest:
        """Apply the resource with a spec, on top of `SMALL` unless told otherwise."""
        return self.kube.apply(
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "metadata": {"name": self.name, "namespace": self.namespace},
                "spec": merged(SMALL, spec) if small else dict(spec),
            }
        )

    def get(self) -> Manifest:
        """The resource as it is now."""
        found = self.kube.get(API_VERSION, KIND, self.name, self.namespace)
        assert found is not None, f"there is no {KIND} {self.name}"
        return found

    def wait(self, holds: Callable[[Manifest], object], seconds: float = 60) -> Manifest:
        """Watch the resource until something holds of it."""
        found = self.kube.wait_until(
            API_VERSION, KIND, self.name, self.namespace, lambda body: body is not None and holds(body), seconds
        )
        assert found is not None
        return found

    def wait_condition(
        self, kind: str, status: str = "True", reason: str | None = None, seconds: float = 60
    ) -> dict[str, Any]:
        """Watch until a condition about the present generation is as said, and return it."""

        def holds(body: Manifest) -> bool:
            found = condition(body, kind)
            current = body.get("status", {}).get("observedGeneration") == body["metadata"]["generation"]
            return current and found.get("status") == status and reason in (None, found.get("reason"))

        return condition(self.wait(holds, seconds), kind)

    def wait_ready(self, workers: int | None = None, seconds: float = 90) -> Manifest:
        """Watch until the resource is Ready for its present generation, with so many workers if that is said."""

        def holds(body: Manifest) -> bool:
            status = body.get("status", {})
            return (
                status.get("observedGeneration") == body["metadata"]["generation"]
                and condition(body, "Ready").get("status") == "True"
                and condition(body, "Progressing").get("status") != "True"
                and (workers is None or (status.get("readyReplicas"), status.get("replicas")) == (workers, workers))
            )

        return self.wait(holds, seconds)

    def delete(self) -> None:
        """Delete the resource."""
        self.kube.delete(API_VERSION, KIND, self.name, self.namespace)

    def deployment(self) -> Manifest:
        """The workers' Deployment."""
        found = self.kube.get("apps/v1", "Deployment", f"{self.name}-worker", self.namespace)
        assert found is not None, "there is no Deployment"
        return found

    def pods(self, *, ready: bool = False) -> list[Manifest]:
        """The workers' pods that are not on their way out."""
        labels = {"app.kubernetes.io/instance": self.name, "app.kubernetes.io/component": "worker"}
        found = self.kube.list("v1", "Pod", self.namespace, labels)
        alive = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
        return [pod for pod in alive if condition(pod, "Ready").get("status") == "True"] if ready else alive

    def pictures(self) -> dict[str, float]:
        """For each ready worker, how many pictures it has answered so far, as its metrics say."""
        counts = {}
        for pod in self.pods(ready=True):
            name = pod["metadata"]["name"]
            path = f"/api/v1/namespaces/{self.namespace}/pods/{name}:9464/proxy/metrics"
            try:
                text = self.kube.kubectl("get", "--raw", path)
            except AssertionError:
                continue  # it went between the listing and the question
            counts[name] = sum(
                sample.value
                for family in text_string_to_metric_families(text)
                for sample in family.samples
                if sample.name == "faceblur_worker_pictures_total"
            )
        return counts

    def events(self) -> list[str]:
        """The reasons of the Events about the resource."""
        found = self.kube.list("v1", "Event", self.namespace)
        return [event["reason"] for event in found if event["involvedObject"].get("kind") == KIND]


@dataclass
class Callers:
    """A pod that calls workers through the SDK until it is told to stop; see e2e/cluster/callers.py.

    Attributes:
        kube: The cluster it is in.
        namespace: Of the pod.
        name: Of the pod.
    """

    kube: Cluster
    namespace: str
    name: str

    def start(self, image: str, *arguments: str, picture: bytes | None = None) -> None:
        """Make the pod and wait until the first answers came."""
        self.kube.apply(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": self.name, "namespace": self.namespace},
                "data": {"callers.py": CALLERS.read_text(encoding="utf-8")},
                "binaryData": {"picture": base64.b64encode(picture or SAMPLE.read_bytes()).decode()},
            }
        )
        self.kube.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": self.name, "namespace": self.namespace},
                "spec": {
                    "restartPolicy": "Never",
                    "terminationGracePeriodSeconds": 120,
                    "automountServiceAccountToken": False,
                    "securityContext": RESTRICTED_POD,
                    "volumes": [{"name": "callers", "configMap": {"name": self.name}}],
                    "containers": [
                        {
                            "name": "callers",
                            "image": image,
                            "imagePullPolicy": "IfNotPresent",
                            "command": ["python", "/callers/callers.py", "--picture", "/callers/picture", *arguments],
                            "resources": {"requests": {"cpu": "100m", "memory": "100Mi"}},
                            "volumeMounts": [{"name": "callers", "mountPath": "/callers"}],
                            "securityContext": RESTRICTED_CONTAINER,
                        }
                    ],
                },
            }
        )
        eventually(lambda: self.answered() > 0, 60, "a first answer to the callers")

    def lines(self) -> list[dict[str, Any]]:
        """What the pod has reported so far."""
        text = self.kube.kubectl("-n", self.namespace, "logs", self.name, check=False)
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def answered(self) -> int:
        """Pictures answered so far."""
        return max((int(line.get("ok", line.get("answered", 0))) for line in self.lines()), default=0)

    def goes_on(self, more: int = 10, seconds: float = 60) -> None:
        """Wait until so many more pictures have been answered."""
        before = self.answered()
        eventually(lambda: self.answered() >= before + more, seconds, f"{more} more answers to the callers")

    def stop(self) -> dict[str, Any]:
        """End the calls, those in flight included, and return the sum: ``answered``, ``failed``, ``slowest``."""
        self.kube.kubectl("-n", self.namespace, "exec", self.name, "--", "python", "-c", "import os; os.kill(1, 15)")
        done = self.kube.wait_until(
            "v1",
            "Pod",
            self.name,
            self.namespace,
            lambda pod: pod is None or pod["status"].get("phase") in ("Succeeded", "Failed"),
            150,
        )
        assert done is not None, "somebody deleted the callers"
        return self.lines()[-1]


def seconds_since(moment: float) -> float:
    """Seconds since `time.monotonic()` was this."""
    return time.monotonic() - moment
