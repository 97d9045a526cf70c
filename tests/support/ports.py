"""Ports for servers that are started, killed and started again by tests."""

from __future__ import annotations

import contextlib
import random
import socket

# Below those that Linux and macOS give to connections, one of which could take a port before its server does.
_PORTS = iter(random.sample(range(20_000, 30_000), 10_000))


def free_port() -> int:
    """A port for a server that is started later, never the same twice."""
    for port in _PORTS:
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port
    raise AssertionError("all ports are in use")
