"""Who a planner is: an account that may write the progress of its own FaceBlurJob, and nothing else."""

from __future__ import annotations

from .. import job_naming, naming
from ..api.v1alpha1 import GROUP, FaceBlurCluster
from ..api.v1alpha1_job import JOB_PLURAL, FaceBlurJob
from ..observed import Manifest


def build_planner_account(job: FaceBlurJob, cluster: FaceBlurCluster) -> Manifest:
    """Return the ServiceAccount. Its token is mounted by the planner's pod alone, and only there."""
    batch = cluster.spec.batch
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": job_naming.metadata(
            job, cluster, annotations=dict((batch and batch.service_account_annotations) or {})
        ),
        "automountServiceAccountToken": False,
    }


def build_planner_role(job: FaceBlurJob, cluster: FaceBlurCluster) -> Manifest:
    """Return the Role."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": job_naming.metadata(job, cluster),
        "rules": [
            {
                "apiGroups": [GROUP],
                "resources": [f"{JOB_PLURAL}/status"],
                "resourceNames": [job.name],
                "verbs": ["patch"],
            }
        ],
    }


def build_planner_binding(job: FaceBlurJob, cluster: FaceBlurCluster) -> Manifest:
    """Return the RoleBinding."""
    name = naming.planner_name(job.name)
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": job_naming.metadata(job, cluster),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": job.namespace}],
    }
