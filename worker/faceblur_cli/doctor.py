"""`faceblur doctor`: what of it runs on this machine, on what, and how fast."""

from __future__ import annotations

import argparse
import io
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faceblur import __version__
from faceblur_engine.cores import granted_cores
from faceblur_engine.errors import EngineError
from faceblur_engine.types import Options, Profile

from .arguments import RUNTIMES
from .exits import Exit
from .progress import write_json
from .redactor import OpenRedactor

HELP = "show what runs here, which runtime, and how fast"

_FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "bf16", "i8mm")
_MOMENT = 0.7


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace, open_redactor: OpenRedactor) -> Exit:
    """Examine this machine; `Exit.CANNOT` if a profile does not run on it."""
    say: Callable[[str, str], None] = _ignore if args.json else _say
    cores = granted_cores()
    found: dict[str, Any] = {
        "faceblur": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": {"name": _cpu_name(), "flags": _cpu_flags()},
        "cores": cores,
    }
    say("faceblur", __version__)
    say("python", f"{platform.python_version()} on {platform.platform()}")
    say("CPU", f"{_cpu_name()}; {' '.join(_cpu_flags()) or 'no flags that matter here'}")
    say("cores", f"{cores} granted to this process")

    problems: list[str] = []
    found["formats"] = _formats()
    say("formats", "  ".join(f"{name}: {state}" for name, state in found["formats"].items()))
    found["runtimes"] = {}
    for runtime in RUNTIMES[1:]:
        found["runtimes"][runtime] = _runtime(runtime, open_redactor)
        say("runtime", f"{runtime}: {found['runtimes'][runtime]}")
    found["profiles"] = {}
    for profile in Profile:
        try:
            speed = _speed(profile, open_redactor)
        except EngineError as error:
            problems.append(f"the {profile} profile does not run: {error}")
            found["profiles"][profile] = {"error": str(error)}
            say("profile", f"{profile}: {error}")
            continue
        found["profiles"][profile] = speed
        say("profile", f"{profile}: {speed['milliseconds']:.1f} ms for 640x480 on one core, {speed['runtime']}")

    if problems:
        problems.append("install faceblur[cli] again, and faceblur[fallback] where OpenVINO does not load")
    found["problems"] = problems
    if args.json:
        write_json(found)
    else:
        sys.stdout.write("\n" + "\n".join(problems or ["OK"]) + "\n")
    return Exit.CANNOT if problems else Exit.OK


def _say(name: str, text: str) -> None:
    sys.stdout.write(f"{name:<9} {text}\n")
    sys.stdout.flush()


def _ignore(name: str, text: str) -> None:
    pass


def _runtime(name: str, open_redactor: OpenRedactor) -> str:
    """Load a model on the runtime, which says more than that it is installed."""
    profile = Profile.BALANCED if name == "onnxruntime" else Profile.FAST
    try:
        models = open_redactor(profiles=[profile], runtime=name, threads=1, concurrency=1).models
    except EngineError as error:
        return f"no ({error})"
    return ", ".join(sorted({model.runtime for model in models}))


def _speed(profile: Profile, open_redactor: OpenRedactor) -> dict[str, Any]:
    redactor = open_redactor(profiles=[profile], runtime="auto", threads=1, concurrency=1)
    picture = _picture()
    options = Options(profile=profile)
    redactor.redact(picture, options)  # the first call prepares what the others use
    times: list[float] = []
    end = time.monotonic() + _MOMENT
    while not times or time.monotonic() < end:
        start = time.perf_counter()
        redactor.redact(picture, options)
        times.append(1000 * (time.perf_counter() - start))
    runtime = ", ".join(sorted({model.runtime for model in redactor.models}))
    return {"milliseconds": round(statistics.median(times), 2), "runtime": runtime}


def _picture() -> bytes:
    """A JPEG of 640x480 with something in it, and no face."""
    from PIL import Image, ImageDraw

    picture = Image.radial_gradient("L").resize((640, 480)).convert("RGB")
    draw = ImageDraw.Draw(picture)
    for x in range(20, 620, 60):
        draw.ellipse((x, 240 - x // 4, x + 40, 300 - x // 4), fill=(x % 256, 120, 200), outline="black")
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=88)
    return out.getvalue()


def _formats() -> dict[str, str]:
    from importlib.util import find_spec

    from PIL import features

    optional = {"AVIF": features.check("avif"), "HEIC": find_spec("pi_heif") is not None}
    return dict.fromkeys(("JPEG", "PNG", "WebP", "TIFF"), "yes") | {
        name: "yes" if there else "no (install faceblur[heic])" if name == "HEIC" else "no"
        for name, there in optional.items()
    }


def _cpuinfo(key: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key), "")


def _cpu_name() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpu_flags() -> list[str]:
    flags = set((_cpuinfo("flags") or _cpuinfo("Features")).split())
    return [flag for flag in _FLAGS if flag in flags]
