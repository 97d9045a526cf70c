"""A folder does what a bucket does, and stays a folder."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC
from pathlib import Path

import pytest

from faceblur_batch.errors import (
    AccessDenied,
    AlreadyExists,
    InvalidLocation,
    KeyRefused,
    LocationNotFound,
    NotFound,
    ObjectChanged,
    StorageFailure,
    StoreFull,
    TransientStorageError,
)
from faceblur_batch.storage import folder
from faceblur_batch.storage.folder import FolderStore
from faceblur_batch.storage.keys import encode
from faceblur_batch.storage.probe import probe
from faceblur_batch.storage.store import Capabilities, ObjectHeaders, ObjectStore

HEADERS = ObjectHeaders("image/jpeg", "no-store", {"faceblur-source": '"abc"', "title": "a b"})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def store(root: Path) -> FolderStore:
    root.mkdir()
    return FolderStore(root)


def keys_of(store: ObjectStore, prefix: str = "", after: str | None = None) -> list[str]:
    return [info.key for info in store.list(prefix, after=after)]


def files_in(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_what_is_written_is_an_ordinary_file_and_comes_back_with_its_headers(store: FolderStore, root: Path) -> None:
    etag = store.put("a b/ü/1.jpg", b"picture", headers=HEADERS)
    assert (root / "a b/ü/1.jpg").read_bytes() == b"picture"
    found = store.get("a b/ü/1.jpg", if_match=etag)
    assert found.data == b"picture"
    assert found.info == store.head("a b/ü/1.jpg")
    assert (found.info.size, found.info.etag, found.info.headers) == (7, etag, HEADERS)
    assert found.info.modified.tzinfo is UTC
    (listed,) = store.list()
    assert (listed.key, listed.size, listed.etag, listed.headers) == ("a b/ü/1.jpg", 7, etag, None)


def test_a_file_from_elsewhere_has_no_headers_even_in_the_place_of_one_that_had(store: FolderStore, root: Path) -> None:
    store.put("1.jpg", b"picture", headers=HEADERS)
    (root / "new").write_bytes(b"another")
    (root / "new").replace(root / "1.jpg")
    assert store.head("1.jpg").headers == ObjectHeaders()


def test_replacing_gives_another_etag_and_leaves_nothing_of_the_old(store: FolderStore, root: Path) -> None:
    etags = {store.put("1.jpg", b"same size", headers=HEADERS) for _ in range(100)}
    assert len(etags) == 100
    assert len(files_in(root / folder.OWN / "headers")) == 1
    store.put("1.jpg", b"without")
    assert store.head("1.jpg").headers == ObjectHeaders()
    assert not files_in(root / folder.OWN / "headers")
    assert not files_in(root / folder.OWN / "tmp")


def test_two_writes_within_a_tick_of_the_file_system_differ(
    store: FolderStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_700_000_000_123_456_700
    monkeypatch.setattr(time, "time_ns", lambda: now)
    store.put("1.jpg", b"")
    assert (root / "1.jpg").stat().st_mtime_ns == now


def test_only_one_of_many_creates(store: FolderStore, root: Path) -> None:
    start = threading.Barrier(8)

    def create(number: int) -> int | None:
        start.wait()
        with contextlib.suppress(AlreadyExists):
            FolderStore(root).put("1.jpg", b"%d" % number, headers=HEADERS, only_if_absent=True)
            return number
        return None

    with ThreadPoolExecutor(8) as pool:
        (winner,) = [number for number in pool.map(create, range(8)) if number is not None]
    assert store.get("1.jpg").data == b"%d" % winner
    assert store.head("1.jpg").headers == HEADERS
    assert len(files_in(root / folder.OWN / "headers")) == 1


def test_a_strangers_file_that_appears_at_the_last_moment_is_left_alone(
    store: FolderStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "1.jpg").write_bytes(b"stranger")
    monkeypatch.setattr(folder, "_etag_at", lambda path: None)
    with pytest.raises(AlreadyExists):
        store.put("1.jpg", b"ours", headers=HEADERS, only_if_absent=True)
    assert (root / "1.jpg").read_bytes() == b"stranger"


def test_replacing_by_etag_loses_no_update(store: FolderStore, root: Path) -> None:
    store.put("count", b"0")

    def count(_: int) -> None:
        while True:
            found = store.get("count")
            with contextlib.suppress(ObjectChanged):
                FolderStore(root).put("count", b"%d" % (int(found.data) + 1), if_match=found.info.etag)
                return

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count, range(100)))
    assert store.get("count").data == b"100"


def test_replacing_by_etag_needs_the_object(store: FolderStore) -> None:
    with pytest.raises(ObjectChanged):
        store.put("1.jpg", b"", if_match='"1"')
    assert keys_of(store) == []


def test_a_file_system_without_links_still_creates_only_once(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOTSUP, "no links")

    monkeypatch.setattr(os, "link", refuse)
    store.put("1.jpg", b"1", only_if_absent=True)
    with pytest.raises(AlreadyExists):
        store.put("1.jpg", b"2", only_if_absent=True)
    assert store.get("1.jpg").data == b"1"


@pytest.mark.parametrize("key", ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.", "a\0b", ".faceblur/local/x"])
def test_a_key_that_is_no_file_name_is_refused(store: FolderStore, root: Path, key: str) -> None:
    with pytest.raises(KeyRefused):
        store.put(key, b"")
    with pytest.raises(KeyRefused):
        store.get(key)
    with pytest.raises(KeyRefused):
        store.delete(key)
    assert list(root.iterdir()) == []


def test_a_file_where_a_folder_is_needed_is_refused_and_so_is_the_reverse(store: FolderStore) -> None:
    store.put("a/b", b"")
    for key in ("a", "a/b/c", "a/b/c/d"):
        for only_if_absent in (False, True):
            with pytest.raises(KeyRefused, match="a file lies where"):
                store.put(key, b"", only_if_absent=only_if_absent)
    for key in ("a", "a/b/c"):
        with pytest.raises(NotFound):
            store.head(key)
        with pytest.raises(NotFound):
            store.get(key)
    store.delete("a/b/c")
    store.delete("a")
    with pytest.raises(KeyRefused):
        store.put("x" * 256, b"")
    store.put(encode("x" * 1024), b"")


def test_deleting_removes_the_headers_too_and_nothing_is_no_error(store: FolderStore, root: Path) -> None:
    store.put("a/1.jpg", b"", headers=HEADERS)
    store.delete("a/1.jpg")
    store.delete("a/1.jpg")
    assert not files_in(root / folder.OWN / "headers")
    with pytest.raises(NotFound):
        store.get("a/1.jpg")


def test_an_expected_version_that_is_not_there_any_more_is_noticed(store: FolderStore, root: Path) -> None:
    etag = store.put("1.jpg", b"1")
    (root / "1.jpg").write_bytes(b"2")
    with pytest.raises(ObjectChanged):
        store.get("1.jpg", if_match=etag)


@pytest.mark.parametrize("growth", [0, 1])
def test_a_file_that_changes_while_it_is_read_is_not_handed_out(
    store: FolderStore, root: Path, monkeypatch: pytest.MonkeyPatch, growth: int
) -> None:
    path, moments = root / "1.jpg", itertools.count(1)
    path.touch()
    fstat = os.fstat

    def writing(fd: int) -> os.stat_result:
        moment = next(moments)
        path.write_bytes(bytes(10 + growth * moment))
        os.utime(path, (moment, moment))
        return fstat(fd)

    monkeypatch.setattr(os, "fstat", writing)
    with pytest.raises(TransientStorageError, match="being written"):
        store.get("1.jpg")


# Symbolic links


def test_links_to_files_are_followed_inside_but_never_out(store: FolderStore, root: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"secret")
    store.put("a/1.jpg", b"1")
    (root / "inside.jpg").symlink_to("a/1.jpg")
    (root / "outside.jpg").symlink_to(secret)
    (root / "nothing.jpg").symlink_to("gone")
    (root / "loop.jpg").symlink_to("loop.jpg")
    assert keys_of(store) == ["a/1.jpg", "inside.jpg", "loop.jpg", "nothing.jpg", "outside.jpg"]
    assert store.get("inside.jpg").data == b"1"
    for read in (store.get, store.head):
        with pytest.raises(KeyRefused, match="leads out of the folder"):
            read("outside.jpg")
        with pytest.raises(NotFound):
            read("nothing.jpg")
        with pytest.raises(KeyRefused, match="back to itself"):
            read("loop.jpg")


def test_links_to_folders_are_not_followed(
    store: FolderStore, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/1.jpg").write_bytes(b"secret")
    (root / "link").symlink_to(tmp_path / "other")
    (root / "self").symlink_to(".")
    assert keys_of(store) == []
    assert "'link' leads to a folder" in caplog.text
    with pytest.raises(KeyRefused, match="leads out"):
        store.get("link/1.jpg")
    for write in (lambda: store.put("link/new/2.jpg", b""), lambda: store.delete("link/1.jpg")):
        with pytest.raises(KeyRefused, match="leads out"):
            write()
    assert files_in(tmp_path / "other") == ["1.jpg"]
    assert not (tmp_path / "other/new").exists()


def test_writing_over_a_link_replaces_the_link(store: FolderStore, root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (root / "1.jpg").symlink_to(tmp_path / "secret.jpg")
    store.put("1.jpg", b"new")
    assert (tmp_path / "secret.jpg").read_bytes() == b"secret"
    assert store.get("1.jpg").data == b"new"


def test_the_folder_itself_may_be_a_link(store: FolderStore, root: Path, tmp_path: Path) -> None:
    store.put("1.jpg", b"1")
    (tmp_path / "link").symlink_to(root)
    assert FolderStore(tmp_path / "link").get("1.jpg").data == b"1"


# Listing


TREE = ["B", "a", "a!", "a-b", "a/1", "a/b/c", "a/b0", "a0", "a0/x", "b", "e\u0301", "é", "é/1", "z z", "😀/1"]


def tree(root: Path) -> FolderStore:
    for key in TREE:
        path = root / (key.replace("a/", "a_/").replace("a0/", "a0_/").replace("é/", "é_/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return FolderStore(root, names_at_once=3)


def test_a_listing_is_in_the_order_of_bytes_and_goes_on_behind_any_key(root: Path) -> None:
    store = tree(root)
    keys = keys_of(store)
    assert keys == sorted(keys, key=os.fsencode)
    assert len(keys) == len(TREE)
    for after in [*keys, "", "a", "a_", "a_/", "a_/b", "a_/b/", "a_/zzz", "ab", "é_", "zzzz", "a0_/x/y"]:
        assert keys_of(store, after=after) == [key for key in keys if os.fsencode(key) > os.fsencode(after)]
        for prefix in ("a", "a_/", "a_/b", "é", "nothing", "z "):
            expected = [key for key in keys if os.fsencode(key) > os.fsencode(after) and key.startswith(prefix)]
            assert keys_of(store, prefix, after) == expected


def test_any_tree_is_listed_the_same_however_few_names_are_held(tmp_path: Path) -> None:
    chance = random.Random(1)
    for number in range(20):
        root = tmp_path / str(number)
        for _ in range(chance.randrange(1, 40)):
            key = "/".join(chance.choice(["a", "b", "a-", "ab", "B"]) for _ in range(chance.randrange(1, 4)))
            with contextlib.suppress(OSError):
                (root / key).parent.mkdir(parents=True, exist_ok=True)
                (root / key).write_bytes(b"")
        expected = sorted(files_in(root), key=os.fsencode)
        for names_at_once in (1, 2, 1000):
            assert keys_of(FolderStore(root, names_at_once=names_at_once)) == expected


def test_what_is_no_picture_of_anybody_is_not_listed(store: FolderStore, root: Path) -> None:
    store.put(".faceblur/jobs/1", b"", headers=HEADERS)
    os.mkfifo(root / "pipe")
    assert keys_of(store) == [".faceblur/jobs/1"]
    with pytest.raises(NotFound):
        store.get("pipe")


def test_a_name_that_is_no_utf_8_is_listed_and_read(store: FolderStore, root: Path) -> None:
    name = os.fsencode(root) + b"/\xff.jpg"
    try:
        Path(os.fsdecode(name)).write_bytes(b"1")
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    (key,) = keys_of(store)
    assert store.get(key).data == b"1"
    assert encode(key) == "%FF.jpg"


def test_a_listing_reads_no_further_than_it_is_asked(store: FolderStore, root: Path) -> None:
    for key in ("a/1", "b/1", "c/1"):
        store.put(key, b"")
    listing = store.list()
    assert next(listing).key == "a/1"
    (root / "b/1").unlink()
    (root / "c/2").write_bytes(b"")
    assert [info.key for info in listing] == ["c/1", "c/2"]


def test_a_listing_of_a_large_folder_holds_few_names(root: Path) -> None:
    root.mkdir()
    for number in range(2000):
        (root / f"{number:0100}.jpg").touch()
    # In a process of its own: what is traced is of all threads, those of other tests too.
    program = """
