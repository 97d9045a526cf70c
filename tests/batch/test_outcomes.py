"""How the log of a page is read."""

from __future__ import annotations

import itertools
import random
from datetime import timedelta

import pytest

from faceblur_batch.outcomes import DIED, Kind, Outcome, PageState, Record, Segment, better, fold, refusal
from support.memory_store import START

LEASE = timedelta(minutes=3)
BLURRED = Outcome(kind=Kind.BLURRED, output_sha256="a", faces=2, models=("m",))
REFUSED = refusal(Kind.REFUSED, "UNREADABLE_IMAGE", "truncated")


def noted(index: int, outcome: Outcome) -> Record:
    return {"outcome": index, **outcome.as_dict()}


def log(*attempts: list[list[Record]], end: bool = False) -> list[Segment]:
    """Attempts of segments of records; the first segment of each says what a real one says."""
    segments = []
    for number, parts in enumerate(attempts, 1):
        first: list[Record] = [{"who": "x", "try": "all"}]
        for index, records in enumerate([first, *parts]):
            segments.append(Segment(number, index, START, tuple(records)))
    return segments


def state_of(segments: list[Segment], *, later: timedelta = timedelta(hours=1)) -> PageState:
    return fold(segments, now=START + later, lease=LEASE)


def test_an_outcome_survives_its_way_through_json() -> None:
    assert Outcome.from_dict(BLURRED.as_dict()) == BLURRED
    assert REFUSED.as_dict() == {"kind": "refused", "reason": "UNREADABLE_IMAGE", "message": "truncated"}


def test_what_was_written_beats_what_was_not_whatever_the_order() -> None:
    assert better(REFUSED, BLURRED) == BLURRED
    assert better(BLURRED, REFUSED) == BLURRED


def test_of_two_outcomes_of_a_kind_the_first_holds() -> None:
    other = refusal(Kind.FAILED, "ERROR", "second")
    assert better(REFUSED, other) == REFUSED


def test_the_order_in_which_segments_are_read_does_not_matter() -> None:
    segments = log(
        [[noted(0, REFUSED)], [noted(1, BLURRED)]],
        [[noted(0, BLURRED), {"try": [2]}], [{"blame": 2, "reason": "ERROR"}, {"end": "left"}]],
    )
    expected = state_of(segments)
    shuffled = list(segments)
    random.Random(1).shuffle(shuffled)
    assert state_of(shuffled) == expected
    assert expected.outcomes[0].kind is Kind.BLURRED


def test_an_attempt_that_died_without_a_word_makes_the_next_one_careful() -> None:
    state = state_of(log([]))
    assert state.careful
    assert not state.suspects


def test_an_attempt_that_ended_in_order_does_not() -> None:
    assert not state_of(log([[{"end": "left"}]])).careful


def test_an_attempt_that_showed_itself_of_late_is_not_dead() -> None:
    assert not state_of(log([]), later=LEASE - timedelta(seconds=1)).careful


def test_what_was_announced_in_a_chunk_by_an_attempt_that_died_is_suspect() -> None:
    state = state_of(log([[{"try": [3, 4, 5]}, noted(4, BLURRED)]]))
    assert state.suspects == {3, 5}
    assert not state.blames


def test_what_was_announced_alone_by_an_attempt_that_died_is_blamed() -> None:
    state = state_of(log([[{"try": [3]}]], [[{"try": [3]}]]))
    assert state.blames == {3: 2}
    assert state.reasons == {3: DIED}


def test_the_rest_of_a_chunk_is_not_taken_for_one_that_was_alone() -> None:
    state = state_of(log([[{"try": [3, 4]}, noted(4, BLURRED)]]))
    assert state.suspects == {3}
    assert not state.blames


def test_what_has_an_outcome_is_no_suspect() -> None:
    assert not state_of(log([[{"try": [3]}]], [[noted(3, REFUSED)]])).suspects


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_deliveries_gives_one_outcome_per_object(seed: int) -> None:
    chance = random.Random(seed)
    kinds = [BLURRED, REFUSED, refusal(Kind.CHANGED, "GONE", "gone"), refusal(Kind.FAILED, "ERROR", "x")]
    attempts = [
        [[noted(chance.randrange(4), chance.choice(kinds)) for _ in range(3)] for _ in range(2)] for _ in range(3)
    ]
    segments = log(*attempts)
    results = set()
    for order in itertools.islice(itertools.permutations(segments), 0, 400, 37):
        results.add(tuple(sorted((i, o.kind, o.reason) for i, o in state_of(list(order)).outcomes.items())))
    assert len(results) == 1
