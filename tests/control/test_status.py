"""What the status says about what is observed."""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

import pytest

from faceblur_operator.api.v1alpha1 import FaceBlurClusterStatus, ModelVersion, ObjectMeta
from faceblur_operator.observed import Memory, ObjectKey, WorkerReport
from faceblur_operator.plan import invalid_status
from support.clusters import (
    CERT_MANAGER,
    IMAGE_ID,
    KEDA,
    MONITORING,
    NOON,
    SETTINGS,
    World,
    condition,
    ended,
    foreign,
    running_pod,
    starting_pod,
    template_of,
    waiting,
)

FIXED: dict[str, Any] = {"replicas": 2, "autoscaling": {"mode": "Fixed"}}
LATER = NOON + timedelta(hours=1)


def running(**spec: Any) -> World:
    """A world in which all workers of a cluster answer."""
    world = World(**spec)
    world.roll_out()
    return world


# Ready.


def test_a_cluster_is_not_ready_before_its_workers_answer() -> None:
    world = World()
    world.step()
    assert world.find("Ready") == ("False", "Pending")
    assert world.find("Progressing") == ("True", "Creating")
    world.settle()
    world.say(2, 2, 1)
    world.settle()
    assert world.find("Ready") == ("False", "WorkersUnavailable")
    assert world.message("Ready") == "1 of 2 workers answer."


def test_a_cluster_is_ready_when_enough_workers_answer() -> None:
    world = running()
    assert world.find("Ready") == ("True", "WorkersReady")
    world.autoscale(5)
    world.say(5, 5, 2)
    world.step()
    assert world.find("Ready") == ("True", "WorkersReady")
    assert world.message("Ready") == "2 of 5 workers answer."
    world.say(7, 2, 7)
    world.step()
    assert world.message("Ready") == "5 of 5 workers answer."


def test_a_fixed_number_of_workers_has_to_answer_in_full() -> None:
    world = running(**FIXED)
    world.say(2, 2, 1)
    world.step()
    assert world.find("Ready") == ("False", "WorkersUnavailable")


def test_the_reason_of_the_workers_is_the_reason_why_the_cluster_is_not_ready() -> None:
    world = World()
    world.settle()
    world.pods = [starting_pod(template=template_of(world), **waiting("ErrImagePull", "no such image"))]
    world.say(2, 2, 0)
    world.step()
    assert world.find("Ready") == ("False", "ImagePullBackOff")
    assert "no such image" in world.message("Ready")


@pytest.mark.parametrize(
    "spec",
    [
        {"replicas": 0, "autoscaling": {"mode": "Fixed"}},
        {"autoscaling": {"mode": "KEDA", "minReplicas": 0, "keda": {"triggers": [{"type": "redis"}]}}},
    ],
)
def test_a_cluster_that_is_scaled_to_zero_is_ready(spec: dict[str, Any]) -> None:
    world = running(**spec)
    assert world.find("Ready") == ("True", "ScaledToZero")
    assert world.find("Progressing") == ("False", "Complete")


def test_a_cluster_that_is_woken_from_zero_is_ready_with_the_first_worker() -> None:
    triggers = [{"type": "redis"}]
    world = running(autoscaling={"mode": "KEDA", "minReplicas": 0, "keda": {"triggers": triggers}})
    world.autoscale(3)
    world.say(3, 3, 0)
    world.step()
    assert world.find("Ready") == ("False", "WorkersUnavailable")
    world.say(3, 3, 1)
    world.step()
    assert world.find("Ready") == ("True", "WorkersReady")


def test_old_workers_keep_the_cluster_ready_while_a_broken_image_is_rolled_out() -> None:
    world = running()
    world.change(image="broken:1")
    world.settle()
    assert world.find("Progressing") == ("True", "RollingOut")
    world.pods.append(starting_pod("demo-worker-x", template_of(world), **waiting("ErrImagePull", "gone")))
    world.say(3, 1, 2)
    world.step()
    assert world.find("Ready") == ("True", "WorkersReady")
    assert world.find("Progressing") == ("True", "RollingOut")
    assert world.find("Degraded") == ("True", "ImagePullBackOff")
    assert "demo-worker-x" in world.message("Degraded")


