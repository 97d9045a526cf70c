"""Makes what in charts/faceblur follows from something else, so that each fact is written down once.

- values.schema.json and the table in README.md, from values.yaml and its comments
- dashboards/, from worker/dashboards/ and operator/dashboards/: a chart only reads files inside its folder
- the versions in Chart.yaml, from the package

``python tools/generate_chart.py`` writes them; with ``--check`` it only tells whether they are up to date. The
definitions in templates/crds/ are made by ``python -m faceblur_operator.crdgen``.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
CHART = Path("charts/faceblur")
DASHBOARDS = (
    Path("operator/dashboards/faceblur-operator.json"),
    Path("worker/dashboards/faceblur-workers.json"),
)
VERSION = Path("proto/python/faceblur/_version.py")
BEGIN = "<!-- values: made from values.yaml by `make generate` -->\n"
END = "<!-- end of values -->\n"
_TYPES: dict[type, str] = {bool: "boolean", int: "integer", str: "string", list: "array", dict: "object"}


class UndocumentedError(ValueError):
    """A value has no description, or its schema is not told by its default."""


@dataclass(frozen=True, slots=True)
class Value:
    """A documented value.

    Attributes:
        path: Its keys from the root.
        default: As in values.yaml.
        description: One paragraph.
        schema: What its comment adds to the schema that its default implies.
    """

    path: tuple[str, ...]
    default: Any
    description: str
    schema: dict[str, Any]


def read_values(text: str) -> list[Value]:
    """Return every value that has a description, in the file's order.

    Raises:
        UndocumentedError: A value has none, nor has anything above or below it.
    """
    lines = text.splitlines()
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise UndocumentedError("there are no values")
    return list(_walk(root, yaml.safe_load(text), (), lines))


def build_schema(values: list[Value]) -> dict[str, Any]:
    """Return the JSON Schema of all values: closed, so that a typing mistake is refused."""
    root: dict[str, Any] = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart faceblur",
        **_closed(),
    }
    # Helm adds `global` where the chart is a part of another one.
    root["properties"]["global"] = {"type": "object"}
    for value in values:
        place = root
        for key in value.path[:-1]:
            place = place["properties"].setdefault(key, _closed())
        place["properties"][value.path[-1]] = _schema_of(value)
    return root


def build_table(values: list[Value]) -> str:
    """Return the table of all values as Markdown."""
    rows = ["| value | default | meaning |", "|---|---|---|"]
    rows += [f"| `{'.'.join(value.path)}` | `{json.dumps(value.default)}` | {value.description} |" for value in values]
    return "\n".join(rows) + "\n"


def generated(root: Path = ROOT) -> dict[Path, str]:
    """Return all files that are made, with their text, by their path below the root."""
    chart = root / CHART
    values = read_values((chart / "values.yaml").read_text(encoding="utf-8"))
    readme = (chart / "README.md").read_text(encoding="utf-8")
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    version = re.search(r'__version__ = "(.+)"', (root / VERSION).read_text(encoding="utf-8"))
    assert version is not None
    about = (chart / "Chart.yaml").read_text(encoding="utf-8")
    about = re.sub(r"(?m)^version: .*$", f"version: {version[1]}", about)
    about = re.sub(r"(?m)^appVersion: .*$", f'appVersion: "{version[1]}"', about)
    files = {
        CHART / "Chart.yaml": about,
        CHART / "README.md": before + BEGIN + build_table(values) + END + after,
        CHART / "values.schema.json": json.dumps(build_schema(values), indent=2) + "\n",
    }
    for dashboard in DASHBOARDS:
        files[CHART / "dashboards" / dashboard.name] = (root / dashboard).read_text(encoding="utf-8")
    return files


def main() -> int:
    """Write the files, or check them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, fail if a file differs")
    options = parser.parse_args()
    files = generated()
    if not options.check:
        for path, text in files.items():
            (ROOT / path).parent.mkdir(exist_ok=True)
            (ROOT / path).write_text(text, encoding="utf-8")
        return 0
    stale = [
        path
        for path, text in files.items()
        if not (ROOT / path).exists() or (ROOT / path).read_text(encoding="utf-8") != text
    ]
    for path in stale:
        print(f"{path} is not up to date: run make generate", file=sys.stderr)  # noqa: T201
    return 1 if stale else 0


def _walk(node: yaml.MappingNode, values: dict[str, Any], path: tuple[str, ...], lines: list[str]) -> Iterator[Value]:
    for key, child in node.value:
        here = (*path, key.value)
        description, schema = _comment(lines, key.start_mark.line, ".".join(here))
        if description:
            yield Value(here, values[key.value], description, schema)
        elif isinstance(child, yaml.MappingNode) and child.value:
            yield from _walk(child, values[key.value], here, lines)
        else:
            raise UndocumentedError(f"{'.'.join(here)} has no comment that starts with `# --`")


def _comment(lines: list[str], line: int, where: str) -> tuple[str, dict[str, Any]]:
    """The description and the schema in the comment right above a line."""
    start = line
    while start and lines[start - 1].strip().startswith("#"):
        start -= 1
    words: list[str] = []
    schema: dict[str, Any] = {}
    for text in (entry.strip().removeprefix("#").strip() for entry in lines[start:line]):
        if text.startswith("@schema "):
            try:
                schema = json.loads(text.removeprefix("@schema "))
            except ValueError as error:
                raise UndocumentedError(f"{where}: its @schema is no JSON: {error}") from error
        elif text.startswith("-- ") or words:
            words.append(text.removeprefix("-- "))
    return " ".join(words), schema


def _closed() -> dict[str, Any]:
    return {"type": "object", "properties": {}, "additionalProperties": False}


def _schema_of(value: Value) -> dict[str, Any]:
    where = ".".join(value.path)
    if type(value.default) not in _TYPES:
        raise UndocumentedError(f"{where}: a default of null does not tell the type")
    schema = {"description": value.description, "type": _TYPES[type(value.default)], **value.schema}
    if schema["type"] == "array" and "items" not in schema:
        raise UndocumentedError(f"{where}: a list needs an @schema for its items")
    if schema["type"] == "object" and "additionalProperties" not in schema:
        schema["additionalProperties"] = {"type": "string"}
    return schema


if __name__ == "__main__":
    sys.exit(main())
