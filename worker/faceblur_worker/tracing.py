"""OpenTelemetry traces, only when an endpoint is configured; without one nothing of it is imported."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Protocol

from faceblur_engine.types import Receipt


class TracingUnavailable(Exception):
    """The packages of the extra ``tracing`` are not installed."""


class Tracing(Protocol):
    """Follows calls and the pictures in them."""

    def call(
        self, method: str, metadata: Mapping[str, str], request_id: str
    ) -> contextlib.AbstractContextManager[None]:
        """Return a context that spans one call, a child of the caller's span if the metadata names one."""
        ...

    def picture(self, receipt: Receipt, waited: float) -> None:
        """Note in the span of the current call that a picture is done."""
        ...

    def shut(self) -> None:
        """Send what is left."""
        ...


class NoTracing:
    """Stands where no traces are wanted."""

    _nothing = contextlib.nullcontext()

    def call(
        self, method: str, metadata: Mapping[str, str], request_id: str
    ) -> contextlib.AbstractContextManager[None]:
        """See `Tracing`."""
        return self._nothing

    def picture(self, receipt: Receipt, waited: float) -> None:
        """See `Tracing`."""

    def shut(self) -> None:
        """See `Tracing`."""


class OpenTelemetryTracing:
    """Spans by OTLP over gRPC. They hold sizes, counts and times, never picture content or coordinates."""

    def __init__(self, endpoint: str, version: str) -> None:
        """Start the exporter.

        Args:
            endpoint: ``http://`` for plain text, ``https://`` for TLS.
            version: Of FaceBlur.

        Raises:
            TracingUnavailable: The packages are missing.
        """
        try:
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            raise TracingUnavailable(
                "trace_endpoint is set, and OpenTelemetry is not installed: install faceblur[worker,tracing]"
            ) from error
        resource = Resource.create({"service.name": "faceblur-worker", "service.version": version})
        self.provider = TracerProvider(resource=resource)
        self.provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        self._tracer = self.provider.get_tracer("faceblur_worker", version)
        self._parent = TraceContextTextMapPropagator()
        self._current = trace.get_current_span
        self._server = trace.SpanKind.SERVER

    @contextlib.contextmanager
    def call(self, method: str, metadata: Mapping[str, str], request_id: str) -> Iterator[None]:
        """See `Tracing`."""
        attributes = {"rpc.system": "grpc", "rpc.method": method, "faceblur.request_id": request_id}
        parent = self._parent.extract(metadata)
        with self._tracer.start_as_current_span(method, parent, kind=self._server, attributes=attributes):
            yield

    def picture(self, receipt: Receipt, waited: float) -> None:
        """See `Tracing`."""
        stages = {f"faceblur.{stage}_ms": value for stage, value in receipt.milliseconds.items()}
        sizes = {
            "faceblur.width": receipt.width,
            "faceblur.height": receipt.height,
            "faceblur.faces": len(receipt.faces),
        }
        self._current().add_event("picture", {"faceblur.waited_ms": waited * 1000, **stages, **sizes})

    def shut(self) -> None:
        """See `Tracing`."""
        self.provider.shutdown()
