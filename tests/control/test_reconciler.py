"""A reconcile: what is read, what is written, in which order, and what happens when the API server does not want it."""

from __future__ import annotations

from typing import Any

import pytest

from faceblur_operator.kinds import ClusterKind
from faceblur_operator.kube import Conflict, Forbidden, KubeError, NotFound, Refused, Terminating, Unreachable
from faceblur_operator.metrics import Metrics
from faceblur_operator.observed import Key, Manifest, ObjectKey, WorkerReport
from faceblur_operator.plan import OPTIONAL_APIS
from faceblur_operator.reconciler import Reconciler, log_context
from faceblur_operator.watches import Watches
from faceblur_operator.workers import Reports
from support.clusters import NOON, SETTINGS, foreign, running_pod
from support.fake_kube import CLUSTER, FakeKube

KEY = Key("FaceBlurCluster", "shop", "demo")
DEPLOYMENT = ObjectKey("apps/v1", "Deployment", "demo-worker")
AUTOSCALER = ObjectKey("autoscaling/v2", "HorizontalPodAutoscaler", "demo-worker")


async def no_answer(address: str) -> WorkerReport | None:
    return None


def make(
    kube: FakeKube, ask: Any = no_answer, watches: Watches | None = None, metrics: Metrics | None = None
) -> Reconciler:
    return Reconciler(
        kube,
        [ClusterKind(kube, SETTINGS, Reports(ask))],
        watches=watches or Watches(),
        metrics=metrics or Metrics(),
        now=lambda: NOON,
    )


def error(kind: type[KubeError], message: str = "so be it", **more: Any) -> KubeError:
    return kind("do it", 400, "Because", message, **more)


def condition(kube: FakeKube, name: str) -> Manifest:
    return next(found for found in kube.cluster["status"]["conditions"] if found["type"] == name)


async def settle(reconciler: Reconciler, kube: FakeKube) -> None:
    for _ in range(5):
        kube.log.clear()
        assert await reconciler.reconcile(KEY) is None
        if not kube.writes():
            return
    raise AssertionError(f"there is no end to it: {kube.writes()}")


async def test_everything_is_written_once_and_then_nothing() -> None:
    kube = FakeKube()
    reconciler = make(kube)
    assert await reconciler.reconcile(KEY) is None
    assert kube.writes()[:2] == ["apply ServiceAccount", "apply NetworkPolicy"]
    assert kube.writes()[-1] == "status FaceBlurCluster"
    await settle(reconciler, kube)
    assert kube.cluster["status"]["observedGeneration"] == kube.cluster["metadata"]["generation"]


async def test_a_cluster_that_is_gone_or_going_is_left_alone_and_forgotten() -> None:
    kube = FakeKube()
    reconciler = make(kube)
    await settle(reconciler, kube)
    kube.cluster["metadata"]["deletionTimestamp"] = "2026-05-04T12:00:00Z"
    kube.objects.pop(DEPLOYMENT)
    kube.log.clear()
    assert await reconciler.reconcile(KEY) is None
    assert kube.log == ["get FaceBlurCluster"]
    assert reconciler.known == {}
    del kube.objects[CLUSTER]
    assert await reconciler.reconcile(KEY) is None
    assert not kube.writes()


async def test_drift_is_repaired_and_what_the_spec_no_longer_wants_is_deleted() -> None:
    kube = FakeKube()
    reconciler = make(kube)
    await settle(reconciler, kube)
    kube.objects[DEPLOYMENT]["spec"]["template"]["spec"]["containers"][0]["image"] = "evil"
    kube.change(networkPolicy={"enabled": False})
    kube.log.clear()
    await reconciler.reconcile(KEY)
    assert kube.writes()[:2] == ["apply Deployment", "delete NetworkPolicy"]
    assert kube.objects[DEPLOYMENT]["spec"]["template"]["spec"]["containers"][0]["image"] == SETTINGS.worker_image


async def test_what_is_logged_meanwhile_names_the_cluster_and_what_is_logged_later_does_not() -> None:
    kube = FakeKube()
    seen: list[dict[str, str]] = []

    def meddle(manifest: Manifest) -> None:
        seen.append(log_context())

    kube.meddle = meddle
    await make(kube).reconcile(KEY)
    assert seen[0] == {"namespace": "shop", "cluster": "demo"}
    assert log_context() == {}


