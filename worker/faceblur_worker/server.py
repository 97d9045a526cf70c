"""One worker process from start to end: its ports, its health, and the order in which it goes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import start_http_server

import faceblur

from . import tls
from .admission import Gate
from .calls import SERVICE, Calls
from .config import WorkerSettings
from .engine import Engine
from .metrics import Metrics
from .servicer import FaceBlurServicer
from .tracing import NoTracing, OpenTelemetryTracing, Tracing

LIVENESS = "liveness"
READINESS = "readiness"
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_WATCH_SECONDS = 1.0

log = logging.getLogger(__name__)


class AddressInUse(Exception):
    """A port cannot be listened on; the message is one line."""


class Worker:
    """A started worker.

    Attributes:
        gate: What is in work.
        port: For pictures.
        health_port: For probes.
        metrics_port: For Prometheus.
    """

    def __init__(self, settings: WorkerSettings, engine: Engine) -> None:
        """Put the parts together; `start` listens.

        Args:
            settings: As they are configured.
            engine: Ready to work.

        Raises:
            CertificateError: A certificate cannot be used.
            TracingUnavailable: Traces are configured but not installed.
        """
        self.gate = Gate(
            workers=settings.engine_threads(), places=settings.max_waiting, max_bytes=settings.max_bytes_in_flight
        )
        self.port = self.health_port = self.metrics_port = 0
        self._settings = settings
        version = faceblur.__version__
        self._metrics = Metrics(self.gate, version, ",".join(settings.profiles), engine.models)
        self._tracing: Tracing = (
            OpenTelemetryTracing(settings.trace_endpoint, version) if settings.trace_endpoint else NoTracing()
        )
        self._servicer = FaceBlurServicer(engine, self.gate, self._metrics, self._tracing, settings, version)
        self._credentials = tls.credentials(settings)
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(options=_options(settings))
        self._health_server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self._metrics_server: Any = None
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen on all ports and say that the worker is ready.

        Raises:
            AddressInUse: A port cannot be listened on.
        """
        settings = self._settings
        calls = Calls(
            metrics=self._metrics,
            tracing=self._tracing,
            allowed_identities=settings.allowed_identities,
            transfer_seconds=settings.transfer_seconds,
            max_message_bytes=settings.max_message_bytes,
        )
        calls.register(self._server, self._servicer)
        for server in (self._server, self._health_server):
            health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection(
            (SERVICE.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )
        self.port = _listen(self._server, "address", settings.address, self._credentials)
        self.health_port = _listen(self._health_server, "health_address", settings.health_address, None)
        self.metrics_port = self._serve_metrics(settings.metrics_address)
        await self._server.start()
        await self._health_server.start()
        await self._set_health(_SERVING, "", LIVENESS, READINESS, SERVICE.full_name)
        self._watch = asyncio.create_task(self._watch_over_work())
        log.info(
            "ready",
            extra={
                "address": settings.address,
                "port": self.port,
                "health_port": self.health_port,
                "metrics_port": self.metrics_port,
                "profiles": ",".join(settings.profiles),
                "threads": self.gate.workers,
            },
        )
        if settings.tls_client_ca is None:
            log.warning("no authentication is configured: whoever reaches %s can use this worker", settings.address)

    async def stop(self, settle_seconds: float | None = None) -> bool:
        """End in the order that loses no call that was taken in; returns whether all work was done in time.

        First the word goes out that the worker is not ready, while calls are still answered, since clients and load
        balancers need time to notice. Then nothing is taken in any more, what is inside is finished, and the ports
        are closed.

        Args:
            settle_seconds: Replaces the configured time until nothing is taken in any more.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + self._settings.grace_seconds
        settle = self._settings.settle_seconds if settle_seconds is None else settle_seconds
        log.info("ending", extra={"inside": self.gate.inside, "settle_seconds": settle})
        await self._set_health(_NOT_SERVING, "", READINESS, SERVICE.full_name)
        await asyncio.sleep(settle)
        self.gate.close()
        await self._server.stop(max(0.1, end - loop.time() - _WATCH_SECONDS))
        in_time = self.gate.running + self.gate.waiting == 0
        if self._watch:
            self._watch.cancel()
        await self._health_server.stop(0)
        if self._metrics_server:
            await asyncio.to_thread(self._metrics_server.shutdown)
            self._metrics_server.server_close()
        await asyncio.to_thread(self._tracing.shut)
        self.gate.shut()
        log.info("ended") if in_time else log.error("ended with work that did not stop within the grace period")
        return in_time

    async def _watch_over_work(self) -> None:
        """Take liveness away while a picture takes far too long: a thread cannot be ended, only its process can."""
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            stuck = self.gate.longest_run() > self._settings.stuck_seconds
            await self._set_health(_NOT_SERVING if stuck else _SERVING, LIVENESS)

    async def _set_health(self, status: int, *services: str) -> None:
        for service in services:
            await self._health.set(service, status)

    def _serve_metrics(self, address: str) -> int:
        host, _, port = address.rpartition(":")
        try:
            self._metrics_server, _ = start_http_server(int(port), host.strip("[]"), self._metrics.registry)
        except OSError as error:
            raise AddressInUse(f"metrics_address {address} cannot be listened on: {error.strerror}") from error
        return int(self._metrics_server.server_port)


@contextlib.asynccontextmanager
async def serving(settings: WorkerSettings, engine: Engine) -> AsyncIterator[Worker]:
    """Run a worker as long as the context lasts."""
    worker = Worker(settings, engine)
    await worker.start()
    try:
        yield worker
    finally:
        await worker.stop(settle_seconds=0)


def _listen(server: grpc.aio.Server, name: str, address: str, credentials: grpc.ServerCredentials | None) -> int:
    try:
        return server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    except RuntimeError as error:
        raise AddressInUse(f"{name} {address} cannot be listened on, it is in use or not of this machine") from error


def _options(settings: WorkerSettings) -> list[tuple[str, int]]:
    """What gRPC itself has to keep to."""
    milliseconds = {
        "grpc.keepalive_time_ms": settings.keepalive_seconds,
        "grpc.keepalive_timeout_ms": 20,
        "grpc.http2.min_ping_interval_without_data_ms": 10,  # clients may probe as often as this
        "grpc.max_connection_age_ms": settings.max_connection_age_seconds,
        "grpc.max_connection_age_grace_ms": settings.max_connection_age_grace_seconds,
    }
    return [
        ("grpc.so_reuseport", 0),  # a second worker on the port has to fail, not to take every other connection
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.max_concurrent_streams", settings.max_calls_per_connection),
        ("grpc.keepalive_permit_without_calls", 1),
        *((name, round(seconds * 1000)) for name, seconds in milliseconds.items()),
    ]
