"""A watched job: what a pass looks at, when it begins, and that nothing is lost whatever is killed."""

from __future__ import annotations

import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import generate_latest

import faceblur
from faceblur_batch import generation as generations_module
from faceblur_batch.config import WatchSettings
from faceblur_batch.driver import Driver
from faceblur_batch.errors import AccessDenied, TransientStorageError
from faceblur_batch.generation import latest
from faceblur_batch.job import JobSpec
from faceblur_batch.ledger import ROOT, Mark, State, generations, last_generation
from faceblur_batch.planner import Before, Phase
from faceblur_batch.storage.store import ObjectInfo
from faceblur_batch.watch import Watch
from faceblur_process.settings import read
from support.batches import PIXELS, Crash, CrashAt
from support.memory_store import MemoryStore, Operation
from support.watching import EVERY, SETTLE, Watching, last_manifest

OTHER_MODEL = faceblur.ModelInfo("other", "1" * 64, "python")


def watching(count: int = 20, **spec: Any) -> Watching:
    """A job whose first pass is done."""
    watched = Watching(count, **spec)
    watched.settle()
    assert watched.passes.ran == [None]
    assert watched.in_step()
    watched.passes.ran.clear()
    watched.passes.listings = 0
    watched.batch.blurrer.calls.clear()
    return watched


def test_a_listing_at_which_nothing_is_new_writes_nothing() -> None:
    watched = watching()
    before = dict(watched.batch.destination.objects)
    asked: list[str] = []
    watched.batch.destination.hook = lambda operation, done: asked.append(operation.name)
    watched.settle(EVERY)
    assert watched.passes.listings == 1
    assert watched.passes.ran == []
    assert "delete" not in asked
    there = watched.batch.destination.objects
    assert {key for key in there if there[key] is not before.get(key)} == {f"{ROOT}{watched.job}/watch.json"}


def test_a_listing_does_what_is_new_and_what_has_changed_and_looks_at_nothing_else() -> None:
    watched = watching()
    new, changed = watched.put("new.png"), watched.put("folder/0007.png", PIXELS + b"another")
    watched.settle(EVERY - 1)
    assert watched.passes.ran == []
    watched.settle(1)
    assert watched.passes.ran == [2]
    assert watched.batch.blurrer.calls == Counter([new, changed])
    assert watched.in_step()
    assert watched.batch.outcomes() == Counter(blurred=2)


def test_a_notification_is_looked_at_without_a_listing() -> None:
    watched = watching()
    watched.batch.source.requests.clear()
    new = watched.put("new.png")
    watched.tell("new.png")
    assert watched.passes.ran == [1]
    assert watched.batch.blurrer.calls == Counter([new])
    assert watched.batch.source.requests["list"] == 0
    assert watched.in_step()
    assert watched.keys("inbox/") == []


def test_notifications_that_come_together_are_one_pass_and_one_that_goes_on_does_not_wait_for_ever() -> None:
    watched = watching()
    for number in range(3):
        watched.put(f"new-{number}.png")
        watched.inbox.add({f"new-{number}.png"})
        watched.settle(SETTLE - 1)
    assert watched.passes.ran == []
    watched.settle(1)
    assert watched.passes.ran == [3]
    for number in range(20):
        watched.inbox.add({f"new-{number % 3}.png", f"gone-{number}.png"})
        watched.settle(SETTLE - 1)
    assert len(watched.passes.ran) >= 2


def test_a_key_that_is_named_twice_or_late_is_done_once() -> None:
    watched = watching()
    new = watched.put("new.png")
    watched.tell("new.png", "folder/0003.png")
    watched.tell("new.png")
    watched.settle(EVERY)
    assert watched.batch.blurrer.calls == Counter([new])
    assert watched.in_step()


