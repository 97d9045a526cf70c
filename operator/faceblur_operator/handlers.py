"""What kopf is used for: its watches notice that something has changed, and which resource that concerns.

Only low-level event handlers are registered. The others of kopf would keep their progress in annotations of the
resources, and timers, daemons and deletion handlers would put a finalizer there; the operator writes neither. Retries
and the order of work are `workqueue`'s, owner references delete what was created.

kopf looks for new kinds only where it may watch all CustomResourceDefinitions, and holds these in memory. Instead,
`rounds` notices kinds that come and go, and the watches are started anew with those that are there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from typing import Any, cast

import kopf

from . import naming
from .api.v1alpha1 import API_VERSION, CLUSTER_KIND, CLUSTER_PLURAL, GROUP, VERSION
from .api.v1alpha1_job import JOB_KIND, JOB_PLURAL
from .compare import digest
from .families import end, family
from .job_naming import JOB_LABEL
from .kube import Credentials
from .observed import Key
from .rounds import JOBS as JOBS_API
from .watches import Watches

Kind = tuple[str, str, str]

CLUSTERS: Kind = (GROUP, VERSION, CLUSTER_PLURAL)
JOBS: Kind = (GROUP, VERSION, JOB_PLURAL)
OWNED: tuple[Kind, ...] = (
    ("apps", "v1", "deployments"),
    ("", "v1", "services"),
    ("", "v1", "serviceaccounts"),
    ("autoscaling", "v2", "horizontalpodautoscalers"),
    ("policy", "v1", "poddisruptionbudgets"),
    ("networking.k8s.io", "v1", "networkpolicies"),
    ("", "v1", "configmaps"),
    ("", "v1", "pods"),
)
OPTIONAL: Mapping[str, tuple[Kind, ...]] = {
    JOBS_API: (
        ("batch", "v1", "jobs"),
        ("batch", "v1", "cronjobs"),
        ("rbac.authorization.k8s.io", "v1", "roles"),
        ("rbac.authorization.k8s.io", "v1", "rolebindings"),
    ),
    "keda.sh/v1alpha1": (
        ("keda.sh", "v1alpha1", "scaledobjects"),
        ("keda.sh", "v1alpha1", "triggerauthentications"),
    ),
    "monitoring.coreos.com/v1": (
        ("monitoring.coreos.com", "v1", "servicemonitors"),
        ("monitoring.coreos.com", "v1", "podmonitors"),
    ),
    "cert-manager.io/v1": (("cert-manager.io", "v1", "certificates"),),
}
# Autoscalers write what they measure every few seconds, and planners what they have done; a plan reads none of it.
_MEASUREMENTS = frozenset(
    {"currentMetrics", "currentReplicas", "lastScaleTime", "lastActiveTime", "health", "progress"}
)
_MEASURING_KINDS = frozenset({"HorizontalPodAutoscaler", "ScaledObject", JOB_KIND})
_TOLD = ("run", "phase", "reason")  # of a planner's progress, what a plan goes by
_LONGEST_BACKOFF = 5.0
_CLEANUP = "startup/cleanup activities"  # kopf's name of the task that closes its connections
_LONGEST_RESTART = 30.0

log = logging.getLogger(__name__)


class Handlers:
    """Takes the events in."""

    def __init__(self, watches: Watches, add: Callable[[Key], None]) -> None:
        """Set up.

        Args:
            watches: Tells news from what a look has seen already.
            add: Has a resource reconciled.
        """
        self._watches = watches
        self._add = add
        self._essences: dict[str, str] = {}

    async def on_cluster_changed(self, event: kopf.RawEvent, **_: Any) -> None:
        """A cluster was created, changed, deleted, or was there already."""
        self._on_changed(CLUSTER_KIND, event)

    async def on_job_changed(self, event: kopf.RawEvent, **_: Any) -> None:
        """The same about a job."""
        self._on_changed(JOB_KIND, event)

    async def on_owned_changed(self, event: kopf.RawEvent, **_: Any) -> None:
        """Something that belongs to a resource has changed or drifted: also when its label was taken away."""
        item = event["object"]
        key = owner_of(item["metadata"])
        if key is not None:
            self._notice(key, event, self._is_measurement(event))

    def _on_changed(self, kind: str, event: kopf.RawEvent) -> None:
        metadata = event["object"]["metadata"]
        self._notice(Key(kind, metadata["namespace"], metadata["name"]), event, self._is_measurement(event))

    def _notice(self, key: Key, event: kopf.RawEvent, is_measurement: bool) -> None:
        metadata = event["object"]["metadata"]
        gone = event["type"] == "DELETED"
        kind = str(event["object"].get("kind", ""))
        news = self._watches.told(key, kind, metadata["uid"], metadata["resourceVersion"], gone=gone)
        # Without a type it comes from a list, which does not tell what was deleted before it was made.
        is_listed = event["type"] is None
        if is_listed or (news and not is_measurement):
            self._add(key)

    def _is_measurement(self, event: kopf.RawEvent) -> bool:
        """Whether nothing but measurements changed since the object was told of last."""
        item: Mapping[str, Any] = event["object"]
        if item.get("kind") not in _MEASURING_KINDS:
            return False
        uid = item["metadata"]["uid"]
        if event["type"] == "DELETED":
            self._essences.pop(uid, None)
            return False
        status = item.get("status") or {}
        progress = status.get("progress") or {}
        essence = digest(
            [
                [item["metadata"].get(part) for part in ("labels", "annotations", "ownerReferences")],
                item["metadata"].get("deletionTimestamp"),
                item.get("spec"),
                {name: value for name, value in status.items() if name not in _MEASUREMENTS},
                [progress.get(name) for name in _TOLD],
            ]
        )
        same = self._essences.get(uid) == essence
        self._essences[uid] = essence
        return same


def owner_of(metadata: Mapping[str, Any]) -> Key | None:
    """The resource that an object belongs to: its owner, or for pods and the like the one that their labels name."""
    namespace = metadata["namespace"]
    for owner in metadata.get("ownerReferences") or ():
        if owner["apiVersion"] == API_VERSION and owner["kind"] in (CLUSTER_KIND, JOB_KIND):
            return Key(owner["kind"], namespace, owner["name"])
    labels = metadata.get("labels") or {}
    if JOB_LABEL in labels:
        return Key(JOB_KIND, namespace, labels[JOB_LABEL])
    name = labels.get(naming.INSTANCE_LABEL)
    return Key(CLUSTER_KIND, namespace, name) if name else None


def make_registry(
    handlers: Handlers, apis: Collection[str], credentials: Callable[[], Awaitable[Credentials]]
) -> kopf.OperatorRegistry:
    """Register what is watched.

    Args:
        handlers: Take the events in.
        apis: Optional APIs that the API server has.
        credentials: Those of the moment; kopf asks again when they are no longer accepted.
    """
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        found = await credentials()
        scheme, _space, token = (found.authorization or "").partition(" ")
        return kopf.ConnectionInfo(
            server=found.server,
            ca_path=found.ca_path,
            ca_data=found.ca_data,
            insecure=not found.verify,
            certificate_path=found.certificate_path,
            private_key_path=found.key_path,
            scheme=scheme or None,
            token=token or None,
            proxy_url=found.proxy,
        )

    kopf.on.event(*CLUSTERS, registry=registry)(handlers.on_cluster_changed)
    if JOBS_API in apis:
        kopf.on.event(*JOBS, registry=registry)(handlers.on_job_changed)
    for kind in watched_kinds(apis):
        kopf.on.event(*kind, registry=registry)(handlers.on_owned_changed)
    return registry


def watched_kinds(apis: Collection[str]) -> tuple[Kind, ...]:
    """The kinds of objects that belong to resources, as far as the API server has them."""
    return OWNED + tuple(kind for api, kinds in OPTIONAL.items() if api in apis for kind in kinds)


class _Backoffs:
    """Retries without end: a watch that gives up would take all others with it."""

    def __iter__(self) -> Iterator[float]:
        seconds = 0.5
        while True:
            yield seconds
            seconds = min(_LONGEST_BACKOFF, seconds * 2)


def make_settings() -> kopf.OperatorSettings:
    """How kopf has to behave here."""
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True
    settings.posting.enabled = False
    # Every process of its own accord: kopf would kill this one some time after its watches were started anew.
    settings.process.ultimate_exiting_timeout = None
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.networking.error_backoffs = _Backoffs()
    settings.watching.connect_timeout = 10
    settings.watching.server_timeout = 290
    settings.watching.client_timeout = 320
    settings.queueing.exit_timeout = 0.1
    for kind in watched_kinds(OPTIONAL):
        settings.watching.label_selectors[kind] = f"{naming.MANAGED_BY_LABEL}={naming.MANAGED_BY}"
    return settings


async def watch(
    handlers: Handlers,
    *,
    watches: Watches,
    namespaces: tuple[str, ...],
    apis: Callable[[], frozenset[str]],
    changed: asyncio.Event,
    credentials: Callable[[], Awaitable[Credentials]],
    started: Callable[[], None] = lambda: None,
) -> None:
    """Watch for ever; anew whenever kinds come or go, or when kopf gives up.

    Args:
        handlers: Take the events in.
        watches: Learns that everything is told of again.
        namespaces: That are served, none for all.
        apis: Which of the kinds that matter are installed.
        changed: Set when that has changed.
        credentials: Those of the moment.
        started: Called after each start of kopf, which takes signals for itself.
    """
    failures = 0
    while True:
        while API_VERSION not in apis():
            await _wait_and_clear(changed)
        changed.clear()
        watches.restarted()
        if await _watch_once(handlers, namespaces, apis(), changed, credentials, started):
            failures = 0
            continue
        failures += 1
        await asyncio.sleep(min(_LONGEST_RESTART, 2.0 ** (failures - 1)))


async def _wait_and_clear(event: asyncio.Event) -> None:
    await event.wait()
    event.clear()


async def _watch_once(
    handlers: Handlers,
    namespaces: tuple[str, ...],
    apis: frozenset[str],
    changed: asyncio.Event,
    credentials: Callable[[], Awaitable[Credentials]],
    started: Callable[[], None],
) -> bool:
    """Watch until kinds have changed, which is the good end, or until kopf gives up."""
    with family() as relatives:
        tasks = await kopf.spawn_tasks(
            registry=make_registry(handlers, apis, credentials),
            settings=make_settings(),
            standalone=True,
            # Not read without peers; kopf would ask for the user's name, which an arbitrary user id does not have.
            identity=cast(Any, naming.FIELD_MANAGER),
            clusterwide=not namespaces,
            namespaces=namespaces,
        )
        started()
        change = asyncio.create_task(changed.wait())
        try:
            done, _ = await asyncio.wait({*tasks, change}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end(relatives, last=_CLEANUP)
    if change in done:
        return True
    for task in tasks:
        if not task.cancelled() and (error := task.exception()):
            log.error("the watches ended and are started anew: %s: %s", type(error).__name__, str(error)[:500])
    return False
