"""Feeds damaged pictures to the engine and looks for anything but a result or a typed refusal.

Every case is a function of the seed and its number: a picture of the corpus, mutated. Cases run in child processes,
so that a crash is seen and charged to its case. A case fails if the process dies or hangs, if an exception is no
`EngineError`, if the process has ever used more than the allowed memory, or if there is a result that cannot be read
again or that still holds the marker which the corpus hides in its metadata. Failing inputs are saved.

    python tests/fuzz/fuzz_engine.py --count 20000 --seed 1
    python tests/fuzz/fuzz_engine.py --seed 1 --case 4711     one case, in this process
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import resource
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests")]

from faceblur_engine.codec import decode, encode, probe  # noqa: E402
from faceblur_engine.errors import EngineError  # noqa: E402
from faceblur_engine.types import Format, Keep, Limits, Options  # noqa: E402
from support import pictures  # noqa: E402
from support.memory import peak_memory  # noqa: E402

LIMITS = Limits()
MAX_MEMORY = 1_000_000_000
CASE_SECONDS = 20

_NUMBERS = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


# Mutations


def _flip(data: bytearray, rng: random.Random) -> bytearray:
    for _ in range(rng.choice((1, 1, 2, 8, 32))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def _overwrite(data: bytearray, rng: random.Random) -> bytearray:
    start = rng.randrange(len(data))
    length = rng.choice((1, 2, 4, 16, 64))
    data[start : start + length] = (
        rng.randbytes(length) if rng.random() < 0.5 else bytes((rng.choice((0, 255)),)) * length
    )
    return data


def _number(data: bytearray, rng: random.Random) -> bytearray:
    """Put a number that tends to break things somewhere, most often into the header."""
    start = rng.randrange(min(len(data), rng.choice((64, 256, 1 << 30))))
    layout = rng.choice(("B", ">H", "<H", ">L", "<L"))
    packed = struct.pack(layout, rng.choice(_NUMBERS) % 256 ** struct.calcsize(layout))
    data[start : start + len(packed)] = packed
    return data


def _truncate(data: bytearray, rng: random.Random) -> bytearray:
    return data[: rng.randrange(1, len(data) + 1)]


def _delete(data: bytearray, rng: random.Random) -> bytearray:
    start = rng.randrange(len(data))
    del data[start : start + rng.choice((1, 2, 4, 50, 500))]
    return data


def _duplicate(data: bytearray, rng: random.Random) -> bytearray:
    start = rng.randrange(len(data))
    piece = data[start : start + rng.choice((1, 2, 4, 50, 500))]
    at = rng.randrange(len(data))
    return data[:at] + piece * rng.choice((1, 1, 2, 20)) + data[at:]


def _splice(data: bytearray, rng: random.Random) -> bytearray:
    other = rng.choice(_CORPUS)[1]
    return data[: rng.randrange(1, len(data) + 1)] + other[rng.randrange(len(other)) :]


def _parts(data: bytearray, rng: random.Random) -> bytearray:
    """Repeat, drop, exchange or damage whole chunks or segments, keeping lengths and checksums right."""
    try:
        if data.startswith(b"\x89PNG"):
            return bytearray(pictures.png_of(_shuffled(pictures.png_chunks(bytes(data)), rng)))
        if data.startswith(b"RIFF"):
            return bytearray(pictures.riff(_shuffled(pictures.webp_chunks(bytes(data)), rng)))
        if data.startswith(b"\xff\xd8"):
            segments, rest = _jpeg_segments(bytes(data))
            body = b"".join(pictures.segment(name[0], part) for name, part in _shuffled(segments, rng))
            return bytearray(b"\xff\xd8" + body + rest)
    except (struct.error, ValueError, IndexError):
        pass
    return _number(data, rng)


def _shuffled(parts: list[tuple[bytes, bytes]], rng: random.Random) -> list[tuple[bytes, bytes]]:
    at = rng.randrange(len(parts))
    name, body = parts[at]
    action = rng.randrange(5)
    if action == 0:
        return parts[:at] + parts[at : at + 1] * rng.choice((2, 3, 200)) + parts[at + 1 :]
    if action == 1:
        return parts[:at] + parts[at + 1 :]
    if action == 2:
        other = rng.randrange(len(parts))
        parts[at], parts[other] = parts[other], parts[at]
        return parts
    if body:
        damaged = bytearray(body)
        rng.choice((_flip, _overwrite, _number, _truncate))(damaged, rng)
        if action == 3 and name in (b"IDAT", b"iCCP"):
            damaged = bytearray(body[: -len(body) // 3] + zlib.compress(rng.randbytes(200)))
        parts[at] = name, bytes(damaged)[:65_000]
    return parts


def _jpeg_segments(data: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    position, found = 2, []
    while data[position + 1] != 0xDA:
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        found.append((data[position + 1 : position + 2], data[position + 4 : position + 2 + length]))
        position += 2 + length
    return found, data[position:]


_MUTATIONS: Sequence[Callable[[bytearray, random.Random], bytearray]] = (
    _flip,
    _overwrite,
    _number,
    _number,
    _truncate,
    _delete,
    _duplicate,
    _splice,
    _parts,
    _parts,
)
_CORPUS = sorted(pictures.corpus().items())


def mutated(seed: int, case: int, only: str = "") -> tuple[str, bytes]:
    """The input of one case, and the name of the picture it was made of, which starts with `only`."""
    rng = random.Random(f"{seed}:{case}")
    name, source = rng.choice([entry for entry in _CORPUS if entry[0].startswith(only)])
    data = bytearray(source)
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        data = rng.choice(_MUTATIONS)(data, rng) or bytearray(b"\0")
    if data.startswith(b"\x89PNG") and rng.random() < 0.7:
        with contextlib.suppress(struct.error):
            data = bytearray(pictures.png_of(pictures.png_chunks(bytes(data))))  # with the right checksums
    return name, bytes(data)


# Running


def run_case(data: bytes, rng: random.Random, blur: Callable[[bytes, Options], bytes]) -> str:
    """Return what came of one input: `ok`, the reason of a refusal, or what went wrong, with an exclamation mark."""
    options = Options(
        format=rng.choice((None, None, Format.PNG, Format.JPEG, Format.WEBP, Format.TIFF, Format.AVIF)),
        keep=frozenset(rng.sample(sorted({*Keep} - {Keep.AUTHOR}), rng.randrange(4))),
    )
    result = None
    try:
        result = blur(data, options)
    except EngineError as error:
        if isinstance(error.__cause__, MemoryError):
            return "! it was about to use far too much memory"
        outcome = error.reason
    except Exception as error:
        return f"! {type(error).__name__}: {error}"
    else:
        outcome = "ok"
        if pictures.MARKER in result and pictures.MARKER in data:
            return "! the marker is in the result"
        try:
            decode(result, LIMITS)
        except EngineError as error:
            return f"! the result cannot be read again: {error}"
    used = peak_memory()
    return outcome if used <= MAX_MEMORY else f"! {used // 1_000_000} MB of memory"


def _codec_only(data: bytes, options: Options) -> bytes:
    probe(data, LIMITS)
    picture = decode(data, LIMITS)
    for view in picture.views():
        if view.shape != (*picture.pixels.shape[:2], 3) or view.dtype != "uint8":
            raise AssertionError("a view is not an RGB picture")
    return encode(picture, options)[0]


def _whole_engine() -> Callable[[bytes, Options], bytes]:
    from faceblur_engine.pipeline import Engine

    engine = Engine()
    return lambda data, options: engine.redact(data, options).image


def _work(given: argparse.Namespace) -> None:
    """The child: one line before each case, one after it."""
    blur = _whole_engine() if given.detect else _codec_only
    if sys.platform == "linux" and not given.detect:
        # Protects the machine; what would have been taken counts as a failure. Models map more than this.
        resource.setrlimit(resource.RLIMIT_AS, (4 * MAX_MEMORY, 4 * MAX_MEMORY))
    for case in range(*given.work):
        print(json.dumps({"case": case}), flush=True)
        outcome = run_case(mutated(given.seed, case, given.only)[1], random.Random(case), blur)
        print(json.dumps({"case": case, "outcome": outcome, "memory": peak_memory()}), flush=True)


def _batch(given: argparse.Namespace, first: int, last: int) -> tuple[dict[int, str], int, int]:
    """Run cases in a child; return the outcomes, its peak memory in bytes, and where to go on."""
    command = [sys.executable, __file__, "--seed", str(given.seed), "--only", given.only]
    command += [*(["--detect"] if given.detect else []), "--work", str(first), str(last)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    ended = ""
    try:
        output, noise = child.communicate(timeout=60 + CASE_SECONDS * (last - first) / 20)
    except subprocess.TimeoutExpired:
        child.kill()
        output, noise = child.communicate()
        ended = "hangs"
    outcomes: dict[int, str] = {}
    memory, running = 0, first
    for line in output.decode().splitlines():
        report = json.loads(line)
        running = report["case"]
        if "outcome" in report:
            outcomes[running] = report["outcome"]
            memory = report["memory"]
    if child.returncode and running in outcomes:
        raise SystemExit(f"the fuzzer's child failed:\n{noise.decode(errors='replace')}")
    if child.returncode:
        said = noise.decode(errors="replace").strip().splitlines()
        outcomes[running] = f"! the process {ended or f'died with {child.returncode}'} {said[-1] if said else ''}"
    return outcomes, memory, running + 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases; return 1 if any of them failed."""
    parser = argparse.ArgumentParser(description="Feed damaged pictures to the engine.")
    parser.add_argument("--count", type=int, default=20_000, help="how many cases (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="which cases (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--batch", type=int, default=1000, help="cases for each process (default: %(default)s)")
    parser.add_argument("--case", type=int, help="run one case in this process, and save its input")
    parser.add_argument("--only", default="", help="only pictures whose name in the corpus starts with this")
    parser.add_argument("--detect", action="store_true", help="run the whole engine, not only its codec")
    parser.add_argument("--save", type=Path, default=ROOT / "build" / "fuzz", help="where failing inputs are saved")
    parser.add_argument("--work", type=int, nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.work:
        _work(given)
        return 0

    def save(case: int) -> Path:
        given.save.mkdir(parents=True, exist_ok=True)
        path: Path = given.save / f"seed{given.seed}-case{case}.bin"
        path.write_bytes(mutated(given.seed, case, given.only)[1])
        return path

    if given.case is not None:
        name, data = mutated(given.seed, given.case, given.only)
        print(f"made of {name!r}, {len(data)} bytes: {save(given.case)}")
        outcome = run_case(data, random.Random(given.case), _whole_engine() if given.detect else _codec_only)
        print(outcome)
        return outcome.startswith("!")

    started = time.monotonic()
    counts: Counter[str] = Counter()
    failures: dict[int, str] = {}
    peak, case, end = 0, given.first, given.first + given.count
    while case < end:
        outcomes, memory, case = _batch(given, case, min(case + given.batch, end))
        peak = max(peak, memory)
        for number, outcome in outcomes.items():
            counts["failed" if outcome.startswith("!") else outcome] += 1
            if outcome.startswith("!"):
                failures[number] = outcome
                print(f"\ncase {number} {outcome}\n  saved as {save(number)}", file=sys.stderr)
        done = case - given.first
        print(f"\r{done}/{given.count} cases, {done / (time.monotonic() - started):.0f}/s ", end="", file=sys.stderr)
    print(file=sys.stderr)
    for outcome, count in counts.most_common():
        print(f"{count:8} {outcome}")
    seconds = time.monotonic() - started
    print(f"peak memory {peak // 1_000_000} MB, {seconds:.0f} s, seed {given.seed}, {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
