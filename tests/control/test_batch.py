"""Batches of a cluster: what batch workers and the embedded broker are made of, who scales them, what is said."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from faceblur_batch.config import PREFIX, BatchSettings
from faceblur_batch.storage.settings import CredentialKind, StorageSettings
from faceblur_operator import naming
from faceblur_operator.api.v1alpha1 import FaceBlurCluster
from faceblur_operator.builders.batch_environment import (
    batch_parallelism,
    build_batch_environment,
    build_profiles,
    secrets_of,
    secrets_read_once,
    storage_profiles,
)
from faceblur_operator.observed import Manifest, ObjectKey
from faceblur_operator.plan import places
from support.clusters import KEDA, MONITORING, World, cluster, condition, ended, running_pod, starting_pod, waiting
from support.pod_security import violations

EMBEDDED: dict[str, Any] = {"broker": {"embedded": {}}}
REDIS: dict[str, Any] = {
    "broker": {
        "secretName": "broker",
        "caSecretName": "broker-authority",
        "clientSecretName": "broker-client",
        "redis": {"address": "cache.shop.svc:6380", "database": 3, "tls": True, "passwordKey": "password"},
    }
}
RABBIT: dict[str, Any] = {"broker": {"secretName": "broker", "key": "amqp", "type": "RabbitMQ"}}
FIXED: dict[str, Any] = {"replicas": 2, "autoscaling": {"mode": "Fixed"}}
STORES: list[dict[str, Any]] = [
    {"name": "default", "credentialsSecretName": "keys", "region": "eu-1"},
    {
        "name": "archive",
        "endpoint": "http://archive.shop.svc:9000",
        "allowHTTP": True,
        "addressing": "virtual",
        "caSecretName": "authorities",
        "caKey": "bundle.pem",
        "credentialsSecretName": "archive-keys",
        "encryption": "aws:kms",
        "kmsKey": "key",
        "storageClass": "GLACIER",
    },
    {"name": "open", "anonymous": True},
    {"name": "cloud"},
]
RICH: dict[str, Any] = {
    **REDIS,
    "storage": STORES,
    "tls": {"caSecretName": "ca", "clientSecretName": "client", "serverName": "demo"},
    "workers": {"threads": 3, "concurrency": 5, "graceSeconds": 20, "logLevel": "debug"},
    "scheduling": {"nodeSelector": {"pool": "io"}, "priorityClassName": "low"},
    "podLabels": {"team": "press", "app.kubernetes.io/name": "something-else"},
    "podAnnotations": {"example.org/c": "d"},
    "serviceAccountAnnotations": {"example.org/role": "reader"},
}
TLS = {"secretName": "workers", "mutual": {"caSecretName": "clients"}}


def world(batch: dict[str, Any], apis: tuple[str, ...] = (KEDA, MONITORING), **spec: Any) -> World:
    """A cluster with batches after its first reconciles; all its Secrets are there."""
    made = World(apis=apis, batch=batch, **spec)
    made.secrets = {"broker", "keys", "archive-keys", "authorities", "ca", "client", "workers", "clients"}
    made.secrets |= {"broker-authority", "broker-client"}
    made.settle()
    return made


def deployment(made: World, name: str = "demo-batch") -> Manifest:
    return made.live("Deployment", name)


def pod_of(made: World, name: str = "demo-batch") -> dict[str, Any]:
    return dict(deployment(made, name)["spec"]["template"]["spec"])


def settings_of(found: FaceBlurCluster, monkeypatch: pytest.MonkeyPatch) -> BatchSettings:
    """The settings of a process with the environment that a cluster gives."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    for variable in build_batch_environment(found, cluster_domain="cluster.local").env:
        monkeypatch.setenv(variable["name"], variable["value"])
    return BatchSettings()


def mounted(found: FaceBlurCluster) -> dict[str, str]:
    """Path of each file or folder that pods find, with the Secret or ConfigMap that it comes from."""
    access = build_batch_environment(found, cluster_domain="cluster.local")
    folders = {mount["name"]: mount["mountPath"] for mount in access.mounts}
    files = {}
    for volume in access.volumes:
        source = volume.get("secret") or volume["configMap"]
        name = source.get("secretName") or source["name"]
        for item in source.get("items", [{"path": "", "key": ""}]):
            files[f"{folders[volume['name']]}/{item['path']}".rstrip("/")] = f"{name}:{item['key']}".rstrip(":")
    return files


