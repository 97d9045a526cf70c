"""A small world for decisions about a FaceBlurJob: what is live around it, and a Job controller that obeys."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from faceblur_operator import naming
from faceblur_operator.api.v1alpha1 import FaceBlurCluster
from faceblur_operator.api.v1alpha1_job import FaceBlurJob, FaceBlurJobStatus
from faceblur_operator.job_plan import job_places, job_secrets, make_job_plan
from faceblur_operator.observed import JobObserved, Manifest, Memory, ObjectKey, Plan
from support.clusters import NOON, SETTINGS, cluster_body, condition
from support.copies import copied

BATCH: dict[str, Any] = {
    "broker": {"secretName": "broker"},
    "storage": [{"name": "default", "credentialsSecretName": "store"}, {"name": "archive"}],
    "autoscaling": {"maxReplicas": 6, "mode": "CPU"},
    "workers": {"threads": 3},
}
JOB = ObjectKey("batch/v1", "Job", "photos-planner")
CRON_JOB = ObjectKey("batch/v1", "CronJob", "photos-planner")


def job_body(name: str = "photos", **spec: Any) -> Manifest:
    """A FaceBlurJob as the API server returns it; fields of the spec as users write them."""
    return {
        "apiVersion": "faceblur.io/v1alpha1",
        "kind": "FaceBlurJob",
        "metadata": {"name": name, "namespace": "shop", "uid": f"uid-of-{name}", "generation": 1},
        "spec": {
            "clusterRef": {"name": "demo"},
            "source": {"location": "s3://photos/2026/"},
            "destination": {"location": "s3://blurred/2026/", "profile": "archive"},
            **spec,
        },
    }


def batch_cluster(**spec: Any) -> Manifest:
    """A FaceBlurCluster that is ready and does batches."""
    body = cluster_body(**{"batch": BATCH, **spec})
    ready = condition("Ready", "True", "WorkersReady", "2 of 2 workers answer.", since=NOON)
    return {**body, "status": {"conditions": [ready]}}


def planner_pod(run: Manifest, name: str = "photos-planner-abc", **state: Any) -> Manifest:
    """A planner's pod; `state` is that of its container."""
    return {
        "metadata": {
            "name": name,
            "namespace": "shop",
            "uid": f"uid-of-{name}",
            "creationTimestamp": "2026-05-04T12:00:00Z",
            "ownerReferences": [{"kind": "Job", "name": run["metadata"]["name"], "uid": run["metadata"]["uid"]}],
        },
        "status": {"containerStatuses": [{"name": "planner", "image": "worker:1", "state": state or {"running": {}}}]},
    }


class JobWorld:
    """See the module.

    Attributes:
        body: The FaceBlurJob.
        cluster: The FaceBlurCluster, None where there is none.
        objects: What is live.
        runs: Jobs of the schedule.
        pods: Of planners.
        secrets: Names of those that there are.
        now: The time.
        memory: What the operator remembers.
    """

    def __init__(self, **spec: Any) -> None:
        self.body = job_body(**spec)
        self.cluster: Manifest | None = batch_cluster()
        self.objects: dict[ObjectKey, Manifest] = {}
        self.runs: list[Manifest] = []
        self.pods: list[Manifest] = []
        self.secrets = {"broker", "store"}
        self.now = NOON
        self.memory = Memory()

    @property
    def job(self) -> FaceBlurJob:
        """The FaceBlurJob as the operator reads it."""
        return FaceBlurJob.model_validate(self.body)

    @property
    def run(self) -> Manifest:
        """The live Kubernetes Job."""
        return self.objects[JOB]

    def change(self, **spec: Any) -> None:
        """Change fields of the spec as a user does; None unsets one."""
        wanted = {**self.body["spec"], **spec}
        self.body["spec"] = {name: value for name, value in wanted.items() if value is not None}
        self.body["metadata"]["generation"] += 1

    def plan(self) -> Plan[FaceBlurJobStatus]:
        """What the operator decides now."""
        cluster = FaceBlurCluster.model_validate(self.cluster) if self.cluster else None
        observed = JobObserved(
            job=self.job,
            cluster=cluster,
            objects={place: copied(self.objects[place]) for place in job_places(self.job) if place in self.objects},
            runs=tuple(self.runs),
            pods=tuple(self.pods),
            secrets={name: "1" if name in self.secrets else "" for name in job_secrets(cluster)},
        )
        return make_job_plan(observed, SETTINGS, self.now, self.memory)

    def step(self) -> Plan[FaceBlurJobStatus]:
        """Let the operator decide, and do it."""
        plan = self.plan()
        for manifest in plan.apply:
            place = naming.key_of(manifest)
            was = self.objects.get(place, {"metadata": {}})
            number = len(self.runs) + sum(key.kind == "Job" for key in self.objects)
            metadata = {
                "uid": f"uid-{place.kind}-{number}-{self.now:%H%M%S}",
                "creationTimestamp": self.stamp(),
                **was["metadata"],
                **manifest["metadata"],
            }
            self.objects[place] = {**was, **copied(manifest), "metadata": metadata}
        for place in plan.delete:
            del self.objects[place]
        progress = self.body.get("status", {}).get("progress")
        self.body["status"] = plan.status.model_dump(mode="json", by_alias=True, exclude_none=True)
        if progress:
            self.body["status"]["progress"] = progress
        return plan

    def settle(self) -> Plan[FaceBlurJobStatus]:
        """Let the operator work until it wants nothing any more."""
        for _ in range(6):
            before = copied((self.body, self.objects))
            plan = self.step()
            if (self.body, self.objects) == before:
                assert not plan.apply
                assert not plan.delete
                return plan
        raise AssertionError("there is no end to it")

    def report(self, phase: str, run: Manifest | None = None, **counts: Any) -> None:
        """Say what a planner says."""
        uid = (run or self.run)["metadata"]["uid"]
        self.body.setdefault("status", {})["progress"] = {"run": uid, "phase": phase, **counts}

    def end(self, kind: str = "Complete", run: Manifest | None = None) -> None:
        """Let a Kubernetes Job end."""
        run = run or self.run
        run["status"] = {
            "startTime": self.stamp(-60),
            "conditions": [condition(kind, "True", "PodFailurePolicy" if kind == "Failed" else "", since=self.now)],
            **({"completionTime": self.stamp()} if kind == "Complete" else {}),
        }

    def stamp(self, seconds: float = 0) -> str:
        """A time, as Kubernetes writes it."""
        return (self.now + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")

    def say(self, name: str) -> tuple[str, str]:
        """Status and reason of a condition."""
        for found in self.body["status"]["conditions"]:
            if found["type"] == name:
                return found["status"], found["reason"]
        return "", ""

    def message(self, name: str) -> str:
        """What a condition says."""
        return str(next(c["message"] for c in self.body["status"]["conditions"] if c["type"] == name))


def later(world: JobWorld, seconds: float) -> datetime:
    """Let time pass."""
    world.now += timedelta(seconds=seconds)
    return world.now