async def test_what_the_api_server_insists_on_is_not_written_again_and_again() -> None:
    kube = FakeKube()

    def meddle(manifest: Manifest) -> None:
        if manifest["kind"] == "Deployment":
            manifest["spec"]["template"]["spec"]["containers"][0]["image"] = "mirror.example/it"

    kube.meddle = meddle
    reconciler = make(kube)
    await settle(reconciler, kube)
    kube.objects[DEPLOYMENT]["spec"]["template"]["spec"]["containers"][0]["image"] = "another"
    await reconciler.reconcile(KEY)
    assert kube.writes()[0] == "apply Deployment"


async def test_replicas_are_handed_over_before_they_are_dropped_even_if_an_autoscaler_was_faster() -> None:
    kube = FakeKube()
    kube.failures["keep Deployment"] = error(Conflict)
    reconciler = make(kube)
    await reconciler.reconcile(KEY)
    kube.log.clear()
    assert await reconciler.reconcile(KEY) is None
    assert kube.writes()[:2] == ["keep Deployment", "apply Deployment"]


@pytest.mark.parametrize("kind", [Refused, Forbidden, NotFound, Conflict])
async def test_an_object_that_is_refused_is_a_condition_and_keeps_no_other_from_being_written(
    kind: type[KubeError],
) -> None:
    kube = FakeKube()
    kube.failures["apply PodDisruptionBudget"] = error(kind, "exceeded quota: objects")
    reconciler = make(kube)
    assert await reconciler.reconcile(KEY) is not None
    assert AUTOSCALER in kube.objects
    assert "exceeded quota: objects" in condition(kube, "Degraded")["message"]
    kube.failures.clear()
    await settle(reconciler, kube)
    assert condition(kube, "Degraded")["status"] == "False"


async def test_a_namespace_on_its_way_out_ends_the_reconcile_without_an_error_or_another_try() -> None:
    kube = FakeKube()
    kube.failures["apply NetworkPolicy"] = error(Terminating)
    kube.failures["event Ready"] = error(Terminating)
    reconciler = make(kube)
    assert await reconciler.reconcile(KEY) is None
    assert AUTOSCALER not in kube.objects


async def test_nothing_is_deleted_while_something_is_refused() -> None:
    kube = FakeKube()
    reconciler = make(kube)
    await settle(reconciler, kube)
    kube.change(networkPolicy={"enabled": False}, workers={"logLevel": "debug"})
    kube.failures["apply Deployment"] = error(Refused)
    kube.log.clear()
    assert await reconciler.reconcile(KEY) is not None
    assert "delete NetworkPolicy" not in kube.log
    kube.failures.clear()
    await reconciler.reconcile(KEY)
    assert "delete NetworkPolicy" in kube.log


async def test_an_api_server_that_cannot_be_reached_ends_the_reconcile_at_once() -> None:
    kube = FakeKube()
    kube.failures["apply NetworkPolicy"] = error(Unreachable, retry_after=7)
    reconciler = make(kube)
    assert await reconciler.reconcile(KEY) == 7
    assert kube.log[-1] == "apply NetworkPolicy"


async def test_a_right_that_is_missing_is_told_once_in_an_event() -> None:
    kube = FakeKube()
    kube.failures["get Deployment"] = error(Forbidden, "cannot get deployments")
    reconciler = make(kube)
    for _ in range(3):
        assert await reconciler.reconcile(KEY) is not None
    assert [(event.reason, event.warning) for event in kube.events] == [("ReconcileFailed", True)]
    assert "cannot get deployments" in kube.events[0].message


async def test_a_spec_that_cannot_be_read_is_a_condition_and_the_workers_stay_as_they_are() -> None:
    kube = FakeKube()
    reconciler = make(kube)
    await settle(reconciler, kube)
    kube.change(detection={"profile": "sparkles"})
    kube.log.clear()
    assert await reconciler.reconcile(KEY) is None
    assert kube.writes() == ["status FaceBlurCluster"]
    assert condition(kube, "Degraded")["reason"] == "InvalidSpec"
    assert "spec.detection.profile" in condition(kube, "Degraded")["message"]
    kube.log.clear()
    await reconciler.reconcile(KEY)
    assert not kube.writes()


