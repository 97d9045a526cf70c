"""What a rerun repeats and what it leaves, and the state file that it knows this from."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from faceblur_cli import state
from faceblur_cli.exits import CannotGoOnError, Exit
from faceblur_cli.state import Entry, State, outputs_in, settings_of
from faceblur_engine.types import ModelInfo, Options
from support.fake_engine import FakeEngine

from .conftest import Outcome, Run, files_in, picture


@pytest.fixture
def done(faceblur: Run, photos: Path, out: Path) -> None:
    assert faceblur("blur", photos, "-o", out).code == Exit.OK


def counts(outcome: Outcome) -> tuple[int, int, int]:
    return outcome.summary["pictures"], outcome.summary["unchanged"], outcome.summary["failed"]


@pytest.mark.usefixtures("done")
class TestRerun:
    def test_what_is_done_is_not_repeated(self, faceblur: Run, engine: FakeEngine, photos: Path, out: Path) -> None:
        engine.seen.clear()
        outcome = faceblur("blur", photos, "-o", out, "--json")
        assert (outcome.code, counts(outcome), engine.seen) == (Exit.OK, (0, 3, 0), [])

    def test_force_repeats(self, faceblur: Run, photos: Path, out: Path) -> None:
        assert counts(faceblur("blur", photos, "-o", out, "--json", "--force")) == (3, 0, 0)

    def test_other_options_repeat(self, faceblur: Run, photos: Path, out: Path) -> None:
        assert counts(faceblur("blur", photos, "-o", out, "--json", "--cells", 4)) == (3, 0, 0)
        assert counts(faceblur("blur", photos, "-o", out, "--json", "--cells", 4)) == (0, 3, 0)

    def test_options_that_change_nothing_do_not_repeat(self, faceblur: Run, photos: Path, out: Path) -> None:
        same = ["--jobs", 2, "--threads", 1, "--runtime", "onnxruntime", "--cells", 8]
        assert counts(faceblur("blur", photos, "-o", out, "--json", *same)) == (0, 3, 0)

    def test_another_model_repeats(self, faceblur: Run, engine: FakeEngine, photos: Path, out: Path) -> None:
        engine.models = FakeEngine(version="2").models
        assert counts(faceblur("blur", photos, "-o", out, "--json")) == (3, 0, 0)

    def test_another_version_repeats(
        self, faceblur: Run, photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("faceblur_cli.redactor.__version__", "99")
        assert counts(faceblur("blur", photos, "-o", out, "--json")) == (3, 0, 0)

    def test_a_changed_source_is_repeated(self, faceblur: Run, photos: Path, out: Path) -> None:
        (photos / "a.jpg").write_bytes(picture(color="green", size=(48, 48)))
        assert counts(faceblur("blur", photos, "-o", out, "--json")) == (1, 2, 0)

    def test_a_source_of_the_same_size_and_other_content_is_repeated(
        self, faceblur: Run, photos: Path, out: Path
    ) -> None:
        content = bytearray((photos / "a.jpg").read_bytes())
        content[20] ^= 1
        (photos / "a.jpg").write_bytes(content)
        assert counts(faceblur("blur", photos, "-o", out, "--json")) == (1, 2, 0)

    @pytest.mark.parametrize("folder", ["photos", "out"])
    def test_a_copy_with_new_times_is_known_by_its_content(
        self, faceblur: Run, engine: FakeEngine, photos: Path, out: Path, folder: str
    ) -> None:
        engine.seen.clear()
        for path in (photos.parent / folder).rglob("*.*"):
            os.utime(path, ns=(1, 1))
        assert counts(faceblur("blur", photos, "-o", out, "--json")) == (0, 3, 0)
        assert engine.seen == []
        # The new times were noted: the second rerun need not read anything.
        (photos / "a.jpg").chmod(0)
        if not os.access(photos / "a.jpg", os.R_OK):
            return
        assert counts(faceblur("blur", photos, "-o", out, "--json")) == (0, 3, 0)

    def test_a_missing_or_changed_result_is_repeated(self, faceblur: Run, photos: Path, out: Path) -> None:
        (out / "a.jpg").unlink()
        (out / "b.png").write_bytes(b"")
        shutil.copyfile(photos / "trip" / "c.webp", out / "trip" / "c.webp")
        assert counts(faceblur("blur", photos, "-o", out, "--json")) == (3, 0, 0)

    def test_after_a_crash_in_the_midst_of_a_line_only_that_picture_is_repeated(
        self, faceblur: Run, photos: Path, out: Path
    ) -> None:
        file = out / state.NAME
        lines = file.read_bytes().splitlines(keepends=True)
        (out / json.loads(lines[-1])["out"]).unlink()  # it would have got its name after its line was written
        file.write_bytes(b"".join(lines[:-1]) + lines[-1][:-20])
        assert counts(faceblur("blur", photos, "-o", out, "--json")) == (1, 2, 0)
        assert all(json.loads(line) for line in file.read_text().splitlines())

    def test_without_its_state_a_folder_is_not_overwritten(self, faceblur: Run, photos: Path, out: Path) -> None:
        (out / state.NAME).unlink()
        assert counts(faceblur("blur", photos, "-o", out, "--json")) == (0, 0, 3)
        assert counts(faceblur("blur", photos, "-o", out, "--json", "--force")) == (3, 0, 0)

    def test_the_state_names_version_options_and_models(self, out: Path) -> None:
        first = json.loads((out / state.NAME).read_text().splitlines()[0])
        assert first["options"]["cells"] == 8
        assert first["version"]
        assert list(first["models"]) == ["fake"]

    def test_a_second_run_into_the_same_folder_is_refused(self, faceblur: Run, photos: Path, out: Path) -> None:
        held = State(out, settings_of("1", Options(), ()))
        try:
            outcome = faceblur("blur", photos, "-o", out)
        finally:
            held.close()
        assert outcome.code == Exit.CANNOT
        assert "another faceblur writes to" in outcome.err


def entry(out: str, size: int = 1) -> Entry:
    return Entry(out, "s", size, 2, "a", 3, 4, "b")


SETTINGS = settings_of("1", Options(), [ModelInfo("m", "1", "r")])


def test_the_last_line_about_a_result_holds_after_reopening(tmp_path: Path) -> None:
    first = State(tmp_path, SETTINGS)
    for size in (1, 2):
        first.note(entry("a.jpg", size))
    first.close()
    second = State(tmp_path, SETTINGS)
    assert second.find("a.jpg") == entry("a.jpg", 2)
    assert second.find("b.jpg") is None
    second.close()


def test_a_state_file_with_many_dead_lines_is_compacted_and_stays_locked(tmp_path: Path) -> None:
    first = State(tmp_path, SETTINGS)
    for size in range(1100):
        first.note(entry("a.jpg", size))
    first.note(entry(os.fsdecode(b"\xff.jpg")))
    first.close()
    before = (tmp_path / state.NAME).stat().st_size
    second = State(tmp_path, SETTINGS)
    assert (tmp_path / state.NAME).stat().st_size < before / 100
    assert second.find("a.jpg") == entry("a.jpg", 1099)
    assert set(outputs_in(tmp_path)) == {"a.jpg", os.fsdecode(b"\xff.jpg")}
    with pytest.raises(CannotGoOnError, match="another faceblur"):
        State(tmp_path, SETTINGS)
    second.note(entry("c.jpg"))
    second.close()
    assert files_in(tmp_path) == [state.NAME]
    third = State(tmp_path, SETTINGS)
    assert third.find("c.jpg") == entry("c.jpg")
    third.close()


def test_lines_that_are_not_ours_are_ignored(tmp_path: Path) -> None:
    (tmp_path / state.NAME).write_bytes(b'[1]\nnot json\n{"out": 5}\n{"settings": "x", "format": 9}\n\xff\xfe\n')
    opened = State(tmp_path, SETTINGS)
    assert opened.find("a.jpg") is None
    opened.close()


def test_settings_differ_exactly_when_results_may() -> None:
    base = settings_of("1", Options(), [ModelInfo("m", "1", "openvino bf16")])["settings"]
    assert base == settings_of("1", Options(), [ModelInfo("m", "1", "onnxruntime f32")])["settings"]
    assert base != settings_of("2", Options(), [ModelInfo("m", "1", "openvino bf16")])["settings"]
    assert base != settings_of("1", Options(cells=7), [ModelInfo("m", "1", "openvino bf16")])["settings"]
    assert base != settings_of("1", Options(), [ModelInfo("m", "2", "openvino bf16")])["settings"]
