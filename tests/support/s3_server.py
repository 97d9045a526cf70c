"""A real S3 server, versitygw, over a folder, and a server in front of it that misbehaves on demand.

The program is taken from the environment variable FACEBLUR_VERSITYGW or from PATH. Where there is none, `s3_binary`
returns None and tests skip.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from faceblur_batch.storage.settings import CredentialKind, StorageSettings
from support.eventual import eventually
from support.ports import free_port

NEEDED = "needs versitygw: name it in FACEBLUR_VERSITYGW or put it on PATH"
ACCESS_KEY, SECRET_KEY = "key-of-the-tests", "secret-of-the-tests"


def s3_binary() -> str | None:
    """The program, None where there is none."""
    return os.environ.get("FACEBLUR_VERSITYGW") or shutil.which("versitygw")


class S3Server:
    """versitygw on a loopback port. Its buckets are folders in ``folder/buckets``; `stop` and `start` at will."""

    def __init__(
        self, folder: Path, *, certificate: tuple[bytes, bytes] | None = None, virtual_domain: str | None = None
    ) -> None:
        """Choose a port; a certificate and its key (PEM) make it https, a domain takes buckets from the host too."""
        self.buckets = folder / "buckets"
        self.keys = folder / "keys"
        for made in (self.buckets, self.keys):
            made.mkdir(parents=True)
        self._options = ["--virtual-domain", virtual_domain] if virtual_domain else []
        if certificate:
            for option, content in zip(("cert", "key"), certificate, strict=True):
                (folder / f"{option}.pem").write_bytes(content)
                self._options += [f"--{option}", str(folder / f"{option}.pem")]
        self.port = free_port()
        self.url = f"{'https' if certificate else 'http'}://localhost:{self.port}"
        self.change_keys(ACCESS_KEY, SECRET_KEY)
        self.process: subprocess.Popen[bytes] | None = None

    def change_keys(self, access: str, secret: str) -> None:
        """Write other credentials to the folder; the server knows them from its next start on."""
        (self.keys / "AWS_ACCESS_KEY_ID").write_text(access)
        (self.keys / "AWS_SECRET_ACCESS_KEY").write_text(secret)

    def notify(self, url: str) -> None:
        """Have it post what happens to objects, from its next start on; somebody has to listen then."""
        self._options += ["--event-webhook-url", url]

    def start(self) -> None:
        binary = s3_binary()
        assert binary, NEEDED
        keys = {
            "ROOT_ACCESS_KEY": (self.keys / "AWS_ACCESS_KEY_ID").read_text(),
            "ROOT_SECRET_KEY": (self.keys / "AWS_SECRET_ACCESS_KEY").read_text(),
        }
        address = f"127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [binary, "--quiet", "--port", address, "--health", "/health", *self._options, "posix", str(self.buckets)],
            env={**os.environ, **keys},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        eventually(self._answers, 30)

    def stop(self) -> None:
        """End it at once."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def make_bucket(self, name: str) -> Path:
        """Make a bucket; its objects are the files in the folder."""
        (self.buckets / name).mkdir()
        return self.buckets / name

    def settings(self, **more: Any) -> StorageSettings:
        """How to reach it; quick to try again and to give up."""
        options: dict[str, Any] = {
            "endpoint": self.url,
            "allow_http": True,
            "credentials": CredentialKind.FOLDER,
            "credentials_folder": self.keys,
            "first_pause_seconds": 0.01,
            "retries": 3,
        }
        return StorageSettings(**{**options, **more})

    def _answers(self) -> bool:
        assert self.process
        assert self.process.poll() is None, "versitygw ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False


@contextlib.contextmanager
def running_s3(folder: Path, **options: Any) -> Iterator[S3Server]:
    """A server with the bucket ``pictures``; options as for `S3Server`."""
    server = S3Server(folder, **options)
    server.make_bucket("pictures")
    server.start()
    try:
        yield server
    finally:
        server.stop()


Fault = Callable[[str, str], int | None]


class _QuietServer(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that gave up, or a server that was killed: what tests do on purpose."""


class Frontend:
    """Passes requests on to a server, or answers them itself as `fault` decides. May be asked as an HTTP proxy too.

    Attributes:
        url: Where it listens.
        fault: Gets method and path with query; returns a status to answer with, None to pass the request on. It may
            block to be slow.
        seen: Every request's method and path.
    """

    def __init__(self, url: str, fault: Fault = lambda method, path: None) -> None:
        self._backend = urlsplit(url).netloc
        self.fault = fault
        self.seen: list[tuple[str, str]] = []
        frontend = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def handle_any(self) -> None:
                frontend._handle(self)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815

        self._server = _QuietServer(("127.0.0.1", 0), Handler)
        self.url = f"http://localhost:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handle(self, request: http.server.BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("content-length") or 0))
        if not request.path.startswith("/"):  # asked as a proxy
            request.path = "/" + request.path.split("/", 3)[3]
        self.seen.append((request.command, request.path))
        status = self.fault(request.command, request.path)
        if status is not None:
            _answer(request, status, [], f"<Error><Code>{_CODES.get(status, 'Other')}</Code></Error>".encode())
            return
        with contextlib.closing(http.client.HTTPConnection(self._backend)) as connection:
            # With the Host header as it came: it is signed.
            connection.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            with connection.getresponse() as answer:
                _answer(request, answer.status, answer.getheaders(), answer.read())


_CODES = {403: "AccessDenied", 429: "TooManyRequests", 500: "InternalError", 503: "SlowDown"}
_OF_THE_CONNECTION = {"connection", "transfer-encoding", "keep-alive"}


def _answer(
    request: http.server.BaseHTTPRequestHandler, status: int, headers: list[tuple[str, str]], body: bytes
) -> None:
    request.send_response_only(status)
    for name, value in headers:
        if name.lower() not in _OF_THE_CONNECTION:
            request.send_header(name, value)
    if not any(name.lower() == "content-length" for name, _ in headers):
        request.send_header("content-length", str(len(body)))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)


@contextlib.contextmanager
def frontend(url: str, fault: Fault = lambda method, path: None) -> Iterator[Frontend]:
    running = Frontend(url, fault)
    try:
        yield running
    finally:
        running.close()
