"""Who the workers are: an account without rights and without a token."""

from __future__ import annotations

from .. import naming
from ..api.v1alpha1 import FaceBlurCluster
from ..observed import Manifest


def build_service_account(cluster: FaceBlurCluster) -> Manifest:
    """Return the ServiceAccount of the workers. An account of their own keeps them from getting `default`'s rights."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": naming.metadata(cluster, naming.worker_name(cluster.name)),
        "automountServiceAccountToken": False,
    }
