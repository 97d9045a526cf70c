"""The values that go into and come out of the clients.

They mirror the values of the engine, but the SDK is installed without it. Coordinates are pixels of the *upright*
picture (its EXIF orientation applied, which is what a viewer shows and what the result has), origin at the top left
corner, x to the right, y down.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    from ._errors import FaceBlurError


class BinaryFile(Protocol):
    """A file that was opened for reading bytes; it is read from its position to its end and not closed."""

    def read(self) -> bytes:
        """Return all bytes that are left."""
        ...


Source: TypeAlias = bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryFile
"""A picture: its encoded bytes, the path of its file (a `str` is always a path), or an open binary file."""
SourceT = TypeVar("SourceT", bound=Source)


class Profile(StrEnum):
    """How faces are searched for: a measured point between speed and recall."""

    FAST = "fast"
    BALANCED = "balanced"
    THOROUGH = "thorough"


class Method(StrEnum):
    """How an obscured region is filled."""

    BLUR = "blur"
    MOSAIC = "mosaic"
    SOLID = "solid"


class Shape(StrEnum):
    """The outline of an obscured region at full strength."""

    BOX = "box"
    ELLIPSE = "ellipse"
    ROUNDED = "rounded"


class Format(StrEnum):
    """A picture's file format; HEIC is read only and leaves as JPEG."""

    JPEG = "jpeg"
    PNG = "png"
    WEBP = "webp"
    TIFF = "tiff"
    AVIF = "avif"
    HEIC = "heic"


