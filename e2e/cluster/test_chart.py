"""The chart's life on a real cluster: install, test, upgrade, uninstall, and what each leaves behind."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from faceblur_operator import crdgen
from support.cluster import Cluster, Evidence, Manifest, condition
from support.eventual import eventually

pytestmark = [pytest.mark.usefixtures("crds"), pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "faceblur"
CRD = crdgen.build_crd(crdgen.KINDS[0])
RBAC = "rbac.authorization.k8s.io/v1"
DEFINITION = ("apiextensions.k8s.io/v1", "CustomResourceDefinition", CRD["metadata"]["name"])
# Needs no image: what the operator does for it can be seen, and no worker runs.
UNBUILT = {"image": "localhost/faceblur-worker:none", "imagePullPolicy": "Never"}


@dataclass(frozen=True)
class Release:
    """A release of the chart in a namespace of its own."""

    kube: Cluster
    name: str
    namespace: str
    images: dict[str, Any]

    def helm(self, *arguments: str, values: dict[str, Any] | None = None) -> str:
        helm = shutil.which("helm")
        assert helm, "helm is not on the PATH"
        done = subprocess.run(
            [helm, *arguments, "--namespace", self.namespace, "--kube-context", self.kube.context],
            input=None if values is None else json.dumps(self.images | values),
            env=self.kube.environment(),
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, f"helm {' '.join(arguments)}: {done.stderr}{done.stdout}"
        return done.stdout

    def install(self, values: dict[str, Any], chart: Path = CHART) -> str:
        # The definitions are there already, and stay: each release of these tests takes them over from the last.
        options = ("--take-ownership", "--wait", "--timeout", "120s", "--values", "-")
        return self.helm("upgrade", "--install", self.name, str(chart), *options, values=values)

    def uninstall(self) -> str:
        return self.helm("uninstall", self.name, "--wait", "--ignore-not-found")

    def operator_log(self) -> str:
        return self.kube.kubectl("-n", self.namespace, "logs", f"deployment/{self.name}-faceblur-operator")

    def metrics(self) -> str:
        (pod,) = self.kube.list("v1", "Pod", self.namespace, {"app.kubernetes.io/component": "operator"})
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod['metadata']['name']}:8080/proxy/metrics"
        return self.kube.kubectl("get", "--raw", path)


@pytest.fixture
def definition(kube: Cluster) -> Iterator[Callable[[], Manifest]]:
    """Returns the definition as it is now; who it belongs to is afterwards as it was before."""

    def now() -> Manifest:
        found = kube.get(*DEFINITION)
        assert found is not None
        return found

    before = now()["metadata"]
    yield now
    after = now()["metadata"]
    for part in ("annotations", "labels"):
        lost = {key: None for key in after.get(part, {}) if key not in before.get(part, {})}
        kube.patch(*DEFINITION, None, {"metadata": {part: {**lost, **before.get(part, {})}}})


@pytest.fixture
def release(
    kube: Cluster, namespace: str, operator_image: str, definition: Callable[[], Manifest], evidence: Evidence
) -> Iterator[Release]:
    """A release that is not installed yet, and is gone afterwards."""
    repository, _, tag = operator_image.rpartition(":")
    release = Release(kube, f"r{namespace[-6:]}", namespace, {"image": {"repository": repository, "tag": tag}})
    yield release
    evidence.keep_if_failed()
    release.uninstall()


JOB: dict[str, Any] = {
    "clusterRef": {"name": "demo"},
    "source": {"location": "s3://photos/"},
    "destination": {"location": "s3://blurred/"},
}


def cluster(name: str, namespace: str, **spec: Any) -> Manifest:
    return {
        "apiVersion": "faceblur.io/v1alpha1",
        "kind": "FaceBlurCluster",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {**UNBUILT, **spec},
    }


def left_over(kube: Cluster, release: Release, namespaces: tuple[str, ...]) -> list[tuple[str, str]]:
    """What there is of a release, but for the definitions."""
    labels = {"app.kubernetes.io/instance": release.name}
    found = [
        (kind, item["metadata"]["name"])
        for api_version, kind in ((RBAC, "ClusterRole"), (RBAC, "ClusterRoleBinding"))
        for item in kube.list(api_version, kind, None, labels)
    ]
    for namespace in namespaces:
        for api_version, kind in (
            ("apps/v1", "Deployment"),
            ("apps/v1", "ReplicaSet"),
            ("v1", "Pod"),
            ("v1", "Service"),
            ("v1", "ServiceAccount"),
            ("v1", "ConfigMap"),
            ("v1", "Secret"),
            ("networking.k8s.io/v1", "NetworkPolicy"),
            (RBAC, "Role"),
            (RBAC, "RoleBinding"),
        ):
            names = [item["metadata"]["name"] for item in kube.list(api_version, kind, namespace)]
            found += [(kind, name) for name in names if name not in ("default", "kube-root-ca.crt")]
    return found


def test_a_release_serves_all_namespaces_and_leaves_nothing_but_the_definitions(
    kube: Cluster, release: Release, definition: Callable[[], Manifest]
) -> None:
    notes = release.install({})
    assert f"{release.name}-faceblur-operator in the namespace {release.namespace}" in notes
    assert "Phase:          Succeeded" in release.helm("test", release.name, "--timeout", "60s")

    kube.apply(cluster("demo", release.namespace))
    kube.wait_until("apps/v1", "Deployment", "demo-worker", release.namespace, bool, 30)
    kube.delete("faceblur.io/v1alpha1", "FaceBlurCluster", "demo", release.namespace)
    kube.wait_until("apps/v1", "Deployment", "demo-worker", release.namespace, lambda found: found is None, 60)

    assert "These resources were kept due to the resource policy" in release.uninstall()
    eventually(lambda: not left_over(kube, release, (release.namespace,)), 60, "the end of the release")
    assert definition()["spec"]["names"]["kind"] == "FaceBlurCluster"

    # The definitions are the next release's again, or another one's that says so.
    again = ("install", release.name, str(CHART), "--dry-run=server", "--values", "-")
    release.helm(*again, values={})
    other = ("install", f"{release.name}-2", *again[2:])
    with pytest.raises(AssertionError, match="cannot be imported into the current release"):
        release.helm(*other, values={})
    release.helm(*other, "--take-ownership", values={})


def test_with_namespaces_to_watch_the_roles_of_the_chart_are_all_that_is_needed(
    kube: Cluster, release: Release, make_namespace: Callable[[], str]
) -> None:
    """All that the operator does for clusters and jobs, with a Role in their namespace alone; and nothing elsewhere."""
    served, other = make_namespace(), make_namespace()
    release.install({"watchNamespaces": [served]})
    assert kube.list(RBAC, "ClusterRole", None, {"app.kubernetes.io/instance": release.name}) == []
    assert "Phase:          Succeeded" in release.helm("test", release.name, "--timeout", "60s")

    kube.apply(cluster("elsewhere", other))
    kube.apply(cluster("demo", served, service={"type": "ClusterIP"}, tls={"secretName": "missing"}))
    for api_version, kind, name in (
        ("apps/v1", "Deployment", "demo-worker"),
        ("v1", "Service", "demo"),
        ("v1", "Service", "demo-external"),
        ("v1", "ServiceAccount", "demo-worker"),
        ("autoscaling/v2", "HorizontalPodAutoscaler", "demo-worker"),
        ("policy/v1", "PodDisruptionBudget", "demo-worker"),
        ("networking.k8s.io/v1", "NetworkPolicy", "demo-worker"),
    ):
        kube.wait_until(api_version, kind, name, served, bool, 30)
    kube.wait_until(
        "faceblur.io/v1alpha1",
        "FaceBlurCluster",
        "demo",
        served,
        lambda found: condition(found, "TLS").get("reason") == "SecretMissing",
        30,
    )
    eventually(lambda: kube.list("events.k8s.io/v1", "Event", served, None), 30, "an Event")
    # What the spec no longer asks for is deleted, what somebody edits is repaired.
    kube.apply(cluster("demo", served, disruptionBudget={"enabled": False}, networkPolicy={"enabled": False}))
    for api_version, kind in (("policy/v1", "PodDisruptionBudget"), ("networking.k8s.io/v1", "NetworkPolicy")):
        kube.wait_until(api_version, kind, "demo-worker", served, lambda found: found is None, 30)
    kube.delete("v1", "Service", "demo", served)
    kube.wait_until("v1", "Service", "demo", served, bool, 30)

    # Planners get a right of their own from an operator that has no more than it.
    batch = {"broker": {"embedded": {}}, "storage": [{"name": "default", "anonymous": True}]}
    kube.apply(cluster("demo", served, batch=batch))
    job = {"metadata": {"name": "yearly", "namespace": served}, "spec": {**JOB, "schedule": "0 4 1 1 *"}}
    kube.apply({"apiVersion": "faceblur.io/v1alpha1", "kind": "FaceBlurJob", **job})
    theirs = (("batch/v1", "CronJob"), (RBAC, "Role"), (RBAC, "RoleBinding"), ("v1", "ServiceAccount"))
    for api_version, kind in theirs:
        kube.wait_until(api_version, kind, "yearly-planner", served, bool, 30)
    kube.delete(RBAC, "Role", "yearly-planner", served)
    kube.wait_until(RBAC, "Role", "yearly-planner", served, bool, 30)
    kube.delete("faceblur.io/v1alpha1", "FaceBlurJob", "yearly", served)
    for api_version, kind in theirs:
        kube.wait_until(api_version, kind, "yearly-planner", served, lambda found: found is None, 60)

    denied = [line for line in release.metrics().splitlines() if re.search(r'code="40[13]"', line)]
    assert denied == []
    assert "orbidden" not in release.operator_log()
    assert "\nfaceblur_operator_clusters 1.0\n" in release.metrics()

    release.uninstall()
    eventually(lambda: not left_over(kube, release, (release.namespace,)), 60, "the end of the release")
    assert kube.list(RBAC, "Role", served) == []


def test_an_upgrade_brings_new_definitions_and_leaves_clusters_alone(
    kube: Cluster, release: Release, definition: Callable[[], Manifest], tmp_path: Path
) -> None:
    older = tmp_path / "faceblur"
    shutil.copytree(CHART, older)
    template = older / "templates" / "crds" / f"{CRD['spec']['names']['plural']}.yaml"
    described = "Strength: cells across an obscured face."
    text = template.read_text(encoding="utf-8")
    assert described in text
    template.write_text(text.replace(described, "As it was described before."), encoding="utf-8")

    values = {"watchNamespaces": [release.namespace]}
    release.install(values, older)
    assert "As it was described before." in json.dumps(definition()["spec"])
    workers = with_workers(kube, release.namespace)
    release.install(values)
    assert described in json.dumps(definition()["spec"])
    assert with_workers(kube, release.namespace) == workers


def test_an_upgrade_from_the_last_committed_chart_leaves_clusters_alone(
    kube: Cluster, release: Release, definition: Callable[[], Manifest], tmp_path: Path
) -> None:
    release.install({"watchNamespaces": [release.namespace]}, last_committed_chart(tmp_path))
    workers = with_workers(kube, release.namespace)
    release.install({"watchNamespaces": [release.namespace]})
    assert with_workers(kube, release.namespace) == workers
    versions = definition()["spec"]["versions"]
    assert [version["name"] for version in versions] == [version["name"] for version in CRD["spec"]["versions"]]
    assert "Phase:          Succeeded" in release.helm("test", release.name, "--timeout", "60s")


def test_what_the_chart_renders_is_taken_with_strict_validation(
    kube: Cluster, release: Release, tmp_path: Path
) -> None:
    values = {"metrics": {"dashboards": {"enabled": True}}, "serviceAccount": {"annotations": {"a": "b"}}}
    options = ("--dry-run=server", "--take-ownership", "--output", "json", "--values", "-")
    answer = json.loads(release.helm("install", release.name, str(CHART), *options, values=values))
    rendered = tmp_path / "rendered.yaml"
    rendered.write_text(answer["manifest"], encoding="utf-8")
    told = kube.kubectl(
        "apply", "--server-side", "--dry-run=server", "--validate=strict", "--force-conflicts", "-f", str(rendered)
    )
    assert "Warning" not in told
    assert "deployment.apps" in told


def with_workers(kube: Cluster, namespace: str) -> dict[str, Any]:
    """Apply a cluster, and return what tells its Deployment from a new or another one."""
    applied = kube.apply(cluster("demo", namespace))
    found = kube.wait_until("apps/v1", "Deployment", "demo-worker", namespace, bool, 30)
    assert found is not None
    return {
        "cluster": applied["metadata"]["uid"],
        "deployment": found["metadata"]["uid"],
        "template": found["spec"]["template"],
    }


def last_committed_chart(folder: Path) -> Path:
    """The newest committed chart that is another than the present one."""
    path = str(CHART.relative_to(ROOT))

    def git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, timeout=60)

    for commit in git("log", "-n", "50", "--format=%H", "--", path).stdout.decode().split():
        if git("diff", "--quiet", commit, "--", path).returncode == 1:
            archive = git("archive", commit, path)
            if archive.returncode == 0:
                with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
                    files.extractall(folder, filter="data")
                return folder / path
    pytest.skip("the history has no other chart than the present one")
