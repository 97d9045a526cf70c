"""What kopf is used for: its watches notice that something has changed, and which cluster that concerns.

Only low-level event handlers are registered. The others of kopf would keep their progress in annotations of the
clusters, and timers, daemons and deletion handlers would put a finalizer there; the operator writes neither. Retries
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
from .compare import digest
from .families import end, family
from .kube import Credentials
from .reconciler import Key
from .watches import Watches

Kind = tuple[str, str, str]

CLUSTERS: Kind = (GROUP, VERSION, CLUSTER_PLURAL)
OWNED: tuple[Kind, ...] = (
    ("apps", "v1", "deployments"),
    ("", "v1", "services"),
    ("", "v1", "serviceaccounts"),
    ("autoscaling", "v2", "horizontalpodautoscalers"),
    ("policy", "v1", "poddisruptionbudgets"),
    ("networking.k8s.io", "v1", "networkpolicies"),
    ("", "v1", "pods"),
)
OPTIONAL: Mapping[str, Kind] = {
    "keda.sh/v1alpha1": ("keda.sh", "v1alpha1", "scaledobjects"),
    "monitoring.coreos.com/v1": ("monitoring.coreos.com", "v1", "servicemonitors"),
    "cert-manager.io/v1": ("cert-manager.io", "v1", "certificates"),
}
# Autoscalers write what they measure every few seconds; a plan reads none of it.
_MEASUREMENTS = frozenset({"currentMetrics", "currentReplicas", "lastScaleTime", "lastActiveTime", "health"})
_MEASURING_KINDS = frozenset({"HorizontalPodAutoscaler", "ScaledObject"})
_LONGEST_BACKOFF = 5.0
_LONGEST_RESTART = 30.0

log = logging.getLogger(__name__)


class Handlers:
    """Takes the events in."""

    def __init__(self, watches: Watches, add: Callable[[Key], None]) -> None:
        """Set up.

        Args:
            watches: Tells news from what a look has seen already.
            add: Has a cluster reconciled.
        """
        self._watches = watches
        self._add = add
        self._essences: dict[str, str] = {}

    async def on_cluster_changed(self, event: kopf.RawEvent, **_: Any) -> None:
        """A cluster was created, changed, deleted, or was there already."""
        metadata = event["object"]["metadata"]
        self._notice((metadata["namespace"], metadata["name"]), event)

    async def on_owned_changed(self, event: kopf.RawEvent, **_: Any) -> None:
        """Something that belongs to a cluster has changed or drifted: also when its label was taken away."""
        item = event["object"]
        key = cluster_of(item["metadata"])
        if key is not None:
            self._notice(key, event, self._is_measurement(event))

    def _notice(self, key: Key, event: kopf.RawEvent, is_measurement: bool = False) -> None:
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
        essence = digest(
            [
                [item["metadata"].get(part) for part in ("labels", "annotations", "ownerReferences")],
                item["metadata"].get("deletionTimestamp"),
                item.get("spec"),
                {name: value for name, value in item.get("status", {}).items() if name not in _MEASUREMENTS},
            ]
        )
        same = self._essences.get(uid) == essence
        self._essences[uid] = essence
        return same


def cluster_of(metadata: Mapping[str, Any]) -> Key | None:
    """The cluster that an object belongs to: its owner, or for pods the one that their label names."""
    for owner in metadata.get("ownerReferences") or ():
        if (owner["apiVersion"], owner["kind"]) == (API_VERSION, CLUSTER_KIND):
            return metadata["namespace"], owner["name"]
    name = (metadata.get("labels") or {}).get(naming.INSTANCE_LABEL)
    return (metadata["namespace"], name) if name else None


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
    for kind in watched_kinds(apis):
        kopf.on.event(*kind, registry=registry)(handlers.on_owned_changed)
    return registry


def watched_kinds(apis: Collection[str]) -> tuple[Kind, ...]:
    """The kinds of objects that belong to clusters, as far as the API server has them."""
    return OWNED + tuple(kind for api, kind in OPTIONAL.items() if api in apis)


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
    for kind in (*OWNED, *OPTIONAL.values()):
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
            await end(relatives)
    if change in done:
        return True
    for task in tasks:
        if not task.cancelled() and (error := task.exception()):
            log.error("the watches ended and are started anew: %s: %s", type(error).__name__, str(error)[:500])
    return False
