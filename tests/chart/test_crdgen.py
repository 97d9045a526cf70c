"""From models to structural schemas, and what cannot be translated."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field

from faceblur_operator import crdgen
from faceblur_operator.api.v1alpha1 import FaceBlurClusterSpec, FaceBlurClusterStatus

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "charts" / "faceblur" / "templates" / "crds"


class Colour(StrEnum):
    """Of a thing."""

    RED = "red"
    BLUE = "blue"


class Part(BaseModel):
    """A part."""

    size: int = Field(3, ge=1, le=9, description="Its size.")
    colour: Colour = Field(Colour.RED, description="Its colour.")
    note: str | None = Field(None, max_length=10, description="A note.")


def schema_of(annotation: Any, **field: Any) -> dict[str, Any]:
    """The schema of a field with this type."""
    field.setdefault("description", "A field.")
    model = type(
        "Thing",
        (BaseModel,),
        {"__annotations__": {"value": annotation}, "value": Field(**field), "__doc__": "A thing."},
    )
    return crdgen.structural_schema(model)["properties"]["value"]


def parts(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield schema
    for field in (*schema.get("properties", {}).values(), *filter(None, (schema.get("items"),))):
        yield from parts(field)
    if "additionalProperties" in schema:
        yield from parts(schema["additionalProperties"])


def test_bounds_and_defaults_are_kept() -> None:
    assert schema_of(int, default=3, ge=1, le=9) == {
        "description": "A field.",
        "type": "integer",
        "minimum": 1,
        "maximum": 9,
        "default": 3,
    }


def test_an_optional_field_is_one_that_need_not_be_there() -> None:
    assert schema_of(str | None, default=None, max_length=5) == {
        "description": "A field.",
        "type": "string",
        "maxLength": 5,
    }


def test_null_is_only_a_value_where_it_differs_from_the_default() -> None:
    assert schema_of(int | None, default=3) == {
        "description": "A field.",
        "nullable": True,
        "type": "integer",
        "default": 3,
    }


def test_enumerations_are_inlined_with_the_fields_own_description() -> None:
    assert schema_of(Colour, default=Colour.RED) == {
        "description": "A field.",
        "type": "string",
        "enum": ["red", "blue"],
        "default": "red",
    }


def test_lists_of_enumerations_do_not_repeat_what_these_are() -> None:
    assert schema_of(tuple[Colour, ...], default=())["items"] == {"type": "string", "enum": ["red", "blue"]}


def test_an_object_defaults_to_nothing_so_that_its_fields_defaults_apply() -> None:
    found = schema_of(Part, default=Part())
    assert found["default"] == {}
    assert [found["properties"][name].get("default") for name in ("size", "colour", "note")] == [3, "red", None]


def test_an_object_with_rules_defaults_to_what_they_read() -> None:
    class Inner(BaseModel):
        """Inside."""

        depth: int = Field(1, description="How deep.")

    class Ruled(Part):
        """A part with a rule."""

        inner: Inner = Field(Inner(), description="Inside.")
        model_config = ConfigDict(
            json_schema_extra={
                "x-kubernetes-validations": [{"rule": "self.size > self.inner.depth || has(self.note)", "message": "."}]
            }
        )

    assert schema_of(Ruled, default=Ruled())["default"] == {"size": 3, "inner": {"depth": 1}}


def test_maps_are_typed_by_their_values() -> None:
    found = schema_of(dict[str, Annotated[str, Field(max_length=9)]] | None, default=None, max_length=4)
    assert found == {
        "description": "A field.",
        "type": "object",
        "maxProperties": 4,
        "additionalProperties": {"type": "string", "maxLength": 9},
    }


class Loop(BaseModel):
    """Has itself as a part."""

    inner: Loop | None = Field(None, description="The same again.")


class Open(BaseModel):
    """Takes anything."""

    model_config = ConfigDict(extra="allow")
    size: int = Field(1, description="Its size.")


class Mute(BaseModel):
    """Has a field without a description."""

    size: int = 1


@pytest.mark.parametrize(
    ("annotation", "field", "reason"),
    [
        (int, {"gt": 0}, "no exclusiveMinimum"),
        (float, {"lt": 1}, "no exclusiveMaximum"),
        (int, {"multiple_of": 2}, "no multipleOf"),
        (int | str, {}, "one type"),
        (int | str | None, {"default": None}, "one type"),
        (Any, {}, "anything goes"),
        (Literal["a"], {}, "no const"),
        (dict[str, Any], {}, "a type for its values"),
        (list[Any], {}, "one type for its items"),
        (tuple[int, str], {}, "no prefixItems"),
        (set[str], {}, "no uniqueItems"),
        (Loop, {}, "has itself as a part"),
        (Open, {}, "not both"),
        (Mute, {}, r"Thing\.value\.size: no description"),
        (Part, {"default": Part(size=4)}, "not made of its fields' own defaults"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_translated_is_refused_by_name(annotation: Any, field: dict[str, Any], reason: str) -> None:
    with pytest.raises(crdgen.UntranslatableError, match=reason) as caught:
        schema_of(annotation, **field)
    assert str(caught.value).startswith("Thing.value")


def test_no_schema_has_a_reference_a_union_or_a_title() -> None:
    for model in (FaceBlurClusterSpec, FaceBlurClusterStatus):
        for part in parts(crdgen.structural_schema(model)):
            assert not {"$ref", "anyOf", "title", "$defs"} & part.keys()
            assert "type" in part or part.get("x-kubernetes-int-or-string")


def test_every_list_map_and_text_of_a_spec_is_bounded() -> None:
    for part in parts(crdgen.structural_schema(FaceBlurClusterSpec)):
        if part.get("type") == "array":
            assert "maxItems" in part, part
        if "additionalProperties" in part:
            assert "maxProperties" in part, part
        if part.get("type") == "string":
            assert {"maxLength", "enum"} & part.keys(), part


def test_a_status_has_no_defaults() -> None:
    for kind in crdgen.KINDS:
        schema = crdgen.build_crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        assert not [part for part in parts(schema["properties"]["status"]) if "default" in part]


def test_every_rule_has_a_message_of_its_own() -> None:
    for kind in crdgen.KINDS:
        schema = crdgen.build_crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        for part in parts(schema):
            messages = [rule["message"] for rule in part.get("x-kubernetes-validations", ())]
            assert len(set(messages)) == len(messages)


def test_what_is_printed_is_what_kubectl_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert crdgen.main([]) == 0
    printed = list(yaml.safe_load_all(capsys.readouterr().out))
    assert printed == [crdgen.build_crd(kind) for kind in crdgen.KINDS]


def test_the_committed_templates_are_up_to_date() -> None:
    assert crdgen.main(["--chart", str(TEMPLATES), "--check"]) == 0


def test_a_stale_or_foreign_template_is_noticed_and_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old.yaml").write_text("left over")
    assert crdgen.main(["--chart", str(tmp_path), "--check"]) == 1
    assert "old.yaml" in capsys.readouterr().err
    assert crdgen.main(["--chart", str(tmp_path)]) == 0
    assert crdgen.main(["--chart", str(tmp_path), "--check"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{kind.plural}.yaml" for kind in crdgen.KINDS)


def test_a_text_that_helm_would_run_is_refused() -> None:
    crd = crdgen.build_crd(crdgen.KINDS[0])
    crd["spec"]["names"]["singular"] = "{{ .Values.x }}"
    with pytest.raises(crdgen.UntranslatableError, match="Helm would run"):
        crdgen.to_template(crd)
