"""What a batch is asked to do, and the two fingerprints that follow from it.

A *job* is where from, where to, which objects and how outputs are called: `JobSpec.id` stands for it. A *generation*
of it is one pass with one set of options, see `generation`.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

import faceblur

from .errors import InvalidLocation
from .storage.headers import HeaderPolicy
from .storage.keys import KeyMapping
from .storage.location import parse_location
from .storage.selection import Selection

_OPTIONS = TypeAdapter(faceblur.Options)
_NAMES = frozenset(faceblur.Options.__dataclass_fields__)
_NAME = r"[a-z0-9]([a-z0-9.-]{0,98}[a-z0-9])?"


def parse_options(values: dict[str, Any]) -> faceblur.Options:
    """Options from what `faceblur.Options.as_dict` returns, or from a part of it.

    Raises:
        ValueError: There is no such option, or it has no such value.
    """
    if unknown := sorted(values.keys() - _NAMES):
        raise ValueError(f"there is no option {', '.join(unknown)}")
    try:
        return _OPTIONS.validate_python(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(f"option {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _options(values: dict[str, Any]) -> dict[str, Any]:
    """Only what is asked for, in one way of writing it."""
    plain = json.loads(json.dumps(parse_options(values).as_dict()))
    return {name: value for name, value in plain.items() if value not in (None, [])}


class JobSpec(BaseModel):
    """What is asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(description="Where the pictures are: s3://bucket/prefix/ or a folder.")
    destination: str = Field(description="Where the results and the ledger go.")
    name: str = Field("", pattern=f"^({_NAME})?$", description="The job's id; empty: a fingerprint.")
    source_profile: str = Field("", description="Name of the source's storage profile.")
    destination_profile: str = Field("", description="Name of the destination's storage profile.")
    selection: Selection = Field(default_factory=Selection, description="Which objects.")
    template: str = Field(KeyMapping.template, description="What outputs are called: see `KeyMapping`.")
    headers: HeaderPolicy = Field(default_factory=HeaderPolicy, description="What is kept beside outputs.")
    options: Annotated[dict[str, Any], AfterValidator(_options)] = Field(
        default_factory=dict, description="What is asked of the workers, where their defaults do not do."
    )
    page_size: int = Field(1000, ge=1, le=10_000, description="Most objects that one task works on.")
    parallelism: int = Field(16, ge=1, le=10_000, description="Most pages that batch workers can work on at once.")
    attempts: int = Field(3, ge=1, le=100, description="Tries, alone, of a picture that takes workers with it.")
    max_errors: int | None = Field(None, ge=0, description="More objects without a result stop the job.")
    max_error_percent: float | None = Field(None, ge=0, le=100, description="The same, as a share of those looked at.")
    deadline_seconds: float | None = Field(None, gt=0, description="The job is stopped this long after it began.")
    check: bool = Field(False, description="Look at every output, also if the ledger says that it is there.")
    samples: int = Field(0, ge=0, le=100, description="Results that the report shows; they are copied into it.")
    token: str = Field("", max_length=200, description="One pass per token: a second run with it begins no new one.")

    @field_validator("source", "destination")
    @classmethod
    def _in_one_spelling(cls, value: str) -> str:
        try:
            return str(parse_location(value))
        except InvalidLocation as error:
            raise ValueError(str(error)) from None

    @field_validator("template")
    @classmethod
    def _usable(cls, value: str) -> str:
        KeyMapping(value)
        return value

    @property
    def id(self) -> str:
        """Under which the ledger has the job."""
        if self.name:
            return self.name
        same = self.model_dump(mode="json", include={"source", "destination", "selection", "template"})
        same["selection"]["suffixes"].sort()
        return fingerprint(same)[:16]

    def mapping(self) -> KeyMapping:
        """From the keys of objects to those of outputs."""
        return KeyMapping(self.template, self.options.get("format"))

    def asked_options(self) -> faceblur.Options:
        """What is asked of the workers."""
        return parse_options(self.options)


def fingerprint(value: Any) -> str:
    """SHA-256 in hexadecimal of a JSON-compatible value, whatever the order of its members."""
    return hashlib.sha256(json.dumps(value, separators=(",", ":"), sort_keys=True).encode()).hexdigest()
