"""What Prometheus reads of a batch worker, and of a watching process."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Info, PlatformCollector, ProcessCollector

from .ledger import Entry
from .outcomes import Outcome


class Metrics:
    """The metrics of one batch worker, in a registry of their own."""

    def __init__(self, version: str, queue: str) -> None:
        """Register everything.

        Args:
            version: Of FaceBlur.
            queue: Where tasks come from.
        """
        registry = CollectorRegistry()
        self.registry = registry
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        Info("faceblur_batch", "What runs here.", registry=registry).info({"version": version, "queue": queue})
        self.objects = Counter(
            "faceblur_batch_objects_total", "Objects by what became of them.", ("outcome", "reason"), registry=registry
        )
        self.received = Counter(
            "faceblur_batch_source_bytes_total", "Length of objects that have a result.", registry=registry
        )
        self.written = Counter("faceblur_batch_output_bytes_total", "Length of results.", registry=registry)
        self.faces = Counter("faceblur_batch_faces_total", "Faces found and obscured.", registry=registry)
        self.pages = Counter(
            "faceblur_batch_pages_total",
            "Pages by how their task ended: done, known (by another task), left, trouble or given_up.",
            ("end",),
            registry=registry,
        )
        self.running = Gauge("faceblur_batch_pages_running", "Pages that are worked on.", registry=registry)

    def count(self, outcome: Outcome, entry: Entry) -> None:
        """Count an outcome."""
        self.objects.labels(str(outcome.kind), outcome.reason).inc()
        if outcome.written:
            self.received.inc(entry.size)
            self.written.inc(outcome.output_bytes)
            self.faces.inc(outcome.faces)


class WatchMetrics:
    """The metrics of one watching process, in a registry of their own."""

    def __init__(self, version: str) -> None:
        """Register everything.

        Args:
            version: Of FaceBlur.
        """
        registry = CollectorRegistry()
        self.registry = registry
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        Info("faceblur_watch", "What runs here.", registry=registry).info({"version": version})
        self.notifications = Counter(
            "faceblur_watch_notifications_total",
            "Notifications by what they are about: object, removed, elsewhere (another place, no picture), "
            "not_understood, refused (without the token).",
            ("kind",),
            registry=registry,
        )
        self.waiting = Gauge("faceblur_watch_keys_waiting", "Keys that no pass looks at yet.", registry=registry)
        self.passes = Counter(
            "faceblur_watch_passes_total",
            "Passes by what they looked at (everything, listing, named, unfinished) and how they ended; nothing: there "
            "was nothing to do.",
            ("what", "end"),
            registry=registry,
        )
        self.last = Gauge(
            "faceblur_watch_last_pass_timestamp_seconds", "When one last ended.", ("what",), registry=registry
        )

    def notified(self, kind: str, number: int) -> None:
        """Count notifications."""
        self.notifications.labels(kind).inc(number)

    def ended(self, what: str, end: str) -> None:
        """Count a pass."""
        self.passes.labels(what, end).inc()
        self.last.labels(what).set_to_current_time()
