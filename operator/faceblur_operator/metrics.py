"""What Prometheus reads about the operator."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, PlatformCollector, ProcessCollector
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .api.v1alpha1 import CLUSTER_KIND
from .api.v1alpha1_job import JOB_KIND
from .observed import Key

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The metrics of the operator, in a registry of their own.

    Attributes:
        registry: Of all metrics.
        reconciles: By result: ``done``, ``gone``, ``invalid`` spec, ``refused`` by the API server, ``failed``.
        seconds: Duration of reconciles.
        errors: Of requests to the API server and of the operator itself, by the name of the error.
        writes: Objects that were applied or deleted, by kind.
        conditions: Of each resource, by type and status.
    """

    def __init__(self) -> None:
        """Register everything."""
        registry = CollectorRegistry()
        self.registry = registry
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        Info("faceblur_operator", "What runs here.", registry=registry).info({"version": _version()})
        self.reconciles = Counter(
            "faceblur_operator_reconciles_total", "Reconciles that have ended.", ("result",), registry=registry
        )
        self.seconds = Histogram(
            "faceblur_operator_reconcile_seconds", "Duration of reconciles.", buckets=_SECONDS, registry=registry
        )
        self.errors = Counter(
            "faceblur_operator_errors_total", "Errors that ended a reconcile or a round.", ("error",), registry=registry
        )
        self.writes = Counter(
            "faceblur_operator_writes_total",
            "Objects that were written, deleted ones included.",
            ("kind", "verb"),
            registry=registry,
        )
        self._requests = Counter(
            "faceblur_operator_api_requests_total",
            "Requests to the API server but those of the watches, by HTTP status; 0 is no answer.",
            ("verb", "code"),
            registry=registry,
        )
        self.conditions: dict[Key, Mapping[str, str]] = {}
        registry.register(_Resources(self.conditions))

    def count_request(self, verb: str, status: int) -> None:
        """Count a request to the API server."""
        self._requests.labels(verb, str(status)).inc()

    def show(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Show a value that is read when Prometheus asks.

        Args:
            name: Behind ``faceblur_operator_``.
            text: What it is.
            read: Returns it.
        """
        Gauge(f"faceblur_operator_{name}", text, registry=self.registry).set_function(read)


class _Resources(Collector):
    """Counts resources when Prometheus asks, so that none that is gone is left over."""

    def __init__(self, conditions: Mapping[Key, Mapping[str, str]]) -> None:
        self._conditions = conditions

    def collect(self) -> Iterable[Metric]:
        for kind, noun in ((CLUSTER_KIND, "cluster"), (JOB_KIND, "job")):
            found = [conditions for key, conditions in self._conditions.items() if key.kind == kind]
            counts = Counts(pair for conditions in found for pair in conditions.items())
            by_condition = GaugeMetricFamily(
                f"faceblur_operator_{noun}_conditions",
                f"{kind}s by condition and its status.",
                labels=("condition", "status"),
            )
            for (condition, status), count in sorted(counts.items()):
                by_condition.add_metric((condition, status), count)
            yield GaugeMetricFamily(f"faceblur_operator_{noun}s", f"{kind}s that are served.", value=len(found))
            yield by_condition


def _version() -> str:
    try:
        return version("faceblur")
    except PackageNotFoundError:
        return "unknown"