# Progressing and Degraded.


def test_a_rollout_is_told_from_start_to_end() -> None:
    world = running()
    assert world.find("Progressing") == ("False", "Complete")
    world.change(image="next:1")
    plan = world.step()
    assert (world.find("Progressing"), plan.status.updated_replicas) == (("True", "RollingOut"), 0)
    world.say(3, 1, 2)
    assert world.step().status.updated_replicas == 1
    assert world.message("Progressing") == "1 of 2 workers have the present configuration."
    world.say(3, 2, 2)
    world.step()
    assert world.find("Progressing") == ("True", "RollingOut"), "an old worker is still there"
    world.say(2, 2, 2)
    plan = world.step()
    assert world.find("Progressing") == ("False", "Complete")
    assert [event.reason for event in plan.events] == ["RolledOut"]


def test_a_change_that_the_deployments_controller_has_not_seen_is_under_way() -> None:
    world = running()
    world.deployment["status"]["observedGeneration"] -= 1
    world.step()
    assert world.find("Progressing") == ("True", "RollingOut")


def test_a_change_of_other_objects_is_no_progress_of_workers() -> None:
    world = running()
    world.change(disruptionBudget={"maxUnavailable": 2})
    assert [manifest["kind"] for manifest in world.step().apply] == ["PodDisruptionBudget"]
    assert world.find("Progressing") == ("False", "Complete")


def test_workers_that_are_added_are_waited_for() -> None:
    world = running()
    world.autoscale(3)
    world.say(3, 3, 2)
    world.step()
    assert world.find("Progressing") == ("True", "WaitingForWorkers")


def test_a_rollout_that_takes_too_long_says_so() -> None:
    world = running()
    world.change(image="slow:1")
    world.settle()
    world.say(3, 1, 2, condition("Progressing", "False", "ProgressDeadlineExceeded"))
    world.step()
    assert world.find("Progressing") == ("False", "ProgressDeadlineExceeded")
    assert world.find("Degraded") == ("True", "ProgressDeadlineExceeded")
    assert world.find("Ready") == ("True", "WorkersReady")
    world.pods.append(starting_pod("x", template_of(world), state=ended(2, "why")))
    world.step()
    assert world.find("Degraded") == ("True", "Error"), "the pod's own words say more"


def test_pods_that_may_not_be_created_are_told_in_the_words_of_the_api_server() -> None:
    world = running()
    failure = condition("ReplicaFailure", "True", "FailedCreate", 'pods "x" is forbidden: exceeded quota: small')
    world.say(1, 1, 1, failure)
    world.step()
    assert world.find("Degraded") == ("True", "FailedCreate")
    assert "exceeded quota: small" in world.message("Degraded")
    assert world.find("Ready") == ("False", "FailedCreate")


def test_what_is_wrong_and_over_is_told_as_an_event() -> None:
    world = running()
    world.pods.append(starting_pod("x", template_of(world), state=ended(137, reason="OOMKilled")))
    plan = world.step()
    assert [(event.reason, event.warning) for event in plan.events] == [("OOMKilled", True)]
    world.pods.pop()
    assert [event.reason for event in world.step().events] == ["Recovered"]


def test_an_object_that_was_refused_is_told_until_it_is_taken() -> None:
    world = World(service={"type": "LoadBalancer"})
    key = ObjectKey("v1", "Service", "demo-external")
    world.memory = Memory(refused={key: "spec.loadBalancerClass: may not change once set"})
    plan = world.plan()
    degraded = next(found for found in plan.status.conditions if found.type == "Degraded")
    assert degraded.reason == "ApplyRefused"
    assert degraded.message == ("Service demo-external was refused: spec.loadBalancerClass: may not change once set.")
    external = next(found for found in plan.status.conditions if found.type == "ExternalAccess")
    assert (str(external.status), external.reason) == ("False", "ApplyRefused")
    world.settle()
    assert world.find("Degraded") == ("False", "AsExpected")


