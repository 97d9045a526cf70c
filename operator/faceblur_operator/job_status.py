"""Says how a FaceBlurJob is: by its Kubernetes Job, by its planner's own words, and by its cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from . import naming, pods
from .api.v1alpha1 import ConditionStatus, FaceBlurCluster, ObjectMeta
from .api.v1alpha1_job import FINISHED, FaceBlurJobStatus, Phase, Progress
from .builders.planner_specification import missing_profiles, pass_digest, spec_digest
from .conditions import Finding, with_findings
from .job_conditions import ConditionType, Reason
from .job_naming import PASS_ANNOTATION, SPEC_ANNOTATION
from .observed import JobObserved, Manifest, ObjectKey
from .pods import Problem

_TRUE, _FALSE, _UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN
# A planner ends so when it is asked to, and another one goes on.
_ASKED_TO_END = 4
_RUNNING = {"planning": Phase.PLANNING, "running": Phase.RUNNING, "concluding": Phase.RUNNING}


@dataclass(frozen=True, slots=True)
class View:
    """What a status is made of.

    Attributes:
        observed: The look at the job.
        own: The live objects that belong to the job.
        taken: Those that are in the way.
        refused: Why the API server did not take an object that still has to be written.
        run: The Kubernetes Job that the status is about: the job's own, or the last one of its schedule.
        now: Aware of its time zone.
    """

    observed: JobObserved
    own: Mapping[ObjectKey, Manifest]
    taken: Mapping[ObjectKey, Manifest]
    refused: Mapping[ObjectKey, str]
    run: Manifest | None
    now: datetime

    @property
    def progress(self) -> Progress | None:
        """What the planner of that run says."""
        progress = self.observed.job.status.progress
        return progress if progress and self.run and progress.run == self.run["metadata"]["uid"] else None


@dataclass(frozen=True, slots=True)
class _Stand:
    """Where a job stands.

    Attributes:
        phase: See `Phase`.
        reason: One word for programs.
        message: A sentence for people.
    """

    phase: Phase
    reason: str
    message: str


def make_status(view: View) -> FaceBlurJobStatus:
    """Return the status; the same again when it is asked for with the result in place."""
    observed = view.observed
    job, previous = observed.job, observed.job.status
    cluster = cluster_finding(observed)
    stand = _stand(view, cluster)
    finished = stand.phase in FINISHED
    findings = {
        ConditionType.COMPLETE: Finding(
            _TRUE if stand.phase is Phase.COMPLETED else _FALSE, stand.reason, stand.message
        ),
        ConditionType.FAILED: Finding(
            _TRUE if finished and stand.phase is not Phase.COMPLETED else _FALSE, stand.reason, stand.message
        ),
        ConditionType.PROGRESSING: Finding(
            _TRUE if stand.phase in (Phase.PLANNING, Phase.RUNNING) else _FALSE, stand.reason, stand.message
        ),
        ConditionType.CLUSTER_READY: cluster,
        ConditionType.DEGRADED: _degraded(view, stand),
    }
    if job.spec.suspend:
        findings[ConditionType.SUSPENDED] = Finding(_TRUE, Reason.SUSPENDED, _suspended(view))
    if job.spec.schedule:
        findings[ConditionType.SCHEDULED] = _scheduled(view)
    over = finished and not job.spec.schedule
    return FaceBlurJobStatus(
        observed_generation=job.metadata.generation,
        phase=stand.phase,
        conditions=with_findings(previous.conditions, findings, job.metadata.generation, view.now),
        finished_pass=_finished_for(view, stand.phase) if over else "",
        run=view.run["metadata"]["name"] if view.run else previous.run if over else "",
        start_time=_start_time(view, over=over),
        completion_time=_completion_time(view) if finished else None,
        last_schedule_time=_last_schedule_time(view),
        progress=previous.progress,
    )


def invalid_status(metadata: ObjectMeta, previous: FaceBlurJobStatus, message: str, now: datetime) -> FaceBlurJobStatus:
    """Return the status of a job whose spec cannot be read: as it was, but not unnoticed."""
    findings = {c.type: Finding(c.status, c.reason, c.message) for c in previous.conditions} | {
        ConditionType.DEGRADED: Finding(_TRUE, Reason.INVALID_SPEC, message)
    }
    conditions = with_findings(previous.conditions, findings, metadata.generation, now)
    return previous.model_copy(update={"observed_generation": metadata.generation, "conditions": conditions})


def is_over(observed: JobObserved) -> bool:
    """Whether what is asked for was finished already, as the status tells: nothing has to be made for it again.

    Suspending a job that ended badly and resuming it is how a person asks for another try.
    """
    job = observed.job
    status = job.status
    if status.phase is Phase.COMPLETED:
        return status.finished_pass == pass_digest(job)
    return status.phase in FINISHED and status.finished_pass == spec_digest(job) and not job.spec.suspend


def end_of(run: Manifest) -> str | None:
    """The condition by which a Kubernetes Job has ended, ``Complete`` or ``Failed``; None while it has not."""
    conditions = (run.get("status") or {}).get("conditions") or ()
    return next((c["type"] for c in conditions if c["type"] in ("Complete", "Failed") and c["status"] == "True"), None)


def cluster_finding(observed: JobObserved) -> Finding:
    """Whether the job's cluster can do it, and if not, what is missing."""
    job, cluster = observed.job, observed.cluster
    name = job.spec.cluster_ref.name
    if cluster is None:
        return Finding(_FALSE, Reason.CLUSTER_MISSING, f"There is no FaceBlurCluster {name} in {job.namespace}.")
    if cluster.spec.batch is None:
        text = f"FaceBlurCluster {name} does no batches: its spec.batch is not set."
        return Finding(_FALSE, Reason.BATCH_MISSING, text)
    if missing := missing_profiles(job, cluster):
        text = f"FaceBlurCluster {name} has no storage profile {', '.join(missing)} in its spec.batch.storage."
        return Finding(_FALSE, Reason.PROFILE_MISSING, text)
    if absent := [secret for secret, version in observed.secrets.items() if not version]:
        return Finding(_FALSE, Reason.SECRET_MISSING, f"Secret {', '.join(absent)} does not exist; planners need it.")
    ready = next((c for c in cluster.status.conditions if c.type == "Ready"), None)
    if ready is None or ready.status is not _TRUE:
        text = ready.message if ready else "Nothing is known about its workers yet."
        return Finding(_FALSE, Reason.CLUSTER_NOT_READY, f"FaceBlurCluster {name} is not ready: {text}")
    return Finding(_TRUE, Reason.CLUSTER_READY, f"FaceBlurCluster {name} is ready.")


