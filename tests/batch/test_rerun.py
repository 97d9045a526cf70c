"""A second run does only what is new or changed; other options are a new generation."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

import faceblur
from faceblur_batch.generation import decide
from faceblur_batch.ledger import State
from faceblur_batch.planner import Before, Phase
from support.batches import PIXELS, Batch
from support.memory_store import EVERYTHING, START, Operation

OTHER_MODEL = faceblur.ModelInfo("other", "1" * 64, "python")


def done(count: int = 20, **spec: object) -> Batch:
    batch = Batch(count, **spec)
    assert batch.run() is Phase.COMPLETED
    batch.die()
    batch.blurrer.calls.clear()
    return batch


def test_a_rerun_blurs_nothing_and_asks_nothing_of_the_pictures(tmp_path: Path) -> None:
    batch = done()
    batch.source.requests.clear()
    asked: list[str] = []
    batch.destination.hook = lambda operation, done: asked.append(operation.key)
    assert batch.run() is Phase.COMPLETED
    batch.assert_sound(tmp_path)
    assert batch.generation.number == 2
    assert batch.outcomes() == Counter(unchanged=20)
    assert batch.blurrer.calls == Counter()
    assert batch.source.requests == Counter(list=1)
    assert not [key for key in asked if not key.startswith(".faceblur/")]


def test_a_rerun_does_what_is_new_and_what_has_changed(tmp_path: Path) -> None:
    batch = done()
    new = batch.add("folder/0003-new.png")
    changed = batch.add("folder/0007.png", PIXELS + b"another")
    batch.source.delete("folder/0010.png")
    del batch.destination.objects["folder/0010.png"]
    assert batch.run() is Phase.COMPLETED
    batch.assert_sound(tmp_path)
    assert batch.outcomes() == Counter(unchanged=18, blurred=2)
    assert batch.blurrer.calls == Counter([new, changed])


def test_a_third_run_goes_by_the_second(tmp_path: Path) -> None:
    batch = done()
    batch.add("zz.png")
    assert batch.run() is Phase.COMPLETED
    batch.die()
    batch.blurrer.calls.clear()
    assert batch.run() is Phase.COMPLETED
    assert batch.generation.number == 3
    assert batch.outcomes() == Counter(unchanged=21)
    assert batch.blurrer.calls == Counter()


def test_other_options_are_a_new_generation_that_replaces_every_output(tmp_path: Path) -> None:
    batch = done()
    etags = {key: stored.info.etag for key, stored in batch.destination.objects.items()}
    batch.start(options={"cells": 4})
    assert batch.run() is Phase.COMPLETED
    batch.assert_sound(tmp_path)
    assert batch.outcomes() == Counter(blurred=20)
    outputs = [key for key in etags if not key.startswith(".faceblur/")]
    assert all(batch.destination.objects[key].info.etag != etags[key] for key in outputs)


def test_options_are_the_same_however_they_are_written() -> None:
    batch = done()
    batch.start(options={"profile": "balanced"})  # the workers' default
    assert batch.generation.base == 1
    assert batch.run() is Phase.COMPLETED
    assert batch.outcomes() == Counter(unchanged=20)


def test_other_models_are_a_reason_to_do_everything_again(tmp_path: Path) -> None:
    batch = done()
    batch.blurrer.models = (OTHER_MODEL,)
    assert batch.run() is Phase.COMPLETED
    assert batch.outcomes() == Counter(blurred=20)


def test_a_model_beside_those_that_ran_is_not() -> None:
    batch = done()
    batch.blurrer.models = (*batch.blurrer.models, OTHER_MODEL)
    assert batch.run() is Phase.COMPLETED
    assert batch.outcomes() == Counter(unchanged=20)


def test_a_newer_version_is_no_reason_but_looks_again_at_what_was_refused() -> None:
    batch = Batch(3)
    image = batch.add("bad.png")
    batch.blurrer.errors[image] = [faceblur.UnreadableImageError("truncated", reason="UNREADABLE_IMAGE")]
    assert batch.run() is Phase.COMPLETED
    batch.die()
    assert batch.run() is Phase.COMPLETED
    assert batch.outcomes() == Counter(unchanged=3, refused=1)
    assert batch.blurrer.calls[image] == 1
    batch.die()
    batch.blurrer.version = "1.1"
    del batch.blurrer.errors[image]
    assert batch.run() is Phase.COMPLETED
    assert batch.outcomes() == Counter(unchanged=3, blurred=1)


def test_what_failed_is_tried_again() -> None:
    batch = Batch(3)
    image = batch.add("unlucky.png")
    batch.blurrer.errors[image] = [faceblur.UnavailableError("connection lost")]
    assert batch.run() is Phase.COMPLETED
    assert batch.outcomes()["quarantined"] == 1
    batch.die()
    del batch.blurrer.errors[image]
    assert batch.run() is Phase.COMPLETED
    assert batch.outcomes() == Counter(unchanged=3, blurred=1)


def test_an_unfinished_generation_with_other_options_is_superseded(tmp_path: Path) -> None:
    batch = Batch(20)
    planner = batch.start()
    while not planner.status().planned:
        planner.step()
    batch.work_one()
    old = batch.ledger
    batch.die()
    batch.start(options={"cells": 4})
    assert old.mark().state is State.SUPERSEDED
    assert batch.generation.check
    assert batch.run() is Phase.COMPLETED
    batch.assert_sound(tmp_path)
    batch.seconds += 100
    planner.step()
    assert planner.status().phase is Phase.SUPERSEDED


def test_going_back_to_older_options_believes_no_older_ledger(tmp_path: Path) -> None:
    batch = done()
    batch.start(options={"cells": 4})
    planner = batch.planner
    assert planner is not None
    while not planner.status().planned:
        planner.step()
    for _ in range(2):
        batch.work_one()
    batch.die()
    replaced = batch.blurrer.calls.total()
    assert replaced > 0
    batch.blurrer.calls.clear()
    batch.start(options={})
    assert batch.run() is Phase.COMPLETED
    batch.assert_sound(tmp_path)
    assert batch.generation.number == 3
    assert batch.outcomes() == Counter(blurred=replaced, unchanged=20 - replaced)
    assert {stored.info.headers.metadata["faceblur-options"] for stored in outputs(batch)} == {
        batch.generation.options_sha256
    }


def outputs(batch: Batch) -> list[object]:
    return [stored for key, stored in batch.destination.objects.items() if not key.startswith(".faceblur/")]


def test_outputs_that_were_deleted_are_made_again_when_asked_to_check(tmp_path: Path) -> None:
    batch = done()
    batch.destination.delete("folder/0004.png")
    batch.start(check=True)
    assert batch.run() is Phase.COMPLETED
    batch.assert_sound(tmp_path)
    assert batch.outcomes() == Counter(unchanged=19, blurred=1)


def test_a_token_is_one_pass(tmp_path: Path) -> None:
    batch = done(token="2026-01-01")
    batch.add("new.png")
    assert batch.run() is Phase.COMPLETED
    assert batch.generation.number == 1
    assert batch.blurrer.calls == Counter()
    batch.die()
    batch.start(token="2026-01-02")
    assert batch.run() is Phase.COMPLETED
    assert batch.generation.number == 2
    assert batch.outcomes() == Counter(unchanged=20, blurred=1)


def test_a_rerun_that_is_killed_goes_on(tmp_path: Path) -> None:
    batch = done(200, page_size=16)
    for number in range(0, 200, 10):
        batch.add(f"folder/{number:04d}-new.png")
    planner = batch.start()
    planner.step()
    planner.step()
    batch.die()
    assert batch.run() is Phase.COMPLETED
    batch.assert_sound(tmp_path)
    assert batch.generation.number == 2
    assert batch.outcomes() == Counter(unchanged=200, blurred=20)
    assert set(batch.blurrer.calls.values()) == {1}


def test_a_forecast_writes_nothing() -> None:
    batch = done()
    batch.add("new.png")
    there = set(batch.destination.objects)

    def no_writes(operation: Operation, done: bool) -> None:
        assert operation.name != "put"

    batch.hook(no_writes)
    following = decide(batch.spec, batch.destination, batch.blurrer.info(), EVERYTHING, START)
    before = Before(batch.destination, following.generation)
    unchanged = [info.key for info in batch.source.list() if before.receipt_of(info)]
    assert len(unchanged) == 20
    assert set(batch.destination.objects) == there


@pytest.mark.parametrize("name", ["source", "destination"])
def test_jobs_of_other_places_have_other_ledgers(name: str) -> None:
    spec = Batch().spec
    assert spec.model_copy(update={name: "s3://elsewhere/"}).id != spec.id
    assert spec.model_copy(update={"options": {"cells": 4}}).id == spec.id
