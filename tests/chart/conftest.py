"""The chart, rendered in process: no helm binary and no cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm_python import Chart

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "faceblur"
VARIANTS = sorted((CHART / "ci").glob("*-values.yaml"))

Render = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="session")
def chart() -> Iterator[Chart]:
    with Chart.load(CHART) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def render(chart: Chart) -> Render:
    """Render the chart with values; returns all objects."""

    def objects(values: dict[str, Any] | None = None, name: str = "blur") -> list[dict[str, Any]]:
        files = chart.render(values or {}, name=name, namespace="faceblur-system")
        texts = [text for path, text in files.items() if not path.endswith("NOTES.txt")]
        return [document for text in texts for document in yaml.load_all(text, yaml.CSafeLoader) if document]

    return objects


@pytest.fixture(params=VARIANTS, ids=lambda path: path.name.removesuffix("-values.yaml"))
def variant(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Values of one of the ways in which the chart is used."""
    return yaml.safe_load(request.param.read_text(encoding="utf-8")) or {}
