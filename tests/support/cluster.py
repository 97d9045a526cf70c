"""A real cluster as tests see it: objects in, objects out, waiting by watch, and what is kept of a failure.

The client is a thin one on purpose. It sends what a test wrote, says which fields the API server refused and why, and
has no opinion on kinds: those of the operator, of KEDA or of cert-manager are all found by discovery.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kubernetes
import urllib3
import yaml

Manifest = dict[str, Any]

FIELD_MANAGER = "faceblur-e2e"
_CONTEXTS = re.compile(r"kind-.+|faceblur-e2e")


class WrongContextError(Exception):
    """The kubeconfig points at a cluster that is not there for tests."""


@dataclass(frozen=True)
class Cause:
    """One reason why the API server refused an object.

    Attributes:
        field: Path of the field, such as ``spec.autoscaling.minReplicas``.
        message: As the user sees it.
    """

    field: str
    message: str


class RefusedError(Exception):
    """The API server answered with an error.

    Attributes:
        status: HTTP status.
        reason: One word for programs, such as ``Invalid``.
        message: The whole text.
        causes: Which fields are wrong, and why.
    """

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        self.status = status
        self.reason = str(body.get("reason", ""))
        self.message = str(body.get("message", ""))
        causes = (body.get("details") or {}).get("causes") or []
        self.causes = tuple(Cause(cause.get("field", ""), cause.get("message", "")) for cause in causes)
        super().__init__(f"{status} {self.reason}: {self.message}")


def checked_context(kubeconfig: Path) -> str:
    """Return the context that a kubeconfig points at.

    Raises:
        WrongContextError: There is none, or it is not a cluster made for tests.
    """
    try:
        config = yaml.safe_load(kubeconfig.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        raise WrongContextError(f"no kubeconfig at {kubeconfig}: `make e2e-cluster` makes a cluster") from None
    context = str(config.get("current-context") or "")
    if not _CONTEXTS.fullmatch(context):
        raise WrongContextError(
            f"the current context of {kubeconfig} is {context!r}; these tests create and delete what they like, so "
            "they only run where it is called kind-* or faceblur-e2e"
        )
    return context


def condition(resource: Mapping[str, Any] | None, kind: str) -> dict[str, Any]:
    """Return a condition of an object's status, or an empty one."""
    found = ((resource or {}).get("status") or {}).get("conditions") or []
    return next((dict(entry) for entry in found if entry["type"] == kind), {})


def full_name(service: str, namespace: str) -> str:
    """Full DNS name of a Service; a shorter one is looked up outside the cluster while no pod is behind it."""
    return f"{service}.{namespace}.svc.cluster.local"


