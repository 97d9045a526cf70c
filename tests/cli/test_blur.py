"""`faceblur blur`: what it writes, what it leaves alone, how it ends."""

from __future__ import annotations

import errno
import io
import json
import os
import stat
from pathlib import Path

import pytest
from PIL import Image

from faceblur_cli import files
from faceblur_cli.exits import Exit
from faceblur_engine.errors import ModelError, RuntimeUnavailable, VerificationFailed
from support.fake_engine import COLOR, FakeEngine

from .conftest import Run, files_in, kind_of, picture

STATE = "faceblur-state.jsonl"


def test_a_folder_is_processed_with_its_tree(faceblur: Run, photos: Path, out: Path) -> None:
    outcome = faceblur("blur", photos, "-o", out)
    assert outcome.code == Exit.OK
    assert files_in(out) == ["a.jpg", "b.png", STATE, "trip/c.webp"]
    assert "3 pictures, 3 faces, 1 other file skipped" in outcome.err
    assert outcome.out == ""


def test_originals_are_not_touched(faceblur: Run, photos: Path, out: Path) -> None:
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in photos.rglob("*.*")}
    faceblur("blur", photos, "-o", out)
    faceblur("blur", photos, "-o", out, "--force")
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in photos.rglob("*.*")}


def test_results_have_the_mode_that_the_umask_gives(faceblur: Run, photos: Path, out: Path) -> None:
    (photos / "a.jpg").chmod(0o600)
    before = os.umask(0o027)
    try:
        faceblur("blur", photos / "a.jpg", "-o", out)
    finally:
        os.umask(before)
    assert stat.S_IMODE((out / "a.jpg").stat().st_mode) == 0o640


