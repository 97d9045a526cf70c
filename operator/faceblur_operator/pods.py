"""Says why workers do not run, in the pods' own words, from nothing but the pods' status."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from . import naming
from .observed import Manifest

_STARTING = ("", "ContainerCreating", "PodInitializing")
_LONGEST_LINE = 500


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something is not as it should be.

    Attributes:
        reason: One word for programs.
        message: A sentence for people.
    """

    reason: str
    message: str


def of(component: str, pods: Iterable[Manifest]) -> list[Manifest]:
    """Return the pods of a component."""
    return [pod for pod in pods if (pod["metadata"].get("labels") or {}).get(naming.COMPONENT_LABEL) == component]


def alive(pods: Iterable[Manifest]) -> list[Manifest]:
    """Return the pods that count, by name: neither ended nor told to go."""
    return sorted(
        (
            pod
            for pod in pods
            if not pod["metadata"].get("deletionTimestamp")
            and pod.get("status", {}).get("phase") not in ("Failed", "Succeeded")
        ),
        key=lambda pod: str(pod["metadata"]["name"]),
    )


def is_ready(pod: Manifest) -> bool:
    """Whether a pod answers."""
    return any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in pod.get("status", {}).get("conditions") or ()
    )


def is_of(pod: Manifest, template: str) -> bool:
    """Whether a pod was made from the template with this digest."""
    return (pod["metadata"].get("annotations") or {}).get(naming.TEMPLATE_ANNOTATION) == template


def problem_of(pods: Iterable[Manifest], template: str) -> Problem | None:
    """Return why a worker does not run; None where all run or may still be starting.

    One problem is enough: workers of one configuration mostly fail for the same reason.

    Args:
        pods: Of the cluster's workers.
        template: Digest of the present configuration, whose pods come first.
    """
    for pod in sorted(alive(pods), key=lambda pod: not is_of(pod, template)):
        for problem in _problems(pod):
            return problem
    return None


def waits(pod: Manifest) -> Problem | None:
    """Return why a pod does not start; None where it runs, has ended, or may still be starting."""
    return next((problem for problem in _problems(pod, ended=False)), None)


def ended(pod: Manifest, container: str) -> tuple[int, str] | None:
    """Return the exit code of a container and its last words; None while it has not ended for good."""
    for status in pod.get("status", {}).get("containerStatuses") or ():
        last = (status.get("state") or {}).get("terminated")
        if status["name"] == container and last:
            killed = f"it used more memory than its limit{_limit(pod, container)}"
            said = killed if last.get("reason") == "OOMKilled" else last_line(last.get("message") or "")
            return int(last.get("exitCode") or 0), said or last.get("reason") or ""
    return None


def worker_status(pod: Manifest) -> Mapping[str, Any]:
    """Return the status of the worker's container; empty before it has one."""
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    return next((status for status in statuses if status["name"] == naming.WORKER), {})


def _problems(pod: Manifest, *, ended: bool = True) -> Iterator[Problem]:
    name = pod["metadata"]["name"]
    status = pod.get("status", {})
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            yield Problem("Unschedulable", f"Pod {name} finds no node: {condition.get('message', '')}")
    for kind in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(kind) or ():
            problem = _waits(container, name)
            if ended and not problem:
                problem = _crashed(container, pod, may_end=kind == "initContainerStatuses")
            if problem:
                yield problem


def _waits(container: Mapping[str, Any], pod: str) -> Problem | None:
    waiting = container.get("state", {}).get("waiting") or {}
    reason, message = waiting.get("reason") or "", waiting.get("message") or ""
    if reason in _STARTING or reason == "CrashLoopBackOff":
        return None
    if reason in ("ErrImagePull", "ImagePullBackOff"):  # the same trouble, told in turns
        cause = message.removeprefix(f'Back-off pulling image "{container.get("image")}"').removeprefix(": ")
        text = f"Pod {pod} cannot get image {container.get('image')}"
        return Problem("ImagePullBackOff", _sentence(text, cause.removeprefix("ErrImagePull: ")))
    return Problem(reason, _sentence(f"Pod {pod} cannot start its container {container['name']}", message))


def _crashed(container: Mapping[str, Any], pod: Manifest, *, may_end: bool) -> Problem | None:
    """A container that ended and did not come up since.

    The reason must not change while a container goes in circles between running, ended and waiting.
    """
    state = container.get("state", {})
    last = state.get("terminated") or (container.get("lastState") or {}).get("terminated")
    if not last or ("running" in state and container.get("started")):
        return None
    if may_end and state.get("terminated") and last.get("exitCode") == 0:
        return None
    name, kind = pod["metadata"]["name"], container["name"]
    if last.get("reason") == "OOMKilled":
        return Problem(
            "OOMKilled",
            f"Container {kind} of pod {name} was killed because it used more memory than its limit{_limit(pod, kind)}.",
        )
    again = (state.get("waiting") or {}).get("reason") == "CrashLoopBackOff" or container.get("restartCount", 0) >= 2
    text = f"Container {kind} of pod {name} ended with exit code {last.get('exitCode')}"
    return Problem(
        "CrashLoopBackOff" if again else last.get("reason") or "Error",
        _sentence(text, last_line(last.get("message") or "")),
    )


def _limit(pod: Manifest, container: str) -> str:
    for spec in pod.get("spec", {}).get("containers") or ():
        memory = ((spec.get("resources") or {}).get("limits") or {}).get("memory")
        if spec["name"] == container and memory:
            return f" of {memory}"
    return ""


def last_line(log: str) -> str:
    """Return what the last line of a log says; of a JSON line only its message."""
    line = next((line.strip() for line in reversed(log.splitlines()) if line.strip()), "")
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    if isinstance(record, dict) and isinstance(record.get("message"), str):
        line = record["message"]
    return line[:_LONGEST_LINE]


def _sentence(text: str, cause: str) -> str:
    return f"{text}: {cause}" if cause else f"{text}."