def can_start(finding: Finding, *, anew: bool) -> bool:
    """Whether planners can be made with the cluster as it is; one that is there goes on without ready workers."""
    return finding.status is _TRUE or (finding.reason == Reason.CLUSTER_NOT_READY and not anew)


def _stand(view: View, cluster: Finding) -> _Stand:
    job, run = view.observed.job, view.run
    previous = job.status
    if run is None or (run["metadata"].get("deletionTimestamp") and not job.spec.schedule):
        if run is None and is_over(view.observed):
            return _as_before(previous)
        if job.spec.suspend:
            return _Stand(Phase.SUSPENDED, Reason.SUSPENDED, _suspended(view))
        if run is not None:
            return _Stand(Phase.PENDING, Reason.RESTARTING, "The planner ends; one with the present spec follows.")
        if cluster.status is not _TRUE:
            return _Stand(Phase.PENDING, Reason.WAITING, cluster.message)
        if job.spec.schedule:
            return _Stand(Phase.PENDING, Reason.SCHEDULED, f"The first run comes by the schedule {job.spec.schedule}.")
        return _Stand(Phase.PENDING, Reason.CREATING, "The planner is about to be created.")
    end = end_of(run)
    if end == "Complete":
        return _completed(view)
    if end == "Failed":
        return _failed(view, run)
    if job.spec.suspend and not job.spec.schedule:
        return _Stand(Phase.SUSPENDED, Reason.SUSPENDED, _suspended(view))
    progress = view.progress
    phase = _RUNNING.get(progress.phase) if progress else None
    if phase is Phase.PLANNING:
        return _Stand(phase, Reason.PLANNING, "The planner lists the source and hands out pages.")
    if phase is Phase.RUNNING:
        return _Stand(phase, Reason.RUNNING, "Everything is listed; batch workers are at it.")
    if progress:
        return _Stand(Phase.PENDING, Reason.RESTARTING, "The planner has ended and is started again.")
    return _Stand(Phase.PENDING, Reason.STARTING, "The planner starts.")


