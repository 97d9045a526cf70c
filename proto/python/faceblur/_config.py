"""How a client connects, how long it waits and what it does when a call fails."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import grpc

from ._version import __version__

Pem: TypeAlias = "bytes | str | os.PathLike[str]"
"""Certificates or a key in PEM: the bytes themselves, or the path of their file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConfig:
    """How the server proves who it is, and the client if the server wants to know.

    Attributes:
        ca: Certificates of the authorities that may have issued the server's. None: those that gRPC ships.
        certificate: The client's own, for mutual TLS.
        key: Belongs to `certificate`.
        server_name: The name that the server's certificate has to have, if it is not the host that is dialled.
    """

    ca: Pem | None = None
    certificate: Pem | None = None
    key: Pem | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        """Refuse half an identity."""
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key only work together; give both or neither")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryConfig:
    """When a call is tried again. All calls are safe to repeat: a worker keeps nothing of a picture.

    Tried again is what another worker, or the same one later, may well do: see `TransientError`. The pause before a
    repetition grows from `first_pause` by `factor` up to `longest_pause`, is shortened by chance by up to
    half, so that many clients do not come back together, and is never shorter than the server asks for. A pause that
    would outlast the call's timeout is not begun; the last error is raised instead.

    Attributes:
        attempts: Tries in all; 1: none is repeated.
        first_pause: Seconds.
        longest_pause: Seconds; the server may ask for more.
        factor: By which the pause grows, at least 1.
        attempt_timeout: Seconds for each try. With several workers, a call that hangs on one is so moved to another.
            None: a try may take all the time of the call.
    """

    attempts: int = 5
    first_pause: float = 0.1
    longest_pause: float = 5.0
    factor: float = 2.0
    attempt_timeout: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.attempts < 1:
            raise ValueError(f"attempts is {self.attempts}, it has to be at least 1")
        if not 0 < self.first_pause <= self.longest_pause:
            raise ValueError("first_pause has to be above 0 and not above longest_pause")
        if self.factor < 1:
            raise ValueError(f"factor is {self.factor:g}, it has to be at least 1")
        if self.attempt_timeout is not None and self.attempt_timeout <= 0:
            raise ValueError(f"attempt_timeout is {self.attempt_timeout:g} s, it has to be above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepaliveConfig:
    """How a connection that is dead without having been closed is found while calls wait on it.

    Attributes:
        interval: Seconds without traffic after which the server is asked for a sign of life, at least 10, which is what
            workers allow.
        timeout: Seconds that the sign may take before the connection is given up and its calls are tried elsewhere.
    """

    interval: float = 20.0
    timeout: float = 10.0

    def __post_init__(self) -> None:
        """Refuse what makes servers end connections."""
        if self.interval < 10:
            raise ValueError(
                f"interval is {self.interval:g} s; servers end connections that ask more often than every 10 s"
            )
        if self.timeout <= 0:
            raise ValueError(f"timeout is {self.timeout:g} s, it has to be above 0")


def target_of(server: str) -> str:
    """Return the gRPC target for what a person writes: ``host:port``, ``dns:///host:port``, ``unix:path``, ...

    Raises:
        ValueError: It is neither.
    """
    scheme, colon, _ = server.partition(":")
    if colon and scheme in ("dns", "ipv4", "ipv6", "unix", "unix-abstract", "vsock", "xds"):
        return server
    host, colon, port = server.rpartition(":")
    if not (colon and host and port.isdecimal() and "/" not in server):
        raise ValueError(f"the server is {server!r}, it has to be HOST:PORT or a gRPC target such as dns:///HOST:PORT")
    return f"dns:///{server}"


def channel_options(
    keepalive: KeepaliveConfig, max_message_bytes: int, tls: TlsConfig | None
) -> list[tuple[str, str | int]]:
    """Return what gRPC itself has to know."""
    options: list[tuple[str, str | int]] = [
        # Each call goes to the next worker that can be reached; the default would keep to the first one.
        ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.primary_user_agent", f"faceblur-python/{__version__}"),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", -1),  # the server's limit decides, see `_calls`
        ("grpc.keepalive_time_ms", round(keepalive.interval * 1000)),
        ("grpc.keepalive_timeout_ms", round(keepalive.timeout * 1000)),
        ("grpc.http2.max_pings_without_data", 0),
        # A worker that comes back is found soon, and one that does not answer holds up nobody for long.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 5_000),
        ("grpc.max_reconnect_backoff_ms", 10_000),
        # Workers that were replaced one after the other: whoever only knows the old ones asks again at once.
        ("grpc.dns_min_time_between_resolutions_ms", 2_000),
    ]
    if tls is not None and tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return options


def channel_credentials(tls: TlsConfig) -> grpc.ChannelCredentials:
    """Return the credentials of a channel.

    Raises:
        OSError: A file cannot be read.
    """
    return grpc.ssl_channel_credentials(_pem(tls.ca), _pem(tls.key), _pem(tls.certificate))


def _pem(pem: Pem | None) -> bytes | None:
    return pem if pem is None or isinstance(pem, bytes) else Path(pem).read_bytes()
