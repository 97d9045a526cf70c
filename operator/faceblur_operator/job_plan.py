"""Decides what to write for a FaceBlurJob, from one look at it. Pure: the same look gives the same plan.

A Kubernetes Job cannot be changed. So one whose planner should be another is deleted, which suspends the batch, and
made anew with the next look, which goes on with it. One that has ended stays, until something else is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from . import job_naming, naming
from .api.v1alpha1 import FaceBlurCluster
from .api.v1alpha1_job import FaceBlurJob, FaceBlurJobStatus, Phase
from .builders.batch_environment import secrets_of
from .builders.planner_access import build_planner_account, build_planner_binding, build_planner_role
from .builders.planner_job import build_planner_cron_job, build_planner_job
from .builders.planner_specification import build_specification, missing_profiles, pass_digest, spec_digest
from .job_conditions import events_between
from .job_status import View, can_start, cluster_finding, end_of, invalid_status, is_over, make_status, usable
from .observed import JobObserved, Manifest, Memory, ObjectKey, Plan
from .ownership import belongs, is_due, is_going, split, stamped
from .plan import PlanSettings

__all__ = ["invalid_status", "job_places", "job_secrets", "make_job_plan"]


def make_job_plan(
    observed: JobObserved, settings: PlanSettings, now: datetime, memory: Memory | None = None
) -> Plan[FaceBlurJobStatus]:
    """Decide what brings a job to its spec, and what its status is.

    Args:
        observed: One look at the job.
        settings: About the operator.
        now: For the conditions; aware of its time zone.
        memory: Of the last writes.
    """
    memory = memory or Memory()
    job = observed.job
    own, taken = split(observed.objects, job.metadata.uid)
    place = _job_place(job)
    live = own.get(place)
    run = _last_run(observed, own) if job.spec.schedule else live
    obsolete = [place] if live and not is_going(live) and _is_obsolete(observed, live, settings) else []
    wanted = {naming.key_of(manifest): manifest for manifest in _wanted(observed, settings, live)}
    due = [
        manifest
        for key, manifest in ((key, stamped(manifest)) for key, manifest in wanted.items())
        if key not in taken and key not in obsolete and is_due(own.get(key), manifest, memory.accepted.get(key))
    ]
    status = make_status(
        View(
            observed=observed,
            own=own,
            taken={key: found for key, found in taken.items() if key in wanted},
            refused={key: memory.refused[key] for key in map(naming.key_of, due) if key in memory.refused},
            run=run,
            now=now,
        )
    )
    left = _seconds_left(job, status, now)
    return Plan(
        keep_replicas=(),
        apply=tuple(due),
        delete=tuple(obsolete),
        status=status,
        events=events_between(job.status, status),
        again=left,
        expired=left is not None and left <= 0,
    )


def job_places(job: FaceBlurJob) -> tuple[ObjectKey, ...]:
    """Every place that a plan may want to apply to or delete from: what `JobObserved.objects` has to cover."""
    name = naming.planner_name(job.name)
    return (
        ObjectKey("v1", "ServiceAccount", name),
        ObjectKey("rbac.authorization.k8s.io/v1", "Role", name),
        ObjectKey("rbac.authorization.k8s.io/v1", "RoleBinding", name),
        ObjectKey("v1", "ConfigMap", name),
        _job_place(job),
    )


def job_secrets(cluster: FaceBlurCluster | None) -> tuple[str, ...]:
    """The Secrets whose versions `JobObserved.secrets` has to tell."""
    return secrets_of(cluster) if cluster is not None and cluster.spec.batch else ()


def _job_place(job: FaceBlurJob) -> ObjectKey:
    return ObjectKey("batch/v1", "CronJob" if job.spec.schedule else "Job", naming.planner_name(job.name))


def _wanted(observed: JobObserved, settings: PlanSettings, live: Manifest | None) -> Iterator[Manifest]:
    """What the spec asks for and the cluster can do, in the order in which it is applied."""
    job, cluster = observed.job, usable(observed.cluster)
    if cluster is None or missing_profiles(job, cluster):
        return
    yield build_planner_account(job, cluster)
    yield build_planner_role(job, cluster)
    yield build_planner_binding(job, cluster)
    yield build_specification(job, cluster)
    if job.spec.schedule:
        yield _planner(observed, cluster, settings)
        return
    if live is not None:
        if not is_going(live) and end_of(live) is None:
            yield _planner(observed, cluster, settings)
    elif not is_over(observed) and not job.spec.suspend and can_start(cluster_finding(observed), anew=True):
        yield _planner(observed, cluster, settings)


def _planner(observed: JobObserved, cluster: FaceBlurCluster, settings: PlanSettings) -> Manifest:
    build = build_planner_cron_job if observed.job.spec.schedule else build_planner_job
    return build(observed.job, cluster, default_image=settings.worker_image, cluster_domain=settings.cluster_domain)


def _is_obsolete(observed: JobObserved, live: Manifest, settings: PlanSettings) -> bool:
    """Whether a Kubernetes Job stands in the way of what is asked for now."""
    job, cluster = observed.job, usable(observed.cluster)
    if job.spec.schedule:
        return False
    end = end_of(live)
    asked = live["metadata"].get("annotations") or {}
    if end == "Complete":
        return asked.get(job_naming.PASS_ANNOTATION) != pass_digest(job)
    if end == "Failed":
        return asked.get(job_naming.SPEC_ANNOTATION) != spec_digest(job) or job.spec.suspend
    if cluster is None or missing_profiles(job, cluster):
        return False
    return _template(live) != _template(_planner(observed, cluster, settings))


def _template(planner: Manifest) -> str:
    annotations = planner["spec"]["template"]["metadata"].get("annotations") or {}
    return str(annotations.get(naming.TEMPLATE_ANNOTATION, ""))


def _last_run(observed: JobObserved, own: Mapping[ObjectKey, Manifest]) -> Manifest | None:
    cron_job = own.get(_job_place(observed.job))
    if cron_job is None:
        return None
    runs = [run for run in observed.runs if belongs(run, cron_job["metadata"]["uid"])]
    return max(runs, key=lambda run: (run["metadata"]["creationTimestamp"], run["metadata"]["name"]), default=None)


def _seconds_left(job: FaceBlurJob, status: FaceBlurJobStatus, now: datetime) -> float | None:
    """Seconds until a finished job is to be deleted; None: it is not."""
    seconds = job.spec.ttl_seconds_after_finished
    if seconds is None or not status.finished_pass or not status.completion_time:
        return None
    if status.finished_pass != (pass_digest(job) if status.phase is Phase.COMPLETED else spec_digest(job)):
        return None
    return seconds - (now - datetime.fromisoformat(status.completion_time)).total_seconds()
