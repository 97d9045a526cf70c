"""What Prometheus reads. worker/dashboards/ shows it; a test holds the dashboard's queries to these names."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, PlatformCollector, ProcessCollector
from prometheus_client.gc_collector import GCCollector

from faceblur_engine.types import ModelInfo, Receipt

from .admission import Gate

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The metrics of one worker, in a registry of their own."""

    def __init__(self, gate: Gate, version: str, profiles: str, models: Sequence[ModelInfo]) -> None:
        """Register everything.

        Args:
            gate: Whose state the gauges show.
            version: Of FaceBlur.
            profiles: That are served, separated by commas.
            models: That are loaded.
        """
        registry = CollectorRegistry()
        self.registry = registry
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        Info("faceblur_worker", "What runs here.", registry=registry).info({"version": version, "profiles": profiles})
        loaded = Gauge(
            "faceblur_worker_model_info", "Models that are loaded.", ("name", "sha256", "runtime"), registry=registry
        )
        for model in models:
            loaded.labels(model.name, model.sha256, model.runtime).set(1)
        self.requests = Counter(
            "faceblur_worker_requests_total", "Calls that have ended.", ("method", "code"), registry=registry
        )
        self.seconds = Histogram(
            "faceblur_worker_request_seconds", "Duration of calls.", ("method",), buckets=_SECONDS, registry=registry
        )
        self.pictures = Counter(
            "faceblur_worker_pictures_total",
            "Pictures by outcome: ok, or the reason why there was no result.",
            ("outcome",),
            registry=registry,
        )
        self.refusals = Counter(
            "faceblur_worker_refusals_total",
            "Pictures refused by the worker, not by the engine.",
            ("reason",),
            registry=registry,
        )
        self.stages = Histogram(
            "faceblur_worker_stage_seconds",
            "Duration of the engine's stages.",
            ("stage",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.waits = Histogram(
            "faceblur_worker_wait_seconds",
            "Time that pictures waited for an engine thread.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.faces = Counter("faceblur_worker_faces_total", "Faces found.", registry=registry)
        self.pixels = Counter(
            "faceblur_worker_pixels_total", "Pixels of pictures that were worked on.", registry=registry
        )
        self.received = Counter(
            "faceblur_worker_received_bytes_total", "Length of pictures that came in.", registry=registry
        )
        self.sent = Counter("faceblur_worker_sent_bytes_total", "Length of results.", registry=registry)
        for name, text, read in (
            ("inside", "Pictures that are received, wait or are worked on.", lambda: gate.inside),
            ("waiting", "Pictures that wait for an engine thread.", lambda: gate.waiting),
            ("running", "Pictures that are worked on.", lambda: gate.running),
            ("bytes_in_flight", "Length of the pictures whose calls are not over.", lambda: gate.bytes),
            ("engine_threads", "Pictures that can be worked on at the same time.", lambda: gate.workers),
            ("longest_run_seconds", "How long the oldest piece of work has been going on.", gate.longest_run),
        ):
            Gauge(f"faceblur_worker_{name}", text, registry=registry).set_function(read)

    def done(self, receipt: Receipt, waited: float) -> None:
        """Count a picture that was worked on."""
        self.pictures.labels("ok").inc()
        self.waits.observe(waited)
        for stage, milliseconds in receipt.milliseconds.items():
            self.stages.labels(stage).observe(milliseconds / 1000)
        self.faces.inc(len(receipt.faces))
        self.pixels.inc(receipt.width * receipt.height)
        self.received.inc(receipt.input_bytes)
        self.sent.inc(receipt.output_bytes)
