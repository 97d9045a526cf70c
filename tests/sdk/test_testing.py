"""The server for users' tests keeps the contract by itself, also where our clients do not go."""

from __future__ import annotations

import io
import threading

import grpc
import pytest
from PIL import Image

from faceblur import EmptyImageError, FaceBlurClient, Format, ProtocolError, RetryConfig
from faceblur._errors import error_from
from faceblur.testing import FakeServer, serving
from faceblur.v1 import faceblur_service_pb2, faceblur_service_pb2_grpc
from support.running_worker import picture


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_formats_are_told_apart_and_the_result_is_a_png(server: FakeServer, kind: str) -> None:
    with FaceBlurClient(server.target) as client:
        result = client.blur(picture(50, 37, kind))
    assert result.receipt.format is Format(kind.lower())
    with Image.open(io.BytesIO(result.image)) as opened:
        opened.load()
        assert opened.format == "PNG"
        assert opened.size == ((50, 37) if kind in ("PNG", "JPEG") else (16, 16))


def test_a_truncated_header_is_no_defect(server: FakeServer) -> None:
    with FaceBlurClient(server.target) as client:
        assert client.blur(picture(50, 37, "JPEG")[:12]).receipt.width == 16


def test_a_stream_answers_every_picture_with_its_id(server: FakeServer) -> None:
    server.fail_next(EmptyImageError("as wanted"))
    with grpc.insecure_channel(server.target) as channel:
        stub = faceblur_service_pb2_grpc.FaceBlurServiceStub(channel)
        asked = [faceblur_service_pb2.BlurImagesRequest(id=name, image=picture()) for name in "ab"]
        first, second = stub.BlurImages(iter(asked), timeout=20)
    assert (first.id, first.error.code, second.id) == ("a", grpc.StatusCode.INVALID_ARGUMENT.value[0], "b")
    assert second.result.image


def test_an_upload_that_is_not_whole_is_refused(server: FakeServer) -> None:
    part = faceblur_service_pb2.BlurLargeImageRequest
    header = faceblur_service_pb2.UploadHeader(total_bytes=9)
    with grpc.insecure_channel(server.target) as channel:
        stub = faceblur_service_pb2_grpc.FaceBlurServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.BlurLargeImage(iter([part(header=header), part(chunk=b"123")]), timeout=20))
    assert type(error_from(caught.value, server.target)) is ProtocolError


def test_the_request_id_comes_back(server: FakeServer) -> None:
    with grpc.insecure_channel(server.target) as channel:
        stub = faceblur_service_pb2_grpc.FaceBlurServiceStub(channel)
        request = faceblur_service_pb2.DetectFacesRequest(image=picture())
        _, call = stub.DetectFaces.with_call(request, timeout=20, metadata=(("x-request-id", "mine"),))
    assert ("x-request-id", "mine") in [tuple(item) for item in call.trailing_metadata()]


def test_a_port_in_use_is_an_error(server: FakeServer) -> None:
    with pytest.raises(RuntimeError), serving(port=server.port):
        pass


def test_waiting_for_a_call_that_does_not_come_ends(server: FakeServer) -> None:
    with pytest.raises(TimeoutError):
        server.wait_for_held(timeout=0.01)


def test_stopping_lets_go_of_calls_that_are_held() -> None:
    with serving() as server, FaceBlurClient(server.target, retry=RetryConfig(attempts=1)) as client, server.holding():
        threading.Thread(target=lambda: (server.wait_for_held(), server.stop())).start()
        with pytest.raises(Exception, match=r"could be reached|dropped"):
            client.blur(picture(), timeout=20)
