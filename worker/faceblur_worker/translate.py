"""Between the messages of the contract and the values of the engine, in both directions; decides nothing else."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from faceblur.v1 import geometry_pb2, options_pb2, receipt_pb2
from faceblur_engine.errors import InvalidOptions
from faceblur_engine.types import (
    Box,
    Format,
    Keep,
    Limits,
    Margin,
    Method,
    Options,
    Profile,
    Receipt,
    Shape,
)

PROFILES = {
    options_pb2.PROFILE_FAST: Profile.FAST,
    options_pb2.PROFILE_BALANCED: Profile.BALANCED,
    options_pb2.PROFILE_THOROUGH: Profile.THOROUGH,
}
METHODS = {
    options_pb2.METHOD_BLUR: Method.BLUR,
    options_pb2.METHOD_MOSAIC: Method.MOSAIC,
    options_pb2.METHOD_SOLID: Method.SOLID,
}
SHAPES = {
    geometry_pb2.SHAPE_BOX: Shape.BOX,
    geometry_pb2.SHAPE_ELLIPSE: Shape.ELLIPSE,
    geometry_pb2.SHAPE_ROUNDED: Shape.ROUNDED,
}
FORMATS = {
    options_pb2.FORMAT_JPEG: Format.JPEG,
    options_pb2.FORMAT_PNG: Format.PNG,
    options_pb2.FORMAT_WEBP: Format.WEBP,
    options_pb2.FORMAT_TIFF: Format.TIFF,
    options_pb2.FORMAT_AVIF: Format.AVIF,
    options_pb2.FORMAT_HEIC: Format.HEIC,
}
SUBSAMPLINGS = {
    options_pb2.SUBSAMPLING_444: "4:4:4",
    options_pb2.SUBSAMPLING_422: "4:2:2",
    options_pb2.SUBSAMPLING_420: "4:2:0",
}
METADATA = {
    options_pb2.METADATA_ICC: Keep.ICC,
    options_pb2.METADATA_CAPTURE_TIME: Keep.CAPTURE_TIME,
    options_pb2.METADATA_GPS: Keep.GPS,
    options_pb2.METADATA_AUTHOR: Keep.AUTHOR,
    options_pb2.METADATA_COPYRIGHT: Keep.COPYRIGHT,
}
_ENUMS: dict[str, dict[Any, Any]] = {
    "profile": PROFILES,
    "method": METHODS,
    "shape": SHAPES,
    "format": FORMATS,
    "subsampling": SUBSAMPLINGS,
}
MAX_REGIONS = 1000
"""Of one picture by the caller. Each costs the engine work, so they must not be bounded by the message alone."""
_SCALARS = ("min_score", "min_face", "max_face", "denoise", "cells", "feather", "contour", "verify", "quality")


def inverse(table: dict[Any, Any]) -> dict[Any, Any]:
    """From the engine's value to the contract's number."""
    return {value: number for number, value in table.items()}


_NUMBERS = {name: inverse(table) for name, table in _ENUMS.items()}
_METADATA_NUMBERS = inverse(METADATA)


def options_from(message: options_pb2.Options, defaults: Mapping[Profile, Options]) -> Options:
    """Return what a caller asks for.

    Args:
        message: As it came; what is not set has the default.
        defaults: The server's for each profile that is loaded, the default profile first; limits can only be
            tightened.

    Raises:
        InvalidOptions: A value is out of range, is not known here, or names a profile that is not loaded.
    """
    if len(message.regions) > MAX_REGIONS:
        raise InvalidOptions(f"{len(message.regions)} regions were given, a picture may have at most {MAX_REGIONS}")
    profile = _known(PROFILES, message.profile, "profile") if message.profile else next(iter(defaults))
    if profile not in defaults:
        raise InvalidOptions(f"the profile {profile} is not served here; choose one of: {', '.join(defaults)}")
    default = defaults[profile]
    chosen: dict[str, Any] = {}
    for name, table in _ENUMS.items():
        number = getattr(message, name)
        if number:
            chosen[name] = _known(table, number, name)
    for name in _SCALARS:
        if message.HasField(name):  # type: ignore[arg-type]
            chosen[name] = getattr(message, name)
    if message.HasField("margin"):
        chosen["margin"] = Margin(
            message.margin.sides, message.margin.top, message.margin.bottom, message.margin.pixels
        )
    if message.HasField("color"):
        chosen["color"] = (message.color.red, message.color.green, message.color.blue)
    if message.regions:
        chosen["regions"] = tuple(Box(box.x, box.y, box.w, box.h) for box in message.regions)
    if message.HasField("keep"):
        chosen["keep"] = frozenset(_known(METADATA, number, "keep") for number in message.keep.metadata)
    if message.HasField("limits"):
        chosen["limits"] = _tightened(message.limits, default.limits)
    return dataclasses.replace(default, **chosen) if chosen else default


@functools.lru_cache(maxsize=64)
def options_to(options: Options) -> options_pb2.Options:
    """Return the message that says all of the options; treat it as read-only."""
    message = options_pb2.Options(
        margin=None if options.margin is None else options_pb2.Margin(**dataclasses.asdict(options.margin)),
        regions=[_box(box) for box in options.regions],
        keep=options_pb2.KeepMetadata(metadata=sorted(_METADATA_NUMBERS[item] for item in options.keep)),
        limits=options_pb2.Limits(**dataclasses.asdict(options.limits)),
        **{name: getattr(options, name) for name in _SCALARS},
        **{
            name: table[getattr(options, name)]
            for name, table in _NUMBERS.items()
            if getattr(options, name) is not None
        },
    )
    if options.color is not None:
        message.color.red, message.color.green, message.color.blue = options.color
    return message


def receipt_to(receipt: Receipt, options: Options) -> receipt_pb2.Receipt:
    """Return the message for a receipt of work that was done with the options."""
    return receipt_pb2.Receipt(
        version=receipt.version,
        input_sha256=receipt.input_sha256,
        output_sha256=receipt.output_sha256,
        input_bytes=receipt.input_bytes,
        output_bytes=receipt.output_bytes,
        format=_NUMBERS["format"][receipt.format],
        output_format=_NUMBERS["format"].get(receipt.output_format, options_pb2.FORMAT_UNSPECIFIED),
        width=receipt.width,
        height=receipt.height,
        faces=[geometry_pb2.Face(box=_box(face.box), score=face.score, model=face.model) for face in receipt.faces],
        regions=[
            geometry_pb2.Region(box=_box(region.box), shape=_NUMBERS["shape"][region.shape], radius=region.radius)
            for region in receipt.regions
        ],
        models=[receipt_pb2.Model(name=m.name, sha256=m.sha256, runtime=m.runtime) for m in receipt.models],
        options=options_to(options),
        milliseconds=receipt.milliseconds,
    )


def _box(box: Box) -> geometry_pb2.Box:
    return geometry_pb2.Box(x=box.x, y=box.y, w=box.w, h=box.h)


def _known(table: dict[Any, Any], number: int, name: str) -> Any:
    if number not in table:
        raise InvalidOptions(f"{name} has the value {number}, which this version does not know")
    return table[number]


def _tightened(message: options_pb2.Limits, limits: Limits) -> Limits:
    """The caller's limits where they are lower than the server's."""
    names = [field.name for field in dataclasses.fields(Limits) if message.HasField(field.name)]  # type: ignore[arg-type]
    return dataclasses.replace(limits, **{name: min(getattr(message, name), getattr(limits, name)) for name in names})
