"""Measures what the engine and the command promise: what is found, how fast, in how much memory.

    python tests/benchmarks/engine_bars.py quality --evalset DIR
    python tests/benchmarks/engine_bars.py agreement --evalset DIR
    python tests/benchmarks/engine_bars.py speed --evalset DIR --deface build/deface/bin/deface
    python tests/benchmarks/engine_bars.py cost
    python tests/benchmarks/engine_bars.py memory --evalset DIR
    python tests/benchmarks/engine_bars.py startup

DIR is a folder in the evaluation set's format: pictures, ``annotations.json``, optionally ``mosaic_annotations.json``,
and the ``score.py`` that scores them. Timings compare whole processes or calls in turn, A B C A B C ..., since shared
machines drift; each figure is printed as minimum / median / maximum. `make bench` runs all of it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
from numpy.typing import NDArray

from faceblur_engine import Engine, Limits, Options, Profile, codec
from faceblur_engine.detectors import create_detector
from faceblur_engine.detectors.boxes import of_faces, overlaps
from faceblur_engine.detectors.centerface import BALANCED, CenterFaceDetector

ROOT = Path(__file__).resolve().parents[2]
PHOTOS = ROOT / "examples" / "photos"
FACEBLUR = [sys.executable, "-m", "faceblur_cli"]
JOBS = ["--jobs", "2", "-q"]


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Minimum / median / maximum."""
    return " / ".join(f"{value:.{digits}f}" for value in (min(values), statistics.median(values), max(values)))


def covering(name: str, width: int, height: int) -> NDArray[np.uint8]:
    """A sample, scaled to cover the size and cut to it; BGR."""
    pixels = cv2.imread(str(PHOTOS / name))
    zoom = max(width / pixels.shape[1], height / pixels.shape[0])
    pixels = cv2.resize(pixels, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])  # type: ignore[return-value]


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """A JPEG of quality 90."""
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def with_faces(background: str, count: int) -> bytes:
    """A 1920x1080 picture with so many portraits in it, whose faces are 35 to 110 pixels wide."""
    canvas = covering(background, 1920, 1080)
    portrait = cv2.imread(str(PHOTOS / "astronaut.png"))[10:270, 90:350]
    for index in range(count):
        side = (260, 180, 120, 90)[index % 4]
        shown = cv2.resize(portrait, (side, side), interpolation=cv2.INTER_AREA)
        x, y = 40 + index % 7 * 265, 60 + index // 7 * 330
        canvas[y : y + side, x : x + side] = shown[:, ::-1] if index % 2 else shown
    return jpeg(canvas)


def full_hd() -> dict[int, bytes]:
    """1920x1080 pictures by how many faces they show."""
    return {count: with_faces("rocket.jpg", count) for count in (0, 1, 5, 20)}


