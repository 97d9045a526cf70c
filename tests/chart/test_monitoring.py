"""Alerts and dashboards ask for metrics that there are, and every alert says what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from faceblur.v1 import errors_pb2
from faceblur_operator import metrics as operator_metrics
from faceblur_operator.observed import Key
from faceblur_worker import metrics as worker_metrics
from faceblur_worker.admission import Gate

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "faceblur"
ALERTS = yaml.safe_load((CHART / "alerts" / "faceblur.yaml").read_text(encoding="utf-8"))
DASHBOARDS = sorted((CHART / "dashboards").glob("*.json"))
RUNBOOKS = ROOT / "docs" / "runbooks"
_SUFFIXES = {
    "counter": ("_total",),
    "histogram": ("_bucket", "_sum", "_count"),
    "info": ("_info",),
    "gauge": ("",),
    "unknown": ("",),
}
_LABELS_OF_TARGETS = {"namespace", "pod", "job", "instance"}

Render = Callable[..., list[dict[str, Any]]]


def samples_of(registry: CollectorRegistry) -> dict[str, set[str]]:
    """The labels of every sample that a registry can give, by the sample's name."""
    found: dict[str, set[str]] = {}
    for collector in list(registry._collector_to_names):
        labels = set(getattr(collector, "_labelnames", ()))
        for metric in cast(list[Metric], list(collector.collect())):
            own = labels.union(*(sample.labels for sample in metric.samples))
            for suffix in _SUFFIXES[metric.type]:
                found[metric.name + suffix] = own
    return found


@pytest.fixture(scope="module")
def samples() -> dict[str, set[str]]:
    """What operator and workers publish."""
    gate = SimpleNamespace(inside=0, waiting=0, running=0, bytes=0, workers=1, longest_run=lambda: 0.0)
    operator = operator_metrics.Metrics()
    operator.conditions[Key("FaceBlurCluster", "shop", "demo")] = {"Ready": "True"}
    operator.conditions[Key("FaceBlurJob", "shop", "demo")] = {"Complete": "True"}
    shown = re.findall(r'metrics\.show\(\s*"(\w+)"', (ROOT / "operator/faceblur_operator/__main__.py").read_text())
    for name in shown:
        operator.show(name, name, float)
    worker = worker_metrics.Metrics(cast(Gate, gate), "1.0.0", "balanced", ())
    return samples_of(operator.registry) | samples_of(worker.registry)


def asked(query: str) -> dict[str, set[str]]:
    """The metrics of a query, and the labels that it selects or groups them by."""
    grouped = {label for part in re.findall(r"\b(?:by|on) \(([^)]*)\)", query) for label in re.split(r",\s*", part)}
    found: dict[str, set[str]] = {}
    for name, selector in re.findall(r"\b((?:faceblur|process)_\w+)(?:\{([^}]*)\})?", query):
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector or ""))
        found.setdefault(name, set()).update(labels)
    for labels in found.values():
        labels |= grouped if len(found) == 1 else set()
    return found


def queries() -> list[tuple[str, str]]:
    found = [(alert["alert"], alert["expr"]) for alert in ALERTS]
    for path in DASHBOARDS:
        dashboard = json.loads(path.read_text(encoding="utf-8"))
        for panel in dashboard["panels"]:
            found += [(f"{path.stem}: {panel['title']}", target["expr"]) for target in panel["targets"]]
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                found.append((f"{path.stem}: ${variable['name']}", variable["query"]))
    return found


@pytest.mark.parametrize(("where", "query"), queries(), ids=[f"{where} {i}" for i, (where, _) in enumerate(queries())])
def test_a_query_asks_for_metrics_and_labels_that_there_are(
    samples: dict[str, set[str]], where: str, query: str
) -> None:
    metrics = asked(query)
    assert metrics
    for name, labels in metrics.items():
        assert name in samples, f"{where} asks for {name}"
        assert labels <= samples[name] | _LABELS_OF_TARGETS | {"le"}, f"{where} asks {name} for {labels}"


def test_alerts_ask_for_outcomes_that_workers_give() -> None:
    known = {name.removeprefix("ERROR_REASON_") for name, _ in errors_pb2.ErrorReason.items()}
    asked_for = {
        reason
        for alert in ALERTS
        for part in re.findall(r'(?:reason|outcome)=~"([A-Z_|]+)"', alert["expr"])
        for reason in part.split("|")
    }
    assert asked_for
    assert asked_for <= known


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"} == {alert["alert"] for alert in ALERTS}
    for alert in ALERTS:
        text = (RUNBOOKS / f"{alert['alert']}.md").read_text(encoding="utf-8")
        assert text.startswith(f"# {alert['alert']}\n")
        assert {"## What it means", "## What to do"} <= set(text.splitlines())


def test_rendered_alerts_name_their_runbooks_and_the_release(render: Render) -> None:
    values = {"enabled": True, "runbooks": "https://example.com/books/", "disabled": ["FaceBlurWorkerStuck"]}
    (rule,) = (i for i in render({"metrics": {"prometheusRule": values}}) if i["kind"] == "PrometheusRule")
    alerts = rule["spec"]["groups"][0]["rules"]
    assert [alert["alert"] for alert in alerts] == [a["alert"] for a in ALERTS if a["alert"] != "FaceBlurWorkerStuck"]
    for alert, source in zip(alerts, ALERTS, strict=False):
        assert alert["annotations"].pop("runbook_url") == f"https://example.com/books/{alert['alert']}.md"
        assert alert == json.loads(json.dumps(source).replace("NAMESPACE", "faceblur-system"))
        assert alert["labels"]["severity"] in ("warning", "critical")


def test_the_dashboards_reach_grafana_as_they_are(render: Render) -> None:
    (config,) = (i for i in render({"metrics": {"dashboards": {"enabled": True}}}) if i["kind"] == "ConfigMap")
    assert {name: json.loads(text) for name, text in config["data"].items()} == {
        path.name: json.loads(path.read_text(encoding="utf-8")) for path in DASHBOARDS
    }
    assert len(DASHBOARDS) == 2


def test_panels_lie_beside_one_another() -> None:
    for path in DASHBOARDS:
        cells: set[tuple[int, int]] = set()
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            place = panel["gridPos"]
            own = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
            assert not own & cells, f"{path.name}: {panel['title']}"
            cells |= own
