"""The manifest of a generation: a receipt per object, chained by SHA-256, so that nothing in it can be altered unseen.

Every line is a JSON object whose last two members are ``prev``, the hash of the line before, and ``sha256``, its own:
of its bytes up to that member. The first line says what the generation is, the last one what it came to. `root.json`
has the last line's hash, the *root*: who keeps that elsewhere can prove the whole. It also has the hash of every
1,000th line, which narrows down where a manifest was rewritten. Large manifests are in parts; the chain goes on in
the next part.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any

from .ledger import Ledger, dump_json

FORMAT = 1
FIRST = "0" * 64
PART_BYTES = 16 * 1024 * 1024
CHECKPOINT = 1000
_OWN = b',"sha256":"'
_TAIL = len(_OWN) + 64 + 2


def part_name(number: int, stem: str = "manifest") -> str:
    """What a part of a manifest is called, from 0."""
    return f"{stem}.jsonl" if number == 0 else f"{stem}.{number:05d}.jsonl"


class ManifestWriter:
    """Chains lines and writes them in parts; holds one part."""

    def __init__(
        self, put: Callable[[str, bytes], None], part_bytes: int = PART_BYTES, *, stem: str = "manifest"
    ) -> None:
        """Begin a manifest.

        Args:
            put: Writes a part: name and content.
            part_bytes: A part ends with the line that goes over this length.
            stem: What names of parts begin with.
        """
        self._put = put
        self._stem = stem
        self._part_bytes = part_bytes
        self._buffer = bytearray()
        self._last = FIRST
        self._lines = 0
        self._parts: list[dict[str, Any]] = []
        self._checkpoints: list[str] = []

    def add(self, values: dict[str, Any]) -> None:
        """Add a line."""
        line, self._last = _sealed(values, self._last)
        self._lines += 1
        if self._lines % CHECKPOINT == 0:
            self._checkpoints.append(self._last)
        self._buffer += line + b"\n"
        if len(self._buffer) >= self._part_bytes:
            self._flush()

    def close(self, values: dict[str, Any]) -> dict[str, Any]:
        """Add the last line, and return what `root.json` says of the chain."""
        self.add({"end": values, "lines": self._lines + 1})
        if self._buffer:
            self._flush()
        return {
            "root": self._last,
            "lines": self._lines,
            "parts": self._parts,
            "checkpoints": self._checkpoints,
        }

    def _flush(self) -> None:
        name = part_name(len(self._parts), self._stem)
        self._put(name, bytes(self._buffer))
        self._parts.append({"name": name, "last": self._last, "lines": self._lines})
        self._buffer.clear()


def receipts_in(ledger: Ledger, stem: str = "manifest") -> Iterator[dict[str, Any]]:
    """The receipts of a complete generation, in the order of keys.

    Args:
        ledger: Of the generation.
        stem: Of the names of the parts.
    """
    number = 0
    while (data := ledger.get(part_name(number, stem))) is not None:
        for raw in data.splitlines():
            line: dict[str, Any] = json.loads(raw)
            if "key" in line:
                yield line
        number += 1


class Receipts:
    """Receipts, looked up in the order of keys."""

    def __init__(self, receipts: Iterator[dict[str, Any]], *, behind: str = "") -> None:
        """Begin a walk through receipts.

        Args:
            receipts: In the order of keys, such as `receipts_in` gives them.
            behind: Keys up to this one are not asked for.
        """
        self._lines = receipts
        self._next: dict[str, Any] | None = None
        if behind:
            self.of(behind)

    def of(self, key: str) -> dict[str, Any] | None:
        """The receipt of an object; keys have to be asked for in ascending order of their UTF-8 bytes."""
        wanted = order(key)
        while self._next is None or order(self._next["key"]) < wanted:
            self._next = next(self._lines, None)
            if self._next is None:
                return None
        return self._next if self._next["key"] == key else None


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether a manifest is what was written.

    Attributes:
        lines: That were read.
        root: Hash of the last one.
        problem: What is wrong, for a person; empty: nothing.
        part: The file of the first line that is not as it was written; empty: there is none.
        line: Its number in that file, from 1; 0: there is none.
    """

    lines: int
    root: str
    problem: str = ""
    part: str = ""
    line: int = 0

    @property
    def intact(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problem


def parts_beside(manifest: Path) -> list[Path]:
    """A manifest's parts, in order: the file itself and those beside it that go on."""
    if manifest.name != part_name(0):
        return [manifest]
    parts = [manifest]
    while (following := manifest.with_name(part_name(len(parts)))).exists():
        parts.append(following)
    return parts


def verify(parts: Sequence[Path], root: dict[str, Any] | str | None = None) -> Verification:
    """Read a manifest and find the first line that is not as it was written.

    Args:
        parts: Its files, in order.
        root: What was kept: the content of `root.json`, or the root alone. None: the chain is checked in itself only.

    Raises:
        OSError: A file cannot be read.
    """
    kept = root if isinstance(root, dict) else {"root": root} if root else {}
    checkpoints: Sequence[str] = kept.get("checkpoints", ())
    count, last, end = 0, FIRST, False
    part, number = Path(), 0
    for part in parts:
        number = 0
        with part.open("rb") as file:
            for raw in file:
                number, count = number + 1, count + 1
                prev, own, kind = _unsealed(raw)
                checked = count // CHECKPOINT if count % CHECKPOINT == 0 else 0
                problem, end = "", kind is _Line.CLOSING
                if kind is _Line.ALTERED:
                    problem = "it was altered, or it is not of a manifest"
                elif prev != last:
                    problem = "it does not follow the line before: lines are missing, added or in another order"
                elif 0 < checked <= len(checkpoints) and checkpoints[checked - 1] != own:
                    problem = f"it or one of the {CHECKPOINT - 1} before it was rewritten, with everything that follows"
                if problem:
                    return Verification(count, last, problem, str(part), number)
                last = own
    if not end:
        return Verification(count, last, "the manifest is cut off: its closing line is missing", str(part), number)
    if kept and kept["root"] != last:
        return Verification(
            count, last, "the chain is consistent but its root is not the one kept: it was rewritten", str(part), number
        )
    return Verification(count, last)


def _sealed(values: dict[str, Any], prev: str) -> tuple[bytes, str]:
    """A line and its hash."""
    body = dump_json(values)[:-1] + b',"prev":"' + prev.encode() + b'"'
    digest = hashlib.sha256(body).hexdigest()
    return body + _OWN + digest.encode() + b'"}', digest


class _Line(Enum):
    RECEIPT = auto()
    CLOSING = auto()
    ALTERED = auto()


def _unsealed(raw: bytes) -> tuple[str, str, _Line]:
    """The hash of the line before, its own, and what the line is."""
    line = raw.removesuffix(b"\n")
    body, own = line[:-_TAIL], line[-66:-2].decode("ascii", "replace")
    prev = re.search(rb',"prev":"([0-9a-f]{64})"$', body)
    if (
        prev is None
        or raw == line
        or line[-_TAIL:] != _OWN + own.encode("ascii", "replace") + b'"}'
        or hashlib.sha256(body).hexdigest() != own
    ):
        return "", "", _Line.ALTERED
    return prev[1].decode(), own, _Line.CLOSING if body.startswith(b'{"end":') else _Line.RECEIPT


def order(key: str) -> bytes:
    """What keys are sorted by; names of files that are no UTF-8 come as Python has them."""
    return key.encode("utf-8", "surrogateescape")
