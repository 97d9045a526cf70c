"""What the planner is asked to do, as `faceblur_batch.job.JobSpec` reads it."""

from __future__ import annotations

import json
from typing import Any

from .. import compare, job_naming
from ..api.v1alpha1 import Batch, BatchAutoscalingMode, FaceBlurCluster
from ..api.v1alpha1_job import FaceBlurJob, Place
from ..observed import Manifest
from .batch_environment import DEFAULT_PROFILE

FILE = "spec.json"

_OF_A_PASS = {"selection", "template", "headers", "options", "attempts", "check", "samples"}
_OF_KUBERNETES = {
    "suspend",
    "ttl_seconds_after_finished",
    "schedule",
    "time_zone",
    "starting_deadline_seconds",
    "planner",
}


def build_specification(job: FaceBlurJob, cluster: FaceBlurCluster) -> Manifest:
    """Return the ConfigMap with the planner's file."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": job_naming.metadata(job, cluster),
        "data": {FILE: json.dumps(specification(job, cluster), indent=1, sort_keys=True)},
    }


def specification(job: FaceBlurJob, cluster: FaceBlurCluster) -> dict[str, Any]:
    """Return the members of a `JobSpec`; what the spec leaves unset is left to the batch."""
    spec = job.spec
    selection = {
        "prefix": spec.selection.prefix,
        "suffixes": spec.selection.suffixes,
        "include": spec.selection.include,
        "exclude": spec.selection.exclude,
        "newer_than": spec.selection.newer_than,
        "min_size": spec.selection.min_bytes,
        "max_size": spec.selection.max_bytes,
    }
    return _without_none(
        {
            "source": spec.source.location,
            "source_profile": _profile(spec.source),
            "destination": spec.destination.location,
            "destination_profile": _profile(spec.destination),
            "selection": _without_none(selection),
            "template": spec.template,
            "headers": spec.headers.model_dump(mode="json"),
            "options": spec.options.model_dump(mode="json", exclude_none=True),
            "page_size": spec.page_size,
            "parallelism": spec.parallelism or most_pages(cluster),
            "attempts": spec.attempts,
            "max_errors": spec.max_errors,
            "max_error_percent": spec.max_error_percent,
            "deadline_seconds": spec.deadline_seconds,
            "check": spec.check,
            "samples": spec.samples,
        }
    )


def most_pages(cluster: FaceBlurCluster) -> int:
    """Pages that the batch workers of a cluster can work on at once when there are as many of them as there can be."""
    batch = _batch_of(cluster)
    fixed = batch.autoscaling.mode is BatchAutoscalingMode.FIXED
    workers = (batch.replicas or 0) if fixed else batch.autoscaling.max_replicas
    return max(1, min(10000, workers * batch.workers.threads))


def pass_digest(job: FaceBlurJob) -> str:
    """Stands for what a pass over the source does: another one does what is done already anew."""
    return compare.digest(job.spec.model_dump(mode="json", include=_OF_A_PASS))


def spec_digest(job: FaceBlurJob) -> str:
    """Stands for all that is asked of the planner, budgets included."""
    return compare.digest(job.spec.model_dump(mode="json", exclude=_OF_KUBERNETES))


def missing_profiles(job: FaceBlurJob, cluster: FaceBlurCluster) -> list[str]:
    """Storage profiles that a job names and the cluster has not."""
    known = {"" if profile.name == DEFAULT_PROFILE else profile.name for profile in _batch_of(cluster).storage}
    return sorted({_profile(place) or DEFAULT_PROFILE for place in _places(job) if _profile(place) not in known})


def _places(job: FaceBlurJob) -> tuple[Place, Place]:
    return job.spec.source, job.spec.destination


def _profile(place: Place) -> str:
    return "" if place.profile == DEFAULT_PROFILE else place.profile


def _batch_of(cluster: FaceBlurCluster) -> Batch:
    assert cluster.spec.batch is not None
    return cluster.spec.batch


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
