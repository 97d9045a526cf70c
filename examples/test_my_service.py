"""How code that uses the client is tested without a worker: `pytest examples/test_my_service.py`."""

# ruff: noqa: D103  tests are named as sentences

import pytest

from faceblur import Box, Face, FaceBlurClient, OverloadedError, UnreadableImageError
from faceblur.testing import FakeServer, serving

PICTURE = b"\x89PNG\r\n\x1a\n" + b"\x00\x00\x00\rIHDR" + (640).to_bytes(4) + (480).to_bytes(4)


def count_faces(client: FaceBlurClient, picture: bytes) -> int | None:
    """Stands for code of your own: None for pictures that cannot be read."""
    try:
        return len(client.detect(picture).faces)
    except UnreadableImageError:
        return None


@pytest.fixture
def server():
    """A server of this process, for each test."""
    with serving() as running:
        yield running


@pytest.fixture
def client(server: FakeServer):
    """A client that is connected with it."""
    with FaceBlurClient(server.target) as connected:
        yield connected


def test_faces_are_counted(server, client):
    server.faces = (Face(Box(1, 2, 30, 40), 0.9, "stand-in"),) * 3
    assert count_faces(client, PICTURE) == 3


def test_a_picture_that_cannot_be_read_has_no_count(server, client):
    server.fail_next(UnreadableImageError("it is truncated"))
    assert count_faces(client, PICTURE) is None


def test_a_busy_server_is_asked_again(server, client):
    server.fail_next(OverloadedError("busy", retry_after=0.01))
    assert count_faces(client, PICTURE) == 1
    assert len(server.calls) == 2
