"""Conditions of a FaceBlurJob: what they are called, and which changes are worth an Event.

Complete and Failed say how it ended, as those of a Kubernetes Job do, Progressing whether a planner is at it, Degraded
what is in its way, ClusterReady whether its cluster can do it. Suspended and Scheduled are there only while asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from .api.v1alpha1 import Condition, ConditionStatus
from .api.v1alpha1_job import FaceBlurJobStatus, Phase
from .observed import Event


class ConditionType:
    """Names of conditions."""

    COMPLETE: Final = "Complete"
    FAILED: Final = "Failed"
    PROGRESSING: Final = "Progressing"
    CLUSTER_READY: Final = "ClusterReady"
    DEGRADED: Final = "Degraded"
    SUSPENDED: Final = "Suspended"
    SCHEDULED: Final = "Scheduled"


class Reason:
    """Reasons of our own. Besides them there are those of pods and of a cluster's condition Ready."""

    AS_EXPECTED: Final = "AsExpected"
    INVALID_SPEC: Final = "InvalidSpec"
    NAME_TAKEN: Final = "NameTaken"
    APPLY_REFUSED: Final = "ApplyRefused"
    CLUSTER_MISSING: Final = "ClusterMissing"
    BATCH_MISSING: Final = "BatchMissing"
    PROFILE_MISSING: Final = "StorageProfileMissing"
    SECRET_MISSING: Final = "SecretMissing"  # noqa: S105
    CLUSTER_NOT_READY: Final = "ClusterNotReady"
    CLUSTER_READY: Final = "ClusterReady"
    PLANNER_FAILS: Final = "PlannerFails"
    WAITING: Final = "WaitingForCluster"
    CREATING: Final = "Creating"
    STARTING: Final = "Starting"
    RESTARTING: Final = "Restarting"
    PLANNING: Final = "Planning"
    RUNNING: Final = "Running"
    SCHEDULED: Final = "Scheduled"
    SUSPENDED: Final = "Suspended"
    COMPLETED: Final = "Completed"
    WITH_ERRORS: Final = "CompletedWithErrors"
    STOPPED: Final = "Stopped"
    CANCELLED: Final = "Cancelled"
    SUPERSEDED: Final = "Superseded"
    PLANNER_FAILED: Final = "PlannerFailed"


_BAD_ENDS = frozenset({Phase.FAILED, Phase.STOPPED, Phase.CANCELLED})
# Conditions that are worth a warning, and the status that is.
_WARNINGS = {
    ConditionType.DEGRADED: ConditionStatus.TRUE,
    ConditionType.CLUSTER_READY: ConditionStatus.FALSE,
    ConditionType.SCHEDULED: ConditionStatus.FALSE,
}


def events_between(before: FaceBlurJobStatus, after: FaceBlurJobStatus) -> tuple[Event, ...]:
    """Return what is worth telling about a change of status, one Event for each reason."""
    found = {event.reason: event for event in _about_the_phase(before, after)}
    was = {condition.type: condition for condition in before.conditions}
    for condition in after.conditions:
        bad = _WARNINGS.get(condition.type)
        previous = was.get(condition.type)
        same = previous is not None and (previous.status, previous.reason) == (condition.status, condition.reason)
        if condition.status is bad and not same:
            found.setdefault(condition.reason, Event(condition.reason, condition.message, warning=True))
    return tuple(found.values())


def _about_the_phase(before: FaceBlurJobStatus, after: FaceBlurJobStatus) -> Iterable[Event]:
    if (before.phase, before.run) == (after.phase, after.run) or after.phase is None:
        return
    said = {condition.type: condition for condition in after.conditions}
    if after.phase is Phase.COMPLETED:
        complete = said[ConditionType.COMPLETE]
        yield Event(complete.reason, complete.message, warning=complete.reason == Reason.WITH_ERRORS)
    elif after.phase in _BAD_ENDS:
        failed = said[ConditionType.FAILED]
        yield Event(failed.reason, failed.message, warning=True)
    elif after.phase is Phase.SUSPENDED:
        yield Event("Suspended", _message(said.get(ConditionType.SUSPENDED)))
    elif before.phase is Phase.SUSPENDED:
        yield Event("Resumed", "The job goes on where it was.")
    elif after.phase is Phase.PLANNING and before.phase in (Phase.PENDING, None):
        yield Event("Started", "The planner lists the source and hands out pages.")


def _message(condition: Condition | None) -> str:
    return condition.message if condition else ""
