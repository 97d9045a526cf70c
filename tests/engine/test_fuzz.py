"""A short run of the fuzzer: that it works, and that the cases which once failed no longer do."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from faceblur_engine.codec import decode
from faceblur_engine.errors import UnreadableImage
from faceblur_engine.types import Limits
from support import pictures
from support.memory import peak_memory


@pytest.fixture(scope="module")
def fuzzer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_engine", Path(__file__).parents[1] / "fuzz" / "fuzz_engine.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_damaged_pictures_give_a_result_or_a_typed_refusal(fuzzer: ModuleType, tmp_path: Path) -> None:
    assert fuzzer.main(["--count", "400", "--seed", "11", "--save", str(tmp_path)]) == 0
    assert not list(tmp_path.iterdir())


def test_a_child_is_not_charged_with_what_this_process_has_used(
    fuzzer: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    used = np.ones(300_000_000, np.uint8)
    assert peak_memory() > used.nbytes

    assert fuzzer.main(["--count", "1", "--only", "png"]) == 0
    reported = re.search(r"peak memory (\d+) MB", capsys.readouterr().out)
    assert reported is not None
    assert 10 < int(reported[1]) < 300


def test_a_case_is_a_function_of_its_number(fuzzer: ModuleType) -> None:
    assert fuzzer.mutated(3, 14) == fuzzer.mutated(3, 14)
    assert fuzzer.mutated(3, 14) != fuzzer.mutated(3, 15)


def test_what_fails_is_reported_and_saved(
    fuzzer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fuzzer, "_batch", lambda given, first, last: ({first: "! the process died"}, 1000, last))

    assert fuzzer.main(["--count", "3", "--save", str(tmp_path)]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["seed1-case0.bin"]
    assert "1 failures" in capsys.readouterr().out


@pytest.mark.parametrize("name", [b"E\xff\xfff", b"Ex\xc3\xa9", b"Ex\xc3("])
def test_a_heic_with_names_that_are_no_text_is_refused(name: bytes) -> None:
    # The decoder crashed on the first of these.
    broken = pictures.heic().replace(b"\0Exif\0", b"\0" + name + b"\0", 1)

    assert name in broken
    with pytest.raises(UnreadableImage):
        decode(broken, Limits())
