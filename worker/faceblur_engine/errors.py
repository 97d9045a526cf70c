"""What the engine refuses, and why.

The tree, each leaf with the stable ``reason`` that receipts, reports and the gRPC contract carry::

    EngineError
    ├── InvalidOptions          INVALID_OPTIONS
    ├── ModelError              MODEL_UNUSABLE        a model's file is missing or is not the pinned one
    ├── RuntimeUnavailable      RUNTIME_UNAVAILABLE   the asked-for inference runtime cannot run here
    ├── VerificationFailed      VERIFICATION_FAILED   a face is still found in the result
    └── ImageError              (the picture is at fault; never retried)
        ├── EmptyImage          EMPTY_IMAGE
        ├── UnsupportedFormat   UNSUPPORTED_FORMAT
        ├── UnreadableImage     UNREADABLE_IMAGE      truncated, corrupt, lies about itself
        ├── MultipleFrames      MULTIPLE_FRAMES       animated, or more than one page
        └── LimitExceeded       LIMIT_EXCEEDED        names the limit, the value and what is allowed

Messages are sentences for a person: what happened and what to do. They never hold picture content,
coordinates of faces or the picture's metadata.
"""

from __future__ import annotations

from typing import ClassVar


class EngineError(Exception):
    """Anything for which the engine returns no picture."""

    reason: ClassVar[str] = "ENGINE_ERROR"


class InvalidOptions(EngineError):
    """An option is out of its range, or two contradict each other."""

    reason = "INVALID_OPTIONS"


class ModelError(EngineError):
    """A model's file is missing or its SHA-256 is not the pinned one."""

    reason = "MODEL_UNUSABLE"


class RuntimeUnavailable(EngineError):
    """The inference runtime that was asked for is not installed or cannot run the model."""

    reason = "RUNTIME_UNAVAILABLE"


class VerificationFailed(EngineError):
    """The detector still finds a face outside the obscured regions of the result."""

    reason = "VERIFICATION_FAILED"


class ImageError(EngineError):
    """The picture itself cannot be processed; trying again gives the same answer."""

    reason = "IMAGE_ERROR"


class EmptyImage(ImageError):
    """There are no bytes."""

    reason = "EMPTY_IMAGE"


class UnsupportedFormat(ImageError):
    """The content is of no format that the engine decodes, whatever the file is called."""

    reason = "UNSUPPORTED_FORMAT"


class UnreadableImage(ImageError):
    """The content starts like a picture but is truncated or corrupt."""

    reason = "UNREADABLE_IMAGE"


class MultipleFrames(ImageError):
    """The file is animated or has several pages, and only all of them or none may be published."""

    reason = "MULTIPLE_FRAMES"


class LimitExceeded(ImageError):
    """The header announces more than a limit allows; nothing was decoded.

    Attributes:
        limit: The name of the limit, a field of `Limits`.
        value: What the picture has.
        allowed: What the limit allows.
    """

    reason = "LIMIT_EXCEEDED"

    def __init__(self, limit: str, value: int, allowed: int) -> None:
        kind = limit.removeprefix("max_")
        sides = {"width": f"is {value} pixels wide", "height": f"is {value} pixels high"}
        super().__init__(f"the picture {sides.get(kind, f'has {value} {kind}')}, more than the limit {limit}={allowed}")
        self.limit = limit
        self.value = value
        self.allowed = allowed
