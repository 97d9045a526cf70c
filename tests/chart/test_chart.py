"""What the chart renders, in every way in which it is used."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

import faceblur
from faceblur_operator import crdgen, kube
from faceblur_operator.config import OperatorSettings
from faceblur_process.settings import unknown_variables

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "faceblur"
SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
DIGEST = "sha256:" + 64 * "0"

Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]


def one(objects: list[Manifest], kind: str) -> Manifest:
    (found,) = (item for item in objects if item["kind"] == kind)
    return found


def pods(objects: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Every pod's name and spec, those of templates included."""
    for item in objects:
        if item["kind"] == "Pod":
            yield item["metadata"]["name"], item["spec"]
        elif "template" in item.get("spec", {}):
            yield item["metadata"]["name"], item["spec"]["template"]["spec"]


def settings_of(deployment: Manifest) -> dict[str, str]:
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return {entry["name"]: entry.get("value", "") for entry in container["env"]}


def rules_of(item: Manifest) -> dict[tuple[str, str], set[str]]:
    """The verbs of a role by group and resource."""
    rights: dict[tuple[str, str], set[str]] = {}
    for rule in item["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                rights.setdefault((group, resource), set()).update(rule["verbs"])
    return rights


def documented_rights() -> dict[tuple[str, str], set[str]]:
    """What the module that talks to the API server says that it needs."""
    rights: dict[tuple[str, str], set[str]] = {}
    for line in (kube.__doc__ or "").splitlines():
        if match := re.fullmatch(r"    (\(core\)|[a-z.0-9-]+) {2,}([a-z/ ]+?) {2,}([a-z ]+?)(?: \(.*\))?", line):
            group = "" if match[1] == "(core)" else match[1]
            for resource in match[2].split():
                rights.setdefault((group, resource), set()).update(match[3].split())
    return rights


def test_it_lints_without_a_word_in_every_variant(variant: Manifest) -> None:
    report = helm_python.lint(CHART, variant, strict=True, kube_version="v1.31.0")
    assert report["errors"] == []
    assert [message["error"] for message in report["messages"]] == ["icon is recommended"]


def test_every_variant_renders_distinct_objects_in_their_namespaces(render: Render, variant: Manifest) -> None:
    objects = render(variant)
    places = [(item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]) for item in objects]
    assert len(set(places)) == len(places)
    cluster_wide = {"CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"}
    served = {"faceblur-system", *variant.get("watchNamespaces", ())}
    for kind, namespace, name in places:
        assert (namespace is None) == (kind in cluster_wide), (kind, name)
        assert namespace in {None, *served}


def test_all_pods_are_as_restricted_namespaces_want_them(render: Render, variant: Manifest) -> None:
    found = dict(pods(render(variant)))
    assert len(found) == 2
    for spec in found.values():
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & spec.keys()
        assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        assert all(volume.keys() <= {"name", "emptyDir"} for volume in spec.get("volumes", ()))
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]


