"""What stores say when objects come and go: one reading for all the forms in which it arrives. Pure, no I/O.

Understood are the records of Amazon S3, MinIO, Ceph, versitygw and others (``{"Records": [...]}``), the same inside a
message of SNS, Amazon EventBridge, and Google's Pub/Sub push. A notification only names keys: what is at them is looked
up afterwards. So duplicates, another order and versions need no care, and whoever forges one can make us look at
objects, nothing more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

from .errors import BatchError


class NotUnderstood(BatchError):
    """It is no notification, or one of a form that is not known."""

    reason = "NOT_A_NOTIFICATION"


@dataclass(frozen=True, slots=True)
class Notice:
    """Something happened to an object.

    Attributes:
        bucket: That has it.
        keys: Its key, in the bucket. Two, where the form does not tell whether it is percent-encoded: Amazon and MinIO
            encode it, others do not, all by the same name of the form. At one of the two there is nothing.
        removed: It was deleted, or hidden by a deletion; otherwise it was written.
    """

    bucket: str
    keys: tuple[str, ...]
    removed: bool = False


def parse(body: bytes | str) -> list[Notice]:
    """Read a notification. One that says nothing of an object's content, such as a test, gives an empty list.

    Raises:
        NotUnderstood: It cannot be read.
    """
    try:
        return list(_notices(json.loads(body)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NotUnderstood("this is no notification of a known form") from error


def _notices(value: Any) -> Iterator[Notice]:
    if "Records" in value:
        for record in value["Records"]:
            if (removed := _removed(record["eventName"])) is not None:
                key = record["s3"]["object"]["key"]
                spellings = tuple(dict.fromkeys((unquote_plus(key), key)))
                yield Notice(str(record["s3"]["bucket"]["name"]), spellings, removed)
    elif value.get("Event") == "s3:TestEvent":
        return
    elif value.get("Type") == "Notification":
        yield from parse(value["Message"])
    elif value.get("source") == "aws.s3":
        if (removed := _removed(value["detail-type"])) is not None:
            detail = value["detail"]
            yield Notice(str(detail["bucket"]["name"]), (str(detail["object"]["key"]),), removed)
    else:
        attributes = value["message"]["attributes"]
        if (removed := _removed(attributes["eventType"])) is not None:
            yield Notice(str(attributes["bucketId"]), (str(attributes["objectId"]),), removed)


def _removed(name: str) -> bool | None:
    """Whether an event removes an object or writes it; None: neither, such as reading it, or each pass led to one."""
    for known, removed in _MEANINGS:
        if known in name:
            return removed
    return None


_MEANINGS = (
    ("ObjectCreated", False),
    ("Object Created", False),
    ("OBJECT_FINALIZE", False),
    ("ObjectRestore:Completed", False),
    ("Object Restore Completed", False),
    ("ObjectRemoved", True),
    ("Object Deleted", True),
    ("LifecycleExpiration", True),
    ("OBJECT_DELETE", True),
    ("OBJECT_ARCHIVE", True),
)
