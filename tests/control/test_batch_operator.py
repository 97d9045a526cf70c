"""The whole operator with a cluster that has batches, against an API server with real watches."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from faceblur_operator import kube
from faceblur_operator.observed import Manifest
from support.api_server import ApiServer, api_server
from support.eventual import eventually_async
from support.running_operator import at_rest, cluster_manifest, condition, running_operator

KEDA, MONITORING = "keda.sh/v1alpha1", "monitoring.coreos.com/v1"
BATCH: dict[str, Any] = {
    "broker": {"secretName": "broker", "redis": {"address": "redis:6379", "passwordKey": "password"}},
    "storage": [{"name": "default"}],
}
MADE = {
    "serviceaccounts": "demo-batch",
    "configmaps": "demo-batch",
    "networkpolicies": "demo-batch",
    "deployments": "demo-batch",
    "scaledobjects": "demo-batch",
    "triggerauthentications": "demo-batch",
    "podmonitors": "demo-batch",
}


def there(server: ApiServer) -> bool:
    return all(server.get(resource, name) for resource, name in MADE.items())


def documented_rights() -> Iterator[tuple[str, str, str]]:
    for line in (kube.__doc__ or "").splitlines():
        if match := re.fullmatch(r"    (\(core\)|[a-z.0-9-]+) {2,}([a-z/ ]+?) {2,}([a-z ]+?)(?: \(.*\))?", line):
            group = "" if match[1] == "(core)" else match[1]
            yield from ((group, resource, verb) for resource in match[2].split() for verb in match[3].split())


def broker(value: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "broker", "namespace": "shop"},
        "data": {"url": value},
    }


def read_by(server: ApiServer) -> object:
    """What tells whether the batch workers of the Deployment read something else than before."""
    deployment = server.get("deployments", "demo-batch")
    return deployment and deployment["spec"]["template"]["metadata"]["annotations"]["faceblur.io/read"]


async def test_batches_are_built_repaired_and_taken_away_with_documented_rights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with api_server() as server, running_operator(server, tmp_path, monkeypatch):
        server.install(KEDA)
        server.install(MONITORING)
        await server.put(broker("one"))
        await server.put(cluster_manifest(batch=BATCH, metrics={"serviceMonitor": {"enabled": True}}))
        await eventually_async(lambda: there(server))
        await at_rest(server)
        for resource, name in MADE.items():
            await server.remove(resource, name)
            await eventually_async(lambda: there(server))
        await at_rest(server)
        writes = len(server.writes())

        def meddle(manifest: Manifest) -> None:
            manifest["data"] = {"profiles.json": "{}"}

        await server.edit("configmaps", "demo-batch", meddle)
        await eventually_async(lambda: len(server.writes()) > writes)
        await at_rest(server)
        assert "platform" in (server.get("configmaps", "demo-batch") or {})["data"]["profiles.json"]

        def without(manifest: Manifest) -> None:
            del manifest["spec"]["batch"]

        await server.edit("faceblurclusters", "demo", without)
        await eventually_async(lambda: not any(server.get(resource, name) for resource, name in MADE.items()))
        await at_rest(server)
        assert {(call.group, call.resource, call.verb) for call in server.calls} <= set(documented_rights())


async def test_a_changed_secret_of_the_broker_is_noticed_without_being_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with api_server() as server, running_operator(server, tmp_path, monkeypatch):
        await server.put(cluster_manifest(batch=BATCH))
        await eventually_async(lambda: condition(server, "Batch") == ("False", "SecretMissing"))
        assert read_by(server) is None
        await server.put(broker("one"))
        await eventually_async(lambda: read_by(server))
        await at_rest(server)
        before = read_by(server)
        await server.put(broker("two"))
        await eventually_async(lambda: read_by(server) != before)
        asked = [call.headers.get("Accept", "") for call in server.calls if call.resource == "secrets"]
        assert asked
        assert all("PartialObjectMetadata" in accept for accept in asked)