def test_there_is_one_operator_and_never_two(render: Render, variant: Manifest) -> None:
    spec = one(render(variant), "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_the_operator_may_do_what_it_uses_and_nothing_else(render: Render) -> None:
    objects = render()
    role = next(i for i in objects if i["kind"] == "ClusterRole" and i["metadata"]["name"].endswith("-operator"))
    assert rules_of(role) == documented_rights()
    assert len(documented_rights()) > 10


def test_no_role_has_a_wildcard_or_could_give_itself_more(render: Render, variant: Manifest) -> None:
    for role in (item for item in render(variant) if item["kind"] in ("Role", "ClusterRole")):
        for (group, resource), verbs in rules_of(role).items():
            assert not {"*", "escalate", "bind", "impersonate"} & ({group, resource} | verbs)
            assert (group, resource) not in {("", "pods/exec"), ("", "nodes")}
            assert resource != "secrets" or verbs == {"get"}


def test_with_namespaces_to_watch_nothing_is_cluster_wide_but_the_definitions(render: Render) -> None:
    objects = render({"watchNamespaces": ["shop", "archive"]})
    wide = {item["kind"] for item in objects if "namespace" not in item["metadata"]}
    assert wide == {"CustomResourceDefinition"}
    roles = [item for item in objects if item["kind"] == "Role"]
    assert [role["metadata"]["namespace"] for role in roles] == ["shop", "archive"]
    assert all(rules_of(role) == documented_rights() for role in roles)
    bindings = [item for item in objects if item["kind"] == "RoleBinding"]
    account = one(objects, "ServiceAccount")["metadata"]
    for role, binding in zip(roles, bindings, strict=True):
        assert binding["metadata"]["namespace"] == role["metadata"]["namespace"]
        assert binding["roleRef"]["name"] == role["metadata"]["name"]
        assert binding["subjects"] == [
            {"kind": "ServiceAccount", "name": account["name"], "namespace": account["namespace"]}
        ]


def test_those_who_edit_a_namespace_may_edit_and_scale_its_clusters(render: Render) -> None:
    roles = {item["metadata"]["name"].rsplit("-", 1)[-1]: item for item in render() if item["kind"] == "ClusterRole"}
    for verb in ("view", "edit"):
        labels = {name.rsplit("-", 1)[-1] for name in roles[verb]["metadata"]["labels"] if "aggregate-to" in name}
        assert labels == ({"view", "edit", "admin"} if verb == "view" else {"edit", "admin"})
    verbs = rules_of(roles["edit"])[("faceblur.io", "faceblurclusters")]
    assert {"create", "update", "patch", "delete"} <= verbs
    assert ("faceblur.io", "faceblurclusters/status") not in rules_of(roles["edit"])


def test_every_variable_is_a_setting_that_the_operator_takes(
    render: Render, variant: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = settings_of(one(render(variant), "Deployment"))
    assert unknown_variables(OperatorSettings, values) == []
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    settings = OperatorSettings()
    assert settings.namespaces == tuple(variant.get("watchNamespaces", ()))
    image = {"repository": "localhost/faceblur-worker", **variant.get("workerImage", {})}
    assert settings.worker_image.startswith(image["repository"])
    assert settings.worker_image.endswith(image.get("digest", faceblur.__version__))


def test_the_operator_knows_its_own_labels_and_namespace(render: Render, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = one(render({"podLabels": {"team": "privacy"}}), "Deployment")
    for name, value in settings_of(deployment).items():
        monkeypatch.setenv(name, value)
    assert OperatorSettings().own_labels == deployment["spec"]["selector"]["matchLabels"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    by_name = {entry["name"]: entry for entry in container["env"]}
    assert by_name["FACEBLUR_OPERATOR_OWN_NAMESPACE"]["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.namespace"}}


def test_everything_that_selects_the_operator_finds_it(render: Render) -> None:
    objects = render({"metrics": {"serviceMonitor": {"enabled": True}}, "podLabels": {"app.kubernetes.io/name": "x"}})
    labels = one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    service = one(objects, "Service")
    for selector in (
        one(objects, "Deployment")["spec"]["selector"]["matchLabels"],
        service["spec"]["selector"],
        one(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    monitor = one(objects, "ServiceMonitor")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert [end["port"] for end in monitor["endpoints"]] == [port["name"] for port in service["spec"]["ports"]]


def test_probes_ask_where_the_operator_listens(render: Render) -> None:
    deployment = one(render(), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (port,) = container["ports"]
    assert settings_of(deployment)["FACEBLUR_OPERATOR_ADDRESS"] == f"0.0.0.0:{port['containerPort']}"
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"] == {"path": "/healthz", "port": port["name"]}


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        ({}, f"localhost/faceblur-operator:{faceblur.__version__}"),
        ({"tag": "e2e"}, "localhost/faceblur-operator:e2e"),
        ({"tag": "e2e", "digest": DIGEST}, f"localhost/faceblur-operator@{DIGEST}"),
    ],
)
def test_a_digest_wins_over_a_tag_and_the_version_is_the_default(
    render: Render, image: Manifest, reference: str
) -> None:
    for _, spec in pods(render({"image": image})):
        assert [container["image"] for container in spec["containers"]] == [reference]


def test_the_definitions_are_those_of_the_models(render: Render) -> None:
    rendered = [item for item in render() if item["kind"] == "CustomResourceDefinition"]
    for item in rendered:
        assert item["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
        assert item["metadata"].pop("labels")["app.kubernetes.io/managed-by"] == "Helm"
    assert rendered == [crdgen.build_crd(kind) for kind in crdgen.KINDS]


def test_the_definitions_can_go_with_the_release_or_be_left_out(render: Render) -> None:
    definitions = [item for item in render({"crds": {"keep": False}}) if item["kind"] == "CustomResourceDefinition"]
    assert len(definitions) == len(crdgen.KINDS)
    assert not any("annotations" in definition["metadata"] for definition in definitions)
    assert "CustomResourceDefinition" not in {item["kind"] for item in render({"crds": {"create": False}})}


def test_the_chart_says_which_definitions_it_has() -> None:
    annotations = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["annotations"]
    crds = [crdgen.build_crd(kind) for kind in crdgen.KINDS]
    assert [entry["name"] for entry in yaml.safe_load(annotations["artifacthub.io/crds"])] == [
        crd["metadata"]["name"] for crd in crds
    ]
    assert yaml.safe_load(annotations["artifacthub.io/crdsExamples"]) == [
        yaml.safe_load((ROOT / "examples" / name).read_text(encoding="utf-8"))
        for name in ("faceblurcluster.yaml", "faceblurjob.yaml")
    ]


def test_chart_and_images_have_the_version_of_the_package(chart: helm_python.Chart) -> None:
    assert (chart.version, chart.metadata["appVersion"]) == (faceblur.__version__, faceblur.__version__)


def closed_objects(schema: Manifest, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if schema.get("additionalProperties") is False:
        yield path
    for name, field in schema.get("properties", {}).items():
        yield from closed_objects(field, (*path, name))


@pytest.mark.parametrize("path", list(closed_objects(SCHEMA)), ids=lambda path: ".".join(path) or "root")
def test_a_typing_mistake_in_a_value_is_refused(chart: helm_python.Chart, path: tuple[str, ...]) -> None:
    values: Manifest = {"sparkles": True}
    for key in reversed(path):
        values = {key: values}
    with pytest.raises(helm_python.HelmValuesError, match="sparkles"):
        chart.validate_schema(values)


@pytest.mark.parametrize(
    "values",
    [
        {"log": {"level": "loud"}},
        {"image": {"digest": "sha256:abc"}},
        {"image": {"tag": 1.0}},
        {"watchNamespaces": ["Shop"]},
        {"concurrency": 0},
        {"podLabels": {"a": 1}},
        {"metrics": {"serviceMonitor": {"interval": "often"}}},
        {"imagePullSecrets": ["name"]},
    ],
    ids=json.dumps,
)
def test_a_value_of_the_wrong_kind_is_refused(chart: helm_python.Chart, values: Manifest) -> None:
    with pytest.raises(helm_python.HelmValuesError):
        chart.validate_schema(values)


def test_it_can_be_a_part_of_another_chart(chart: helm_python.Chart) -> None:
    chart.validate_schema({"global": {"imageRegistry": "registry.example.com"}})


def test_a_missing_service_account_is_asked_for(render: Render) -> None:
    with pytest.raises(helm_python.HelmError, match=r"serviceAccount\.name is needed"):
        render({"serviceAccount": {"create": False}})


def test_every_value_is_read_by_a_template() -> None:
    templates = "".join(path.read_text(encoding="utf-8") for path in CHART.rglob("templates/**/*") if path.is_file())
    # Read as parts of what has a name of its own.
    templates = templates.replace("$rule.", ".Values.metrics.prometheusRule.").replace("$image.", ".Values.image.")
    templates += templates.replace(".Values.image.", ".Values.workerImage.")
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))

    def paths(node: object, path: str) -> Iterator[str]:
        if isinstance(node, dict) and node and f".Values{path} " not in templates.replace("}", " "):
            for key, child in node.items():
                yield from paths(child, f"{path}.{key}")
        else:
            yield path

    assert [path for path in paths(values, "") if not re.search(rf"\.Values{re.escape(path)}\b", templates)] == []


def test_notes_say_what_to_do_next(chart: helm_python.Chart, variant: Manifest) -> None:
    notes = chart.render(variant, name="blur", namespace="faceblur-system")["faceblur/templates/NOTES.txt"]
    assert "kubectl apply -n NAMESPACE" in notes
    assert ("not in any registry" in notes) == ("workerImage" not in variant)
    assert "<no value>" not in notes


def test_two_releases_share_nothing_that_is_cluster_wide(chart: helm_python.Chart) -> None:
    names = []
    for namespace in ("one", "two"):
        files = chart.render({"crds": {"create": False}}, name="blur", namespace=namespace)
        documents = [item for text in files.values() if "kind: Cluster" in text for item in yaml.safe_load_all(text)]
        names += [(item["kind"], item["metadata"]["name"]) for item in documents if item]
    assert len(names) == len(set(names)) == 8
