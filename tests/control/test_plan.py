"""What is written for a cluster, and above all what is not."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faceblur_operator import compare, naming
from faceblur_operator.observed import Manifest, Memory, ObjectKey, Plan
from faceblur_operator.plan import OPTIONAL_APIS, make_plan, places, secrets
from support.clusters import (
    CERT_MANAGER,
    KEDA,
    MONITORING,
    NOON,
    RICH_SPEC,
    SETTINGS,
    World,
    foreign,
    starting_pod,
    waiting,
)
from support.pod_security import violations

DEPLOYMENT = ObjectKey("apps/v1", "Deployment", "demo-worker")
AUTOSCALER = ObjectKey("autoscaling/v2", "HorizontalPodAutoscaler", "demo-worker")
SCALED_OBJECT = ObjectKey(KEDA, "ScaledObject", "demo-worker")
FIXED: dict[str, Any] = {"replicas": 2, "autoscaling": {"mode": "Fixed"}}
ON_KEDA: dict[str, Any] = {"autoscaling": {"mode": "KEDA"}}
EVERYTHING: dict[str, Any] = {
    "tls": {"issuer": {"name": "ca"}},
    "service": {"type": "ClusterIP"},
    "metrics": {"serviceMonitor": {"enabled": True}},
}


def settled(**spec: Any) -> World:
    """A world in which all is as the spec says."""
    world = World(**spec)
    world.roll_out()
    return world


def applied(plan: Plan) -> list[tuple[str, str]]:
    return [(manifest["kind"], manifest["metadata"]["name"]) for manifest in plan.apply]


def deployment_of(plan: Plan) -> Manifest:
    return next(manifest for manifest in plan.apply if manifest["kind"] == "Deployment")


# What is there in the end, and that there is an end.


def test_a_new_cluster_gets_its_objects_in_an_order_in_which_each_finds_what_it_needs() -> None:
    assert applied(World(**EVERYTHING).plan()) == [
        ("ServiceAccount", "demo-worker"),
        ("NetworkPolicy", "demo-worker"),
        ("Certificate", "demo-worker"),
        ("Service", "demo"),
        ("Service", "demo-external"),
        ("Deployment", "demo-worker"),
        ("PodDisruptionBudget", "demo-worker"),
        ("HorizontalPodAutoscaler", "demo-worker"),
        ("ServiceMonitor", "demo-worker"),
    ]


@pytest.mark.parametrize("spec", [{}, FIXED, ON_KEDA, EVERYTHING, RICH_SPEC], ids=lambda spec: ",".join(spec)[:30])
def test_a_second_reconcile_writes_nothing_and_says_the_same(spec: dict[str, Any]) -> None:
    world = settled(**spec)
    first = world.plan()
    assert (first.apply, first.delete, first.keep_replicas, first.events) == ((), (), (), ())
    assert world.plan(NOON + timedelta(minutes=1)) == first


def test_a_new_cluster_is_complete_after_two_reconciles() -> None:
    world = World()
    world.step()
    world.step()
    plan = world.step()
    assert (plan.apply, plan.keep_replicas) == ((), ())


def test_places_cover_all_that_a_plan_wants() -> None:
    for spec in ({}, EVERYTHING, {**EVERYTHING, **ON_KEDA}):
        world = World(**spec)
        wanted = {naming.key_of(manifest) for manifest in world.plan().apply}
        assert wanted <= set(places(world.cluster))


def test_secrets_are_those_of_the_workers_and_of_their_callers() -> None:
    assert secrets(World().cluster) == ()
    assert secrets(World(tls=RICH_SPEC["tls"]).cluster) == ("workers", "clients")
    assert secrets(World(tls={"issuer": {"name": "ca"}}).cluster) == ("demo-worker-tls",)


def test_optional_kinds_are_only_written_where_they_are() -> None:
    world = World(apis=(), **EVERYTHING, **ON_KEDA)
    assert not {manifest["apiVersion"] for manifest in world.plan().apply} & OPTIONAL_APIS


@pytest.mark.parametrize(
    ("before", "change", "gone"),
    [
        ({}, {"disruptionBudget": {"enabled": False}}, {"PodDisruptionBudget"}),
        ({}, {"networkPolicy": {"enabled": False}}, {"NetworkPolicy"}),
        ({}, FIXED, {"HorizontalPodAutoscaler"}),
        (ON_KEDA, FIXED, {"ScaledObject"}),
        (EVERYTHING, {"tls": None}, {"Certificate"}),
        (EVERYTHING, {"tls": {"secretName": "mine"}}, {"Certificate"}),
        (EVERYTHING, {"metrics": None}, {"ServiceMonitor"}),
    ],
)
def test_what_a_spec_no_longer_asks_for_is_deleted(
    before: dict[str, Any], change: dict[str, Any], gone: set[str]
) -> None:
    world = settled(**before)
    kinds = world.kinds()
    world.change(**change)
    world.settle()
    assert kinds - world.kinds() == gone


def test_the_second_service_goes_and_the_headless_one_stays() -> None:
    world = settled(service={"type": "NodePort"})
    world.change(service=None)
    assert world.step().delete == (ObjectKey("v1", "Service", "demo-external"),)
    assert world.live("Service", "demo")


def test_an_object_that_is_going_already_is_not_deleted_again() -> None:
    world = settled()
    world.live("PodDisruptionBudget")["metadata"]["deletionTimestamp"] = "2026-05-04T12:00:00Z"
    world.change(disruptionBudget={"enabled": False})
    assert world.plan().delete == ()


# Drift.


@pytest.mark.parametrize(
    ("kind", "name", "path", "value"),
    [
        ("Deployment", "demo-worker", ("spec", "template", "spec", "containers", 0, "image"), "evil:1"),
        ("Deployment", "demo-worker", ("spec", "template", "spec", "containers", 0, "env", 0, "value"), "x"),
        ("Deployment", "demo-worker", ("spec", "template", "spec", "automountServiceAccountToken"), True),
        ("Deployment", "demo-worker", ("spec", "template", "spec", "containers", 0, "securityContext"), {}),
        ("Deployment", "demo-worker", ("metadata", "labels"), {}),
        ("Service", "demo", ("spec", "selector"), {"app": "evil"}),
        ("Service", "demo", ("spec", "ports", 0, "targetPort"), 1),
        ("NetworkPolicy", "demo-worker", ("spec", "ingress", 0, "from"), [{"ipBlock": {"cidr": "0.0.0.0/0"}}]),
        ("NetworkPolicy", "demo-worker", ("spec", "ingress", 0, "from", 0, "podSelector"), {"matchLabels": {"a": "b"}}),
        ("NetworkPolicy", "demo-worker", ("spec", "policyTypes"), ["Ingress"]),
        ("PodDisruptionBudget", "demo-worker", ("spec", "maxUnavailable"), "100%"),
        ("HorizontalPodAutoscaler", "demo-worker", ("spec", "maxReplicas"), 100),
        ("ServiceAccount", "demo-worker", ("automountServiceAccountToken",), True),
        ("ServiceAccount", "demo-worker", ("metadata", "annotations"), {}),
    ],
)
def test_a_hand_edited_object_is_put_right_and_nothing_else_is_touched(
    kind: str, name: str, path: tuple[Any, ...], value: Any
) -> None:
    world = settled()
    target = world.live(kind, name)
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = value
    assert applied(world.step()) == [(kind, name)]
    assert applied(world.plan()) == []


def test_a_field_that_a_spec_no_longer_asks_for_is_withdrawn() -> None:
    world = settled(autoscaling={"behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}})
    world.change(autoscaling={})
    assert applied(world.step()) == [("HorizontalPodAutoscaler", "demo-worker")]
    assert "behavior" not in world.live("HorizontalPodAutoscaler")["spec"]


def test_an_object_that_was_deleted_comes_back() -> None:
    world = settled()
    del world.objects[ObjectKey("v1", "Service", "demo")]
    assert applied(world.plan()) == [("Service", "demo")]


def test_what_others_add_is_left_alone() -> None:
    world = settled()
    world.deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "7"
    world.deployment["spec"]["template"]["spec"]["schedulerName"] = "default-scheduler"
    world.live("Service", "demo")["spec"]["ipFamilies"] = ["IPv4"]
    assert applied(world.plan()) == []


def test_a_difference_that_the_api_server_insists_on_is_not_repaired_for_ever() -> None:
    world = settled(podTemplate={"volumeMounts": [{"name": "tmp", "mountPath": "/cache", "readOnly": False}]})
    mounts = world.deployment["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    del mounts[1]["readOnly"]  # as a real one does
    (manifest,) = world.plan().apply
    world.memory = Memory(accepted={DEPLOYMENT: compare.residue(world.deployment, manifest)})
    assert applied(world.plan()) == []
    assert world.step().status.updated_replicas == 2
    mounts[1]["mountPath"] = "/elsewhere"
    assert applied(world.plan()) == [("Deployment", "demo-worker")]


# Replicas.


def test_the_first_workers_are_as_many_as_the_autoscaler_keeps_at_least() -> None:
    assert deployment_of(World(autoscaling={"minReplicas": 3}).plan())["spec"]["replicas"] == 3


def test_replicas_are_handed_over_before_they_are_left_out() -> None:
    world = World()
    world.step()
    plan = world.step()
    (kept,) = plan.keep_replicas
    assert kept["spec"] == {"replicas": 2}
    assert kept["metadata"] == {"name": "demo-worker", "namespace": "shop", "uid": world.deployment["metadata"]["uid"]}
    assert "replicas" not in deployment_of(plan)["spec"]
    assert world.deployment["spec"]["replicas"] == 2


@pytest.mark.parametrize("spec", [{}, ON_KEDA])
def test_what_an_autoscaler_decided_survives_every_change(spec: dict[str, Any]) -> None:
    world = settled(**spec)
    world.autoscale(7)
    for change in ({"image": "next:1"}, {"redaction": {"cells": 3}}, {"paused": True}, {"paused": None}):
        world.change(**change)
        plan = world.step()
        assert plan.keep_replicas == ()
        assert all("replicas" not in manifest.get("spec", {}) for manifest in plan.apply)
    assert world.deployment["spec"]["replicas"] == 7
    assert world.step().status.desired_replicas == 7


def test_a_fixed_number_is_applied_and_restored() -> None:
    world = settled(**FIXED)
    world.autoscale(9)
    world.settle()
    assert world.deployment["spec"]["replicas"] == 2
    world.change(replicas=0)
    world.settle()
    assert world.deployment["spec"]["replicas"] == 0


def test_an_autoscaler_takes_over_from_a_fixed_number_where_that_is() -> None:
    world = settled(replicas=5, autoscaling={"mode": "Fixed"})
    world.change(replicas=None, autoscaling={"mode": "CPU"})
    world.settle()
    assert world.deployment["spec"]["replicas"] == 5
    assert AUTOSCALER in world.objects


@pytest.mark.parametrize(("fixed", "taken_over"), [(0, 2), (1, 2), (50, 10)])
def test_an_autoscaler_starts_within_its_bounds(fixed: int, taken_over: int) -> None:
    # A HorizontalPodAutoscaler leaves a Deployment without replicas alone for ever.
    world = settled(replicas=fixed, autoscaling={"mode": "Fixed"})
    world.change(replicas=None, autoscaling={"mode": "CPU"})
    world.settle()
    assert world.deployment["spec"]["replicas"] == taken_over


def test_workers_that_were_scaled_to_zero_by_hand_come_back() -> None:
    world = settled()
    world.autoscale(0)
    world.settle()
    assert world.deployment["spec"]["replicas"] == 2


def test_keda_scales_to_zero_without_being_disturbed() -> None:
    world = settled(autoscaling={"mode": "KEDA", "minReplicas": 0, "keda": {"triggers": [{"type": "redis"}]}})
    for count in (0, 4, 0):
        world.autoscale(count)
        assert applied(world.step()) == []
        assert world.deployment["spec"]["replicas"] == count


@pytest.mark.parametrize(("least", "workers"), [(3, 3), (0, 1)])
def test_without_keda_the_least_number_of_workers_is_fixed(least: int, workers: int) -> None:
    keda = {"triggers": [{"type": "redis"}]}
    world = settled(apis=[], autoscaling={"mode": "KEDA", "minReplicas": least, "keda": keda})
    assert world.deployment["spec"]["replicas"] == workers
    assert not {SCALED_OBJECT, AUTOSCALER} & world.objects.keys()
    world.apis = frozenset({KEDA})
    world.settle()
    assert world.deployment["spec"]["replicas"] == workers
    assert SCALED_OBJECT in world.objects


@pytest.mark.parametrize(
    ("before", "after", "old", "new"),
    [("CPU", "KEDA", AUTOSCALER, SCALED_OBJECT), ("KEDA", "CPU", SCALED_OBJECT, AUTOSCALER)],
)
def test_one_autoscaler_goes_before_the_other_comes(before: str, after: str, old: ObjectKey, new: ObjectKey) -> None:
    world = settled(autoscaling={"mode": before})
    world.autoscale(6)
    world.change(autoscaling={"mode": after})
    plan = world.step()
    assert plan.delete == (old,)
    assert new not in world.objects
    plan = world.step()
    assert applied(plan) == [(new.kind, new.name)]
    assert world.deployment["spec"]["replicas"] == 6


# Names that are taken.


@pytest.mark.parametrize("place", places(World().cluster), ids=lambda place: f"{place.kind}-{place.name}")
@pytest.mark.parametrize("spec", [{}, {**EVERYTHING, **ON_KEDA}], ids=["empty", "everything"])
def test_an_object_of_somebody_else_is_never_touched(place: ObjectKey, spec: dict[str, Any]) -> None:
    world = World(**spec)
    world.add(foreign(place.api_version, place.kind, place.name))
    wanted = {naming.key_of(manifest) for manifest in World(**spec).plan().apply}
    plan = world.plan()
    written = {naming.key_of(manifest) for manifest in (*plan.apply, *plan.keep_replicas)} | set(plan.delete)
    assert place not in written
    scalers = {AUTOSCALER, SCALED_OBJECT} if place == DEPLOYMENT else set()
    assert written == wanted - {place} - scalers, "the rest goes on"
    degraded = next(found for found in plan.status.conditions if found.type == "Degraded")
    assert (degraded.reason == "NameTaken") is (place in wanted)
    assert (f"{place.kind} {place.name}" in degraded.message) is (place in wanted)


def test_an_autoscaler_never_scales_a_deployment_of_somebody_else() -> None:
    world = settled()
    world.add(foreign("apps/v1", "Deployment"))
    plan = world.plan()
    assert AUTOSCALER in plan.delete
    assert applied(plan) == []


def test_a_name_that_becomes_free_is_used() -> None:
    world = World()
    world.add(foreign("v1", "Service", "demo"))
    world.settle()
    del world.objects[ObjectKey("v1", "Service", "demo")]
    assert applied(world.step()) == [("Service", "demo")]


# Pause.


def test_nothing_is_written_for_a_paused_cluster_but_its_status() -> None:
    world = settled()
    world.change(paused=True, image="next:1", disruptionBudget={"enabled": False})
    del world.objects[AUTOSCALER]
    plan = world.step()
    assert (plan.apply, plan.delete, plan.keep_replicas) == ((), (), ())
    assert world.find("Paused") == ("True", "Paused")
    assert world.find("Progressing") == ("False", "Paused")
    assert world.find("Ready") == ("True", "WorkersReady")
    assert [event.reason for event in plan.events] == ["Paused"]
    world.pods = [starting_pod(**waiting("ErrImagePull"))]
    world.say(2, 2, 1)
    world.step()
    assert world.find("Ready") == ("False", "ImagePullBackOff")
    world.change(paused=None)
    plan = world.step()
    assert "Resumed" in [event.reason for event in plan.events]
    assert {kind for kind, _ in applied(plan)} == {"Deployment", "HorizontalPodAutoscaler"}
    assert world.find("Paused") is None


def test_a_cluster_that_is_paused_from_the_start_is_left_empty() -> None:
    world = World(paused=True)
    assert world.step().apply == ()
    assert world.find("Ready") == ("False", "Pending")


# Everything that can be asked for.

_PEER = {"namespaceSelector": {"matchLabels": {"team": "press"}}}
_SCALING = st.one_of(
    st.builds(
        lambda low, more: {"autoscaling": {"mode": "CPU", "minReplicas": low, "maxReplicas": low + more}},
        st.integers(1, 5),
        st.integers(0, 5),
    ),
    st.builds(lambda count: {"replicas": count, "autoscaling": {"mode": "Fixed"}}, st.integers(0, 5)),
    st.builds(
        lambda low: {"autoscaling": {"mode": "KEDA", "minReplicas": low, "keda": {"triggers": [{"type": "redis"}]}}},
        st.integers(0, 3),
    ),
)
_OPTIONAL = {
    "image": st.just("mine:1"),
    "detection": st.fixed_dictionaries({}, optional={"minScore": st.floats(0, 1), "minFace": st.floats(0, 1000)}),
    "redaction": st.sampled_from([RICH_SPEC["redaction"], {"margin": {"top": 0.1}}, {"feather": 0.5}]),
    "metadata": st.sampled_from([{"keep": []}, {"keep": ["gps", "icc"]}]),
    "workers": st.sampled_from(
        [RICH_SPEC["workers"], {"threads": 3}, {"resources": {"requests": {}, "limits": {"cpu": 2}}}]
    ),
    "tls": st.sampled_from([RICH_SPEC["tls"], {"secretName": "a"}, {"issuer": {"name": "ca"}}]),
    "scheduling": st.sampled_from([RICH_SPEC["scheduling"], {"topologySpreadConstraints": []}]),
    "disruptionBudget": st.sampled_from([{"enabled": False}, {"minAvailable": 1}, {"maxUnavailable": "50%"}]),
    "networkPolicy": st.sampled_from([{"enabled": False}, {"callers": [_PEER]}, RICH_SPEC["networkPolicy"]]),
    "service": st.sampled_from([{"type": kind} for kind in ("Headless", "ClusterIP", "NodePort", "LoadBalancer")]),
    "podTemplate": st.sampled_from([RICH_SPEC["podTemplate"], {"labels": {"app.kubernetes.io/instance": "evil"}}]),
    "metrics": st.sampled_from([RICH_SPEC["metrics"], {}]),
}
SPECS = st.builds(lambda parts, scaling: {**parts, **scaling}, st.fixed_dictionaries({}, optional=_OPTIONAL), _SCALING)
APIS = st.sets(st.sampled_from([KEDA, CERT_MANAGER, MONITORING]))


@given(SPECS, APIS)
@settings(max_examples=60)
def test_every_spec_gives_objects_that_hold_together(spec: dict[str, Any], apis: set[str]) -> None:
    world = World(apis=apis, **spec)
    plan = world.step()
    assert json.loads(json.dumps(plan.apply)) == list(plan.apply), "what is applied is JSON"
    template = world.deployment["spec"]["template"]
    assert violations(template["spec"]) == []
    selector = naming.selector_labels(world.cluster)
    assert world.deployment["spec"]["selector"]["matchLabels"] == selector
    assert template["metadata"]["labels"].items() >= selector.items()
    for kind, path in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
        if kind in world.kinds():
            assert world.live(kind)["spec"][path] == {"matchLabels": selector}
    volumes = {volume["name"] for volume in template["spec"]["volumes"]}
    assert {mount["name"] for mount in template["spec"]["containers"][0]["volumeMounts"]} <= volumes


@given(SPECS, SPECS, APIS)
@settings(max_examples=60)
def test_every_change_of_a_spec_comes_to_an_end_and_leaves_what_a_new_cluster_would_have(
    before: dict[str, Any], after: dict[str, Any], apis: set[str]
) -> None:
    world, fresh = World(apis=apis, **before), World(apis=apis, **after)
    world.settle()
    world.body["spec"] = after
    plan = world.settle()
    fresh.settle()
    assert world.objects.keys() == fresh.objects.keys()
    for key, live in world.objects.items():
        assert compare.contains(live.get("spec", {}), _without_replicas(fresh.objects[key].get("spec", {})))
    assert world.plan(NOON + timedelta(hours=1)) == replace(plan, events=())


def _without_replicas(spec: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in spec.items() if name != "replicas"}


def test_a_plan_does_not_change_what_it_was_made_from() -> None:
    world = settled()
    observed = world.observe()
    before = json.dumps(list(observed.objects.values()), sort_keys=True)
    world.change(image="x")
    make_plan(observed, SETTINGS, NOON)
    assert json.dumps(list(observed.objects.values()), sort_keys=True) == before