class Cluster:
    """The API server of the cluster that a kubeconfig points at."""

    def __init__(self, kubeconfig: Path) -> None:
        """Connect, if the context is one for tests.

        Raises:
            WrongContextError: It is not.
        """
        self.kubeconfig = kubeconfig
        self.context = checked_context(kubeconfig)
        self._client = kubernetes.config.new_client_from_config(  # type: ignore[no-untyped-call]
            str(kubeconfig), context=self.context
        )
        self._kinds: dict[str, dict[str, Manifest]] = {}

    # --- objects

    def apply(
        self,
        manifest: Manifest,
        *,
        dry_run: bool = False,
        subresource: str = "",
        field_manager: str = FIELD_MANAGER,
    ) -> Manifest:
        """Apply a manifest as ``kubectl apply --server-side --force-conflicts --validate=strict`` does.

        Raises:
            RefusedError: The API server does not take it.
        """
        meta = manifest["metadata"]
        path = self.path(manifest["apiVersion"], manifest["kind"], meta["name"], meta.get("namespace"), subresource)
        params = {"fieldManager": field_manager, "fieldValidation": "Strict", "force": "true"}
        return self.request(
            "PATCH",
            path,
            manifest,
            params | ({"dryRun": "All"} if dry_run else {}),
            content_type="application/apply-patch+yaml",
        )

    def apply_all(self, manifests: Iterable[Manifest]) -> None:
        """Apply manifests in their order."""
        for manifest in manifests:
            self.apply(manifest)

    def create(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        """Create an object as ``kubectl create --validate=strict`` does.

        Raises:
            RefusedError: The API server does not take it, or there is one.
        """
        path = self.path(manifest["apiVersion"], manifest["kind"], None, manifest["metadata"].get("namespace"))
        params = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run else {})
        return self.request("POST", path, manifest, params)

    def patch(
        self,
        api_version: str,
        kind: str,
        name: str,
        namespace: str | None,
        patch: Mapping[str, Any],
        *,
        subresource: str = "",
    ) -> Manifest:
        """Merge a patch into an object, as somebody with `kubectl edit` would."""
        path = self.path(api_version, kind, name, namespace, subresource)
        return self.request("PATCH", path, patch, content_type="application/merge-patch+json")

    def get(
        self, api_version: str, kind: str, name: str, namespace: str | None = None, *, subresource: str = ""
    ) -> Manifest | None:
        """Return an object, or None if there is none."""
        try:
            return self.request("GET", self.path(api_version, kind, name, namespace, subresource))
        except RefusedError as error:
            if error.status == 404:
                return None
            raise

    def list(
        self, api_version: str, kind: str, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> list[Manifest]:
        """Return the objects of a kind, those with these labels if any are given."""
        selector = ",".join(f"{key}={value}" for key, value in (labels or {}).items())
        answer = self.request("GET", self.path(api_version, kind, None, namespace), params={"labelSelector": selector})
        return [{"apiVersion": api_version, "kind": kind, **item} for item in answer["items"]]

    def make_namespace(self, name: str) -> None:
        """Make a namespace that only admits restricted pods, and wait until pods can run in it."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted", "faceblur.io/e2e": "true"}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        self.wait_until("v1", "ServiceAccount", "default", name, bool, 30)

    def expose(self, name: str, namespace: str, port: int) -> None:
        """Make a headless Service for the pod with the label `app` of this name.

        Headless, so that nothing is sent to an address that is nobody's any more once the Service is gone.
        """
        spec = {"clusterIP": "None", "selector": {"app": name}, "ports": [{"port": port}]}
        metadata = {"name": name, "namespace": namespace}
        self.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})

    def put_secret(self, name: str, namespace: str, content: Mapping[str, str | bytes]) -> None:
        """Make a Secret, or replace its content; its type is that for certificates where there is a ``tls.key``."""
        kind = "kubernetes.io/tls" if "tls.key" in content else "Opaque"
        metadata = {"name": name, "namespace": namespace}
        raw = {key: value.encode() if isinstance(value, str) else value for key, value in content.items()}
        data = {key: base64.b64encode(value).decode() for key, value in raw.items()}
        self.apply({"apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": metadata, "data": data})

    def define(self, crd: Manifest) -> None:
        """Apply a definition, and wait until the API server serves its kind."""
        self.apply(crd)
        self.wait_until(
            crd["apiVersion"],
            crd["kind"],
            crd["metadata"]["name"],
            None,
            lambda found: condition(found, "Established").get("status") == "True",
            30,
        )

    def delete(
        self, api_version: str, kind: str, name: str, namespace: str | None = None, *, propagation: str = "Background"
    ) -> None:
        """Delete an object; none is fine. What it owns is collected afterwards: wait for that if it matters."""
        try:
            self.request(
                "DELETE", self.path(api_version, kind, name, namespace), params={"propagationPolicy": propagation}
            )
        except RefusedError as error:
            if error.status != 404:
                raise

    def wait_until(
        self,
        api_version: str,
        kind: str,
        name: str,
        namespace: str | None,
        holds: Callable[[Manifest | None], object],
        seconds: float = 60,
    ) -> Manifest | None:
        """Watch an object until something holds of it (None: it is gone), and return it as it was then.

        Raises:
            AssertionError: It did not hold in time; says what the object's status was.
        """
        end = time.monotonic() + seconds
        current: Manifest | None = None
        while time.monotonic() < end:
            current = self.get(api_version, kind, name, namespace)
            if holds(current):
                return current
            version = current["metadata"]["resourceVersion"] if current else ""
            for current in self._watch(api_version, kind, name, namespace, version, end):
                if holds(current):
                    return current
        status = json.dumps((current or {}).get("status"), indent=1) if current else "no such object"
        raise AssertionError(f"{kind} {name}: not so within {seconds:g} s. Its status: {status}")

    # --- the wire

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        params: Mapping[str, str] | None = None,
        *,
        content_type: str = "application/json",
        accept: str = "application/json",
        timeout: float = 30,
    ) -> Manifest:
        """Send one request and return its JSON.

        Raises:
            RefusedError: The answer is an error.
        """
        response = self._send(method, path, body, params, content_type, accept, timeout)
        data = response.read()
        response.release_conn()
        try:
            answer: Manifest = json.loads(data)
        except ValueError:
            answer = {"message": data.decode(errors="replace")}
        if response.status >= 400:
            raise RefusedError(response.status, answer)
        return answer

    def answers(self) -> bool:
        """Whether the API server is ready now."""
        try:
            return bool(self.request("GET", "/readyz", timeout=2))
        except (RefusedError, urllib3.exceptions.HTTPError):
            return False

    def path(
        self, api_version: str, kind: str, name: str | None = None, namespace: str | None = None, subresource: str = ""
    ) -> str:
        """Return where an object, or a list of them, is on the API server."""
        if kind not in self._kinds.get(api_version, {}):
            found = self.request("GET", _base(api_version))["resources"]
            self._kinds[api_version] = {entry["kind"]: entry for entry in found if "/" not in entry["name"]}
        resource = self._kinds[api_version].get(kind)
        assert resource is not None, f"the API server has no {kind} in {api_version}"
        parts = [_base(api_version)]
        if resource["namespaced"] and namespace is not None:
            parts += ["namespaces", namespace]
        return "/".join(part for part in (*parts, resource["name"], name, subresource) if part)

    def _watch(
        self, api_version: str, kind: str, name: str, namespace: str | None, version: str, end: float
    ) -> Iterator[Manifest | None]:
        left = max(1, round(end - time.monotonic()))
        params = {"watch": "true", "fieldSelector": f"metadata.name={name}", "timeoutSeconds": str(left)}
        if version:
            params["resourceVersion"] = version
        path = self.path(api_version, kind, None, namespace)
        response = self._send("GET", path, None, params, "", "application/json", left + 5)
        try:
            buffer = b""
            for chunk in response.stream(65536):
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in filter(None, lines):
                    event = json.loads(line)
                    if event["type"] == "ERROR":  # the version is too old: look again
                        return
                    yield None if event["type"] == "DELETED" else event["object"]
        except urllib3.exceptions.HTTPError:
            return  # the API server went away, which some tests make it do
        finally:
            response.close()

    def _send(
        self,
        method: str,
        path: str,
        body: Any,
        params: Mapping[str, str] | None,
        content_type: str,
        accept: str,
        timeout: float,
    ) -> urllib3.BaseHTTPResponse:
        headers = {"Accept": accept} | ({"Content-Type": content_type} if body is not None else {})
        query = [(key, value) for key, value in (params or {}).items() if value]
        serialized = self._client.param_serialize(
            method, path, query_params=query, header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        response: urllib3.BaseHTTPResponse = self._client.call_api(*serialized, _request_timeout=timeout).response
        return response

    # --- programs

    def environment(self) -> dict[str, str]:
        """The environment in which programs reach this cluster."""
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig)}

    def kubectl(self, *arguments: str, check: bool = True, timeout: float = 120) -> str:
        """Run kubectl against this cluster and return what it printed."""
        done = subprocess.run(
            ["kubectl", "--context", self.context, *arguments],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0 or not check, f"kubectl {' '.join(arguments)}: {done.stderr}{done.stdout}"
        return done.stdout + ("" if done.returncode == 0 else done.stderr)


@dataclass
class Evidence:
    """What is kept of a test that failed: objects, Events and logs of the namespaces it used. No Secrets.

    Attributes:
        folder: Where it goes.
        failed: Whether the test has failed.
        namespaces: Of which; tests add theirs, such as that of the operator.
    """

    cluster: Cluster
    folder: Path
    failed: Callable[[], bool]
    namespaces: list[str] = field(default_factory=list)
    _kept: bool = False

    def keep_if_failed(self) -> None:
        """Write it down, once: fixtures call this before they take anything away."""
        if self._kept or not self.failed():
            return
        self._kept = True
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "nodes.txt").write_text(self.cluster.kubectl("describe", "nodes", check=False))
        for namespace in dict.fromkeys(self.namespaces):
            self._keep_namespace(namespace, self.folder / namespace)

    def _keep_namespace(self, namespace: str, folder: Path) -> None:
        folder.mkdir(exist_ok=True)

        def keep(name: str, *arguments: str) -> None:
            (folder / name).write_text(self.cluster.kubectl("-n", namespace, *arguments, check=False))

        kinds = "all,endpointslices,configmaps,poddisruptionbudgets,networkpolicies,replicasets,serviceaccounts,leases"
        keep("objects.txt", "get", kinds, "-o", "wide")
        keep("objects.yaml", "get", kinds, "-o", "yaml")
        keep("faceblur.yaml", "get", "faceblur-all", "-o", "yaml")
        keep("events.txt", "get", "events", "--sort-by=.lastTimestamp", "-o", "wide")
        keep("pods.txt", "describe", "pods")
        for pod in self.cluster.list("v1", "Pod", namespace):
            name = pod["metadata"]["name"]
            keep(f"{name}.log", "logs", name, "--all-containers", "--timestamps", "--tail=5000")
            if any(status.get("restartCount") for status in pod["status"].get("containerStatuses", ())):
                keep(f"{name}.previous.log", "logs", name, "--all-containers", "--previous", "--tail=5000")


def _base(api_version: str) -> str:
    return f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
