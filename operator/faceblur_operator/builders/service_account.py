"""Who the pods are: accounts without rights and without a token."""

from __future__ import annotations

from .. import naming
from ..api.v1alpha1 import Batch, FaceBlurCluster
from ..observed import Manifest


def build_service_account(cluster: FaceBlurCluster) -> Manifest:
    """Return the ServiceAccount of the workers. An account of their own keeps them from getting `default`'s rights."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": naming.metadata(cluster, naming.worker_name(cluster.name)),
        "automountServiceAccountToken": False,
    }


def build_batch_service_account(cluster: FaceBlurCluster, batch: Batch) -> Manifest:
    """Return the ServiceAccount of the batch workers.

    Its annotations may stand for rights of a cloud; what exchanges them mounts a token of its own.
    """
    metadata = naming.metadata(
        cluster,
        naming.batch_name(cluster.name),
        naming.BATCH,
        annotations=batch.service_account_annotations,
    )
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata, "automountServiceAccountToken": False}


def build_broker_service_account(cluster: FaceBlurCluster) -> Manifest:
    """Return the ServiceAccount of the embedded broker, which has no business with anybody."""
    metadata = naming.metadata(cluster, naming.broker_name(cluster.name), naming.BROKER)
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata, "automountServiceAccountToken": False}