def _as_before(previous: FaceBlurJobStatus) -> _Stand:
    """How a job ended whose Kubernetes Job is gone."""
    told = ConditionType.COMPLETE if previous.phase is Phase.COMPLETED else ConditionType.FAILED
    condition = next((c for c in previous.conditions if c.type == told), None)
    assert previous.phase is not None
    return _Stand(
        previous.phase, condition.reason if condition else "Unknown", condition.message if condition else "It is over."
    )


def _completed(view: View) -> _Stand:
    progress = view.progress
    if progress is None or progress.phase != "completed":
        return _Stand(Phase.COMPLETED, Reason.COMPLETED, "Every object has an outcome; the report has the counts.")
    lost = progress.errors + progress.changed
    text = f"{progress.done} objects: {_counts(progress)}."
    if lost:
        return _Stand(Phase.COMPLETED, Reason.WITH_ERRORS, f"{text} {lost} have no result; the report names them.")
    return _Stand(Phase.COMPLETED, Reason.COMPLETED, text)


def _failed(view: View, run: Manifest) -> _Stand:
    progress = view.progress
    said = progress.phase if progress else ""
    if progress and said == "stopped":
        return _Stand(Phase.STOPPED, Reason.STOPPED, f"Stopped after {progress.done} objects: {progress.reason}.")
    if progress and said == "cancelled":
        why = f": {progress.reason}" if progress.reason else ""
        return _Stand(Phase.CANCELLED, Reason.CANCELLED, f"Cancelled after {progress.done} objects{why}.")
    if said == "superseded":
        text = "Another job with the same source, destination and selection has taken over with other options."
        return _Stand(Phase.FAILED, Reason.SUPERSEDED, text)
    conditions = (run.get("status") or {}).get("conditions") or ()
    text = next((c.get("message", "") for c in conditions if c["type"] == "Failed"), "")
    newest = _newest_pod(view)
    if newest is not None and (ended := pods.ended(newest, naming.PLANNER)):
        text = f"The planner ended with exit code {ended[0]}: {ended[1]}"
    return _Stand(Phase.FAILED, Reason.PLANNER_FAILED, text or "The planner failed.")


def _counts(progress: Progress) -> str:
    counts = {
        "blurred": progress.blurred,
        "without a face": progress.no_face,
        "unchanged": progress.unchanged,
        "refused": progress.refused,
        "failed": progress.failed,
        "quarantined": progress.quarantined,
        "changed meanwhile": progress.changed,
    }
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "nothing to do"


def _degraded(view: View, stand: _Stand) -> Finding:
    problems = [Problem(Reason.NAME_TAKEN, _taken(view, key)) for key in view.taken]
    problems += [
        Problem(Reason.APPLY_REFUSED, f"{key.kind} {key.name} was refused: {text}")
        for key, text in view.refused.items()
    ]
    if stand.phase in (Phase.PENDING, Phase.PLANNING, Phase.RUNNING) and (trouble := _trouble(view)):
        problems.append(trouble)
    if not problems:
        return Finding(_FALSE, Reason.AS_EXPECTED, "Nothing is in the job's way.")
    return Finding(_TRUE, problems[0].reason, " ".join(dict.fromkeys(problem.message for problem in problems)))


