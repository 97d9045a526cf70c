"""The operator as the chart installs it on a real cluster."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from support.cluster import Cluster, Manifest, condition
from support.eventual import eventually

CHART = Path(__file__).parents[2] / "charts" / "faceblur"
RELEASE = "faceblur"


def image_values(image: str) -> dict[str, str]:
    """A reference as the chart takes it, in parts."""
    repository, _, tag = image.rpartition(":")
    return {"repository": repository, "tag": tag}


@dataclass(frozen=True)
class Operator:
    """A release of the chart.

    Attributes:
        kube: The cluster it is in.
        namespace: It is installed in.
    """

    kube: Cluster
    namespace: str = "faceblur-system"

    def install(self, operator_image: str, worker_image: str, values: Mapping[str, Any] | None = None) -> None:
        """Install or upgrade the chart of this repository, and wait until the operator is ready."""
        helm = shutil.which("helm")
        assert helm, "helm is needed to install the chart and was not found"
        given = {"image": image_values(operator_image), "workerImage": image_values(worker_image), **(values or {})}
        command = [helm, "upgrade", "--install", RELEASE, str(CHART), "--namespace", self.namespace]
        command += ["--create-namespace", "--wait", "--timeout", "120s", "--values", "-"]
        done = subprocess.run(
            command, input=json.dumps(given), env=self.kube.environment(), capture_output=True, text=True, timeout=180
        )
        assert done.returncode == 0, f"helm: {done.stderr}{done.stdout}"

    def uninstall(self) -> None:
        """Remove the release; what the chart keeps stays."""
        command = ["helm", "uninstall", RELEASE, "--namespace", self.namespace, "--wait", "--ignore-not-found"]
        subprocess.run(command, env=self.kube.environment(), check=True, capture_output=True, timeout=120)
        self.kube.delete("v1", "Namespace", self.namespace)

    def pod(self) -> Manifest:
        """The operator's pod that is ready, waited for."""

        def ready() -> list[Manifest]:
            labels = {"app.kubernetes.io/component": "operator"}
            found = self.kube.list("v1", "Pod", self.namespace, labels)
            return [
                pod
                for pod in found
                if "deletionTimestamp" not in pod["metadata"] and condition(pod, "Ready").get("status") == "True"
            ]

        return eventually(ready, 60, "a ready operator")[0]

    def kill(self) -> None:
        """End the operator without a warning; Kubernetes starts another."""
        name = self.pod()["metadata"]["name"]
        self.kube.kubectl("-n", self.namespace, "delete", "pod", name, "--grace-period=0", "--force")

    def restarts(self) -> int:
        """How often the container of the present pod has been started anew."""
        return sum(int(status["restartCount"]) for status in self.pod()["status"]["containerStatuses"])

    def metrics(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """The operator's metrics, by name and sorted labels."""
        pod = self.pod()
        ports = {p["name"]: p["containerPort"] for p in pod["spec"]["containers"][0]["ports"]}
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod['metadata']['name']}:{ports['metrics']}/proxy/metrics"
        text = self.kube.kubectl("get", "--raw", path)
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
