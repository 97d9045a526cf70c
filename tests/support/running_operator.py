"""The whole operator in the test's event loop, against an API server in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from faceblur_operator.__main__ import serve_resources
from faceblur_operator.config import OperatorSettings
from faceblur_operator.observed import Manifest
from support.api_server import ApiServer
from support.clusters import running_pod
from support.eventual import eventually_async


@asynccontextmanager
async def running_operator(
    server: ApiServer, folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> AsyncIterator[None]:
    """Serve until the block ends; what ends it before fails the block.

    Args:
        server: The API server.
        folder: For the kubeconfig.
        monkeypatch: Sets the environment.
        settings: That differ from the defaults.
    """
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
                "clusters": [{"name": "k", "cluster": {"server": server.url}}],
                "users": [{"name": "u", "user": {"token": "abc"}}],
            }
        )
    )
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    stopping = asyncio.Event()
    # Rounds so far apart that those of `at_rest` take longer than any pause between two looks.
    chosen = {"address": "127.0.0.1:0", "tick_seconds": 0.2, "worker_image": "worker:1", **settings}
    task = asyncio.create_task(serve_resources(OperatorSettings(**chosen), stopping))
    try:
        yield
        assert not task.done(), "the operator has ended by itself"
    finally:
        stopping.set()
        await asyncio.wait_for(task, 30)


def cluster_manifest(name: str = "demo", namespace: str = "shop", **spec: Any) -> Manifest:
    """A FaceBlurCluster as a user writes it."""
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "faceblur.io/v1alpha1", "kind": "FaceBlurCluster", "metadata": metadata, "spec": spec}


def condition(server: ApiServer, kind: str, name: str = "demo") -> tuple[str, str]:
    """Status and reason of a condition of a cluster, empty where there is none."""
    cluster = server.get("faceblurclusters", name) or {}
    for found in cluster.get("status", {}).get("conditions", ()):
        if found["type"] == kind:
            return found["status"], found["reason"]
    return "", ""


async def roll_out(server: ApiServer, name: str = "demo-worker") -> None:
    """Let all workers of the live Deployment run and be ready, as its controller does."""
    deployment = server.get("deployments", name)
    assert deployment is not None
    count = deployment["spec"]["replicas"]
    template = deployment["spec"]["template"]
    for pod in server.all("pods"):
        await server.remove("pods", pod["metadata"]["name"])
    for number in range(count):
        pod = running_pod(f"{name}-{number}")
        pod["metadata"] = {
            **template["metadata"],
            "name": f"{name}-{number}",
            "namespace": "shop",
            "labels": {**template["metadata"]["labels"], "pod-template-hash": "abc"},
        }
        await server.put({"apiVersion": "v1", "kind": "Pod", **pod})

    def report(live: Manifest) -> None:
        names = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
        live["status"] = {"observedGeneration": live["metadata"]["generation"], **dict.fromkeys(names, count)}

    await server.edit("deployments", name, report)


def looks(server: ApiServer) -> int:
    """How often clusters were looked at."""
    return sum((call.verb, call.resource) == ("list", "pods") for call in server.calls)


async def at_rest(server: ApiServer, rounds: int = 6) -> None:
    """Wait until nothing has been looked at or written for some of the operator's rounds.

    Rounds, because they only go on while the operator has its turn: time passes on a busy machine as well.
    """
    last: tuple[int, int] | None = None
    since = 0

    def is_quiet() -> bool:
        nonlocal last, since
        count = server.discoveries
        if last != (now := (looks(server), len(server.writes()))):
            last, since = now, count
        return count - since >= rounds

    await eventually_async(is_quiet)
