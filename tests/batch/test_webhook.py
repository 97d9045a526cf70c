"""Notifications that are posted: who is let in, what is answered, and that nothing is unbounded."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from faceblur_batch import webhook
from faceblur_batch.config import WatchSettings
from faceblur_batch.errors import TransientStorageError
from faceblur_batch.inbox import Inbox
from faceblur_batch.intake import Intake
from faceblur_batch.job import JobSpec
from faceblur_batch.webhook import LONGEST, CannotListen, receive
from faceblur_process.settings import ConfigurationError, read
from support.memory_store import MemoryStore, Operation
from support.notifications import records

TOKEN = "a token of the tests"


class Hook:
    """A webhook on a loopback port."""

    def __init__(self, folder: Path) -> None:
        self.store = MemoryStore("destination")
        self.inbox = Inbox(self.store, "job", 100)
        self.counts: Counter[str] = Counter()
        self.token = folder / "token"
        self.token.write_text(TOKEN + "\n")
        intake = Intake(JobSpec(source="s3://pictures/in", destination="s3://results"), self.inbox)
        count = lambda kind, number: self.counts.update({kind: number})  # noqa: E731
        self.server = receive("127.0.0.1:0", intake, self.token, count)
        self.port = self.server.server_port

    def ask(self, body: bytes | None, method: str = "POST", *, token: str = f"Bearer {TOKEN}", **headers: str) -> int:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            given = {"Authorization": token} if token else {}
            connection.request(method, "/any/path", body, given | headers)
            answer = connection.getresponse()
            self.said = answer.read()
            return answer.status

    def send(self, value: Any, **more: str) -> int:
        return self.ask(json.dumps(value).encode(), **more)

    def raw(self, *lines: str) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), 20) as connection:
            connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
            return connection.recv(1024)


@pytest.fixture
def hook(tmp_path: Path) -> Iterator[Hook]:
    hook = Hook(tmp_path)
    yield hook
    hook.server.close()


def test_a_notification_is_kept_before_it_is_answered(hook: Hook) -> None:
    assert hook.send(records("in/a.jpg")) == 200
    assert hook.inbox.take().keys == {"a.jpg"}
    assert hook.said == b""


def test_what_cannot_be_kept_is_to_be_sent_again(hook: Hook) -> None:
    def no_writes(operation: Operation, done: bool) -> None:
        raise TransientStorageError("no answer")

    hook.store.hook = no_writes
    assert hook.send(records("in/a.jpg")) == 503
    hook.store.hook = lambda operation, done: None
    hook.inbox.closed.set()
    assert hook.send(records("in/a.jpg")) == 503
    hook.inbox.closed.clear()
    assert hook.send(records("in/a.jpg")) == 200


@pytest.mark.parametrize("token", ["", "Bearer", "Bearer wrong", "Basic x", f"Bearer {TOKEN}x", "Bearer \xff"])
def test_without_the_token_nobody_is_let_in(hook: Hook, token: str) -> None:
    assert hook.send(records("in/a.jpg"), token=token) == 401
    assert hook.inbox.take().keys == set()
    assert hook.counts == {"refused": 1}


def test_the_token_is_taken_with_and_without_the_word_before_it_and_may_be_replaced(hook: Hook) -> None:
    assert hook.send(records("in/a.jpg"), token=TOKEN) == 200
    hook.token.write_text("another")
    assert hook.send(records("in/a.jpg"), token=TOKEN) == 401
    assert hook.send(records("in/a.jpg"), token="Bearer another") == 200


def test_an_empty_or_missing_token_lets_nobody_in(hook: Hook) -> None:
    hook.token.write_text("\n")
    assert hook.send(records("in/a.jpg"), token="") == 401
    hook.token.unlink()
    assert hook.send(records("in/a.jpg")) == 401


def test_a_store_that_asks_whether_somebody_is_there_needs_no_token(hook: Hook) -> None:
    assert hook.ask(None, "HEAD", token="") == 200


def test_what_is_no_notification_is_refused(hook: Hook) -> None:
    assert hook.ask(b"no JSON") == 400
    assert hook.counts == {"not_understood": 1}


def test_other_methods_are_refused(hook: Hook) -> None:
    assert hook.ask(None, "GET") == 501


def test_a_body_that_is_too_long_is_not_read(hook: Hook) -> None:
    authorization = f"Authorization: Bearer {TOKEN}"
    assert b" 413 " in hook.raw("POST / HTTP/1.1", "Host: x", authorization, f"Content-Length: {LONGEST + 1}")
    assert b" 411 " in hook.raw("POST / HTTP/1.1", "Host: x", authorization, "Transfer-Encoding: chunked")
    assert b" 411 " in hook.raw("POST / HTTP/1.1", "Host: x", authorization, "Content-Length: -5")
    assert hook.send(records("in/a.jpg")) == 200


def test_a_connection_that_says_nothing_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook._Handler, "timeout", 0.05)
    hook = Hook(tmp_path)
    try:
        with socket.create_connection(("127.0.0.1", hook.port), 20) as silent:
            silent.sendall(b"POST / HTTP/1.1\r\n")
            assert silent.recv(10) == b""
    finally:
        hook.server.close()


def test_more_connections_than_there_are_threads_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook.Server.__init__, "__kwdefaults__", {"most": 2})
    hook = Hook(tmp_path)
    try:
        with contextlib.ExitStack() as stack:
            silent = [stack.enter_context(socket.create_connection(("127.0.0.1", hook.port), 20)) for _ in range(2)]
            while hook.server._slots._value:  # type: ignore[attr-defined]
                pass
            with socket.create_connection(("127.0.0.1", hook.port), 20) as third:
                assert third.recv(10) == b""
            assert len(silent) == 2
    finally:
        hook.server.close()


def test_many_who_send_at_the_same_time_are_all_kept(hook: Hook) -> None:
    answers: list[int] = []

    def send(number: int) -> None:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", hook.port, timeout=20)) as connection:
            for index in range(5):
                body = json.dumps(records(f"in/{number}-{index}.jpg"))
                connection.request("POST", "/", body, {"Authorization": TOKEN})
                answer = connection.getresponse()
                answer.read()
                answers.append(answer.status)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 40
    assert len(hook.inbox.take().keys) == 40


def test_an_address_in_use_is_said_to_be(hook: Hook) -> None:
    intake = Intake(JobSpec(source="s3://pictures/in", destination="s3://results"), hook.inbox)
    with pytest.raises(CannotListen, match=f"127.0.0.1:{hook.port} is in use"):
        receive(f"127.0.0.1:{hook.port}", intake, None)


@pytest.mark.parametrize("address", ["0.0.0.0:80", "[::]:80", "example.org:80", "10.0.0.1:80"])
def test_beyond_this_machine_a_token_is_needed(address: str) -> None:
    with pytest.raises(ConfigurationError, match="webhook_token_file has to be set"):
        read(WatchSettings, {"webhook_address": address})
    assert read(WatchSettings, {"webhook_address": address, "webhook_token_file": "token"})


@pytest.mark.parametrize("address", ["127.0.0.1:80", "[::1]:80", "localhost:80", ""])
def test_on_this_machine_none_is(address: str) -> None:
    assert read(WatchSettings, {"webhook_address": address}).webhook_address == address
