"""What the tests on a real cluster share: the guard, a namespace for each test, and what is kept when one fails.

The cluster is the one that KUBECONFIG points at, and only if its context says that it is there for tests. How an image
is built and brought to its nodes differs from cluster to cluster, so that is a command in FACEBLUR_BUILD_IMAGE, which
is called with a tag, a Dockerfile and a context.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faceblur_operator import crdgen
from support.cluster import Cluster, Evidence, WrongContextError
from support.operator import Operator

ROOT = Path(__file__).parents[2]
OPERATOR_IMAGE = "localhost/faceblur-operator:e2e"
WORKER_IMAGE = "localhost/faceblur-worker:e2e"

_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Remember whether a test failed, for what is torn down after it."""
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


@pytest.fixture(scope="session")
def kube() -> Cluster:
    """The cluster. Refuses every context but kind-* and faceblur-e2e."""
    kubeconfig = os.environ.get("KUBECONFIG") or "~/.kube/config"
    try:
        return Cluster(Path(kubeconfig).expanduser())
    except WrongContextError as error:
        pytest.exit(str(error), returncode=2)


@pytest.fixture(scope="session")
def crds(kube: Cluster) -> None:
    """The definitions as they are generated now. They stay: other tests and releases use them too."""
    for kind in crdgen.KINDS:
        kube.define(crdgen.build_crd(kind))


@pytest.fixture
def evidence(kube: Cluster, request: pytest.FixtureRequest) -> Iterator[Evidence]:
    """What is kept in build/e2e-evidence/<test>/ if the test fails. Tests add the namespaces they use."""
    folder = ROOT / "build" / "e2e-evidence" / _slug(request.node.name, 80)
    kept = Evidence(kube, folder, lambda: request.node.stash.get(_FAILED, False))
    yield kept
    kept.keep_if_failed()


@pytest.fixture
def make_namespace(kube: Cluster, evidence: Evidence, request: pytest.FixtureRequest) -> Iterator[Callable[[], str]]:
    """Makes namespaces that only admit restricted pods, and deletes them afterwards."""
    made = []

    def make() -> str:
        name = f"e2e-{_slug(request.node.name, 40)}-{secrets.token_hex(3)}"
        made.append(name)
        evidence.namespaces.append(name)
        kube.make_namespace(name)
        return name

    yield make
    evidence.keep_if_failed()
    for name in made:
        kube.delete("v1", "Namespace", name)


@pytest.fixture
def namespace(make_namespace: Callable[[], str]) -> str:
    """A fresh namespace, deleted after the test."""
    return make_namespace()


@pytest.fixture(scope="session")
def build_image() -> Callable[[str, Path], str]:
    """Builds an image from the repository and brings it to the nodes; returns its tag. Once per session and image."""
    built: set[str] = set()

    def build(tag: str, dockerfile: Path) -> str:
        if tag in built:
            return tag
        command = os.environ.get("FACEBLUR_BUILD_IMAGE")
        if not command:
            pytest.fail(
                "FACEBLUR_BUILD_IMAGE is not set: it is the command that takes a tag, a Dockerfile and a context, "
                "builds the image and brings it to the nodes of the cluster"
            )
        done = subprocess.run(
            [*shlex.split(command), tag, str(dockerfile), str(ROOT)], capture_output=True, text=True, timeout=1200
        )
        assert done.returncode == 0, f"{tag} was not built:\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
        built.add(tag)
        return tag

    return build


@pytest.fixture(scope="session")
def operator_image(build_image: Callable[[str, Path], str]) -> str:
    """The operator's image, on the nodes."""
    return build_image(OPERATOR_IMAGE, ROOT / "operator" / "Dockerfile")


@pytest.fixture(scope="session")
def worker_image(build_image: Callable[[str, Path], str]) -> str:
    """The workers' image, on the nodes."""
    return build_image(WORKER_IMAGE, ROOT / "worker" / "Dockerfile")


@pytest.fixture(scope="session")
def operator(kube: Cluster, crds: None, operator_image: str, worker_image: str) -> Iterator[Operator]:
    """The operator as the chart installs it, serving all namespaces. The definitions are those of `crds`."""
    installed = Operator(kube)
    installed.install(operator_image, worker_image, {"crds": {"create": False}})
    yield installed
    installed.uninstall()


def _slug(name: str, longest: int) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.removeprefix("test_").lower()).strip("-")[:longest].strip("-")
