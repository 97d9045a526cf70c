"""Whether a batch worker does what it is there for, as the probes ask at ``/healthz`` and ``/readyz``.

A process that waits for its broker is well: a new one would wait too. What a new one would mend is noticed by three
signs, each of which a sound process gives whatever its surroundings do: while it is connected its main loop comes
around, each page in work looks up from time to time because everything that it waits for has an end, and no page stays
in the queue for long while a thread is free. The last is known to be lost by Celery after some lost connections, while
everything else goes on.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client.exposition import ThreadingWSGIServer

BEAT_SECONDS = 5.0
LOOK_SECONDS = 15.0
_LOOP_SECONDS = 120.0  # four times what a request to the broker may take
_PAGE_SECONDS = 1800.0  # a picture, its get, its put and the ledger have minutes each
_IDLE_SECONDS = 180.0


class Health:
    """The signs of one batch worker. The methods may be called by any thread."""

    def __init__(self, threads: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin without a connection.

        Args:
            threads: Pages that can be worked on at the same time.
            clock: Seconds, from anywhere.
        """
        self._threads = threads
        self._clock = clock
        self._lock = threading.Lock()
        self._beat: float | None = None
        self._pages: dict[object, float] = {}
        self._ignored_since: float | None = None

    @property
    def ready(self) -> bool:
        """Whether pages are taken from the queue."""
        return self._beat is not None

    def beat(self) -> None:
        """The main loop comes around, and it is connected."""
        self._beat = self._clock()

    def lost(self) -> None:
        """The connection is lost, or the process ends."""
        with self._lock:
            self._beat = self._ignored_since = None

    @contextmanager
    def page(self) -> Iterator[Callable[[], None]]:
        """Have a page in work; call what this gives whenever the page goes on."""
        token = object()

        def look_up() -> None:
            with self._lock:
                self._pages[token] = self._clock()

        with self._lock:
            self._ignored_since = None
        look_up()
        try:
            yield look_up
        finally:
            with self._lock:
                del self._pages[token]

    def saw(self, waiting: int | None) -> None:
        """Take in a look at the queue.

        Args:
            waiting: Pages in it; None where nobody was asked or answered.
        """
        with self._lock:
            if not waiting or len(self._pages) >= self._threads:
                self._ignored_since = None
            elif self._ignored_since is None:
                self._ignored_since = self._clock()

    def trouble(self) -> str | None:
        """What a new process would mend; None where all is well."""
        now = self._clock()
        with self._lock:
            beat, oldest, ignored = self._beat, min(self._pages.values(), default=now), self._ignored_since
        if beat is not None and now - beat > _LOOP_SECONDS:
            return f"the main loop stands still for {now - beat:.0f} s"
        if now - oldest > _PAGE_SECONDS:
            return f"a page stands still for {now - oldest:.0f} s"
        if ignored is not None and now - ignored > _IDLE_SECONDS:
            return f"no page was taken for {now - ignored:.0f} s, though some wait and a thread is free"
        return None


class Signs(Protocol):
    """What a process says of itself."""

    @property
    def ready(self) -> bool:
        """Whether it can do what it is there for now."""

    def trouble(self) -> str | None:
        """What a new process would mend; None where all is well."""


def serve(host: str, port: int, metrics: WSGIApplication, health: Signs) -> WSGIServer:
    """Answer the probes, and everybody else with the metrics, until the process ends.

    Raises:
        OSError: The address is in use, or not of this machine.
    """

    def answer(environment: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        path = environment["PATH_INFO"]
        if path not in ("/healthz", "/readyz"):
            return metrics(environment, start)
        trouble = health.trouble() or ("there is no broker" if path == "/readyz" and not health.ready else None)
        start("503 Service Unavailable" if trouble else "200 OK", [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{trouble or 'ok'}\n".encode()]

    class Server(ThreadingWSGIServer):
        """Listens where it is told to."""

        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    server = Server((host, port), _Quiet)
    server.set_app(answer)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: probes come every few seconds."""
