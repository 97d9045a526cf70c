"""The command line's options, group by group, and the engine's `Options` from them.

Defaults are the engine's: an option that is not given is not passed on, so they are written down in one place only.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
from pathlib import Path
from typing import Any

from faceblur_engine.cores import granted_cores
from faceblur_engine.errors import InvalidOptions
from faceblur_engine.types import Box, Format, Keep, Limits, Margin, Method, Options, Profile, Shape

from .exits import UsageError
from .names import Labels, Names

RUNTIMES = ("auto", "openvino", "onnxruntime", "litert", "mediapipe")
CALLS_AT_ONCE = 8
_DEFAULT = Options()


def add_inputs(parser: argparse.ArgumentParser, *, pipe: str = "") -> None:
    """Add PATH and how folders are walked."""
    parser.add_argument("paths", metavar="PATH", nargs="+", help=f"file, folder (with all below it) or glob{pipe}")
    parser.add_argument("--follow-links", action="store_true", help="go into folders behind links")


def add_detection(parser: argparse.ArgumentParser) -> None:
    """Add what decides which faces are found."""
    group = parser.add_argument_group("finding faces")
    group.add_argument(
        "--profile",
        type=Profile,
        choices=list(Profile),
        metavar="NAME",
        help=f"fast, balanced or thorough (default: {_DEFAULT.profile})",
    )
    group.add_argument("--min-score", type=float, metavar="S", help="least confidence, 0 to 1 (default: the profile's)")
    group.add_argument("--min-face", type=float, metavar="PX", help="leave faces smaller than this alone (default: 0)")
    group.add_argument("--max-face", type=float, metavar="PX", help="leave faces larger than this alone")
    group.add_argument(
        "--denoise", type=float, metavar="N", help="filter noise before the search, 0 to 20 (default: 0)"
    )
    group.add_argument(
        "--region",
        dest="regions",
        type=_box,
        action="append",
        metavar="X,Y,W,H",
        help="obscure this rectangle too, in pixels of the upright picture; may be repeated",
    )
    shapes = "box, ellipse or rounded"
    group.add_argument(
        "--shape", type=Shape, choices=list(Shape), metavar="NAME", help=f"{shapes} (default: the profile's)"
    )
    group.add_argument(
        "--margin",
        type=_margin,
        metavar="SIDES,TOP,BOTTOM[,PX]",
        help="how far beyond the face, as shares of its width and height, plus pixels (default: the profile's)",
    )


def add_obscuring(parser: argparse.ArgumentParser) -> None:
    """Add what decides how faces are obscured and results encoded."""
    group = parser.add_argument_group("obscuring")
    group.add_argument(
        "--method",
        type=Method,
        choices=list(Method),
        metavar="NAME",
        help=f"blur, mosaic or solid (default: {_DEFAULT.method})",
    )
    group.add_argument(
        "--cells",
        type=int,
        metavar="N",
        help=f"strength: cells across a face, 1 to 8, fewer hide more (default: {_DEFAULT.cells})",
    )
    group.add_argument(
        "--feather",
        type=float,
        metavar="SHARE",
        help=f"blended rim around the region, share of its size, 0 to 0.5 (default: {_DEFAULT.feather:g})",
    )
    group.add_argument(
        "--color", type=_color, metavar="RRGGBB", help="colour of --method solid (default: the region's mean)"
    )
    group.add_argument("--contour", action="store_true", default=None, help="draw a line around each region")
    group.add_argument(
        "--verify",
        action="store_true",
        default=None,
        help="search the result again; a face outside the regions fails the picture",
    )
    group = parser.add_argument_group("results")
    written = [f for f in Format if f is not Format.HEIC]
    group.add_argument(
        "--format",
        type=Format,
        choices=written,
        metavar="NAME",
        help=f"{', '.join(written)} (default: the source's; JPEG for HEIC)",
    )
    group.add_argument("--quality", type=int, metavar="Q", help="1 to 100 (default: the source's, else 90)")
    group.add_argument(
        "--subsampling", metavar="S", help="chroma of a JPEG: 4:4:4, 4:2:2 or 4:2:0 (default: the source's)"
    )
    group.add_argument(
        "--keep",
        type=_keep,
        metavar="LIST",
        help=f"metadata to copy: {', '.join(Keep)}, separated by commas, or none (default: icc)",
    )


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Add what is refused unread."""
    group = parser.add_argument_group("limits", "Read from the header; a picture beyond one is refused unread.")
    for field in dataclasses.fields(Limits):
        default = getattr(_DEFAULT.limits, field.name)
        group.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=_size if field.name == "max_bytes" else int,
            metavar="N",
            help=f"(default: {default // 1024**2}M; takes K, M, G)"
            if field.name == "max_bytes"
            else f"(default: {default:,})",
        )


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Add what decides how it runs, and nothing about the results."""
    group = parser.add_argument_group("machine")
    group.add_argument(
        "--jobs",
        "-j",
        type=_positive,
        metavar="N",
        help="pictures at once (default: the cores granted to this process; with --server 8)",
    )
    group.add_argument(
        "--threads", type=_positive, metavar="N", help="inference threads per picture (default: the cores per job)"
    )
    group.add_argument(
        "--runtime",
        choices=RUNTIMES,
        metavar="NAME",
        help=f"{', '.join(RUNTIMES)}; the last two run the fast profile only (default: auto)",
    )


def add_server(parser: argparse.ArgumentParser) -> None:
    """Add what lets workers do the work."""
    group = parser.add_argument_group(
        "server", "Pictures are sent to workers. What is not asked for here is as they are configured."
    )
    group.add_argument("--server", metavar="HOST:PORT", help="a worker, or a name that has the addresses of several")
    group.add_argument("--server-ca", type=Path, metavar="FILE", help="encrypt; who may have issued its certificate")
    group.add_argument("--server-certificate", type=Path, metavar="FILE", help="encrypt, and show this certificate")
    group.add_argument("--server-key", type=Path, metavar="FILE", help="the certificate's key")


def add_names(parser: argparse.ArgumentParser) -> None:
    """Add what stands for file names in what leaves the machine."""
    parser.add_argument(
        "--names",
        type=Names,
        choices=list(Names),
        default=Names.KEEP,
        metavar="HOW",
        help="file names in receipts and report: keep, hash or omit (default: keep)",
    )
    parser.add_argument(
        "--names-key", type=Path, metavar="FILE", help="secret for --names hash, to get the same labels in every run"
    )


def asked_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of `Options` that are given; of the limits only those that are, by name."""
    limits = {f.name: value for f in dataclasses.fields(Limits) if (value := getattr(args, f.name, None)) is not None}
    fields: dict[str, Any] = {"limits": limits} if limits else {}
    for field in dataclasses.fields(Options):
        value = getattr(args, field.name, None)
        if value is not None:
            fields[field.name] = tuple(value) if field.name == "regions" else value
    return fields