class Keep(StrEnum):
    """Metadata of the source that may be copied to the result. Everything else is dropped."""

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
        model: The name of the model that gave the score.
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
    shape: Shape
    radius: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a picture may be. These can only tighten the limits of the server; None: the server's.

    Attributes:
        max_bytes: Length of the encoded picture.
        max_width: Pixels.
        max_height: Pixels.
        max_pixels: Width times height.
        max_scans: Scans of a progressive JPEG.
    """

    max_bytes: int | None = None
    max_width: int | None = None
    max_height: int | None = None
    max_pixels: int | None = None
    max_scans: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Margin:
    """How far a region reaches past the face's box.

    Attributes:
        sides: Left and right, each as a share of the box's width, 0 to 2.
        top: Above, as a share of the box's height, 0 to 2.
        bottom: Below, as a share of the box's height, 0 to 2.
        pixels: Added on all sides, in pixels of the picture, 0 to 1000.
    """

    sides: float
    top: float
    bottom: float
    pixels: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a caller may ask for. None means the server's default, which `FaceBlurClient.info` tells.

    Ranges are checked by the server, which answers with `InvalidOptionsError`.

    Attributes:
        profile: How faces are searched for.
        min_score: Replaces the profile's own thresholds, 0 to 1.
        min_face: Faces whose longer side is shorter than this many pixels are left alone.
        max_face: Faces whose longer side is longer than this many pixels are left alone.
        denoise: Strength of the noise filter before detection, 0 (off) to 20; the result's pixels are not filtered.
        method: How regions are filled.
        cells: Cells across the longer side of an obscured region, 1 to 8; fewer hide more.
        shape: Outline of the obscured regions.
        margin: Growth of the detector's boxes.
        feather: Width of the blended rim outside the region, as a share of the region's longer side, 0 to 0.5.
        color: RGB of `Method.SOLID`, 0 to 255 each; None may also mean the mean colour of the region.
        contour: Draw a line around each region (a reviewer's view).
        regions: Boxes that are obscured whatever the detector finds.
        verify: Detect again on the encoded result and fail if a face is found outside the regions.
        format: Format of the result; None may also mean the source's.
        quality: Quality of a JPEG, WebP or AVIF result, 1 to 100.
        subsampling: Chroma subsampling of a JPEG result, "4:4:4", "4:2:2" or "4:2:0".
        keep: Metadata that is copied to the result; empty: nothing is.
        limits: What is refused unread.
    """

    profile: Profile | None = None
    min_score: float | None = None
    min_face: float | None = None
    max_face: float | None = None
    denoise: float | None = None
    method: Method | None = None
    cells: int | None = None
    shape: Shape | None = None
    margin: Margin | None = None
    feather: float | None = None
    color: tuple[int, int, int] | None = None
    contour: bool | None = None
    regions: tuple[Box, ...] = ()
    verify: bool | None = None
    format: Format | None = None
    quality: int | None = None
    subsampling: str | None = None
    keep: frozenset[Keep] | None = None
    limits: Limits | None = None

    def as_dict(self) -> dict[str, Any]:
        """The options as JSON-compatible values, with sorted sets."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model as it was used, or as a server has it loaded.

    Attributes:
        name: Its file's stem, such as ``centerface``.
        sha256: Of the file in hexadecimal, verified when it was loaded.
        runtime: What runs it: runtime, version and precision.
        license: SPDX identifier; only told by `FaceBlurClient.info`.
        origin: Where the file comes from; only told by `FaceBlurClient.info`.
    """

    name: str
    sha256: str
    runtime: str
    license: str = ""
    origin: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What was done to one picture; no picture content.

    Attributes:
        version: Of the worker.
        input_sha256: In hexadecimal, of the bytes that came in.
        output_sha256: In hexadecimal, of the bytes that went out; None after a detection.
        input_bytes: Length of the source.
        output_bytes: Length of the result; 0 after a detection.
        format: Of the source.
        output_format: Of the result; None after a detection.
        width: Of the upright picture, pixels.
        height: Of the upright picture, pixels.
        faces: As detected, in no particular order.
        regions: As obscured, or as they would have been.
        models: Every model that ran.
        options: As they were applied, the server's defaults filled in.
        milliseconds: By stage: decode, detect, redact, encode, verify, total.
    """

    version: str
    input_sha256: str
    output_sha256: str | None
    input_bytes: int
    output_bytes: int
    format: Format | None
    output_format: Format | None
    width: int
    height: int
    faces: tuple[Face, ...]
    regions: tuple[Region, ...]
    models: tuple[ModelInfo, ...]
    options: Options
    milliseconds: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        """The receipt as JSON-compatible values, as the command line writes it."""
        plain = {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}
        models = [{"name": m.name, "sha256": m.sha256, "runtime": m.runtime} for m in self.models]
        return plain | {"models": models, "milliseconds": dict(self.milliseconds)}


@dataclass(frozen=True, slots=True)
class BlurResult:
    """An obscured picture, encoded, with its receipt."""

    image: bytes = dataclasses.field(repr=False)
    receipt: Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[SourceT]):
    """What became of one picture of `blur_many`: either a result or an error.

    Attributes:
        index: Place of the picture in the iterable, from 0.
        source: The picture as it was given.
        result: The obscured picture; None if it failed.
        error: Why there is no result; an `OSError` if the file could not be read.
    """

    index: int
    source: SourceT = dataclasses.field(repr=False)
    result: BlurResult | None = None
    error: FaceBlurError | OSError | None = None

    def unwrap(self) -> BlurResult:
        """Return the result.

        Raises:
            FaceBlurError: The picture failed.
            OSError: Its file could not be read.
        """
        if self.result is None:
            raise self.error or RuntimeError("an outcome without result and error")
        return self.result


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """What a server is and can do.

    Attributes:
        version: Of FaceBlur.
        profiles: That can be asked for.
        methods: That can be asked for.
        models: Every model that is loaded, with licence and origin.
        defaults: What stands for options that are None, the server's limits among them.
        max_message_bytes: Largest message; larger pictures go in chunks, which the clients do by themselves.
        concurrency: Pictures that are worked on at the same time.
        input_formats: That are read.
    """

    version: str
    profiles: tuple[Profile, ...]
    methods: tuple[Method, ...]
    models: tuple[ModelInfo, ...]
    defaults: Options
    max_message_bytes: int
    concurrency: int
    input_formats: tuple[Format, ...]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
