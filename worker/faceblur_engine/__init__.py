"""The engine: encoded pictures in, encoded pictures with obscured faces and a receipt out.

    from faceblur_engine import Engine, Options

    engine = Engine()
    result = engine.redact(data, Options(method="mosaic"))

`types` has what may be asked for, `errors` what is refused. Importing this package is cheap; the first use of
`Engine` loads NumPy, OpenCV and the inference runtime.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .types import (
    Box,
    Face,
    Format,
    Keep,
    Limits,
    Margin,
    Method,
    ModelInfo,
    Options,
    Profile,
    Receipt,
    Region,
    Result,
    Shape,
)

if TYPE_CHECKING:
    from .pipeline import Engine

__all__ = [
    "Box",
    "Engine",
    "Face",
    "Format",
    "Keep",
    "Limits",
    "Margin",
    "Method",
    "ModelInfo",
    "Options",
    "Profile",
    "Receipt",
    "Region",
    "Result",
    "Shape",
]


def __getattr__(name: str) -> Any:
    if name == "Engine":
        from .pipeline import Engine

        return Engine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
