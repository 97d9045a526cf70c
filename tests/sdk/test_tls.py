"""Certificates on the client's side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from faceblur import FaceBlurError, TlsConfig, UnavailableError
from faceblur.testing import FakeServer, serving
from support.certificates import Authority
from support.running_worker import picture

from .conftest import Connect


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def guarded(authority: Authority, mutual: bool = False) -> Any:
    certificate, key = authority.issue("server")
    credentials = grpc.ssl_server_credentials([(key, certificate)], authority.pem if mutual else None, mutual)
    return serving(credentials=credentials)


def address(server: FakeServer) -> str:
    return f"localhost:{server.port}"


def test_a_server_is_trusted_by_its_authority(connect: Connect, authority: Authority, tmp_path: Path) -> None:
    path = tmp_path / "ca.crt"
    path.write_bytes(authority.pem)
    with guarded(authority) as server:
        for ca in (authority.pem, path, str(path)):
            assert connect(address(server), tls=TlsConfig(ca=ca)).blur(picture()).image


def test_a_server_of_another_authority_is_not_trusted(connect: Connect, authority: Authority) -> None:
    with guarded(authority) as server:
        for tls in (TlsConfig(ca=Authority().pem), TlsConfig()):
            with pytest.raises(UnavailableError):
                connect(address(server), tls=tls).blur(picture())
        assert server.calls == []


def test_plain_text_gets_nowhere_with_tls(connect: Connect, authority: Authority) -> None:
    with guarded(authority) as server, pytest.raises(FaceBlurError):
        connect(server).blur(picture())


def test_the_name_in_the_certificate_counts(connect: Connect, authority: Authority) -> None:
    with guarded(authority) as server:
        with pytest.raises(UnavailableError):
            connect(f"127.0.0.1:{server.port}", tls=TlsConfig(ca=authority.pem)).blur(picture())
        named = TlsConfig(ca=authority.pem, server_name="localhost")
        assert connect(f"127.0.0.1:{server.port}", tls=named).blur(picture()).image


def test_a_server_may_want_to_know_the_client(connect: Connect, authority: Authority) -> None:
    certificate, key = authority.issue("someone")
    with guarded(authority, mutual=True) as server:
        with pytest.raises(UnavailableError):
            connect(address(server), tls=TlsConfig(ca=authority.pem)).blur(picture())
        known = TlsConfig(ca=authority.pem, certificate=certificate, key=key)
        assert connect(address(server), tls=known).blur(picture()).image


def test_half_an_identity_is_refused() -> None:
    with pytest.raises(ValueError, match="both or neither"):
        TlsConfig(certificate=b"x")


def test_a_missing_file_is_an_os_error(connect: Connect, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"ca\.crt"):
        connect("localhost:1", tls=TlsConfig(ca=tmp_path / "ca.crt"))
