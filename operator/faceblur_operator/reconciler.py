"""Brings a resource to its spec: looks at all that belongs to it, lets a plan decide, and writes what was decided.

Nothing is remembered that a look could tell, so a reconcile may come at any time, for any reason, and twice. What is
kept between two of them only saves work: which versions were seen, which differences the API server insists on.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from . import compare, naming
from .api.v1alpha1 import API_VERSION, Condition
from .kinds import AnyPlan, Kind, Kube, Look, Status
from .kube import Conflict, KubeError, Terminating, Unauthorized, Unreachable
from .metrics import Metrics
from .observed import Event, Key, Manifest, Memory, ObjectKey
from .watches import Watches

log = logging.getLogger(__name__)

_RESOURCE: ContextVar[Key | None] = ContextVar("resource", default=None)


def log_context() -> dict[str, str]:
    """What the log lines about a resource have in common."""
    key = _RESOURCE.get()
    return {"namespace": key.namespace, key.kind.removeprefix("FaceBlur").lower(): key.name} if key else {}


@dataclass(slots=True)
class Known:
    """What is kept about a resource between two reconciles.

    Attributes:
        looked: When it was looked at last, by the monotonic clock.
        patience: Share of the configured time after which it is looked at again, so that not all come at once.
        ready: Whether it was in a state that it may stay in.
        again: When there is something to do although nothing will have happened, by the same clock.
        secrets: Versions of the Secrets that it names, empty where there was none.
        memory: Of the last writes.
        told: The last failure that an Event was written about.
        needs: Another resource whose changes concern it.
        state: What those that need it go by.
    """

    looked: float = 0.0
    patience: float = field(default_factory=lambda: random.uniform(0.7, 1))  # noqa: S311
    ready: bool = False
    again: float | None = None
    secrets: Mapping[str, str] = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory)
    told: str = ""
    needs: Key | None = None
    state: tuple[Any, ...] = ()


class Reconciler:
    """Reconciles resources. Two calls for the same one must not overlap: `workqueue.Queue` sees to that.

    Attributes:
        apis: What the API server has; the rounds find it out.
        known: By resource.
        changed: Called with each resource that needs another one that has changed.
    """

    def __init__(
        self,
        kube: Kube,
        kinds: Iterable[Kind],
        *,
        watches: Watches,
        metrics: Metrics,
        forgotten: Callable[[Key], None] = lambda key: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Put the parts together.

        Args:
            kube: The API server.
            kinds: That are served.
            watches: Learns what every look has seen.
            metrics: Counts what happens.
            forgotten: Called with each resource that is gone.
            now: The time for conditions.
        """
        self.apis: frozenset[str] = frozenset()
        self.known: dict[Key, Known] = {}
        self.changed: Callable[[Key], None] = lambda key: None
        self.kinds: Mapping[str, Kind] = {kind.name: kind for kind in kinds}
        self._kube = kube
        self._watches = watches
        self._metrics = metrics
        self._forgotten = forgotten
        self._now = now

    async def reconcile(self, key: Key) -> float | None:
        """Bring a resource to its spec; a no-op when it is gone or going.

        Args:
            key: Of the resource.

        Returns:
            None when all is done; else after how many seconds it makes sense to try again at the earliest.
        """
        token = _RESOURCE.set(key)
        started = time.perf_counter()
        retry: float | None = None
        try:
            result = await self._reconcile(key)
            if result == "refused":
                retry = 0.0
        except Terminating:
            result = "gone"
        except KubeError as error:
            result, retry = "failed", error.retry_after or 0.0
            self._metrics.errors.labels(type(error).__name__).inc()
            log.warning("not reconciled, it is tried again: %s", error)
            await self._tell(key, error)
        except Exception as error:
            result, retry = "failed", 0.0
            self._metrics.errors.labels(type(error).__name__).inc()
            log.exception("not reconciled by a defect, please report it: %s", type(error).__name__)
        finally:
            _RESOURCE.reset(token)
        self._metrics.reconciles.labels(result).inc()
        self._metrics.seconds.observe(time.perf_counter() - started)
        return retry

    def forget(self, key: Key) -> None:
        """Drop what is kept about a resource that is gone."""
        self.known.pop(key, None)
        self._metrics.conditions.pop(key, None)
        self._watches.forget(key)
        self._forgotten(key)
        self._tell_those_in_need(key)

    async def _reconcile(self, key: Key) -> str:
        kind = self.kinds[key.kind]
        since = time.monotonic()
        raw = await self._kube.get(ObjectKey(API_VERSION, key.kind, key.name), key.namespace)
        if raw is None or "deletionTimestamp" in raw["metadata"]:
            self.forget(key)
            return "gone"
        known = self.known.setdefault(key, Known())
        known.looked = since
        previous = kind.status_of(raw)
        try:
            look = await kind.look(raw, previous, self.apis)
        except ValidationError as error:
            self._watches.seen(key, _versions([(key.kind, raw)]), since)
            await self._write_status(key, raw, previous, kind.invalid(raw, previous, _explain(error), self._now()))
            return "invalid"
        belongings = [*((place.kind, found) for place, found in look.objects.items()), *look.others]
        watched = [(kind_of, item) for kind_of, item in belongings if _is_managed(item)]
        self._watches.seen(key, _versions([(key.kind, raw), *watched]), since)
        known.secrets, known.needs = look.secrets, look.needs
        plan = look.plan(self._now(), known.memory)
        before = known.memory
        known.memory = await self._carry_out(key, look, plan, before)
        if known.memory.refused != before.refused:
            plan = look.plan(self._now(), known.memory)
        known.again = None if plan.again is None else since + plan.again
        written = await self._write_status(key, raw, previous, plan.status)
        for event in plan.events:
            await self._post(raw, event)
        if plan.expired and not written:
            await self._delete_resource(key, raw)
        if known.memory.refused:
            return "refused"
        known.told = ""
        return "done"

    async def _delete_resource(self, key: Key, raw: Manifest) -> None:
        """Delete a resource whose time is over, unless it was changed since it was looked at."""
        metadata = raw["metadata"]
        place = ObjectKey(API_VERSION, key.kind, key.name)
        await self._kube.delete(place, key.namespace, metadata["uid"], metadata["resourceVersion"])
        self._metrics.writes.labels(key.kind, "delete").inc()
        log.info("deleted: its time is over")

    async def _carry_out(self, key: Key, look: Look, plan: AnyPlan, memory: Memory) -> Memory:
        """Write what was decided; returns what to remember of it.

        An object that is refused does not keep the others from being written, but nothing is deleted then.

        Raises:
            KubeError: The API server cannot be reached or does not know the operator, or the namespace is going.
        """
        accepted, refused = dict(memory.accepted), {}
        for manifest in plan.keep_replicas:
            try:
                await self._apply(manifest, manager=naming.REPLICAS_FIELD_MANAGER, force=False)
            except Conflict:
                log.debug("an autoscaler owns the replicas already")
        for manifest in plan.apply:
            place = naming.key_of(manifest)
            try:
                live = await self._apply(manifest)
            except (Unreachable, Unauthorized, Terminating):
                raise
            except KubeError as error:
                self._metrics.errors.labels(type(error).__name__).inc()
                refused[place] = error.message
                if memory.refused.get(place) != error.message:
                    log.warning("refused, it is tried again: %s", error)
                continue
            if left := compare.residue(live, manifest):
                accepted[place] = left
                log.debug("the API server keeps %s %s different from what was applied", place.kind, place.name)
            else:
                accepted.pop(place, None)
        for place in () if refused else plan.delete:
            await self._kube.delete(place, key.namespace, look.objects[place]["metadata"]["uid"])
            accepted.pop(place, None)
            self._metrics.writes.labels(place.kind, "delete").inc()
            log.info("deleted", extra={"kind": place.kind, "object": place.name})
        return Memory(accepted=accepted, refused=refused)

    async def _apply(self, manifest: Manifest, **options: Any) -> Manifest:
        live = await self._kube.apply(manifest, **options)
        self._metrics.writes.labels(manifest["kind"], "apply").inc()
        log.info("applied", extra={"kind": manifest["kind"], "object": manifest["metadata"]["name"]})
        return live

    async def _write_status(self, key: Key, raw: Manifest, previous: Status, status: Status) -> bool:
        """Write the status where it says something else than before; returns whether it did.

        What others write there, as a planner its progress, is left to them.
        """
        conditions = {condition.type: condition for condition in status.conditions}
        self._metrics.conditions[key] = {name: str(condition.status) for name, condition in conditions.items()}
        metadata, known = raw["metadata"], self.known[key]
        known.ready = self.kinds[key.kind].is_at_rest(status)
        if status == previous:
            self._note_state(key, metadata, conditions)
            return False
        await self._kube.apply(
            {
                "apiVersion": API_VERSION,
                "kind": key.kind,
                "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]},
                "status": status.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"progress"}),
            },
            subresource="status",
        )
        self._metrics.writes.labels(key.kind, "status").inc()
        self._note_state(key, metadata, conditions)
        was = {condition.type: condition for condition in previous.conditions}
        for name, condition in conditions.items():
            if name not in was or (was[name].status, was[name].reason) != (condition.status, condition.reason):
                log.info("%s is %s: %s", name, condition.status, condition.message, extra={"reason": condition.reason})

        return True

    def _note_state(self, key: Key, metadata: Manifest, conditions: Mapping[str, Condition]) -> None:
        """Have those looked at again that need a resource, where it has changed for them."""
        known, ready = self.known[key], conditions.get("Ready")
        state = (metadata["uid"], metadata.get("generation"), ready and (ready.status, ready.message))
        if state != known.state:
            known.state = state
            self._tell_those_in_need(key)

    def _tell_those_in_need(self, key: Key) -> None:
        for other, known in self.known.items():
            if known.needs == key:
                self.changed(other)

    async def _tell(self, key: Key, error: KubeError) -> None:
        """Write an Event about a failure, once for as long as it stays the same, if that can be done at all."""
        known = self.known.get(key)
        if known is None or isinstance(error, Unreachable | Unauthorized | Conflict) or known.told == error.message:
            return
        known.told = error.message
        try:
            raw = await self._kube.get(ObjectKey(API_VERSION, key.kind, key.name), key.namespace)
        except KubeError:
            return
        if raw is not None:
            await self._post(raw, Event("ReconcileFailed", str(error), warning=True))

    async def _post(self, raw: Manifest, event: Event) -> None:
        """Write an Event; a resource is not worse off without it."""
        try:
            await self._kube.post_event(raw, event)
        except Terminating:
            return
        except KubeError as error:
            self._metrics.errors.labels(type(error).__name__).inc()
            log.warning("no Event was written: %s", error)


def _is_managed(item: Manifest) -> bool:
    """Whether the watches tell about an object: they select by label."""
    return (item["metadata"].get("labels") or {}).get(naming.MANAGED_BY_LABEL) == naming.MANAGED_BY


def _versions(items: Iterable[tuple[str, Manifest]]) -> dict[str, tuple[str, str]]:
    """Kind and version of objects by their ids."""
    return {item["metadata"]["uid"]: (kind, item["metadata"]["resourceVersion"]) for kind, item in items}


def _explain(error: ValidationError) -> str:
    """A sentence on the first thing that is wrong with a spec."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