def test_workers_keep_the_cluster_ready_while_their_change_is_refused() -> None:
    world = running()
    world.change(image="next:1")
    world.memory = Memory(refused={ObjectKey("apps/v1", "Deployment", "demo-worker"): "spec is wrong"})
    found = {c.type: (str(c.status), c.reason) for c in world.plan().status.conditions}
    assert found["Ready"] == ("True", "WorkersReady")
    assert found["Progressing"] == ("False", "ApplyRefused")
    assert found["Degraded"] == ("True", "ApplyRefused")


def test_a_first_deployment_that_is_refused_is_why_nothing_is_ready() -> None:
    world = World()
    world.memory = Memory(refused={ObjectKey("apps/v1", "Deployment", "demo-worker"): "spec is wrong"})
    (ready,) = (c for c in world.plan().status.conditions if c.type == "Ready")
    assert (str(ready.status), ready.reason) == ("False", "ApplyRefused")
    assert ready.message == "Deployment demo-worker was refused: spec is wrong."


# The numbers and what runs.


def test_the_numbers_are_those_of_the_deployment() -> None:
    world = running()
    world.autoscale(4)
    world.say(4, 4, 3)
    status = world.step().status
    assert (status.replicas, status.ready_replicas, status.updated_replicas, status.desired_replicas) == (4, 3, 4, 4)
    assert status.observed_generation == 1
    assert status.selector == (
        "app.kubernetes.io/component=worker,app.kubernetes.io/instance=demo,app.kubernetes.io/name=faceblur"
    )
    assert status.address == "dns:///demo.shop.svc.cluster.local:50051"


def test_the_status_is_about_the_generation_that_was_seen() -> None:
    world = running()
    world.change(paused=True)
    status = world.step().status
    assert status.observed_generation == 2
    assert {found.observed_generation for found in status.conditions} == {2}


def test_the_image_and_what_it_reports_are_those_of_a_ready_worker_of_the_present_configuration() -> None:
    world = running()
    report = WorkerReport("1.2.3", (ModelVersion(name="centerface", sha256="0" * 64),))
    world.report = report
    status = world.step().status
    assert (status.image, status.image_id) == (SETTINGS.worker_image, IMAGE_ID.rpartition("@")[2])
    assert (status.version, status.models) == (report.version, report.models)
    world.change(image="next:1")
    world.settle()
    newest = running_pod("demo-worker-z", template_of(world))
    newest["spec"]["containers"][0]["image"] = "next:1"
    newest["status"]["containerStatuses"][0]["imageID"] = "sha256:cafe"
    world.pods.append(newest)
    world.report = None
    status = world.step().status
    assert (status.image, status.image_id) == ("next:1", "sha256:cafe")
    assert (status.version, status.models) == ("", ())


def test_what_workers_reported_is_kept_while_the_same_image_runs_and_nobody_was_asked() -> None:
    world = running()
    world.report = WorkerReport("1.2.3", ())
    world.step()
    world.report = None
    assert world.step().status.version == "1.2.3"
    world.pods = []
    assert world.step().status.version == ""


# The parts that can be asked for.


def test_parts_that_are_not_asked_for_have_no_condition() -> None:
    world = running(disruptionBudget={"enabled": False}, networkPolicy={"enabled": False}, **FIXED)
    assert [found.type for found in world.cluster.status.conditions] == ["Ready", "Progressing", "Degraded"]