def test_what_is_named_and_gone_or_not_meant_is_left_alone() -> None:
    watched = watching()
    watched.put("notes.txt")
    watched.tell("gone.png", "notes.txt")
    assert watched.passes.ran == []
    assert watched.ended["named", "nothing"] == 1
    assert watched.keys("inbox/") == []
    watched.batch.source.delete("folder/0001.png")
    watched.tell("folder/0001.png")
    assert "folder/0001.png" in watched.batch.outputs()


def test_an_object_that_went_back_to_what_it_was_is_done_again() -> None:
    watched = watching()
    first = watched.batch.source.objects["folder/0003.png"]
    watched.put("folder/0003.png", PIXELS + b"another")
    watched.tell("folder/0003.png")
    watched.batch.source.objects["folder/0003.png"] = (
        first  # the same ETag as in the first manifest, and no notification
    )
    watched.settle(EVERY)
    assert watched.passes.ran == [1, 1]
    assert watched.in_step()


def test_more_keys_than_are_kept_lead_to_a_listing() -> None:
    watched = watching(most=5)
    for number in range(9):
        watched.put(f"new-{number}.png")
        watched.inbox.add({f"new-{number}.png"})
    assert len([key for key in watched.keys("inbox/") if key.endswith(".all")]) == 1
    assert len(watched.keys("inbox/")) == 6
    watched.settle()
    assert watched.passes.ran == [None]
    assert watched.in_step()
    assert watched.keys("inbox/") == []


def test_an_object_that_cannot_be_looked_at_leads_to_a_listing() -> None:
    watched = watching()
    watched.put("new.png")

    def hook(operation: Operation, done: bool) -> None:
        if operation.name == "head" and operation.store == "source":
            raise AccessDenied("no")

    watched.batch.source.hook = hook
    watched.tell("new.png")
    assert watched.passes.listings == 1
    assert watched.in_step()


def test_keys_that_come_while_a_pass_runs_are_looked_at_after_it() -> None:
    watched = watching()
    watched.put("first.png")

    def meanwhile() -> None:
        watched.put("second.png")
        watched.inbox.add({"second.png"})

    watched.passes.before_run = meanwhile
    watched.inbox.add({"first.png"})
    watched.seconds += SETTLE
    watched.watcher.step()
    watched.passes.before_run = lambda: None
    assert len(watched.keys("inbox/")) == 1
    watched.settle(SETTLE)
    assert watched.passes.ran == [1, 1]
    assert watched.in_step()


def test_while_the_surroundings_are_unwell_keys_are_kept_and_done_later() -> None:
    watched = watching()
    watched.put("new.png")
    watched.passes.fails = [TransientStorageError("no answer")] * 3
    watched.tell("new.png")
    assert watched.state()["state"] == "trouble"
    assert len(watched.keys("inbox/")) == 1
    for _ in range(3):
        watched.settle(SETTLE)
    assert watched.in_step()
    assert watched.state()["state"] == "watching"
    assert watched.keys("inbox/") == []


def test_other_options_are_a_pass_over_everything_also_if_a_key_is_named_first() -> None:
    watched = watching()
    watched.batch.spec = watched.batch.spec.model_copy(update={"options": {"cells": 4}})
    watched.tell("folder/0000.png")
    assert watched.passes.ran == [None]
    assert watched.batch.outcomes() == Counter(blurred=20)


def test_other_models_are_found_by_the_listing() -> None:
    watched = watching()
    watched.batch.blurrer.models = (OTHER_MODEL,)
    watched.settle(EVERY)
    assert watched.batch.blurrer.calls.total() == 20


