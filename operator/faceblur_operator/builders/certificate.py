"""Asks cert-manager for the workers' certificate."""

from __future__ import annotations

from .. import naming
from ..api.v1alpha1 import FaceBlurCluster, IssuerRef
from ..observed import Manifest


def build_certificate(cluster: FaceBlurCluster, issuer: IssuerRef, *, cluster_domain: str) -> Manifest:
    """Return the Certificate, for every name by which callers in the cluster may dial the workers.

    Args:
        cluster: Whose workers.
        issuer: Who signs.
        cluster_domain: DNS domain of the Kubernetes cluster, such as ``cluster.local``.
    """
    hosts = [naming.host(cluster)]
    if cluster.spec.service.type != "Headless":
        hosts.append(naming.external_host(cluster))
    names = []
    for host in hosts:
        service, namespace, _ = host.split(".")
        names += [service, f"{service}.{namespace}", host, f"{host}.{cluster_domain}"]
    return {
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        "metadata": naming.metadata(cluster, naming.worker_name(cluster.name)),
        "spec": {
            "secretName": naming.tls_secret_name(cluster),
            "secretTemplate": {"labels": naming.labels(cluster)},
            "dnsNames": names,
            "usages": ["digital signature", "server auth"],
            "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
            "issuerRef": issuer.model_dump(mode="json", by_alias=True),
        },
    }
