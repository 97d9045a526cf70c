"""An API server in memory: real HTTP, real watches and the parts of server-side apply that the operator relies on.

The operator's own client and kopf talk to it as they do to Kubernetes. It validates nothing and defaults nothing; what
a real API server makes of the same manifests is proven against one.
"""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from support.copies import copied

Manifest = dict[str, Any]
Path = tuple[str, ...]
Fault = Callable[["Call"], web.Response | None]

KINDS: Mapping[str, Mapping[str, str]] = {
    "v1": {"services": "Service", "serviceaccounts": "ServiceAccount", "pods": "Pod", "secrets": "Secret"}
    | {"configmaps": "ConfigMap"}
    | {"namespaces": "Namespace"},
    "apps/v1": {"deployments": "Deployment"},
    "autoscaling/v2": {"horizontalpodautoscalers": "HorizontalPodAutoscaler"},
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
    "networking.k8s.io/v1": {"networkpolicies": "NetworkPolicy"},
    "apiextensions.k8s.io/v1": {"customresourcedefinitions": "CustomResourceDefinition"},
    "events.k8s.io/v1": {"events": "Event"},
    "batch/v1": {"jobs": "Job", "cronjobs": "CronJob"},
    "rbac.authorization.k8s.io/v1": {"roles": "Role", "rolebindings": "RoleBinding"},
    "faceblur.io/v1alpha1": {"faceblurclusters": "FaceBlurCluster", "faceblurjobs": "FaceBlurJob"},
}
OPTIONAL_KINDS: Mapping[str, Mapping[str, str]] = {
    "keda.sh/v1alpha1": {"scaledobjects": "ScaledObject", "triggerauthentications": "TriggerAuthentication"},
    "cert-manager.io/v1": {"certificates": "Certificate"},
    "monitoring.coreos.com/v1": {"servicemonitors": "ServiceMonitor", "podmonitors": "PodMonitor"},
}


@dataclass(frozen=True)
class Call:
    """A request as it came in.

    Attributes:
        verb: As in RBAC: get, list, watch, create, patch, delete.
        group: API group.
        resource: Plural, with the subresource behind a slash.
        namespace: Empty for all.
        name: Of the object, or empty.
        query: Parameters.
        headers: Of the request.
        body: What was sent.
    """

    verb: str
    group: str
    resource: str
    namespace: str
    name: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Manifest


@dataclass
class _Entry:
    manifest: Manifest
    applied: dict[str, Manifest] = field(default_factory=dict)


@dataclass(frozen=True)
class _Change:
    version: int
    resource: str
    old: Manifest | None
    new: Manifest | None


