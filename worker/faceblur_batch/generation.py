"""A generation: one pass of a job over its source with one set of options, resolved and fixed when it begins.

It looks at the whole source, or only at objects that are named: those that are known to be new or to have changed. A
pass over named objects follows a *base*, which looked at everything; what is known of an object is what the last
generation since the base says of it. So that few generations have to be asked, every 32nd (`FOLD`) repeats what those
between it and the base say, and when they have changed too much, everything is looked at again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any
from urllib.parse import quote, unquote

from pydantic import BaseModel, ConfigDict, ValidationError

import faceblur

from .errors import AlreadyExists, BatchError, LocationNotFound, Unsupported
from .job import JobSpec, fingerprint, parse_options
from .ledger import Ledger, Mark, State, dump_json, last_generation
from .manifest import order
from .storage.keys import KeyMapping
from .storage.store import Capabilities, ObjectInfo, ObjectStore

FOLD = 32
"""Generations over named objects after which one repeats what they say."""
MOST_CHANGED = 10_000
"""Objects in such generations after which the whole source is looked at again, should it not have ten times as many."""


class LedgerUnreadable(BatchError):
    """What is in the ledger was not written by this version, or was altered."""

    reason = "LEDGER_UNREADABLE"


class Generation(BaseModel):
    """What `spec.json` says.

    Attributes:
        job: The job's id.
        number: From 1.
        spec: What was asked for.
        resolved: Options with the workers' defaults filled in.
        options_sha256: Their fingerprint.
        models: Names of the models that workers had loaded at the beginning, by SHA-256.
        version: Of the workers, at the beginning.
        max_bytes: Longest picture that the workers take.
        check: Outputs may be there that no ledger tells of: each is looked at first.
        base: The generation whose manifest says what is there; None: none does.
        since: Those after the base, over named objects, that have to be asked as well; the newest is the last.
        changed: How many objects the generations since the base have looked at.
        whole: How many objects the base has.
        named: All that is looked at, by key: quoted key, ETag, size, time of modification. None: the whole source.
        capabilities: Of the destination.
        created: When it began.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    job: str
    number: int
    spec: JobSpec
    resolved: dict[str, Any]
    options_sha256: str
    models: dict[str, str]
    version: str
    max_bytes: int
    check: bool
    base: int | None
    since: tuple[int, ...] = ()
    changed: int = 0
    whole: int = 0
    named: tuple[tuple[str, str, int, float], ...] | None = None
    capabilities: Capabilities
    created: datetime

    @cached_property
    def options(self) -> faceblur.Options:
        """What every call asks for, also should the workers' defaults change meanwhile; their limits are theirs."""
        return parse_options(self.resolved | {"limits": self.spec.options.get("limits")})

    @property
    def attempts(self) -> int:
        """Tries, alone, of a picture that takes workers with it."""
        return self.spec.attempts

    @cached_property
    def output_key(self) -> KeyMapping:
        """From the key of an object to that of its output."""
        return self.spec.mapping()

    def selects(self, info: ObjectInfo) -> bool:
        """Whether an object is worked on."""
        return info in self.spec.selection

    def objects(self, source: ObjectStore, *, after: str | None = None) -> Iterator[ObjectInfo]:
        """What is looked at, in the order of keys.

        Args:
            source: Where pictures come from.
            after: Only keys that sort behind this one.
        """
        if self.named is None:
            return source.list(self.spec.selection.prefix, after=after)
        return (info for info in map(_info, self.named) if after is None or order(info.key) > order(after))

    @property
    def folds(self) -> bool:
        """Whether it repeats, when it is complete, what the generations since the base say."""
        return self.named is not None and len(self.since) >= FOLD - 1

    def chain(self, objects: int) -> dict[str, Any]:
        """What the next generation goes by, if this one is complete.

        Args:
            objects: How many this one has.
        """
        if self.named is None:
            return {"base": self.number, "whole": objects}
        since = (self.number,) if self.folds else (*self.since, self.number)
        return {"base": self.base, "since": since, "changed": self.changed + objects, "whole": self.whole}

    def ledger(self, destination: ObjectStore) -> Ledger:
        """Its ledger."""
        return Ledger(destination, self.job, self.number, self.capabilities)


def _info(named: tuple[str, str, int, float]) -> ObjectInfo:
    key, etag, size, modified = named
    return ObjectInfo(unquote(key, errors="surrogateescape"), size, etag, datetime.fromtimestamp(modified, UTC))


def _named(info: ObjectInfo) -> tuple[str, str, int, float]:
    # Quoted, for names of files may be no Unicode, which JSON has to be.
    return quote(info.key, errors="surrogateescape"), info.etag, info.size, info.modified.timestamp()


def load(destination: ObjectStore, job: str, number: int) -> Generation:
    """Read a generation.

    Raises:
        LedgerUnreadable: There is none, or it is not to be understood.
    """
    nothing = Capabilities(create_only=False, replace_if_match=False, metadata=False, sorted_listing=False)
    data = Ledger(destination, job, number, nothing).get("spec.json")
    if data is None:
        raise LedgerUnreadable(f"{destination.location} has no generation {number} of job {job}")
    try:
        return Generation.model_validate_json(data)
    except ValidationError as error:
        raise LedgerUnreadable(f"generation {number} of job {job} is of another version of FaceBlur") from error


def latest(destination: ObjectStore, job: str) -> Generation | None:
    """The last generation of a job; None: there is no such job, nor perhaps the folder that it would be in."""
    try:
        number = last_generation(destination, job)
    except LocationNotFound:
        return None
    return None if number is None else load(destination, job, number)