def scorer(evalset: Path) -> ModuleType:
    """The set's own ``score.py``."""
    spec = importlib.util.spec_from_file_location("score", evalset / "score.py")
    if spec is None or spec.loader is None:
        sys.exit(f"{evalset} has no score.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def quality(args: argparse.Namespace) -> None:
    """What each profile covers: the command's own detections, scored with the masks as they are drawn."""
    score = scorer(args.evalset)
    sets = {"photographs": "annotations.json", "canvases": "mosaic_annotations.json"}
    header = "all", ">=20px", "precision", "clean", "area", "false alarms on empty", "canvases >=20px"
    print(f"{'profile':24s}" + "".join(f"{title:>22s}" for title in header))
    for profile in args.profiles:
        for denoise in args.denoise:
            results = {}
            for title, file in sets.items():
                if not (args.evalset / file).exists():
                    continue
                images = json.loads((args.evalset / file).read_text())["images"]
                folders = sorted({str(args.evalset / Path(image["file"]).parent) for image in images})
                command = [*FACEBLUR, "detect", *folders, "--root", str(args.evalset), "--profile", profile]
                command += ["--denoise", str(denoise), "--runtime", args.runtime]
                found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                lines = [json.loads(line) for line in found.splitlines()]
                results[title] = score.score(images, {line["file"]: line for line in lines})
            result = results["photographs"]
            cells = [
                result["covered"]["all"]["percent"],
                result["covered"][">=20px"]["percent"],
                result["precision"],
                result["clean_percent"],
                result["area"],
                result["negatives_fp"],
                results["canvases"]["covered"][">=20px"]["percent"] if "canvases" in results else "-",
            ]
            name = profile + (f", denoise {denoise:g}" if denoise else "")
            print(f"{name:24s}" + "".join(f"{cell!s:>22s}" for cell in cells), flush=True)
            if args.groups:
                for group, cell in result["covered"].items():
                    print(f"    {group:42s} {cell['percent']:5.1f} % of {cell['faces']}")


def agreement(args: argparse.Namespace) -> None:
    """How many of the boxes that f32 finds on the fallback runtime are there in this machine's own arithmetic too."""
    images = json.loads((args.evalset / "annotations.json").read_text())["images"]
    levels = 0.5, 0.8, 0.9, 0.95
    print(f"{'':24s}{'boxes':>8s}" + "".join(f"{f'IoU {level}':>10s}" for level in levels))
    for profile in args.profiles:
        own = create_detector(profile)
        f32 = create_detector(profile, runtime="litert" if profile is Profile.FAST else "onnxruntime")
        best: dict[str, list[float]] = defaultdict(list)
        for image in images:
            rgb = cv2.cvtColor(cv2.imread(str(args.evalset / image["file"])), cv2.COLOR_BGR2RGB)
            pairs = {profile: (of_faces(f32.detect(rgb)), of_faces(own.detect(rgb)))}
            if isinstance(f32, CenterFaceDetector) and isinstance(own, CenterFaceDetector):
                # All that one pass has found, so that a score that falls just short is not taken for a missing box.
                coarse = f32._coarse(rgb, BALANCED.candidate_tiny)[0]
                wanted = coarse[coarse[:, 4] >= BALANCED.keep_coarse]
                pairs[f"{profile}, coarse pass"] = wanted, own._coarse(rgb, BALANCED.candidate_tiny)[0]
            for title, (wanted, found) in pairs.items():
                best[title] += [overlaps(box, found).max(initial=0) for box in wanted]
        for title, overlap in best.items():
            shares = [100 * sum(iou >= level for iou in overlap) / len(overlap) for level in levels]
            print(f"{title:24s}{len(overlap):8d}" + "".join(f"{share:8.1f} %" for share in shares), flush=True)


def whole_process(command: list[str], prepare: Callable[[], None]) -> float:
    """Seconds that a command takes, its start included."""
    prepare()
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def speed(args: argparse.Namespace) -> None:
    """Pictures per second, file to file, both cores, each tool in turn."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        folders = {"1920x1080, 0 to 20 faces": work / "hd"}
        (work / "hd").mkdir()
        pictures = list(full_hd().values())
        for index in range(args.full_hd):
            (work / "hd" / f"{index:03d}.jpg").write_bytes(pictures[index % len(pictures)])
        if args.evalset:
            folders = {"evaluation set": work / "eval", **folders}
            (work / "eval").mkdir()
            for index, path in enumerate(sorted((args.evalset / "images").iterdir())):
                if index % args.every == 0:
                    shutil.copy(path, work / "eval")
        for title, folder in folders.items():
            count = len(list(folder.iterdir()))
            print(f"{title}: {count} pictures, {args.rounds} rounds, pictures per second (min / median / max)")
            commands = {
                profile: [*FACEBLUR, "blur", str(folder), "-o", str(work / "out"), "--profile", profile, *JOBS]
                for profile in args.profiles
            }
            if args.deface:
                commands["deface"] = [str(args.deface), str(work / "copy")]

            def prepare(folder: Path = folder) -> None:
                shutil.rmtree(work / "out", ignore_errors=True)
                shutil.rmtree(work / "copy", ignore_errors=True)
                shutil.copytree(folder, work / "copy")

            rates: dict[str, list[float]] = {tool: [] for tool in commands}
            for _ in range(args.rounds):
                for tool, command in commands.items():
                    rates[tool].append(count / whole_process(command, prepare))
            for tool, measured in rates.items():
                line = f"    {tool:12s} {spread(measured):>24s}"
                if args.deface and tool != "deface":
                    ratios = [ours / theirs for ours, theirs in zip(measured, rates["deface"], strict=True)]
                    line += f"    {spread(ratios):>20s} times deface, round by round"
                print(line, flush=True)


def cost(args: argparse.Namespace) -> None:
    """One thread: a call of each profile against decoding and encoding alone."""
    engine = Engine(profiles=tuple(Profile))
    free = Limits(max_bytes=2**30)

    def bare(data: bytes) -> None:
        codec.encode(codec.decode(data, free), Options(limits=free))

    calls: dict[str, Callable[[bytes], object]] = {"decode and encode": bare}
    for profile in Profile:
        options = Options(profile=profile, limits=free)
        calls[profile] = lambda data, options=options: engine.redact(data, options)

    def row(title: str, data: bytes, rounds: int) -> None:
        measured: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds + 1):
            for name, call in calls.items():
                start = time.perf_counter()
                call(data)
                measured[name].append((time.perf_counter() - start) * 1000)
        print(title)
        bases = measured["decode and encode"][1:]
        for name, (_, *values) in measured.items():
            ratios = [value / base for value, base in zip(values, bases, strict=True)]
            print(f"    {name:18s} {spread(values):>24s} ms    {spread(ratios, 2):>20s} times", flush=True)

    for count, data in full_hd().items():
        found = len(engine.detect(data).faces)
        row(f"1920x1080, {count} faces ({found} found by balanced)", data, args.rounds * 8)
    for width, height in ((640, 480), (1280, 854), (2000, 1500), (3000, 2000), (4000, 3000), (6000, 4000)):
        title = f"{width}x{height}, {width * height / 1e6:.1f} megapixels, the street"
        row(title, jpeg(covering("city.jpg", width, height)), args.rounds)


def pss_of_tree(pid: int) -> float:
    """Proportional set size of a process and all below it, MB."""
    total = 0.0
    waiting = [pid]
    while waiting:
        process = waiting.pop()
        try:
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
            waiting += [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
        except OSError:
            continue
        total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) / 1024
    return total


def memory(args: argparse.Namespace) -> None:
    """Memory of the command over many pictures, by thousand."""
    if not Path("/proc/self/smaps_rollup").exists():
        sys.exit("memory is read from /proc, which this system does not have")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "in").mkdir()
        sources = sorted((args.evalset / "images").iterdir()) if args.evalset else sorted(PHOTOS.iterdir())
        for index in range(args.pictures):
            source = sources[index % len(sources)]
            shutil.copy(source, work / "in" / f"{index:05d}{source.suffix}")
        for profile in args.profiles:
            shutil.rmtree(work / "out", ignore_errors=True)
            command = [*FACEBLUR, "blur", str(work / "in"), "-o", str(work / "out"), *JOBS[:2]]
            command += ["--profile", profile, "--json"]
            samples: list[tuple[int, float]] = []
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                for done, _ in enumerate(process.stdout):
                    if done % 20 == 0:
                        samples.append((done, pss_of_tree(process.pid)))
            print(f"{profile}: {args.pictures} pictures, at most {max(size for _, size in samples):.0f} MB")
            for thousand in range((args.pictures + 999) // 1000):
                sizes = [size for done, size in samples if done // 1000 == thousand]
                if sizes:
                    print(f"    thousand {thousand + 1}: {spread(sizes, 0)} MB", flush=True)


def startup(args: argparse.Namespace) -> None:
    """Seconds from the shell to the end, on a warm disk."""
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "out"
        commands = {
            "faceblur --help": [*FACEBLUR, "--help"],
            **{
                f"one picture, {profile}": [
                    *FACEBLUR,
                    "blur",
                    str(PHOTOS / "city.jpg"),
                    "-o",
                    str(out),
                    "--profile",
                    profile,
                ]
                for profile in args.profiles
            },
        }
        measured: dict[str, list[float]] = {title: [] for title in commands}
        for _ in range(args.rounds + 2):
            for title, command in commands.items():
                measured[title].append(whole_process(command, lambda: shutil.rmtree(out, ignore_errors=True)))
        for title, values in measured.items():
            print(f"{title:28s} {spread(values, 2)} s", flush=True)


def main() -> None:
    """Run the named benchmarks, or all that the arguments allow."""
    benchmarks = {
        "quality": quality,
        "agreement": agreement,
        "speed": speed,
        "cost": cost,
        "memory": memory,
        "startup": startup,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", nargs="*", metavar="|".join(benchmarks), help="default: all of them")
    parser.add_argument("--evalset", type=Path, help="a folder in the evaluation set's format")
    parser.add_argument("--deface", type=Path, help="the deface command, to compare with")
    parser.add_argument("--profiles", nargs="+", default=list(Profile), type=Profile)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--every", type=int, default=1, help="speed: take each n-th picture of the evaluation set")
    parser.add_argument("--full-hd", type=int, default=60, help="speed: how many 1920x1080 photographs")
    parser.add_argument("--pictures", type=int, default=3000, help="memory: how many pictures")
    parser.add_argument("--denoise", nargs="+", type=float, default=[0.0], help="quality: strengths to try")
    parser.add_argument("--runtime", default="auto", help="quality: the inference runtime")
    parser.add_argument("--groups", action="store_true", help="quality: the table by size and kind")
    args = parser.parse_args()
    unknown = set(args.benchmark) - set(benchmarks)
    if unknown:
        parser.error(f"there is no benchmark {sorted(unknown)[0]!r}; choose from {', '.join(benchmarks)}")
    if args.evalset and not (args.evalset / "annotations.json").exists():
        print(f"{args.evalset} has no annotations.json: skipping what needs the evaluation set")
        args.evalset = None
    for name in args.benchmark or benchmarks:
        print(f"== {name}", flush=True)
        if name in ("quality", "agreement") and args.evalset is None:
            print("skipped: give --evalset (make bench EVALSET=path)")
            continue
        benchmarks[name](args)


if __name__ == "__main__":
    main()
