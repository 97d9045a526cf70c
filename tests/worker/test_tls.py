"""Certificates: who is let in, who is not, and how they are renewed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from faceblur.v1 import faceblur_service_pb2, faceblur_service_pb2_grpc
from faceblur_worker import tls
from faceblur_worker.config import WorkerSettings
from support.certificates import Authority
from support.eventual import eventually
from support.running_worker import RunningWorker, details_of, picture


class Files:
    """The certificate files of a worker."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.authority = authority
        self.certificate, self.key, self.ca = folder / "tls.crt", folder / "tls.key", folder / "ca.crt"
        self.ca.write_bytes(authority.pem)
        self.write(*authority.issue("server"))

    def write(self, certificate: bytes, key: bytes) -> None:
        self.certificate.write_bytes(certificate)
        self.key.write_bytes(key)

    def settings(self, mutual: bool = True, **more: Any) -> dict[str, Any]:
        client_ca = {"tls_client_ca": self.ca} if mutual else {}
        return {"tls_certificate": self.certificate, "tls_key": self.key, **client_ca, **more}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path, Authority())


def ask(worker: RunningWorker, credentials: grpc.ChannelCredentials) -> None:
    options = [("grpc.use_local_subchannel_pool", 1)]  # a handshake of its own each time
    with grpc.secure_channel(f"localhost:{worker.worker.port}", credentials, options) as channel:
        stub = faceblur_service_pb2_grpc.FaceBlurServiceStub(channel)
        stub.BlurImage(faceblur_service_pb2.BlurImageRequest(image=picture()), timeout=20)


def client(files: Files, identity: tuple[bytes, bytes] | None, roots: bytes | None = None) -> grpc.ChannelCredentials:
    certificate, key = identity or (None, None)
    return grpc.ssl_channel_credentials(roots or files.authority.pem, key, certificate)


def refused(worker: RunningWorker, credentials: grpc.ChannelCredentials) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        ask(worker, credentials)
    code = caught.value.code()
    assert isinstance(code, grpc.StatusCode)
    return code


def test_a_server_certificate_is_enough_without_a_client_ca(start: Callable[..., RunningWorker], files: Files) -> None:
    ask(start(**files.settings(mutual=False)), client(files, None))


def test_plain_text_is_not_answered_on_a_port_with_tls(start: Callable[..., RunningWorker], files: Files) -> None:
    worker = start(**files.settings())
    with pytest.raises(grpc.RpcError) as caught:
        worker.blur(picture())
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_client_of_the_authority_is_let_in_and_others_are_not(
    start: Callable[..., RunningWorker], files: Files
) -> None:
    worker = start(**files.settings())
    ask(worker, client(files, files.authority.issue("someone")))
    stranger = Authority("authority").issue("someone")
    assert refused(worker, client(files, None)) is grpc.StatusCode.UNAVAILABLE
    assert refused(worker, client(files, stranger)) is grpc.StatusCode.UNAVAILABLE
    expired = files.authority.issue("someone", days=-1)
    assert refused(worker, client(files, expired)) is grpc.StatusCode.UNAVAILABLE
    ask(worker, client(files, files.authority.issue("someone")))


def test_a_client_does_not_trust_an_expired_or_foreign_server(
    start: Callable[..., RunningWorker], files: Files
) -> None:
    worker = start(**files.settings(mutual=False))
    assert refused(worker, client(files, None, roots=Authority("other").pem)) is grpc.StatusCode.UNAVAILABLE
    files.write(*files.authority.issue("server", days=-1))
    assert refused(worker, client(files, None)) is grpc.StatusCode.UNAVAILABLE


def test_only_identities_on_the_list_may_call(start: Callable[..., RunningWorker], files: Files) -> None:
    worker = start(**files.settings(allowed_identities="alice, web.internal"))
    ask(worker, client(files, files.authority.issue("alice")))
    ask(worker, client(files, files.authority.issue("whatever", alternative="web.internal")))
    with pytest.raises(grpc.RpcError) as caught:
        ask(worker, client(files, files.authority.issue("mallory")))
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert details_of(caught.value)[0] == "IDENTITY_NOT_ALLOWED"


def test_probes_and_metrics_need_no_certificate(start: Callable[..., RunningWorker], files: Files) -> None:
    worker = start(**files.settings())
    with grpc.insecure_channel(f"127.0.0.1:{worker.worker.health_port}") as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_renewed_certificates_are_used_without_a_restart(start: Callable[..., RunningWorker], files: Files) -> None:
    worker = start(**files.settings())
    old = client(files, files.authority.issue("someone"))
    ask(worker, old)
    renewed = Authority("new")
    files.ca.write_bytes(renewed.pem)
    files.write(*renewed.issue("server"))
    ask(worker, client(files, renewed.issue("someone"), roots=renewed.pem))
    assert refused(worker, old) is grpc.StatusCode.UNAVAILABLE


def test_a_half_replaced_pair_is_not_used(
    start: Callable[..., RunningWorker], files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    worker = start(**files.settings(mutual=False))
    credentials = client(files, None)
    certificate, key = files.authority.issue("server")
    files.certificate.write_bytes(certificate)
    ask(worker, credentials)
    assert "previous ones stay in use" in caplog.text
    files.key.unlink()
    ask(worker, credentials)
    files.key.write_bytes(key)
    caplog.set_level("INFO")
    ask(worker, credentials)
    eventually(lambda: "read again" in caplog.text)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("tls.crt", None, "cannot be read"),
        ("tls.crt", b"text", "no certificate with its key"),
        ("tls.key", Authority().issue("other")[1], "no certificate with its key"),
        ("ca.crt", b"text", "has no certificates"),
    ],
    ids=["missing", "text", "other-key", "ca"],
)
def test_certificates_that_cannot_be_used_end_the_start_with_one_line(
    tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    files = Files(tmp_path, Authority())
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(tls.CertificateError, match=words) as caught:
        tls.credentials(WorkerSettings(**files.settings()))
    assert name in str(caught.value)


def test_a_worker_without_authentication_says_so(
    start: Callable[..., RunningWorker], files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    start(**files.settings(mutual=False))
    assert [r.message for r in caplog.records if "no authentication" in r.message]
    caplog.clear()
    start(**files.settings())
    assert "no authentication" not in caplog.text
