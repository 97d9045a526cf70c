"""Manifests: what the workers are told, what they may, and who reaches them."""

from __future__ import annotations

import os
from typing import Any

import pytest

from faceblur_engine.types import Keep, Limits, Margin, Method, Options, Profile, Shape
from faceblur_operator.api.v1alpha1 import Resources
from faceblur_operator.builders.worker_deployment import build_worker_deployment
from faceblur_operator.builders.worker_environment import PREFIX, whole_cores, worker_environment
from faceblur_operator.observed import Manifest
from faceblur_worker.config import WorkerSettings
from faceblur_worker.server import LIVENESS, READINESS
from support.clusters import CERT_MANAGER, KEDA, RICH_SPEC, World, cluster
from support.pod_security import violations


def built(kind: str, name: str = "demo-worker", **spec: Any) -> Manifest:
    """A manifest as a new cluster gets it."""
    found = {(m["kind"], m["metadata"]["name"]): m for m in World(**spec).plan().apply}
    return found[kind, name]


def pod_spec(**spec: Any) -> dict[str, Any]:
    return dict(built("Deployment", **spec)["spec"]["template"]["spec"])


def container(**spec: Any) -> dict[str, Any]:
    return dict(pod_spec(**spec)["containers"][0])


def loaded(monkeypatch: pytest.MonkeyPatch, **spec: Any) -> WorkerSettings:
    """The settings of a worker that gets the environment of a spec."""
    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)
    for name, value in worker_environment(cluster(**spec)).items():
        monkeypatch.setenv(name, value)
    return WorkerSettings()


# What the workers are told.


@pytest.mark.parametrize("spec", [{}, RICH_SPEC], ids=["empty", "rich"])
def test_every_variable_is_a_setting_of_the_worker(spec: dict[str, Any]) -> None:
    known = {PREFIX + name.upper() for name in WorkerSettings.model_fields}
    assert worker_environment(cluster(**spec)).keys() <= known


def test_every_setting_that_a_spec_can_have_reaches_the_worker() -> None:
    settings = {name.removeprefix(PREFIX).lower() for name in worker_environment(cluster(**RICH_SPEC))}
    left_to_the_worker = {
        "runtime",
        "max_streams",
        "max_stream_in_flight",
        "max_calls_per_connection",
        "transfer_seconds",
        "stuck_seconds",
        "keepalive_seconds",
        "max_connection_age_grace_seconds",
    }
    assert settings == WorkerSettings.model_fields.keys() - left_to_the_worker


def test_an_empty_spec_gives_the_options_that_a_worker_has_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    assert loaded(monkeypatch).default_options() == WorkerSettings.model_construct().default_options()


def test_a_rich_spec_gives_the_options_that_it_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = loaded(monkeypatch, **RICH_SPEC)
    assert settings.default_options() == Options(
        profile=Profile.THOROUGH,
        method=Method.MOSAIC,
        cells=5,
        shape=Shape.ROUNDED,
        margin=Margin(sides=0.2, top=0.3, bottom=0.4, pixels=3),
        feather=0,
        min_score=0.35,
        min_face=12.5,
        max_face=900,
        verify=True,
        keep=frozenset({Keep.ICC, Keep.CAPTURE_TIME}),
        limits=Limits(max_bytes=1000000, max_width=5000, max_height=4000, max_pixels=20000000, max_scans=20),
    )
    assert settings.profiles == (Profile.THOROUGH, Profile.FAST)
    assert settings.allowed_identities == ("press", "hr office")
    assert (settings.settle_seconds, settings.grace_seconds, settings.max_connection_age_seconds) == (3, 40, 45)
    assert (settings.max_waiting, settings.max_message_bytes, settings.max_bytes_in_flight) == (8, 2000000, 9000000)
    assert (settings.log_level, settings.trace_endpoint) == ("debug", "http://collector.tracing:4317")


def test_no_metadata_is_kept_where_the_list_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    assert loaded(monkeypatch, metadata={"keep": []}).keep == frozenset()


