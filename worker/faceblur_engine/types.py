"""The values that travel through the engine, and what a caller may ask for.

Coordinates are pixels of the *upright* picture (its EXIF orientation applied, which is what a viewer shows and
what the result has), origin at the top left corner, x to the right, y down. Arrays are ``[height, width, channels]``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from .errors import InvalidOptions


class Profile(StrEnum):
    """A measured point between speed and recall; docs/limits.md has the figures."""

    FAST = "fast"
    BALANCED = "balanced"
    THOROUGH = "thorough"


class Method(StrEnum):
    """How a face is obscured. All three are functions of the same few cells, see `redaction`."""

    BLUR = "blur"
    MOSAIC = "mosaic"
    SOLID = "solid"


class Shape(StrEnum):
    """The outline of an obscured region at full strength."""

    BOX = "box"
    ELLIPSE = "ellipse"
    ROUNDED = "rounded"


class Format(StrEnum):
    """The formats that pictures are read from and written to; HEIC is read only and leaves as JPEG."""

    JPEG = "jpeg"
    PNG = "png"
    WEBP = "webp"
    TIFF = "tiff"
    AVIF = "avif"
    HEIC = "heic"


class Keep(StrEnum):
    """Metadata that may be copied to the result. Everything else is dropped."""

    ICC = "icc"
    CAPTURE_TIME = "capture-time"
    GPS = "gps"
    AUTHOR = "author"
    COPYRIGHT = "copyright"


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-parallel rectangle in pixels of the upright picture; it may reach past the border."""

    x: float
    y: float
    w: float
    h: float


@dataclass(frozen=True, slots=True)
class Face:
    """One detected face.

    Attributes:
        box: The detector's box, without margin.
        score: The detector's confidence, 0 to 1. Not a probability.
        model: The name of the model that gave the higher score.
    """

    box: Box
    score: float
    model: str


