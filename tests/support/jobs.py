"""FaceBlurJobs as tests on a real cluster see them: an S3 server and a Redis as pods, buckets with pictures, jobs."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from support.bad_pictures import REFUSED
from support.cluster import Cluster, Manifest, condition, full_name
from support.workers import RESTRICTED_CONTAINER, RESTRICTED_POD, merged

API_VERSION = "faceblur.io/v1alpha1"
KIND = "FaceBlurJob"
PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
BUCKET = Path(__file__).parents[2] / "e2e" / "cluster" / "bucket.py"
ACCESS_KEY, SECRET_KEY = "key-of-the-tests", "secret-of-the-tests"
BUCKETS = ("photos", "blurred")


def batch(namespace: str) -> dict[str, Any]:
    """What a cluster needs to do batches here: quick signs of life, since tests wait for what follows their absence."""
    return {
        "replicas": 1,
        "autoscaling": {"mode": "Fixed"},
        "broker": {"secretName": "broker"},
        "storage": [
            {
                "name": "default",
                "endpoint": f"http://{full_name('store', namespace)}:7070",
                "allowHTTP": True,
                "credentialsSecretName": "store",
            }
        ],
        "workers": {
            "threads": 2,
            "graceSeconds": 10,
            "resources": {"requests": {"cpu": "100m", "memory": "150Mi"}, "limits": {"memory": "500Mi"}},
        },
    }


def samples() -> dict[str, bytes]:
    """Small pictures, with faces that are found and without any, by a name that says which."""

    def scaled(name: str, width: int, *, crop: tuple[slice, slice] | None = None) -> bytes:
        picture = cv2.imread(str(PHOTOS / name))
        assert picture is not None
        picture = picture[crop] if crop else picture
        height = round(picture.shape[0] * width / picture.shape[1])
        done, data = cv2.imencode(".jpg", cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA))
        assert done
        return bytes(data)

    head = (slice(0, 300), slice(80, 380))
    made = [("face", scaled("astronaut.png", 200 + 8 * i, crop=head)) for i in range(6)]
    made += [("none", scaled(name, 160 + 8 * i)) for i in range(3) for name in ("coffee.png", "rocket.jpg")]
    return {f"sample-{number:02d}-{kind}": data for number, (kind, data) in enumerate(made)}


def poison() -> dict[str, bytes]:
    """Pictures that the engine refuses."""
    built = [build() for build, _ in REFUSED.values()]
    small = [data for data in built if 0 < len(data) < 5_000]
    return {f"bad-{number:02d}": data for number, data in enumerate(small[:40])}


@dataclass(frozen=True)
class Surroundings:
    """What jobs need besides a cluster of workers: an S3 server, a broker, and a pod that looks into buckets.

    Attributes:
        kube: The cluster it is in.
        namespace: Of everything.
    """

    kube: Cluster
    namespace: str

    def start(self, image: str) -> None:
        """Make everything, and wait until it answers."""
        url = f"http://{full_name('store', self.namespace)}:7070"
        endpoint = {"ENDPOINT": url, "ACCESS_KEY": ACCESS_KEY, "SECRET_KEY": SECRET_KEY}
        keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        self._apply("v1", "Secret", "store", {"stringData": keys})
        self._apply(
            "v1", "Secret", "broker", {"stringData": {"url": f"redis://{full_name('redis', self.namespace)}:6379/0"}}
        )
        binary = {name: base64.b64encode(data).decode() for name, data in {**samples(), **poison()}.items()}
        self._apply("v1", "ConfigMap", "bucket", {"data": {"bucket.py": BUCKET.read_text()}, "binaryData": binary})
        folders = "import os; [os.makedirs('/data/' + name, exist_ok=True) for name in " + repr(BUCKETS) + "]"
        self._serve(
            "store",
            7070,
            {
                "image": os.environ["FACEBLUR_VERSITYGW_IMAGE"],
                "args": ["--quiet", "--port", ":7070", "posix", "/data"],
                "env": [
                    {"name": "ROOT_ACCESS_KEY", "value": ACCESS_KEY},
                    {"name": "ROOT_SECRET_KEY", "value": SECRET_KEY},
                ],
            },
            before={"image": image, "command": ["python", "-c", folders]},
        )
        self._serve(
            "redis", 6379, {"image": os.environ["FACEBLUR_REDIS_IMAGE"], "args": ["--save", "", "--dir", "/data"]}
        )
        self._serve(
            "bucket",
            7070,
            {
                "image": image,
                "command": ["python", "-c", "import signal; signal.pause()"],
                "env": [{"name": name, "value": value} for name, value in endpoint.items()],
                "volumeMounts": [{"name": "bucket", "mountPath": "/bucket"}],
            },
            volumes=[{"name": "bucket", "configMap": {"name": "bucket"}}],
        )
        for name in ("store", "redis", "bucket"):
            self._wait_ready(name)

    def encrypted_redis(self, name: str) -> None:
        """Make a Redis that answers who shows it a certificate of the authority in the Secret of this name.

        Its own certificate is there, too.
        """
        files = {"cert-file": "tls.crt", "key-file": "tls.key", "ca-cert-file": "ca.crt"}
        options = {"save": "", "dir": "/data", "port": "0", "tls-port": "6379"}
        options |= {f"tls-{option}": f"/tls/{file}" for option, file in files.items()}
        container = {
            "image": os.environ["FACEBLUR_REDIS_IMAGE"],
            "args": [word for option, value in options.items() for word in (f"--{option}", value)],
            "volumeMounts": [{"name": "tls", "mountPath": "/tls"}],
        }
        self._serve(name, 6379, container, volumes=[{"name": "tls", "secret": {"secretName": name}}])
        self._wait_ready(name)

    def bucket(self, action: str, *arguments: str, seconds: float = 200) -> dict[str, Any]:
        """Do something with a bucket; see e2e/cluster/bucket.py."""
        command = ["kubectl", "--context", self.kube.context, "-n", self.namespace, "exec", "bucket", "--"]
        done = subprocess.run(
            [*command, "python", "/bucket/bucket.py", action, *arguments],
            env=self.kube.environment(),
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        assert done.returncode == 0, f"{action}: {done.stderr[-3000:]}"
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def _serve(
        self,
        name: str,
        port: int,
        container: Manifest,
        *,
        before: Manifest | None = None,
        volumes: list[Manifest] | None = None,
    ) -> None:
        common = {
            "imagePullPolicy": "IfNotPresent",
            "securityContext": RESTRICTED_CONTAINER,
            "resources": {"requests": {"cpu": "50m", "memory": "50Mi"}},
        }
        data = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
        mounts = data["volumeMounts"] + container.pop("volumeMounts", [])
        self.kube.expose(name, self.namespace, port)
        spec: Manifest = {
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "securityContext": {**RESTRICTED_POD, "fsGroup": 65532},
            "volumes": [{"name": "data", "emptyDir": {}}, *(volumes or [])],
            "containers": [{"name": name, **common, **container, "volumeMounts": mounts}],
        }
        if before:
            spec["initContainers"] = [{"name": "before", **common, **data, **before}]
        self._apply("v1", "Pod", name, {"spec": spec}, labels={"app": name})

    def _wait_ready(self, name: str) -> None:
        self.kube.wait_until(
            "v1", "Pod", name, self.namespace, lambda pod: condition(pod, "Ready").get("status") == "True", 90
        )

    def _apply(
        self, api_version: str, kind: str, name: str, rest: Manifest, *, labels: Mapping[str, str] | None = None
    ) -> None:
        metadata = {"name": name, "namespace": self.namespace, "labels": dict(labels or {})}
        self.kube.apply({"apiVersion": api_version, "kind": kind, "metadata": metadata, **rest})


@dataclass(frozen=True)
class Job:
    """One FaceBlurJob.

    Attributes:
        kube: The cluster it is in.
        namespace: Of the resource.
        name: Of the resource.
    """

    kube: Cluster
    namespace: str
    name: str = "job"

    def apply(self, folder: str, **spec: Any) -> Manifest:
        """Apply the resource: from a folder of the one bucket to that of the other."""
        return self.kube.apply(
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "metadata": {"name": self.name, "namespace": self.namespace},
                "spec": merged(
                    {
                        "clusterRef": {"name": "demo"},
                        "source": {"location": f"s3://photos/{folder}/"},
                        "destination": {"location": f"s3://blurred/{folder}/"},
                        "pageSize": 100,
                    },
                    spec,
                ),
            }
        )

    def get(self) -> Manifest:
        """The resource as it is now."""
        found = self.kube.get(API_VERSION, KIND, self.name, self.namespace)
        assert found is not None, f"there is no {KIND} {self.name}"
        return found

    def wait(self, holds: Callable[[Manifest], object], seconds: float = 120) -> Manifest:
        """Watch the resource until something holds of it."""
        found = self.kube.wait_until(
            API_VERSION, KIND, self.name, self.namespace, lambda body: body is not None and holds(body), seconds
        )
        assert found is not None
        return found

    def wait_phase(self, *phases: str, seconds: float = 120) -> Manifest:
        """Watch until the present generation is in one of these phases."""

        def holds(body: Manifest) -> bool:
            status = body.get("status", {})
            return status.get("observedGeneration") == body["metadata"]["generation"] and status.get("phase") in phases

        return self.wait(holds, seconds)

    def wait_done(self, count: int, seconds: float = 120) -> Manifest:
        """Watch until so many objects have an outcome."""
        return self.wait(lambda body: progress(body).get("done", 0) >= count, seconds)

    def pods(self) -> list[Manifest]:
        """The planners' pods that have not ended."""
        found = self.kube.list("v1", "Pod", self.namespace, {"faceblur.io/job": self.name})
        return [pod for pod in found if pod["status"].get("phase") in ("Pending", "Running")]

    def planner(self, kind: str = "Job") -> Manifest | None:
        """The Kubernetes Job, or the CronJob."""
        return self.kube.get("batch/v1", kind, f"{self.name}-planner", self.namespace)

    def delete(self) -> None:
        """Delete the resource."""
        self.kube.delete(API_VERSION, KIND, self.name, self.namespace)

    def events(self) -> list[str]:
        """The reasons of the Events about the resource."""
        found = self.kube.list("v1", "Event", self.namespace)
        return [event["reason"] for event in found if event["involvedObject"].get("name") == self.name]


def progress(body: Manifest) -> dict[str, Any]:
    """What the planner says."""
    return dict(body.get("status", {}).get("progress") or {})
