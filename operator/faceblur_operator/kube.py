"""The only module that talks to the API server, but for the watches, which are kopf's.

Objects stay dictionaries: the client's thousand typed models are never imported, which saves memory and start-up time.
Every failure leaves as one of these, with the API server's words cut to a length that is fit for logs:

    KubeError
    ├── Unreachable     no answer, or one that says to come again: 429 and 5xx
    ├── Unauthorized    401
    ├── Forbidden       403: a missing right, a quota or an admission policy
    ├── Terminating     403, because the namespace is on its way out
    ├── NotFound        404: the object, its namespace or its whole kind
    ├── Conflict        409
    └── Refused         any other 4xx: the object itself is not accepted

What the operator needs to be allowed, for a ClusterRole or for a Role in each namespace that is served:

    faceblur.io                faceblurclusters                          get list watch
    faceblur.io                faceblurjobs                              get list watch delete
    faceblur.io                faceblurclusters/status                   patch
    faceblur.io                faceblurjobs/status                       patch (planners get it for one each)
    apps                       deployments                               get list watch create patch delete
    (core)                     services serviceaccounts configmaps       get list watch create patch delete
    batch                      jobs cronjobs                             get list watch create patch delete
    rbac.authorization.k8s.io  roles rolebindings                        get list watch create patch delete
    autoscaling                horizontalpodautoscalers                  get list watch create patch delete
    policy                     poddisruptionbudgets                      get list watch create patch delete
    networking.k8s.io          networkpolicies                           get list watch create patch delete
    keda.sh                    scaledobjects triggerauthentications      get list watch create patch delete
    monitoring.coreos.com      servicemonitors podmonitors               get list watch create patch delete
    cert-manager.io            certificates                              get list watch create patch delete
    (core)                     pods                                      list watch
    (core)                     secrets                                   get (of metadata alone)
    events.k8s.io              events                                    create

Discovery (``/api``, ``/apis``) is open to every service account. The right to delete is also what lets the operator
name an owner where the admission plugin OwnerReferencesPermissionEnforcement runs. Roles are those of planners: the
operator can give away no right that it has not.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config.config_exception import ConfigException
from kubernetes.aio.config.incluster_config import SERVICE_TOKEN_FILENAME, load_incluster_config
from kubernetes.aio.config.kube_config import load_kube_config

from . import naming
from .api.v1alpha1 import API_VERSION
from .observed import Event, Manifest, ObjectKey

_APPLY = "application/apply-patch+yaml"
_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_LONGEST_MESSAGE = 500
_LONGEST_NOTE = 1024
_PAGE = 500


class KubeError(Exception):
    """The API server did not do what it was asked for; the message names the request and the reason.

    Attributes:
        status: HTTP status, 0 where there was no answer.
        reason: The API server's word for it, such as ``AlreadyExists``.
        message: Its sentence, cut.
        retry_after: Seconds that it asks to wait, or None.
    """

    def __init__(self, what: str, status: int, reason: str, message: str, retry_after: float | None = None) -> None:
        """Say what failed.

        Args:
            what: The request, such as ``apply Deployment shop/demo-worker``.
            status: HTTP status, 0 where there was no answer.
            reason: The API server's word for it.
            message: Its sentence.
            retry_after: Seconds that it asks to wait.
        """
        self.status = status
        self.reason = reason
        self.message = message if len(message) <= _LONGEST_MESSAGE else message[: _LONGEST_MESSAGE - 1] + "…"
        self.retry_after = retry_after
        super().__init__(f"{what}: {f'{status} ' if status else ''}{reason}: {self.message}")


class Unreachable(KubeError):
    """No answer, or one that says to come again."""


class Unauthorized(KubeError):
    """The credentials are not accepted."""


class Forbidden(KubeError):
    """A right is missing, or a quota or an admission policy says no."""


class Terminating(KubeError):
    """The namespace is being deleted, and the cluster with it; nothing can be made in it any more."""


class NotFound(KubeError):
    """The object, its namespace or its whole kind does not exist."""


class Conflict(KubeError):
    """The object has changed, or it is not the one that was meant."""


class Refused(KubeError):
    """The object is not accepted as it is."""


ERROR_OF: Mapping[int, type[KubeError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    429: Unreachable,
}


class NoCredentials(Exception):
    """Neither a service account nor a kubeconfig was found; the message is one line."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """How to reach the API server, for a client of another make.

    Attributes:
        server: URL.
        ca_path: File with its authorities, or None for those of the system.
        ca_data: The same as PEM.
        verify: Whether its certificate is checked.
        certificate_path: The client's certificate.
        key_path: The client's key.
        authorization: Value of the Authorization header.
        proxy: URL of a proxy.
    """

    server: str
    ca_path: str | None
    ca_data: str | bytes | None
    verify: bool
    certificate_path: str | None
    key_path: str | None
    authorization: str | None
    proxy: str | None


def path_of(api_version: str, kind: str, namespace: str | None, name: str = "", subresource: str = "") -> str:
    """The URL path of an object, or of all objects of a kind.

    Args:
        api_version: Such as ``apps/v1``.
        kind: Such as ``Deployment``; its plural is English and regular for every kind that is used here.
        namespace: None for all namespaces.
        name: Empty for a list.
        subresource: Such as ``status``.
    """
    plural = kind.lower()
    plural = plural[:-1] + "ies" if plural.endswith("y") else plural + "s"
    parts = ["apis" if "/" in api_version else "api", *api_version.split("/")]
    if namespace is not None:
        parts += ["namespaces", namespace]
    return "/" + "/".join(quote(part, safe="") for part in (*parts, plural, name, subresource) if part)


async def load_configuration() -> Configuration:
    """Find the API server: by ``KUBECONFIG``, else by the pod's service account, else by ``~/.kube/config``.

    Raises:
        NoCredentials: There is none of them, or it cannot be used.
    """
    configuration = Configuration()
    configuration.connection_pool_maxsize = 32
    # Proxies of the environment are for the outside world; a kubeconfig can name one for its cluster.
    configuration.client_session_kwargs = {"trust_env": False}
    kubeconfig = os.environ.get("KUBECONFIG") or None
    try:
        if kubeconfig is None and Path(SERVICE_TOKEN_FILENAME).exists():
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            await load_kube_config(  # type: ignore[no-untyped-call]
                config_file=kubeconfig, client_configuration=configuration, persist_config=False
            )
    except (ConfigException, OSError) as error:
        raise NoCredentials(f"no way to the API server: {error}") from error
    return configuration


class Kube:
    """The API server, as far as the operator uses it. Every method raises `KubeError` and nothing else."""

    def __init__(
        self,
        configuration: Configuration,
        *,
        seconds: float = 20,
        source: str = "",
        count: Callable[[str, int], None] = lambda verb, status: None,
    ) -> None:
        """Make a client; it connects with the first request.

        Args:
            configuration: Of the client.
            seconds: After which a request is given up.
            source: Who Events come from, such as the pod's name.
            count: Called for every request with its verb and HTTP status, 0 for no answer.
        """
        self._configuration = configuration
        self._client = ApiClient(configuration)
        self._client.user_agent = naming.FIELD_MANAGER
        self._timeout = aiohttp.ClientTimeout(total=seconds)
        self._source = source or naming.FIELD_MANAGER
        self._count = count

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()  # type: ignore[no-untyped-call]

    async def credentials(self) -> Credentials:
        """The credentials of this moment: tokens of service accounts are renewed on disk."""
        configuration = self._configuration
        return Credentials(
            server=configuration.host,
            ca_path=configuration.ssl_ca_cert,
            ca_data=configuration.ca_cert_data,
            verify=configuration.verify_ssl,
            certificate_path=configuration.cert_file,
            key_path=configuration.key_file,
            authorization=await configuration.get_api_key_with_prefix("BearerToken"),
            proxy=configuration.proxy,
        )

    async def apis(self) -> frozenset[str]:
        """What the API server has: every group with its versions, such as ``keda.sh/v1alpha1``, and our own kinds.

        Those are told by their plurals, such as ``faceblur.io/v1alpha1/faceblurjobs``.
        """
        answer = await self._request("list", "GET", "/apis", "list the API groups")
        groups = {version["groupVersion"] for group in answer["groups"] for version in group["versions"]}
        if API_VERSION in groups:
            own = await self._request("list", "GET", f"/apis/{API_VERSION}", f"list the kinds of {API_VERSION}")
            groups |= {f"{API_VERSION}/{resource['name']}" for resource in own["resources"]}
        return frozenset(groups)

    async def resources(self, kind: str, namespace: str | None) -> list[Manifest]:
        """The metadata of all resources of one of our kinds in a namespace, None for all namespaces."""
        return await self._list(API_VERSION, kind, namespace, accept=_METADATA_LIST)

    async def pods(self, namespace: str, selector: str) -> list[Manifest]:
        """The pods with these labels, ``a=b,c=d``."""
        return await self._list("v1", "Pod", namespace, selector=selector)

    async def jobs(self, namespace: str, selector: str) -> list[Manifest]:
        """The Kubernetes Jobs with these labels."""
        return await self._list("batch/v1", "Job", namespace, selector=selector)

    async def get(self, key: ObjectKey, namespace: str) -> Manifest | None:
        """The object at a place, whoever owns it; None where there is none or where its kind does not exist."""
        path = path_of(key.api_version, key.kind, namespace, key.name)
        try:
            return await self._request("get", "GET", path, f"get {key.kind} {namespace}/{key.name}")
        except NotFound:
            return None

    async def secret_version(self, namespace: str, name: str) -> str:
        """The version of a Secret, empty where there is none of that name; its content is not sent."""
        path = path_of("v1", "Secret", namespace, name)
        try:
            found = await self._request("get", "GET", path, f"get Secret {namespace}/{name}", accept=_METADATA)
        except NotFound:
            return ""
        return str(found["metadata"]["resourceVersion"])

    async def apply(
        self, manifest: Manifest, *, manager: str = naming.FIELD_MANAGER, force: bool = True, subresource: str = ""
    ) -> Manifest:
        """Server-side apply; returns the object as it is afterwards.

        Args:
            manifest: All fields that the manager wants, and no others.
            manager: Field manager.
            force: Whether fields of other managers are taken over; else they are a `Conflict`.
            subresource: Such as ``status``.
        """
        kind, metadata = manifest["kind"], manifest["metadata"]
        path = path_of(manifest["apiVersion"], kind, metadata["namespace"], metadata["name"], subresource)
        return await self._request(
            "apply",
            "PATCH",
            f"{path}?{urlencode({'fieldManager': manager, 'force': str(force).lower()})}",
            f"apply {kind}{subresource and '/' + subresource} {metadata['namespace']}/{metadata['name']}",
            body=manifest,
            content_type=_APPLY,
        )

    async def delete(self, key: ObjectKey, namespace: str, uid: str, version: str = "") -> None:
        """Delete an object, unless it is gone or another one has taken its place meanwhile.

        A Job is there until its pods have ended.

        Args:
            key: Its place.
            namespace: Of the object.
            uid: Its unique id.
            version: If given, it is only deleted as it was then.
        """
        propagation = "Foreground" if (key.api_version, key.kind) == ("batch/v1", "Job") else "Background"
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        conditions = {"uid": uid} | ({"resourceVersion": version} if version else {})
        path = path_of(key.api_version, key.kind, namespace, key.name)
        try:
            await self._request(
                "delete",
                "DELETE",
                path,
                f"delete {key.kind} {namespace}/{key.name}",
                body={**options, "preconditions": conditions},
            )
        except (NotFound, Conflict):
            return

    async def post_event(self, resource: Manifest, event: Event) -> None:
        """Write an Event about one of our resources, given with at least its kind and metadata."""
        metadata = resource["metadata"]
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": f"{metadata['name']}.{time.time_ns():x}", "namespace": metadata["namespace"]},
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "type": "Warning" if event.warning else "Normal",
            "reason": event.reason,
            "action": "Reconcile",
            "note": event.message[:_LONGEST_NOTE],
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": resource["kind"],
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
            "reportingController": naming.FIELD_MANAGER,
            "reportingInstance": self._source,
        }
        path = path_of("events.k8s.io/v1", "Event", metadata["namespace"])
        what = f"create an Event about {metadata['namespace']}/{metadata['name']}"
        await self._request("create", "POST", path, what, body=body)

    async def _list(
        self, api_version: str, kind: str, namespace: str | None, *, selector: str = "", accept: str | None = None
    ) -> list[Manifest]:
        path = path_of(api_version, kind, namespace)
        what = f"list {kind}s {f'in {namespace}' if namespace else 'of all namespaces'}"
        query = {"limit": str(_PAGE), **({"labelSelector": selector} if selector else {})}
        items: list[Manifest] = []
        while True:
            page = await self._request("list", "GET", f"{path}?{urlencode(query)}", what, accept=accept)
            items += page["items"] or ()
            if not (token := page["metadata"].get("continue")):
                return items
            query["continue"] = token

    async def _request(
        self,
        verb: str,
        method: str,
        path: str,
        what: str,
        *,
        body: Manifest | None = None,
        content_type: str = "application/json",
        accept: str | None = None,
    ) -> Manifest:
        headers = {"Accept": accept or "application/json", "Content-Type": content_type}
        status = 0
        try:
            request = await self._client.param_serialize(
                method, path, header_params=headers, body=body, auth_settings=["BearerToken"]
            )
            response = await self._client.call_api(*request[:4], _request_timeout=self._timeout)
            data = await response.read()  # type: ignore[no-untyped-call]
            status = response.status
            answer = json.loads(data)
        except (aiohttp.ClientError, OSError) as error:
            text = str(error) or type(error).__name__
            raise Unreachable(what, 0, "Unreachable", text) from error
        except ValueError as error:
            raise _error(what, status, {}, None) from error
        finally:
            self._count(verb, status)
        if not 200 <= status < 300:
            raise _error(what, status, answer, response.headers.get("Retry-After"))
        return answer  # type: ignore[no-any-return]


def _error(what: str, status: int, answer: Any, retry_after: str | None) -> KubeError:
    """The error for an answer. Only a ``Status`` is quoted: any other body may hold what must not be logged."""
    is_status = isinstance(answer, dict) and answer.get("kind") == "Status"
    reason = (answer.get("reason") if is_status else "") or f"Http{status}"
    message = (answer.get("message") if is_status else "") or "the answer is not one of an API server"
    kind = ERROR_OF.get(status) or (Refused if 400 <= status < 500 else Unreachable)
    causes = ((answer.get("details") if is_status else None) or {}).get("causes") or ()
    if any(cause.get("reason") == "NamespaceTerminating" for cause in causes):
        kind = Terminating
    seconds = float(retry_after) if retry_after and retry_after.isdigit() else None
    return kind(what, status, reason, message, seconds)