class ApiServer:
    """See the module.

    Attributes:
        url: Where it listens.
        calls: All requests but those for discovery.
        discoveries: How often it was asked which kinds there are.
        faults: Asked before a request is served; one that answers takes its place.
        kinds: API versions with their plurals and kinds.
    """

    def __init__(self) -> None:
        self.url = ""
        self.calls: list[Call] = []
        self.discoveries = 0
        self.faults: list[Fault] = []
        self.kinds: dict[str, Mapping[str, str]] = dict(KINDS)
        self._entries: dict[tuple[str, str, str], _Entry] = {}
        self._version = 100
        self._changes: list[_Change] = []
        self._news = asyncio.Condition()
        self._deaf: set[str] = set()
        self._streams: dict[asyncio.Task[Any], str] = {}

    # What tests do with it

    def get(self, resource: str, name: str, namespace: str = "shop") -> Manifest | None:
        """A copy of an object, None where there is none."""
        entry = self._entries.get((resource, namespace, name))
        return copied(entry.manifest) if entry else None

    def all(self, resource: str) -> list[Manifest]:
        """Copies of all objects of a kind."""
        return [copied(entry.manifest) for key, entry in self._entries.items() if key[0] == resource]

    async def put(self, manifest: Manifest) -> Manifest:
        """Create or replace an object as somebody else than the operator."""
        resource = self._resource_of(manifest)
        metadata = manifest["metadata"]
        key = (resource, metadata.get("namespace", ""), metadata["name"])
        entry = self._entries.get(key)
        old = entry.manifest if entry else None
        return await self._store(key, copied(manifest), old, entry.applied if entry else {})

    async def edit(self, resource: str, name: str, change: Callable[[Manifest], None], namespace: str = "shop") -> None:
        """Change an object in place as somebody else than the operator."""
        manifest = self.get(resource, name, namespace)
        assert manifest is not None, f"there is no {resource} {namespace}/{name}"
        change(manifest)
        await self.put(manifest)

    async def remove(self, resource: str, name: str, namespace: str = "shop") -> None:
        """Delete an object and what it owns."""
        entry = self._entries.pop((resource, namespace, name))
        self._version += 1
        entry.manifest["metadata"]["resourceVersion"] = str(self._version)
        await self._tell(_Change(self._version, resource, entry.manifest, None))
        uid = entry.manifest["metadata"]["uid"]
        for other, belongings in list(self._entries.items()):
            owners = belongings.manifest["metadata"].get("ownerReferences") or ()
            if other in self._entries and any(owner["uid"] == uid for owner in owners):
                await self.remove(other[0], other[2], other[1])

    def install(self, api_version: str) -> None:
        """Serve an optional API."""
        self.kinds[api_version] = {**KINDS, **OPTIONAL_KINDS}[api_version]

    async def uninstall(self, api_version: str) -> None:
        """Stop serving an API: its objects go, and so do its watches."""
        for resource in self.kinds.pop(api_version):
            for key in [key for key in self._entries if key[0] == resource]:
                del self._entries[key]
        await self.hang_up()

    def go_deaf(self, resource: str) -> None:
        """Let watches of a kind tell nothing any more, and not end either."""
        self._deaf.add(resource)

    async def hang_up(self, resource: str = "") -> None:
        """End all watches, as a restart does, or those of one kind."""
        ended = [task for task, watched in self._streams.items() if resource in ("", watched)]
        for task in ended:
            task.cancel()
        await asyncio.gather(*ended, return_exceptions=True)

    def streams(self) -> int:
        """How many watches there are."""
        return len(self._streams)

    def writes(self) -> list[Call]:
        """All requests that change something, Events left out."""
        return [call for call in self.calls if call.verb in ("create", "patch", "delete") and call.resource != "events"]

    # HTTP

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer a request."""
        parts = [part for part in request.path.split("/") if part]
        if parts == ["api"]:
            return web.json_response({"versions": ["v1"]})
        if parts == ["apis"]:
            self.discoveries += 1
            return web.json_response({"kind": "APIGroupList", "groups": self._groups()})
        api_version = parts[1] if parts[0] == "api" else "/".join(parts[1:3])
        rest = parts[2:] if parts[0] == "api" else parts[3:]
        kinds = self.kinds.get(api_version)
        if kinds is None:
            return _status(404, "NotFound", "the server could not find the requested resource")
        if not rest:
            return web.json_response({"kind": "APIResourceList", "resources": _resources(kinds)})
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        resource, name, subresource = (*rest, "", "")[:3]
        if resource not in kinds:
            return _status(404, "NotFound", "the server could not find the requested resource")
        call = Call(
            verb=_verb(request, name),
            group=api_version.rpartition("/")[0],
            resource=f"{resource}/{subresource}" if subresource else resource,
            namespace=namespace,
            name=name,
            query=dict(request.query),
            headers=dict(request.headers),
            body=json.loads(await request.text() or "{}"),
        )
        self.calls.append(call)
        for fault in self.faults:
            if answer := fault(call):
                return answer
        if call.verb == "watch":
            return await self._watch(request, call, resource)
        if call.verb == "list":
            return self._list(call, resource)
        return await self._one(call, resource, api_version, subresource)

    def _list(self, call: Call, resource: str) -> web.Response:
        chosen = [
            copied(entry.manifest)
            for key, entry in sorted(self._entries.items())
            if key[0] == resource and call.namespace in ("", key[1]) and _selects(call, entry.manifest)
        ]
        items: list[Manifest] | None = chosen
        if _wants_metadata(call):
            items = [{"metadata": item["metadata"]} for item in chosen] or None  # as a real one answers
        return web.json_response({"metadata": {"resourceVersion": str(self._version)}, "items": items})

    async def _one(self, call: Call, resource: str, api_version: str, subresource: str) -> web.Response:
        if call.verb == "create":
            name = call.body["metadata"]["name"]
            key = (resource, call.namespace, name)
            if key in self._entries:
                return _status(409, "AlreadyExists", f"{resource} {name} already exists")
            return web.json_response(await self._store(key, call.body, None, {}), status=201)
        key = (resource, call.namespace, call.name)
        entry = self._entries.get(key)
        if call.verb == "patch":
            return await self._apply(call, key, entry, subresource)
        if entry is None:
            return _status(404, "NotFound", f'{resource} "{call.name}" not found')
        if call.verb == "get":
            only = {"metadata": entry.manifest["metadata"]} if _wants_metadata(call) else entry.manifest
            return web.json_response({"apiVersion": api_version, "kind": self.kinds[api_version][resource], **only})
        wanted = call.body.get("preconditions", {}).get("uid")
        if wanted and wanted != entry.manifest["metadata"]["uid"]:
            return _status(409, "Conflict", "the UID in the precondition does not match")
        await self.remove(resource, call.name, call.namespace)
        return web.json_response({"kind": "Status", "status": "Success"})

    async def _apply(
        self, call: Call, key: tuple[str, str, str], entry: _Entry | None, subresource: str
    ) -> web.Response:
        assert call.headers["Content-Type"] == "application/apply-patch+yaml"
        manager, body = call.query["fieldManager"], call.body
        uid = body["metadata"].get("uid")
        if (entry is None and (subresource or uid)) or (entry and uid not in (None, entry.manifest["metadata"]["uid"])):
            return _status(409 if uid else 404, "Conflict" if uid else "NotFound", f"{key[0]} {key[2]} is not there")
        old = entry.manifest if entry else None
        applied = dict(entry.applied) if entry else {}
        mine = dict(_leaves(body))
        others: dict[Path, Any] = {}
        for other, manifest in applied.items():
            if other != manager:
                others.update(_leaves(manifest))
        if call.query["force"] == "false":
            contested = [path for path, value in mine.items() if path in others and others[path] != value]
            if contested:
                return _status(409, "Conflict", f"conflict with other managers: {contested}")
        new = copied(old) if old else {"metadata": {}}
        for path, _ in _leaves(applied.get(manager, {})):
            if path not in mine and path not in others:
                _unset(new, path)
        _merge(new, body)
        applied[manager] = {**applied.get(manager, {}), **body} if subresource else body
        new["metadata"]["managedFields"] = [
            {"manager": name, "operation": "Apply", "fieldsV1": _fields(manifest)} for name, manifest in applied.items()
        ]
        status = 200 if old else 201
        return web.json_response(await self._store(key, new, old, applied), status=status)

    async def _store(
        self, key: tuple[str, str, str], new: Manifest, old: Manifest | None, applied: dict[str, Manifest]
    ) -> Manifest:
        metadata = new["metadata"]
        if old is None:
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": now, "generation": 1, "namespace": key[1]}
        else:
            was = old["metadata"]
            metadata |= {name: was[name] for name in ("uid", "creationTimestamp", "resourceVersion", "generation")}
            if new == old:
                return copied(old)
            metadata["generation"] += new.get("spec") != old.get("spec")
        self._version += 1
        metadata["resourceVersion"] = str(self._version)
        self._entries[key] = _Entry(copied(new), applied)
        await self._tell(_Change(self._version, key[0], old, copied(new)))
        return copied(new)

    async def _tell(self, change: _Change) -> None:
        async with self._news:
            self._changes.append(change)
            self._news.notify_all()

    async def _watch(self, request: web.Request, call: Call, resource: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        task = asyncio.current_task()
        assert task is not None
        self._streams[task] = resource
        position = 0
        try:
            while True:
                async with self._news:
                    while len(self._changes) == position:
                        await self._news.wait()
                    fresh, position = self._changes[position:], len(self._changes)
                for change in fresh:
                    if change.resource != resource or change.version <= int(call.query["resourceVersion"]):
                        continue
                    event = None if resource in self._deaf else _event(call, change)
                    if event:
                        await response.write(json.dumps(event).encode() + b"\n")
        except (asyncio.CancelledError, ConnectionError):
            return response
        finally:
            self._streams.pop(task, None)

    def _groups(self) -> list[Manifest]:
        groups = []
        for api_version in self.kinds:
            name, _, version = api_version.rpartition("/")
            if name:
                known = {"groupVersion": api_version, "version": version}
                groups.append({"name": name, "versions": [known], "preferredVersion": known})
        return groups

    def _resource_of(self, manifest: Manifest) -> str:
        kinds = {**KINDS, **OPTIONAL_KINDS}[manifest["apiVersion"]]
        return next(plural for plural, kind in kinds.items() if kind == manifest["kind"])


@asynccontextmanager
async def api_server() -> AsyncIterator[ApiServer]:
    """Serve on a port of its own."""
    server = ApiServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.serve)
    # A watch whose client has gone is to end, also while there is nothing to tell.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await server.hang_up()
        await runner.cleanup()


def refuse(
    verb: str, resource: str, status: int, reason: str, message: str = "so be it", causes: Sequence[str] = ()
) -> Fault:
    """A fault: requests like this are refused."""

    def fault(call: Call) -> web.Response | None:
        return _status(status, reason, message, causes) if (call.verb, call.resource) == (verb, resource) else None

    return fault


def _status(code: int, reason: str, message: str, causes: Sequence[str] = ()) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message}
    details = {"details": {"causes": [{"reason": cause} for cause in causes]}} if causes else {}
    return web.json_response({**body, **details, "code": code}, status=code)


def _verb(request: web.Request, name: str) -> str:
    if request.method == "GET":
        return "watch" if request.query.get("watch") == "true" else "get" if name else "list"
    return {"PATCH": "patch", "DELETE": "delete", "POST": "create"}[request.method]


def _resources(kinds: Mapping[str, str]) -> list[Manifest]:
    verbs = ["create", "delete", "get", "list", "patch", "watch"]
    return [
        {"name": plural, "singularName": kind.lower(), "kind": kind, "verbs": verbs}
        | {"namespaced": kind not in ("Namespace", "CustomResourceDefinition")}
        for plural, kind in kinds.items()
    ]


def _wants_metadata(call: Call) -> bool:
    return "as=PartialObjectMetadata" in call.headers.get("Accept", "")


def _selects(call: Call, manifest: Manifest | None) -> bool:
    if manifest is None or call.namespace not in ("", manifest["metadata"].get("namespace")):
        return False
    labels = manifest["metadata"].get("labels") or {}
    wanted = re.findall(r"([^,= ]+)(?:=([^,]*)| in \(([^)]*)\))", call.query.get("labelSelector", ""))
    return all(labels.get(name) in (values.split(",") if values else [value]) for name, value, values in wanted)


def _event(call: Call, change: _Change) -> Manifest | None:
    """What a watch tells of a change: an object that leaves its selection is deleted for it."""
    was, now = _selects(call, change.old), _selects(call, change.new)
    if not was and not now:
        return None
    kind = "MODIFIED" if was and now else "ADDED" if now else "DELETED"
    item = copied(change.new if now else change.old)
    assert item is not None
    item["metadata"]["resourceVersion"] = str(change.version)
    return {"type": kind, "object": item}


def _leaves(manifest: Manifest, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """All fields, lists being one each; the object's identity is nobody's."""
    for name, value in manifest.items():
        if not path and name in ("apiVersion", "kind"):
            continue
        if path == ("metadata",) and name in ("name", "namespace", "uid"):
            continue
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name), value


def _fields(manifest: Manifest) -> Manifest:
    fields: Manifest = {}
    for path, _ in _leaves(manifest):
        at = fields
        for name in path:
            at = at.setdefault(f"f:{name}", {})
    return fields


def _merge(into: Manifest, manifest: Manifest) -> None:
    for name, value in manifest.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = copied(value)


def _unset(manifest: Manifest, path: Path) -> None:
    at: Any = manifest
    for name in path[:-1]:
        at = at.get(name) if isinstance(at, dict) else None
    if isinstance(at, dict):
        at.pop(path[-1], None)
