"""The manifest: whatever is altered is found, and the first such line is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faceblur_batch.manifest import CHECKPOINT, ManifestWriter, Receipts, part_name, parts_beside, receipts_in, verify
from faceblur_batch.planner import Phase
from support.batches import Batch


def written(folder: Path, lines: int = 30, part_bytes: int = 2000) -> dict[str, Any]:
    """A manifest in parts; returns its root."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = ManifestWriter(lambda name, data: (folder / name).write_bytes(data) and None, part_bytes)
    writer.add({"manifest": 1, "job": "test"})
    for number in range(lines):
        writer.add({"key": f"{number:04d} ü.jpg", "kind": "blurred", "faces": number})
    return writer.close({"objects": lines})


def checked(folder: Path, root: Any = None) -> tuple[str, int] | None:
    """Where the manifest is altered; None: nowhere."""
    result = verify(parts_beside(folder / part_name(0)), root)
    return None if result.intact else (Path(result.part).name, result.line)


def test_what_was_written_is_intact(tmp_path: Path) -> None:
    root = written(tmp_path)
    assert len(root["parts"]) > 2
    result = verify(parts_beside(tmp_path / part_name(0)), root)
    assert result.intact
    assert (result.lines, result.root) == (root["lines"], root["root"])
    assert root["lines"] == 32
    assert verify(parts_beside(tmp_path / part_name(0)), root["root"]).intact


@given(st.data())
def test_any_altered_byte_is_found_and_its_line_named(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    folder = tmp_path_factory.mktemp("manifest")
    written(folder)
    part = data.draw(st.sampled_from(parts_beside(folder / part_name(0))))
    content = bytearray(part.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    line = content[:at].count(b"\n") + 1
    content[at] ^= data.draw(st.integers(1, 255))
    part.write_bytes(content)
    assert checked(folder) == (part.name, line)


def lines_of(folder: Path, name: str = "manifest.jsonl") -> list[bytes]:
    return (folder / name).read_bytes().splitlines(keepends=True)


def test_a_line_that_is_gone_doubled_or_moved_is_found(tmp_path: Path) -> None:
    for change, expected in (
        (lambda lines: lines[:3] + lines[4:], 4),
        (lambda lines: [*lines[:4], lines[3], *lines[4:]], 5),
        (lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]], 4),
    ):
        written(tmp_path)
        part = tmp_path / part_name(0)
        part.write_bytes(b"".join(change(lines_of(tmp_path))))
        assert checked(tmp_path) == (part.name, expected)


def test_of_several_altered_lines_the_first_is_named(tmp_path: Path) -> None:
    written(tmp_path)
    lines = lines_of(tmp_path)
    for number in (3, 4, 6):
        lines[number] = lines[number].replace(b"blurred", b"no_face")
    (tmp_path / part_name(0)).write_bytes(b"".join(lines))
    assert checked(tmp_path) == ("manifest.jsonl", 4)


def test_a_part_that_is_gone_is_found(tmp_path: Path) -> None:
    root = written(tmp_path)
    (tmp_path / root["parts"][-1]["name"]).unlink()
    assert checked(tmp_path) is not None
    written(tmp_path)
    assert verify([tmp_path / part_name(1)]).line == 1


def test_a_manifest_that_was_rewritten_is_only_found_by_the_root_that_was_kept(tmp_path: Path) -> None:
    root = written(tmp_path / "kept", lines=CHECKPOINT * 3, part_bytes=1 << 20)
    writer = ManifestWriter(lambda name, data: (tmp_path / name).write_bytes(data) and None)
    writer.add({"manifest": 1, "job": "test"})
    for number in range(CHECKPOINT * 3):
        faces = 0 if number == 1500 else number
        writer.add({"key": f"{number:04d} ü.jpg", "kind": "blurred", "faces": faces})
    writer.close({"objects": CHECKPOINT * 3})
    assert checked(tmp_path) is None
    assert checked(tmp_path, root["root"]) is not None
    assert checked(tmp_path, root) == ("manifest.jsonl", 2 * CHECKPOINT)


def test_the_receipts_of_a_job_are_in_its_manifest() -> None:
    batch = Batch(5)
    assert batch.run() is Phase.COMPLETED
    lines = [json.loads(line) for line in (batch.ledger.get("manifest.jsonl") or b"").splitlines()]
    assert lines[0]["manifest"] == 1
    assert lines[0]["options_sha256"] == batch.generation.options_sha256
    assert lines[0]["models"] == batch.generation.models
    receipt = lines[1]
    assert receipt["key"] == "folder/0000.png"
    assert receipt["output"] == "folder/0000.png"
    assert receipt["etag"] == batch.source.head("folder/0000.png").etag
    assert receipt["faces"] == 1
    assert receipt["version"] == "1.0"
    assert receipt["models"] == ["0" * 64]
    assert lines[-1]["end"]["objects"] == 5


def test_a_manifest_that_is_made_again_is_the_same() -> None:
    batch = Batch(12)
    assert batch.run() is Phase.COMPLETED
    first = batch.ledger.get("manifest.jsonl")
    batch.destination.delete(batch.ledger.prefix + "root.json")
    batch.die()
    assert batch.run() is Phase.COMPLETED
    assert batch.ledger.get("manifest.jsonl") == first


def test_receipts_are_found_in_the_order_of_keys() -> None:
    batch = Batch(9)
    assert batch.run() is Phase.COMPLETED
    receipts = Receipts(receipts_in(batch.ledger), behind="folder/0002.png")
    assert receipts.of("folder/0003.png") is not None
    assert receipts.of("folder/0003z.png") is None
    found = receipts.of("folder/0008.png")
    assert found is not None
    assert found["key"] == "folder/0008.png"
    assert receipts.of("zz") is None
