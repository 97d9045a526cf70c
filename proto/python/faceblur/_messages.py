"""Between the messages of the contract and the SDK's values, in both directions; decides nothing else."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from typing import Any, TypeVar

from ._errors import InvalidOptionsError
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
    Profile,
    Receipt,
    Region,
    ServerInfo,
    Shape,
)
from .v1 import geometry_pb2, info_pb2, options_pb2, receipt_pb2

V = TypeVar("V")


def _numbers(kind: type[StrEnum], wrapper: Any) -> dict[str, int]:
    """The contract's number for each value: its name is the member's with the enum's name before it."""
    prefix = wrapper.DESCRIPTOR.name.upper()
    return {member.value: wrapper.Value(f"{prefix}_{member.name}") for member in kind}


_ENUMS: dict[str, tuple[type[StrEnum], dict[str, int]]] = {
    "profile": (Profile, _numbers(Profile, options_pb2.Profile)),
    "method": (Method, _numbers(Method, options_pb2.Method)),
    "shape": (Shape, _numbers(Shape, geometry_pb2.Shape)),
    "format": (Format, _numbers(Format, options_pb2.Format)),
}
_METADATA = _numbers(Keep, options_pb2.Metadata)
_SUBSAMPLINGS: dict[str, int] = {
    "4:4:4": options_pb2.SUBSAMPLING_444,
    "4:2:2": options_pb2.SUBSAMPLING_422,
    "4:2:0": options_pb2.SUBSAMPLING_420,
}
_SCALARS = ("min_score", "min_face", "max_face", "denoise", "cells", "feather", "contour", "verify", "quality")


def options_to(options: Options | None) -> options_pb2.Options:
    """Return the message that asks for the options.

    Raises:
        InvalidOptionsError: A value is of a wrong type, is unknown, or does not fit into the contract.
    """
    message = options_pb2.Options()
    if options is None:
        return message
    name = ""
    try:
        for name, (_, numbers) in _ENUMS.items():
            if (chosen := getattr(options, name)) is not None:
                setattr(message, name, _known(numbers, chosen))
        for name in _SCALARS:
            if (value := getattr(options, name)) is not None:
                setattr(message, name, value)
        name = "subsampling"
        if options.subsampling is not None:
            message.subsampling = _known(_SUBSAMPLINGS, options.subsampling)
        name = "margin"
        if options.margin is not None:
            message.margin.CopyFrom(options_pb2.Margin(**dataclasses.asdict(options.margin)))
        name = "color"
        if options.color is not None:
            red, green, blue = options.color
            message.color.CopyFrom(options_pb2.Color(red=red, green=green, blue=blue))
        name = "regions"
        message.regions.extend(box_to(box) for box in options.regions)
        name = "keep"
        if options.keep is not None:
            message.keep.CopyFrom(options_pb2.KeepMetadata())
            message.keep.metadata.extend(sorted(_known(_METADATA, item) for item in options.keep))
        name = "limits"
        if options.limits is not None:
            message.limits.CopyFrom(options_pb2.Limits(**dataclasses.asdict(options.limits)))
    except (TypeError, ValueError, AttributeError) as error:
        raise InvalidOptionsError(
            f"{name} is {getattr(options, name)!r}, which cannot be asked for: {error}"
        ) from error
    return message


def options_from(message: options_pb2.Options) -> Options:
    """Return the options that a message tells; what is not set is None."""
    chosen: dict[str, Any] = {name: _member(name, getattr(message, name)) for name in _ENUMS}
    chosen |= {name: _optional(message, name) for name in _SCALARS}
    chosen["subsampling"] = next((text for text, n in _SUBSAMPLINGS.items() if n == message.subsampling), None)
    chosen["regions"] = tuple(_box_from(box) for box in message.regions)
    if message.HasField("margin"):
        margin = message.margin
        chosen["margin"] = Margin(sides=margin.sides, top=margin.top, bottom=margin.bottom, pixels=margin.pixels)
    if message.HasField("color"):
        chosen["color"] = (message.color.red, message.color.green, message.color.blue)
    if message.HasField("keep"):
        chosen["keep"] = frozenset(Keep(text) for text, n in _METADATA.items() if n in message.keep.metadata)
    if message.HasField("limits"):
        names = [field.name for field in dataclasses.fields(Limits)]
        chosen["limits"] = Limits(**{name: _optional(message.limits, name) for name in names})
    return Options(**chosen)


