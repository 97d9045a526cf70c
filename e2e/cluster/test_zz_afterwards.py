"""What the whole run has shown: run last, as the file's name makes it."""

from __future__ import annotations

import os
import shlex
import subprocess

import pytest

from support.operator import Operator


def test_the_operator_was_never_denied_anything(operator: Operator) -> None:
    """It runs with the chart's role alone. What ends with a namespace is not denied by a role, and no error."""
    denied = {
        labels: value
        for (name, labels), value in operator.metrics().items()
        if name == "faceblur_operator_errors_total" and dict(labels)["error"] in ("Forbidden", "Unauthorized")
    }
    assert denied == {}


def test_nothing_left_the_cluster() -> None:
    command = os.environ.get("FACEBLUR_EGRESS")
    if not command:
        pytest.skip("FACEBLUR_EGRESS does not name a command that tells what pods sent to the outside")
    done = subprocess.run(shlex.split(command), check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.split("\n", 1)[0] == "0 packets", done.stdout
    assert done.stdout.splitlines()[1:] == [], "a pod asked for a name outside the cluster"