def test_one_part_of_a_margin_leaves_the_others_to_the_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = loaded(monkeypatch, redaction={"margin": {"pixels": 0}})
    assert (settings.margin_pixels, settings.margin_sides) == (0, None)


@pytest.mark.parametrize(
    ("resources", "cores"),
    [
        ({"requests": {"cpu": "2"}, "limits": {"cpu": "1500m"}}, 2),
        ({"requests": {"cpu": "100m"}, "limits": {}}, 1),
        ({"requests": {"cpu": 3}, "limits": {}}, 3),
        ({"requests": {"cpu": "2001m"}, "limits": {"memory": "1Gi"}}, 3),
        ({"requests": {"cpu": 0}, "limits": {}}, 1),
        ({"requests": {}, "limits": {}}, None),
    ],
)
def test_a_worker_has_a_thread_for_each_core_that_is_its_own(resources: dict[str, Any], cores: int | None) -> None:
    assert whole_cores(Resources.model_validate(resources)) == cores
    settings = worker_environment(cluster(workers={"resources": resources}))
    assert settings.get("FACEBLUR_WORKER_THREADS") == (None if cores is None else str(cores))


def test_threads_that_the_spec_names_win() -> None:
    assert worker_environment(cluster(workers={"threads": 7}))["FACEBLUR_WORKER_THREADS"] == "7"


def test_the_worker_finds_its_certificates_where_they_are_mounted() -> None:
    spec = {"tls": RICH_SPEC["tls"]}
    files = {
        f"{mount['mountPath']}/{item['path']}"
        for mount in container(**spec)["volumeMounts"]
        for volume in pod_spec(**spec)["volumes"]
        if volume["name"] == mount["name"]
        for item in volume.get("secret", {}).get("items", [])
    }
    environment = worker_environment(cluster(**spec))
    names = ("TLS_CERTIFICATE", "TLS_KEY", "TLS_CLIENT_CA")
    assert files == {environment[PREFIX + name] for name in names}


def test_certificates_can_be_read_by_the_worker_alone_and_are_renewed_in_place() -> None:
    spec = pod_spec(tls=RICH_SPEC["tls"])
    secrets = [volume["secret"] for volume in spec["volumes"] if "secret" in volume]
    assert [(secret["secretName"], secret["defaultMode"]) for secret in secrets] == [
        ("workers", 0o440),
        ("clients", 0o440),
    ]
    assert spec["securityContext"]["fsGroup"] == spec["securityContext"]["runAsGroup"]
    assert not any("subPath" in mount for mount in spec["containers"][0]["volumeMounts"])


def test_a_user_cannot_override_what_the_worker_is_told() -> None:
    env = [{"name": "FACEBLUR_WORKER_TLS_CLIENT_CA", "value": "/tmp/mine"}, {"name": "HOME", "value": "/cache"}]
    found = container(tls=RICH_SPEC["tls"], podTemplate={"env": [*env, {"name": "HOME", "value": "/last"}]})["env"]
    values = {variable["name"]: variable.get("value") for variable in found}
    assert len(values) == len(found), "a name that is there twice would be refused by the API server"
    assert values["FACEBLUR_WORKER_TLS_CLIENT_CA"] == "/etc/faceblur/client-ca/ca.crt"
    assert values["HOME"] == "/last"


# What the workers are and may.


@pytest.mark.parametrize("spec", [{}, RICH_SPEC], ids=["empty", "rich"])
def test_workers_keep_to_the_restricted_pod_security_standard(spec: dict[str, Any]) -> None:
    pod = pod_spec(**spec)
    assert violations(pod) == []
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True


def test_workers_have_no_token() -> None:
    assert pod_spec()["automountServiceAccountToken"] is False
    assert pod_spec()["serviceAccountName"] == built("ServiceAccount")["metadata"]["name"]
    assert built("ServiceAccount")["automountServiceAccountToken"] is False