def _trouble(view: View) -> Problem | None:
    """What keeps the planner from running, if it does not."""
    newest = _newest_pod(view)
    if newest is None:
        return None
    ended = pods.ended(newest, naming.PLANNER)
    if ended is None:
        return pods.waits(newest)
    code, text = ended
    if code in (0, _ASKED_TO_END) or end_of(view.run or {}):
        return None
    return Problem(Reason.PLANNER_FAILS, f"The planner ended with exit code {code} and is started again: {text}")


def _newest_pod(view: View) -> Manifest | None:
    uid = view.run["metadata"]["uid"] if view.run else ""
    own = [
        pod for pod in view.observed.pods if any(o["uid"] == uid for o in pod["metadata"].get("ownerReferences", ()))
    ]
    return max(own, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]), default=None)


def _scheduled(view: View) -> Finding:
    job = view.observed.job
    key = ObjectKey("batch/v1", "CronJob", naming.planner_name(job.name))
    if key in view.taken:
        return Finding(_FALSE, Reason.NAME_TAKEN, _taken(view, key))
    if key in view.refused:
        return Finding(_FALSE, Reason.APPLY_REFUSED, view.refused[key])
    if key not in view.own:
        return Finding(_UNKNOWN, Reason.CREATING, "There is no CronJob yet.")
    zone = f" in {job.spec.time_zone}" if job.spec.time_zone else ""
    if job.spec.suspend:
        return Finding(_FALSE, Reason.SUSPENDED, "No run begins until spec.suspend is false.")
    return Finding(_TRUE, Reason.SCHEDULED, f"Runs begin by the schedule {job.spec.schedule}{zone}.")


def _suspended(view: View) -> str:
    if view.observed.job.spec.schedule:
        return "No run begins until spec.suspend is false; one that is under way goes on."
    return "Nobody works on the job until spec.suspend is false; what is done stays."


def _taken(view: View, key: ObjectKey) -> str:
    job = view.observed.job
    for reference in view.taken[key]["metadata"].get("ownerReferences") or ():
        if (reference["kind"], reference["name"]) == ("FaceBlurJob", job.name):
            return f"{key.kind} {key.name} belongs to an earlier FaceBlurJob of this name and has to go first."
    return (
        f"{key.kind} {key.name} does not belong to this job and is left alone; delete it, or choose another name for "
        "the job."
    )


def _finished_for(view: View, phase: Phase) -> str:
    """What was asked for when the job finished, as its Kubernetes Job remembers."""
    if view.run is None:
        return view.observed.job.status.finished_pass
    annotations = view.run["metadata"].get("annotations") or {}
    return str(annotations.get(PASS_ANNOTATION if phase is Phase.COMPLETED else SPEC_ANNOTATION, ""))


def _start_time(view: View, *, over: bool) -> str | None:
    """When a job began; a planner that was replaced or suspended meanwhile changes nothing about that."""
    job = view.observed.job
    previous = job.status
    begun = (view.run.get("status") or {}).get("startTime") if view.run else None
    if job.spec.schedule:
        return begun
    if previous.start_time and (over or not previous.finished_pass):
        return previous.start_time
    return begun


def _completion_time(view: View) -> str | None:
    if view.run is None:
        return view.observed.job.status.completion_time
    status = view.run.get("status") or {}
    ended: Manifest = next((c for c in status.get("conditions") or () if c["type"] in ("Complete", "Failed")), {})
    found = status.get("completionTime") or ended.get("lastTransitionTime")
    return found or view.observed.job.status.completion_time


def _last_schedule_time(view: View) -> str | None:
    job = view.observed.job
    live = view.own.get(ObjectKey("batch/v1", "CronJob", naming.planner_name(job.name)))
    return (live.get("status") or {}).get("lastScheduleTime") if live else None


def usable(cluster: FaceBlurCluster | None) -> FaceBlurCluster | None:
    """The cluster, if it does batches at all."""
    return cluster if cluster is not None and cluster.spec.batch is not None else None
