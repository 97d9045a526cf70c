"""The README's own commands on an empty cluster, word for word; runs first, as the file's name makes it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from faceblur_operator import crdgen
from support.cluster import Cluster, Evidence
from support.eventual import eventually
from support.workers import API_VERSION, KIND

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "examples/photos/city.jpg"
FOLDER = ROOT / "demo" / "from-workers"

pytestmark = pytest.mark.timeout(900)


def commands() -> list[str]:
    """What the README tells to type under its heading on Kubernetes."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = re.search(r"^## On Kubernetes\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    assert section, "the README has no section on Kubernetes"
    return re.findall(r"^\$ (.+)$", section[1], re.MULTILINE)


def test_the_commands_of_the_readme_do_what_it_says(
    kube: Cluster, namespace: str, evidence: Evidence, build_image: object, tmp_path: Path
) -> None:
    """Images are built and loaded by the command that the suite was given: the one thing that differs."""
    assert callable(build_image)
    for command in commands():
        if build := re.fullmatch(r"docker build -f (\S+) -t (\S+) \.", command):
            build_image(build[2], ROOT / build[1])
    for kind in crdgen.KINDS:  # those of an earlier run belong to no release
        crd = crdgen.build_crd(kind)
        name = crd["metadata"]["name"]
        kube.delete(crd["apiVersion"], crd["kind"], name)
        kube.wait_until(crd["apiVersion"], crd["kind"], name, None, lambda found: found is None, 60)
    evidence.namespaces.append("faceblur-system")
    # The user's own namespace, as the current context names it.
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_bytes(kube.kubeconfig.read_bytes())
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    subprocess.run(
        ["kubectl", "config", "set-context", "--current", f"--namespace={namespace}"],
        env=environment,
        check=True,
        capture_output=True,
    )
    typed = [command for command in commands() if not command.startswith(("docker ", "kind "))]
    script = tmp_path / "typed.sh"
    # The port needs a moment that a person takes to type on; job control is what lets `kill %1` find it.
    waits = "timeout 30 bash -c 'until echo > /dev/tcp/localhost/50051; do sleep 0.1; done' 2>/dev/null"
    lines = [f"{command}\n{waits}" if command.endswith("&") else command for command in typed]
    script.write_text("set -meuxo pipefail\n" + "\n".join(lines) + "\n")
    shutil.rmtree(FOLDER, ignore_errors=True)
    process = subprocess.Popen(
        ["bash", str(script)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        printed, _ = process.communicate(timeout=600)
        assert process.returncode == 0, printed
        with Image.open(SOURCE) as before, Image.open(FOLDER / SOURCE.name) as after:
            assert before.size == after.size
            changed = ImageChops.difference(before.convert("RGB"), after.convert("RGB")).getbbox()
        assert changed is not None, "no face was obscured"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    left = ("deployments", "replicasets", "services", "hpa", "pdb", "networkpolicies", "pods")
    # The garbage collector learns up to a minute later of a definition that is new or was replaced. Until then it asks
    # for the owner at intervals that double: what lived for 41 s can go 41 s after its owner, and then its pods end.
    eventually(
        lambda: not kube.kubectl("-n", namespace, "get", ",".join(left), "-o", "name"), 180, "the end of what was made"
    )
    assert kube.list(API_VERSION, KIND, namespace) == [], "the resource is gone, its definition stays"
    assert kube.kubectl("-n", "faceblur-system", "get", "deployments,serviceaccounts", "-o", "name").split() == [
        "serviceaccount/default"
    ]