def test_keda_that_is_not_installed_is_told_until_it_is() -> None:
    world = World(apis=[], autoscaling={"mode": "KEDA", "minReplicas": 3})
    plan = world.step()
    assert world.find("Autoscaling") == ("False", "KEDAMissing")
    assert world.message("Autoscaling") == "KEDA is not installed; the number of workers is 3 until it is."
    assert [(event.reason, event.warning) for event in plan.events] == [("KEDAMissing", True)]
    world.apis = frozenset({KEDA})
    world.settle()
    assert world.find("Autoscaling") == ("Unknown", "Pending")
    world.live("ScaledObject")["status"] = {"conditions": [condition("Ready", "True")]}
    world.step()
    assert world.find("Autoscaling") == ("True", "InPlace")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([], ("Unknown", "Pending")),
        ([condition("Ready", "Unknown")], ("Unknown", "Pending")),
        ([condition("Ready", "False", "TriggerError", "no such trigger")], ("False", "TriggerError")),
        ([condition("Ready", "True")], ("True", "InPlace")),
    ],
)
def test_keda_speaks_for_itself(said: list[Any], expected: tuple[str, str]) -> None:
    world = running(apis=[KEDA], autoscaling={"mode": "KEDA"})
    world.live("ScaledObject")["status"] = {"conditions": said}
    world.step()
    assert world.find("Autoscaling") == expected


NO_METRICS = ("FailedGetContainerResourceMetric", "no metrics returned from resource metrics API")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([], ("Unknown", "Pending")),
        ([condition("AbleToScale", "True")], ("Unknown", "Pending")),
        (
            [condition("AbleToScale", "True"), condition("ScalingActive", "False", *NO_METRICS, since=NOON)],
            ("Unknown", "WaitingForMetrics"),
        ),
        (
            [
                condition("AbleToScale", "True"),
                condition("ScalingActive", "False", *NO_METRICS, since=NOON - timedelta(minutes=3)),
            ],
            ("False", "FailedGetContainerResourceMetric"),
        ),
        ([condition("AbleToScale", "False", "FailedGetScale", "no")], ("False", "FailedGetScale")),
        ([condition("AbleToScale", "True"), condition("ScalingActive", "True")], ("True", "InPlace")),
        (
            [
                condition("AbleToScale", "True"),
                condition("ScalingActive", "True"),
                condition("ScalingLimited", "True", "TooManyReplicas"),
            ],
            ("True", "AtMaximum"),
        ),
        (
            [
                condition("AbleToScale", "True"),
                condition("ScalingActive", "True"),
                condition("ScalingLimited", "True", "TooFewReplicas"),
            ],
            ("True", "InPlace"),
        ),
    ],
)
def test_the_autoscaler_speaks_for_itself(said: list[Any], expected: tuple[str, str]) -> None:
    world = running()
    world.live("HorizontalPodAutoscaler")["status"] = {"conditions": said}
    world.step()
    assert world.find("Autoscaling") == expected


def test_a_secret_that_is_missing_is_named_and_what_it_means_is_told() -> None:
    world = World(tls={"secretName": "workers", "mutual": {"caSecretName": "clients"}})
    world.secrets = {"workers"}
    world.roll_out()
    assert world.find("TLS") == ("False", "SecretMissing")
    assert world.message("TLS") == (
        "Secret clients does not exist; workers that run keep their certificates, new ones wait for it."
    )
    assert world.find("Degraded") == ("True", "SecretMissing")
    assert world.find("Ready") == ("True", "WorkersReady")
    world.secrets = {"clients"}
    world.step()
    assert "Secret workers does not exist" in world.message("TLS")
    world.secrets = {"workers", "clients"}
    assert [event.reason for event in world.step().events] == ["Recovered", "SecretPresent"]
    assert world.find("TLS") == ("True", "SecretPresent")


@pytest.mark.parametrize(
    ("said", "secret", "expected"),
    [
        ([], False, ("Unknown", "Pending")),
        (
            [condition("Issuing", "True"), condition("Ready", "False", "DoesNotExist", "Issuing certificate")],
            False,
            ("Unknown", "Pending"),
        ),
        (
            [condition("Issuing", "False", "Failed"), condition("Ready", "False", "DoesNotExist", "denied")],
            False,
            ("False", "DoesNotExist"),
        ),
        ([condition("Ready", "True")], True, ("True", "InPlace")),
        ([condition("Ready", "True")], False, ("False", "SecretMissing")),
    ],
)
def test_cert_manager_speaks_for_itself(said: list[Any], secret: bool, expected: tuple[str, str]) -> None:
    world = running(tls={"issuer": {"name": "ca"}})
    world.live("Certificate")["status"] = {"conditions": said}
    world.secrets = {"demo-worker-tls"} if secret else set()
    world.step()
    assert world.find("TLS") == expected