def test_refused_and_quarantined_pictures_are_not_tried_each_hour_and_failed_ones_are() -> None:
    watched = watching()
    bad, deadly, taken = watched.put("bad.png"), watched.put("deadly.png"), watched.put("taken.png")
    blurrer = watched.batch.blurrer
    blurrer.errors[bad] = [faceblur.UnreadableImageError("truncated", reason="UNREADABLE_IMAGE")]
    blurrer.errors[deadly] = [faceblur.UnavailableError("connection lost")]
    watched.batch.destination.put("taken.png", b"not ours")
    watched.settle(EVERY)
    assert watched.batch.outcomes() == Counter(refused=1, quarantined=1, failed=1)
    watched.settle(EVERY)
    assert watched.batch.outcomes() == Counter(failed=1)
    watched.batch.destination.delete("taken.png")
    blurrer.errors.clear()
    blurrer.version = "1.1"
    watched.settle(EVERY)
    assert watched.batch.outcomes() == Counter(blurred=3)
    assert taken in blurrer.calls


# A person's wishes


def cancelled(watched: Watching) -> None:
    watched.watcher.watched.set_mark(Mark(State.CANCEL, "cancelled"))
    watched.settle(SETTLE)


def test_a_job_that_is_cancelled_takes_nothing_until_it_is_resumed() -> None:
    watched = watching()
    cancelled(watched)
    assert watched.watcher.halted
    assert watched.state()["state"] == "cancelled"
    watched.put("new.png")
    with pytest.raises(Exception, match="nothing is taken"):
        watched.inbox.add({"new.png"})
    watched.settle(2 * EVERY)
    assert watched.passes.ran == []
    watched.die()  # a machine starts it again, and it stays cancelled
    watched.settle()
    assert watched.passes.ran == []
    watched.watcher.watched.set_mark(Mark())
    watched.settle()
    assert watched.in_step()


def test_a_pass_that_is_cancelled_stays_so_and_goes_on_when_it_is_resumed() -> None:
    watched = watching()
    watched.put("new.png")
    watched.passes.before_run = lambda: watched.batch.ledger.set_mark(Mark(State.CANCEL, "cancelled"))
    watched.tell("new.png")
    watched.settle(EVERY)
    assert watched.watcher.halted
    assert watched.passes.ran == [1]
    watched.passes.before_run = lambda: None
    watched.batch.ledger.set_mark(Mark())
    watched.settle(SETTLE)
    assert watched.in_step()
    assert not watched.watcher.halted


def test_who_starts_it_to_resume_need_not_ask_twice() -> None:
    watched = watching()
    watched.put("new.png")
    watched.passes.before_run = lambda: watched.batch.ledger.set_mark(Mark(State.CANCEL, "cancelled"))
    watched.tell("new.png")
    cancelled(watched)
    watched.die()
    watched.watcher = watched.other(resume=True)
    watched.settle()
    assert watched.in_step()


def test_a_budget_stops_it_and_says_so() -> None:
    watched = watching(max_errors=0)
    watched.batch.blurrer.errors[watched.put("bad.png")] = [
        faceblur.UnreadableImageError("x", reason="UNREADABLE_IMAGE")
    ]
    watched.tell("bad.png")
    assert watched.state()["state"] == "stopped"
    assert "1 objects have no result" in watched.state()["reason"]


def test_it_ends_where_it_is_asked_to_and_says_so() -> None:
    watched = watching()
    watched.put("new.png")
    watched.inbox.add({"new.png"})
    watched.ending.set()
    watched.watcher.run()
    assert watched.state()["state"] == "ended"
    assert len(watched.keys("inbox/")) == 1
    watched.die()
    watched.settle(SETTLE)
    assert watched.in_step()


# Kills


@pytest.mark.parametrize("after", [False, True])
def test_whatever_request_it_is_killed_at_no_key_is_lost(after: bool) -> None:
    for at in range(1, 400):
        watched = watching(6)
        watched.put("new.png")
        watched.put("folder/0001.png", PIXELS + b"another")
        crash = CrashAt(at, after=after)
        watched.batch.hook(crash)
        acknowledged = False
        try:
            watched.inbox.add({"new.png", "folder/0001.png"})
            acknowledged = True
            watched.settle(SETTLE)
        except Crash:
            pass
        watched.die()
        if not acknowledged:  # the sender sends it again
            watched.inbox.add({"new.png", "folder/0001.png"})
        watched.watcher._listed = watched.seconds  # what is done now is done for the sake of the inbox
        watched.settle()
        watched.settle(SETTLE)
        assert watched.in_step(), at
        assert watched.keys("inbox/") == []
        if not crash.dead:
            return
    raise AssertionError("it makes more requests than were tried")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("pdtlkf"), st.integers(0, 9), st.integers(1, 60)), min_size=1, max_size=25))