def receipt_from(message: receipt_pb2.Receipt) -> Receipt:
    """Return what a receipt tells."""
    return Receipt(
        version=message.version,
        input_sha256=message.input_sha256,
        output_sha256=_optional(message, "output_sha256"),
        input_bytes=message.input_bytes,
        output_bytes=message.output_bytes,
        format=_member("format", message.format),
        output_format=_member("format", message.output_format),
        width=message.width,
        height=message.height,
        faces=tuple(Face(_box_from(face.box), face.score, face.model) for face in message.faces),
        regions=tuple(
            Region(_box_from(region.box), _member("shape", region.shape) or Shape.BOX, region.radius)
            for region in message.regions
        ),
        models=tuple(ModelInfo(model.name, model.sha256, model.runtime) for model in message.models),
        options=options_from(message.options),
        milliseconds=dict(message.milliseconds),
    )


def result_from(image: bytes, receipt: receipt_pb2.Receipt) -> BlurResult:
    """Return a result with its receipt."""
    return BlurResult(image, receipt_from(receipt))


def info_from(message: info_pb2.GetInfoResponse) -> ServerInfo:
    """Return what a server tells of itself; values that are newer than this SDK are left out."""
    return ServerInfo(
        version=message.version,
        profiles=tuple(filter(None, (_member("profile", number) for number in message.profiles))),
        methods=tuple(filter(None, (_member("method", number) for number in message.methods))),
        models=tuple(
            ModelInfo(model.name, model.sha256, model.runtime, model.license, model.origin) for model in message.models
        ),
        defaults=options_from(message.defaults),
        max_message_bytes=message.max_message_bytes,
        concurrency=message.concurrency,
        input_formats=tuple(filter(None, (_member("format", number) for number in message.input_formats))),
    )


def receipt_to(receipt: Receipt) -> receipt_pb2.Receipt:
    """Return the message for a receipt; `faceblur.testing` answers with it."""
    formats, shapes = _ENUMS["format"][1], _ENUMS["shape"][1]
    message = receipt_pb2.Receipt(
        version=receipt.version,
        input_sha256=receipt.input_sha256,
        output_sha256=receipt.output_sha256,
        input_bytes=receipt.input_bytes,
        output_bytes=receipt.output_bytes,
        width=receipt.width,
        height=receipt.height,
        faces=[geometry_pb2.Face(box=box_to(face.box), score=face.score, model=face.model) for face in receipt.faces],
        models=[receipt_pb2.Model(name=m.name, sha256=m.sha256, runtime=m.runtime) for m in receipt.models],
        options=options_to(receipt.options),
        milliseconds=receipt.milliseconds,
    )
    message.format = formats.get(receipt.format or "", 0)  # type: ignore[assignment]
    message.output_format = formats.get(receipt.output_format or "", 0)  # type: ignore[assignment]
    for region in receipt.regions:
        added = message.regions.add(box=box_to(region.box), radius=region.radius)
        added.shape = shapes[region.shape]  # type: ignore[assignment]
    return message


def box_to(box: Box) -> geometry_pb2.Box:
    """Return the message for a box."""
    return geometry_pb2.Box(x=box.x, y=box.y, w=box.w, h=box.h)


def _box_from(message: geometry_pb2.Box) -> Box:
    return Box(message.x, message.y, message.w, message.h)


def _known(numbers: dict[str, int], value: str) -> Any:
    if value not in numbers:
        raise ValueError(f"it has to be one of: {', '.join(numbers)}")
    return numbers[value]


def _member(name: str, number: int) -> Any:
    """The member of an enum; None if the number is unset or newer than this SDK."""
    kind, numbers = _ENUMS[name]
    return next((kind(text) for text, known in numbers.items() if known == number), None)


def _optional(message: Any, name: str) -> Any:
    return getattr(message, name) if message.HasField(name) else None
