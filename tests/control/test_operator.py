"""The whole operator: kopf's watches, the client and the reconciler against an API server with real watches."""

from __future__ import annotations

import asyncio
import getpass
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from faceblur_operator import kube
from faceblur_operator.handlers import watched_kinds
from faceblur_operator.observed import Manifest
from faceblur_operator.rounds import JOBS
from support.api_server import ApiServer, api_server, refuse
from support.eventual import eventually_async
from support.running_operator import at_rest, cluster_manifest, condition, looks, roll_out, running_operator

OWNED = {
    "serviceaccounts": "demo-worker",
    "networkpolicies": "demo-worker",
    "services": "demo",
    "deployments": "demo-worker",
    "poddisruptionbudgets": "demo-worker",
    "horizontalpodautoscalers": "demo-worker",
}
KEDA = "keda.sh/v1alpha1"
WATCHES = 2 + len(watched_kinds({JOBS}))  # besides clusters and jobs


@pytest.fixture(autouse=True)
def nobody_in_particular(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose user id is arbitrary: there is no name for it and no home."""

    def getuser() -> str:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(getpass, "getuser", getuser)
    monkeypatch.delenv("HOME", raising=False)


def operate(server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Any:
    return running_operator(server, tmp_path, monkeypatch, **settings)


def exist(server: ApiServer) -> bool:
    return all(server.get(resource, name) for resource, name in OWNED.items())


def watched(server: ApiServer) -> bool:
    """Whether there is a watch for every kind."""
    return server.streams() == WATCHES


def asked_to_watch(server: ApiServer, resource: str, since: int = 0) -> bool:
    """Whether there was such a request, among those that came after the first so many."""
    return any((call.verb, call.resource) == ("watch", resource) for call in server.calls[since:])


def documented_rights() -> Iterator[tuple[str, str, str]]:
    """What the client's module says that the operator needs: group, resource, verb."""
    for line in (kube.__doc__ or "").splitlines():
        if match := re.fullmatch(r"    (\(core\)|[a-z.0-9-]+) {2,}([a-z/ ]+?) {2,}([a-z ]+?)(?: \(.*\))?", line):
            group = "" if match[1] == "(core)" else match[1]
            for resource in match[2].split():
                for verb in match[3].split():
                    yield group, resource, verb


async def test_a_cluster_is_built_becomes_ready_and_is_then_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with api_server() as server, operate(server, tmp_path, monkeypatch):
        await server.put(cluster_manifest())
        await eventually_async(lambda: exist(server))
        await eventually_async(lambda: condition(server, "Ready")[0] == "False")
        await roll_out(server)
        await eventually_async(lambda: condition(server, "Ready")[0] == "True")
        await at_rest(server)
        calls = len(server.writes())
        rounds = len(server.calls)
        await eventually_async(lambda: len(server.calls) > rounds + 10)
        assert len(server.writes()) == calls
        assert {event["reason"] for event in server.all("events")} >= {"Ready"}
        cluster = server.get("faceblurclusters", "demo")
        assert cluster is not None
        assert not cluster["metadata"].get("annotations")
        assert not cluster["metadata"].get("finalizers")


async def test_only_documented_rights_are_used_and_clusters_are_never_written_but_for_their_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with api_server() as server, operate(server, tmp_path, monkeypatch):
        server.install(KEDA)
        tls = {"secretName": "tls"}
        await server.put(cluster_manifest(tls=tls, autoscaling={"mode": "KEDA"}))
        await eventually_async(lambda: server.get("scaledobjects", "demo-worker"))
        await roll_out(server)

        def change(manifest: Manifest) -> None:
            manifest["spec"] = {"replicas": 1, "autoscaling": {"mode": "Fixed"}, "networkPolicy": {"enabled": False}}

        await server.edit("faceblurclusters", "demo", change)
        await eventually_async(lambda: not server.get("scaledobjects", "demo-worker"))
        await eventually_async(lambda: not server.get("networkpolicies", "demo-worker"))
        await at_rest(server)
        used = {(call.group, call.resource, call.verb) for call in server.calls}
        allowed = set(documented_rights())
        assert used <= allowed
        assert {right for right in allowed if right[2] in ("list", "watch")} >= {
            right for right in used if right[2] == "watch"
        }
        assert {call.resource for call in server.writes() if call.group == "faceblur.io"} == {"faceblurclusters/status"}


async def test_an_object_that_is_deleted_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with api_server() as server, operate(server, tmp_path, monkeypatch):
        await server.put(cluster_manifest())
        await eventually_async(lambda: exist(server) and watched(server))
        await at_rest(server)
        for resource, name in OWNED.items():
            await server.remove(resource, name)
            await eventually_async(lambda: exist(server))


async def test_a_hand_edited_deployment_is_repaired_even_when_its_labels_were_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with api_server() as server, operate(server, tmp_path, monkeypatch):
        await server.put(cluster_manifest())
        await eventually_async(lambda: exist(server) and watched(server))
        await at_rest(server)

        def meddle(manifest: Manifest) -> None:
            manifest["metadata"]["labels"] = {}
            manifest["spec"]["template"]["spec"]["containers"][0]["image"] = "evil"

        await server.edit("deployments", "demo-worker", meddle)

        def image() -> str:
            live = server.get("deployments", "demo-worker")
            assert live is not None
            return str(live["spec"]["template"]["spec"]["containers"][0]["image"])

        await eventually_async(lambda: image() == "worker:1")
        live = server.get("deployments", "demo-worker")
        assert live is not None
        assert live["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "faceblur-operator"


async def test_a_deleted_cluster_leaves_nothing_and_is_not_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with api_server() as server, operate(server, tmp_path, monkeypatch):
        await server.put(cluster_manifest())
        await eventually_async(lambda: exist(server) and watched(server))
        await at_rest(server)
        await server.remove("faceblurclusters", "demo")
        rounds = len(server.calls)
        await eventually_async(lambda: len(server.calls) > rounds + 6)
        assert not any(server.all(resource) for resource in OWNED)


async def test_a_cluster_that_was_there_before_the_operator_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with api_server() as server:
        await server.put(cluster_manifest())
        async with operate(server, tmp_path, monkeypatch):
            await eventually_async(lambda: exist(server))
            await at_rest(server)
        written = len(server.writes())
        async with operate(server, tmp_path, monkeypatch):
            rounds = len(server.calls)
            await eventually_async(lambda: len(server.calls) > rounds + 30)
        assert len(server.writes()) == written, "a restart is no reason to write"


async def test_what_was_deleted_while_no_watch_was_there_is_noticed_by_the_next_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with api_server() as server, operate(server, tmp_path, monkeypatch):
        await server.put(cluster_manifest())
        await eventually_async(lambda: exist(server) and watched(server))
        await at_rest(server)
        server.faults.append(refuse("watch", "services", 404, "NotFound"))  # which kopf gives up for
        before = len(server.calls)
        await server.hang_up()
        await eventually_async(lambda: asked_to_watch(server, "services", before))
        await eventually_async(lambda: not server.streams())
        await server.remove("services", "demo")
        server.faults.clear()
        await eventually_async(lambda: exist(server))


async def test_watches_that_are_started_anew_leave_none_of_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with api_server() as server, operate(server, tmp_path, monkeypatch):
        await server.put(cluster_manifest())
        for _ in range(2):
            await eventually_async(lambda: exist(server) and watched(server))
            server.faults.append(refuse("watch", "services", 404, "NotFound"))  # which kopf gives up for
            before = len(server.calls)
            await server.hang_up("services")
            await eventually_async(lambda before=before: asked_to_watch(server, "services", before))
            await eventually_async(lambda: not server.streams())
            server.faults.clear()
        await eventually_async(lambda: watched(server))
        await at_rest(server)
        assert server.streams() == WATCHES


async def test_an_optional_kind_is_used_when_it_is_installed_and_given_up_when_it_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with api_server() as server, operate(server, tmp_path, monkeypatch):
        await server.put(cluster_manifest(autoscaling={"mode": "KEDA"}))
        await eventually_async(lambda: server.get("deployments", "demo-worker"))
        assert condition(server, "Autoscaling")[0] != "True"
        server.install(KEDA)
        await eventually_async(lambda: server.get("scaledobjects", "demo-worker"))
        await eventually_async(lambda: asked_to_watch(server, "scaledobjects"))
        await server.remove("scaledobjects", "demo-worker")
        await eventually_async(lambda: server.get("scaledobjects", "demo-worker"))
        await server.uninstall(KEDA)
        await at_rest(server)
        await server.remove("services", "demo")
        await eventually_async(lambda: server.get("services", "demo"))


async def test_the_operator_waits_for_its_own_kind_and_survives_its_removal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api_version = "faceblur.io/v1alpha1"
    async with api_server() as server:
        await server.uninstall(api_version)
        async with operate(server, tmp_path, monkeypatch):
            await asyncio.sleep(0)
            for _ in range(2):
                server.install(api_version)
                await server.put(cluster_manifest())
                await eventually_async(lambda: exist(server))
                await server.uninstall(api_version)
                for resource, name in OWNED.items():
                    if server.get(resource, name):
                        await server.remove(resource, name)
                await at_rest(server)


async def test_only_the_given_namespaces_are_served_and_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with api_server() as server, operate(server, tmp_path, monkeypatch, namespaces=("shop", "press")):
        await server.put(cluster_manifest())
        await server.put(cluster_manifest(namespace="press"))
        await server.put(cluster_manifest(namespace="elsewhere"))
        await eventually_async(lambda: exist(server))
        await eventually_async(lambda: server.get("deployments", "demo-worker", "press"))
        await at_rest(server)
        assert {call.namespace for call in server.calls} == {"shop", "press"}


async def test_an_api_server_that_was_away_is_served_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with api_server() as server, operate(server, tmp_path, monkeypatch):
        await server.put(cluster_manifest())
        await eventually_async(lambda: exist(server))
        server.faults.append(lambda call: refuse(call.verb, call.resource, 503, "ServiceUnavailable")(call))
        await server.hang_up()
        await server.remove("services", "demo")
        failed = len(server.calls)
        await eventually_async(lambda: len(server.calls) > failed + 10)
        server.faults.clear()
        await eventually_async(lambda: exist(server))


async def test_credentials_that_were_refused_for_a_while_are_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with api_server() as server, operate(server, tmp_path, monkeypatch):
        await server.put(cluster_manifest())
        await eventually_async(lambda: exist(server))
        server.faults.append(lambda call: refuse(call.verb, call.resource, 401, "Unauthorized")(call))
        await server.hang_up()
        await server.remove("services", "demo")
        failed = len(server.calls)
        await eventually_async(lambda: len(server.calls) > failed + 10)
        again = len(server.calls)
        server.faults.clear()
        await eventually_async(lambda: exist(server))
        await eventually_async(lambda: any(call.verb == "watch" for call in server.calls[again:]))


async def test_a_missing_right_is_no_crash_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with api_server() as server:
        server.faults.append(refuse("watch", "poddisruptionbudgets", 403, "Forbidden", "may not watch"))
        server.faults.append(refuse("patch", "poddisruptionbudgets", 403, "Forbidden", "may not patch"))
        async with operate(server, tmp_path, monkeypatch):
            await server.put(cluster_manifest())
            await eventually_async(lambda: server.get("horizontalpodautoscalers", "demo-worker"))
            await eventually_async(lambda: condition(server, "Degraded")[0] == "True")
            server.faults.clear()
            await eventually_async(lambda: condition(server, "Degraded")[0] == "False")


async def test_a_secret_that_appears_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with api_server() as server, operate(server, tmp_path, monkeypatch):
        await server.put(cluster_manifest(tls={"secretName": "tls"}))
        await eventually_async(lambda: condition(server, "TLS")[0] == "False")
        metadata = {"name": "tls", "namespace": "shop"}
        await server.put({"apiVersion": "v1", "kind": "Secret", "metadata": metadata})
        await eventually_async(lambda: condition(server, "TLS")[0] == "True")


async def test_what_an_autoscaler_measures_is_no_reason_to_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with api_server() as server, operate(server, tmp_path, monkeypatch):
        await server.put(cluster_manifest())
        await eventually_async(lambda: exist(server) and watched(server))

        def measured(number: int) -> Any:
            def change(manifest: Manifest) -> None:
                manifest["status"] = {"desiredReplicas": 2, "currentMetrics": [{"value": number}]}

            return change

        await server.edit("horizontalpodautoscalers", "demo-worker", measured(0))
        await at_rest(server)
        before = looks(server)
        for number in range(1, 6):
            await server.edit("horizontalpodautoscalers", "demo-worker", measured(number))
        rounds = len(server.calls)
        await eventually_async(lambda: len(server.calls) > rounds + 6)
        assert looks(server) == before


async def test_a_cluster_is_served_although_its_watch_is_deaf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with api_server() as server, operate(server, tmp_path, monkeypatch):
        await eventually_async(lambda: watched(server))
        server.go_deaf("faceblurclusters")
        await server.put(cluster_manifest())
        await eventually_async(lambda: exist(server))
