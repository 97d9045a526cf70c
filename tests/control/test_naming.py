"""Names and labels of owned objects."""

from __future__ import annotations

import re
from typing import Any

import pytest

from faceblur_operator import naming
from support.clusters import RICH_SPEC, World, cluster


def test_every_name_made_from_the_longest_cluster_name_is_a_dns_label() -> None:
    longest = cluster("a" * naming.MAX_NAME_LENGTH, tls={"issuer": {"name": "ca"}})
    name = longest.name
    names = [
        naming.worker_name(name),
        naming.service_name(name),
        naming.external_service_name(name),
        naming.tls_secret_name(longest) or "",
    ]
    assert max(map(len, names)) == 63
    assert all(re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", name) for name in names)


def test_the_selector_is_never_extended() -> None:
    # A Deployment's selector cannot be changed: with another one, no cluster could be updated any more.
    assert naming.selector_labels(cluster("demo")) == {
        "app.kubernetes.io/name": "faceblur",
        "app.kubernetes.io/instance": "demo",
        "app.kubernetes.io/component": "worker",
    }


def test_the_selector_as_a_string_names_the_same_labels() -> None:
    pairs = [part.split("=", 1) for part in naming.selector(cluster("demo")).split(",")]
    assert dict(pairs) == naming.selector_labels(cluster("demo"))


def test_the_secret_of_a_user_wins_over_the_name_for_cert_manager() -> None:
    assert naming.tls_secret_name(cluster()) is None
    assert naming.tls_secret_name(cluster(tls={"secretName": "mine"})) == "mine"
    assert naming.tls_secret_name(cluster(tls={"issuer": {"name": "ca"}})) == "demo-worker-tls"


@pytest.mark.parametrize("spec", [{}, RICH_SPEC], ids=["empty", "rich"])
def test_every_object_is_owned_by_its_cluster_and_labelled(spec: dict[str, Any]) -> None:
    for manifest in World(**spec).plan().apply:
        metadata = manifest["metadata"]
        assert metadata["namespace"] == "shop"
        assert (
            metadata["labels"].items()
            >= {
                "app.kubernetes.io/name": "faceblur",
                "app.kubernetes.io/instance": "demo",
                "app.kubernetes.io/component": "worker",
                "app.kubernetes.io/part-of": "faceblur",
                "app.kubernetes.io/managed-by": "faceblur-operator",
            }.items()
        )
        assert metadata["ownerReferences"] == [
            {
                "apiVersion": "faceblur.io/v1alpha1",
                "kind": "FaceBlurCluster",
                "name": "demo",
                "uid": "uid-of-demo",
                "controller": True,
            }
        ]
