"""The planner itself: a Kubernetes Job, or the CronJob that makes one for each run."""

from __future__ import annotations

from typing import Any

from .. import compare, job_naming, naming
from ..api.v1alpha1 import FaceBlurCluster
from ..api.v1alpha1_job import FaceBlurJob
from ..observed import Manifest
from .batch_environment import build_batch_environment
from .planner_specification import FILE, pass_digest, spec_digest
from .pod import CONTAINER, HOME, HOME_MOUNT, HOME_VOLUME, POD, placement

# A planner that is told to go writes its mark first, then a report of how far it is.
_GRACE_SECONDS = 60
# With pauses of up to ten minutes in between: most of a day.
_TRIES = 100

_SPEC_FOLDER = "/etc/faceblur/job"
_API_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
_TOKEN_SECONDS = 3600
_JOB_UID = "metadata.labels['batch.kubernetes.io/controller-uid']"


def build_planner_job(
    job: FaceBlurJob, cluster: FaceBlurCluster, *, default_image: str, cluster_domain: str
) -> Manifest:
    """Return the Job of a FaceBlurJob without a schedule.

    Args:
        job: Whose planner.
        cluster: Whose workers it calls.
        default_image: Used where the cluster's spec names none.
        cluster_domain: DNS domain of the Kubernetes cluster.
    """
    # A pass that is complete is not begun again by a planner that is started again; what was stopped goes on, since
    # whoever wants it to stay so has not asked for another start.
    arguments = ["--resume", f"--token={job.metadata.uid}.{pass_digest(job)}"]
    spec = _job(job, _template(job, cluster, arguments, default_image, cluster_domain))
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": job_naming.metadata(job, cluster, annotations=_asked_for(job)),
        "spec": {"suspend": job.spec.suspend, **spec},
    }


def build_planner_cron_job(
    job: FaceBlurJob, cluster: FaceBlurCluster, *, default_image: str, cluster_domain: str
) -> Manifest:
    """Return the CronJob of a FaceBlurJob with a schedule. Every run is a pass of its own; see `build_planner_job`."""
    spec = job.spec
    arguments = [f"--token={job.metadata.uid}.$(FACEBLUR_JOB_RUN)"]
    optional = {"timeZone": spec.time_zone, "startingDeadlineSeconds": spec.starting_deadline_seconds}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": job_naming.metadata(job, cluster),
        "spec": {
            "schedule": spec.schedule,
            "concurrencyPolicy": "Forbid",
            "suspend": spec.suspend,
            "successfulJobsHistoryLimit": 1,
            "failedJobsHistoryLimit": 1,
            "jobTemplate": {
                "metadata": {"labels": job_naming.labels(job, cluster), "annotations": _asked_for(job)},
                "spec": _job(job, _template(job, cluster, arguments, default_image, cluster_domain)),
            },
            **{name: value for name, value in optional.items() if value is not None},
        },
    }


def _asked_for(job: FaceBlurJob) -> dict[str, str]:
    return {job_naming.PASS_ANNOTATION: pass_digest(job), job_naming.SPEC_ANNOTATION: spec_digest(job)}


def _job(job: FaceBlurJob, template: dict[str, Any]) -> dict[str, Any]:
    return {
        "parallelism": 1,
        "completions": 1,
        "backoffLimit": _TRIES,
        # The next planner begins when the last one has ended, so that its mark cannot be taken for a new one.
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {
            # See `faceblur_batch.plan` about its exit codes.
            "rules": [
                {
                    "action": "FailJob",
                    "onExitCodes": {"containerName": naming.PLANNER, "operator": "In", "values": [2, 3]},
                },
                {"action": "Ignore", "onExitCodes": {"containerName": naming.PLANNER, "operator": "In", "values": [4]}},
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            ]
        },
        "template": template,
    }


def _template(
    job: FaceBlurJob, cluster: FaceBlurCluster, arguments: list[str], default_image: str, cluster_domain: str
) -> dict[str, Any]:
    batch = cluster.spec.batch
    assert batch is not None
    labels = job_naming.labels(job, cluster)
    access = build_batch_environment(cluster, cluster_domain=cluster_domain)
    container = {
        "name": naming.PLANNER,
        "image": cluster.spec.image or default_image,
        "imagePullPolicy": cluster.spec.image_pull_policy.value,
        "command": ["python", "-m", "faceblur_batch.plan"],
        "args": ["--accept-errors", *arguments, f"{_SPEC_FOLDER}/{FILE}"],
        "env": [{"name": "HOME", "value": HOME}, *access.env, *_identity(job)],
        "resources": {
            kind: amounts for kind, amounts in job.spec.planner.resources.model_dump(mode="json").items() if amounts
        },
        **CONTAINER,
        "volumeMounts": [
            HOME_MOUNT,
            {"name": "job", "mountPath": _SPEC_FOLDER, "readOnly": True},
            {"name": "api", "mountPath": _API_FOLDER, "readOnly": True},
            *access.mounts,
        ],
    }
    template: dict[str, Any] = {
        "metadata": {
            "labels": {**(batch.pod_labels or {}), **labels},
            # A planner reads its file once, so another one takes another planner.
            "annotations": {**(batch.pod_annotations or {}), **_asked_for(job)},
        },
        "spec": {
            **POD,
            "serviceAccountName": naming.planner_name(job.name),
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": _GRACE_SECONDS,
            "containers": [container],
            "volumes": [
                HOME_VOLUME,
                {"name": "job", "configMap": {"name": naming.planner_name(job.name), "defaultMode": 0o444}},
                {"name": "api", "projected": {"defaultMode": 0o440, "sources": _credentials()}},
                *access.volumes,
            ],
            **placement(cluster.spec, batch.scheduling, labels, spread=False),
        },
    }
    template["metadata"]["annotations"][naming.TEMPLATE_ANNOTATION] = compare.digest(template)
    return template


def _identity(job: FaceBlurJob) -> list[dict[str, Any]]:
    """What the planner writes its progress to, and as which run."""
    return [
        {"name": "FACEBLUR_JOB_NAMESPACE", "value": job.namespace},
        {"name": "FACEBLUR_JOB_NAME", "value": job.name},
        {"name": "FACEBLUR_JOB_UID", "value": job.metadata.uid},
        {"name": "FACEBLUR_JOB_RUN", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": _JOB_UID}}},
    ]


def _credentials() -> list[dict[str, Any]]:
    """The files that every client of the API server looks for; the kubelet renews the token."""
    return [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": _TOKEN_SECONDS}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
    ]
