"""The storage layer against a real S3 server, versitygw."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
    TransientStorageError,
)
from faceblur_batch.storage.keys import KeyMapping, encode
from faceblur_batch.storage.opening import check_apart, open_store
from faceblur_batch.storage.probe import probe
from faceblur_batch.storage.settings import Addressing, CredentialKind, StorageSettings
from faceblur_batch.storage.store import Capabilities, ObjectHeaders, ObjectStore
from support.certificates import Authority
from support.s3_server import NEEDED, SECRET_KEY, S3Server, frontend, running_s3, s3_binary

pytestmark = pytest.mark.skipif(s3_binary() is None, reason=NEEDED)

KEYS = [
    "a b/ü 日本/1.jpg",
    "plus+and&=?#%20.jpg",
    "~'()*!$,;:@.jpg",
    "e\u0301/é.jpg",
    "😀.jpg",
    encode("x//../y\t.jpg"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with running_s3(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def bucket(server: S3Server, request: pytest.FixtureRequest) -> str:
    name = f"b{abs(hash(request.node.nodeid)):x}"
    server.make_bucket(name)
    return name


@pytest.fixture
def store(server: S3Server, bucket: str) -> ObjectStore:
    return open_store(f"s3://{bucket}/in put", server.settings())


@pytest.mark.parametrize("key", KEYS)
def test_a_key_of_any_language_and_its_headers_come_back(store: ObjectStore, key: str) -> None:
    headers = ObjectHeaders("image/jpeg", "private, max-age=60", {"faceblur-source-etag": '"abc"', "title": "A b/c"})
    etag = store.put(key, b"picture", headers=headers, only_if_absent=True)
    found = store.get(key, if_match=etag)
    assert (found.data, found.info.key, found.info.etag, found.info.headers) == (b"picture", key, etag, headers)
    assert store.head(key) == found.info
    (listed,) = store.list()
    assert (listed.key, listed.size, listed.etag) == (key, 7, etag)
    store.delete(key)
    store.delete(key)
    with pytest.raises(NotFound):
        store.get(key)
    with pytest.raises(NotFound):
        store.head(key)


def test_only_one_of_many_creates(store: ObjectStore) -> None:
    start = threading.Barrier(8)

    def create(number: int) -> int | None:
        start.wait()
        try:
            store.put("1.jpg", b"%d" % number, only_if_absent=True)
        except (AlreadyExists, TransientStorageError):
            return None
        return number

    with ThreadPoolExecutor(8) as pool:
        (winner,) = [number for number in pool.map(create, range(8)) if number is not None]
    assert store.get("1.jpg").data == b"%d" % winner


def test_an_object_is_replaced_and_read_only_in_the_expected_version(store: ObjectStore) -> None:
    first = store.put("1.jpg", b"first")
    second = store.put("1.jpg", b"second", if_match=first)
    for condition in (first, '"0"'):
        with pytest.raises(ObjectChanged):
            store.put("1.jpg", b"third", if_match=condition)
        with pytest.raises(ObjectChanged):
            store.get("1.jpg", if_match=condition)
    with pytest.raises(ObjectChanged):
        store.put("absent.jpg", b"", if_match=first)
    assert store.get("1.jpg", if_match=second).data == b"second"


def test_what_it_can_do_is_seen_by_writing(store: ObjectStore) -> None:
    assert probe(store, ".faceblur/") == Capabilities(True, True, True, True)
    assert list(store.list()) == []


def test_a_listing_of_many_pages_goes_on_behind_any_key(server: S3Server, bucket: str) -> None:
    folder = server.buckets / bucket / "in"
    keys = [f"{number % 7}/{number:05} ü.jpg" for number in range(2500)]
    for key in keys:
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (server.buckets / bucket / "inside.jpg").touch()
    keys.sort(key=str.encode)
    with frontend(server.url) as counted:
        store = open_store(f"s3://{bucket}/in", server.settings(endpoint=counted.url))
        assert [info.key for info in store.list()] == keys
        assert len(counted.seen) == 3
        for place in random.Random(1).sample(range(2500), 5):
            assert [info.key for info in store.list(after=keys[place])] == keys[place + 1 :]
        assert [info.key for info in store.list("3/0")] == [key for key in keys if key.startswith("3/0")]
        assert [info.key for info in store.list("none/")] == []
        del counted.seen[:]
        next(store.list())
        assert len(counted.seen) == 1


def test_a_folder_where_an_object_is_or_a_name_too_long_is_refused(store: ObjectStore) -> None:
    store.put("a/b.jpg", b"")
    for key in ("a", "a/b.jpg/c.jpg", "x" * 1025):
        with pytest.raises(KeyRefused):
            store.put(key, b"")
    store.put(KeyMapping()("x" * 600 + ".jpg"), b"")


# What goes wrong


def test_wrong_credentials_are_named_without_being_shown(server: S3Server, bucket: str, tmp_path: Path) -> None:
    for access, secret, hint in (("other", "wrong-1", "access key"), ("key-of-the-tests", "wrong-2", "secret key")):
        folder = tmp_path / access
        folder.mkdir()
        (folder / "AWS_ACCESS_KEY_ID").write_text(access)
        (folder / "AWS_SECRET_ACCESS_KEY").write_text(secret)
        store = open_store(f"s3://{bucket}/in", server.settings(credentials_folder=folder))
        for action in (lambda store=store: list(store.list()), lambda store=store: store.put("1.jpg", b"")):
            with pytest.raises(AccessDenied, match=f"s3://{bucket}/in/.*{hint}.*check the credentials") as caught:
                action()
            assert secret not in repr(caught.value)
    nobody = StorageSettings(endpoint=server.url, allow_http=True, credentials=CredentialKind.ANONYMOUS)
    with pytest.raises(AccessDenied):
        list(open_store(f"s3://{bucket}", nobody).list())


def test_a_bucket_that_is_not_there_is_said_to_be_missing(server: S3Server) -> None:
    store = open_store("s3://no-such-bucket", server.settings())
    for action in (lambda: list(store.list()), lambda: store.get("1.jpg"), lambda: store.put("1.jpg", b"")):
        with pytest.raises(LocationNotFound, match="no-such-bucket"):
            action()


def test_another_region_than_the_servers_is_named(server: S3Server, bucket: str) -> None:
    store = open_store(f"s3://{bucket}", server.settings(region="mars-1"))
    for action in (lambda: list(store.list()), lambda: store.get("1.jpg")):
        with pytest.raises(InvalidLocation, match="region"):
            action()


def test_bursts_of_refusals_are_got_over(server: S3Server, bucket: str) -> None:
    chance, lock = random.Random(1), threading.Lock()

    def unwell(method: str, path: str) -> int | None:
        with lock:
            return chance.choice([503, 503, 500, 429, None, None, None, None])

    keys = [f"{number}.jpg" for number in range(100)]
    with frontend(server.url, unwell) as front, ThreadPoolExecutor(8) as pool:
        store = open_store(f"s3://{bucket}", server.settings(endpoint=front.url, retries=30))
        list(pool.map(lambda key: store.put(key, key.encode()), keys))
        assert [stored.data.decode() for stored in pool.map(store.get, keys)] == keys
        assert [info.key for info in store.list()] == sorted(keys)
        assert len(front.seen) > 300
        front.fault = lambda method, path: 503
        with pytest.raises(TransientStorageError):
            open_store(f"s3://{bucket}", server.settings(endpoint=front.url, retries=2)).get("1.jpg")


# Servers of their own


def test_a_server_that_comes_back_is_waited_for_and_one_that_does_not_is_unavailable(tmp_path: Path) -> None:
    with running_s3(tmp_path) as server:
        store = open_store("s3://pictures", server.settings(retries=100, retry_seconds=50))
        store.put("1.jpg", b"1")
        server.stop()
        hasty = open_store("s3://pictures", server.settings(retries=1))
        for action in (lambda: hasty.get("1.jpg"), lambda: list(hasty.list()), lambda: hasty.put("1.jpg", b"")):
            with pytest.raises(TransientStorageError, match="cannot be reached"):
                action()
        with ThreadPoolExecutor(2) as pool:
            waiting = pool.submit(store.get, "1.jpg"), pool.submit(lambda: list(store.list()))
            server.start()
            assert waiting[0].result().data == b"1"
            assert [info.key for info in waiting[1].result()] == ["1.jpg"]


def test_credentials_are_replaced_on_disk_while_a_store_is_open(tmp_path: Path) -> None:
    with running_s3(tmp_path) as server:
        store = open_store("s3://pictures", server.settings())
        store.put("1.jpg", b"1")
        server.stop()
        server.change_keys("another-key", "another-secret")
        server.start()
        assert store.get("1.jpg").data == b"1"
        assert [info.key for info in store.list()] == ["1.jpg"]
        (server.keys / "AWS_SECRET_ACCESS_KEY").write_text(SECRET_KEY)
        with pytest.raises(AccessDenied):
            store.get("1.jpg")


def test_https_needs_the_servers_authority(tmp_path: Path) -> None:
    authority = Authority()
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    (tmp_path / "other.pem").write_bytes(Authority("other").pem)
    with running_s3(tmp_path / "s3", certificate=authority.issue("server")) as server:
        store = open_store("s3://pictures", server.settings(ca_bundle=tmp_path / "ca.pem", allow_http=False))
        store.put("1.jpg", b"1")
        assert store.get("1.jpg").data == b"1"
        assert [info.key for info in store.list()] == ["1.jpg"]
        for wrong in (None, tmp_path / "other.pem"):
            store = open_store("s3://pictures", server.settings(ca_bundle=wrong, retries=0))
            for action in (lambda store=store: store.get("1.jpg"), lambda store=store: list(store.list())):
                with pytest.raises(StorageFailure, match="certificate"):
                    action()


def test_a_bucket_named_in_the_host_is_found(tmp_path: Path) -> None:
    # The name of a bucket's host is known to nobody here, so requests are carried by a proxy.
    with running_s3(tmp_path, virtual_domain="s3.example") as server, frontend(server.url) as proxy:
        options = {"endpoint": f"http://s3.example:{server.port}", "addressing": Addressing.VIRTUAL, "proxy": proxy.url}
        store = open_store("s3://pictures/in", server.settings(**options))
        store.put("a b/ü.jpg", b"1")
        assert store.get("a b/ü.jpg").data == b"1"
        assert [info.key for info in store.list()] == ["a b/ü.jpg"]


def test_the_same_bucket_is_known_under_another_name_of_the_server(server: S3Server, bucket: str) -> None:
    other = server.settings(endpoint=server.url.replace("localhost", "127.0.0.1"))
    with pytest.raises(InvalidLocation, match="beside the source"):
        check_apart(f"s3://{bucket}/in", f"s3://{bucket}/in/out", server.settings(), other)
    check_apart(f"s3://{bucket}/in", f"s3://{bucket}/out", server.settings(), other)
    assert list(open_store(f"s3://{bucket}", server.settings()).list()) == []


def test_a_bucket_of_the_same_name_at_another_server_is_another(server: S3Server, tmp_path: Path) -> None:
    with running_s3(tmp_path) as elsewhere:
        check_apart("s3://pictures", "s3://pictures", elsewhere.settings(), server.settings())
