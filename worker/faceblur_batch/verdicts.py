"""From an error to what it means for the picture and for its page: the one table.

=============  ========================================================================================
a verdict      and what follows
=============  ========================================================================================
`Outcome`      final: the picture is at fault, or its object; trying again gives the same
`SUSPECT`      the picture may be at fault: it is tried again alone, a few times
`TROUBLE`      the surroundings are at fault: the page is left and tried again later
`HOPELESS`     no picture of this generation can be done: it is stopped
=============  ========================================================================================
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TypeAlias

from faceblur import (
    DeadlineExceededError,
    FaceBlurError,
    InvalidImageError,
    InvalidOptionsError,
    MessageTooLargeError,
    ModelUnusableError,
    RuntimeUnavailableError,
    ServerError,
    UnavailableError,
    VerificationFailedError,
)

from .errors import (
    AccessDenied,
    KeyRefused,
    NotFound,
    ObjectChanged,
    StorageError,
    StorageFailure,
    TransientStorageError,
)
from .outcomes import DIED, Kind, Outcome, refusal


class Verdict(Enum):
    """What an error means, where it is not an outcome."""

    SUSPECT = auto()
    TROUBLE = auto()
    HOPELESS = auto()


Judgement: TypeAlias = "Outcome | Verdict"

UNAVAILABLE = "UNAVAILABLE"
DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"

# The first row that fits holds. What is in none of them is trouble.
_FINAL: tuple[tuple[type[Exception], Kind], ...] = (
    (InvalidImageError, Kind.REFUSED),
    (VerificationFailedError, Kind.REFUSED),
    (MessageTooLargeError, Kind.REFUSED),
    (NotFound, Kind.CHANGED),
    (ObjectChanged, Kind.CHANGED),
    (KeyRefused, Kind.FAILED),
)
_OTHERS: tuple[tuple[type[Exception], Verdict], ...] = (
    (InvalidOptionsError, Verdict.HOPELESS),
    (ModelUnusableError, Verdict.TROUBLE),
    (RuntimeUnavailableError, Verdict.TROUBLE),
    (ServerError, Verdict.SUSPECT),
    (UnavailableError, Verdict.SUSPECT),
    (DeadlineExceededError, Verdict.SUSPECT),
    (AccessDenied, Verdict.SUSPECT),  # of this object, perhaps
    (StorageFailure, Verdict.SUSPECT),
    (TransientStorageError, Verdict.SUSPECT),
)


def judge(error: Exception) -> Judgement:
    """Say what an error means."""
    for kind, becomes in _FINAL:
        if isinstance(error, kind):
            return refusal(becomes, reason_of(error), _message(error))
    return next((verdict for kind, verdict in _OTHERS if isinstance(error, kind)), Verdict.TROUBLE)


def given_up(reason: str, message: object, attempts: int) -> Outcome:
    """The outcome of a picture that was tried alone as often as is allowed.

    Args:
        reason: Of the last attempt.
        message: Of the last attempt.
        attempts: How many there were.
    """
    kills = reason in (DIED, UNAVAILABLE, DEADLINE_EXCEEDED)
    kind = Kind.QUARANTINED if kills else Kind.FAILED
    what = "it took what worked on it with it" if reason == DIED else str(message)
    return refusal(kind, reason, f"tried alone {attempts} times: {what}")


def reason_of(error: Exception) -> str:
    """The stable name of an error."""
    if isinstance(error, StorageError):
        return error.reason
    if isinstance(error, FaceBlurError) and error.reason:
        return error.reason
    names = {UnavailableError: UNAVAILABLE, DeadlineExceededError: DEADLINE_EXCEEDED, MessageTooLargeError: "TOO_LARGE"}
    return next((name for kind, name in names.items() if isinstance(error, kind)), "ERROR")


def _message(error: Exception) -> str:
    return str(error.args[0]) if error.args else type(error).__name__