def test_temporary_files_stay_in_memory_within_a_bound() -> None:
    volume = next(volume for volume in pod_spec()["volumes"] if volume["name"] == "tmp")
    assert volume["emptyDir"] == {"medium": "Memory", "sizeLimit": "64Mi"}
    assert {"name": "tmp", "mountPath": "/tmp"} in container()["volumeMounts"]


def test_probes_ask_the_services_that_the_worker_has() -> None:
    worker = container()
    services = {kind: worker[kind]["grpc"] for kind in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert {kind: probe["service"] for kind, probe in services.items()} == {
        "startupProbe": READINESS,
        "readinessProbe": READINESS,
        "livenessProbe": LIVENESS,
    }
    port = int(worker_environment(cluster())["FACEBLUR_WORKER_HEALTH_ADDRESS"].rpartition(":")[2])
    assert {probe["port"] for probe in services.values()} == {port}
    assert worker["startupProbe"]["periodSeconds"] == 1


def test_the_ports_are_those_on_which_the_worker_listens() -> None:
    environment = worker_environment(cluster())
    listened = {
        name: int(environment[f"{PREFIX}{setting}"].removeprefix("0.0.0.0:"))
        for name, setting in (("grpc", "ADDRESS"), ("health", "HEALTH_ADDRESS"), ("metrics", "METRICS_ADDRESS"))
    }
    assert {port["name"]: port["containerPort"] for port in container()["ports"]} == listened


def test_a_worker_is_killed_only_after_its_own_grace_period() -> None:
    pod = pod_spec(workers={"graceSeconds": 90})
    assert pod["terminationGracePeriodSeconds"] > 90


def test_no_worker_goes_before_its_successor_answers() -> None:
    strategy = built("Deployment")["spec"]["strategy"]
    assert strategy["rollingUpdate"]["maxUnavailable"] == 0


def test_the_last_words_of_a_worker_become_its_termination_message() -> None:
    assert container()["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_the_operators_labels_win_over_those_of_the_user() -> None:
    deployment = built("Deployment", podTemplate=RICH_SPEC["podTemplate"])
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert labels["team"] == "press"
    assert labels.items() >= deployment["spec"]["selector"]["matchLabels"].items()


def test_the_image_of_the_spec_wins_over_the_default() -> None:
    assert container()["image"] == "registry.example/faceblur-worker:1.2.3"
    assert container(image="mine:1")["image"] == "mine:1"


def test_workers_are_spread_over_zones_and_nodes_where_possible() -> None:
    constraints = pod_spec()["topologySpreadConstraints"]
    assert [constraint["topologyKey"] for constraint in constraints] == [
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    ]
    assert {constraint["whenUnsatisfiable"] for constraint in constraints} == {"ScheduleAnyway"}


def test_a_spread_of_the_user_gets_the_selector_that_it_lacks() -> None:
    mine = {"labelSelector": {"matchLabels": {"a": "b"}}, "topologyKey": "rack"}
    constraints = pod_spec(scheduling={"topologySpreadConstraints": [{"topologyKey": "row"}, mine]})
    own = built("Deployment")["spec"]["selector"]
    assert constraints["topologySpreadConstraints"] == [{"topologyKey": "row", "labelSelector": own}, mine]


def test_an_empty_spread_turns_spreading_off() -> None:
    assert "topologySpreadConstraints" not in pod_spec(scheduling={"topologySpreadConstraints": []})


def test_the_user_decides_where_workers_run() -> None:
    scheduling = RICH_SPEC["scheduling"]
    pod = pod_spec(scheduling={**scheduling, "runtimeClassName": "gvisor"}, imagePullSecrets=[{"name": "registry"}])
    for field in ("nodeSelector", "tolerations", "affinity", "priorityClassName"):
        assert pod[field] == scheduling[field]
    assert pod["runtimeClassName"] == "gvisor"
    assert pod["imagePullSecrets"] == [{"name": "registry"}]


def test_volumes_of_the_user_are_mounted_beside_the_workers_own() -> None:
    pod = pod_spec(podTemplate=RICH_SPEC["podTemplate"])
    assert [volume["name"] for volume in pod["volumes"]] == ["tmp", "cache", "settings", "scratch"]
    assert [mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]] == ["/tmp", "/cache", "/settings"]


def test_a_template_says_what_it_was_made_from() -> None:
    def stamp(**spec: Any) -> str:
        deployment = build_worker_deployment(cluster(**spec), default_image="worker:1", replicas=None)
        return str(deployment["spec"]["template"]["metadata"]["annotations"]["faceblur.io/template"])

    assert stamp() == stamp(disruptionBudget={"enabled": False}, autoscaling={"maxReplicas": 3})
    changes: list[dict[str, Any]] = [{}, {"image": "x"}, {"redaction": {"cells": 3}}, {"tls": {"secretName": "x"}}]
    assert len({stamp(**spec) for spec in changes}) == len(changes)


# Who finds and reaches the workers.


def test_the_headless_service_has_the_clusters_name_and_all_ready_workers() -> None:
    spec = built("Service", "demo")["spec"]
    assert spec["clusterIP"] == "None"
    assert "publishNotReadyAddresses" not in spec
    assert [(port["name"], port["port"]) for port in spec["ports"]] == [("grpc", 50051), ("metrics", 9464)]


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        ({"type": "ClusterIP"}, {"type": "ClusterIP"}),
        ({"type": "NodePort", "nodePort": 30051}, {"type": "NodePort"}),
        ({"type": "LoadBalancer", "loadBalancerClass": "x/y"}, {"type": "LoadBalancer", "loadBalancerClass": "x/y"}),
    ],
)
def test_a_second_service_is_there_for_callers_that_do_not_balance(
    service: dict[str, Any], expected: dict[str, Any]
) -> None:
    found = built("Service", "demo-external", service={**service, "annotations": {"a": "b"}})
    assert found["spec"].items() >= expected.items()
    assert found["metadata"]["annotations"]["a"] == "b"
    (port,) = found["spec"]["ports"]
    assert (port["name"], port.get("nodePort")) == ("grpc", service.get("nodePort"))


