"""What the worker refuses by itself, beside what the engine refuses.

The tree, each leaf with its ``reason`` of the contract (errors.proto)::

    Refusal
    ├── Overloaded           OVERLOADED             as much is waiting as is taken in
    ├── DeadlineTooShort     DEADLINE_TOO_SHORT     the work would not be done in time, so it is not begun
    ├── DeadlinePassed       DEADLINE_EXCEEDED      the time was up while the picture waited or was worked on
    │   └── Stalled          DEADLINE_EXCEEDED      the client did not send or take a message in time
    ├── ShuttingDown         SHUTTING_DOWN          the process is about to end
    ├── MalformedUpload      MALFORMED_UPLOAD       parts of an upload are missing, out of order or of a wrong length
    ├── ResultTooLarge       MESSAGE_TOO_LARGE      the result does not fit into one message
    └── IdentityNotAllowed   IDENTITY_NOT_ALLOWED   the client's certificate is not on the list
"""

from __future__ import annotations

from typing import ClassVar


class Refusal(Exception):
    """A call, or one picture of a stream, that gets no result although the engine did not refuse it.

    Attributes:
        retry_after: Seconds after which the same call may succeed. None: it will not, or not here.
    """

    reason: ClassVar[str]

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Overloaded(Refusal):
    """As much is waiting as the worker takes in."""

    reason = "OVERLOADED"


class DeadlineTooShort(Refusal):
    """The work would not be done before the deadline of the call."""

    reason = "DEADLINE_TOO_SHORT"


class DeadlinePassed(Refusal):
    """The deadline passed while the picture waited or was worked on."""

    reason = "DEADLINE_EXCEEDED"


class Stalled(DeadlinePassed):
    """The client did not send or take a message within the time for it; nothing more can be sent."""


class ShuttingDown(Refusal):
    """The process is about to end."""

    reason = "SHUTTING_DOWN"


class MalformedUpload(Refusal):
    """Parts of an upload are missing, out of order or not as long as announced."""

    reason = "MALFORMED_UPLOAD"


class ResultTooLarge(Refusal):
    """The result does not fit into one message."""

    reason = "MESSAGE_TOO_LARGE"


class IdentityNotAllowed(Refusal):
    """The client's certificate names nobody on the list."""

    reason = "IDENTITY_NOT_ALLOWED"
