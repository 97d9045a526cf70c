"""What follows from values.yaml: the schema and the README's table."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_SPEC = importlib.util.spec_from_file_location("generate_chart", ROOT / "tools" / "generate_chart.py")
assert _SPEC is not None
assert _SPEC.loader is not None
generate_chart = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = generate_chart  # where dataclasses look
_SPEC.loader.exec_module(generate_chart)

VALUES = """\
# Some words about the file.

image:
  # -- Where it is.
  # It goes on here.
  repository: faceblur
  # -- When.
  # @schema {"enum": ["Always", "Never"]}
  pull: Never

# -- Free labels.
labels: {}

# -- Names.
# @schema {"items": {"type": "string"}}
names: []
"""


def test_what_is_generated_is_what_is_committed() -> None:
    for path, text in generate_chart.generated().items():
        assert (ROOT / path).read_text(encoding="utf-8") == text, f"{path}: run make generate"


def test_the_schema_follows_from_defaults_and_comments() -> None:
    schema = generate_chart.build_schema(generate_chart.read_values(VALUES))
    assert schema["additionalProperties"] is False
    image = schema["properties"]["image"]
    assert image["additionalProperties"] is False
    assert image["properties"]["repository"] == {"description": "Where it is. It goes on here.", "type": "string"}
    assert image["properties"]["pull"]["enum"] == ["Always", "Never"]
    assert schema["properties"]["labels"]["additionalProperties"] == {"type": "string"}
    assert schema["properties"]["names"]["items"] == {"type": "string"}


def test_the_table_has_every_value_by_its_path() -> None:
    table = generate_chart.build_table(generate_chart.read_values(VALUES))
    assert table.splitlines()[2:] == [
        '| `image.repository` | `"faceblur"` | Where it is. It goes on here. |',
        '| `image.pull` | `"Never"` | When. |',
        "| `labels` | `{}` | Free labels. |",
        "| `names` | `[]` | Names. |",
    ]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ("a: 1\n", "a has no comment"),
        ("# -- A group.\n\na:\n  b: 1\n", r"a\.b has no comment"),
        ("# -- Anything.\na:\n", "does not tell the type"),
        ("# -- A list.\na: []\n", "needs an @schema"),
        ("# -- Wrong.\n# @schema {enum}\na: 1\n", "no JSON"),
    ],
)
def test_a_value_that_says_too_little_is_refused(values: str, reason: str) -> None:
    with pytest.raises(generate_chart.UndocumentedError, match=reason):
        generate_chart.build_schema(generate_chart.read_values(values))