def is_complete(ledger: Ledger) -> bool:
    """Whether every object has an outcome and the manifest is closed."""
    return ledger.get("root.json") is not None


@dataclass(frozen=True, slots=True)
class Next:
    """What asking for a job leads to.

    Attributes:
        generation: That is worked on.
        found: It exists already.
        outdated: An unfinished one that it replaces.
    """

    generation: Generation
    found: bool = False
    outdated: Generation | None = None


def decide(
    spec: JobSpec,
    destination: ObjectStore,
    info: faceblur.ServerInfo,
    capabilities: Capabilities,
    now: datetime,
    *,
    named: Sequence[ObjectInfo] | None = None,
    resume: bool = True,
) -> Next:
    """Find the generation to go on with, or describe the one to begin. Nothing is written.

    Args:
        spec: What is asked for.
        destination: Has the ledger.
        info: Of the workers.
        capabilities: Of the destination.
        now: The time.
        named: Look at these objects only, if there is a generation to go by that has looked at everything.
        resume: Go on also with one that was cancelled or stopped, rather than begin the next for another token.

    Raises:
        Unsupported: The destination cannot keep what is needed.
        LedgerUnreadable: There is a ledger of another version.
    """
    for able, what in (
        (capabilities.metadata, "metadata beside an object"),
        (capabilities.sorted_listing, "a sorted listing"),
    ):
        if not able:
            raise Unsupported(f"{destination.location} has no {what}, and a batch needs it")
    resolved = _resolved(spec.asked_options(), info.defaults)
    options_sha256, models = fingerprint(resolved), {model.sha256: model.name for model in info.models}
    last = latest(destination, spec.id)
    chain: dict[str, Any] = {"base": None}
    complete = True
    if last is not None:
        root = last.ledger(destination).get("root.json")
        complete = root is not None
        same = last.options_sha256 == options_sha256
        if complete and spec.token and spec.token == last.spec.token:
            return Next(last, found=True)
        given_up = not (resume or complete) and spec.token != last.spec.token and _is_given_up(last, destination)
        if not complete and same and last.models == models and not given_up:
            return Next(last, found=True)
        if root is not None and same and not spec.check:
            chain = last.chain(json.loads(root)["summary"]["objects"])
    if chain["base"] is None or chain.get("changed", 0) > max(MOST_CHANGED, chain["whole"] // 10):
        named = None
    generation = Generation(
        job=spec.id,
        number=1 if last is None else last.number + 1,
        spec=spec,
        resolved=resolved,
        options_sha256=options_sha256,
        models=models,
        version=info.version,
        max_bytes=_max_bytes(info),
        # Nobody reads a long manifest for a few objects.
        check=spec.check or not complete or named is not None,
        named=None if named is None else tuple(map(_named, sorted(named, key=lambda info: order(info.key)))),
        capabilities=capabilities,
        created=now,
        **chain,
    )
    return Next(generation, outdated=None if complete else last)


def begin(
    spec: JobSpec,
    destination: ObjectStore,
    info: faceblur.ServerInfo,
    capabilities: Capabilities,
    now: datetime,
    *,
    resume: bool = False,
    named: Sequence[ObjectInfo] | None = None,
) -> tuple[Generation, Ledger]:
    """Go on with the last generation of a job, if that is what is asked for, or begin the next.

    Args:
        spec: See `decide`.
        destination: See `decide`.
        info: See `decide`.
        capabilities: See `decide`.
        now: See `decide`.
        resume: Go on also if the generation was cancelled or stopped.
        named: See `decide`.

    Raises:
        Unsupported: See `decide`.
        LedgerUnreadable: See `decide`.
    """
    while True:
        found = decide(spec, destination, info, capabilities, now, named=named, resume=resume)
        generation = found.generation
        ledger = generation.ledger(destination)
        if found.found:
            _wake(ledger, resume=resume)
            return generation, ledger
        if found.outdated is not None:
            outdated = found.outdated.ledger(destination)
            outdated.set_mark(Mark(State.SUPERSEDED, f"by generation {generation.number}"))
        try:
            ledger.create("spec.json", dump_json(generation.model_dump(mode="json")))
        except AlreadyExists:
            continue  # somebody else began it
        return generation, ledger


def _is_given_up(generation: Generation, destination: ObjectStore) -> bool:
    """Whether an unfinished generation was ended by a person or a budget, and not only interrupted."""
    return generation.ledger(destination).mark().state in (State.CANCEL, State.STOP)


def _wake(ledger: Ledger, *, resume: bool) -> None:
    """A planner that ended has suspended the generation; what a person has stopped, only a person wakes."""
    state = ledger.mark().state
    if state is State.SUSPEND or (resume and state is not State.RUN):
        ledger.set_mark(Mark())


def _resolved(asked: faceblur.Options, defaults: faceblur.Options) -> dict[str, Any]:
    """The options with the server's defaults filled in, as JSON-compatible values in one way of writing them."""
    given = {f.name: value for f in dataclasses.fields(asked) if (value := getattr(asked, f.name)) is not None}
    if asked.profile not in (None, defaults.profile):
        defaults = dataclasses.replace(defaults, margin=None)  # what the server tells is that of its default profile
    if asked.limits is not None and defaults.limits is not None:
        limits = {f.name: v for f in dataclasses.fields(asked.limits) if (v := getattr(asked.limits, f.name))}
        given["limits"] = dataclasses.replace(defaults.limits, **limits)
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.replace(defaults, **given).as_dict()))
    return values


def _max_bytes(info: faceblur.ServerInfo) -> int:
    limits = info.defaults.limits
    return (limits and limits.max_bytes) or 1 << 40
