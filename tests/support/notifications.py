"""Notifications as stores send them."""

from __future__ import annotations

import base64
import json
from typing import Any


def record(key: str, *, bucket: str = "pictures", name: str = "ObjectCreated:Put") -> dict[str, Any]:
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "us-east-1",
        "eventTime": "2026-01-01T00:00:00.000Z",
        "eventName": name,
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "new-pictures",
            "bucket": {"name": bucket, "arn": f"arn:aws:s3:::{bucket}"},
            "object": {"key": key, "size": 1024, "eTag": "d41d8cd9", "versionId": "v1", "sequencer": "0055AED6"},
        },
    }


def records(key: str, **more: Any) -> dict[str, Any]:
    return {"Records": [record(key, **more)]}


def sns(value: Any) -> dict[str, Any]:
    return {"Type": "Notification", "MessageId": "1", "TopicArn": "arn:aws:sns:x:1:t", "Message": json.dumps(value)}


def eventbridge(key: str, *, bucket: str = "pictures", kind: str = "Object Created") -> dict[str, Any]:
    detail = {"version": "0", "bucket": {"name": bucket}, "object": {"key": key, "size": 5, "etag": "b1946ac9"}}
    return {"version": "0", "id": "1", "detail-type": kind, "source": "aws.s3", "account": "1", "detail": detail}


def pubsub(key: str, *, bucket: str = "pictures", kind: str = "OBJECT_FINALIZE") -> dict[str, Any]:
    attributes = {"eventType": kind, "bucketId": bucket, "objectId": key, "payloadFormat": "JSON_API_V1"}
    data = base64.b64encode(json.dumps({"bucket": bucket, "name": key}).encode()).decode()
    return {"message": {"attributes": attributes, "data": data, "messageId": "1"}, "subscription": "projects/p/s/x"}