def answers(made: World, component: str, count: int, *conditions: Manifest) -> None:
    """Have the controllers bring so many pods of a component up."""
    live = deployment(made, f"demo-{component}")
    live["status"] = {
        "observedGeneration": live["metadata"]["generation"],
        "replicas": live["spec"]["replicas"],
        "updatedReplicas": live["spec"]["replicas"],
        "readyReplicas": count,
        "availableReplicas": count,
        "conditions": list(conditions) or [condition("Progressing", "True", "NewReplicaSetAvailable")],
    }
    made.settle()


# What the processes are told.


@pytest.mark.parametrize("batch", [EMBEDDED, RICH], ids=["embedded", "rich"])
def test_every_variable_is_a_setting_of_batch_workers(batch: dict[str, Any]) -> None:
    container = pod_of(world(batch, tls=TLS if batch is RICH else None))["containers"][0]
    names = [variable["name"] for variable in container["env"]]
    assert len(names) == len(set(names))
    known = {PREFIX + name.upper() for name in BatchSettings.model_fields}
    assert {name for name in names if name != "HOME"} <= known


def test_the_embedded_broker_is_dialled_by_its_service(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(cluster(batch=EMBEDDED), monkeypatch)
    assert settings.broker_url() == "redis://demo-broker.shop.svc.cluster.local:6379/0"
    assert settings.queue == "faceblur.shop.demo"
    assert settings.server == "dns:///demo.shop.svc.cluster.local:50051"
    assert settings.tls_ca is None


def test_a_brokers_url_and_certificates_are_read_from_files_of_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    found = cluster(batch={**RICH, "broker": {**REDIS["broker"], "key": "celery"}}, tls=TLS)
    settings, files = settings_of(found, monkeypatch), mounted(found)
    assert files[str(settings.broker_file)] == "broker:celery"
    assert files[str(settings.broker_ca)] == "broker-authority:ca.crt"
    assert files[str(settings.broker_certificate)] == "broker-client:tls.crt"
    assert files[str(settings.broker_key)] == "broker-client:tls.key"
    assert files[str(settings.tls_ca)] == "ca:ca.crt"
    assert files[str(settings.tls_certificate)] == "client:tls.crt"
    assert files[str(settings.tls_key)] == "client:tls.key"
    assert settings.tls_server_name == "demo"


def test_the_workers_own_secret_has_the_authority_where_no_other_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = cluster(batch=EMBEDDED, tls={"issuer": {"name": "ours"}})
    assert mounted(found)[str(settings_of(found, monkeypatch).tls_ca)] == "demo-worker-tls:ca.crt"


def test_storage_profiles_are_what_batches_understand() -> None:
    found = cluster(batch={**EMBEDDED, "storage": STORES})
    profiles = {
        name: StorageSettings.model_validate(profile)
        for name, profile in json.loads(build_profiles(found)["data"]["profiles.json"]).items()
    }
    assert profiles.keys() == storage_profiles(found) == {"", "archive", "open", "cloud"}
    files = mounted(found)
    assert files[str(profiles[""].credentials_folder)] == "keys"
    assert files[str(profiles["archive"].credentials_folder)] == "archive-keys"
    assert files[str(profiles["archive"].ca_bundle)] == "authorities:bundle.pem"
    assert profiles["open"].credentials is CredentialKind.ANONYMOUS
    assert profiles["cloud"].credentials is CredentialKind.PLATFORM
    archive = profiles["archive"].model_dump(mode="json", exclude_defaults=True)
    assert archive == {
        "endpoint": "http://archive.shop.svc:9000",
        "allow_http": True,
        "addressing": "virtual",
        "ca_bundle": str(profiles["archive"].ca_bundle),
        "credentials": "folder",
        "credentials_folder": str(profiles["archive"].credentials_folder),
        "encryption": "aws:kms",
        "kms_key": "key",
        "storage_class": "GLACIER",
    }
    assert profiles[""].region == "eu-1"


def test_no_secret_is_in_the_environment_or_readable_by_everybody() -> None:
    access = build_batch_environment(cluster(batch=RICH, tls=TLS), cluster_domain="cluster.local")
    assert not any("valueFrom" in variable for variable in access.env)
    assert {volume["secret"]["defaultMode"] for volume in access.volumes if "secret" in volume} == {0o440}
    assert all(mount["readOnly"] and "subPath" not in mount for mount in access.mounts)


def test_secrets_are_told_apart_by_whether_a_new_content_takes_a_new_process() -> None:
    found = cluster(batch=RICH, tls=TLS)
    read_once = {"broker", "broker-authority", "broker-client", "ca", "client", "authorities"}
    assert set(secrets_read_once(found)) == read_once
    assert set(secrets_of(found)) == read_once | {"keys", "archive-keys"}


@pytest.mark.parametrize(
    ("batch", "pages"),
    [
        (EMBEDDED, 40),
        ({**EMBEDDED, "workers": {"threads": 2}, "autoscaling": {"maxReplicas": 3}}, 6),
        ({**EMBEDDED, **FIXED}, 8),
        ({**EMBEDDED, **FIXED, "replicas": 0}, 4),
    ],
)
def test_the_most_pages_at_once_are_those_of_the_most_batch_workers(batch: dict[str, Any], pages: int) -> None:
    assert batch_parallelism(cluster(batch=batch)) == pages


# Pods.


@pytest.mark.parametrize("name", ["demo-batch", "demo-broker"])
def test_all_pods_keep_to_the_restricted_standard_and_have_no_token(name: str) -> None:
    pod = pod_of(world(EMBEDDED), name)
    assert violations(pod) == []
    assert pod["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"] == name
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True


def test_all_run_from_the_workers_image_by_other_commands() -> None:
    made = world(EMBEDDED, image="registry.example/ours:7")
    commands = {name: pod_of(made, name)["containers"][0] for name in ("demo-batch", "demo-broker")}
    assert {container["image"] for container in commands.values()} == {"registry.example/ours:7"}
    assert commands["demo-batch"]["command"] == ["python", "-m", "faceblur_batch"]
    assert commands["demo-broker"]["command"] == ["python", "-m", "faceblur_batch.broker"]
    assert commands["demo-broker"]["args"] == ["6379", str(96 * 1024 * 1024)]


def test_a_batch_worker_has_time_for_the_pictures_in_its_hands() -> None:
    pod = pod_of(world({**EMBEDDED, "workers": {"graceSeconds": 40}}))
    grace = {variable["name"]: variable["value"] for variable in pod["containers"][0]["env"]}[PREFIX + "GRACE_SECONDS"]
    assert int(grace) == 40 < pod["terminationGracePeriodSeconds"]


def test_what_a_spec_says_about_pods_reaches_them_and_never_wins_over_the_operators_labels() -> None:
    made = world(RICH, tls=TLS)
    template = deployment(made)["spec"]["template"]
    assert template["metadata"]["labels"]["team"] == "press"
    assert template["metadata"]["labels"].items() >= deployment(made)["spec"]["selector"]["matchLabels"].items()
    assert template["metadata"]["annotations"]["example.org/c"] == "d"
    assert template["spec"]["nodeSelector"] == {"pool": "io"}
    assert template["spec"]["priorityClassName"] == "low"
    account = made.live("ServiceAccount", "demo-batch")
    assert account["metadata"]["annotations"]["example.org/role"] == "reader"
    assert account["automountServiceAccountToken"] is False


def test_a_batch_worker_only_goes_when_its_successor_takes_pages() -> None:
    made = world(EMBEDDED)
    assert deployment(made)["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    container = pod_of(made)["containers"][0]
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"


def test_there_is_never_more_than_one_embedded_broker() -> None:
    spec = deployment(world(EMBEDDED), "demo-broker")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_who_still_calls_a_broker_that_is_gone_finds_no_name_instead_of_somebody_elses_address() -> None:
    assert world(EMBEDDED).live("Service", "demo-broker")["spec"]["clusterIP"] == "None"


def test_no_component_selects_the_pods_of_another() -> None:
    made = world(EMBEDDED)
    selectors = [deployment(made, f"demo-{name}")["spec"]["selector"]["matchLabels"] for name in ("worker", "batch")]
    labels = [
        deployment(made, f"demo-{name}")["spec"]["template"]["metadata"]["labels"] for name in ("batch", "broker")
    ]
    for selector in selectors:
        matching = [found for found in labels if selector.items() <= found.items()]
        assert len(matching) == (selector[naming.COMPONENT_LABEL] == "batch")


# What makes new batch workers.


def template_of(made: World) -> str:
    return str(deployment(made)["spec"]["template"]["metadata"]["annotations"][naming.TEMPLATE_ANNOTATION])


@pytest.mark.parametrize("secret", ["broker", "ca", "client", "authorities"])
def test_a_changed_secret_that_is_read_at_the_start_makes_new_batch_workers(secret: str) -> None:
    made = world(RICH, tls=TLS)
    before = template_of(made)
    made.versions[secret] = "2"
    made.settle()
    assert template_of(made) != before


def test_renewed_credentials_of_a_store_make_no_new_batch_workers() -> None:
    made = world(RICH, tls=TLS)
    before = template_of(made)
    made.versions["keys"] = "2"
    assert made.step().apply == ()
    assert template_of(made) == before


def test_a_changed_storage_profile_makes_new_batch_workers() -> None:
    made = world({**EMBEDDED, "storage": [{"name": "default"}]})
    before = template_of(made)
    made.change(batch={**EMBEDDED, "storage": [{"name": "default", "region": "eu-2"}]})
    made.settle()
    assert template_of(made) != before


def test_a_secret_that_is_gone_makes_no_new_batch_workers_and_its_return_only_with_another_content() -> None:
    made = world(REDIS)
    before = template_of(made)
    made.secrets.remove("broker")
    made.settle()
    assert template_of(made) == before
    made.secrets.add("broker")
    made.settle()
    assert template_of(made) == before
    made.versions["broker"] = "9"
    made.settle()
    assert template_of(made) != before


def test_batch_workers_are_made_once_all_secrets_are_there() -> None:
    made = World(apis=(KEDA,), batch=REDIS)
    made.settle()
    assert not [key for key in made.objects if key.name == "demo-batch" and key.kind in ("Deployment", "ScaledObject")]
    assert made.find("Batch") == ("False", "SecretMissing")
    made.secrets |= {"broker", "broker-authority", "broker-client"}
    made.settle()
    before = template_of(made)
    made.settle()
    assert template_of(made) == before
    assert made.live("ScaledObject", "demo-batch")


# Who scales them.


def test_keda_counts_the_pages_that_wait_and_those_in_work() -> None:
    made = world({**EMBEDDED, "workers": {"threads": 3}, "autoscaling": {"pagesPerWorker": 7, "minReplicas": 0}})
    spec = made.live("ScaledObject", "demo-batch")["spec"]
    assert (spec["minReplicaCount"], spec["scaleTargetRef"]["name"]) == (0, "demo-batch")
    lists = {trigger["name"]: trigger["metadata"]["listName"] for trigger in spec["triggers"]}
    assert lists == {"waiting": "faceblur.shop.demo", "working": "faceblur.shop.demo.unacked"}
    assert spec["triggers"][0]["metadata"]["address"] == "demo-broker.shop.svc.cluster.local:6379"
    modifiers = spec["advanced"]["scalingModifiers"]
    assert modifiers == {"formula": "float(waiting + working)", "target": "7", "metricType": "AverageValue"}
    assert all("authenticationRef" not in trigger for trigger in spec["triggers"])
    assert "TriggerAuthentication" not in made.kinds()


def test_celery_keeps_pages_in_work_where_keda_counts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from faceblur_batch.app import make_app

    made = world(EMBEDDED)
    in_work = made.live("ScaledObject", "demo-batch")["spec"]["triggers"][1]["metadata"]["listName"]
    app = make_app(settings_of(made.cluster, monkeypatch))
    assert app.conf.broker_transport_options["unacked_key"] == in_work


def test_keda_reads_password_and_certificates_of_a_redis_from_secrets() -> None:
    made = world(REDIS)
    trigger = made.live("ScaledObject", "demo-batch")["spec"]["triggers"][0]
    assert (
        trigger["metadata"].items()
        >= {
            "address": "cache.shop.svc:6380",
            "databaseIndex": "3",
            "enableTLS": "true",
        }.items()
    )
    assert trigger["authenticationRef"] == {"name": "demo-batch"}
    assert made.live("TriggerAuthentication", "demo-batch")["spec"]["secretTargetRef"] == [
        {"parameter": "password", "name": "broker", "key": "password"},
        {"parameter": "ca", "name": "broker-authority", "key": "ca.crt"},
        {"parameter": "cert", "name": "broker-client", "key": "tls.crt"},
        {"parameter": "key", "name": "broker-client", "key": "tls.key"},
    ]


def test_keda_reads_the_url_of_a_rabbitmq_from_the_brokers_secret() -> None:
    made = world(RABBIT)
    (trigger,) = made.live("ScaledObject", "demo-batch")["spec"]["triggers"]
    assert trigger["type"] == "rabbitmq"
    assert trigger["metadata"] == {"queueName": "faceblur.shop.demo", "mode": "QueueLength", "value": "4"}
    assert made.live("TriggerAuthentication", "demo-batch")["spec"]["secretTargetRef"] == [
        {"parameter": "host", "name": "broker", "key": "amqp"}
    ]


def test_without_keda_batch_workers_follow_their_cpu_use_and_never_go_to_zero() -> None:
    made = world({**EMBEDDED, "autoscaling": {"minReplicas": 0}}, apis=())
    autoscaler = made.live("HorizontalPodAutoscaler", "demo-batch")
    assert autoscaler["spec"]["minReplicas"] == 1
    assert autoscaler["spec"]["metrics"][0]["containerResource"]["container"] == "batch"
    assert deployment(made)["spec"]["replicas"] == 1
    assert made.find("BatchAutoscaling") == ("False", "KEDAMissing")


def test_keda_takes_over_when_it_is_installed_and_the_former_autoscaler_is_gone() -> None:
    made = world(EMBEDDED, apis=())
    made.apis = frozenset({KEDA})
    plan = made.step()
    assert ObjectKey("autoscaling/v2", "HorizontalPodAutoscaler", "demo-batch") in plan.delete
    assert "ScaledObject" not in {manifest["kind"] for manifest in plan.apply}
    made.settle()
    assert made.live("ScaledObject", "demo-batch")
    assert made.live("HorizontalPodAutoscaler", "demo-worker"), "the workers have an autoscaler of their own"


def test_a_fixed_number_is_kept_and_an_autoscaler_owns_the_replicas() -> None:
    made = world({**EMBEDDED, **FIXED})
    assert deployment(made)["spec"]["replicas"] == 2
    assert made.find("BatchAutoscaling") is None
    made.change(batch=EMBEDDED)
    made.settle()
    deployment(made)["spec"]["replicas"] = 7
    deployment(made)["metadata"]["managedFields"] = []
    assert made.step().apply == ()


# Who reaches whom.


def test_the_embedded_broker_is_reached_by_batch_workers_planners_and_keda_alone() -> None:
    def peers(**more: Any) -> list[dict[str, str]]:
        (rule,) = world({**EMBEDDED, **more}).live("NetworkPolicy", "demo-broker")["spec"]["ingress"]
        assert rule["ports"] == [{"port": 6379, "protocol": "TCP"}]
        return [peer["podSelector"]["matchLabels"] for peer in rule["from"]]

    own = [naming.selector_labels(cluster(), component) for component in ("batch", "planner")]
    assert peers(**FIXED) == own
    assert peers() == [*own, {"app": "keda-operator"}]
    assert "egress" not in world(EMBEDDED).live("NetworkPolicy", "demo-broker")["spec"]


def test_batch_workers_reach_names_workers_the_broker_and_what_the_spec_lists() -> None:
    store = {"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}
    rules = world({**EMBEDDED, "egress": [store]}).live("NetworkPolicy", "demo-batch")["spec"]["egress"]
    assert {port["port"] for port in rules[0]["ports"]} == {53, 5353}
    targets = [rule["to"][0]["podSelector"]["matchLabels"][naming.COMPONENT_LABEL] for rule in rules[1:3]]
    assert targets == ["worker", "broker"]
    assert rules[3:] == [store]


def test_without_a_list_all_of_tcp_is_open_to_batch_workers() -> None:
    rules = world(REDIS).live("NetworkPolicy", "demo-batch")["spec"]["egress"]
    assert rules[-1] == {"ports": [{"protocol": "TCP"}]}
    assert not any("broker" in json.dumps(rule) for rule in rules)


def test_planners_reach_the_api_server_too() -> None:
    policy = world({**EMBEDDED, "egress": [{"to": []}]}).live("NetworkPolicy", "demo-planner")["spec"]
    assert policy["podSelector"]["matchLabels"] == naming.selector_labels(cluster(), "planner")
    assert [port["port"] for port in policy["egress"][-1]["ports"]] == [443, 6443]
    assert "ingress" not in policy


def test_batch_workers_and_planners_are_callers_where_callers_are_listed() -> None:
    caller = {"namespaceSelector": {"matchLabels": {"team": "press"}}}
    made = world(EMBEDDED, networkPolicy={"callers": [caller]})
    rule = made.live("NetworkPolicy", "demo-worker")["spec"]["ingress"][0]
    components = [peer["podSelector"]["matchLabels"][naming.COMPONENT_LABEL] for peer in rule["from"][1:]]
    assert (rule["from"][0], components) == (caller, ["batch", "planner"])


def test_metrics_of_batch_workers_are_read_where_those_of_workers_are() -> None:
    made = world(EMBEDDED, metrics={"serviceMonitor": {"enabled": True, "labels": {"a": "b"}}})
    monitor = made.live("PodMonitor", "demo-batch")
    assert monitor["metadata"]["labels"]["a"] == "b"
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    (port,) = pod_of(made)["containers"][0]["ports"]
    assert (endpoint["port"], port["containerPort"]) == (port["name"], 9465)
    assert made.find("Monitoring") == ("True", "InPlace")


# What comes and goes.


def test_what_batches_need_goes_with_them_and_is_not_looked_for_any_more() -> None:
    made = world(RICH, tls=TLS, metrics={"serviceMonitor": {"enabled": True}})
    names = naming.batch_names("demo")
    assert {key.name for key in made.objects} >= {"demo-batch", "demo-planner"}
    made.change(batch=None)
    made.step()
    assert made.cluster.status.batch, "what was to be deleted may still be there"
    made.settle()
    assert not [key for key in made.objects if key.name in names]
    assert made.cluster.status.batch is None
    assert not [place for place in places(made.cluster) if place.name in names]
    assert made.find("Batch") is None


def test_the_embedded_broker_goes_when_another_one_is_named() -> None:
    made = world(EMBEDDED)
    made.change(batch=REDIS)
    made.settle()
    assert not [key for key in made.objects if key.name == "demo-broker"]
    assert made.live("Deployment", "demo-batch")


@pytest.mark.parametrize("batch", [EMBEDDED, RICH], ids=["embedded", "rich"])
def test_every_object_is_looked_at_where_it_is_made_and_all_are_the_clusters(batch: dict[str, Any]) -> None:
    made = world(batch, tls=TLS if batch is RICH else None)
    assert made.objects.keys() <= set(places(made.cluster))
    for live in made.objects.values():
        (owner,) = live["metadata"]["ownerReferences"]
        assert owner["uid"] == made.body["metadata"]["uid"]
    assert made.step().apply == ()


def test_an_edited_config_map_is_repaired() -> None:
    made = world({**EMBEDDED, "storage": STORES})
    made.live("ConfigMap", "demo-batch")["data"] = {"profiles.json": "{}"}
    made.settle()
    assert "archive" in made.live("ConfigMap", "demo-batch")["data"]["profiles.json"]


# What is said.


def test_batches_are_ready_when_the_broker_and_batch_workers_are() -> None:
    made = world({**EMBEDDED, **FIXED})
    assert made.find("Batch") == ("Unknown", "Pending")
    answers(made, "broker", 1)
    assert made.find("Batch") == ("Unknown", "Pending")
    answers(made, "batch", 2)
    assert made.find("Batch") == ("True", "BatchWorkersReady")
    assert made.message("Batch") == "2 of 2 batch workers answer."
    status = made.cluster.status.batch
    assert status is not None
    assert (status.replicas, status.ready_replicas, status.desired_replicas) == (2, 2, 2)


@pytest.mark.parametrize("secret", ["broker", "keys", "ca"])
def test_a_missing_secret_is_named(secret: str) -> None:
    made = world(RICH, tls=TLS)
    made.secrets.remove(secret)
    made.step()
    assert made.find("Batch") == ("False", "SecretMissing")
    assert made.message("Batch").startswith(f"Secret {secret} does not exist")
    assert made.find("Degraded") == ("True", "SecretMissing")


def test_a_broker_that_went_away_is_told() -> None:
    made = world({**EMBEDDED, **FIXED})
    answers(made, "broker", 1)
    answers(made, "batch", 2)
    answers(made, "broker", 0)
    assert made.find("Batch") == ("False", "BrokerUnavailable")
    answers(made, "broker", 1)
    answers(made, "batch", 0)
    assert made.find("Batch") == ("False", "BatchWorkersUnavailable")
    assert made.message("Batch") == "0 of 2 batch workers answer. One answers once it has reached the broker."


def test_a_batch_worker_that_ends_says_why_and_workers_stay_ready() -> None:
    made = world({**EMBEDDED, **FIXED})
    made.roll_out()
    answers(made, "broker", 1)
    pod = running_pod("demo-batch-x", template_of(made), naming.BATCH)
    pod["status"]["conditions"][1]["status"] = "False"
    pod["status"]["containerStatuses"][0] |= {
        "restartCount": 3,
        "started": False,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": ended(2, "faceblur batch worker: FACEBLUR_BATCH_BROKER_FILE: it has no usable URL"),
    }
    made.pods.append(pod)
    answers(made, "batch", 0)
    assert made.find("Batch") == ("False", "CrashLoopBackOff")
    assert "it has no usable URL" in made.message("Degraded")
    assert made.find("Ready") == ("True", "WorkersReady")


def test_a_worker_that_does_not_start_is_no_trouble_of_the_batch_workers() -> None:
    made = world({**EMBEDDED, **FIXED})
    made.pods.append(starting_pod(**waiting("ImagePullBackOff")))
    answers(made, "broker", 1)
    answers(made, "batch", 0)
    assert made.find("Batch") == ("False", "BatchWorkersUnavailable")


def test_no_batch_worker_is_no_trouble_where_none_is_asked_for() -> None:
    made = world({**EMBEDDED, "autoscaling": {"minReplicas": 0}})
    answers(made, "broker", 1)
    answers(made, "batch", 0)
    assert deployment(made)["spec"]["replicas"] == 0
    assert made.find("Batch") == ("True", "ScaledToZero")


def test_keda_says_whether_it_can_count() -> None:
    made = world(REDIS)
    assert made.find("BatchAutoscaling") == ("Unknown", "Pending")
    scaled = made.live("ScaledObject", "demo-batch")
    scaled["status"] = {"conditions": [condition("Ready", "False", "TriggerError", "no such host")]}
    made.step()
    assert made.find("BatchAutoscaling") == ("False", "TriggerError")
    scaled["status"] = {"conditions": [condition("Ready", "True", "ScaledObjectReady")]}
    made.step()
    assert made.find("BatchAutoscaling") == ("True", "InPlace")


def test_a_name_that_is_taken_is_told() -> None:
    made = World(batch={**EMBEDDED, **FIXED})
    theirs = {"name": "demo-batch", "namespace": "shop", "uid": "theirs"}
    made.add({"apiVersion": "v1", "kind": "ConfigMap", "metadata": theirs, "data": {}})
    made.settle()
    assert made.find("Batch") == ("False", "NameTaken")


def test_nothing_is_written_for_a_paused_cluster() -> None:
    made = world(EMBEDDED)
    made.change(paused=True, batch=REDIS)
    plan = made.step()
    assert (plan.apply, plan.delete, plan.keep_replicas) == ((), (), ())


def test_the_example_has_all_that_batches_need() -> None:
    import yaml

    text = (Path(__file__).parents[2] / "examples" / "faceblurcluster-batch.yaml").read_text(encoding="utf-8")
    for manifest in yaml.safe_load_all(text):
        if manifest["kind"] == "FaceBlurCluster":
            manifest["metadata"] |= {"namespace": "shop"}
            assert FaceBlurCluster.model_validate(manifest).spec.batch