def test_whatever_happens_in_whatever_order_it_is_in_step_after_a_listing(steps: list[tuple[str, int, int]]) -> None:
    """Puts, deletes, true and false notifications, listings, kills, failures."""
    watched = watching(5, most=6)
    for what, number, at in steps:
        key = f"key-{number}.png"
        watched.batch.hook(lambda operation, done: None)
        if what == "p":
            watched.put(key, PIXELS + f"{key} {at}".encode())
            if at % 2:
                watched.tell(key)
        elif what == "d":
            watched.batch.source.delete(key)
            watched.batch.destination.delete(key)
        elif what == "t":
            watched.tell(key)
        elif what == "l":
            watched.settle(EVERY)
        elif what == "k":
            watched.batch.hook(CrashAt(at, after=bool(at % 2)))
            try:
                watched.tell(key)
                watched.settle(EVERY)
            except Crash:
                watched.die()
        else:
            watched.passes.fails = [watched.error()] * (at % 4)
    watched.batch.hook(lambda operation, done: None)
    watched.passes.fails.clear()
    watched.settle(EVERY)
    watched.settle(EVERY)
    assert watched.in_step()


# The ledger over months


def test_a_lookup_asks_few_generations_however_many_there_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generations_module, "FOLD", 4)
    watched = watching(10)
    for number in range(30):
        watched.put(f"new-{number % 7}.png", PIXELS + str(number).encode())
        watched.tell(f"new-{number % 7}.png")
    assert watched.passes.ran == [1] * 30
    generation = latest(watched.batch.destination, watched.job)
    assert generation is not None
    assert generation.number == 31
    assert generation.base == 1
    assert len(generation.since) < 4
    watched.settle(EVERY)
    assert watched.passes.ran == [1] * 30  # everything that was done is known
    watched.put("new-3.png", PIXELS + b"again")
    watched.settle(EVERY)
    assert watched.passes.ran == [1] * 31
    assert watched.in_step()


def test_a_run_after_many_passes_goes_by_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generations_module, "FOLD", 3)
    watched = watching(10)
    for number in range(8):
        watched.put(f"new-{number}.png")
        watched.tell(f"new-{number}.png")
    watched.batch.blurrer.calls.clear()
    watched.batch.start()
    assert watched.batch.generation.named is None
    assert watched.batch.run() is Phase.COMPLETED
    watched.batch.assert_sound(tmp_path)
    assert watched.batch.outcomes() == Counter(unchanged=18)
    assert watched.batch.blurrer.calls == Counter()


def test_when_much_has_changed_everything_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generations_module, "MOST_CHANGED", 5)
    watched = watching(10)
    for number in range(8):
        watched.put(f"new-{number}.png")
        watched.tell(f"new-{number}.png")
    assert watched.passes.ran == [1, 1, 1, 1, 1, 1, None, 1]
    assert watched.in_step()
    assert [line["key"] for line in last_manifest(watched)] == ["new-7.png"]


def test_pages_and_logs_of_earlier_passes_are_removed_and_their_manifests_stay() -> None:
    watched = watching()
    for number in range(3):
        watched.put(f"new-{number}.png")
        watched.tell(f"new-{number}.png")
    for number in (1, 2, 3):
        names = [key.split("/", 4)[4] for key in watched.keys(f"{number:08d}/")]
        assert sorted(names) == ["manifest.jsonl", "mark.json", "report.html", "report.json", "root.json", "spec.json"]
    assert any("/pages/" in key for key in watched.keys("00000004/"))


