"""A batch that is killed at every single request, goes on, and still ends as if nothing had happened."""

from __future__ import annotations

import random
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

import faceblur
from faceblur_batch.planner import Phase
from support.batches import PIXELS, Batch, Crash, CrashAt

LEASE = timedelta(hours=1)
POISON = PIXELS + b"poison"


def a_batch() -> Batch:
    """Five pictures in several pages; among them one without a face, one that is refused and one that kills workers."""
    batch = Batch(2, token="one pass")
    batch.add("folder/empty.png", PIXELS + b"empty")
    batch.add("refused.png", PIXELS + b"refused")
    batch.add("z.png", POISON)
    batch.blurrer.errors[PIXELS + b"refused"] = [faceblur.UnreadableImageError("truncated", reason="UNREADABLE_IMAGE")]
    batch.blurrer.errors[POISON] = [faceblur.UnavailableError("connection lost")]
    return batch


EXPECTED = Counter(blurred=2, no_face=1, refused=1, quarantined=1)


def go_on(batch: Batch, *, broker_lost: bool, planner_lost: bool, later: bool) -> None:
    """What happens after a kill: somebody starts what is gone, at once or after the lease."""
    queue, planner = batch.queue, batch.planner
    batch.die()
    if later:
        batch.source.clock.ahead += LEASE
    batch.seconds += 100
    if not broker_lost:
        batch.queue.pages = queue.pages
    if planner is None or planner_lost:
        batch.start()
    else:
        batch.planner = planner
        planner._queue = batch.queue  # it is the same broker, come back


def requests_of_a_whole_job(*, after: bool) -> int:
    batch = a_batch()
    counting = CrashAt(-1, after=after)
    batch.hook(counting)
    assert batch.run() is Phase.COMPLETED
    return counting.seen


@pytest.mark.timeout(300)
@pytest.mark.parametrize("after", [False, True], ids=["before the request", "after the request"])
@pytest.mark.parametrize("later", [False, True], ids=["at once", "after the lease"])
@pytest.mark.parametrize("broker_lost", [False, True], ids=["broker kept", "broker lost"])
@pytest.mark.parametrize("planner_lost", [False, True], ids=["planner kept", "planner lost"])
def test_a_job_killed_at_any_request_goes_on_and_ends_the_same(
    tmp_path: Path, after: bool, later: bool, broker_lost: bool, planner_lost: bool
) -> None:
    total = requests_of_a_whole_job(after=after)
    assert total > (10 if after else 30)
    for at in range(1, total + 1):
        batch = a_batch()
        crash = CrashAt(at, after=after)
        batch.hook(crash)
        try:
            batch.run()
        except Crash:
            go_on(batch, broker_lost=broker_lost, planner_lost=planner_lost, later=later)
            assert batch.run() is Phase.COMPLETED, f"killed at request {at}"
        assert crash.dead
        batch.assert_sound(tmp_path)
        assert batch.outcomes() == EXPECTED, f"killed at request {at}"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(60))
def test_a_job_killed_again_and_again_ends_the_same(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    batch = a_batch()
    for _ in range(8):
        batch.hook(CrashAt(chance.randint(1, 30), after=chance.random() < 0.4))
        try:
            if batch.planner is None:
                batch.start()
            batch.run()
            break
        except Crash:
            lost = chance.random() < 0.5
            if chance.random() < 0.3:
                batch.queue.pages += batch.queue.pages  # delivered twice
            go_on(batch, broker_lost=lost, planner_lost=chance.random() < 0.6, later=chance.random() < 0.5)
    batch.die()
    batch.start()
    assert batch.run() is Phase.COMPLETED
    batch.assert_sound(tmp_path)
    assert batch.outcomes() == EXPECTED


def test_what_was_put_but_not_written_down_is_not_blurred_again() -> None:
    batch = Batch(4, page_size=64, parallelism=1)
    puts = CrashAt(-1, after=True)

    def hook(operation: object, done: bool) -> None:
        if getattr(operation, "key", "").startswith("folder/"):
            puts(operation, done)

    puts._at = 3
    batch.hook(hook)
    with pytest.raises(Crash):
        batch.run()
    before = sum(batch.blurrer.calls.values())
    go_on(batch, broker_lost=True, planner_lost=True, later=True)
    assert batch.run() is Phase.COMPLETED
    assert sum(batch.blurrer.calls.values()) - before == 1
    assert max(batch.blurrer.calls.values()) == 1


def test_a_picture_that_kills_the_batch_worker_is_quarantined_and_the_others_are_done(tmp_path: Path) -> None:
    batch = Batch(40, page_size=512, parallelism=1)
    deadly = batch.add("folder/0017-deadly.png")

    def kill(image: bytes) -> None:
        if image == deadly:
            raise Crash

    batch.blurrer.hook = kill
    deaths = 0
    while True:
        try:
            assert batch.run() is Phase.COMPLETED
            break
        except Crash:
            deaths += 1
            assert deaths < 10, "it loops"
            go_on(batch, broker_lost=True, planner_lost=True, later=True)
            batch.blurrer.hook = kill
    batch.assert_sound(tmp_path)
    assert batch.outcomes() == Counter(blurred=40, quarantined=1)
    assert batch.receipts()["folder/0017-deadly.png"]["reason"] == "DIED"
    assert deaths == 5  # together, in a chunk, and three times alone
    assert max(n for image, n in batch.blurrer.calls.items() if image != deadly) == 1