@dataclass(frozen=True, slots=True)
class Region:
    """What is obscured at full strength: the margin is included, a blended rim is not.

    Attributes:
        box: The region's rectangle; an ellipse fills it.
        shape: Its outline.
        radius: Corner radius in pixels of a rounded region, otherwise 0.
    """

    box: Box
    shape: Shape = Shape.BOX
    radius: float = 0.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a picture may be, checked from its header before anything is decoded."""

    max_bytes: int = 64 * 1024 * 1024
    max_width: int = 20_000
    max_height: int = 20_000
    max_pixels: int = 100_000_000
    max_scans: int = 100


@dataclass(frozen=True, slots=True)
class Margin:
    """How far a region reaches past the face's box.

    Attributes:
        sides: Left and right, each as a share of the box's width.
        top: Above, as a share of the box's height.
        bottom: Below, as a share of the box's height; the largest, since labels and masks reach the chin.
        pixels: Added on all sides, in pixels of the picture: what a detector misjudges on small faces.
    """

    sides: float = 0.2
    top: float = 0.1
    bottom: float = 0.3
    pixels: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a caller may ask for. Every default is the recommended setting.

    Attributes:
        profile: How faces are searched for.
        min_score: Replaces the profile's own thresholds, 0 to 1.
        min_face: Faces whose longer side is shorter than this many pixels are left alone. 0: none are.
        max_face: Faces whose longer side is longer than this many pixels are left alone (a way to keep
            posters and statues out). None: none are.
        denoise: Strength of the noise filter before detection, 0 (off) to 20; the result's pixels are not filtered.
        method: How regions are filled.
        cells: Cells across the longer side of an obscured region, 1 to 8; fewer hide more.
        shape: Outline of the obscured regions. None: the profile's default.
        margin: Growth of the detector's boxes. None: the profile's measured default.
        feather: Width of the blended rim outside the region, as a share of the region's longer side, 0 to 0.5.
        color: RGB of `Method.SOLID`. None: the mean colour of the region.
        contour: Draw a line around each region (a reviewer's view).
        regions: Boxes that are obscured whatever the detector finds.
        verify: Detect again on the encoded result and fail if a face is found outside the regions.
        format: Format of the result. None: the source's (JPEG for HEIC).
        quality: Quality of a JPEG, WebP or AVIF result, 1 to 100. None: the source's own quantisation tables
            where a JPEG stays a JPEG, 90 otherwise.
        subsampling: Chroma subsampling of a JPEG result, "4:4:4", "4:2:2" or "4:2:0". None: the source's.
        keep: Metadata that is copied to the result.
        limits: What is refused unread.
    """

    profile: Profile = Profile.BALANCED
    min_score: float | None = None
    min_face: float = 0.0
    max_face: float | None = None
    denoise: float = 0.0
    method: Method = Method.BLUR
    cells: int = 8
    shape: Shape | None = None
    margin: Margin | None = None
    feather: float = 0.05
    color: tuple[int, int, int] | None = None
    contour: bool = False
    regions: tuple[Box, ...] = ()
    verify: bool = False
    format: Format | None = None
    quality: int | None = None
    subsampling: str | None = None
    keep: frozenset[Keep] = frozenset({Keep.ICC})
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        """Refuse what is out of range, naming the option, its value and the range."""

        def within(name: str, value: float | None, low: float, high: float) -> None:
            if value is not None and not low <= value <= high:
                raise InvalidOptions(f"{name} is {value}, it has to be between {low:g} and {high:g}")

        within("min_score", self.min_score, 0, 1)
        within("min_face", self.min_face, 0, 100_000)
        within("max_face", self.max_face, 1, 100_000)
        within("denoise", self.denoise, 0, 20)
        within("cells", self.cells, 1, 8)
        within("feather", self.feather, 0, 0.5)
        within("quality", self.quality, 1, 100)
        if self.margin is not None:
            for name in ("sides", "top", "bottom"):
                within(f"margin.{name}", getattr(self.margin, name), 0, 2)
            within("margin.pixels", self.margin.pixels, 0, 1000)
        for channel in self.color or ():
            within("color", channel, 0, 255)
        for box in self.regions:
            if not all(math.isfinite(value) for value in (box.x, box.y, box.w, box.h)):
                raise InvalidOptions("a region's position and size have to be finite numbers")
            if not (box.w > 0 and box.h > 0):
                raise InvalidOptions("a region's width and height have to be above 0")
        if self.max_face is not None and self.max_face < self.min_face:
            raise InvalidOptions(f"max_face {self.max_face:g} is below min_face {self.min_face:g}")
        if self.subsampling not in (None, "4:4:4", "4:2:2", "4:2:0"):
            raise InvalidOptions(f"subsampling is {self.subsampling!r}, it has to be 4:4:4, 4:2:2 or 4:2:0")
        if self.format is Format.HEIC:
            raise InvalidOptions("HEIC can be read but not written; choose jpeg, png, webp, tiff or avif")

    def as_dict(self) -> dict[str, Any]:
        """The options as JSON-compatible values, with sorted sets."""

        def plain(value: Any) -> Any:
            if dataclasses.is_dataclass(value) and not isinstance(value, type):
                return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
            if isinstance(value, frozenset):
                return sorted(value)
            if isinstance(value, tuple):
                return [plain(item) for item in value]
            return value

        return {f.name: plain(getattr(self, f.name)) for f in dataclasses.fields(self)}

    def fingerprint(self) -> str:
        """SHA-256 of the options: equal exactly when they ask for the same result."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model as it was used.

    Attributes:
        name: Its file's stem, such as ``centerface``.
        sha256: Of the file, verified when it was loaded.
        runtime: What ran it, such as ``openvino 2026.4.1 bf16``.
    """

    name: str
    sha256: str
    runtime: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was done to one picture; no picture content.

    Attributes:
        version: Of faceblur.
        input_sha256: Of the bytes that came in.
        output_sha256: Of the bytes that went out; None after a detection only.
        input_bytes: Length of the input.
        output_bytes: Length of the result; 0 after a detection only.
        format: Of the source.
        output_format: Of the result; None after a detection only.
        width: Of the upright picture, pixels.
        height: Of the upright picture, pixels.
        faces: As detected, in no particular order.
        regions: As obscured (or as they would have been).
        models: Every model that ran.
        options: `Options.as_dict()`.
        milliseconds: By stage: decode, detect, redact, encode, verify, total.
    """

    version: str
    input_sha256: str
    output_sha256: str | None
    input_bytes: int
    output_bytes: int
    format: Format
    output_format: Format | None
    width: int
    height: int
    faces: tuple[Face, ...]
    regions: tuple[Region, ...]
    models: tuple[ModelInfo, ...]
    options: Mapping[str, Any]
    milliseconds: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        """The receipt as JSON-compatible values."""
        plain = dataclasses.replace(self, options=dict(self.options), milliseconds=dict(self.milliseconds))
        return dataclasses.asdict(plain)


@dataclass(frozen=True, slots=True)
class Result:
    """An obscured picture, encoded, with its receipt."""

    image: bytes
    receipt: Receipt
