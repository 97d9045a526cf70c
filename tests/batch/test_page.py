"""The work on one page."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import faceblur
from faceblur.testing import FakeServer
from faceblur_batch.errors import (
    AccessDenied,
    KeyRefused,
    StoreFull,
    TransientStorageError,
)
from faceblur_batch.ledger import Mark, State
from faceblur_batch.page import GenerationHopeless, PageInTrouble, PageLeft, work_on
from faceblur_batch.planner import Phase
from faceblur_batch.storage.store import ObjectHeaders
from support.batches import PIXELS, Batch, Crash, is_log
from support.memory_store import EVERYTHING, Operation

BAD = PIXELS + b"bad"


def planned(count: int = 4, **spec: Any) -> Batch:
    """A batch with everything in page 0."""
    batch = Batch(count, **{"page_size": 1024, "parallelism": 1, **spec})
    plan(batch)
    return batch


def plan(batch: Batch) -> None:
    planner = batch.start()
    while not planner.status().planned:
        planner.step()
    batch.queue.pages.clear()


def with_bad(error: Exception, count: int = 3, **spec: Any) -> Batch:
    batch = Batch(count, **{"page_size": 1024, "parallelism": 1, **spec})
    batch.add("m-bad.png", BAD)
    batch.blurrer.errors[BAD] = [error]
    plan(batch)
    return batch


def test_a_page_is_done_and_its_outputs_tell_what_they_are() -> None:
    batch = planned()
    summary = work_on(batch.workplace(), 0)
    assert summary is not None
    assert summary.kinds == Counter(blurred=4)
    headers = batch.destination.head("folder/0000.png").headers
    assert headers is not None
    assert headers.content_type == "image/png"
    source = batch.source.head("folder/0000.png")
    assert headers.metadata["faceblur-etag"] == source.etag.strip('"')
    assert headers.metadata["faceblur-generation"] == "1"
    assert headers.metadata["faceblur-options"] == batch.generation.options_sha256
    assert headers.metadata["faceblur-faces"] == "1"


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (faceblur.UnreadableImageError("truncated", reason="UNREADABLE_IMAGE"), "refused", "UNREADABLE_IMAGE"),
        (faceblur.MultipleFramesError("animated", reason="MULTIPLE_FRAMES"), "refused", "MULTIPLE_FRAMES"),
        (faceblur.LimitExceededError("too wide", reason="LIMIT_EXCEEDED"), "refused", "LIMIT_EXCEEDED"),
        (faceblur.VerificationFailedError("a face", reason="VERIFICATION_FAILED"), "refused", "VERIFICATION_FAILED"),
        (faceblur.MessageTooLargeError("too large"), "refused", "TOO_LARGE"),
    ],
)
def test_a_picture_at_fault_is_refused_at_once_and_the_others_are_done(
    error: Exception, kind: str, reason: str
) -> None:
    batch = with_bad(error)
    summary = work_on(batch.workplace(), 0)
    assert summary is not None
    assert summary.kinds == Counter({"blurred": 3, kind: 1})
    assert summary.reasons == Counter({f"{kind} {reason}": 1})
    assert batch.blurrer.calls[BAD] == 1
    assert "m-bad.png" not in batch.destination.objects


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (faceblur.UnavailableError("connection lost"), "quarantined", "UNAVAILABLE"),
        (faceblur.DeadlineExceededError("no answer"), "quarantined", "DEADLINE_EXCEEDED"),
        (faceblur.ServerError("the engine failed", reason="ENGINE_ERROR"), "failed", "ENGINE_ERROR"),
    ],
)
def test_a_picture_that_may_be_at_fault_is_tried_alone_as_often_as_allowed(
    error: Exception, kind: str, reason: str
) -> None:
    batch = with_bad(error, attempts=4)
    summary = work_on(batch.workplace(), 0)
    assert summary is not None
    assert summary.kinds == Counter({"blurred": 3, kind: 1})
    assert summary.reasons == Counter({f"{kind} {reason}": 1})
    assert batch.blurrer.calls[BAD] == 1 + 4


def test_a_picture_that_succeeds_alone_is_done() -> None:
    batch = planned(1)
    image = batch.source.get("folder/0000.png").data
    batch.blurrer.hook = fail_first(faceblur.UnavailableError("its neighbour killed the worker"))
    summary = work_on(batch.workplace(), 0)
    assert summary is not None
    assert summary.kinds == Counter(blurred=1)
    assert batch.blurrer.calls[image] == 2


def fail_first(error: Exception) -> Any:
    errors = [error]

    def hook(image: bytes) -> None:
        if errors:
            raise errors.pop()

    return hook


def test_many_pictures_that_fail_in_one_page_do_not_hold_up_the_others() -> None:
    batch = planned(40)
    bad = {stored.data for key, stored in batch.source.objects.items() if key < "folder/0025"}

    def fail(image: bytes) -> None:
        if image in bad:
            raise faceblur.ServerError("the engine failed", reason="ENGINE_ERROR")

    batch.blurrer.hook = fail
    summary = work_on(batch.workplace(), 0)
    assert summary is not None
    assert summary.kinds == Counter(blurred=15, failed=25)
    assert {batch.blurrer.calls[image] for image in bad} == {4}


def test_when_the_workers_are_gone_a_suspect_is_not_blamed() -> None:
    batch = planned(2)
    batch.blurrer.down = True
    for _ in range(10):
        with pytest.raises(PageInTrouble):
            work_on(batch.workplace(), 0)
    batch.blurrer.down = False
    summary = work_on(batch.workplace(), 0)
    assert summary is not None
    assert summary.kinds == Counter(blurred=2)


@pytest.mark.parametrize(
    "error",
    [
        faceblur.OverloadedError("busy", reason="OVERLOADED"),
        faceblur.DeadlineTooShortError("busy", reason="DEADLINE_TOO_SHORT"),
        faceblur.AccessDeniedError("not you"),
        faceblur.ModelUnusableError("no model", reason="MODEL_UNUSABLE"),
        faceblur.ProtocolError("an older server"),
    ],
)
def test_what_is_no_picture_s_fault_leaves_the_page_for_later(error: Exception) -> None:
    batch = with_bad(error)
    with pytest.raises(PageInTrouble):
        work_on(batch.workplace(), 0)
    del batch.blurrer.errors[BAD]
    summary = work_on(batch.workplace(), 0)
    assert summary is not None
    assert summary.kinds == Counter(blurred=4)
    assert all(calls == 1 for image, calls in batch.blurrer.calls.items() if image != BAD)


def test_options_that_no_worker_takes_make_the_generation_hopeless() -> None:
    batch = with_bad(faceblur.InvalidOptionsError("cells is 99", reason="INVALID_OPTIONS"))
    with pytest.raises(GenerationHopeless, match="cells is 99"):
        work_on(batch.workplace(), 0)


@pytest.mark.parametrize("gone", [False, True])
def test_an_object_that_changed_since_it_was_listed_is_reported_and_not_blurred(tmp_path: Path, gone: bool) -> None:
    batch = planned(3)
    if gone:
        batch.source.delete("folder/0001.png")
    else:
        batch.add("folder/0001.png", PIXELS + b"another")
    summary = work_on(batch.workplace(), 0)
    assert summary is not None
    assert summary.kinds == Counter(blurred=2, changed=1)
    assert "folder/0001.png" not in batch.destination.objects


def test_an_object_beyond_the_workers_limit_is_not_even_read() -> None:
    batch = Batch(1, page_size=512, parallelism=1)
    batch.add("huge.png", PIXELS + bytes(2 << 20))
    plan(batch)
    reads: list[str] = []
    batch.source.hook = lambda operation, done: reads.append(operation.key) if operation.name == "get" else None
    summary = work_on(batch.workplace(), 0)
    assert summary is not None
    assert summary.reasons == Counter({"refused LIMIT_EXCEEDED": 1})
    assert reads == ["folder/0000.png"]


def failing(name: str, key: str, error: Exception, times: int = 1_000_000) -> Any:
    left = [times]

    def hook(operation: Operation, done: bool) -> None:
        if not done and operation.name == name and operation.key == key and left[0] > 0:
            left[0] -= 1
            raise error

    return hook


@pytest.mark.parametrize("name", ["get", "put"])
@pytest.mark.parametrize("error", [TransientStorageError("503"), AccessDenied("not this one")])
def test_an_object_that_can_never_be_read_or_written_fails_and_does_not_loop(name: str, error: Any) -> None:
    batch = planned(3)
    batch.hook(failing(name, "folder/0001.png", error))
    summary = work_on(batch.workplace(), 0)
    assert summary is not None
    assert summary.kinds == Counter(blurred=2, failed=1)
    assert summary.reasons == Counter({f"failed {error.reason}": 1})


def test_an_output_s_key_that_the_store_refuses_fails_that_picture() -> None:
    batch = planned(2)
    batch.destination.hook = failing("put", "folder/0001.png", KeyRefused("no such key"))
    summary = work_on(batch.workplace(), 0)
    assert summary is not None
    assert summary.reasons == Counter({"failed KEY_REFUSED": 1})


def test_a_full_store_leaves_the_page_for_later() -> None:
    batch = planned(3)
    batch.destination.hook = failing("put", "folder/0001.png", StoreFull("full"))
    with pytest.raises(PageInTrouble):
        work_on(batch.workplace(), 0)


def test_a_short_fault_of_the_store_costs_one_more_try() -> None:
    batch = planned(3)
    batch.hook(failing("put", "folder/0001.png", TransientStorageError("503"), times=1))
    summary = work_on(batch.workplace(), 0)
    assert summary is not None
    assert summary.kinds == Counter(blurred=3)


def test_what_is_not_ours_at_an_output_s_key_is_left_alone() -> None:
    batch = planned(2)
    batch.destination.put("folder/0001.png", b"somebody's")
    batch.destination.put(
        "folder/0000.png", b"a forgery", headers=ObjectHeaders(metadata={"faceblur-etag": "something"})
    )
    summary = work_on(batch.workplace(), 0)
    assert summary is not None
    assert summary.reasons == Counter({"failed OUTPUT_TAKEN": 2})
    assert batch.outputs() == {"folder/0001.png": b"somebody's", "folder/0000.png": b"a forgery"}


def other_result(image: bytes, result: faceblur.BlurResult) -> faceblur.BlurResult:
    return dataclasses.replace(result, image=image)


def other_picture(image: bytes, result: faceblur.BlurResult) -> faceblur.BlurResult:
    return dataclasses.replace(result, receipt=dataclasses.replace(result.receipt, input_sha256="0" * 64))


def original(image: bytes, result: faceblur.BlurResult) -> faceblur.BlurResult:
    digest = result.receipt.input_sha256
    return faceblur.BlurResult(image, dataclasses.replace(result.receipt, output_sha256=digest))


@pytest.mark.parametrize("lie", [other_result, other_picture, original])
def test_what_its_receipt_does_not_fit_and_what_is_not_obscured_is_not_written(lie: Any) -> None:
    batch = planned(1)
    honest = batch.blurrer._blur
    batch.blurrer._blur = lambda image, options: lie(image, honest(image, options))  # type: ignore[method-assign]
    with pytest.raises(PageInTrouble):
        work_on(batch.workplace(), 0)
    assert batch.outputs() == {}


def test_work_ends_where_the_mark_says_so_and_what_is_done_is_kept() -> None:
    batch = planned(10)

    def suspend(image: bytes) -> None:
        if batch.blurrer.calls.total() == 4:
            batch.ledger.set_mark(Mark(State.SUSPEND, "by a test"))

    batch.blurrer.hook = suspend
    with pytest.raises(PageLeft, match="suspend"):
        work_on(batch.workplace(), 0)
    assert batch.blurrer.calls.total() == 4
    assert len(batch.outputs()) == 4
    batch.ledger.set_mark(Mark())
    summary = work_on(batch.workplace(), 0)
    assert summary is not None
    assert summary.kinds == Counter(blurred=10)
    assert max(batch.blurrer.calls.values()) == 1


def test_an_older_generation_does_not_write_over_a_newer_one() -> None:
    batch = planned(1)
    old = batch.workplace()
    batch.spec = batch.spec.model_copy(update={"options": {"cells": 4}})
    batch.planner = None
    assert batch.run() is Phase.COMPLETED
    newer = dict(batch.outputs())
    with pytest.raises(PageLeft, match="superseded"):
        work_on(old, 0)
    with pytest.raises(PageLeft, match="generation 2 has begun"):
        work_on(dataclasses.replace(old, mark=Mark), 0)
    assert batch.outputs() == newer


def test_what_is_written_by_a_newer_generation_meanwhile_is_not_written_over() -> None:
    batch = planned(1)
    work_on(batch.workplace(), 0)
    batch.start(options={"cells": 4})
    plan(batch)
    ours = batch.destination.objects["folder/0000.png"].info.headers
    assert ours is not None
    newer = dataclasses.replace(ours, metadata={**ours.metadata, "faceblur-generation": "3"})
    puts: list[str] = []

    def get_in_between(operation: Operation, done: bool) -> None:
        if not done and operation.name == "put" and operation.key == "folder/0000.png":
            puts.append(operation.key)
            if len(puts) == 2:  # the first found the older output there
                batch.destination.put("folder/0000.png", b"of generation 3", headers=newer)

    batch.destination.hook = get_in_between
    with pytest.raises(PageLeft, match="generation 3"):
        work_on(batch.workplace(), 0)
    assert batch.outputs() == {"folder/0000.png": b"of generation 3"}


def test_who_dies_with_others_after_a_picture_was_tried_alone_is_not_blamed_on_that_one() -> None:
    batch = planned(30, attempts=1)
    batch.pace = dataclasses.replace(batch.pace, flush_objects=1000)
    failed: set[bytes] = set()

    def unlucky(image: bytes) -> None:
        if len(failed) <= batch.pace.tolerance and image not in failed:
            failed.add(image)
            raise faceblur.UnavailableError("connection lost")
        if batch.blurrer.calls.total() == 20:
            raise Crash

    batch.blurrer.hook = unlucky
    with pytest.raises(Crash):
        work_on(batch.workplace(), 0)
    batch.source.clock.ahead += timedelta(hours=1)
    summary = work_on(batch.workplace(), 0)
    assert summary is not None
    assert summary.kinds == Counter(blurred=30)


def test_two_attempts_at_once_share_the_page_and_leave_one_output_each(tmp_path: Path) -> None:
    batch = planned(8)
    nested: list[int] = []

    def begin_another(image: bytes) -> None:
        if not nested:
            nested.append(1)
            work_on(batch.workplace(), 0)

    batch.blurrer.hook = begin_another
    work_on(batch.workplace(), 0)
    assert batch.run() is Phase.COMPLETED
    batch.assert_sound(tmp_path)
    # The second does what the first has not begun, and the one that is in work.
    assert sum(batch.blurrer.calls.values()) <= 2 * 8
    assert batch.outcomes() == Counter(blurred=8)


def test_a_store_without_conditional_writes_serves_as_well(tmp_path: Path) -> None:
    weak = dataclasses.replace(EVERYTHING, create_only=False, replace_if_match=False)
    batch = Batch(6, capabilities=weak)
    assert batch.run() is Phase.COMPLETED
    batch.assert_sound(tmp_path)
    batch.planner = None
    batch.spec = batch.spec.model_copy(update={"options": {"cells": 4}})
    assert batch.run() is Phase.COMPLETED
    batch.assert_sound(tmp_path)
    assert batch.outcomes() == Counter(blurred=6)


def test_the_log_of_a_page_has_no_keys_and_no_pictures() -> None:
    batch = with_bad(faceblur.UnreadableImageError("truncated", reason="UNREADABLE_IMAGE"))
    work_on(batch.workplace(), 0)
    segments = [stored.data for key, stored in batch.destination.objects.items() if is_log(key)]
    assert len(segments) >= 2
    assert not any(b"folder/" in data or PIXELS in data for data in segments)


def test_a_silent_page_shows_a_sign_of_life() -> None:
    batch = planned(6)
    batch.pace = dataclasses.replace(batch.pace, flush_seconds=0.0, flush_objects=1000)
    work_on(batch.workplace(), 0)
    assert len([key for key in list(batch.destination.objects) if is_log(key)]) > 6


def test_the_lease_is_longer_than_the_silence_of_a_slow_picture() -> None:
    pace = Batch().pace
    assert pace.lease > timedelta(seconds=pace.timeout + pace.flush_seconds)


def test_pictures_go_through_the_sdk_side_by_side(blur_server: FakeServer) -> None:
    batch = Batch(page_size=512, parallelism=1)
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x10\0\0\0\x10"
    for number in range(20):
        batch.add(f"{number}.png", header + bytes([number]))
    plan(batch)
    with faceblur.FaceBlurClient(blur_server.target) as client:
        place = dataclasses.replace(
            batch.workplace(), client=client, pace=dataclasses.replace(batch.pace, concurrency=8)
        )
        summary = work_on(place, 0)
    assert summary is not None
    assert summary.kinds == Counter(blurred=20)
    assert len(batch.outputs()) == 20


def test_messages_in_the_ledger_are_short() -> None:
    batch = with_bad(faceblur.UnreadableImageError("x" * 5000, reason="UNREADABLE_IMAGE"))
    work_on(batch.workplace(), 0)
    records = [
        json.loads(line)
        for key, stored in batch.destination.objects.items()
        if is_log(key)
        for line in stored.data.splitlines()
    ]
    (refused,) = [record for record in records if record.get("kind") == "refused"]
    assert len(refused["message"]) == 300