def test_several_folders_keep_their_names(faceblur: Run, photos: Path, out: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.jpg").write_bytes(picture())
    faceblur("blur", photos, other, photos / "b.png", "-o", out)
    assert files_in(out) == ["b.png", STATE, "other/a.jpg", "photos/a.jpg", "photos/b.png", "photos/trip/c.webp"]


def test_one_picture_can_go_to_a_file_whose_extension_decides_the_format(
    faceblur: Run, photos: Path, tmp_path: Path
) -> None:
    assert faceblur("blur", photos / "a.jpg", "-o", tmp_path / "new" / "x.png").code == Exit.OK
    assert kind_of(tmp_path / "new" / "x.png") == "PNG"
    assert files_in(tmp_path / "new") == ["x.png"]


def test_a_file_that_is_there_is_not_replaced_unless_forced(faceblur: Run, photos: Path, out: Path) -> None:
    out.mkdir()
    (out / "a.jpg").write_text("precious")
    (out / "x.jpg").write_text("precious")
    for target in (out, out / "x.jpg"):
        outcome = faceblur("blur", photos / "a.jpg", "-o", target)
        assert outcome.code == Exit.SOME_FAILED
        assert "OUTPUT_EXISTS" in outcome.err
    assert (out / "a.jpg").read_text() == (out / "x.jpg").read_text() == "precious"
    assert faceblur("blur", photos / "a.jpg", "-o", out, "--force").code == Exit.OK
    assert (out / "a.jpg").read_text(errors="replace") != "precious"


def test_bad_files_are_reported_and_the_others_go_on(faceblur: Run, photos: Path, out: Path) -> None:
    (photos / "text.jpg").write_text("I am no picture")
    (photos / "empty.jpg").touch()
    (photos / "gone.jpg").symlink_to("nowhere")
    (photos / "round.jpg").symlink_to("round.jpg")
    (photos / "huge.jpg").write_bytes(picture() + bytes(5000))
    os.mkfifo(photos / "pipe.jpg")
    outcome = faceblur("blur", photos, photos / "not-there.jpg", "-o", out, "--json", "--max-bytes", "4K")
    assert outcome.code == Exit.SOME_FAILED
    reasons = {Path(line["file"]).name: line.get("reason") for line in outcome.lines if line.get("status") == "failed"}
    assert reasons == {
        "not-there.jpg": "NOT_FOUND",
        "text.jpg": "UNSUPPORTED_FORMAT",
        "empty.jpg": "EMPTY_IMAGE",
        "gone.jpg": "BROKEN_LINK",
        "round.jpg": "BROKEN_LINK",
        "huge.jpg": "LIMIT_EXCEEDED",
        "pipe.jpg": "NOT_A_FILE",
    }
    assert outcome.summary["pictures"] == 3
    assert files_in(out) == ["a.jpg", "b.png", STATE, "trip/c.webp"]


def test_a_fault_in_the_engine_fails_one_picture_and_says_nothing_of_what_is_in_it(
    faceblur: Run, engine: FakeEngine, photos: Path, out: Path
) -> None:
    def fail_on_png(data: bytes) -> None:
        if data.startswith(b"\x89PNG"):
            raise ZeroDivisionError("secret")

    engine.hook = fail_on_png
    outcome = faceblur("blur", photos, "-o", out)
    assert outcome.code == Exit.SOME_FAILED
    assert "b.png: a fault in faceblur (ZeroDivisionError in " in outcome.err
    assert "secret" not in outcome.err
    assert files_in(out) == ["a.jpg", STATE, "trip/c.webp"]


@pytest.mark.parametrize("error", [ModelError("the model is broken"), RuntimeUnavailable("no runtime")])
def test_an_unusable_engine_ends_the_run(
    faceblur: Run, engine: FakeEngine, photos: Path, out: Path, error: Exception
) -> None:
    def fail(data: bytes) -> None:
        raise error

    engine.hook = fail
    outcome = faceblur("blur", photos, "-o", out, "--jobs", 1)
    assert outcome.code == Exit.CANNOT
    assert outcome.err.splitlines()[-1] == f"faceblur: {error}"
    assert len(engine.seen) == 1


def test_content_decides_and_a_wrong_extension_is_a_warning(faceblur: Run, photos: Path, out: Path) -> None:
    (photos / "a.jpg").write_bytes(picture("PNG"))
    outcome = faceblur("blur", photos, "-o", out, "--json")
    assert outcome.code == Exit.OK
    assert outcome.of("a.jpg")["warning"] == "its content is PNG, not what its name says; its result's is too"
    assert "warning" not in outcome.of("b.png")
    assert kind_of(out / "a.jpg") == "PNG"


def test_a_named_file_is_tried_whatever_it_is_called(faceblur: Run, photos: Path, out: Path) -> None:
    (photos / "scan").write_bytes(picture())
    (photos / "backup.old").write_bytes(picture())
    assert faceblur("blur", photos / "scan", photos / "backup.old", "-o", out, "--format", "png").code == Exit.OK
    assert files_in(out) == ["backup.old.png", STATE, "scan.png"]


def test_a_converted_picture_makes_way_for_one_that_has_the_name(faceblur: Run, tmp_path: Path, out: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, kind in (("a.jpg", "JPEG"), ("a.png", "PNG"), ("b.png", "PNG"), ("c.png", "PNG"), ("c.webp", "WEBP")):
        (folder / name).write_bytes(picture(kind))
    assert faceblur("blur", folder, "-o", out, "--format", "jpeg").code == Exit.OK
    assert files_in(out) == ["a.jpg", "a.png.jpg", "b.jpg", "c.png.jpg", "c.webp.jpg", STATE]
    assert faceblur("blur", folder / "a.jpg", folder / "a.png", "-o", tmp_path / "two", "--format", "jpeg").code == 0
    assert files_in(tmp_path / "two") == ["a.jpg", "a.png.jpg", STATE]


def test_two_named_files_with_one_result_are_refused_before_anything_is_written(
    faceblur: Run, photos: Path, out: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other" / "photos"
    other.mkdir(parents=True)
    (other / "a.jpg").write_bytes(picture())
    for pair in ((photos / "a.jpg", other / "a.jpg"), (photos, other)):
        outcome = faceblur("blur", *pair, "-o", out)
        assert outcome.code == Exit.USAGE
        assert all(str(path) in outcome.err for path in pair)
    assert not out.exists()


def test_the_same_path_twice_is_one_picture(faceblur: Run, photos: Path, out: Path) -> None:
    outcome = faceblur("blur", photos / "a.jpg", photos / "a.jpg", photos / "*.jpg", "-o", out, "--json")
    assert outcome.summary["pictures"] == 1


def test_results_may_lie_in_the_input_folder_and_are_never_input(faceblur: Run, photos: Path) -> None:
    for name in ("blurred", "blurred", "again"):
        outcome = faceblur("blur", photos, "-o", photos / name, "--force", "--json")
        assert outcome.code == Exit.OK
        assert outcome.summary["pictures"] == 3
    assert files_in(photos / "again") == ["a.jpg", "b.png", STATE, "trip/c.webp"]
    assert outcome.of("blurred/trip/c.webp")["reason"] == "OUTPUT"
    assert outcome.of("photos/again")["message"] == "it is the folder of the results"


def test_earlier_results_are_no_input_even_when_their_folder_is_named(faceblur: Run, photos: Path, out: Path) -> None:
    faceblur("blur", photos, "-o", out)
    for folder in (out, out / "trip"):
        outcome = faceblur("blur", folder, "-o", out.with_name("twice"))
        assert outcome.code == Exit.CANNOT
        assert "no picture found" in outcome.err
    (out / "new.jpg").write_bytes(picture())
    outcome = faceblur("blur", out, "-o", out.with_name("thrice"), "--json")
    assert (outcome.summary["pictures"], outcome.of("new.jpg")["status"]) == (1, "done")


def test_the_input_folder_or_one_above_it_cannot_take_the_results(
    faceblur: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    Path("link").symlink_to("photos")
    for out in ("photos", "photos/trip/..", "link", "."):
        outcome = faceblur("blur", "photos", "-o", out)
        assert outcome.code == Exit.USAGE
        assert "results would mix with originals" in outcome.err
    assert files_in(photos) == ["a.jpg", "b.png", "notes.txt", "trip/c.webp"]


def test_a_result_never_replaces_its_original(faceblur: Run, photos: Path, out: Path) -> None:
    original = (photos / "a.jpg").read_bytes()
    out.mkdir()
    os.link(photos / "a.jpg", out / "a.jpg")
    (out / "link.jpg").symlink_to(photos / "a.jpg")
    for target in (photos, photos / "a.jpg", out, out / "link.jpg"):
        outcome = faceblur("blur", photos / "a.jpg", "-o", target, "--force")
        assert outcome.code == Exit.SOME_FAILED
        assert "SAME_FILE" in outcome.err
        assert (photos / "a.jpg").read_bytes() == original


def test_links_to_folders_are_followed_on_request_and_loops_end(faceblur: Run, photos: Path, tmp_path: Path) -> None:
    (photos / "trip" / "up").symlink_to(photos)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "d.jpg").write_bytes(picture())
    (photos / "album").symlink_to(outside)
    outcome = faceblur("blur", photos, "-o", tmp_path / "1", "--json")
    assert outcome.code == Exit.OK
    assert outcome.of("album")["reason"] == outcome.of("up")["reason"] == "LINKED_FOLDER"
    outcome = faceblur("blur", photos, "-o", tmp_path / "2", "--json", "--follow-links")
    assert outcome.of("up")["reason"] == "LOOP"
    assert files_in(tmp_path / "2") == ["a.jpg", "album/d.jpg", "b.png", STATE, "trip/c.webp"]


def test_a_name_that_is_not_utf8_goes_through(faceblur: Run, tmp_path: Path, out: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    name = os.fsdecode(b"caf\xe9\x1b[31m.jpg")
    try:
        (folder / name).write_bytes(picture())
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    (folder / os.fsdecode(b"bad\xff.jpg")).write_text("no picture")
    report, receipts = tmp_path / "r.html", tmp_path / "r.jsonl"
    outcome = faceblur("blur", folder, "-o", out, "--report", report, "--receipts", receipts)
    assert outcome.code == Exit.SOME_FAILED
    assert r"bad\xff.jpg: the content is not" in outcome.err
    assert (out / name).exists()
    assert {Path(json.loads(line)["file"]).name for line in receipts.read_text().splitlines()} == {
        name,
        os.fsdecode(b"bad\xff.jpg"),
    }
    assert r"caf\xe9\x1b[31m.jpg" in report.read_text()
    assert faceblur("blur", folder, "-o", out, "--json").of("m.jpg")["status"] == "unchanged"


def test_a_glob_that_no_shell_expanded_is_expanded(faceblur: Run, photos: Path, out: Path) -> None:
    (photos / "[1].jpg").write_bytes(picture())
    faceblur("blur", photos / "**" / "*.webp", photos / "[1].jpg", "-o", out)
    assert files_in(out) == ["[1].jpg", "c.webp", STATE]


def test_nothing_found_is_an_error(faceblur: Run, engine: FakeEngine, tmp_path: Path, out: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert faceblur("blur", tmp_path / "empty", "-o", out).code == Exit.CANNOT
    outcome = faceblur("blur", tmp_path / "typo", tmp_path / "*.gif", "-o", tmp_path / "out2")
    assert outcome.code == Exit.CANNOT
    assert "typo" in outcome.err
    assert not (tmp_path / "out2").exists()


def test_a_full_disk_stops_the_run_and_leaves_no_half_file(
    faceblur: Run, engine: FakeEngine, photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write

    def full(fd: int, data: bytes | memoryview) -> int:
        if bytes(data[:4]) == b"\x89PNG":
            write(fd, data[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, data)

    monkeypatch.setattr(files.os, "write", full)
    outcome = faceblur("blur", photos, "-o", out, "--jobs", 1)
    assert outcome.code == Exit.CANNOT
    assert "stopped; 1 picture, 1 face" in outcome.err
    assert outcome.err.splitlines()[-1] == f"faceblur: cannot write to {out}: No space left on device"
    assert files_in(out) == ["a.jpg", STATE]


def test_a_result_that_cannot_be_written_fails_alone(faceblur: Run, photos: Path, out: Path) -> None:
    (out / "b.png").mkdir(parents=True)
    (out / "trip").write_text("a file where a folder has to be")
    outcome = faceblur("blur", photos, "-o", out, "--force", "--json")
    assert outcome.code == Exit.SOME_FAILED
    assert outcome.of("b.png")["reason"] == outcome.of("c.webp")["reason"] == "WRITE_FAILED"
    assert files_in(out) == ["a.jpg", STATE, "trip"]


def test_nothing_is_written_when_verification_fails(faceblur: Run, engine: FakeEngine, photos: Path, out: Path) -> None:
    faceblur("blur", photos, "-o", out)
    earlier = (out / "a.jpg").stat()

    def fail(data: bytes) -> None:
        raise VerificationFailed("a face was found")

    engine.hook = fail
    outcome = faceblur("blur", photos, "-o", out, "--verify", "--json")
    assert outcome.summary["failed"] == 3
    assert outcome.of("a.jpg")["message"] == "a face was found; the result of an earlier run was left as it is"
    assert (out / "a.jpg").stat().st_mtime_ns == earlier.st_mtime_ns


def test_a_folder_without_permission_is_reported(
    faceblur: Run, photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if path == photos / "trip":  # root, whom tests may run as, is refused nothing
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    outcome = faceblur("blur", photos, "-o", out, "--json")
    assert outcome.code == Exit.SOME_FAILED
    assert outcome.of("trip")["reason"] == "NO_PERMISSION"
    assert outcome.of("trip")["message"] == "no permission to read it; nothing in it was processed"
    assert outcome.summary["pictures"] == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a.jpg"], "Give a folder with -o"),
        (["a.jpg", "-o", ""], "OUT is empty"),
        (["", "-o", "out"], "a path is empty"),
        (["a.jpg", "b.png", "-o", "x.jpg"], "takes one picture"),
        (["a.jpg", "-o", "x.heic"], "HEIC can be read but not written"),
        (["a.jpg", "-o", "x.png", "--format", "jpeg"], "contradict"),
        (["a.jpg", "-o", "notes.txt"], "is a file"),
        (["a.jpg", "b.png", "-o", "-"], "-o - writes one picture"),
        (["a.jpg", "-o", "-", "--json"], "both write to stdout"),
        (["-", "a.jpg", "-o", "out"], "goes alone"),
        (["-", "-o", "out"], "has no name"),
        (["a.jpg", "-o", "out", "--cells", "9"], "--cells is 9, it has to be between 1 and 8"),
        (["a.jpg", "-o", "out", "--max-face", "5", "--min-face", "9"], "--max-face 5 is below --min-face 9"),
        (["a.jpg", "-o", "out", "--report", "a.jpg"], "has to end in .html"),
        (["a.jpg", "-o", "out", "--receipts", "a.jpg"], "holds something else"),
        (["a.jpg", "-o", "out", "--names-key", "a.jpg"], "--names-key is for --names hash"),
    ],
)
def test_what_makes_no_sense_is_refused(
    faceblur: Run, photos: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(photos)
    outcome = faceblur("blur", *arguments)
    assert outcome.code == Exit.USAGE
    assert words in outcome.err
    assert files_in(photos) == ["a.jpg", "b.png", "notes.txt", "trip/c.webp"]


def test_jobs_and_threads_share_the_cores(
    faceblur: Run, engine: FakeEngine, photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faceblur_cli.arguments.granted_cores", lambda: 6)
    for arguments, expected in (
        ([photos, "-o", out], (6, 1)),
        ([photos, "-o", out, "--jobs", 2], (2, 3)),
        ([photos, "-o", out, "--jobs", 4, "--threads", 2], (4, 2)),
        ([photos / "a.jpg", "-o", out], (1, 6)),
    ):
        faceblur("blur", *arguments)
        assert (engine.opened["concurrency"], engine.opened["threads"]) == expected


def test_the_result_is_what_the_engine_returned(faceblur: Run, photos: Path, out: Path) -> None:
    faceblur("blur", photos, "-o", out)
    with Image.open(io.BytesIO((out / "b.png").read_bytes())) as result:
        assert result.getpixel((0, 0)) == COLOR
