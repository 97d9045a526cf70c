"""Certificates that are read again when their files change, so that renewing them needs no restart."""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from .config import WorkerSettings

log = logging.getLogger(__name__)


class CertificateError(Exception):
    """A certificate, key or CA file cannot be used; the message is one line."""


@dataclass(frozen=True, slots=True)
class _Files:
    certificate: Path
    key: Path
    client_ca: Path | None

    def read(self) -> tuple[bytes, bytes, bytes | None]:
        """The contents, once they fit together.

        Raises:
            CertificateError: A file cannot be read, or the key is not that of the certificate.
        """
        try:
            contents = (
                self.certificate.read_bytes(),
                self.key.read_bytes(),
                self.client_ca.read_bytes() if self.client_ca else None,
            )
        except OSError as error:
            raise CertificateError(f"{error.filename} cannot be read: {error.strerror}") from error
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.certificate, self.key, password="")  # never ask at a terminal
        except (ssl.SSLError, OSError) as error:
            raise CertificateError(f"{self.certificate} and {self.key} are no certificate with its key") from error
        if self.client_ca:
            try:
                context.load_verify_locations(self.client_ca)
            except (ssl.SSLError, OSError) as error:
                raise CertificateError(f"{self.client_ca} has no certificates") from error
        return contents


class Certificates:
    """The server's credentials. Every handshake gets what the files held when they last fitted together."""

    def __init__(self, files: _Files) -> None:
        self._files = files
        self._stamp = self._stamps()
        self._contents = files.read()

    def credentials(self) -> grpc.ServerCredentials:
        """Return credentials for a port; clients have to show a certificate exactly if there is a client CA."""
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._contents),
            self._fetch,  # type: ignore[arg-type]  # the stubs do not know that None is an answer
            require_client_authentication=self._files.client_ca is not None,
        )

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC before each handshake; None means that nothing has changed."""
        stamp = self._stamps()
        if stamp == self._stamp:
            return None
        try:
            contents = self._files.read()
        except CertificateError as error:
            # Most likely only one of the files has been replaced yet: the next handshake looks again.
            log.warning("certificates changed but cannot be used, the previous ones stay in use: %s", error)
            return None
        self._stamp = stamp
        if contents == self._contents:
            return None
        self._contents = contents
        log.info("certificates were read again")
        return _configuration(contents)

    def _stamps(self) -> tuple[tuple[int, int, int] | None, ...]:
        """What changes when a file is replaced, also by a symbolic link to another one as Kubernetes does it."""
        stamps: list[tuple[int, int, int] | None] = []
        for path in (self._files.certificate, self._files.key, self._files.client_ca):
            try:
                status = path.stat() if path else None
            except OSError:
                status = None
            stamps.append((status.st_mtime_ns, status.st_ino, status.st_size) if status else None)
        return tuple(stamps)


def credentials(settings: WorkerSettings) -> grpc.ServerCredentials | None:
    """Return the credentials of the port for pictures, None for plain text.

    Raises:
        CertificateError: A file cannot be used.
    """
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    return Certificates(_Files(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)).credentials()


def _configuration(contents: tuple[bytes, bytes, bytes | None]) -> grpc.ServerCertificateConfiguration:
    certificate, key, client_ca = contents
    return grpc.ssl_server_certificate_configuration([(key, certificate)], client_ca)
