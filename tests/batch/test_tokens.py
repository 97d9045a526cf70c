"""One pass per token, for planners that are started again and again by a machine."""

from __future__ import annotations

from faceblur_batch.ledger import Mark, State
from faceblur_batch.planner import Phase
from support.batches import Batch


def given_up(state: State) -> Batch:
    """A pass that was ended before it was done."""
    batch = Batch(3, token="monday")
    batch.start().step()
    batch.generation.ledger(batch.destination).set_mark(Mark(state, "enough"))
    return batch


def test_what_a_person_or_a_budget_has_ended_is_not_taken_up_by_the_next_run_of_a_schedule() -> None:
    for state in (State.CANCEL, State.STOP):
        batch = given_up(state)
        batch.start(token="monday")
        assert batch.generation.number == 1, "the same run, started again, stays as it was ended"
        batch.start(token="tuesday")
        assert batch.generation.number == 2
        assert batch.run() is Phase.COMPLETED


def test_what_was_only_interrupted_is_finished_by_the_next_run() -> None:
    batch = given_up(State.SUSPEND)
    batch.start(token="tuesday")
    assert batch.generation.number == 1
    assert batch.run() is Phase.COMPLETED


def test_who_says_so_goes_on_with_what_was_ended() -> None:
    batch = given_up(State.STOP)
    batch.start(token="tuesday", resume=True)
    assert batch.generation.number == 1
    assert batch.run() is Phase.COMPLETED
