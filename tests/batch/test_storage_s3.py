"""What is sent to an S3-compatible server, and what its answers are taken for. The server here answers from a script;
a real one is asked in e2e/local/test_storage.py.
"""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest

from faceblur_batch import errors
from faceblur_batch.storage.credentials import Credentials, FolderCredentials
from faceblur_batch.storage.opening import open_store
from faceblur_batch.storage.s3_reader import signed
from faceblur_batch.storage.settings import Addressing, CredentialKind, Encryption, StorageSettings
from faceblur_batch.storage.store import ObjectHeaders, ObjectStore

ACCESS, SECRET = "AKIDEXAMPLE", "not/really+secret"
Answer = tuple[int, dict[str, str], bytes]
PICTURE: Answer = (
    200,
    {
        "etag": '"e1"',
        "last-modified": "Wed, 01 May 2024 12:00:00 GMT",
        "content-type": "image/jpeg",
        "cache-control": "no-store",
        "x-amz-meta-title": "A b",
    },
    b"picture",
)


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def query(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}


class QuietServer(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that gave up is what some tests are about."""


class Scripted:
    """Answers as `answer` says and notes what it was asked."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answer: Callable[[Request], Answer] = lambda request: PICTURE
        scripted = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                request = Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                scripted.requests.append(request)
                status, headers, content = scripted.answer(request)
                self.send_response_only(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_CONNECT = handle_any  # noqa: N815

        self.server = QuietServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    @property
    def last(self) -> Request:
        return self.requests[-1]


@pytest.fixture
def server() -> Iterator[Scripted]:
    yield from serve()


@pytest.fixture
def proxy() -> Iterator[Scripted]:
    yield from serve()


def serve() -> Iterator[Scripted]:
    scripted = Scripted()
    thread = threading.Thread(target=scripted.server.serve_forever, args=(0.02,))
    thread.start()
    yield scripted
    scripted.server.shutdown()
    thread.join()
    scripted.server.server_close()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)


def settings(server: Scripted, **more: Any) -> StorageSettings:
    options = {"endpoint": server.url, "allow_http": True, "first_pause_seconds": 0.001, "retries": 2, **more}
    return StorageSettings(**options)


def store_at(server: Scripted, location: str = "s3://bucket/in", **more: Any) -> ObjectStore:
    return open_store(location, settings(server, **more))


def refusal(status: int, code: str = "") -> Answer:
    body = f"<Error><Code>{code}</Code><AWSAccessKeyId>{ACCESS}</AWSAccessKeyId><Message>{SECRET}</Message></Error>"
    return status, {}, body.encode() if code else b""


def listing(keys: list[str], more: str | None = None, encoded: bool = True) -> Answer:
    entries = "".join(
        f"<Contents><Key>{quote(key, safe='/').replace('%20', '+') if encoded else key}</Key><Size>{number}</Size>"
        f"<LastModified>2024-05-01T12:00:00.000Z</LastModified><ETag>&quot;e{number}&quot;</ETag></Contents>"
        for number, key in enumerate(keys)
    )
    token = f"<NextContinuationToken>{more}</NextContinuationToken>" if more else ""
    encoding = "<EncodingType>url</EncodingType>" if encoded else ""
    body = (
        '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>{token}{encoding}{entries}</ListBucketResult>"
    )
    return 200, {"content-type": "application/xml"}, body.encode()


# What is sent


def test_nothing_is_sent_that_other_vendors_refuse(server: Scripted) -> None:
    store = store_at(server)
    store.put("1.jpg", b"picture", headers=ObjectHeaders("image/jpeg", "no-store", {"faceblur-a": "b"}))
    assert (server.last.method, server.last.path, server.last.body) == ("PUT", "/bucket/in/1.jpg", b"picture")
    assert set(server.last.headers) == {
        *("host", "accept", "user-agent", "content-length", "authorization", "x-amz-date", "x-amz-content-sha256"),
        *("content-type", "cache-control", "x-amz-meta-faceblur-a"),
    }
    store.delete("1.jpg")
    assert (server.last.method, server.last.path, server.last.body) == ("DELETE", "/bucket/in/1.jpg", b"")
    server.answer = lambda request: listing([])
    list(store.list())
    assert set(server.last.query) == {"list-type", "encoding-type", "prefix"}


def test_a_large_object_is_one_write(server: Scripted) -> None:
    data = bytes(12 * 1024 * 1024)
    assert store_at(server).put("1.jpg", data) == '"e1"'
    assert len(server.requests) == 1
    assert server.last.body == data


def test_conditions_are_sent(server: Scripted) -> None:
    store = store_at(server)
    store.put("1.jpg", b"", only_if_absent=True)
    assert server.last.headers["if-none-match"] == "*"
    store.put("1.jpg", b"", if_match='"e1"')
    assert server.last.headers["if-match"] == '"e1"'
    store.get("1.jpg", if_match='"e1"')
    assert server.last.headers["if-match"] == '"e1"'


def test_encryption_and_storage_class_are_sent_with_what_is_written(server: Scripted) -> None:
    store = store_at(server, encryption=Encryption.KMS, kms_key="key-1", storage_class="STANDARD_IA")
    store.put("1.jpg", b"")
    sent = {name: value for name, value in server.last.headers.items() if "x-amz-s" in name}
    assert sent == {
        "x-amz-server-side-encryption": "aws:kms",
        "x-amz-server-side-encryption-aws-kms-key-id": "key-1",
        "x-amz-storage-class": "STANDARD_IA",
    }


def test_requests_that_nothing_signs_have_no_authorization(server: Scripted) -> None:
    store = store_at(server, credentials=CredentialKind.ANONYMOUS)
    server.answer = lambda request: listing([]) if "list-type" in request.path else PICTURE
    list(store.list())
    store.get("1.jpg")
    store.get("a//1.jpg")
    assert not [request for request in server.requests if "authorization" in request.headers]


def test_the_bucket_is_in_the_host_where_that_is_asked_for(proxy: Scripted) -> None:
    # No name resolves here, so a proxy tells what it was asked for.
    options = {"endpoint": "http://s3.example:9000", "addressing": Addressing.VIRTUAL, "proxy": proxy.url}
    store = open_store("s3://bucket/in", settings(proxy, **options))
    proxy.answer = lambda request: listing([]) if "list-type" in request.path else PICTURE
    list(store.list())
    store.get("1.jpg")
    store.get("a//1.jpg")
    assert [request.path.partition("?")[0] for request in proxy.requests] == [
        "http://bucket.s3.example:9000/",
        "http://bucket.s3.example:9000/in/1.jpg",
        "http://bucket.s3.example:9000/in/a//1.jpg",
    ]
    assert {request.headers["host"] for request in proxy.requests} == {"bucket.s3.example:9000"}


def test_the_environment_redirects_nothing(server: Scripted, proxy: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "AWS_PROXY_URL", "PROXY_URL"):
        monkeypatch.setenv(name, proxy.url)
    for name in ("AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.setenv(name, proxy.url)
    monkeypatch.setenv("AWS_REGION", "mars-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "mars-1")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    monkeypatch.setenv("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true")
    monkeypatch.setenv("AWS_BUCKET", "other")
    store = store_at(server)
    server.answer = lambda request: listing([]) if "list-type" in request.path else PICTURE
    list(store.list())
    store.get("1.jpg")
    store.get("a//1.jpg")
    assert not proxy.requests
    assert len(server.requests) == 3
    for request in server.requests:
        assert request.path.startswith("/bucket")
        assert "/us-east-1/" in request.headers["authorization"]


def test_a_configured_proxy_carries_everything(server: Scripted, proxy: Scripted) -> None:
    store = store_at(server, proxy=proxy.url)
    proxy.answer = lambda request: listing([]) if "list-type" in request.path else PICTURE
    list(store.list())
    store.get("1.jpg")
    store.get("a//1.jpg")
    assert not server.requests
    assert len(proxy.requests) == 3


def test_the_signature_is_the_one_of_amazons_documentation() -> None:
    headers = signed(
        "GET",
        "examplebucket.s3.amazonaws.com",
        "/",
        "max-keys=2&prefix=J",
        {},
        Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
        "us-east-1",
        datetime(2013, 5, 24, tzinfo=UTC),
    )
    assert headers["authorization"].endswith("34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7")


def test_a_session_token_is_sent_and_signed(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token-1")
    store = store_at(server)
    for key in ("1.jpg", "a//1.jpg"):
        store.get(key)
        assert server.last.headers["x-amz-security-token"] == "token-1"
        assert "x-amz-security-token" in server.last.headers["authorization"]


# Keys


HARD_KEYS = ["/lead.jpg", "a//b.jpg", "a/../b.jpg", "./c.jpg", "tab\t.jpg", "dir/", "~", "a b+c%20&ü.jpg", "é.jpg"]


def test_a_listing_has_every_key_there_can_be(server: Scripted) -> None:
    server.answer = lambda request: listing(["in/", *(f"in/{key}" for key in HARD_KEYS)])
    found = list(store_at(server).list())
    assert [info.key for info in found] == HARD_KEYS
    assert (found[1].etag, found[1].size, found[1].headers) == ('"e2"', 2, None)
    assert found[1].modified == datetime(2024, 5, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("key", HARD_KEYS)
def test_every_key_that_is_listed_can_be_read(server: Scripted, key: str) -> None:
    store = store_at(server)
    expected = ObjectHeaders("image/jpeg", "no-store", {"title": "A b"})
    found = store.get(key, if_match='"e1"')
    assert unquote(server.last.path) == f"/bucket/in/{key}"
    assert server.last.headers["if-match"] == '"e1"'
    assert "authorization" in server.last.headers
    assert (found.data, found.info.key, found.info.etag, found.info.size) == (b"picture", key, '"e1"', 7)
    assert found.info.headers == expected
    assert store.head(key) == found.info
    assert server.last.method == "HEAD"


@pytest.mark.parametrize("key", ["/a.jpg", "a//b.jpg", "a/../b.jpg", "a/", "a\tb", ""])
def test_nothing_is_written_under_a_key_that_another_tool_may_take_for_another(server: Scripted, key: str) -> None:
    store = store_at(server)
    for write in (lambda: store.put(key, b""), lambda: store.delete(key)):
        with pytest.raises(errors.KeyRefused):
            write()
    assert not server.requests


def without_etags(request: Request) -> Answer:
    """A server that has none, and takes no notice of conditions, as one that never heard of them."""
    if "list-type" in request.query:
        status, headers, body = listing(["in/a.jpg", "in/b//c.jpg"])
        return (
            status,
            headers,
            re.sub(rb"<ETag>.*?</ETag>|(?<=<Size>)\d+", lambda m: b"7" if m[0].isdigit() else b"", body),
        )
    status, headers, body = PICTURE
    return status, {name: value for name, value in headers.items() if name != "etag"}, body


def test_without_etags_identity_is_size_and_time(server: Scripted) -> None:
    server.answer = without_etags
    store = store_at(server)
    for info in store.list():
        assert store.head(info.key).etag == info.etag
        assert store.get(info.key, if_match=info.etag).data == b"picture"
        assert "if-match" not in server.last.headers
        for other in (f'"modified-{int(info.modified.timestamp()) - 1}-7"', info.etag.replace('-7"', '-8"')):
            with pytest.raises(errors.ObjectChanged):
                store.get(info.key, if_match=other)


def test_an_etag_is_the_same_in_a_listing_and_in_a_header(server: Scripted) -> None:
    def unquoted(request: Request) -> Answer:
        if "list-type" in request.query:
            status, headers, body = listing(["in/", "in/a.jpg", "in/b//c.jpg"])
            return status, headers, re.sub(rb"&quot;e\d&quot;", b"e1", body)
        return PICTURE[0], {**PICTURE[1], "etag": "e1"}, PICTURE[2]

    server.answer = unquoted
    store = store_at(server)
    found = list(store.list())
    assert len(found) == 2
    assert {info.etag for info in found} | {store.head(info.key).etag for info in found} == {'"e1"'}


def test_a_listing_without_encoding_is_read_too(server: Scripted) -> None:
    server.answer = lambda request: listing(["in/a b+c%20.jpg"], encoded=False)
    assert [info.key for info in store_at(server).list()] == ["a b+c%20.jpg"]


def test_a_listing_is_read_page_by_page_as_it_is_asked(server: Scripted) -> None:
    pages = {None: listing(["in/1", "in/2"], "to/ken+="), "to/ken+=": listing(["in/3"])}
    server.answer = lambda request: pages[request.query.get("continuation-token")]
    found = store_at(server).list("sub/", after="0")
    assert not server.requests
    assert [next(found).key, next(found).key] == ["1", "2"]
    assert len(server.requests) == 1
    assert server.last.query["prefix"] == "in/sub/"
    assert server.last.query["start-after"] == "in/0"
    assert [info.key for info in found] == ["3"]
    assert len(server.requests) == 2


def test_a_listing_of_a_million_keys_holds_one_page(server: Scripted) -> None:
    def page(request: Request) -> Answer:
        number = int(request.query.get("continuation-token", "0"))
        return listing([f"in/{number * 1000 + place:07}" for place in range(1000)], str(number + 1))

    server.answer = page
    found = store_at(server).list()
    for number in range(3000):
        assert next(found).key == f"{number:07}"
    assert len(server.requests) == 3


def test_a_server_that_does_not_know_start_after_repeats_nothing(server: Scripted) -> None:
    server.answer = lambda request: listing(["in/1", "in/2", "in/3"])
    assert [info.key for info in store_at(server).list(after="2")] == ["3"]


@pytest.mark.parametrize(
    "answer",
    [
        (200, {}, b"<html><body>Welcome to the hotel"),
        (200, {}, b"<html/>"),
        (200, {}, b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>"),
    ],
)
def test_what_is_no_listing_is_not_taken_for_an_empty_one(server: Scripted, answer: Answer) -> None:
    server.answer = lambda request: answer
    with pytest.raises(errors.StorageFailure):
        list(store_at(server).list())


# Failures


ACTIONS: dict[str, Callable[[ObjectStore], object]] = {
    "list": lambda store: list(store.list()),
    "get": lambda store: store.get("1.jpg"),
    "get-hard": lambda store: store.get("a//1.jpg"),
    "head": lambda store: store.head("1.jpg"),
    "put": lambda store: store.put("1.jpg", b""),
    "delete": lambda store: store.delete("1.jpg"),
}


@pytest.mark.parametrize("action", ["list", "get", "get-hard", "put"])
@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (404, "NoSuchBucket", errors.LocationNotFound),
        (403, "InvalidAccessKeyId", errors.AccessDenied),
        (403, "SignatureDoesNotMatch", errors.AccessDenied),
        (403, "RequestTimeTooSkewed", errors.AccessDenied),
        (403, "", errors.AccessDenied),
        (401, "Whatever", errors.AccessDenied),
        (400, "ExpiredToken", errors.AccessDenied),
        (400, "AuthorizationHeaderMalformed", errors.InvalidLocation),
        (301, "PermanentRedirect", errors.InvalidLocation),
        (400, "Whatever", errors.StorageFailure),
        (400, "KeyTooLongError", errors.KeyRefused),
        (501, "NotImplemented", errors.Unsupported),
        (500, "InternalError", errors.TransientStorageError),
        (503, "SlowDown", errors.TransientStorageError),
        (429, "TooManyRequests", errors.TransientStorageError),
        (507, "", errors.StoreFull),
    ],
)
def test_every_answer_is_an_error_of_ours_without_what_the_server_echoed(
    server: Scripted, action: str, status: int, code: str, expected: type[Exception]
) -> None:
    server.answer = lambda request: refusal(status, code)
    with pytest.raises(errors.StorageError) as caught:
        ACTIONS[action](store_at(server))
    assert type(caught.value) is expected
    assert "s3://bucket/in/" in str(caught.value)
    assert str(status) in str(caught.value)
    shown = f"{caught.value!r} {caught.value.__cause__!r}"
    assert ACCESS not in shown
    assert SECRET not in shown


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("InvalidAccessKeyId", "does not know the access key"),
        ("SignatureDoesNotMatch", "secret key does not belong"),
        ("RequestTimeTooSkewed", "clock"),
        ("ExpiredToken", "session token"),
        ("AccessDenied", "do not allow this"),
    ],
)
def test_a_denied_request_says_what_to_look_at(server: Scripted, code: str, hint: str) -> None:
    server.answer = lambda request: refusal(403, code)
    with pytest.raises(errors.AccessDenied, match=hint):
        store_at(server).get("1.jpg")


@pytest.mark.parametrize("action", ["list", "get-hard"])
def test_a_signed_request_is_not_led_elsewhere(server: Scripted, proxy: Scripted, action: str) -> None:
    server.answer = lambda request: (307, {"location": f"{proxy.url}/bucket"}, b"")
    with pytest.raises(errors.InvalidLocation, match="`endpoint`"):
        ACTIONS[action](store_at(server))
    assert not proxy.requests


@pytest.mark.parametrize("action", ["head", "get", "get-hard"])
def test_an_object_that_is_not_there_is_said_to_be_missing(server: Scripted, action: str) -> None:
    server.answer = lambda request: refusal(404, "" if request.method == "HEAD" else "NoSuchKey")
    with pytest.raises(errors.NotFound):
        ACTIONS[action](store_at(server))


def test_deleting_what_is_not_there_is_no_error(server: Scripted) -> None:
    server.answer = lambda request: refusal(404, "NoSuchKey")
    store_at(server).delete("1.jpg")


@pytest.mark.parametrize(
    ("condition", "status", "code", "expected"),
    [
        ({"only_if_absent": True}, 412, "PreconditionFailed", errors.AlreadyExists),
        ({"only_if_absent": True}, 409, "ConditionalRequestConflict", errors.TransientStorageError),
        ({"only_if_absent": True}, 409, "ObjectParentIsFile", errors.KeyRefused),
        ({"only_if_absent": True}, 501, "NotImplemented", errors.Unsupported),
        ({"if_match": '"e"'}, 412, "PreconditionFailed", errors.ObjectChanged),
        ({"if_match": '"e"'}, 409, "ConditionalRequestConflict", errors.TransientStorageError),
        ({"if_match": '"e"'}, 404, "NoSuchKey", errors.ObjectChanged),
        ({"if_match": '"e"'}, 404, "NoSuchBucket", errors.LocationNotFound),
    ],
)
def test_a_condition_that_does_not_hold_is_told_from_what_else_goes_wrong(
    server: Scripted, condition: dict[str, Any], status: int, code: str, expected: type[Exception]
) -> None:
    server.answer = lambda request: refusal(status, code)
    with pytest.raises(errors.StorageError) as caught:
        store_at(server).put("1.jpg", b"", **condition)
    assert type(caught.value) is expected


@pytest.mark.parametrize("key", ["1.jpg", "a//1.jpg"])
def test_an_object_of_another_version_is_not_read(server: Scripted, key: str) -> None:
    server.answer = lambda request: refusal(412, "PreconditionFailed")
    with pytest.raises(errors.ObjectChanged):
        store_at(server).get(key, if_match='"e"')


@pytest.mark.parametrize("action", list(ACTIONS))
@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_what_passes_by_itself_is_tried_again(server: Scripted, action: str, status: int) -> None:
    def recovers(request: Request) -> Answer:
        if len(server.requests) < 3:
            return refusal(status, "SlowDown")
        return listing([]) if "list-type" in request.path else PICTURE

    server.answer = recovers
    ACTIONS[action](store_at(server))
    assert len(server.requests) == 3


@pytest.mark.parametrize("action", list(ACTIONS))
def test_retries_have_an_end(server: Scripted, action: str) -> None:
    server.answer = lambda request: refusal(503, "SlowDown")
    with pytest.raises(errors.TransientStorageError):
        ACTIONS[action](store_at(server))
    assert len(server.requests) == 3


@pytest.mark.parametrize("action", list(ACTIONS))
def test_a_server_that_is_down_is_unavailable(server: Scripted, action: str) -> None:
    store = store_at(server, endpoint="http://127.0.0.1:1", retries=1)
    with pytest.raises(errors.TransientStorageError, match=r"the store at 127\.0\.0\.1:1 cannot be reached"):
        ACTIONS[action](store)


@pytest.mark.parametrize("action", ["list", "get", "get-hard"])
def test_an_answer_that_does_not_come_is_not_waited_for_forever(server: Scripted, action: str) -> None:
    let_go = threading.Event()

    def hang(request: Request) -> Answer:
        let_go.wait(20)
        return PICTURE

    server.answer = hang
    try:
        with pytest.raises(errors.TransientStorageError, match="in time"):
            ACTIONS[action](store_at(server, request_seconds=0.05, retries=1))
    finally:
        let_go.set()


# Credentials


def key_folder(folder: Path, access: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "AWS_ACCESS_KEY_ID").write_text(f"{access}\n")
    (folder / "AWS_SECRET_ACCESS_KEY").write_text(SECRET)
    return folder


@pytest.mark.parametrize("action", ["list", "get", "get-hard", "put"])
def test_replaced_credentials_are_used_at_once(server: Scripted, tmp_path: Path, action: str) -> None:
    folder = key_folder(tmp_path / "keys", "first")
    store = store_at(server, credentials=CredentialKind.FOLDER, credentials_folder=folder)
    server.answer = lambda request: listing([]) if "list-type" in request.path else PICTURE
    ACTIONS[action](store)
    assert "Credential=first/" in server.last.headers["authorization"]
    key_folder(folder, "second")
    ACTIONS[action](store)
    assert "Credential=second/" in server.last.headers["authorization"]


def test_credentials_are_read_once_for_a_request(
    server: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    folder_of = FolderCredentials._open
    monkeypatch.setattr(FolderCredentials, "_open", lambda own: opened.append(folder_of(own)) or opened[-1])
    folder = key_folder(tmp_path / "keys", "first")
    store = store_at(server, credentials=CredentialKind.FOLDER, credentials_folder=folder)
    store.put("1.jpg", b"")
    server.answer = lambda request: PICTURE
    store.get("1.jpg")
    assert (len(server.requests), len(opened)) == (2, 2)


@pytest.mark.parametrize("action", list(ACTIONS))
def test_a_request_that_was_signed_just_before_the_change_is_sent_again(
    server: Scripted, tmp_path: Path, action: str
) -> None:
    folder = key_folder(tmp_path / "keys", "first")

    def revoke(request: Request) -> Answer:
        if "Credential=first/" in request.headers["authorization"]:
            key_folder(folder, "second")
            return refusal(403, "InvalidAccessKeyId")
        return listing([]) if "list-type" in request.path else PICTURE

    server.answer = revoke
    ACTIONS[action](store_at(server, credentials=CredentialKind.FOLDER, credentials_folder=folder))
    assert len(server.requests) == 2


def test_missing_credentials_are_noticed_before_anything_is_sent(
    server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    for action in ACTIONS.values():
        with pytest.raises(errors.AccessDenied, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
            action(store_at(server))
    assert not server.requests


def test_two_locations_may_have_credentials_of_their_own(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUT_ACCESS_KEY_ID", "of-the-output")
    monkeypatch.setenv("OUT_SECRET_ACCESS_KEY", "x")
    store_at(server, environment_prefix="OUT_").get("1.jpg")
    assert "Credential=of-the-output/" in server.last.headers["authorization"]


def test_many_threads_share_a_store(server: Scripted) -> None:
    store = store_at(server)
    server.answer = lambda request: (200, PICTURE[1], unquote(request.path).encode())
    keys = [f"{'a//' if number % 5 == 0 else ''}{number}.jpg" for number in range(200)]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(store.get, keys))
    assert [(stored.info.key, stored.data.decode()) for stored in found] == [(key, f"/bucket/in/{key}") for key in keys]
