"""The client of the API server: what it sends, what it makes of the answers, and that only a KubeError leaves it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from aiohttp import web
from kubernetes.aio.client.configuration import Configuration

from faceblur_operator import kube
from faceblur_operator.kube import (
    Conflict,
    Forbidden,
    Kube,
    KubeError,
    NoCredentials,
    NotFound,
    Refused,
    Terminating,
    Unauthorized,
    Unreachable,
    load_configuration,
    path_of,
)
from faceblur_operator.observed import Event, ObjectKey
from support.api_server import ApiServer, api_server, refuse

SERVICE = ObjectKey("v1", "Service", "demo")
MANIFEST = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "demo", "namespace": "shop", "labels": {"a": "b"}},
    "spec": {"clusterIP": "None"},
}
CLUSTER = {"metadata": {"name": "demo", "namespace": "shop", "uid": "1234"}}


@asynccontextmanager
async def client(url: str, **options: Any) -> AsyncIterator[Kube]:
    made = Kube(Configuration(host=url), **options)
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def served() -> AsyncIterator[tuple[ApiServer, Kube]]:
    async with api_server() as server, client(server.url) as made:
        yield server, made


@asynccontextmanager
async def answering(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("place", "path"),
    [
        (("apps/v1", "Deployment", "shop", "demo"), "/apis/apps/v1/namespaces/shop/deployments/demo"),
        (("v1", "Service", "shop", ""), "/api/v1/namespaces/shop/services"),
        (("networking.k8s.io/v1", "NetworkPolicy", None, ""), "/apis/networking.k8s.io/v1/networkpolicies"),
        (("v1", "Pod", "a/../b", "x?y"), "/api/v1/namespaces/a%2F..%2Fb/pods/x%3Fy"),
    ],
)
def test_paths_are_those_of_the_api_server(place: tuple[str, str, str | None, str], path: str) -> None:
    assert path_of(*place) == path


async def test_an_apply_is_a_server_side_apply_with_force_by_one_manager() -> None:
    async with served() as (server, made):
        live = await made.apply(MANIFEST)
        assert live["metadata"]["uid"]
        (call,) = server.calls
        assert (call.verb, call.headers["Content-Type"]) == ("patch", "application/apply-patch+yaml")
        assert call.query == {"fieldManager": "faceblur-operator", "force": "true"}
        assert call.body == MANIFEST
        assert call.headers["User-Agent"] == "faceblur-operator"


async def test_the_status_is_applied_to_its_subresource() -> None:
    async with served() as (server, made):
        await server.put({"apiVersion": "faceblur.io/v1alpha1", "kind": "FaceBlurCluster", **CLUSTER, "spec": {}})
        status = {
            "apiVersion": "faceblur.io/v1alpha1",
            "kind": "FaceBlurCluster",
            "metadata": {},
            "status": {"replicas": 3},
        }
        status["metadata"] = {"name": "demo", "namespace": "shop"}
        live = await made.apply(status, subresource="status")
        assert live["status"] == {"replicas": 3}
        assert server.calls[-1].resource == "faceblurclusters/status"


async def test_what_is_not_there_is_none_whether_object_or_kind() -> None:
    async with served() as (_, made):
        assert await made.get(SERVICE, "shop") is None
        assert await made.get(ObjectKey("keda.sh/v1alpha1", "ScaledObject", "demo"), "shop") is None
        assert not await made.secret_version("shop", "tls")


async def test_the_content_of_a_secret_is_never_asked_for() -> None:
    async with served() as (server, made):
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tls", "namespace": "shop"}}
        await server.put({**secret, "data": {"tls.key": "c2VjcmV0"}})
        assert await made.secret_version("shop", "tls")
        assert "as=PartialObjectMetadata" in server.calls[-1].headers["Accept"]


async def test_pods_are_chosen_by_their_labels_and_clusters_come_without_their_specs() -> None:
    async with served() as (server, made):
        for name, labels in (("a", {"x": "1"}), ("b", {"x": "2"})):
            metadata = {"name": name, "namespace": "shop", "labels": labels}
            await server.put({"apiVersion": "v1", "kind": "Pod", "metadata": metadata})
        assert [pod["metadata"]["name"] for pod in await made.pods("shop", "x=2")] == ["b"]
        assert await made.resources("FaceBlurCluster", None) == []
        await server.put({"apiVersion": "faceblur.io/v1alpha1", "kind": "FaceBlurCluster", **CLUSTER, "spec": {"a": 1}})
        (found,) = await made.resources("FaceBlurCluster", None)
        assert found.keys() == {"metadata"}
        assert await made.resources("FaceBlurCluster", "elsewhere") == []


async def test_a_long_list_is_read_page_by_page() -> None:
    pages = {"": ("a", "next"), "next": ("b", "")}

    async def handler(request: web.Request) -> web.Response:
        name, token = pages[request.query.get("continue", "")]
        return web.json_response({"metadata": {"continue": token}, "items": [{"metadata": {"name": name}}]})

    async with answering(handler) as url, client(url) as made:
        assert [pod["metadata"]["name"] for pod in await made.pods("shop", "a=b")] == ["a", "b"]


async def test_only_the_object_that_was_meant_is_deleted() -> None:
    async with served() as (server, made):
        live = await made.apply(MANIFEST)
        await made.delete(SERVICE, "shop", "another-uid")
        assert server.get("services", "demo")
        await made.delete(SERVICE, "shop", live["metadata"]["uid"])
        assert server.get("services", "demo") is None
        await made.delete(SERVICE, "shop", live["metadata"]["uid"])
        assert server.calls[-1].body["propagationPolicy"] == "Background"


async def test_an_event_names_the_cluster_and_where_it_comes_from() -> None:
    async with api_server() as server, client(server.url, source="faceblur-operator-abc") as made:
        await made.post_event({"kind": "FaceBlurCluster", **CLUSTER}, Event("Ready", "word " * 1000, warning=True))
        await made.post_event({"kind": "FaceBlurCluster", **CLUSTER}, Event("Ready", "All is well."))
        first, second = server.all("events")
        assert (first["regarding"]["kind"], first["regarding"]["uid"]) == ("FaceBlurCluster", "1234")
        assert first["reportingInstance"] == "faceblur-operator-abc"
        assert (first["type"], second["type"]) == ("Warning", "Normal")
        assert len(first["note"]) == 1024, "the API server takes no longer ones"
        assert first["metadata"]["name"].startswith("demo.")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Refused),
        (401, Unauthorized),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (422, Refused),
        (429, Unreachable),
        (500, Unreachable),
        (503, Unreachable),
    ],
)
async def test_every_status_has_its_error(status: int, kind: type[KubeError]) -> None:
    async with served() as (server, made):
        server.faults.append(refuse("patch", "services", status, "Because", "that is why"))
        with pytest.raises(KubeError) as caught:
            await made.apply(MANIFEST)
        assert type(caught.value) is kind
        assert str(caught.value) == f"apply Service shop/demo: {status} Because: that is why"
        assert (caught.value.status, caught.value.reason) == (status, "Because")


async def test_a_namespace_on_its_way_out_is_no_missing_right() -> None:
    async with served() as (server, made):
        server.faults.append(refuse("patch", "services", 403, "Forbidden", causes=["NamespaceTerminating"]))
        with pytest.raises(Terminating):
            await made.apply(MANIFEST)


def test_every_error_is_drawn_in_the_tree() -> None:
    for kind in KubeError.__subclasses__():
        assert f"── {kind.__name__} " in (kube.__doc__ or "")


async def test_what_is_not_a_status_is_never_quoted_and_long_words_are_cut() -> None:
    async def handler(request: web.Request) -> web.Response:
        if request.path.endswith("/pods"):
            return web.Response(status=502, text="<html>the-private-thing</html>")
        if request.path.endswith("/apis"):
            return web.json_response({"message": "the-private-thing"}, status=500)
        return web.json_response({"kind": "Status", "reason": "Invalid", "message": "x" * 5000}, status=422)

    async with answering(handler) as url, client(url) as made:
        for ask in (made.pods("shop", "a=b"), made.apis()):
            with pytest.raises(Unreachable) as caught:
                await ask
            assert "the-private-thing" not in str(caught.value)
        with pytest.raises(Refused) as refused:
            await made.apply(MANIFEST)
        assert len(refused.value.message) == 500


async def test_the_time_that_the_api_server_asks_for_is_kept() -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.json_response({"kind": "Status"}, status=429, headers={"Retry-After": "7"})

    async with answering(handler) as url, client(url) as made:
        with pytest.raises(Unreachable) as caught:
            await made.apis()
        assert caught.value.retry_after == 7


async def test_no_answer_is_an_error_too_whether_the_port_is_closed_or_it_takes_too_long() -> None:
    counted: list[tuple[str, int]] = []

    async def handler(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    def count(verb: str, status: int) -> None:
        counted.append((verb, status))

    async with answering(handler) as url, client(url, seconds=0.05, count=count) as made:
        with pytest.raises(Unreachable, match="TimeoutError"):
            await made.apis()
    async with client(url, count=count) as made:
        with pytest.raises(Unreachable):
            await made.get(SERVICE, "shop")
    assert counted == [("list", 0), ("get", 0)]


async def test_an_answer_that_is_cut_short_is_an_error_too() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
        await response.prepare(request)
        await response.write(b'{"groups": ')
        assert request.transport is not None
        request.transport.close()
        return response

    async with answering(handler) as url, client(url) as made:
        with pytest.raises(Unreachable):
            await made.apis()


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "kubeconfig"
    monkeypatch.setenv("KUBECONFIG", str(path))
    return path


async def test_credentials_come_from_a_kubeconfig(kubeconfig: Path) -> None:
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
                "clusters": [{"name": "k", "cluster": {"server": "https://kube.example:6443"}}],
                "users": [{"name": "u", "user": {"token": "abc"}}],
            }
        )
    )
    made = Kube(await load_configuration())
    found = await made.credentials()
    await made.close()
    assert (found.server, found.authorization, found.verify) == ("https://kube.example:6443", "Bearer abc", True)


async def test_a_kubeconfig_that_cannot_be_used_is_one_line(kubeconfig: Path) -> None:
    with pytest.raises(NoCredentials, match="no way to the API server"):
        await load_configuration()


async def test_the_token_of_a_service_account_is_read_again_when_it_is_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, authority = tmp_path / "token", tmp_path / "ca.crt"
    token.write_text("first")
    authority.write_text("-----BEGIN CERTIFICATE-----\n")
    module = "kubernetes.aio.config.incluster_config."
    monkeypatch.setattr(module + "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(module + "SERVICE_CERT_FILENAME", str(authority))
    monkeypatch.setattr(kube, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.delenv("KUBECONFIG", raising=False)
    configuration = await load_configuration()
    assert configuration.host == "https://10.96.0.1:443"
    assert await configuration.get_api_key_with_prefix("BearerToken") == "bearer first"
    token.write_text("second")
    later = datetime.now() + timedelta(minutes=2)
    clock = SimpleNamespace(datetime=SimpleNamespace(now=lambda: later), timedelta=timedelta)
    monkeypatch.setattr(module + "datetime", clock)
    assert await configuration.get_api_key_with_prefix("BearerToken") == "bearer second"
