"""The way of a picture: decode, detect, plan regions, redact, encode.

Pure: bytes in, bytes and a receipt out; no network, no files (the models apart), no clock but a monotonic one. On
any error nothing is returned, so a caller cannot publish a picture that was not fully processed.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection
from contextlib import contextmanager
from importlib.metadata import version
from types import MappingProxyType
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from . import codec
from .detectors import Detector, create_detector
from .detectors.boxes import merge, of_faces, to_faces
from .errors import InvalidOptions, VerificationFailed
from .redaction import draw_contours, redact
from .regions import covered_share, plan_regions
from .types import Face, Format, Limits, ModelInfo, Options, Profile, Receipt, Region, Result

if TYPE_CHECKING:
    from collections.abc import Iterator

SAME_FACE_IOU = 0.4
FOUND_AGAIN = 0.5
"""`Options.verify`: a face found in the result counts as missed if less than this share of its box is obscured.
The obscured areas themselves often look like a face to the detector, and its box may reach past them."""

_UNLIMITED = Limits(*[2**62] * 5)


class _Stages:
    """Measures the stages of one call and lets the caller stop it between two of them."""

    def __init__(self, checkpoint: Callable[[], None] | None) -> None:
        self._checkpoint = checkpoint
        self._start = time.perf_counter()
        self.milliseconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        if self._checkpoint is not None:
            self._checkpoint()
        start = time.perf_counter()
        yield
        self.milliseconds[name] = round((time.perf_counter() - start) * 1000, 3)

    def finish(self) -> MappingProxyType[str, float]:
        self.milliseconds["total"] = round((time.perf_counter() - self._start) * 1000, 3)
        return MappingProxyType(self.milliseconds)


class Engine:
    """Obscures faces in encoded pictures.

    Loading takes a good part of a second, a call milliseconds: make one and keep it. All methods may be called by
    several threads at once.

    Attributes:
        models: Every loaded model.
    """

    def __init__(
        self,
        *,
        profiles: Collection[Profile] = (Profile.BALANCED,),
        runtime: str = "auto",
        threads: int = 1,
        concurrency: int = 1,
    ) -> None:
        """Load the models of the given profiles.

        Args:
            profiles: What `Options.profile` may ask for.
            runtime: One of `detectors.RUNTIMES`; see `detectors.create_detector`.
            threads: Threads that the inference of one call uses.
            concurrency: How many calls run at once without waiting for one another.

        Raises:
            InvalidOptions: There is no such runtime.
            RuntimeUnavailable: The runtime is not installed or cannot run a profile's model.
            ModelError: A model's file is not the pinned one.
        """
        # One picture is one thread's work; OpenCV would start a thread per core, whatever the cgroup grants.
        cv2.setNumThreads(1)
        self._detectors: dict[Profile, Detector] = {
            profile: create_detector(profile, runtime=runtime, threads=threads, concurrency=concurrency)
            for profile in dict.fromkeys(profiles)
        }
        self._version = version("faceblur")
        self.models: tuple[ModelInfo, ...] = tuple(
            dict.fromkeys(model for detector in self._detectors.values() for model in detector.models)
        )

    def redact(
        self, data: bytes, options: Options | None = None, *, checkpoint: Callable[[], None] | None = None
    ) -> Result:
        """Obscure the faces of one picture.

        Args:
            data: An encoded picture.
            options: What to do; the defaults are the recommended settings.
            checkpoint: Called before each stage; what it raises ends the call.

        Raises:
            ImageError: The picture is refused; the subclass says why.
            VerificationFailed: With `Options.verify`, a face was still found.
            InvalidOptions: The profile is not loaded.
        """
        options = options or Options()
        stages = _Stages(checkpoint)
        picture, faces, regions, detector = self._find(data, options, stages)
        with stages.stage("redact"):
            cmyk = picture.mode == "CMYK"
            redact(picture.pixels, regions, options, cmyk=cmyk)
            if options.contour:
                draw_contours(picture.pixels, regions, cmyk=cmyk)
        with stages.stage("encode"):
            image, output_format = codec.encode(picture, options)
        if options.verify:
            with stages.stage("verify"):
                self._verify(image, options, regions, detector)
        height, width = picture.pixels.shape[:2]
        return Result(
            image,
            self._receipt(
                data, options, stages, picture.format, (width, height), faces, regions, detector, image, output_format
            ),
        )

    def detect(
        self, data: bytes, options: Options | None = None, *, checkpoint: Callable[[], None] | None = None
    ) -> Receipt:
        """Find the faces of one picture and plan what would be obscured; arguments and errors as for `redact`."""
        options = options or Options()
        stages = _Stages(checkpoint)
        picture, faces, regions, detector = self._find(data, options, stages)
        height, width = picture.pixels.shape[:2]
        return self._receipt(data, options, stages, picture.format, (width, height), faces, regions, detector)

    def _find(
        self, data: bytes, options: Options, stages: _Stages
    ) -> tuple[codec.Picture, list[Face], tuple[Region, ...], Detector]:
        detector = self._detectors.get(options.profile)
        if detector is None:
            loaded = ", ".join(self._detectors)
            raise InvalidOptions(f"the profile {options.profile} is not loaded here; loaded: {loaded}")
        with stages.stage("decode"):
            picture = codec.decode(data, options.limits)
        with stages.stage("detect"):
            faces = self._faces(picture, options, detector)
        height, width = picture.pixels.shape[:2]
        regions = plan_regions(
            faces,
            options,
            margin=options.margin or detector.margin,
            shape=options.shape or detector.shape,
            width=width,
            height=height,
        )
        return picture, faces, regions, detector

    def _faces(self, picture: codec.Picture, options: Options, detector: Detector) -> list[Face]:
        faces: list[Face] = []
        views = picture.views()
        for view in views:
            faces += detector.detect(denoised(view, options.denoise), options.min_score)
        if len(views) > 1:
            faces = _unite(faces)
        largest = float("inf") if options.max_face is None else options.max_face
        return [face for face in faces if options.min_face <= max(face.box.w, face.box.h) <= largest]

    def _verify(self, image: bytes, options: Options, regions: tuple[Region, ...], detector: Detector) -> None:
        result = codec.decode(image, _UNLIMITED)
        height, width = result.pixels.shape[:2]
        missed = sum(
            covered_share(face.box, regions, width, height) < FOUND_AGAIN
            for face in self._faces(result, options, detector)
        )
        if missed:
            raise VerificationFailed(
                f"the result was checked and {missed} more {'face was' if missed == 1 else 'faces were'} found in it, "
                "so nothing is returned; try the thorough profile, a lower min_score, or give the regions yourself"
            )

    def _receipt(
        self,
        data: bytes,
        options: Options,
        stages: _Stages,
        source_format: Format,
        size: tuple[int, int],
        faces: list[Face],
        regions: tuple[Region, ...],
        detector: Detector,
        image: bytes = b"",
        output_format: Format | None = None,
    ) -> Receipt:
        return Receipt(
            version=self._version,
            input_sha256=hashlib.sha256(data).hexdigest(),
            output_sha256=hashlib.sha256(image).hexdigest() if image else None,
            input_bytes=len(data),
            output_bytes=len(image),
            format=source_format,
            output_format=output_format,
            width=size[0],
            height=size[1],
            faces=tuple(faces),
            regions=regions,
            models=detector.models,
            options=options.as_dict(),
            milliseconds=stages.finish(),
        )


def denoised(rgb: NDArray[np.uint8], strength: float) -> NDArray[np.uint8]:
    """Filter noise but not edges (a bilateral filter); detection only ever sees this, the result never does.

    Args:
        rgb: ``[height, width, 3]``.
        strength: 0 (returns ``rgb`` itself) to 20: differences below about 4 times this many grey levels are smoothed.
    """
    if strength == 0:
        return rgb
    filtered: NDArray[np.uint8] = cv2.bilateralFilter(rgb, 5, 4 * strength, 2)  # type: ignore[assignment]
    return filtered


def _unite(faces: list[Face]) -> list[Face]:
    """Merge what several views of one picture found."""
    if not faces:
        return faces
    return to_faces(merge(of_faces(faces), SAME_FACE_IOU), faces[0].model)
