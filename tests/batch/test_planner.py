"""The planner: pages, bounds, budgets, marks, and what it costs."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

import faceblur
from faceblur_batch.errors import TransientStorageError, Unsupported
from faceblur_batch.ledger import Mark, PageHead, State
from faceblur_batch.outcomes import Kind
from faceblur_batch.planner import BrokerUnavailable, Phase
from faceblur_batch.storage.store import ObjectInfo
from support.batches import PIXELS, Batch, ListQueue, is_log
from support.memory_store import EVERYTHING, START, MemoryStore, Operation


def planned(batch: Batch) -> list[PageHead]:
    planner = batch.planner or batch.start()
    while not planner.status().planned:
        planner.step()
    return [batch.ledger.page(number).head for number in range(planner.pages)]


def test_every_object_is_in_one_page_in_the_order_of_keys() -> None:
    batch = Batch(50)
    heads = planned(batch)
    keys = [entry.key for head in heads for entry in batch.ledger.page(head.page).entries]
    assert keys == sorted(batch.source.objects)
    assert [head.final for head in heads] == [False] * (len(heads) - 1) + [True]
    assert heads[-1].totals.objects == 50
    assert heads[-1].totals.bytes == sum(stored.info.size for stored in batch.source.objects.values())


def test_pages_grow_so_that_small_jobs_spread() -> None:
    batch = Batch(400, page_size=64, parallelism=3)
    sizes = [head.work for head in planned(batch)]
    assert sizes[:12] == [4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32]
    assert set(sizes[12:-1]) <= {64}


def test_an_empty_source_is_a_job_that_is_done(tmp_path: Path) -> None:
    batch = Batch(0)
    assert batch.run() is Phase.COMPLETED
    batch.assert_sound(tmp_path)


def test_what_the_selection_leaves_out_is_counted_and_not_planned() -> None:
    batch = Batch(3)
    batch.add("notes.txt")
    heads = planned(batch)
    assert heads[-1].totals.objects == 3
    assert heads[-1].totals.skipped == 1


def test_no_more_pages_are_handed_out_than_the_bound() -> None:
    batch = Batch(100, page_size=2, parallelism=3)
    planned(batch)
    planner = batch.planner
    assert planner is not None
    for _ in range(20):
        batch.seconds += 1
        planner.step()
    assert batch.queue.most == planner.bound == 6
    assert batch.run() is Phase.COMPLETED
    assert batch.queue.most <= 6
    assert max(batch.queue.published.values()) == 1


def test_a_planner_that_is_killed_goes_on_behind_the_last_page() -> None:
    batch = Batch(60)
    planner = batch.start()
    for _ in range(4):
        planner.step()
    before = [batch.ledger.page(number) for number in range(planner.pages)]
    batch.die()
    batch.source.requests.clear()
    planned(batch)
    assert [batch.ledger.page(number) for number in range(len(before))] == before
    assert batch.source.requests == Counter(list=1)


def test_two_planners_at_once_make_one_chain_of_pages(tmp_path: Path) -> None:
    batch = Batch(60)
    first = batch.start()
    second = batch.start()
    while not (first.status().planned and second.status().planned):
        first.step()
        batch.add(f"zz/{len(batch.source.objects)}.png") if len(batch.source.objects) < 64 else None
        second.step()
    assert first.pages == second.pages
    in_pages = {e.key for number in range(first.pages) for e in batch.ledger.page(number).entries}
    for key in batch.source.objects.keys() - in_pages:
        batch.source.delete(key)  # it came after the listing
    assert batch.run() is Phase.COMPLETED
    batch.assert_sound(tmp_path)


def test_a_planner_takes_over_the_page_that_another_wrote_before_it() -> None:
    batch = Batch(60)
    first, second = batch.start(), batch.start()
    first.step()
    batch.add("aaa.png")  # would shift every page of who lists now
    while not (first.status().planned and second.status().planned):
        second.step()
        first.step()
    pages = [batch.ledger.page(number) for number in range(first.pages)]
    keys = [entry.key for page in pages for entry in page.entries]
    assert keys == sorted(set(keys))
    assert len(keys) == 60
    assert first.status().totals == second.status().totals == pages[-1].head.totals


def test_a_source_that_lists_in_another_order_is_refused() -> None:
    class Shuffled(MemoryStore):
        def list(self, prefix: str = "", *, after: str | None = None) -> Iterator[ObjectInfo]:
            return reversed(list(super().list(prefix, after=after)))

    batch = Batch()
    batch.source = Shuffled("source")
    for name in ("a.png", "b.png"):
        batch.add(name)
    with pytest.raises(Unsupported, match="order of keys"):
        planned(batch)


@pytest.mark.parametrize("missing", ["metadata", "sorted_listing"])
def test_a_destination_that_cannot_keep_what_is_needed_is_refused(missing: str) -> None:
    batch = Batch(1, capabilities=dataclasses.replace(EVERYTHING, **{missing: False}))
    with pytest.raises(Unsupported):
        batch.start()
    assert batch.destination.objects == {}


def test_a_broker_that_is_away_is_waited_for() -> None:
    class Away(ListQueue):
        away = 5

        def publish(self, page: int) -> None:
            if self.away:
                self.away -= 1
                raise BrokerUnavailable("away")
            super().publish(page)

    batch = Batch(10)
    batch.queue = Away()
    assert batch.run() is Phase.COMPLETED
    assert batch.outcomes() == Counter(blurred=10)


def test_a_store_that_is_away_is_waited_for(tmp_path: Path) -> None:
    batch = Batch(20)
    count = 0

    def every_third(operation: Operation, done: bool) -> None:
        nonlocal count
        if not done and not is_log(operation.key) and operation.key.startswith(".faceblur"):
            count += 1
            if count % 3 == 0 and count < 100:
                raise TransientStorageError("503")

    planner = batch.start()
    batch.hook(every_third)
    batch.planner = planner
    for _ in range(40):
        batch.seconds += max(planner.step(), 0.01)
    assert planner.status().planned
    batch.hook(lambda operation, done: None)
    assert batch.run() is Phase.COMPLETED
    batch.assert_sound(tmp_path)


def test_a_store_that_goes_away_while_the_manifest_is_written_is_waited_for(tmp_path: Path) -> None:
    batch = Batch(20)
    batch.start()
    faults = [TransientStorageError("503"), TransientStorageError("503")]

    def at_the_end(operation: Operation, done: bool) -> None:
        if not done and operation.key.endswith(("report.json", "root.json")) and operation.name == "put" and faults:
            raise faults.pop()

    batch.destination.hook = at_the_end
    assert batch.run() is Phase.COMPLETED
    assert not faults
    batch.assert_sound(tmp_path)


# Lost pages


def test_pages_that_a_broker_has_lost_are_handed_out_again() -> None:
    batch = Batch(20)
    planned(batch)
    batch.queue.pages.clear()
    assert batch.run() is Phase.COMPLETED
    assert batch.outcomes() == Counter(blurred=20)


def test_pages_that_wait_in_the_queue_are_not_handed_out_again() -> None:
    batch = Batch(20)
    planned(batch)
    planner = batch.planner
    assert planner is not None
    for _ in range(8):
        batch.seconds += 60
        planner.step()
    assert max(batch.queue.published.values()) == 1


def test_pages_that_are_lost_from_a_queue_that_others_use_are_handed_out_again_later() -> None:
    class Shared(ListQueue):
        def waiting(self) -> int | None:
            return len(self.pages) + 100

    batch = Batch(20)
    batch.queue = Shared()
    planned(batch)
    batch.queue.pages.clear()
    assert batch.run() is Phase.COMPLETED
    assert batch.outcomes() == Counter(blurred=20)


def test_a_page_that_never_comes_to_its_end_stops_the_job() -> None:
    batch = Batch(3)
    planner = batch.start()
    for _ in range(2000):
        batch.seconds += max(planner.step(), 0.01)
        batch.queue.pages.clear()
        if planner.status().phase is Phase.STOPPED:
            break
    assert "never came to its end" in planner.status().reason
    assert batch.ledger.mark().state is State.STOP


# Budget, deadline, marks


def with_errors(good: int, bad: int, **spec: object) -> Batch:
    batch = Batch(good, **spec)
    for number in range(bad):
        image = batch.add(f"folder/{number * 9:04d}-bad.png")
        batch.blurrer.errors[image] = [faceblur.UnreadableImageError("truncated", reason="UNREADABLE_IMAGE")]
    return batch


@pytest.mark.parametrize(("allowed", "phase"), [(4, Phase.STOPPED), (5, Phase.COMPLETED), (0, Phase.STOPPED)])
def test_more_errors_than_allowed_stop_the_job(allowed: int, phase: Phase) -> None:
    batch = with_errors(40, 5, max_errors=allowed)
    assert batch.run() is phase
    if phase is Phase.STOPPED:
        assert batch.ledger.mark().state is State.STOP
        assert batch.ledger.get("root.json") is None


@pytest.mark.parametrize(("percent", "phase"), [(9.0, Phase.STOPPED), (11.0, Phase.COMPLETED)])
def test_a_share_of_errors_is_taken_of_what_was_looked_at(percent: float, phase: Phase) -> None:
    assert with_errors(180, 20, max_error_percent=percent, page_size=64).run() is phase


def test_the_share_of_a_small_job_is_taken_at_its_end() -> None:
    batch = with_errors(3, 1, max_error_percent=10)
    assert batch.run() is Phase.STOPPED
    assert batch.planner is not None
    assert "25.0 %" in batch.planner.status().reason


def test_a_stopped_job_goes_on_with_a_larger_budget(tmp_path: Path) -> None:
    batch = with_errors(40, 5, max_errors=2)
    assert batch.run() is Phase.STOPPED
    batch.die()
    assert batch.run() is Phase.STOPPED
    batch.die()
    batch.start(resume=True, max_errors=10)
    assert batch.run() is Phase.COMPLETED
    batch.assert_sound(tmp_path)
    assert batch.generation.number == 1


def test_a_job_is_stopped_after_its_deadline() -> None:
    batch = Batch(50, deadline_seconds=30)
    batch.start()
    batch.seconds += 31
    assert batch.run() is Phase.STOPPED


@pytest.mark.parametrize(("state", "phase"), [(State.CANCEL, Phase.CANCELLED), (State.SUSPEND, Phase.SUSPENDED)])
def test_a_mark_ends_planner_and_tasks_and_what_is_written_stays(tmp_path: Path, state: State, phase: Phase) -> None:
    batch = Batch(30)
    planned(batch)
    batch.work_one()
    batch.ledger.set_mark(Mark(state, "by a test"))
    written = dict(batch.outputs())
    assert batch.run() is phase
    while batch.queue.pages:
        batch.work_one()
    assert batch.outputs() == written
    batch.die()
    batch.start(resume=True)
    assert batch.run() is Phase.COMPLETED
    batch.assert_sound(tmp_path)
    assert max(batch.blurrer.calls.values()) == 1


def test_what_a_person_has_cancelled_no_planner_wakes() -> None:
    batch = Batch(10)
    batch.start()
    batch.ledger.set_mark(Mark(State.CANCEL, "by a person"))
    batch.die()
    assert batch.run() is Phase.CANCELLED


def test_what_a_planner_has_suspended_the_next_one_wakes() -> None:
    batch = Batch(10)
    batch.start()
    batch.ledger.set_mark(Mark(State.SUSPEND, "its planner has ended"))
    batch.die()
    assert batch.run() is Phase.COMPLETED


def test_who_only_looks_sees_the_same_as_the_planner() -> None:
    from faceblur_batch.driver import status_of

    batch = with_errors(30, 2)
    planned(batch)
    planner = batch.planner
    assert planner is not None
    for _ in range(3):
        batch.work_one()
    seen = status_of(batch.ledger, batch.generation)
    assert seen.phase is Phase.RUNNING
    assert seen.totals.objects == 32
    assert 0 < seen.summary.objects < 32
    batch.seconds += 10
    planner.step()
    assert planner.status().summary == seen.summary
    assert batch.run() is Phase.COMPLETED
    seen = status_of(batch.ledger, batch.generation)
    assert (seen.phase, seen.percent) == (Phase.COMPLETED, 100.0)
    assert seen.summary.kinds == Counter(blurred=30, refused=2)


def test_rate_and_time_left_are_those_of_late() -> None:
    batch = Batch(100, page_size=10, parallelism=1)
    planned(batch)
    planner = batch.planner
    assert planner is not None
    for _ in range(6):
        batch.seconds += 10
        planner.step()
        batch.work_one()
    status = planner.status()
    assert status.rate > 0
    assert status.seconds_left is not None
    assert status.seconds_left == pytest.approx((100 - status.summary.objects) / status.rate)


# What it costs


class Listing(MemoryStore):
    """A bucket with many objects that are only made when they are listed."""

    count = 0

    def list(self, prefix: str = "", *, after: str | None = None) -> Iterator[ObjectInfo]:
        first = 0 if after is None else int(after[:-4]) + 1
        for number in range(first, self.count):
            yield ObjectInfo(f"{number:08d}.png", 1000, f'"{number}"', START)


def test_many_objects_cost_few_requests() -> None:
    """The pages' own work is written down as a batch worker writes it, without the pictures' get and put."""
    batch = Batch(page_size=1000, parallelism=2)
    listing = Listing("source")
    listing.count = 20_000
    batch.source = listing
    planner = batch.start()
    batch.destination.requests.clear()
    while planner.status().phase is not Phase.COMPLETED:
        batch.seconds += max(planner.step(), 0.05)
        for _ in range(min(2, len(batch.queue.pages))):
            write_down_as_done(batch, batch.queue.pages.pop(0))
    assert planner.status().summary.objects == 20_000
    requests = sum(batch.destination.requests.values())
    assert requests / 20_000 <= 0.02, batch.destination.requests


def write_down_as_done(batch: Batch, number: int) -> None:
    from faceblur_batch.outcomes import Outcome
    from faceblur_batch.summary import Summary

    page = batch.ledger.page(number)
    batch.ledger.mark()
    attempt = batch.ledger.claim(number)
    assert attempt is not None
    outcome = Outcome(
        kind=Kind.BLURRED, input_sha256="a" * 64, output_sha256="b" * 64, output_bytes=900, faces=1, models=("c" * 64,)
    )
    summary = Summary()
    for entry in page.entries:
        summary.add(outcome, entry.size)
    records = [{"outcome": index, **outcome.as_dict()} for index in range(len(page.entries))]
    attempt.append(records[:500])
    attempt.finish(records[500:], summary.as_dict())


def test_the_planner_reads_each_segment_once() -> None:
    batch = Batch(60)
    reads: Counter[str] = Counter()

    def count(operation: Operation, done: bool) -> None:
        if operation.name == "get" and is_log(operation.key):
            reads[operation.key] += 1

    planned(batch)
    planner = batch.planner
    assert planner is not None
    batch.destination.hook = count
    while batch.queue.pages or planner.status().summary.objects < 60:
        if batch.queue.pages:
            batch.work_one()
        batch.seconds += 2
        if planner.status().phase in (Phase.COMPLETED,):
            break
        planner.step()
        if planner.status().summary.objects < 60:
            assert max(reads.values(), default=0) <= 1


def test_the_time_is_that_of_the_ledger_and_not_of_the_process() -> None:
    batch = Batch(10)
    batch.source.clock.ahead = timedelta(days=3)
    planned(batch)
    batch.queue.pages.clear()
    assert batch.run() is Phase.COMPLETED


@pytest.mark.parametrize("refused", [False, True])
def test_keys_of_any_kind_come_through(tmp_path: Path, refused: bool) -> None:
    batch = Batch()
    keys = ["a b/ü.png", "a b/u\u0308.png", "100%/x.png", "semi;colon.png", "quote\"'.png", "nl\nx.png", "漢字.png"]
    for number, key in enumerate([*keys, "no utf-8 \udcff\udc80.png", "\udce9.png"]):
        image = batch.add(key, PIXELS + bytes([number]))
        if refused:
            batch.blurrer.errors[image] = [faceblur.UnreadableImageError("truncated", reason="UNREADABLE_IMAGE")]
    assert batch.run() is Phase.COMPLETED
    batch.assert_sound(tmp_path)
    batch.die()
    calls = batch.blurrer.calls.total()
    assert batch.run() is Phase.COMPLETED
    assert batch.blurrer.calls.total() == calls
