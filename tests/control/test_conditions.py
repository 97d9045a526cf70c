"""How conditions change, and which changes are told."""

from __future__ import annotations

from datetime import timedelta

import pytest

from faceblur_operator.api.v1alpha1 import Condition, ConditionStatus
from faceblur_operator.conditions import Finding, events_between, with_findings
from support.clusters import NOON

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


def found(name: str, status: ConditionStatus, reason: str = "Why", message: str = "Because.") -> Condition:
    (condition,) = with_findings((), {name: Finding(status, reason, message)}, 1, NOON)
    return condition


def test_the_time_of_transition_changes_with_the_status_alone() -> None:
    later = NOON + timedelta(hours=1)
    before = (found("Ready", FALSE, "Creating"),)
    (same,) = with_findings(before, {"Ready": Finding(FALSE, "OOMKilled", "Another.")}, 2, later)
    assert (same.reason, same.message, same.observed_generation) == ("OOMKilled", "Another.", 2)
    assert same.last_transition_time == "2026-05-04T12:00:00Z"
    (changed,) = with_findings(before, {"Ready": Finding(TRUE, "WorkersReady", "")}, 2, later)
    assert changed.last_transition_time == "2026-05-04T13:00:00Z"


def test_conditions_that_are_not_found_any_more_are_dropped_and_the_order_is_that_of_the_findings() -> None:
    before = (found("Paused", TRUE), found("Ready", TRUE))
    after = with_findings(before, {"Ready": Finding(TRUE, "a", ""), "TLS": Finding(TRUE, "b", "")}, 1, NOON)
    assert [condition.type for condition in after] == ["Ready", "TLS"]


def test_a_message_has_a_bound() -> None:
    assert len(found("Degraded", TRUE, message="x" * 50000).message) == 2000


@pytest.mark.parametrize(
    ("before", "after", "reason", "warning"),
    [
        (None, found("Ready", TRUE), "Ready", False),
        (found("Ready", FALSE), found("Ready", TRUE), "Ready", False),
        (found("Ready", TRUE), found("Ready", FALSE, "WorkersUnavailable"), "WorkersUnavailable", True),
        (found("Progressing", TRUE), found("Progressing", FALSE, "Complete"), "RolledOut", False),
        (None, found("Degraded", TRUE, "OOMKilled"), "OOMKilled", True),
        (found("Degraded", TRUE, "OOMKilled"), found("Degraded", TRUE, "Unschedulable"), "Unschedulable", True),
        (found("Degraded", TRUE), found("Degraded", FALSE), "Recovered", False),
        (None, found("Paused", TRUE, "Paused"), "Paused", False),
        (found("Paused", TRUE), None, "Resumed", False),
        (None, found("Autoscaling", FALSE, "KEDAMissing"), "KEDAMissing", True),
        (found("TLS", TRUE), found("TLS", FALSE, "SecretMissing"), "SecretMissing", True),
        (found("TLS", FALSE, "a"), found("TLS", FALSE, "b"), "b", True),
        (found("TLS", FALSE), found("TLS", TRUE, "SecretPresent"), "SecretPresent", False),
    ],
)
def test_a_change_worth_reading_is_told(
    before: Condition | None, after: Condition | None, reason: str, warning: bool
) -> None:
    (event,) = events_between([before] if before else [], [after] if after else [])
    assert (event.reason, event.warning) == (reason, warning)
    assert event.message


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, found("Ready", FALSE)),
        (found("Ready", FALSE, "Pending"), found("Ready", FALSE, "WorkersUnavailable")),
        (found("Ready", TRUE, message="1 of 1"), found("Ready", TRUE, message="2 of 2")),
        (None, found("Progressing", FALSE, "Complete")),
        (found("Progressing", TRUE), found("Progressing", FALSE, "Paused")),
        (found("Degraded", TRUE, message="a"), found("Degraded", TRUE, message="b")),
        (None, found("Degraded", FALSE)),
        (found("Paused", TRUE), found("Paused", TRUE)),
        (None, found("Autoscaling", UNKNOWN)),
        (found("Autoscaling", TRUE), found("Autoscaling", UNKNOWN)),
        (found("Autoscaling", UNKNOWN), found("Autoscaling", TRUE)),
        (found("TLS", FALSE, message="a"), found("TLS", FALSE, message="b")),
        (found("TLS", TRUE), None),
    ],
)
def test_the_same_again_and_what_passes_by_itself_is_not_told(
    before: Condition | None, after: Condition | None
) -> None:
    assert events_between([before] if before else [], [after] if after else []) == ()


def test_one_reason_is_told_once() -> None:
    after = [found("Ready", FALSE, "SecretMissing"), found("Degraded", TRUE, "SecretMissing")]
    (event,) = events_between([found("Ready", TRUE)], [*after, found("TLS", FALSE, "SecretMissing")])
    assert event.reason == "SecretMissing"
