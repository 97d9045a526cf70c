"""Notifications that are posted to a watching process.

Plain HTTP. Where notifications come from other machines, something that speaks TLS has to stand before it, and a token
is needed. Everything is bounded: connections, their silence, the length of what is sent.
"""

from __future__ import annotations

import hmac
import http.server
import logging
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from .errors import BatchError
from .events import NotUnderstood
from .inbox import InboxClosed
from .intake import Intake

log = logging.getLogger(__name__)

LONGEST = 1024 * 1024
"""Bytes of a notification; Amazon's are at most 256 KiB."""
MOST_CONNECTIONS = 128
SILENCE = 15.0
"""Seconds after which a connection that says nothing is closed."""


class CannotListen(BatchError):
    """The address is in use, or not of this machine."""

    reason = "CANNOT_LISTEN"


class Server(http.server.ThreadingHTTPServer):
    """Answers on an address until it is closed; each connection has a thread, and there are not more than so many."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self, address: str, handler: type[http.server.BaseHTTPRequestHandler], *, most: int = MOST_CONNECTIONS
    ) -> None:
        """Listen.

        Args:
            address: HOST:PORT; port 0: any.
            handler: Answers.
            most: Connections at the same time.

        Raises:
            CannotListen: See the class.
        """
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        if ":" in host:
            self.address_family = socket.AF_INET6
        self._slots = threading.BoundedSemaphore(most)
        try:
            super().__init__((host, int(port)), handler)
        except OSError as error:
            raise CannotListen(f"{address} is in use or not of this machine: {error.strerror}") from error
        self._thread = threading.Thread(target=self.serve_forever, args=(0.1,), name="http", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it answers."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Take no more connections. Who has no answer yet sends it again."""
        self.shutdown()
        self._thread.join()
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection its thread, if there is one left."""
        if self._slots.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is its sender's affair; anything else is ours."""
        log.debug("a connection ended in an error", exc_info=True)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = SILENCE

    def log_message(self, *_: object) -> None:
        """Paths and addresses are nobody's business."""

    def answer(self, status: HTTPStatus, body: bytes = b"", *, close: bool = False, **more: str) -> None:
        self.send_response_only(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        for name, value in more.items():
            self.send_header(name.replace("_", "-"), value)
        if close:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def receive(
    address: str, intake: Intake, token_file: Path | None, count: Callable[[str, int], object] = lambda kind, n: None
) -> Server:
    """Take notifications that are posted, to any path, until the server is closed.

    The answers: 200: it is kept, or there is nothing to keep; 400: it is no notification; 401: the token is missing or
    wrong; 411, 413: its length is missing or too much; 503: it cannot be kept now.

    Args:
        address: HOST:PORT.
        intake: Keeps them.
        token_file: Has what the header ``Authorization`` has to have, with or without ``Bearer`` before it; read for
            each request, so that it may be replaced.
        count: Called with ``refused`` or ``not_understood`` and 1.

    Raises:
        CannotListen: See `Server`.
    """

    class Webhook(_Handler):
        def do_HEAD(self) -> None:
            self.answer(HTTPStatus.OK)

        def do_POST(self) -> None:
            if not _allowed(self.headers.get("Authorization", ""), token_file):
                count("refused", 1)
                self.answer(HTTPStatus.UNAUTHORIZED, b"a token is needed\n", close=True, WWW_Authenticate="Bearer")
                return
            length = self.headers.get("Content-Length", "")
            if not length.isdecimal() or "Transfer-Encoding" in self.headers:
                self.answer(HTTPStatus.LENGTH_REQUIRED, close=True)
                return
            if int(length) > LONGEST:
                self.answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, close=True)
                return
            try:
                intake.keep(intake.keys_in(self.rfile.read(int(length))))
            except NotUnderstood:
                count("not_understood", 1)
                self.answer(HTTPStatus.BAD_REQUEST, b"this is no notification of a known form\n")
            except InboxClosed as error:
                log.warning("a notification was not kept: %s", error)
                self.answer(HTTPStatus.SERVICE_UNAVAILABLE, b"send it again later\n", Retry_After="10")
            else:
                self.answer(HTTPStatus.OK)

    return Server(address, Webhook)


def _allowed(given: str, token_file: Path | None) -> bool:
    if token_file is None:
        return True
    try:
        token = token_file.read_bytes().strip()
    except OSError as error:
        log.error("%s cannot be read: nobody is let in: %s", token_file, error.strerror)
        return False
    # Some senders put the word before it, and some do not.
    bare = given.removeprefix("Bearer ").strip().encode("utf-8", "surrogateescape")
    return bool(token) and hmac.compare_digest(bare, token)