def test_a_service_monitor_finds_each_worker_once() -> None:
    spec: dict[str, Any] = {"service": {"type": "NodePort"}, "metrics": RICH_SPEC["metrics"]}
    monitor = built("ServiceMonitor", **spec)
    services = [built("Service", name, **spec) for name in ("demo", "demo-external")]
    selected = [
        service
        for service in services
        if service["metadata"]["labels"].items() >= monitor["spec"]["selector"]["matchLabels"].items()
        and monitor["spec"]["endpoints"][0]["port"] in [port["name"] for port in service["spec"]["ports"]]
    ]
    assert [service["metadata"]["name"] for service in selected] == ["demo"]
    assert monitor["metadata"]["labels"]["prometheus"] == "main"
    assert monitor["spec"]["endpoints"][0]["interval"] == "15s"


def test_the_network_is_closed_but_for_callers_and_monitors() -> None:
    spec = built("NetworkPolicy")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in spec
    assert spec["ingress"] == [
        {"ports": [{"port": 50051, "protocol": "TCP"}], "from": [{"podSelector": {}}]},
        {"ports": [{"port": 9464, "protocol": "TCP"}], "from": [{"namespaceSelector": {}}]},
    ]


def test_the_operator_still_reads_metrics_where_monitors_are_named() -> None:
    policy = RICH_SPEC["networkPolicy"]
    spec = built("NetworkPolicy", networkPolicy=policy)["spec"]
    assert spec["ingress"][0]["from"] == policy["callers"]
    assert spec["ingress"][1]["from"] == [
        *policy["monitors"],
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "faceblur-system"}},
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": "faceblur-operator"}},
        },
    ]
    assert spec["egress"] == policy["egress"]


