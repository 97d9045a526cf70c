"""FaceBlurJobs through the reconciler and through the whole operator."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from faceblur_operator.handlers import Handlers, owner_of, watched_kinds
from faceblur_operator.kinds import ClusterKind, JobKind
from faceblur_operator.metrics import Metrics
from faceblur_operator.observed import Key, Manifest, ObjectKey, WorkerReport
from faceblur_operator.reconciler import Reconciler
from faceblur_operator.rounds import JOBS
from faceblur_operator.watches import Watches
from faceblur_operator.workers import Reports
from support.api_server import ApiServer, api_server
from support.clusters import NOON, SETTINGS
from support.eventual import eventually_async
from support.fake_kube import CLUSTER, FakeKube
from support.job_world import BATCH, JOB, batch_cluster, job_body
from support.running_operator import at_rest, cluster_manifest, roll_out, running_operator

KEY = Key("FaceBlurJob", "shop", "photos")
RESOURCE = ObjectKey("faceblur.io/v1alpha1", "FaceBlurJob", "photos")
DEMO = Key("FaceBlurCluster", "shop", "demo")
OWNED = ("serviceaccounts", "roles", "rolebindings", "configmaps", "jobs")


async def no_answer(address: str) -> WorkerReport | None:
    return None


class Setup:
    """A reconciler with a clock that tests turn."""

    def __init__(self, cluster: Manifest | None = None, **spec: Any) -> None:
        self.now = NOON
        self.kube = FakeKube()
        self.kube.secrets |= {"broker", "store"}
        self.kube.put(cluster or batch_cluster())
        self.kube.put(job_body(**spec))
        self.metrics = Metrics()
        self.added: list[Key] = []
        self.reconciler = Reconciler(
            self.kube,
            (ClusterKind(self.kube, SETTINGS, Reports(no_answer)), JobKind(self.kube, SETTINGS)),
            watches=Watches(),
            metrics=self.metrics,
            now=lambda: self.now,
        )
        self.reconciler.changed = self.added.append

    async def settle(self) -> None:
        for _ in range(6):
            self.kube.log.clear()
            assert await self.reconciler.reconcile(KEY) is None
            if not self.kube.writes():
                return
        raise AssertionError(f"there is no end to it: {self.kube.writes()}")

    def finish(self) -> None:
        stamp = self.now.strftime("%Y-%m-%dT%H:%M:%SZ")
        run = self.kube.objects[JOB]
        run["status"] = {"completionTime": stamp, "conditions": [{"type": "Complete", "status": "True"}]}

    def report(self, **progress: Any) -> None:
        """Write what a planner writes."""
        uid = self.kube.objects[JOB]["metadata"]["uid"]
        self.kube.objects[RESOURCE]["status"]["progress"] = {"run": uid, **progress}


async def test_everything_is_written_once_and_then_nothing_and_progress_is_left_to_the_planner() -> None:
    setup = Setup()
    await setup.reconciler.reconcile(KEY)
    assert setup.kube.writes() == [
        *(f"apply {kind}" for kind in ("ServiceAccount", "Role", "RoleBinding", "ConfigMap", "Job")),
        "status FaceBlurJob",
    ]
    await setup.settle()
    setup.report(phase="running", done=4)
    await setup.settle()
    setup.report(phase="running", done=5)
    setup.kube.log.clear()
    await setup.reconciler.reconcile(KEY)
    assert not setup.kube.writes()
    assert setup.kube.objects[RESOURCE]["status"]["progress"]["done"] == 5
    assert setup.metrics.conditions[KEY]["Progressing"] == "True"


async def test_a_job_is_looked_at_again_when_its_cluster_becomes_ready_changes_or_goes() -> None:
    setup = Setup({**batch_cluster(), "status": {}})
    await setup.settle()
    assert JOB not in setup.kube.objects
    setup.kube.objects[CLUSTER]["status"] = batch_cluster()["status"]
    for change in (None, {"paused": True}):
        if change:
            setup.kube.change(**change)
        setup.added.clear()
        await setup.reconciler.reconcile(DEMO)
        assert setup.added == [KEY]
        await setup.reconciler.reconcile(DEMO)
        setup.added.clear()
        await setup.reconciler.reconcile(DEMO)
        assert setup.added == [], "nothing has changed for it"
    del setup.kube.objects[CLUSTER]
    await setup.reconciler.reconcile(DEMO)
    assert setup.added == [KEY]


async def test_a_finished_job_is_deleted_after_its_time_without_any_write_before() -> None:
    setup = Setup(ttlSecondsAfterFinished=60)
    await setup.settle()
    setup.finish()
    await setup.settle()
    again = setup.reconciler.known[KEY].again
    assert again is not None
    setup.kube.log.clear()
    setup.now += timedelta(seconds=59)
    await setup.reconciler.reconcile(KEY)
    assert not setup.kube.writes()
    setup.now += timedelta(seconds=1)
    await setup.reconciler.reconcile(KEY)
    assert setup.kube.writes() == ["delete FaceBlurJob"]
    assert setup.metrics.writes.labels("FaceBlurJob", "delete")._value.get() == 1


async def test_a_spec_that_this_version_cannot_read_is_a_condition_and_its_planner_goes_on() -> None:
    setup = Setup()
    await setup.settle()
    setup.kube.objects[RESOURCE]["spec"]["source"] = "s3://photos/"
    setup.kube.log.clear()
    await setup.reconciler.reconcile(KEY)
    assert setup.kube.writes() == ["status FaceBlurJob"]
    found = {c["type"]: c for c in setup.kube.objects[RESOURCE]["status"]["conditions"]}
    assert (found["Degraded"]["status"], found["Degraded"]["reason"]) == ("True", "InvalidSpec")


@pytest.mark.parametrize(
    ("labels", "owner", "key"),
    [
        ({"faceblur.io/job": "photos", "app.kubernetes.io/instance": "demo"}, "Job", KEY),
        ({"app.kubernetes.io/instance": "demo"}, "ReplicaSet", DEMO),
        ({}, "ReplicaSet", None),
    ],
)
def test_a_pod_is_of_the_job_or_the_cluster_that_its_labels_name(
    labels: dict[str, str], owner: str, key: Key | None
) -> None:
    reference = {"apiVersion": "batch/v1", "kind": owner, "name": "x"}
    assert owner_of({"namespace": "shop", "labels": labels, "ownerReferences": [reference]}) == key


async def test_what_a_planner_counts_is_no_reason_to_look_but_another_phase_is() -> None:
    added: list[Key] = []
    handlers = Handlers(Watches(), added.append)
    body = job_body()
    for version, progress in enumerate(
        ({"phase": "running", "done": 1}, {"phase": "running", "done": 2}, {"phase": "completed", "done": 2})
    ):
        body = {**body, "status": {"progress": progress}}
        body["metadata"] = {**body["metadata"], "resourceVersion": str(version)}
        await handlers.on_job_changed({"type": "MODIFIED", "object": body})  # type: ignore[typeddict-item,arg-type]
    assert added == [KEY, KEY]


def job_manifest(**spec: Any) -> Manifest:
    body = job_body(**spec)
    body["metadata"] = {"name": "photos", "namespace": "shop"}
    return body


def phase(server: ApiServer) -> str:
    return str((server.get("faceblurjobs", "photos") or {}).get("status", {}).get("phase", ""))


def exist(server: ApiServer) -> bool:
    return all(server.get(resource, "photos-planner") for resource in OWNED)


async def serve_batches(server: ApiServer) -> None:
    """Put a cluster there that does batches, and let its workers be ready."""
    for name in ("broker", "store"):
        await server.put({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "shop"}})
    await server.put(cluster_manifest(batch={**BATCH, "storage": [*BATCH["storage"]]}))
    await eventually_async(lambda: server.get("deployments", "demo-worker"))
    await roll_out(server)


async def test_a_job_comes_with_its_cluster_is_repaired_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with api_server() as server, running_operator(server, tmp_path, monkeypatch):
        await server.put(job_manifest())
        await eventually_async(lambda: phase(server) == "Pending")
        await serve_batches(server)
        await eventually_async(lambda: exist(server))
        await at_rest(server)
        written = len(server.writes())
        await server.remove("roles", "photos-planner")
        await eventually_async(lambda: exist(server))

        def end(run: Manifest) -> None:
            run["status"] = {
                "completionTime": "2026-05-04T12:00:00Z",
                "conditions": [{"type": "Complete", "status": "True"}],
            }

        def report(job: Manifest) -> None:
            run = (server.get("jobs", "photos-planner") or {})["metadata"]["uid"]
            job["status"]["progress"] = {"run": run, "phase": "running", "done": 3}

        await server.edit("faceblurjobs", "photos", report)
        await eventually_async(lambda: phase(server) == "Running")
        await server.edit("jobs", "photos-planner", end)
        await eventually_async(lambda: phase(server) == "Completed")
        statuses = [call.body["status"] for call in server.calls if call.resource == "faceblurjobs/status"]
        assert not any("progress" in status for status in statuses), "that is the planner's alone"
        await at_rest(server)
        assert len(server.writes()) <= written + 4
        await server.remove("faceblurjobs", "photos")
        rounds = server.discoveries
        await eventually_async(lambda: server.discoveries > rounds + 3)
        assert not any(server.get(resource, "photos-planner") for resource in OWNED)


async def test_clusters_are_served_where_the_kind_of_jobs_is_not_installed_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with api_server() as server:
        both = server.kinds["faceblur.io/v1alpha1"]
        server.kinds["faceblur.io/v1alpha1"] = {"faceblurclusters": "FaceBlurCluster"}
        async with running_operator(server, tmp_path, monkeypatch):
            await serve_batches(server)
            await at_rest(server)
            assert not [call for call in server.calls if call.resource in ("faceblurjobs", "jobs")]
            server.kinds["faceblur.io/v1alpha1"] = both
            await server.put(job_manifest())
            await eventually_async(lambda: exist(server))
            await eventually_async(lambda: server.streams() == 2 + len(watched_kinds({JOBS})))


def test_the_second_kind_is_told_by_its_plural() -> None:
    assert JOBS == "faceblur.io/v1alpha1/faceblurjobs"
