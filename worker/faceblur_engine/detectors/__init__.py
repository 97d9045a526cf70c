"""Detectors, one per profile.

Use `create_detector`; the modules are imported only when their profile is asked for.
"""

from __future__ import annotations

from ..errors import InvalidOptions
from ..types import Margin, Profile
from .base import Detector

RUNTIMES = ("auto", "openvino", "onnxruntime", "litert", "mediapipe")

__all__ = ["RUNTIMES", "Detector", "create_detector", "default_margin"]


def create_detector(profile: Profile, *, runtime: str = "auto", threads: int = 1, concurrency: int = 1) -> Detector:
    """Load what a profile needs.

    Args:
        profile: Which one.
        runtime: One of `RUNTIMES`. ``auto``: OpenVINO, or the fallback where it cannot be loaded.
        threads: Threads that one call uses for inference.
        concurrency: How many calls run at once.

    Raises:
        InvalidOptions: There is no such runtime.
        RuntimeUnavailable: The runtime is not installed or cannot run the profile's model.
        ModelError: A model's file is not the pinned one.
    """
    if runtime not in RUNTIMES:
        raise InvalidOptions(f"there is no runtime {runtime!r}; choose one of {', '.join(RUNTIMES)}")
    if profile is Profile.FAST:
        from .blazeface import BlazeFaceDetector, MediaPipeDetector

        if runtime == "mediapipe":
            return MediaPipeDetector()
        return BlazeFaceDetector(runtime=runtime, threads=threads, concurrency=concurrency)
    from .centerface import BALANCED, THOROUGH, CenterFaceDetector

    scheme = BALANCED if profile is Profile.BALANCED else THOROUGH
    return CenterFaceDetector(scheme, runtime=runtime, threads=threads, concurrency=concurrency)


def default_margin(profile: Profile) -> Margin:
    """Return the margin that a profile's detector has, without loading its model."""
    if profile is Profile.FAST:
        from . import blazeface

        return blazeface.MARGIN
    from . import centerface

    return (centerface.BALANCED if profile is Profile.BALANCED else centerface.THOROUGH).margin
