"""Notifications from a queue: deleted when they are kept, and not before."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from faceblur_batch.config import WatchSettings
from faceblur_batch.errors import AccessDenied, TransientStorageError
from faceblur_batch.inbox import Inbox
from faceblur_batch.intake import Intake
from faceblur_batch.job import JobSpec
from faceblur_batch.sqs import AT_ONCE, TOGETHER, Message, QueueReader, QueueUnavailable, SqsQueue
from faceblur_process.settings import ConfigurationError, read
from support.memory_store import MemoryStore, Operation
from support.notifications import records
from support.sqs_server import SqsServer, sqs_server

needs_boto = pytest.mark.skipif(importlib.util.find_spec("boto3") is None, reason="needs boto3: install faceblur[sqs]")


class ListOfMessages:
    """A queue that hands out messages again until they are deleted."""

    def __init__(self) -> None:
        self.bodies: dict[str, str] = {}
        self.hidden: set[str] = set()
        self.fails: list[Exception] = []
        self.most_deleted = 0

    def send(self, value: Any) -> None:
        self.bodies[str(len(self.bodies))] = value if isinstance(value, str) else json.dumps(value)

    def receive(self, seconds: int) -> list[Message]:
        if self.fails:
            raise self.fails.pop(0)
        ids = [identity for identity in self.bodies if identity not in self.hidden][:AT_ONCE]
        self.hidden.update(ids)
        return [Message(self.bodies[identity], identity) for identity in ids]

    def delete(self, messages: Sequence[Message]) -> None:
        self.most_deleted = max(self.most_deleted, len(messages))
        for message in messages:
            del self.bodies[message.receipt]


class Reading:
    """A reader on a queue in memory."""

    def __init__(self) -> None:
        self.store = MemoryStore("destination")
        self.inbox = Inbox(self.store, "job", 100_000)
        self.queue = ListOfMessages()
        self.counts: Counter[str] = Counter()
        intake = Intake(JobSpec(source="s3://pictures/in", destination="s3://results"), self.inbox)
        self.ending = threading.Event()
        self.reader = QueueReader(
            self.queue,
            intake,
            self.ending,
            lambda kind, number: self.counts.update({kind: number}),
            monotonic=lambda: 0.0,
        )


@pytest.fixture
def reading() -> Reading:
    return Reading()


def test_messages_are_deleted_when_what_they_name_is_kept(reading: Reading) -> None:
    reading.queue.send(records("in/a.jpg"))
    reading.queue.send(records("elsewhere/a.jpg"))
    reading.queue.send({"Event": "s3:TestEvent", "Service": "Amazon S3", "Bucket": "pictures"})
    assert reading.reader.step() == 0
    assert reading.inbox.take().keys == {"a.jpg"}
    assert reading.queue.bodies == {}


def test_what_cannot_be_kept_stays_in_the_queue(reading: Reading) -> None:
    reading.queue.send(records("in/a.jpg"))

    def no_writes(operation: Operation, done: bool) -> None:
        raise TransientStorageError("no answer")

    reading.store.hook = no_writes
    assert reading.reader.step() > 0
    assert len(reading.queue.bodies) == 1
    reading.store.hook = lambda operation, done: None
    assert reading.reader.step() == 0
    assert len(reading.queue.bodies) == 1  # it is hidden for a while
    reading.queue.hidden.clear()
    reading.reader.step()
    assert reading.inbox.take().keys == {"a.jpg"}


def test_many_messages_are_kept_by_one_write(reading: Reading) -> None:
    for number in range(TOGETHER + 5):
        reading.queue.send(records(f"in/{number}.jpg"))
    reading.reader.step()
    assert reading.store.requests["put"] == 1
    assert reading.queue.most_deleted == AT_ONCE
    reading.reader.step()
    assert reading.queue.bodies == {}
    assert len(reading.inbox.take().keys) == TOGETHER + 5


def test_what_is_no_notification_is_left_to_the_queue(reading: Reading) -> None:
    reading.queue.send("no JSON")
    reading.queue.send(records("in/a.jpg"))
    reading.reader.step()
    assert list(reading.queue.bodies.values()) == ["no JSON"]
    assert reading.counts == {"not_understood": 1}


def test_a_queue_that_is_away_is_asked_less_and_less_often(reading: Reading) -> None:
    reading.queue.fails = [QueueUnavailable("no answer"), AccessDenied("no credentials")] * 5
    pauses = [reading.reader.step() for _ in range(10)]
    assert 1 <= pauses[0] <= 2
    assert 30 <= pauses[-1] <= 60
    assert reading.reader.step() == 0


def test_a_job_that_was_cancelled_reads_nothing(reading: Reading) -> None:
    reading.inbox.closed.set()
    reading.queue.send(records("in/a.jpg"))
    assert reading.reader.step() > 0
    assert reading.queue.hidden == set()


def test_the_reader_ends_when_it_is_asked_to(reading: Reading) -> None:
    reading.queue.fails = [QueueUnavailable("no answer")] * 100
    reading.reader.start()
    assert reading.reader.alive
    reading.reader.close()
    assert not reading.reader.alive


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SqsServer]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key-of-the-environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with sqs_server() as server:
        yield server


@needs_boto
def test_a_queue_is_read_by_its_protocol(server: SqsServer) -> None:
    queue = SqsQueue(server.url)
    assert queue.receive(0) == []
    server.send("first")
    server.send("second")
    messages = queue.receive(0)
    assert [message.body for message in messages] == ["first", "second"]
    queue.delete(messages[:1])
    assert list(server.messages.values()) == ["second"]
    server.show_again()
    assert [message.body for message in queue.receive(0)] == ["second"]
    assert {key for _, key in server.asked} == {"key-of-the-environment"}


@needs_boto
def test_an_answer_is_told_by_its_code_alone(server: SqsServer) -> None:
    server.fails = [403]
    with pytest.raises(QueueUnavailable) as caught:
        SqsQueue(server.url).receive(0)
    assert "AccessDenied" in str(caught.value)
    assert "secret" not in str(caught.value)


@needs_boto
def test_credentials_in_a_folder_may_be_replaced(server: SqsServer, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        (tmp_path / name).write_text("first")
    queue = SqsQueue(server.url, credentials_folder=tmp_path)
    queue.receive(0)
    (tmp_path / "AWS_ACCESS_KEY_ID").write_text("second")
    queue.receive(0)
    assert [key for _, key in server.asked] == ["first", "second"]


@pytest.mark.skipif(importlib.util.find_spec("boto3") is not None, reason="boto3 is installed")
def test_without_boto3_it_is_said_what_to_install() -> None:
    with pytest.raises(QueueUnavailable, match=r"faceblur\[sqs\]"):
        SqsQueue("https://sqs.eu-central-1.amazonaws.com/1/pictures")


@needs_boto
def test_the_region_is_that_of_the_url() -> None:
    queue = SqsQueue("https://sqs.eu-central-1.amazonaws.com/1/pictures")
    assert queue._options["region_name"] == "eu-central-1"
    assert queue._options["endpoint_url"] == "https://sqs.eu-central-1.amazonaws.com"


@pytest.mark.parametrize("url", ["http://queue:9324/1/x", "queue", "ftp://x/y", "https://u:p@queue/1/x"])
def test_a_queue_that_cannot_be_meant_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="sqs_url"):
        read(WatchSettings, {"sqs_url": url})


def test_a_queue_in_the_clear_has_to_be_meant() -> None:
    assert read(WatchSettings, {"sqs_url": "http://queue:9324/1/x", "sqs_allow_http": True}).sqs_url
