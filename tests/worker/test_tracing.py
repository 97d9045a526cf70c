"""Traces: only when they are configured, under the caller's span, and without anything of a picture."""

from __future__ import annotations

import subprocess
import sys

import pytest

from faceblur_engine.types import Options
from faceblur_worker.tracing import NoTracing, OpenTelemetryTracing, TracingUnavailable
from support.fake_engine import FakeEngine
from support.running_worker import picture

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_call_becomes_a_span_below_that_of_the_caller() -> None:
    sdk = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    tracing = OpenTelemetryTracing("http://127.0.0.1:1", "1.2.3")
    exporter = sdk.InMemorySpanExporter()
    tracing.provider._active_span_processor._span_processors = (export.SimpleSpanProcessor(exporter),)
    with tracing.call("BlurImage", {"traceparent": CALLER}, "job-1"):
        tracing.picture(FakeEngine().detect(picture(), Options()), 0.5)
    (span,) = exporter.get_finished_spans()
    assert span.name == "BlurImage"
    assert span.parent.span_id == int("b7ad6b7169203331", 16)
    assert span.attributes["faceblur.request_id"] == "job-1"
    (event,) = span.events
    assert event.attributes["faceblur.waited_ms"] == 500
    assert event.attributes["faceblur.faces"] == 1
    assert not any("box" in name for name in event.attributes)


def test_without_an_endpoint_nothing_is_imported() -> None:
    code = "import sys, faceblur_worker.server; sys.exit(any(n.startswith('opentelemetry') for n in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_endpoint_without_the_packages_ends_the_start_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(TracingUnavailable, match=r"install faceblur\[worker,tracing\]"):
        OpenTelemetryTracing("http://127.0.0.1:1", "1")


def test_without_traces_calls_go_on_as_they_are() -> None:
    tracing = NoTracing()
    with tracing.call("BlurImage", {}, "1"):
        tracing.picture(FakeEngine().detect(picture(), Options()), 0.0)
    tracing.shut()
