"""Keys that were named: kept before anybody is told so, few writes, bounded, never lost."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from faceblur_batch.errors import AccessDenied, TransientStorageError
from faceblur_batch.inbox import Inbox, InboxClosed
from faceblur_batch.ledger import ROOT
from support.memory_store import MemoryStore, Operation


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def inbox(store: MemoryStore, most: int = 100) -> Inbox:
    return Inbox(store, "job", most)


def test_keys_are_in_the_ledger_when_they_are_accepted() -> None:
    store = MemoryStore("destination")
    inbox(store).add({"a.jpg", "b.jpg"})
    other = inbox(store)
    other.load()
    assert other.take().keys == {"a.jpg", "b.jpg"}


def test_what_cannot_be_written_is_not_accepted_and_comes_in_later() -> None:
    store = MemoryStore("destination")
    box = inbox(store)

    def hook(operation: Operation, done: bool) -> None:
        raise TransientStorageError("no answer")

    store.hook = hook
    with pytest.raises(InboxClosed, match="STORAGE_UNAVAILABLE"):
        box.add({"a.jpg"})
    store.hook = lambda operation, done: None
    assert box.take().keys == set()
    box.add({"a.jpg"})
    assert box.take().keys == {"a.jpg"}


def test_keys_that_wait_already_are_not_written_again() -> None:
    store = MemoryStore("destination")
    box = inbox(store)
    for _ in range(5):
        box.add({"a.jpg"})
    assert store.requests["put"] == 1


def test_what_comes_while_another_writes_is_written_together() -> None:
    store = MemoryStore("destination")
    box = inbox(store)
    begun, let_go = threading.Event(), threading.Event()

    def hook(operation: Operation, done: bool) -> None:
        if not begun.is_set():
            begun.set()
            assert let_go.wait(20)

    store.hook = hook
    with ThreadPoolExecutor(20) as pool:
        first = pool.submit(box.add, {"0.jpg"})
        assert begun.wait(20)
        others = [pool.submit(box.add, {f"{number}.jpg"}) for number in range(1, 20)]
        while box._next.keys != {f"{number}.jpg" for number in range(1, 20)}:
            pass
        let_go.set()
        for future in (first, *others):
            future.result(20)
    assert store.requests["put"] == 2
    assert len(box.take().keys) == 20


def test_all_who_came_together_are_told_that_it_failed() -> None:
    store = MemoryStore("destination")
    box = inbox(store)
    begun, let_go = threading.Event(), threading.Event()

    def hook(operation: Operation, done: bool) -> None:
        if not begun.is_set():
            begun.set()
            assert let_go.wait(20)
        elif not done:
            raise TransientStorageError("no answer")

    store.hook = hook
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(box.add, {"0.jpg"})
        assert begun.wait(20)
        others = [pool.submit(box.add, {f"{number}.jpg"}) for number in range(1, 4)]
        while len(box._next.keys) < 3:
            pass
        let_go.set()
        first.result(20)
        for future in others:
            with pytest.raises(InboxClosed):
                future.result(20)


def test_more_keys_than_are_kept_become_everything_and_cost_no_more_writes() -> None:
    store = MemoryStore("destination")
    box = inbox(store, most=3)
    for number in range(10):
        box.add({f"{number}.jpg"})
    assert store.requests["put"] == 4
    assert box.waiting().everything
    taken = box.take()
    assert (taken.everything, len(taken.keys)) == (True, 0)
    box.add({"new.jpg"})  # after the pass has begun to list: it has to be named again
    assert store.requests["put"] == 5


def test_another_process_finds_that_there_were_too_many() -> None:
    store = MemoryStore("destination")
    box = inbox(store, most=3)
    for number in range(10):
        box.add({f"{number}.jpg"})
    other = inbox(store, most=3)
    other.load()
    assert other.take().everything
    less = inbox(store, most=1)
    less.load()
    assert less.take().everything


def test_what_a_pass_did_not_begin_with_is_taken_again() -> None:
    store = MemoryStore("destination")
    box = inbox(store)
    box.add({"a.jpg"})
    assert box.take().keys == {"a.jpg"}
    assert box.waiting().keys == 1
    box.add({"b.jpg"})
    assert box.take().keys == {"a.jpg", "b.jpg"}
    box.drop()
    assert box.take().keys == set()
    assert store.keys(f"{ROOT}job/inbox/") == []


def test_what_came_since_it_was_taken_is_not_dropped() -> None:
    store = MemoryStore("destination")
    box = inbox(store)
    box.add({"a.jpg"})
    box.take()
    box.add({"b.jpg"})
    box.drop()
    other = inbox(store)
    other.load()
    assert box.take().keys == other.take().keys == {"b.jpg"}


def test_what_cannot_be_removed_is_not_taken_again_by_this_process() -> None:
    store = MemoryStore("destination")
    box = inbox(store)
    box.add({"a.jpg"})
    box.take()

    def hook(operation: Operation, done: bool) -> None:
        if operation.name == "delete":
            raise AccessDenied("no")

    store.hook = hook
    box.drop()
    box.load()
    assert box.take().keys == set()
    store.hook = lambda operation, done: None
    box.drop()
    assert store.keys(f"{ROOT}job/inbox/") == []


def test_a_part_that_is_damaged_means_everything() -> None:
    store = MemoryStore("destination")
    store.put(f"{ROOT}job/inbox/1.jsonl", b'"a.jpg')
    box = inbox(store)
    box.load()
    assert box.take().everything


def test_the_first_and_the_last_are_told() -> None:
    clock = Clock()
    box = Inbox(MemoryStore("destination"), "job", 100, monotonic=clock)
    for clock.now in (1.0, 2.0, 5.0):
        box.add({f"{clock.now}.jpg"})
    assert (box.waiting().first, box.waiting().last) == (1.0, 5.0)
    box.take()
    box.drop()
    clock.now = 9.0
    box.add({"later.jpg"})
    assert (box.waiting().first, box.waiting().last) == (9.0, 9.0)
