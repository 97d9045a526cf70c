"""Outputs: written once per identity, and recognised by their metadata.

The identity of an output is the ETag of its source, the fingerprint of the options and the models that ran. It is
kept beside the output, with what a receipt needs, so that whoever finds an output there can take it over as done.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import faceblur

from .errors import AlreadyExists, BatchError, NotFound, ObjectChanged, StorageError
from .generation import Generation
from .ledger import Entry, Ledger
from .outcomes import Kind, Outcome, refusal
from .storage.store import ObjectHeaders, ObjectInfo

TAKEN = "OUTPUT_TAKEN"
_ROUNDS = 5


class Superseded(BatchError):
    """A newer generation has been here: this one has nothing to say any more."""

    reason = "SUPERSEDED"


@dataclass(frozen=True, slots=True)
class Read:
    """What was read of a source's object.

    Attributes:
        sha256: Of its bytes, in hexadecimal.
        headers: Beside it.
    """

    sha256: str
    headers: ObjectHeaders


class Outputs:
    """Writes and recognises the outputs of a generation; may be used by several threads at once."""

    def __init__(self, generation: Generation, ledger: Ledger) -> None:
        self._generation = generation
        self._ledger = ledger

    def write(self, entry: Entry, source: Read, result: faceblur.BlurResult) -> Outcome:
        """Write an output, unless it is there.

        Args:
            entry: The object that it was made of.
            source: What was read of it.
            result: What the workers made of it.

        Raises:
            StorageError: It could not be written.
            Superseded: A newer generation of the job has written it.
            faceblur.ProtocolError: The receipt is not about this picture and this result, or nothing was obscured.
        """
        receipt = result.receipt
        # The receipt goes into an audit trail, so it is not taken on trust.
        digest = hashlib.sha256(result.image).hexdigest()
        if (source.sha256, digest) != (receipt.input_sha256, receipt.output_sha256) or receipt.output_format is None:
            raise faceblur.ProtocolError("a receipt is not about this picture and this result")
        if receipt.faces and digest == source.sha256:
            raise faceblur.ProtocolError("a picture with faces came back as it was")
        outcome = Outcome(
            kind=Kind.BLURRED if receipt.faces else Kind.NO_FACE,
            input_sha256=receipt.input_sha256,
            output_sha256=digest,
            output_bytes=len(result.image),
            faces=len(receipt.faces),
            models=tuple(sorted({model.sha256 for model in receipt.models})),
            version=receipt.version,
            milliseconds=round(receipt.milliseconds.get("total", 0.0), 2),
        )
        key = self._generation.output_key(entry.key)
        own = _metadata(self._generation, entry, outcome)
        headers = self._generation.spec.headers.headers(receipt.output_format, source.headers, own)
        writer = self._ledger.writer
        for _ in range(_ROUNDS):
            try:
                writer.create(key, result.image, headers)
                return outcome
            except AlreadyExists:
                pass
            try:
                found = self._ledger.store.head(key)
                if (settled := self._adopted(entry, found)) is not None:
                    return settled
                writer.replace(key, result.image, headers, found.etag)
                return outcome
            except (NotFound, ObjectChanged):
                continue
        raise StorageError(f"an output was changed by others {_ROUNDS} times while it was written")

    def existing(self, entry: Entry) -> Outcome | None:
        """The outcome of an object whose output is there; None: it has to be made.

        Raises:
            StorageError: It cannot be found out.
            Superseded: A newer generation of the job has written it.
        """
        try:
            found = self._ledger.store.head(self._generation.output_key(entry.key))
        except NotFound:
            return None
        return self._adopted(entry, found)

    def _adopted(self, entry: Entry, found: ObjectInfo) -> Outcome | None:
        """What an object at the output's key means; None: it is ours and outdated.

        Raises:
            Superseded: It is of a newer generation.
        """
        has = found.headers.metadata if found.headers else {}
        if not has.keys() >= _NAMES:
            return refusal(Kind.FAILED, TAKEN, "something that is not an output of FaceBlur is at the output's key")
        mine, generation = self._generation, int(has["faceblur-generation"])
        own = has["faceblur-job"] == mine.job
        if own and generation > mine.number:
            raise Superseded(f"generation {generation} has begun")
        models = tuple(has["faceblur-models"].split(","))
        same = (has["faceblur-etag"], has["faceblur-options"]) == (_safe(entry.etag), mine.options_sha256)
        now = own and generation == mine.number
        if not same or not (now or set(models) <= mine.models.keys()):
            return None
        faces = int(has["faceblur-faces"])
        kind = Kind.UNCHANGED if not now else Kind.BLURRED if faces else Kind.NO_FACE
        return Outcome(
            kind=kind,
            input_sha256=has["faceblur-input-sha256"],
            output_sha256=has["faceblur-output-sha256"],
            output_bytes=found.size,
            faces=faces,
            models=models,
            version=has["faceblur-version"],
        )


_NAMES = frozenset(
    f"faceblur-{name}"
    for name in ("etag", "faces", "generation", "input-sha256", "job", "models", "options", "output-sha256", "version")
)


def _metadata(generation: Generation, entry: Entry, outcome: Outcome) -> dict[str, str]:
    return {
        "faceblur-etag": _safe(entry.etag),
        "faceblur-faces": str(outcome.faces),
        "faceblur-generation": str(generation.number),
        "faceblur-input-sha256": outcome.input_sha256,
        "faceblur-job": generation.job,
        "faceblur-models": ",".join(outcome.models),
        "faceblur-options": generation.options_sha256,
        "faceblur-output-sha256": outcome.output_sha256,
        "faceblur-version": outcome.version,
    }


def _safe(etag: str) -> str:
    """An ETag as every store gives it back: printable ASCII, without the quotes around it."""
    return "".join(
        c if c.isascii() and c.isprintable() and c not in '"\\' else f"%{ord(c):02x}" for c in etag.strip('"')
    )