async def test_a_status_that_somebody_has_broken_is_written_anew() -> None:
    kube = FakeKube()
    reconciler = make(kube)
    await settle(reconciler, kube)
    kube.cluster["status"]["replicas"] = "many"
    kube.log.clear()
    await reconciler.reconcile(KEY)
    assert "status FaceBlurCluster" in kube.writes()
    assert kube.cluster["status"]["replicas"] == 0


async def test_a_name_that_is_taken_is_never_touched() -> None:
    kube = FakeKube()
    taken = foreign("apps/v1", "Deployment")
    taken["metadata"]["resourceVersion"] = "1"
    kube.objects[DEPLOYMENT] = taken
    await make(kube).reconcile(KEY)
    assert "apply Deployment" not in kube.log
    assert condition(kube, "Degraded")["status"] == "True"


async def test_optional_kinds_are_only_asked_for_where_they_are() -> None:
    kube = FakeKube(autoscaling={"mode": "KEDA"})
    reconciler = make(kube)
    await reconciler.reconcile(KEY)
    assert "get ScaledObject" not in kube.log
    reconciler.apis = OPTIONAL_APIS | {"faceblur.io/v1alpha1"}
    await reconciler.reconcile(KEY)
    assert "get ScaledObject" in kube.log
    await settle(reconciler, kube)
    assert ObjectKey("keda.sh/v1alpha1", "ScaledObject", "demo-worker") in kube.objects


async def test_an_event_that_cannot_be_written_harms_nothing() -> None:
    kube = FakeKube(autoscaling={"minReplicas": 1})
    reconciler = make(kube)
    await settle(reconciler, kube)
    template = kube.objects[DEPLOYMENT]["spec"]["template"]["metadata"]["annotations"]
    pod = running_pod("demo-worker-a", next(iter(template.values())))
    pod["metadata"] |= {"resourceVersion": "1", "creationTimestamp": "2026-05-04T11:00:00Z"}
    kube.running = [pod]
    kube.objects[DEPLOYMENT]["status"] = {
        "observedGeneration": kube.objects[DEPLOYMENT]["metadata"]["generation"],
        **dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 1),
    }
    kube.objects[DEPLOYMENT]["spec"]["replicas"] = 1
    kube.failures["event Ready"] = error(Forbidden)
    assert await reconciler.reconcile(KEY) is None
    assert condition(kube, "Ready")["status"] == "True"
    assert "event Ready" in kube.log


async def test_a_look_is_remembered_so_that_its_own_echo_is_no_news() -> None:
    kube = FakeKube()
    watches = Watches()
    reconciler = make(kube, watches=watches)
    await settle(reconciler, kube)
    for place, live in kube.objects.items():
        metadata = live["metadata"]
        assert not watches.told(KEY, place.kind, metadata["uid"], metadata["resourceVersion"])
    assert watches.told(KEY, CLUSTER.kind, kube.cluster["metadata"]["uid"], "9999")


async def test_conditions_are_counted_and_a_cluster_that_is_gone_is_not() -> None:
    kube = FakeKube()
    metrics = Metrics()
    reconciler = make(kube, metrics=metrics)
    await settle(reconciler, kube)
    labels = {"condition": "Ready", "status": "False"}
    assert metrics.registry.get_sample_value("faceblur_operator_cluster_conditions", labels) == 1
    del kube.objects[CLUSTER]
    await reconciler.reconcile(KEY)
    assert metrics.registry.get_sample_value("faceblur_operator_clusters") == 0
    assert metrics.registry.get_sample_value("faceblur_operator_reconciles_total", {"result": "gone"}) == 1


async def test_a_defect_ends_nothing_but_this_reconcile(caplog: pytest.LogCaptureFixture) -> None:
    kube = FakeKube()
    kube.cluster["metadata"].pop("uid")
    assert await make(kube).reconcile(KEY) == 0
    assert "by a defect" in caplog.text
