"""FaceBlur: the client SDK.

`FaceBlurClient` and `AsyncFaceBlurClient` send pictures to FaceBlur workers and bring them back with the faces
obscured. What is public is what is listed here, and `faceblur.testing`; modules whose name begins with an underscore
can change at any time. Everything is imported when it is first used, since the command line wants only the version.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ._version import __version__

if TYPE_CHECKING:
    from ._client import AsyncFaceBlurClient, FaceBlurClient
    from ._config import KeepaliveConfig, RetryConfig, TlsConfig
    from ._errors import (
        AccessDeniedError,
        ClientClosedError,
        DeadlineExceededError,
        DeadlineTooShortError,
        EmptyImageError,
        FaceBlurError,
        InvalidImageError,
        InvalidOptionsError,
        LimitExceededError,
        MessageTooLargeError,
        ModelUnusableError,
        MultipleFramesError,
        OverloadedError,
        ProtocolError,
        RuntimeUnavailableError,
        ServerError,
        TransientError,
        UnavailableError,
        UnreadableImageError,
        UnsupportedFormatError,
        VerificationFailedError,
    )
    from ._types import (
        BlurResult,
        Box,
        Face,
        Format,
        Keep,
        Limits,
        Margin,
        Method,
        ModelInfo,
        Options,
        Outcome,
        Profile,
        Receipt,
        Region,
        ServerInfo,
        Shape,
        Source,
    )

__all__ = [
    "AccessDeniedError",
    "AsyncFaceBlurClient",
    "BlurResult",
    "Box",
    "ClientClosedError",
    "DeadlineExceededError",
    "DeadlineTooShortError",
    "EmptyImageError",
    "Face",
    "FaceBlurClient",
    "FaceBlurError",
    "Format",
    "InvalidImageError",
    "InvalidOptionsError",
    "Keep",
    "KeepaliveConfig",
    "LimitExceededError",
    "Limits",
    "Margin",
    "MessageTooLargeError",
    "Method",
    "ModelInfo",
    "ModelUnusableError",
    "MultipleFramesError",
    "Options",
    "Outcome",
    "OverloadedError",
    "Profile",
    "ProtocolError",
    "Receipt",
    "Region",
    "RetryConfig",
    "RuntimeUnavailableError",
    "ServerError",
    "ServerInfo",
    "Shape",
    "Source",
    "TlsConfig",
    "TransientError",
    "UnavailableError",
    "UnreadableImageError",
    "UnsupportedFormatError",
    "VerificationFailedError",
    "__version__",
]


def __getattr__(name: str) -> object:
    if name in __all__:
        for module in ("._types", "._config", "._errors", "._client"):  # the cheap ones first
            found = importlib.import_module(module, __name__)
            if name in vars(found):
                return globals().setdefault(name, vars(found)[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