def test_old_generations_are_removed_but_not_what_later_ones_go_by() -> None:
    watched = watching(keep=5000.0)
    for number in range(12):
        watched.put(f"new-{number}.png")
        watched.batch.seconds = watched.seconds
        watched.tell(f"new-{number}.png")
        watched.settle(EVERY)
        watched.batch.seconds = watched.seconds
    left = list(generations(watched.batch.destination, watched.job))
    assert left == [1, *range(2, 14)]  # all are needed
    watched.batch.start()
    watched.batch.run()
    watched.batch.planner = None
    for number in range(12):
        watched.put(f"more-{number}.png")
        watched.settle(EVERY)
        watched.batch.seconds = watched.seconds
    left = list(generations(watched.batch.destination, watched.job))
    assert left[0] == 14
    watched.settle(EVERY)
    assert watched.in_step()


@pytest.mark.parametrize("numbers", [range(1, 2), range(1, 8), range(7, 8), range(90, 1001), [1, *range(400, 420)]])
def test_the_last_generation_is_found_in_few_requests(numbers: range | list[int]) -> None:
    store = MemoryStore("destination")
    for number in numbers:
        store.put(f"{ROOT}job/{number:08d}/spec.json", b"")
    store.put(f"{ROOT}job/inbox/1.jsonl", b"")
    store.requests.clear()
    assert last_generation(store, "job") == max(numbers)
    assert store.requests["list"] <= 2 + 2 * max(numbers).bit_length()
    assert last_generation(store, "nothing") is None


def test_of_several_generations_the_newest_says_what_is_known_of_an_object() -> None:
    watched = watching(4)
    old = watched.batch.source.objects["folder/0002.png"].info
    watched.put("folder/0002.png", PIXELS + b"another")
    watched.tell("folder/0002.png")
    watched.batch.start()
    before = Before(watched.batch.destination, watched.batch.generation)
    assert before.receipt_of(ObjectInfo("folder/0002.png", old.size, old.etag, old.modified)) is None
    new = watched.batch.source.objects["folder/0002.png"].info
    before = Before(watched.batch.destination, watched.batch.generation)
    assert before.receipt_of(new) is not None


def test_names_of_files_that_are_no_unicode_can_be_named() -> None:
    watched = watching(2)
    key = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    watched.batch.source.put(key, PIXELS + b"latin")
    watched.settle(EVERY)
    assert watched.passes.ran == [1]
    assert [line["key"] for line in last_manifest(watched)] == [key]


def test_everything_is_known_of_generations_that_were_written_before_there_was_a_watch() -> None:
    watched = watching(2)
    name = f"{ROOT}{watched.job}/00000001/spec.json"
    values = json.loads(watched.batch.destination.get(name).data)
    for new in ("since", "changed", "whole", "named"):
        del values[new]
    watched.batch.destination.put(name, json.dumps(values).encode())
    watched.put("new.png")
    watched.tell("new.png")
    assert watched.passes.ran == [1]


def test_a_process_that_stands_still_or_whose_receivers_have_ended_is_not_well(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    settings = read(WatchSettings, {"webhook_address": "127.0.0.1:0", "webhook_token_file": tmp_path / "token"})
    spec = JobSpec(source="s3://pictures/", destination=str(tmp_path / "out"))
    watch = Watch(Driver(spec, settings), settings, threading.Event())
    assert watch.trouble() is None
    with watch.receiving():
        assert watch.ready
        assert watch.trouble() is None
        watch.watcher.beaten -= 1000
        assert "stands still" in str(watch.trouble())
        watch.watcher.passing = True
        assert watch.trouble() is None
    assert watch.trouble() == "nobody attends to the webhook"
    assert b"faceblur_watch_keys_waiting 0.0" in generate_latest(watch.metrics.registry)