import sys, tracemalloc
from faceblur_batch.storage.folder import FolderStore

listing = FolderStore(sys.argv[1], names_at_once=int(sys.argv[2])).list()
tracemalloc.start()
print(sum(1 for _ in listing), tracemalloc.get_traced_memory()[1])
"""
    held = {}
    for names in (100, 2000):
        command = [sys.executable, "-c", program, str(root), str(names)]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        count, held[names] = map(int, printed.split())
        assert count == 2000
    assert held[100] < 60_000 < held[2000]  # all names are 280,000 bytes


# What goes wrong


def test_a_folder_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(LocationNotFound, match="there is no folder"):
        list(FolderStore(tmp_path / "none").list())
    with pytest.raises(NotFound):
        FolderStore(tmp_path / "none").get("1.jpg")
    FolderStore(tmp_path / "none").delete("1.jpg")
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InvalidLocation, match="is a file"):
        list(FolderStore(tmp_path / "file").list())


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, StoreFull),
        (errno.EROFS, StoreFull),
        (errno.EACCES, AccessDenied),
        (errno.EIO, TransientStorageError),
        (errno.EXDEV, StorageFailure),
        (errno.ENOENT, StorageFailure),
    ],
)
def test_what_the_system_refuses_is_named_and_leaves_nothing(
    store: FolderStore, root: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[Exception]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(expected, match=r"1\.jpg"):
        store.put("a/1.jpg", b"", headers=HEADERS)
    assert not files_in(root / folder.OWN / "headers")
    assert not files_in(root / folder.OWN / "tmp")
    assert keys_of(store) == []


def test_what_killed_processes_left_half_written_is_removed_after_a_day(store: FolderStore, root: Path) -> None:
    scratch = root / folder.OWN / "tmp"
    scratch.mkdir(parents=True)
    for name, age in (("old", 2 * 86400), ("young", 60)):
        (scratch / name).write_bytes(b"half")
        moment = (scratch / name).stat().st_mtime - age
        os.utime(scratch / name, (moment, moment))
    store.put("1.jpg", b"")
    assert files_in(scratch) == ["young"]


def test_a_folder_can_do_all_that_a_probe_looks_for_and_is_left_clean(store: FolderStore, root: Path) -> None:
    assert probe(store, ".faceblur/") == Capabilities(True, True, True, True)
    assert [name for name in files_in(root) if "/locks/" not in name] == []
