"""What stores say when objects come and go, in every form that is understood, and what becomes of it."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faceblur_batch.errors import InvalidLocation
from faceblur_batch.events import Notice, NotUnderstood, parse
from faceblur_batch.inbox import Inbox
from faceblur_batch.intake import Intake
from faceblur_batch.job import JobSpec
from support.memory_store import MemoryStore
from support.notifications import eventbridge, pubsub, record, records, sns

TEST_EVENT = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "pictures", "RequestId": "1"}


def read(value: Any) -> list[Notice]:
    return parse(json.dumps(value))


@pytest.mark.parametrize(
    "value",
    [
        records("in/a.jpg"),
        records("in/a.jpg", name="s3:ObjectCreated:CompleteMultipartUpload"),
        {"EventName": "s3:ObjectCreated:Put", "Key": "pictures/in/a.jpg", **records("in%2Fa.jpg")},
        sns(records("in/a.jpg")),
        eventbridge("in/a.jpg"),
        sns(eventbridge("in/a.jpg")),
        pubsub("in/a.jpg"),
        records("in/a.jpg", name="ObjectRestore:Completed"),
    ],
    ids=["s3", "multipart", "minio", "sns", "eventbridge", "eventbridge through sns", "pub/sub", "restored"],
)
def test_a_new_object_is_named(value: Any) -> None:
    (notice,) = read(value)
    assert (notice.bucket, notice.keys[0], notice.removed) == ("pictures", "in/a.jpg", False)


@pytest.mark.parametrize(
    "value",
    [
        records("a.jpg", name="ObjectRemoved:Delete"),
        records("a.jpg", name="s3:ObjectRemoved:DeleteMarkerCreated"),
        records("a.jpg", name="LifecycleExpiration:Delete"),
        eventbridge("a.jpg", kind="Object Deleted"),
        pubsub("a.jpg", kind="OBJECT_DELETE"),
    ],
)
def test_a_removed_object_is_told_apart(value: Any) -> None:
    assert [notice.removed for notice in read(value)] == [True]


@pytest.mark.parametrize(
    "value",
    [
        TEST_EVENT,
        {"Records": []},
        records("a.jpg", name="s3:ObjectAccessed:Get"),
        records("a.jpg", name="s3:ObjectAccessed:Head"),
        records("a.jpg", name="ObjectTagging:Put"),
        eventbridge("a.jpg", kind="Object Tags Added"),
        pubsub("a.jpg", kind="OBJECT_METADATA_UPDATE"),
        sns(TEST_EVENT),
    ],
)
def test_what_changes_no_content_names_nothing(value: Any) -> None:
    assert read(value) == []


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        ("red+flower%201.jpg", ("red flower 1.jpg", "red+flower%201.jpg")),
        ("caf%C3%A9.jpg", ("café.jpg", "caf%C3%A9.jpg")),
        ("plain.jpg", ("plain.jpg",)),
        ("a+b.jpg", ("a b.jpg", "a+b.jpg")),
    ],
)
def test_a_key_that_may_be_encoded_is_read_both_ways(sent: str, keys: tuple[str, ...]) -> None:
    assert read(records(sent))[0].keys == keys


def test_a_key_that_is_never_encoded_is_read_one_way() -> None:
    assert read(eventbridge("a+b%20.jpg"))[0].keys == ("a+b%20.jpg",)


def test_several_records_name_several_objects() -> None:
    value = {"Records": [record(f"{number}.jpg") for number in range(3)]}
    assert [notice.keys[0] for notice in read(value)] == ["0.jpg", "1.jpg", "2.jpg"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no JSON",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"17",
        b'"text"',
        b"{}",
        b'{"Records": null}',
        b'{"Records": [1]}',
        b'{"Records": [{}]}',
        b'{"Records": [{"eventName": "ObjectCreated:Put", "s3": {"object": {"key": 3}, "bucket": {"name": "b"}}}]}',
        b'{"Type": "Notification", "Message": "not JSON"}',
        b'{"Type": "Notification"}',
        b'{"Type": "SubscriptionConfirmation", "SubscribeURL": "https://sns.example.org/"}',
        b'{"source": "aws.s3"}',
        b'{"message": {"attributes": {}}}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_notification_is_refused(body: bytes) -> None:
    with pytest.raises(NotUnderstood, match="no notification of a known form"):
        parse(body)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "Records",
                    "eventName",
                    "s3",
                    "object",
                    "bucket",
                    "key",
                    "name",
                    "Type",
                    "Message",
                    "message",
                    "detail",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_whatever_is_sent_is_read_or_refused(value: Any) -> None:
    with contextlib.suppress(NotUnderstood):
        parse(json.dumps(value))


class Kept:
    """An intake, and what it has put into the inbox."""

    def __init__(self, source: str = "s3://pictures/in/", **spec: Any) -> None:
        self.inbox = Inbox(MemoryStore("destination"), "job", 100)
        self.counts: Counter[str] = Counter()
        spec = {"source": source, "destination": "s3://results/", **spec}
        self.intake = Intake(JobSpec(**spec), self.inbox, lambda kind, number: self.counts.update({kind: number}))

    def send(self, value: Any) -> set[str]:
        self.intake.keep(self.intake.keys_in(json.dumps(value)))
        return set(self.inbox.take().keys)


def test_keys_are_those_of_the_source() -> None:
    kept = Kept()
    assert kept.send(records("in/2026/a.jpg")) == {"2026/a.jpg"}
    assert kept.send(records("in/red+flower.jpg")) >= {"red flower.jpg", "red+flower.jpg"}
    assert kept.counts == {"object": 2}


@pytest.mark.parametrize(
    "value",
    [
        records("out/a.jpg"),
        records("inside.jpg"),
        records("in/"),
        records("in/notes.txt"),
        records("in/a.jpg", bucket="others"),
        records("in/.faceblur/a.jpg"),
        records("in/" + "x" * 1100 + ".jpg"),
        records("in/\udcff.jpg"),
        records("in/%00.jpg"),
    ],
)
def test_what_the_job_cannot_mean_is_not_kept(value: Any) -> None:
    kept = Kept()
    keys = {key for key in kept.send(value) if "%" not in key}
    assert keys == set()
    assert kept.counts["removed"] == 0


def test_removed_objects_are_noted_and_not_looked_at() -> None:
    kept = Kept()
    assert kept.send(records("in/a.jpg", name="ObjectRemoved:Delete")) == set()
    assert kept.counts == {"removed": 1}


def test_the_selection_of_the_job_counts() -> None:
    kept = Kept(selection={"prefix": "2026/", "exclude": ["**/draft-*"]})
    value = {"Records": [record(f"in/{key}") for key in ("2025/a.jpg", "2026/a.jpg", "2026/draft-a.jpg")]}
    assert kept.send(value) == {"2026/a.jpg"}


def test_a_folder_sends_no_notifications() -> None:
    with pytest.raises(InvalidLocation, match="can only be listed"):
        Kept("/pictures")
