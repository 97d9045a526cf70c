"""Makes the CustomResourceDefinitions from the pydantic models, so that there is one place where a field is described.

The API server wants *structural* schemas: no references, no unions, a type for everything, bounds that let it estimate
what a CEL rule costs. What pydantic emits is close, and this module closes the gap. It refuses what it cannot translate
without a change of meaning, instead of writing a schema that accepts something else than the models do.

``python -m faceblur_operator.crdgen`` prints the definitions as ``kubectl apply`` takes them; with ``--chart FOLDER``
it writes them as templates of the chart, and with ``--check`` it only tells whether these are up to date.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from . import job_naming, naming
from .api import v1alpha1, v1alpha1_job

Schema = dict[str, Any]

_KEPT = (
    "type",
    "format",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
)
_TRANSLATED = ("title", "description", "default", "required", "properties", "additionalProperties", "items")
_CHART_HEADER = """\
{{/* Made by `make generate` from operator/faceblur_operator/api: change it there. */}}
{{- if .Values.crds.create }}
"""
_CHART_METADATA = """\
  labels:
    {{- include "faceblur.labels" . | nindent 4 }}
  {{- if .Values.crds.keep }}
  annotations:
    helm.sh/resource-policy: keep
  {{- end }}
"""
_CHART_FOOTER = "{{- end }}\n"


class UntranslatableError(ValueError):
    """A model uses what a structural schema cannot say. The text names the field."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of ``kubectl get``.

    Attributes:
        name: Its heading.
        path: JSONPath of its value within the resource.
        type: ``string``, ``integer`` or ``date``.
        wide: Whether it only shows with ``-o wide``.
    """

    name: str
    path: str
    type: str = "string"
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """What a definition says besides the schema.

    Attributes:
        model: The resource; of its fields ``spec`` and ``status`` are translated, ``metadata`` is Kubernetes' own.
        kind: As in manifests.
        plural: As in URLs.
        short_names: What may be typed instead of the plural.
        rules: CEL rules about the whole resource, with their messages.
        columns: Of ``kubectl get``, in this order.
        scale: Paths of the scale subresource; None: it cannot be scaled.
    """

    model: type[BaseModel]
    kind: str
    plural: str
    short_names: tuple[str, ...]
    rules: tuple[tuple[str, str], ...]
    columns: tuple[Column, ...]
    scale: Mapping[str, str] | None = None


# Names from which those of other objects are made, a Service's among them.
_NAME_RULES = (
    (
        f"size(self.metadata.name) <= {naming.MAX_NAME_LENGTH}",
        f"metadata.name may have at most {naming.MAX_NAME_LENGTH} characters, because longer names are made from it",
    ),
    (
        f"self.metadata.name.matches('{naming.NAME_PATTERN}')",
        "metadata.name must start with a letter and have only lower-case letters, digits and '-', because a Service "
        "is named after it",
    ),
)

_JOB_NAME_RULES = (
    (
        f"size(self.metadata.name) <= {job_naming.MAX_NAME_LENGTH}",
        f"metadata.name may have at most {job_naming.MAX_NAME_LENGTH} characters, because longer names are made "
        "from it",
    ),
    (
        f"self.metadata.name.matches('{job_naming.NAME_PATTERN}')",
        "metadata.name must have only lower-case letters, digits and '-', because it is the value of a label",
    ),
)

KINDS: tuple[Kind, ...] = (
    Kind(
        model=v1alpha1.FaceBlurCluster,
        kind=v1alpha1.CLUSTER_KIND,
        plural=v1alpha1.CLUSTER_PLURAL,
        short_names=("fbc", "faceblur"),
        rules=_NAME_RULES,
        columns=(
            Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
            Column("Workers", ".status.readyReplicas", "integer"),
            Column("Desired", ".status.desiredReplicas", "integer"),
            Column("Profile", ".spec.detection.profile"),
            Column("Version", ".status.version"),
            Column("Address", ".status.address"),
            Column("Age", ".metadata.creationTimestamp", "date"),
            Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', wide=True),
            Column("Updated", ".status.updatedReplicas", "integer", wide=True),
            Column("Scaling", ".spec.autoscaling.mode", wide=True),
            Column("Image", ".status.image", wide=True),
        ),
        scale={
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        },
    ),
    Kind(
        model=v1alpha1_job.FaceBlurJob,
        kind=v1alpha1_job.JOB_KIND,
        plural=v1alpha1_job.JOB_PLURAL,
        short_names=("fbj",),
        rules=_JOB_NAME_RULES,
        columns=(
            Column("Phase", ".status.phase"),
            Column("Percent", ".status.progress.percent", "integer"),
            Column("Done", ".status.progress.done", "integer"),
            Column("Objects", ".status.progress.objects", "integer"),
            Column("Errors", ".status.progress.errors", "integer"),
            Column("Rate", ".status.progress.rate"),
            Column("Left", ".status.progress.timeLeft"),
            Column("Age", ".metadata.creationTimestamp", "date"),
            Column("Faces", ".status.progress.faces", "integer", wide=True),
            Column("Cluster", ".spec.clusterRef.name", wide=True),
            Column("Schedule", ".spec.schedule", wide=True),
            Column("Last-Run", ".status.lastScheduleTime", "date", wide=True),
            Column("Reason", '.status.conditions[?(@.type=="Progressing")].reason', wide=True),
            Column("Report", ".status.progress.report", wide=True),
        ),
    ),
)


def structural_schema(model: type[BaseModel]) -> Schema:
    """Return the structural schema of a model.

    Objects default to ``{}``, or to what their rules read, where pydantic dumps all their values: the API server fills
    in the fields' own defaults, also those of an object that is given in part.

    Raises:
        UntranslatableError: The model uses what such a schema cannot say.
    """
    schema = model.model_json_schema(by_alias=True)
    return _translate(schema, schema.pop("$defs", {}), model.__name__, ())


def build_crd(kind: Kind) -> dict[str, Any]:
    """Return the definition of a kind, as the API server takes it.

    Raises:
        UntranslatableError: Its model uses what a structural schema cannot say.
    """
    fields = kind.model.model_fields
    status = structural_schema(_model_of(fields["status"].annotation))
    spec = structural_schema(_model_of(fields["spec"].annotation))
    if not spec.get("required"):
        spec["default"] = _seed(spec)
    version: dict[str, Any] = {
        "name": v1alpha1.VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [
            {"name": column.name, "type": column.type, "jsonPath": column.path}
            | ({"priority": 1} if column.wide else {})
            for column in kind.columns
        ],
        "subresources": {"status": {}} | ({"scale": dict(kind.scale)} if kind.scale else {}),
        "schema": {
            "openAPIV3Schema": {
                "description": _sentence(kind.model.__doc__),
                "type": "object",
                "properties": {
                    "apiVersion": {"type": "string"},
                    "kind": {"type": "string"},
                    "metadata": {"type": "object"},
                    "spec": spec,
                    "status": _without_defaults(status),
                },
                "x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in kind.rules],
            }
        },
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{v1alpha1.GROUP}"},
        "spec": {
            "group": v1alpha1.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
                "plural": kind.plural,
                "singular": kind.kind.lower(),
                "shortNames": list(kind.short_names),
                "categories": ["faceblur-all"],
            },
            "versions": [version],
        },
    }


def to_yaml(manifest: Mapping[str, Any]) -> str:
    """Return a manifest as YAML in the order in which it was built."""
    return yaml.dump(dict(manifest), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def to_template(crd: Mapping[str, Any]) -> str:
    """Return a definition as a template of the chart, switched by ``crds.create`` and ``crds.keep``.

    Raises:
        UntranslatableError: A text in it would be taken for a template.
    """
    text = to_yaml(crd)
    if "{{" in text:
        raise UntranslatableError(f"{crd['metadata']['name']}: a description has '{{{{', which Helm would run")
    name = f"  name: {crd['metadata']['name']}\n"
    before, after = text.split(name, 1)
    return _CHART_HEADER + before + name + _CHART_METADATA + after + _CHART_FOOTER


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the definitions, or write or check the chart's."""
    parser = argparse.ArgumentParser(prog="python -m faceblur_operator.crdgen", description=__doc__.split("\n")[0])
    parser.add_argument("--chart", type=Path, metavar="FOLDER", help="write them there as templates of the chart")
    parser.add_argument("--check", action="store_true", help="with --chart: write nothing, fail if a file differs")
    options = parser.parse_args(arguments)
    crds = [build_crd(kind) for kind in KINDS]
    if options.chart is None:
        sys.stdout.write("---\n".join(map(to_yaml, crds)))
        return 0
    wanted = {f"{crd['spec']['names']['plural']}.yaml": to_template(crd) for crd in crds}
    if options.check:
        found = {path.name: path.read_text(encoding="utf-8") for path in options.chart.glob("*.yaml")}
        stale = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        for name in stale:
            print(f"{options.chart / name} is not what the models say: run make generate", file=sys.stderr)  # noqa: T201
        return 1 if stale else 0
    options.chart.mkdir(parents=True, exist_ok=True)
    for path in options.chart.glob("*.yaml"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (options.chart / name).write_text(text, encoding="utf-8")
    return 0


def _translate(schema: Schema, definitions: Mapping[str, Schema], where: str, inside: tuple[str, ...]) -> Schema:
    schema, inside = _resolve(schema, definitions, where, inside)
    unknown = sorted(schema.keys() - set(_KEPT) - set(_TRANSLATED) - {"nullable"})
    if unknown:
        raise UntranslatableError(f"{where}: a structural schema has no {', '.join(unknown)}")
    if schema.get("type") == "object" and "x-kubernetes-preserve-unknown-fields" not in schema:
        _check_object(schema, where)
    elif "type" not in schema and "x-kubernetes-int-or-string" not in schema:
        raise UntranslatableError(f"{where}: anything goes here; give it a type")
    result: Schema = {}
    if "description" in schema:
        result["description"] = _sentence(schema["description"])
    result |= {key: schema[key] for key in ("nullable", *_KEPT) if key in schema}
    if "default" in schema:
        result["default"] = schema["default"]
    if schema.get("required"):
        result["required"] = schema["required"]
    if "properties" in schema:
        properties = result["properties"] = {}
        for name, field in schema["properties"].items():
            properties[name] = _translate(field, definitions, f"{where}.{name}", inside)
            if "description" not in properties[name]:
                raise UntranslatableError(f"{where}.{name}: no description, so `kubectl explain` has nothing to say")
        if "default" in schema:
            _check_default(schema, where)
            result["default"] = _seed(result)
    if "additionalProperties" in schema:
        value = _translate(schema["additionalProperties"], definitions, f"{where}.*", inside)
        result["additionalProperties"] = value
    if schema.get("type") == "array":
        if not isinstance(schema.get("items"), dict) or not schema["items"]:
            raise UntranslatableError(f"{where}: a list needs one type for its items")
        items = result["items"] = _translate(schema["items"], definitions, f"{where}[]", inside)
        if "properties" not in items:
            items.pop("description", None)  # an enumeration's own; the list's says more
    return result


def _resolve(
    schema: Schema, definitions: Mapping[str, Schema], where: str, inside: tuple[str, ...]
) -> tuple[Schema, tuple[str, ...]]:
    """Put what is referred to in place of the reference, and ``X | None`` into the form of optional fields."""
    while "anyOf" in schema or "$ref" in schema:
        schema = dict(schema)
        if "anyOf" in schema:
            choices = schema.pop("anyOf")
            others = [choice for choice in choices if choice != {"type": "null"}]
            if len(others) != 1 or len(others) == len(choices):
                raise UntranslatableError(f"{where}: a field has one type, or one type and None")
            # The API server drops a null that it is given, so it only has to be allowed where it means something.
            if schema.get("default") is None:
                schema.pop("default", None)
            else:
                schema["nullable"] = True
            schema = {**others[0], **schema}
        if "$ref" in schema:
            name = schema.pop("$ref").removeprefix("#/$defs/")
            if name in inside:
                raise UntranslatableError(f"{where}: {name} has itself as a part")
            inside = (*inside, name)
            schema = {**definitions[name], **schema}
    return schema, inside


def _check_object(schema: Schema, where: str) -> None:
    if "properties" in schema and "additionalProperties" in schema:
        raise UntranslatableError(f"{where}: either named fields or a map, not both")
    if "properties" not in schema and not isinstance(schema.get("additionalProperties"), dict):
        raise UntranslatableError(f"{where}: a map needs a type for its values, and an object needs fields")


def _check_default(schema: Schema, where: str) -> None:
    own = {name: field["default"] for name, field in schema["properties"].items() if "default" in field}
    if schema["default"] != own:
        raise UntranslatableError(f"{where}: its default is not made of its fields' own defaults")


def _seed(schema: Schema) -> Schema:
    """Return the default of an object: what its rules read, since they are held to it before it is filled in."""
    rules = " ".join(rule["rule"] for rule in schema.get("x-kubernetes-validations", ()))
    read = set(re.findall(r"\bself\.(\w+)", rules))
    return {
        name: _filled_in(field) for name, field in schema["properties"].items() if name in read and "default" in field
    }


def _filled_in(schema: Schema) -> Any:
    if "properties" not in schema:
        return schema["default"]
    return {name: _filled_in(field) for name, field in schema["properties"].items() if "default" in field}


def _without_defaults(schema: Schema) -> Schema:
    """A status says what was observed; what was not, the API server is not to make up."""
    result = {key: value for key, value in schema.items() if key != "default"}
    if "properties" in result:
        result["properties"] = {name: _without_defaults(field) for name, field in result["properties"].items()}
    if "items" in result:
        result["items"] = _without_defaults(result["items"])
    return result


def _model_of(annotation: Any) -> type[BaseModel]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    raise UntranslatableError(f"{annotation}: spec and status have to be models")


def _sentence(text: str | None) -> str:
    """One paragraph per line, as `kubectl explain` wraps them itself."""
    paragraphs = (text or "").strip().split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


class _Dumper(yaml.SafeDumper):
    """Repeats what occurs twice, since anchors would be in the way of readers and of Helm."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Indent lists under their key."""
        super().increase_indent(flow, False)


if __name__ == "__main__":
    sys.exit(main())