def test_cert_manager_that_is_not_installed_is_told() -> None:
    world = running(apis=[KEDA, MONITORING], tls={"issuer": {"name": "ca"}})
    assert world.find("TLS") == ("False", "CertManagerMissing")
    assert world.find("Degraded") == ("True", "CertManagerMissing")
    assert "Certificate" not in world.kinds()


def test_the_prometheus_operator_that_is_not_installed_is_told_and_nothing_else_suffers() -> None:
    world = running(apis=[CERT_MANAGER], metrics={"serviceMonitor": {"enabled": True}})
    assert world.find("Monitoring") == ("False", "PrometheusOperatorMissing")
    assert world.find("Degraded") == ("False", "AsExpected")
    assert "ServiceMonitor" not in world.kinds()
    world.apis = frozenset({MONITORING})
    world.settle()
    assert world.find("Monitoring") == ("True", "InPlace")


@pytest.mark.parametrize(
    ("expected_pods", "desired_healthy", "reason"),
    [(2, 1, "InPlace"), (2, 2, "BlocksDrains"), (0, 0, "InPlace"), (1, 2, "BlocksDrains")],
)
def test_a_budget_that_lets_no_drain_happen_says_so(expected_pods: int, desired_healthy: int, reason: str) -> None:
    world = running()
    budget = world.live("PodDisruptionBudget")
    budget["status"] = {"expectedPods": expected_pods, "desiredHealthy": desired_healthy}
    world.step()
    assert world.find("DisruptionBudget") == ("True", reason)


def test_traces_that_the_network_policy_keeps_inside_are_told() -> None:
    traces = {"traceEndpoint": "http://collector:4317"}
    assert running(workers=traces).find("NetworkPolicy") == ("False", "TracesBlocked")
    way_out: dict[str, Any] = {"egress": [{"to": [{"namespaceSelector": {}}]}]}
    assert running(workers=traces, networkPolicy=way_out).find("NetworkPolicy") == ("True", "InPlace")


@pytest.mark.parametrize(
    ("service", "live", "address"),
    [
        ({"type": "ClusterIP"}, {}, "demo-external.shop.svc.cluster.local:50051"),
        ({"type": "NodePort"}, {"spec": {"ports": [{"nodePort": 30123}]}}, "NODE:30123"),
        ({"type": "LoadBalancer"}, {}, ""),
        ({"type": "LoadBalancer"}, {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}}, "192.0.2.7:50051"),
        (
            {"type": "LoadBalancer"},
            {"status": {"loadBalancer": {"ingress": [{"ip": "2001:db8::7"}]}}},
            "[2001:db8::7]:50051",
        ),
        (
            {"type": "LoadBalancer"},
            {"status": {"loadBalancer": {"ingress": [{"hostname": "lb.example", "ip": "192.0.2.7"}]}}},
            "lb.example:50051",
        ),
    ],
)
def test_the_second_service_tells_its_address(service: dict[str, Any], live: dict[str, Any], address: str) -> None:
    world = World(service=service)
    world.settle()
    external = world.live("Service", "demo-external")
    for part, values in live.items():
        if part == "spec":
            external["spec"]["ports"][0] |= values["ports"][0]
        else:
            external[part] = values
    assert world.step().status.external_address == address
    assert world.find("ExternalAccess") == (("True", "InPlace") if address else ("Unknown", "AddressPending"))


# Names that are taken.


def test_a_deployment_that_belongs_to_nobody_is_in_the_way() -> None:
    world = World()
    world.add(foreign("apps/v1", "Deployment"))
    world.settle()
    for name, status in (("Ready", "False"), ("Progressing", "False"), ("Degraded", "True")):
        assert world.find(name) == (status, "NameTaken")
    assert world.message("Degraded").startswith("Deployment demo-worker does not belong to this cluster")
    assert world.cluster.status.replicas == 0


