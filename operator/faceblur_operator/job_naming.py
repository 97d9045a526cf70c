"""Names and labels of everything that belongs to a FaceBlurJob; what it shares with clusters is in `naming`."""

from __future__ import annotations

from typing import Any

from . import naming
from .api.v1alpha1 import API_VERSION, GROUP, FaceBlurCluster
from .api.v1alpha1_job import JOB_KIND, FaceBlurJob

JOB_LABEL = f"{GROUP}/job"
# What a Kubernetes Job was made for, so that one that has ended is only made anew when something else is asked for.
SPEC_ANNOTATION = f"{GROUP}/spec"
PASS_ANNOTATION = f"{GROUP}/pass"

# The Jobs of a CronJob are called like it, and eleven characters more, and their names are values of labels.
MAX_NAME_LENGTH = 63 - 11 - len(naming.planner_name(""))
NAME_PATTERN = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"


def labels(job: FaceBlurJob, cluster: FaceBlurCluster) -> dict[str, str]:
    """Labels of every object of a job. By those of the cluster its policies find the planners."""
    return {**naming.labels(cluster, naming.PLANNER), JOB_LABEL: job.name}


def selector(job: FaceBlurJob) -> str:
    """What selects the pods and runs of a job, as the API takes it."""
    return f"{naming.COMPONENT_LABEL}={naming.PLANNER},{JOB_LABEL}={job.name}"


def metadata(
    job: FaceBlurJob, cluster: FaceBlurCluster, *, annotations: dict[str, str] | None = None
) -> dict[str, Any]:
    """Metadata of an object of a job; about the owner reference see `naming.metadata`."""
    return {
        "name": naming.planner_name(job.name),
        "namespace": job.namespace,
        "labels": labels(job, cluster),
        **({"annotations": annotations} if annotations else {}),
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": JOB_KIND,
                "name": job.name,
                "uid": job.metadata.uid,
                "controller": True,
            }
        ],
    }
