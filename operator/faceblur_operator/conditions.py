"""Conditions: what they are called, how they change, and which changes are worth an Event.

Ready says whether enough workers answer, Progressing whether workers are on their way to the present spec, Degraded
whether something keeps the cluster from its spec. Paused and those of the optional parts are there only while asked
for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from .api.v1alpha1 import Condition, ConditionStatus
from .observed import Event


class ConditionType:
    """Names of conditions."""

    READY: Final = "Ready"
    PROGRESSING: Final = "Progressing"
    DEGRADED: Final = "Degraded"
    PAUSED: Final = "Paused"
    AUTOSCALING: Final = "Autoscaling"
    TLS: Final = "TLS"
    MONITORING: Final = "Monitoring"
    DISRUPTION_BUDGET: Final = "DisruptionBudget"
    NETWORK_POLICY: Final = "NetworkPolicy"
    EXTERNAL_ACCESS: Final = "ExternalAccess"
    BATCH: Final = "Batch"
    BATCH_AUTOSCALING: Final = "BatchAutoscaling"


class Reason:
    """Reasons of our own. Besides them there are those of Kubernetes, KEDA and cert-manager, in their own words."""

    WORKERS_READY: Final = "WorkersReady"
    WORKERS_UNAVAILABLE: Final = "WorkersUnavailable"
    SCALED_TO_ZERO: Final = "ScaledToZero"
    CREATING: Final = "Creating"
    ROLLING_OUT: Final = "RollingOut"
    WAITING_FOR_WORKERS: Final = "WaitingForWorkers"
    COMPLETE: Final = "Complete"
    DEADLINE_EXCEEDED: Final = "ProgressDeadlineExceeded"
    PAUSED: Final = "Paused"
    AS_EXPECTED: Final = "AsExpected"
    INVALID_SPEC: Final = "InvalidSpec"
    NAME_TAKEN: Final = "NameTaken"
    APPLY_REFUSED: Final = "ApplyRefused"
    PENDING: Final = "Pending"
    IN_PLACE: Final = "InPlace"
    KEDA_MISSING: Final = "KEDAMissing"
    CERT_MANAGER_MISSING: Final = "CertManagerMissing"
    PROMETHEUS_OPERATOR_MISSING: Final = "PrometheusOperatorMissing"
    WAITING_FOR_METRICS: Final = "WaitingForMetrics"
    AT_MAXIMUM: Final = "AtMaximum"
    SECRET_MISSING: Final = "SecretMissing"  # noqa: S105
    SECRET_PRESENT: Final = "SecretPresent"  # noqa: S105
    BLOCKS_DRAINS: Final = "BlocksDrains"
    TRACES_BLOCKED: Final = "TracesBlocked"
    ADDRESS_PENDING: Final = "AddressPending"
    BATCH_WORKERS_READY: Final = "BatchWorkersReady"
    BATCH_WORKERS_UNAVAILABLE: Final = "BatchWorkersUnavailable"
    BROKER_UNAVAILABLE: Final = "BrokerUnavailable"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a condition says, without the times.

    Attributes:
        status: Whether the condition holds.
        reason: One word for programs.
        message: A sentence for people.
    """

    status: ConditionStatus
    reason: str
    message: str


_LONGEST_MESSAGE = 2000


def with_findings(
    previous: Iterable[Condition], findings: Mapping[str, Finding], generation: int, now: datetime
) -> tuple[Condition, ...]:
    """Return the conditions for what was found. The time of transition only changes with the status.

    Args:
        previous: The conditions so far.
        findings: By the conditions' type, in their order.
        generation: Of the resource that was looked at.
        now: Aware of its time zone.
    """
    before = {condition.type: condition for condition in previous}
    time = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return tuple(
        Condition(
            type=name,
            status=finding.status,
            reason=finding.reason,
            message=_shortened(finding.message),
            last_transition_time=before[name].last_transition_time
            if name in before and before[name].status is finding.status
            else time,
            observed_generation=generation,
        )
        for name, finding in findings.items()
    )


def events_between(previous: Iterable[Condition], present: Iterable[Condition]) -> tuple[Event, ...]:
    """Return what is worth telling about a change of conditions, one Event for each reason."""
    before = {condition.type: condition for condition in previous}
    after = {condition.type: condition for condition in present}
    events: dict[str, Event] = {}
    for name, condition in after.items():
        event = _event(before.get(name), condition)
        if event:
            events.setdefault(event.reason, event)
    if ConditionType.PAUSED in before and ConditionType.PAUSED not in after:
        events["Resumed"] = Event("Resumed", "The operator writes again for this cluster.")
    return tuple(events.values())


def _event(before: Condition | None, after: Condition) -> Event | None:
    """What a change of one condition tells."""
    was = before.status if before else None
    failed, held = ConditionStatus.FALSE, ConditionStatus.TRUE
    warning = Event(after.reason, after.message, warning=True)
    news = Event(after.reason, after.message)
    if after.type == ConditionType.READY:
        if after.status is held:
            return None if was is held else Event("Ready", after.message)
        return warning if was is held else None
    if after.type == ConditionType.PROGRESSING:
        return Event("RolledOut", after.message) if was is held and after.reason == Reason.COMPLETE else None
    if after.type == ConditionType.DEGRADED:
        if after.status is held:
            return None if before and was is held and before.reason == after.reason else warning
        return Event("Recovered", "What was wrong is over.") if was is held else None
    if after.type == ConditionType.PAUSED:
        return None if was is held else news
    if after.status is failed:
        return None if before and was is failed and before.reason == after.reason else warning
    return news if was is failed and after.status is held else None


def _shortened(message: str) -> str:
    return message if len(message) <= _LONGEST_MESSAGE else message[: _LONGEST_MESSAGE - 1] + "…"