def test_a_headless_service_of_somebody_else_leaves_callers_without_an_address() -> None:
    world = World()
    world.add(foreign("v1", "Service", "demo"))
    world.roll_out()
    assert world.find("Ready") == ("False", "NameTaken")
    assert world.find("Progressing") == ("False", "Complete")
    assert world.cluster.status.address == "", "pictures must not go there"


def test_an_object_of_an_earlier_cluster_of_the_name_is_told_apart() -> None:
    world = World()
    owner = {"apiVersion": "faceblur.io/v1alpha1", "kind": "FaceBlurCluster", "name": "demo", "uid": "earlier"}
    world.add(foreign("apps/v1", "Deployment", owner=owner))
    world.step()
    assert "belongs to an earlier FaceBlurCluster of this name" in world.message("Degraded")


@pytest.mark.parametrize(
    ("part", "api_version", "kind", "name", "spec"),
    [
        ("Autoscaling", "autoscaling/v2", "HorizontalPodAutoscaler", "demo-worker", {}),
        ("Autoscaling", KEDA, "ScaledObject", "demo-worker", {"autoscaling": {"mode": "KEDA"}}),
        ("TLS", CERT_MANAGER, "Certificate", "demo-worker", {"tls": {"issuer": {"name": "ca"}}}),
        ("Monitoring", MONITORING, "ServiceMonitor", "demo-worker", {"metrics": {"serviceMonitor": {"enabled": True}}}),
        ("DisruptionBudget", "policy/v1", "PodDisruptionBudget", "demo-worker", {}),
        ("NetworkPolicy", "networking.k8s.io/v1", "NetworkPolicy", "demo-worker", {}),
        ("ExternalAccess", "v1", "Service", "demo-external", {"service": {"type": "NodePort"}}),
    ],
)
def test_a_part_whose_name_is_taken_says_so_and_workers_run_all_the_same(
    part: str, api_version: str, kind: str, name: str, spec: dict[str, Any]
) -> None:
    world = World(**spec)
    world.add(foreign(api_version, kind, name))
    world.roll_out()
    assert world.find(part) == ("False", "NameTaken")
    assert world.find("Degraded") == ("True", "NameTaken")
    assert world.find("Ready") == ("True", "WorkersReady")


# Twice the same, and specs that cannot be read.


@pytest.mark.parametrize("broken", [False, True])
def test_the_same_look_an_hour_later_gives_the_same_status(broken: bool) -> None:
    world = running(tls={"secretName": "workers"}, service={"type": "LoadBalancer"})
    if broken:
        world.pods.append(starting_pod("x", state=ended(2, "why")))
        world.say(3, 1, 1)
    first = world.step().status
    later = world.plan(LATER)
    assert later.status == first
    assert later.events == ()


def test_a_spec_that_cannot_be_read_is_told_and_what_was_known_stays() -> None:
    world = running()
    before = world.cluster.status
    metadata = ObjectMeta(name="demo", namespace="shop", generation=7)
    status = invalid_status(metadata, before, "spec.replicas: it has to be a number", LATER)
    reasons = {found.type: (str(found.status), found.reason) for found in status.conditions}
    assert reasons["Ready"] == ("False", "InvalidSpec")
    assert reasons["Degraded"] == ("True", "InvalidSpec")
    assert reasons["NetworkPolicy"] == ("True", "InPlace")
    assert (status.observed_generation, status.replicas) == (7, before.replicas)
    assert invalid_status(metadata, status, "spec.replicas: it has to be a number", LATER) == status
    assert invalid_status(metadata, FaceBlurClusterStatus(), "x", NOON).conditions


def test_a_status_never_changes_the_look_that_it_was_made_from() -> None:
    world = running()
    observed = world.observe()
    before = copy.deepcopy(observed)
    world.plan()
    assert observed == before
