"""The messages of the contract say everything that the engine's values can, and nothing is lost or guessed."""

from __future__ import annotations

import dataclasses

import pytest

from faceblur.v1 import geometry_pb2, options_pb2, receipt_pb2
from faceblur_engine import types
from faceblur_engine.errors import InvalidOptions
from faceblur_worker import translate

FULL = types.Options(
    profile=types.Profile.THOROUGH,
    min_score=0.25,
    min_face=3.0,
    max_face=900.0,
    denoise=2.0,
    method=types.Method.SOLID,
    cells=3,
    shape=types.Shape.ELLIPSE,
    margin=types.Margin(0.1, 0.2, 0.3, 4.0),
    feather=0.2,
    color=(1, 2, 3),
    contour=True,
    regions=(types.Box(1, 2, 3, 4), types.Box(0.5, 0.25, 8, 9)),
    verify=True,
    format=types.Format.AVIF,
    quality=55,
    subsampling="4:2:0",
    keep=frozenset({types.Keep.GPS, types.Keep.AUTHOR}),
    limits=types.Limits(100, 200, 300, 400, 5),
)


def everywhere(options: types.Options) -> dict[types.Profile, types.Options]:
    """These defaults for every profile, their own first."""
    order = sorted(types.Profile, key=lambda profile: profile is not options.profile)
    return {profile: dataclasses.replace(options, profile=profile) for profile in order}


def test_all_options_survive_the_way_there_and_back() -> None:
    message = options_pb2.Options.FromString(translate.options_to(FULL).SerializeToString())
    assert translate.options_from(message, everywhere(types.Options())) == FULL
    assert all(getattr(FULL, f.name) != f.default for f in dataclasses.fields(types.Options))  # FULL leaves nothing out


def test_defaults_survive_the_way_there_and_back() -> None:
    assert translate.options_from(translate.options_to(types.Options()), everywhere(FULL)).limits == FULL.limits
    unset = dataclasses.replace(types.Options(), limits=FULL.limits)
    wide = dataclasses.replace(types.Options(), keep=frozenset())
    assert translate.options_from(translate.options_to(unset), everywhere(wide)) == unset


def test_what_is_not_asked_for_has_the_default_of_the_server() -> None:
    assert translate.options_from(options_pb2.Options(), everywhere(FULL)) == FULL


def test_a_profile_brings_its_own_defaults() -> None:
    fast = types.Options(profile=types.Profile.FAST, cells=3)
    defaults = {types.Profile.BALANCED: types.Options(), types.Profile.FAST: fast}
    assert translate.options_from(options_pb2.Options(profile=options_pb2.PROFILE_FAST), defaults) == fast
    assert translate.options_from(options_pb2.Options(), defaults).cells == 8
    with pytest.raises(InvalidOptions, match="thorough is not served here; choose one of: balanced, fast"):
        translate.options_from(options_pb2.Options(profile=options_pb2.PROFILE_THOROUGH), defaults)


def test_zero_and_false_can_be_asked_for() -> None:
    asked = options_pb2.Options(min_face=0, verify=False, contour=False, keep=options_pb2.KeepMetadata())
    options = translate.options_from(asked, everywhere(FULL))
    assert (options.min_face, options.verify, options.contour, options.keep) == (0, False, False, frozenset())


def test_limits_can_only_be_tightened() -> None:
    asked = options_pb2.Options(limits=options_pb2.Limits(max_pixels=10**9, max_width=7))
    limits = translate.options_from(asked, everywhere(types.Options())).limits
    assert (limits.max_pixels, limits.max_width) == (types.Limits().max_pixels, 7)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (options_pb2.Options(profile=99), "profile has the value 99"),  # type: ignore[arg-type]
        (options_pb2.Options(keep=options_pb2.KeepMetadata(metadata=[0])), "keep has the value 0"),  # type: ignore[list-item]
        (options_pb2.Options(cells=99), "cells is 99"),
        (options_pb2.Options(color=options_pb2.Color(red=256)), "color"),
        (options_pb2.Options(regions=[geometry_pb2.Box(w=1)]), "region"),
        (options_pb2.Options(regions=[geometry_pb2.Box(x=float("inf"), w=1, h=1)]), "finite"),
        (options_pb2.Options(regions=[geometry_pb2.Box(w=1, h=1)] * 1001), "1001 regions .* at most 1000"),
        (options_pb2.Options(format=options_pb2.FORMAT_HEIC), "HEIC"),
        (options_pb2.Options(min_score=float("nan")), "min_score"),
    ],
)
def test_what_is_not_understood_is_refused_and_never_guessed(asked: options_pb2.Options, words: str) -> None:
    with pytest.raises(InvalidOptions, match=words):
        translate.options_from(asked, everywhere(types.Options()))


@pytest.mark.parametrize(
    ("enum", "table", "values"),
    [
        (options_pb2.Profile, translate.PROFILES, types.Profile),
        (options_pb2.Method, translate.METHODS, types.Method),
        (options_pb2.Format, translate.FORMATS, types.Format),
        (options_pb2.Metadata, translate.METADATA, types.Keep),
        (geometry_pb2.Shape, translate.SHAPES, types.Shape),
        (options_pb2.Subsampling, translate.SUBSAMPLINGS, ("4:4:4", "4:2:2", "4:2:0")),
    ],
)
def test_every_value_of_an_enumeration_has_its_number(enum: object, table: dict[int, object], values: object) -> None:
    assert set(table) == set(enum.values()) - {0}  # type: ignore[attr-defined]
    assert list(table.values()) == list(values)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("message", "value"),
    [
        (options_pb2.Options, types.Options),
        (options_pb2.Margin, types.Margin),
        (options_pb2.Limits, types.Limits),
        (geometry_pb2.Box, types.Box),
        (geometry_pb2.Face, types.Face),
        (geometry_pb2.Region, types.Region),
        (receipt_pb2.Receipt, types.Receipt),
        (receipt_pb2.Model, types.ModelInfo),
    ],
)
def test_messages_have_the_fields_of_the_values(message: type, value: type) -> None:
    assert {field.name for field in message.DESCRIPTOR.fields} == {f.name for f in dataclasses.fields(value)}  # type: ignore[attr-defined]
