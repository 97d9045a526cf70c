"""Who has to prove what to whom: brokers and workers to a batch, and a batch to them."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from kombu.exceptions import OperationalError

from faceblur.testing import FakeServer, serving
from faceblur_batch.app import make_app
from faceblur_batch.config import BatchSettings
from faceblur_batch.driver import Driver, WorkersMissing
from faceblur_batch.job import JobSpec
from faceblur_cli.main import main
from faceblur_process.settings import ConfigurationError, read
from support.certificates import Authority


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def files(tmp_path: Path, authority: Authority) -> Path:
    """A folder with certificates: of us, of whom we talk to (`localhost`), and of another authority."""
    folder = tmp_path / "certificates"
    folder.mkdir()
    (folder / "ca.crt").write_bytes(authority.pem)
    (folder / "other.crt").write_bytes(Authority("another").pem)
    for name in ("server", "batch"):
        for part, pem in zip(("crt", "key"), authority.issue(name), strict=True):
            (folder / f"{name}.{part}").write_bytes(pem)
    return folder


# The broker


class Listener:
    """Takes connections with TLS, and hangs up; notes whether who called was content with the certificate."""

    def __init__(self, files: Path, *, mutual: bool) -> None:
        self.content: list[bool] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(files / "server.crt", files / "server.key")
        if mutual:
            self._context.verify_mode = ssl.CERT_REQUIRED
            self._context.load_verify_locations(files / "ca.crt")
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(20)
                try:
                    self._context.wrap_socket(connection, server_side=True).close()
                    self.content.append(True)
                except OSError:
                    self.content.append(False)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()


def content(files: Path, broker: str, *, mutual: bool = False, **named: str) -> bool:
    """Whether a process with these settings talks to the broker."""
    listener = Listener(files, mutual=mutual)
    settings: dict[str, Any] = {name: files / file for name, file in named.items()}
    app = make_app(BatchSettings(broker=broker.format(listener.port), **settings))
    with contextlib.closing(listener), app.connection_for_write() as connection, pytest.raises(OperationalError):
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
    assert listener.content
    return all(listener.content)


@pytest.mark.parametrize("scheme", ["rediss", "valkeys", "amqps"])
def test_a_broker_has_to_have_a_certificate_for_its_name_from_somebody_trusted(files: Path, scheme: str) -> None:
    assert content(files, scheme + "://localhost:{}/", broker_ca="ca.crt")
    assert not content(files, scheme + "://localhost:{}/", broker_ca="other.crt")
    assert not content(files, scheme + "://localhost:{}/")
    assert not content(files, scheme + "://127.0.0.1:{}/", broker_ca="ca.crt")


@pytest.mark.parametrize("scheme", ["rediss", "amqps"])
def test_a_broker_may_want_to_know_who_comes(files: Path, scheme: str) -> None:
    url = scheme + "://localhost:{}/"
    assert not content(files, url, mutual=True, broker_ca="ca.crt")
    ours = {"broker_certificate": "batch.crt", "broker_key": "batch.key"}
    assert content(files, url, mutual=True, broker_ca="ca.crt", **ours)


def test_options_in_a_url_do_not_switch_the_proof_off(files: Path) -> None:
    assert content(files, f"rediss://localhost:{{}}/0?ssl_ca_certs={files / 'ca.crt'}")
    assert not content(files, f"rediss://localhost:{{}}/0?ssl_ca_certs={files / 'other.crt'}")
    assert not content(files, f"rediss://127.0.0.1:{{}}/0?ssl_ca_certs={files / 'ca.crt'}")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"broker": "rediss://broker/0", "broker_certificate": "batch.crt"}, "broker_key have to be set together"),
        ({"broker": "redis://broker/0", "broker_ca": "ca.crt"}, "for a broker at rediss:// or amqps://"),
        ({"broker": "rediss://broker/0", "broker_ca": "none.crt"}, "none.crt, named for the broker, is not there"),
        ({"tls_ca": "none.crt"}, "none.crt"),
        ({"tls_certificate": "batch.crt", "tls_key": "batch.key"}, "tls_certificate needs tls_ca"),
    ],
)
def test_certificates_that_cannot_be_meant_are_refused(files: Path, given: dict[str, str], says: str) -> None:
    values = {name: value if name == "broker" else files / value for name, value in given.items()}

    def use() -> None:
        settings = read(BatchSettings, values)
        settings.broker_url()
        settings.client()

    with pytest.raises(ConfigurationError, match=says):
        use()


# The workers


@pytest.fixture
def workers(authority: Authority) -> Iterator[FakeServer]:
    certificate, key = authority.issue("worker")
    credentials = grpc.ssl_server_credentials([(key, certificate)], authority.pem, True)
    with serving(credentials=credentials) as server:
        yield server


def test_a_planner_says_that_it_does_not_trust_the_workers(workers: FakeServer, files: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    spec = JobSpec(source=str(tmp_path / "in"), destination=str(tmp_path / "out"))
    settings = BatchSettings(
        server=f"127.0.0.1:{workers.port}", tls_ca=files / "other.crt", tls_server_name="localhost"
    )
    with pytest.raises(WorkersMissing, match="CERTIFICATE_VERIFY_FAILED"):
        Driver(spec, settings).forecast(patience=0)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_the_command_shows_a_certificate_to_a_cluster(
    workers: FakeServer, files: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"a picture")
    ours = ["--tls-ca", "ca.crt", "--tls-certificate", "batch.crt", "--tls-key", "batch.key"]
    arguments = [str(files / word) if (files / word).is_file() else word for word in ours]
    arguments += [] if name == "localhost" else ["--tls-server-name", "localhost"]
    cluster = ["--cluster", f"{name}:{workers.port}", "--broker", "redis://127.0.0.1:1/0"]
    assert (
        main(["batch", "run", str(tmp_path / "in"), str(tmp_path / "out"), *cluster, *arguments, "--dry-run", "--json"])
        == 0
    )
    assert json.loads(capsys.readouterr().out)["objects"] == 1


def test_a_certificate_without_a_cluster_is_a_mistake(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(tmp_path / "in"), str(tmp_path / "out"), "--tls-ca", str(files / "ca.crt")]
    assert main(["batch", "run", *arguments]) == 2
    assert "name the workers with --cluster" in capsys.readouterr().err