@pytest.mark.parametrize(("kind", "everybody"), [("NodePort", True), ("LoadBalancer", True), ("ClusterIP", False)])
def test_who_asks_for_a_way_in_from_outside_gets_it_unless_callers_are_named(kind: str, everybody: bool) -> None:
    callers = RICH_SPEC["networkPolicy"]["callers"]
    opened = built("NetworkPolicy", service={"type": kind})["spec"]["ingress"][0]
    named = built("NetworkPolicy", service={"type": kind}, networkPolicy={"callers": callers})["spec"]["ingress"][0]
    assert ("from" not in opened) is everybody
    assert named["from"] == callers


def test_nobody_but_the_node_reaches_the_health_port() -> None:
    rules = built("NetworkPolicy", **RICH_SPEC)["spec"]["ingress"]
    assert {port["port"] for rule in rules for port in rule["ports"]} == {50051, 9464}


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        ({}, {"maxUnavailable": 1}),
        ({"maxUnavailable": "25%"}, {"maxUnavailable": "25%"}),
        ({"maxUnavailable": 0}, {"maxUnavailable": 0}),
        ({"minAvailable": 1}, {"minAvailable": 1}),
    ],
)
def test_a_disruption_budget_has_one_bound(budget: dict[str, Any], expected: dict[str, Any]) -> None:
    spec = built("PodDisruptionBudget", disruptionBudget=budget)["spec"]
    assert {name: spec[name] for name in ("minAvailable", "maxUnavailable") if name in spec} == expected
    assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


# Who scales, and who signs.


def test_the_autoscaler_looks_at_the_workers_container() -> None:
    spec = built("HorizontalPodAutoscaler", autoscaling=RICH_SPEC["autoscaling"])["spec"]
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "demo-worker"}
    assert (spec["minReplicas"], spec["maxReplicas"]) == (1, 4)
    (metric,) = spec["metrics"]
    assert metric["containerResource"] == {
        "name": "cpu",
        "container": container()["name"],
        "target": {"type": "Utilization", "averageUtilization": 60},
    }
    assert spec["behavior"] == {"scaleDown": {"stabilizationWindowSeconds": 30}}


def test_keda_scales_on_cpu_where_no_trigger_is_named() -> None:
    autoscaling = {**RICH_SPEC["autoscaling"], "mode": "KEDA"}
    spec = built("ScaledObject", apis=[KEDA], autoscaling=autoscaling)["spec"]
    assert spec["triggers"] == [
        {"type": "cpu", "metricType": "Utilization", "metadata": {"value": "60", "containerName": "worker"}}
    ]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (1, 4)
    assert spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == autoscaling["behavior"]


def test_keda_scales_on_the_triggers_of_the_spec() -> None:
    trigger = {"type": "redis", "metadata": {"address": "queue:6379", "listName": "pages", "listLength": "5"}}
    keda = {"triggers": [trigger], "pollingIntervalSeconds": 5, "cooldownSeconds": 0}
    spec = built("ScaledObject", autoscaling={"mode": "KEDA", "minReplicas": 0, "keda": keda})["spec"]
    assert spec["triggers"] == [trigger]
    assert (spec["minReplicaCount"], spec["pollingInterval"], spec["cooldownPeriod"]) == (0, 5, 0)


def test_a_certificate_is_for_every_name_that_callers_in_the_cluster_dial() -> None:
    spec = built(
        "Certificate",
        apis=[CERT_MANAGER],
        tls={"issuer": {"name": "ca", "kind": "ClusterIssuer"}},
        service={"type": "ClusterIP"},
    )["spec"]
    assert spec["secretName"] == "demo-worker-tls"
    assert spec["issuerRef"] == {"name": "ca", "kind": "ClusterIssuer", "group": "cert-manager.io"}
    assert spec["dnsNames"] == [
        "demo",
        "demo.shop",
        "demo.shop.svc",
        "demo.shop.svc.cluster.local",
        "demo-external",
        "demo-external.shop",
        "demo-external.shop.svc",
        "demo-external.shop.svc.cluster.local",
    ]
