"""The guard of these tests: what it lets through, and what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.cluster import WrongContextError, checked_context


@pytest.mark.parametrize("context", ["kind-faceblur", "kind-1", "faceblur-e2e"])
def test_a_cluster_made_for_tests_is_used(tmp_path: Path, context: str) -> None:
    (tmp_path / "config").write_text(f"current-context: {context}\n")
    assert checked_context(tmp_path / "config") == context


@pytest.mark.parametrize("context", ["production", "kind-", "my-kind-1", "faceblur-e2e-2", "arn:aws:eks:x", "", "null"])
def test_any_other_cluster_is_refused(tmp_path: Path, context: str) -> None:
    (tmp_path / "config").write_text(f"current-context: {context}\n")
    with pytest.raises(WrongContextError, match="only run where it is called kind-"):
        checked_context(tmp_path / "config")


def test_a_missing_kubeconfig_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongContextError, match="no kubeconfig"):
        checked_context(tmp_path / "config")