def options_of(args: argparse.Namespace, defaults: Options | None = None) -> Options:
    """Build the engine's options.

    Args:
        args: Parsed arguments.
        defaults: Of a server, whose limits can only be tightened. None: the engine's.

    Raises:
        UsageError: One is out of range; it is named as on the command line.
    """
    fields = asked_of(args)
    if "limits" in fields:
        given = fields["limits"]
        if defaults:
            given = {name: min(value, getattr(defaults.limits, name)) for name, value in given.items()}
        fields["limits"] = dataclasses.replace((defaults or _DEFAULT).limits, **given)
    try:
        return dataclasses.replace(defaults or _DEFAULT, **fields)
    except InvalidOptions as error:
        names = "|".join(field.name for field in dataclasses.fields(Options))
        raise UsageError(
            re.sub(rf"\b({names})\b(?= is |\.|,? and | \d)", lambda m: "--" + m[0].replace("_", "-"), str(error))
        ) from error


def labels_of(args: argparse.Namespace) -> Labels:
    """Build what stands for file names.

    Raises:
        UsageError: The key cannot be read or is too short to be a secret.
    """
    if args.names_key is None:
        return Labels(args.names)
    if args.names is not Names.HASH:
        raise UsageError("--names-key is for --names hash")
    try:
        key: bytes = args.names_key.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read --names-key {args.names_key}: {error.strerror}") from error
    if len(key) < 16:
        raise UsageError(f"--names-key {args.names_key} holds {len(key)} bytes; a secret has at least 16")
    return Labels(args.names, key)


def calls_at_once(args: argparse.Namespace, *, single: bool) -> int:
    """Return how many pictures are with the server at once.

    Args:
        args: Parsed arguments.
        single: There is only one picture.

    Raises:
        UsageError: Something is given that the server decides.
    """
    for name in ("runtime", "threads"):
        if getattr(args, name) is not None:
            raise UsageError(f"--{name} says how this machine works; with --server leave that to the server's settings")
    return 1 if single else args.jobs or CALLS_AT_ONCE


def refuse_server_options(args: argparse.Namespace) -> None:
    """Refuse what only makes sense with a server.

    Raises:
        UsageError: It is given.
    """
    for name in ("ca", "certificate", "key"):
        if getattr(args, f"server_{name}") is not None:
            raise UsageError(f"--server-{name} is for --server HOST:PORT, which is not given")


def jobs_and_threads(args: argparse.Namespace, *, single: bool) -> tuple[int, int]:
    """Return how many pictures at once, and inference threads for each.

    Args:
        args: Parsed arguments.
        single: There is only one picture, which may have all cores.
    """
    cores = granted_cores()
    jobs = 1 if single else args.jobs or cores
    return jobs, args.threads or max(1, cores // jobs)


def _numbers(text: str, counts: tuple[int, ...], form: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in counts or not all(map(math.isfinite, numbers)):
        raise argparse.ArgumentTypeError(f"{text!r} is not {form}")
    return numbers


def _box(text: str) -> Box:
    return Box(*_numbers(text, (4,), "X,Y,W,H"))


def _margin(text: str) -> Margin:
    return Margin(*_numbers(text, (3, 4), "SIDES,TOP,BOTTOM or SIDES,TOP,BOTTOM,PX"))


def _color(text: str) -> tuple[int, int, int]:
    digits = text.removeprefix("#")
    if not re.fullmatch("[0-9a-fA-F]{6}", digits):
        raise argparse.ArgumentTypeError(f"{text!r} is not six hexadecimal digits, such as 1e90ff")
    red, green, blue = bytes.fromhex(digits)
    return red, green, blue


def _keep(text: str) -> frozenset[Keep]:
    if text == "none":
        return frozenset()
    try:
        return frozenset(Keep(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of {', '.join(Keep)}, or none") from None


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d+)([KMG]?)B?", text.upper())
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes, such as 64M")
    return int(match[1]) << 10 * " KMG".index(match[2] or " ")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)
