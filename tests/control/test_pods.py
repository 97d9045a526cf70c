"""Why workers do not run, in the words that kubelets of Kubernetes 1.34 used."""

from __future__ import annotations

from typing import Any

import pytest

from faceblur_operator.observed import Manifest
from faceblur_operator.pods import alive, is_ready, last_line, problem_of, worker_status
from support.clusters import ended, running_pod, starting_pod, unschedulable_pod, waiting

IMAGE = "registry.example/faceblur-worker:1.2.3"
CAUSE = f'failed to resolve reference "{IMAGE}": connection refused'
LOG = 'one\n{"level": "error", "message": "cannot start: the certificate is over"}\n'
BACK_OFF = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container=worker"}}


@pytest.mark.parametrize(
    ("pod", "reason", "words"),
    [
        (starting_pod(**waiting("ErrImagePull", CAUSE)), "ImagePullBackOff", f"cannot get image {IMAGE}: {CAUSE}"),
        (
            starting_pod(**waiting("ImagePullBackOff", f'Back-off pulling image "{IMAGE}": ErrImagePull: {CAUSE}')),
            "ImagePullBackOff",
            f"cannot get image {IMAGE}: {CAUSE}",
        ),
        (
            starting_pod(**waiting("ImagePullBackOff", f'Back-off pulling image "{IMAGE}"')),
            "ImagePullBackOff",
            f"cannot get image {IMAGE}.",
        ),
        (
            starting_pod(**waiting("ErrImageNeverPull", "it is not present with pull policy of Never")),
            "ErrImageNeverPull",
            "cannot start its container worker: it is not present with pull policy of Never",
        ),
        (
            starting_pod(**waiting("CreateContainerConfigError", 'secret "nope" not found')),
            "CreateContainerConfigError",
            'cannot start its container worker: secret "nope" not found',
        ),
        (starting_pod(**waiting("InvalidImageName", "invalid reference format")), "InvalidImageName", "invalid ref"),
        (
            starting_pod(state=BACK_OFF, lastState=ended(2, LOG), restartCount=1),
            "CrashLoopBackOff",
            "ended with exit code 2: cannot start: the certificate is over",
        ),
        (starting_pod(state=ended(2, LOG)), "Error", "ended with exit code 2: cannot start: the certificate is over"),
        (starting_pod(state=ended(0, reason="Completed")), "Completed", "ended with exit code 0."),
        (
            starting_pod(state=BACK_OFF, lastState=ended(137, reason="OOMKilled"), restartCount=3),
            "OOMKilled",
            "was killed because it used more memory than its limit of 1Gi.",
        ),
        (
            unschedulable_pod("0/1 nodes are available: 1 Insufficient cpu."),
            "Unschedulable",
            "finds no node: 0/1 nodes are available: 1 Insufficient cpu.",
        ),
    ],
)
def test_a_worker_that_does_not_run_says_why(pod: Manifest, reason: str, words: str) -> None:
    problem = problem_of([pod], "")
    assert problem is not None
    assert problem.reason == reason
    assert words in problem.message
    assert pod["metadata"]["name"] in problem.message


@pytest.mark.parametrize(
    "pod",
    [
        running_pod("a"),
        starting_pod(),
        starting_pod(**waiting("PodInitializing")),
        starting_pod(state={"running": {}}),
        # It was killed long ago and has been well since, but is not ready at the moment.
        starting_pod(state={"running": {}}, lastState=ended(137, reason="OOMKilled"), started=True, restartCount=3),
    ],
)
def test_a_worker_that_runs_or_may_still_be_starting_is_no_problem(pod: Manifest) -> None:
    assert problem_of([pod], "") is None


def test_a_pod_without_any_status_is_no_problem() -> None:
    assert problem_of([{"metadata": {"name": "new"}, "spec": {"containers": []}}], "") is None


@pytest.mark.parametrize(
    ("later", "reason"), [(ended(2, LOG), "CrashLoopBackOff"), ({"running": {}}, "CrashLoopBackOff")]
)
def test_the_reason_stays_while_a_container_goes_in_circles(later: dict[str, Any], reason: str) -> None:
    circling = starting_pod(state=later, lastState=ended(2, LOG), restartCount=2)
    waits = starting_pod(state=BACK_OFF, lastState=ended(2, LOG), restartCount=2)
    assert problem_of([circling], "") == problem_of([waits], "")


def test_pods_that_go_or_are_over_do_not_count() -> None:
    going = starting_pod(**waiting("ErrImagePull"))
    going["metadata"]["deletionTimestamp"] = "2026-05-04T12:00:00Z"
    over = starting_pod("evicted", **waiting("ErrImagePull"))
    over["status"]["phase"] = "Failed"
    assert problem_of([going, over], "") is None
    assert alive([going, over, running_pod("a")]) == [running_pod("a")]


def test_the_present_configuration_comes_first_and_then_the_first_name() -> None:
    old = starting_pod("a", "old", **waiting("ErrImagePull"))
    new = [starting_pod(name, "new", **waiting("InvalidImageName")) for name in ("c", "b")]
    problem = problem_of([old, *new], "new")
    assert problem is not None
    assert problem.message.startswith("Pod b ")


def test_an_init_container_that_is_done_is_no_problem_but_one_that_fails_is() -> None:
    pod = starting_pod()
    status = pod["status"]["containerStatuses"][0]
    pod["status"]["initContainerStatuses"] = [{**status, "name": "mesh", "state": ended(0, reason="Completed")}]
    assert problem_of([pod], "") is None
    pod["status"]["initContainerStatuses"] = [{**status, "name": "mesh", "state": ended(1, "no route")}]
    problem = problem_of([pod], "")
    assert problem is not None
    assert "Container mesh of pod" in problem.message


def test_a_container_that_used_too_much_memory_is_told_its_own_limit() -> None:
    pod = starting_pod(state=ended(137, reason="OOMKilled"))
    pod["spec"]["containers"].insert(0, {"name": "mesh", "resources": {"limits": {"memory": "64Mi"}}})
    problem = problem_of([pod], "")
    assert problem is not None
    assert problem.message.endswith("its limit of 1Gi.")
    pod["spec"]["containers"].pop()
    problem = problem_of([pod], "")
    assert problem is not None
    assert problem.message.endswith("its limit.")


def test_a_pod_is_ready_when_it_says_so() -> None:
    assert is_ready(running_pod("a"))
    assert not is_ready(starting_pod())
    assert not is_ready(unschedulable_pod("no node"))
    assert not is_ready({"metadata": {}, "status": {}})


def test_the_worker_is_found_beside_other_containers() -> None:
    pod = running_pod("a")
    pod["status"]["containerStatuses"].insert(0, {"name": "mesh", "imageID": "x"})
    assert worker_status(pod)["name"] == "worker"
    assert worker_status(unschedulable_pod("no node")) == {}


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("", ""),
        ("one\ntwo\n\n", "two"),
        ('{"message": "why", "traceback": "x"}', "why"),
        ('{"other": 1}', '{"other": 1}'),
        ("[1]", "[1]"),
        ("{broken", "{broken"),
        ("x" * 600, "x" * 500),
    ],
)
def test_the_last_line_of_a_log_is_what_it_says(log: str, line: str) -> None:
    assert last_line(log) == line
