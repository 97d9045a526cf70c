"""The definition of FaceBlurCluster on a real API server: what it refuses and in which words, and what it fills in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from faceblur_operator import crdgen, naming
from faceblur_operator.api.v1alpha1 import API_VERSION, CLUSTER_KIND, FaceBlurCluster, FaceBlurClusterSpec
from support.cluster import Cluster, RefusedError

pytestmark = pytest.mark.usefixtures("crds")

EXAMPLES = Path(__file__).parents[2] / "examples"
CRD = crdgen.build_crd(next(kind for kind in crdgen.KINDS if kind.kind == CLUSTER_KIND))
SCHEMA = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
FIXED = (
    "replicas and autoscaling.mode Fixed belong together; with an autoscaler set minReplicas and maxReplicas instead"
)
BATCH_FIXED = (
    "batch.replicas and batch.autoscaling.mode Fixed belong together; with an autoscaler set minReplicas and "
    "maxReplicas instead"
)
BROKER = "set either secretName, a Secret with the broker's URL, or embedded: {}, a small Valkey for trying out"
MUTUAL = {"caSecretName": "clients"}
EMBEDDED: dict[str, Any] = {"broker": {"embedded": {}}}

# One violation for each rule: the field that is reported, the message, and a spec that breaks this rule alone.
VIOLATIONS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    (
        "spec",
        FIXED,
        {"replicas": 3},
    ),
    (
        "spec",
        FIXED,
        {"autoscaling": {"mode": "Fixed"}},
    ),
    ("spec.detection", "minFace must not be above maxFace", {"detection": {"minFace": 21.5, "maxFace": 21}}),
    (
        "spec.detection",
        "alsoServe names the profile a second time; list only the others",
        {"detection": {"alsoServe": ["fast", "balanced"]}},
    ),
    ("spec.workers", "settleSeconds must be below graceSeconds", {"workers": {"settleSeconds": 60}}),
    ("spec.autoscaling", "minReplicas must not be above maxReplicas", {"autoscaling": {"minReplicas": 11}}),
    (
        "spec.autoscaling",
        "minReplicas 0 needs mode KEDA with triggers of its own: CPU says nothing where no worker runs",
        {"autoscaling": {"minReplicas": 0, "mode": "KEDA"}},
    ),
    (
        "spec.autoscaling",
        "keda.triggers are only read with mode KEDA",
        {"autoscaling": {"keda": {"triggers": [{"type": "redis"}]}}},
    ),
    (
        "spec.tls",
        "set either secretName, a Secret with tls.crt and tls.key, or issuer, a cert-manager issuer",
        {"tls": {"mutual": MUTUAL}},
    ),
    (
        "spec.tls",
        "set either secretName, a Secret with tls.crt and tls.key, or issuer, a cert-manager issuer",
        {"tls": {"secretName": "tls", "issuer": {"name": "ours"}}},
    ),
    (
        "spec.tls.mutual",
        "no identity can be called none: workers read it as an empty list",
        {"tls": {"secretName": "tls", "mutual": {**MUTUAL, "allowedIdentities": ["web", "none"]}}},
    ),
    (
        "spec.disruptionBudget",
        "set minAvailable or maxUnavailable, not both",
        {"disruptionBudget": {"minAvailable": 1, "maxUnavailable": "10%"}},
    ),
    (
        "spec.service",
        "loadBalancerClass needs type LoadBalancer",
        {"service": {"type": "NodePort", "loadBalancerClass": "example.com/internal"}},
    ),
    ("spec.service", "nodePort needs type NodePort or LoadBalancer", {"service": {"nodePort": 30051}}),
    (
        "spec.podTemplate.env[0]",
        "FACEBLUR_WORKER_ variables are set from the fields of this resource; set those instead",
        {"podTemplate": {"env": [{"name": "FACEBLUR_WORKER_CELLS", "value": "4"}]}},
    ),
    (
        "spec.podTemplate.env[0]",
        "set value or valueFrom, not both",
        {"podTemplate": {"env": [{"name": "A", "value": "b", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]}},
    ),
    (
        "spec.podTemplate.volumes[0]",
        "tmp, tls and client-ca are the worker's own volumes; choose another name",
        {"podTemplate": {"volumes": [{"name": "tls", "emptyDir": {}}]}},
    ),
    (
        "spec.podTemplate.volumes[0]",
        "a volume needs exactly one source",
        {"podTemplate": {"volumes": [{"name": "data"}]}},
    ),
    (
        "spec.podTemplate.volumes[0]",
        "a volume needs exactly one source",
        {"podTemplate": {"volumes": [{"name": "data", "emptyDir": {}, "secret": {"secretName": "x"}}]}},
    ),
    (
        "spec",
        "batch.tls says how the workers' certificate is trusted, and tls, which gives them one, is not set",
        {"batch": {**EMBEDDED, "tls": {}}},
    ),
    (
        "spec",
        "tls.mutual asks batch workers for a certificate too: set batch.tls.clientSecretName",
        {"batch": {**EMBEDDED, "tls": {"caSecretName": "ca"}}, "tls": {"secretName": "tls", "mutual": MUTUAL}},
    ),
    ("spec.batch", BATCH_FIXED, {"batch": {**EMBEDDED, "replicas": 2}}),
    ("spec.batch", BATCH_FIXED, {"batch": {**EMBEDDED, "autoscaling": {"mode": "Fixed"}}}),
    (
        "spec.batch",
        "mode Queue counts pages in Redis, and KEDA cannot read where that is from a URL: set broker.redis.address, "
        "or choose another batch.autoscaling.mode",
        {"batch": {"broker": {"secretName": "broker"}}},
    ),
    ("spec.batch.broker", BROKER, {"batch": {"broker": {}, "autoscaling": {"mode": "CPU"}}}),
    ("spec.batch.broker", BROKER, {"batch": {"broker": {"embedded": {}, "secretName": "broker"}}}),
    (
        "spec.batch.broker",
        "the embedded broker is of type Redis",
        {"batch": {"broker": {"embedded": {}, "type": "RabbitMQ"}}},
    ),
    (
        "spec.batch.broker",
        "redis says where the Redis of a Secret is; it goes with secretName and type Redis",
        {"batch": {"broker": {"embedded": {}, "redis": {"address": "redis:6379"}}}},
    ),
    (
        "spec.batch.broker",
        "redis says where the Redis of a Secret is; it goes with secretName and type Redis",
        {"batch": {"broker": {"secretName": "broker", "type": "RabbitMQ", "redis": {"address": "redis:6379"}}}},
    ),
    (
        "spec.batch.broker",
        "caSecretName and clientSecretName are for the broker of secretName; the embedded one has no TLS",
        {"batch": {"broker": {"embedded": {}, "caSecretName": "ca"}}},
    ),
    (
        "spec.batch.storage[0]",
        "the endpoint is http://, which is not encrypted; set allowHTTP if that is meant",
        {"batch": {**EMBEDDED, "storage": [{"name": "store", "endpoint": "http://store:9000"}]}},
    ),
    (
        "spec.batch.storage[0]",
        "anonymous requests are not signed; leave credentialsSecretName away",
        {"batch": {**EMBEDDED, "storage": [{"name": "store", "anonymous": True, "credentialsSecretName": "keys"}]}},
    ),
    (
        "spec.batch.storage[0]",
        "kmsKey needs encryption aws:kms or aws:kms:dsse",
        {"batch": {**EMBEDDED, "storage": [{"name": "store", "kmsKey": "key", "encryption": "AES256"}]}},
    ),
    (
        "spec.batch.autoscaling",
        "minReplicas must not be above maxReplicas",
        {"batch": {**EMBEDDED, "autoscaling": {"minReplicas": 11}}},
    ),
    (
        "spec.batch.autoscaling",
        "minReplicas 0 needs mode Queue: CPU says nothing where no batch worker runs",
        {"batch": {**EMBEDDED, "autoscaling": {"mode": "CPU", "minReplicas": 0}}},
    ),
)
NAME_TOO_LONG = next(
    rule["message"]
    for rule in SCHEMA["x-kubernetes-validations"]
    if rule["rule"].startswith("size(self.metadata.name)")
)
NAME_NO_LABEL = next(rule["message"] for rule in SCHEMA["x-kubernetes-validations"] if ".matches(" in rule["rule"])


def cluster(spec: object, name: str = "demo", namespace: str = "default") -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": CLUSTER_KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def refused(kube: Cluster, manifest: dict[str, Any]) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        kube.create(manifest, dry_run=True)
    return caught.value


def rules(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """All rules of a schema: the field that is reported, and the message."""
    for rule in schema.get("x-kubernetes-validations", ()):
        yield path, rule["message"]
    for name, field in schema.get("properties", {}).items():
        yield from rules(field, f"{path}.{name}".lstrip("."))
    if "items" in schema:
        yield from rules(schema["items"], f"{path}[0]")


def fields(schema: dict[str, Any], path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """All fields of a schema with their paths; 0 stands for an item and `key` for an entry of a map."""
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from fields(field, (*path, name))
    if "items" in schema:
        yield from fields(schema["items"], (*path, 0))
    if "additionalProperties" in schema:
        yield from fields(schema["additionalProperties"], (*path, "key"))


def bounds() -> Iterator[tuple[tuple[str | int, ...], str, Any]]:
    """For every bound in the spec: the field, the bound, and a value just beyond it."""
    for path, schema in fields(SCHEMA["properties"]["spec"], ("spec",)):
        if "enum" in schema:
            yield path, "enum", "sparkles"
        if "minimum" in schema:
            yield path, "minimum", schema["minimum"] - 1
        if "maximum" in schema:
            yield path, "maximum", schema["maximum"] + 1
        if schema.get("minLength"):
            yield path, "minLength", ""
        if "maxLength" in schema:
            start = "http://" if "http" in schema.get("pattern", "") else "x"
            yield path, "maxLength", start + "x" * schema["maxLength"]
        if "pattern" in schema:
            yield path, "pattern", "-/ ,"
        if "maxItems" in schema:
            yield path, "maxItems", [sample(schema["items"], i) for i in range(schema["maxItems"] + 1)]
        if "maxProperties" in schema:
            yield path, "maxProperties", {f"key{i}": "1" for i in range(schema["maxProperties"] + 1)}
        if schema.get("x-kubernetes-list-type") in ("set", "map"):
            yield path, "unique", [sample(schema["items"], 0)] * 2
        for name in schema.get("required", ()):
            yield (*path, name), "required", None


def sample(schema: dict[str, Any], number: int) -> Any:
    """A value that a field takes."""
    if "enum" in schema:
        return schema["enum"][number % len(schema["enum"])]
    if schema.get("type") == "string":
        return f"x{number}"
    return {name: sample(schema["properties"][name], number) for name in schema.get("required", ())}


def placed(path: tuple[str | int, ...], value: Any, schema: dict[str, Any]) -> Any:
    """An object with a value at a path, and on the way there what is required."""
    if not path:
        return value
    step, rest = path[0], path[1:]
    if isinstance(step, int):
        return [placed(rest, value, schema["items"])]
    inner = schema.get("properties", {}).get(step, schema.get("additionalProperties"))
    others = {name: sample(schema["properties"][name], 0) for name in schema.get("required", ())}
    result = others | {step: placed(rest, value, inner)}
    if not rest and value is None:
        del result[step]
    return result


def dotted(path: tuple[str | int, ...]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")


@pytest.mark.parametrize(("field", "message", "spec"), VIOLATIONS, ids=[f"{v[0]}: {v[1]}"[:70] for v in VIOLATIONS])
def test_a_spec_that_breaks_a_rule_is_refused_in_the_words_of_the_rule(
    kube: Cluster, field: str, message: str, spec: dict[str, Any]
) -> None:
    error = refused(kube, cluster(spec))
    assert (error.status, error.reason) == (422, "Invalid")
    assert [cause.field for cause in error.causes] == [field]
    assert error.causes[0].message.endswith(f": {message}")


@pytest.mark.parametrize(
    ("name", "message"),
    [("a" * (naming.MAX_NAME_LENGTH + 1), NAME_TOO_LONG), ("1st", NAME_NO_LABEL), ("my.cluster", NAME_NO_LABEL)],
)
def test_a_name_that_services_cannot_be_made_from_is_refused(kube: Cluster, name: str, message: str) -> None:
    error = refused(kube, cluster({}, name))
    assert [cause.message.endswith(f": {message}") for cause in error.causes] == [True]


def test_the_longest_name_is_taken(kube: Cluster) -> None:
    kube.apply(cluster({}, "a" * naming.MAX_NAME_LENGTH), dry_run=True)


def test_every_rule_of_the_definition_has_a_spec_that_breaks_it() -> None:
    broken = {(field, message) for field, message, _ in VIOLATIONS}
    assert broken | {("", NAME_TOO_LONG), ("", NAME_NO_LABEL)} == set(rules(SCHEMA))


@pytest.mark.parametrize(
    ("path", "bound", "value"), list(bounds()), ids=[f"{dotted(path)} {bound}" for path, bound, _ in bounds()]
)
def test_a_value_beyond_a_bound_is_refused_at_its_field(
    kube: Cluster, path: tuple[str | int, ...], bound: str, value: Any
) -> None:
    spec = placed(path[1:], value, SCHEMA["properties"]["spec"])
    error = refused(kube, cluster(spec))
    assert error.status == 422
    assert dotted(path) in {cause.field.removesuffix("[1]") for cause in error.causes}, error.message


@pytest.mark.parametrize("spec", [None, {}], ids=["no spec", "an empty spec"])
def test_every_default_of_the_models_is_filled_in_by_the_api_server(kube: Cluster, spec: dict[str, Any] | None) -> None:
    manifest = cluster(spec)
    if spec is None:
        del manifest["spec"]
    answer = kube.apply(manifest, dry_run=True)
    assert answer["spec"] == FaceBlurClusterSpec().model_dump(mode="json", by_alias=True, exclude_none=True)


def test_objects_that_are_given_in_part_get_their_other_defaults(kube: Cluster) -> None:
    parts = {
        path[1:]: schema
        for path, schema in fields(SCHEMA["properties"]["spec"], ("spec",))
        if schema.get("default") is not None and "properties" in schema and len(path) > 1 and path[1] != "batch"
    }
    spec: dict[str, Any] = {}
    for path in parts:
        place = spec
        for step in path:
            place = place.setdefault(str(step), {})
    answer = kube.apply(cluster(spec), dry_run=True)
    assert answer["spec"] == FaceBlurClusterSpec().model_dump(mode="json", by_alias=True, exclude_none=True)


def test_batches_that_are_asked_for_in_few_words_get_their_defaults(kube: Cluster) -> None:
    parts: dict[str, Any] = {
        "workers": {"resources": {}},
        "autoscaling": {},
        "scheduling": {},
        "storage": [{"name": "a"}],
    }
    for spec in ({"batch": EMBEDDED}, {"batch": {**EMBEDDED, **parts}}):
        answer = kube.apply(cluster(spec), dry_run=True)
        wanted = FaceBlurClusterSpec.model_validate(spec)
        assert answer["spec"] == wanted.model_dump(mode="json", by_alias=True, exclude_none=True)


def test_null_means_the_default_where_there_is_one(kube: Cluster) -> None:
    answer = kube.apply(cluster({"redaction": {"cells": None, "method": None}, "workers": None}), dry_run=True)
    assert answer["spec"] == FaceBlurClusterSpec().model_dump(mode="json", by_alias=True, exclude_none=True)


@pytest.mark.parametrize(
    ("name", "spec"), [("sparkles", {"sparkles": 1}), ("minReplica", {"autoscaling": {"minReplica": 1}})]
)
def test_an_unknown_field_is_refused_and_named(kube: Cluster, name: str, spec: dict[str, Any]) -> None:
    assert re.search(rf'unknown field "spec[.a-z]*\.{name}"', refused(kube, cluster(spec)).message)
    with pytest.raises(RefusedError, match=rf"\.{name}: field not declared in schema"):
        kube.apply(cluster(spec), dry_run=True)


def test_kubernetes_own_structures_are_passed_through(kube: Cluster) -> None:
    spec = {
        "scheduling": {"tolerations": [{"key": "gpu", "operator": "Exists"}], "affinity": {"podAffinity": {"a": [1]}}},
        "podTemplate": {"volumes": [{"name": "models", "configMap": {"name": "x", "items": [{"key": "a"}]}}]},
    }
    answer = kube.apply(cluster(spec), dry_run=True)["spec"]
    assert answer["scheduling"]["affinity"] == {"podAffinity": {"a": [1]}}
    assert answer["podTemplate"]["volumes"] == spec["podTemplate"]["volumes"]


@pytest.mark.parametrize("file", ["faceblurcluster.yaml", "faceblurcluster-batch.yaml", "faceblurcluster-full.yaml"])
def test_the_examples_are_taken_and_read_as_they_were_written(kube: Cluster, file: str) -> None:
    manifest = yaml.safe_load((EXAMPLES / file).read_text(encoding="utf-8"))
    manifest["metadata"]["namespace"] = "default"
    answer = kube.apply(manifest, dry_run=True)
    read = FaceBlurCluster.model_validate(answer)
    assert read.spec.model_dump(mode="json", by_alias=True, exclude_none=True) == answer["spec"]
    assert read.spec == FaceBlurClusterSpec.model_validate(manifest["spec"])


def test_the_full_example_has_every_field() -> None:
    text = (EXAMPLES / "faceblurcluster-full.yaml").read_text(encoding="utf-8")
    names = {path[-1] for path, _ in fields(SCHEMA["properties"]["spec"]) if path and path[-1] not in (0, "key")}
    assert sorted(name for name in names if not re.search(rf"\b{name}\b", text)) == []


def test_status_is_a_subresource_and_gets_no_defaults(kube: Cluster, namespace: str) -> None:
    manifest = cluster({"paused": True}, namespace=namespace)
    kube.apply({**manifest, "status": {"address": "dns:///forged"}})
    assert (kube.get(API_VERSION, CLUSTER_KIND, "demo", namespace) or {}).get("status", {}).get("address") is None
    del manifest["spec"]
    answer = kube.apply({**manifest, "status": {"address": "dns:///demo"}}, subresource="status")
    assert answer["status"]["address"] == "dns:///demo"
    FaceBlurCluster.model_validate(answer)


def test_kubectl_get_shows_what_matters(kube: Cluster, namespace: str) -> None:
    manifest = cluster({"paused": True, "detection": {"profile": "fast"}}, namespace=namespace)
    kube.apply(manifest)
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "AllReady",
        "message": "2 of 2 workers answer.",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    status = {
        "conditions": [ready],
        "readyReplicas": 2,
        "desiredReplicas": 3,
        "updatedReplicas": 1,
        "version": "1.2.3",
        "address": "dns:///demo.shop.svc.cluster.local:50051",
        "image": "registry.example/faceblur-worker:1.2.3",
    }
    kube.apply(
        {**{key: manifest[key] for key in ("apiVersion", "kind", "metadata")}, "status": status}, subresource="status"
    )
    table = kube.request(
        "GET",
        kube.path(API_VERSION, CLUSTER_KIND, None, namespace),
        accept="application/json;as=Table;v=v1;g=meta.k8s.io",
    )
    shown = {
        column["name"]: (cell, column["priority"] > 0)
        for column, cell in zip(table["columnDefinitions"], table["rows"][0]["cells"], strict=True)
    }
    age, _ = shown.pop("Age")
    assert age
    assert shown == {
        "Name": ("demo", False),
        "Ready": ("True", False),
        "Workers": (2, False),
        "Desired": (3, False),
        "Profile": ("fast", False),
        "Version": ("1.2.3", False),
        "Address": ("dns:///demo.shop.svc.cluster.local:50051", False),
        "Reason": ("AllReady", True),
        "Updated": (1, True),
        "Scaling": ("CPU", True),
        "Image": ("registry.example/faceblur-worker:1.2.3", True),
    }
    for name in ("fbc", "faceblur", "faceblurcluster", "faceblur-all"):
        assert kube.kubectl("-n", namespace, "get", name, "-o", "name") == "faceblurcluster.faceblur.io/demo\n"


def test_kubectl_scale_sets_the_workers_where_they_are_fixed(kube: Cluster, namespace: str) -> None:
    spec = {"paused": True, "replicas": 1, "autoscaling": {"mode": "Fixed"}}
    kube.apply(cluster(spec, namespace=namespace))
    kube.kubectl("-n", namespace, "scale", "fbc/demo", "--replicas=4")
    scale = kube.get(API_VERSION, CLUSTER_KIND, "demo", namespace, subresource="scale")
    assert scale is not None
    assert scale["spec"]["replicas"] == 4


def test_kubectl_scale_is_told_why_it_cannot_where_an_autoscaler_decides(kube: Cluster, namespace: str) -> None:
    kube.apply(cluster({"paused": True}, namespace=namespace))
    told = kube.kubectl("-n", namespace, "scale", "fbc/demo", "--replicas=4", check=False)
    assert FIXED in told


def test_kubectl_explain_describes_every_field(kube: Cluster) -> None:
    told = kube.kubectl("explain", "faceblurclusters.spec.redaction.cells")
    assert "Strength: cells across an obscured face." in told


def test_conditions_are_merged_by_their_type(kube: Cluster, namespace: str) -> None:
    manifest = cluster({"paused": True}, namespace=namespace)
    kube.apply(manifest)
    del manifest["spec"]
    for manager, kind in (("one", "First"), ("two", "Second")):
        entry = {
            "type": kind,
            "status": "Unknown",
            "reason": "Test",
            "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        answer = kube.apply(
            {**manifest, "status": {"conditions": [entry]}}, subresource="status", field_manager=manager
        )
    kinds = {entry["type"] for entry in answer["status"]["conditions"]}
    assert kinds >= {"First", "Second"}, json.dumps(answer["status"])
