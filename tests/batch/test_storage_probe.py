"""What a store only claims to do is seen, on stores that misbehave in the ways that vendors do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from obstore.store import MemoryStore

from faceblur_batch.errors import (
    AccessDenied,
    AlreadyExists,
    KeyRefused,
    NotFound,
    ObjectChanged,
    StorageError,
    StorageFailure,
    Unsupported,
)
from faceblur_batch.storage.cloud import CloudStore
from faceblur_batch.storage.folder import FolderStore
from faceblur_batch.storage.location import parse_location
from faceblur_batch.storage.probe import probe
from faceblur_batch.storage.store import Capabilities, ObjectHeaders, ObjectInfo


class Vendor(FolderStore):
    """A store whose answers can be spoilt."""

    ignores: tuple[str, ...] = ()
    raises: dict[str, StorageError]

    def put(self, key: str, data: bytes, **more: Any) -> str:
        for option in ("only_if_absent", "if_match"):
            if option in more and option in self.raises:
                raise self.raises[option]
        return super().put(key, data, **{name: value for name, value in more.items() if name not in self.ignores})


@pytest.fixture
def vendor(tmp_path: Path) -> Vendor:
    made = Vendor(tmp_path)
    made.raises = {}
    return made


ALL = Capabilities(create_only=True, replace_if_match=True, metadata=True, sorted_listing=True)


def left_in(store: FolderStore) -> list[str]:
    return [info.key for info in store.list()]


def test_a_store_that_keeps_its_word_can_do_everything(vendor: Vendor) -> None:
    assert probe(vendor, ".faceblur/") == ALL
    assert left_in(vendor) == []


@pytest.mark.parametrize(
    ("ignored", "missing"),
    [("only_if_absent", "create_only"), ("if_match", "replace_if_match"), ("headers", "metadata")],
)
def test_what_is_accepted_and_ignored_is_seen(vendor: Vendor, ignored: str, missing: str) -> None:
    vendor.ignores = (ignored,)
    found = probe(vendor, ".faceblur/")
    assert [name for name in ALL.__dataclass_fields__ if not getattr(found, name)] == [missing]
    assert left_in(vendor) == []


def test_an_error_that_did_not_keep_the_store_from_writing_is_seen(
    vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = vendor.put

    def write_and_complain(key: str, data: bytes, *, only_if_absent: bool = False, **more: Any) -> str:
        etag = put(key, data, **more)
        if only_if_absent:
            raise AlreadyExists(key)
        return etag

    monkeypatch.setattr(vendor, "put", write_and_complain)
    assert not probe(vendor, ".faceblur/").create_only


@pytest.mark.parametrize("error", [Unsupported("501"), StorageFailure("400")])
@pytest.mark.parametrize(("refused", "missing"), [("only_if_absent", "create_only"), ("if_match", "replace_if_match")])
def test_what_is_refused_is_seen(vendor: Vendor, refused: str, missing: str, error: StorageError) -> None:
    vendor.raises = {refused: error}
    found = probe(vendor, ".faceblur/")
    assert [name for name in ALL.__dataclass_fields__ if not getattr(found, name)] == [missing]


def test_a_listing_in_another_order_is_seen(vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    ordered = vendor.list

    def by_folder(prefix: str = "", *, after: str | None = None) -> Iterator[ObjectInfo]:
        return iter(sorted(ordered(prefix, after=after), key=lambda info: info.key.split("/")))

    monkeypatch.setattr(vendor, "list", by_folder)
    assert not probe(vendor, ".faceblur/").sorted_listing


def test_a_store_that_cannot_be_written_to_is_an_error_and_is_left_clean(vendor: Vendor) -> None:
    vendor.raises = {"only_if_absent": AccessDenied("no")}
    with pytest.raises(AccessDenied):
        probe(vendor, ".faceblur/")
    assert left_in(vendor) == []


# The store over obstore, on its memory: what the other clouds share


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def cloud(memory: MemoryStore) -> CloudStore:
    return CloudStore(parse_location("gs://bucket/in"), memory)


def test_a_store_of_another_cloud_does_the_same(cloud: CloudStore, memory: MemoryStore) -> None:
    headers = ObjectHeaders("image/jpeg", "no-store", {"faceblur-a": "b"})
    etag = cloud.put("a b/1.jpg", b"picture", headers=headers, only_if_absent=True)
    found = cloud.get("a b/1.jpg", if_match=etag)
    assert (found.data, found.info.key, found.info.size, found.info.headers) == (b"picture", "a b/1.jpg", 7, headers)
    assert cloud.head("a b/1.jpg") == found.info
    assert memory.head("in/a b/1.jpg")["size"] == 7
    with pytest.raises(AlreadyExists):
        cloud.put("a b/1.jpg", b"", only_if_absent=True)
    with pytest.raises(ObjectChanged):
        cloud.put("a b/1.jpg", b"", if_match="other")
    with pytest.raises(ObjectChanged):
        cloud.get("a b/1.jpg", if_match="other")
    cloud.delete("a b/1.jpg")
    cloud.delete("a b/1.jpg")
    with pytest.raises(NotFound):
        cloud.get("a b/1.jpg")


@pytest.mark.parametrize("key", ["/1.jpg", "1.jpg/", "a//b"])
def test_no_key_is_taken_for_another(cloud: CloudStore, key: str) -> None:
    cloud.put("1.jpg", b"")
    for ask in (cloud.get, cloud.head, cloud.delete):
        with pytest.raises(KeyRefused):
            ask(key)
    assert cloud.get("1.jpg").data == b""


def test_a_prefix_is_text_and_a_listing_goes_on_behind_any_key(cloud: CloudStore, memory: MemoryStore) -> None:
    for key in ("a", "ab/1", "ab/2", "abc", "b"):
        cloud.put(key, b"")
    memory.put("inside", b"")
    assert [info.key for info in cloud.list()] == ["a", "ab/1", "ab/2", "abc", "b"]
    assert [info.key for info in cloud.list("ab")] == ["ab/1", "ab/2", "abc"]
    assert [info.key for info in cloud.list("ab/")] == ["ab/1", "ab/2"]
    assert [info.key for info in cloud.list("ab", after="ab/1")] == ["ab/2", "abc"]
    assert [info.key for info in cloud.list("nothing/")] == []
