"""A generation: one pass of a job over its source with one set of options, resolved and fixed when it begins."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

import faceblur

from .errors import AlreadyExists, BatchError, LocationNotFound, Unsupported
from .job import JobSpec, fingerprint, parse_options
from .ledger import Ledger, Mark, State, dump_json, generations
from .storage.keys import KeyMapping
from .storage.store import Capabilities, ObjectInfo, ObjectStore


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

    def ledger(self, destination: ObjectStore) -> Ledger:
        """Its ledger."""
        return Ledger(destination, self.job, self.number, self.capabilities)


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
        number = max(generations(destination, job), default=None)
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
    spec: JobSpec, destination: ObjectStore, info: faceblur.ServerInfo, capabilities: Capabilities, now: datetime
) -> Next:
    """Find the generation to go on with, or describe the one to begin. Nothing is written.

    Args:
        spec: What is asked for.
        destination: Has the ledger.
        info: Of the workers.
        capabilities: Of the destination.
        now: The time.

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
    base, complete = None, True
    if last is not None:
        complete = is_complete(last.ledger(destination))
        same = last.options_sha256 == options_sha256
        if complete and spec.token and spec.token == last.spec.token:
            return Next(last, found=True)
        if not complete and same and last.models == models:
            return Next(last, found=True)
        base = last.number if complete and same and not spec.check else None
    generation = Generation(
        job=spec.id,
        number=1 if last is None else last.number + 1,
        spec=spec,
        resolved=resolved,
        options_sha256=options_sha256,
        models=models,
        version=info.version,
        max_bytes=_max_bytes(info),
        check=spec.check or not complete,
        base=base,
        capabilities=capabilities,
        created=now,
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
) -> tuple[Generation, Ledger]:
    """Go on with the last generation of a job, if that is what is asked for, or begin the next.

    Args:
        spec: See `decide`.
        destination: See `decide`.
        info: See `decide`.
        capabilities: See `decide`.
        now: See `decide`.
        resume: Go on also if the generation was cancelled or stopped.

    Raises:
        Unsupported: See `decide`.
        LedgerUnreadable: See `decide`.
    """
    while True:
        found = decide(spec, destination, info, capabilities, now)
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
