"""The command line's options and the engine's `Options`."""

from __future__ import annotations

import argparse
import dataclasses
import re
from pathlib import Path

import pytest

from faceblur_cli import arguments
from faceblur_cli.main import COMMANDS, main
from faceblur_engine.types import Box, Format, Keep, Limits, Margin, Method, Options, Profile, Shape

GIVEN = {
    "profile": ("thorough", Profile.THOROUGH),
    "min_score": ("0.4", 0.4),
    "min_face": ("12", 12),
    "max_face": ("900", 900),
    "denoise": ("3", 3),
    "method": ("mosaic", Method.MOSAIC),
    "cells": ("5", 5),
    "shape": ("ellipse", Shape.ELLIPSE),
    "margin": ("0.1,0.2,0.3,4", Margin(0.1, 0.2, 0.3, 4)),
    "feather": ("0.1", 0.1),
    "color": ("#1e90ff", (30, 144, 255)),
    "contour": (None, True),
    "regions": ("1,2,3,4.5", (Box(1, 2, 3, 4.5),)),
    "verify": (None, True),
    "format": ("webp", Format.WEBP),
    "quality": ("77", 77),
    "subsampling": ("4:4:4", "4:4:4"),
    "keep": ("gps,icc", frozenset({Keep.GPS, Keep.ICC})),
}


def parsed(*given: str) -> Options:
    parser = argparse.ArgumentParser()
    for add in (arguments.add_detection, arguments.add_obscuring, arguments.add_limits):
        add(parser)
    return arguments.options_of(parser.parse_args(given))


def test_every_field_of_the_options_has_an_argument() -> None:
    assert set(GIVEN) | {"limits"} == {field.name for field in dataclasses.fields(Options)}


@pytest.mark.parametrize("name", GIVEN)
def test_an_argument_sets_its_field_and_no_other(name: str) -> None:
    text, value = GIVEN[name]
    flag = "--" + {"regions": "region"}.get(name, name).replace("_", "-")
    options = parsed(flag, *([] if text is None else [text]))
    assert options == dataclasses.replace(Options(), **{name: value})
    assert options != Options()


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Limits)])
def test_every_limit_has_an_argument(field: str) -> None:
    assert parsed(f"--{field.replace('_', '-')}", "5000").limits == dataclasses.replace(Limits(), **{field: 5000})


def test_nothing_given_is_the_default() -> None:
    assert parsed() == Options()


def test_sizes_take_units_and_keep_takes_none() -> None:
    assert [parsed("--max-bytes", text).limits.max_bytes for text in ("7", "7k", "7M", "2GB")] == [
        7,
        7 << 10,
        7 << 20,
        2 << 30,
    ]
    assert parsed("--keep", "none").keep == frozenset()


@pytest.mark.parametrize(
    "given",
    [
        ["--region", "1,2,3"],
        ["--region", "1,2,3,nan"],
        ["--margin", "1"],
        ["--color", "red"],
        ["--keep", "all"],
        ["--max-bytes", "-1"],
        ["--format", "heic"],
        ["--profile", "best"],
        ["--jobs", "0"],
        ["--prof", "fast"],
        ["--min-score", "x"],
    ],
)
def test_what_cannot_be_read_is_refused_with_a_sentence(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["blur", "a.jpg", "-o", "out", *given])
    assert ended.value.code == 2
    assert given[0] in capsys.readouterr().err


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_lists_the_exit_codes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"] if command else ["--help"])
    assert ended.value.code == 0
    assert "  130  interrupted" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_argument_is_documented(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    documented = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    for option in re.findall(r"^  (?:-\w(?: \w+)?, )?(--[\w-]+)", capsys.readouterr().out, re.MULTILINE):
        assert option == "--help" or option in documented


def test_serve_hands_its_arguments_to_the_worker(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--help"])
    assert ended.value.code == 0
    assert "--max-waiting" in capsys.readouterr().out
