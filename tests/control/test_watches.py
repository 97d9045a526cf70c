"""What tells a watch that has died from one that has nothing to tell."""

from __future__ import annotations

from faceblur_operator.watches import Watches

KEY = ("shop", "demo")
POD = "Pod"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def make() -> tuple[Watches, Clock]:
    clock = Clock()
    watches = Watches(clock)
    watches.told(("shop", "other"), POD, "any", "1")
    return watches, clock


def test_what_was_seen_and_never_told_of_is_behind_from_then_on() -> None:
    watches, clock = make()
    watches.seen(KEY, {"a": (POD, "1")}, clock.now)
    clock.now += 30
    watches.seen(KEY, {"a": (POD, "1")}, clock.now)
    assert watches.lag() == 30
    watches.told(KEY, POD, "a", "1")
    assert watches.lag() == 0


def test_a_newer_version_than_the_one_told_of_is_behind() -> None:
    watches, clock = make()
    watches.told(KEY, POD, "a", "1")
    watches.seen(KEY, {"a": (POD, "2")}, clock.now)
    clock.now += 5
    assert watches.lag() == 5


def test_a_version_that_was_skipped_in_a_burst_is_not_behind_for_ever() -> None:
    watches, clock = make()
    watches.seen(KEY, {"a": (POD, "1")}, clock.now)
    watches.told(KEY, POD, "a", "2")
    clock.now += 500
    assert watches.lag() == 0


def test_what_is_told_during_a_look_is_kept_and_what_is_gone_is_dropped() -> None:
    watches, clock = make()
    watches.told(KEY, POD, "old", "1")
    clock.now += 1
    since = clock.now
    watches.told(KEY, POD, "new", "7")
    watches.seen(KEY, {"a": (POD, "1")}, since)
    watches.told(KEY, POD, "a", "1")
    watches.seen(KEY, {"a": (POD, "1"), "new": (POD, "7")}, clock.now)
    clock.now += 100
    assert watches.lag() == 0
    watches.seen(KEY, {"a": (POD, "1"), "new": (POD, "7"), "old": (POD, "1")}, clock.now)
    clock.now += 100
    assert watches.lag() == 100, "it was dropped, so that nothing is kept for ever"


def test_what_is_gone_is_not_behind() -> None:
    watches, clock = make()
    watches.seen(KEY, {"a": (POD, "1")}, clock.now)
    watches.told(KEY, POD, "a", "2", gone=True)
    clock.now += 100
    assert watches.lag() == 0
    watches.seen(KEY, {"b": (POD, "1")}, clock.now)
    watches.forget(KEY)
    clock.now += 100
    assert watches.lag() == 0


def test_an_event_about_what_was_just_seen_is_no_news() -> None:
    watches, clock = make()
    watches.seen(KEY, {"a": (POD, "1")}, clock.now)
    assert not watches.told(KEY, POD, "a", "1")
    assert watches.told(KEY, POD, "a", "2")
    assert watches.told(KEY, POD, "b", "1")
    assert watches.told(KEY, POD, "a", "1", gone=True)
    assert watches.told(("shop", "other"), POD, "a", "1")


def test_new_watches_have_time_to_tell_of_everything_again() -> None:
    watches, clock = make()
    watches.seen(KEY, {"a": (POD, "1")}, clock.now)
    clock.now += 100
    watches.restarted()
    assert watches.lag() == 0
    clock.now += 20
    assert watches.lag() == 20
    assert watches.silence() == 120
    watches.told(KEY, POD, "a", "1")
    assert (watches.lag(), watches.silence()) == (0, 0)


def test_a_kind_that_may_not_be_watched_is_not_behind_but_the_clusters_are() -> None:
    clock = Clock()
    watches = Watches(clock)
    watches.seen(KEY, {"a": (POD, "1")}, clock.now)
    clock.now += 100
    assert watches.lag() == 0
    watches.seen(KEY, {"a": (POD, "1"), "c": ("FaceBlurCluster", "1")}, clock.now)
    clock.now += 100
    assert watches.lag() == 100
