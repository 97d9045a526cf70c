"""What goes to a server and what comes back, with both clients."""

from __future__ import annotations

import dataclasses
import io
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
from PIL import Image

from faceblur import (
    Box,
    ClientClosedError,
    DeadlineExceededError,
    Format,
    InvalidOptionsError,
    Keep,
    Limits,
    Margin,
    MessageTooLargeError,
    Method,
    Options,
    Profile,
    ProtocolError,
    RetryConfig,
    Shape,
    UnsupportedFormatError,
    testing,
)
from faceblur._calls import Calls, Invoke
from faceblur.testing import FakeServer, serving
from faceblur.v1 import faceblur_service_pb2
from support.running_worker import picture

from .conftest import Aside, Client, Connect

EVERYTHING = Options(
    profile=Profile.THOROUGH,
    min_score=0.25,
    min_face=4.5,
    max_face=900.0,
    denoise=3.0,
    method=Method.SOLID,
    cells=5,
    shape=Shape.ELLIPSE,
    margin=Margin(sides=0.1, top=0.2, bottom=0.3, pixels=2.0),
    feather=0.125,
    color=(1, 2, 3),
    contour=True,
    regions=(Box(1, 2, 3, 4), Box(-5, 6, 7, 8.5)),
    verify=True,
    format=Format.WEBP,
    quality=77,
    subsampling="4:2:0",
    keep=frozenset({Keep.GPS, Keep.CAPTURE_TIME}),
    limits=Limits(max_bytes=10_000_000, max_width=1000, max_height=1001, max_pixels=1002, max_scans=9),
)


def test_a_picture_is_bytes_a_path_or_a_file(client: Client, server: FakeServer, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(picture())
    with path.open("rb") as file:
        for source in (picture(), bytearray(picture()), memoryview(picture()), path, str(path), file):
            client.blur(source)
    client.detect(io.BytesIO(picture()))
    assert [call.image for call in server.calls] == [picture()] * 7


def test_the_result_is_a_picture_of_the_same_size_with_a_receipt(client: Client) -> None:
    result = client.blur(picture(40, 30))
    with Image.open(io.BytesIO(result.image)) as opened:
        assert opened.size == (40, 30)
    assert (result.receipt.width, result.receipt.height) == (40, 30)
    assert result.receipt.output_bytes == len(result.image)


def test_detection_brings_no_picture(client: Client, server: FakeServer) -> None:
    receipt = client.detect(picture())
    assert receipt.faces == server.faces
    assert (receipt.output_sha256, receipt.output_bytes, receipt.output_format) == (None, 0, None)


def test_all_options_arrive_and_come_back(client: Client, server: FakeServer) -> None:
    unset = [f.name for f in dataclasses.fields(Options) if getattr(EVERYTHING, f.name) in (None, ())]
    assert unset == []
    result = client.blur(picture(), EVERYTHING)
    assert server.calls[0].options == EVERYTHING
    assert result.receipt.options == EVERYTHING


def test_options_that_are_not_set_are_left_to_the_server(client: Client, server: FakeServer) -> None:
    client.blur(picture())
    client.blur(picture(), Options(keep=frozenset(), contour=False, min_score=0.0))
    assert server.calls[0].options == Options()
    assert server.calls[1].options == Options(keep=frozenset(), contour=False, min_score=0.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"profile": "quick"},
        {"cells": -1},
        {"cells": 1.5},
        {"subsampling": "4:1:1"},
        {"color": (1, 2)},
        {"regions": (1,)},
    ],
)
def test_options_that_do_not_fit_into_the_contract_are_refused_here(
    client: Client, server: FakeServer, wrong: dict[str, Any]
) -> None:
    (name,) = wrong
    with pytest.raises(InvalidOptionsError, match=name):
        client.blur(picture(), Options(**wrong))
    assert server.calls == []


def test_a_picture_over_the_message_limit_goes_in_chunks(connect: Connect) -> None:
    large = picture() + bytes(2_000_000)
    with serving(max_message_bytes=1_000_000) as server:
        client = connect(server)
        client.blur(picture())
        client.blur(large)
        client.detect(large)
        assert [call.method for call in server.calls] == ["BlurImage", "BlurLargeImage", "DetectLargeImage"]
        assert server.calls[2].image == large


def test_a_result_over_the_message_limit_is_asked_for_in_chunks(client: Client, server: FakeServer) -> None:
    server.fail_next(MessageTooLargeError("the result is too large"))
    client.blur(picture(3000, 2000))
    assert [call.method for call in server.calls] == ["BlurImage", "BlurLargeImage"]
    client.blur(picture())
    assert server.calls[-1].method == "BlurImage"  # one large result says nothing about others


def test_a_result_that_this_client_does_not_take_in_one_message_comes_in_chunks(
    connect: Connect, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(testing, "_CHUNK_BYTES", 500)
    client = connect(server, max_message_bytes=1500)
    assert len(client.blur(picture(4000, 4000)).image) > 1500
    assert server.calls[-1].method == "BlurLargeImage"


def test_a_small_picture_is_not_sent_again_when_something_else_is_exhausted(client: Client, server: FakeServer) -> None:
    server.fail_next(grpc.StatusCode.RESOURCE_EXHAUSTED)
    with pytest.raises(MessageTooLargeError):
        client.blur(picture())
    assert len(server.calls) == 1


def test_a_result_that_is_not_whole_is_none(
    client: Client, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = server._answer

    def short(*args: Any) -> Any:
        image, receipt = answer(*args)
        return image[:-1], receipt

    monkeypatch.setattr(server, "_answer", short)
    with pytest.raises(ProtocolError, match="not whole"):
        client.blur(picture())
    server.fail_next(MessageTooLargeError("in chunks"))
    with pytest.raises(ProtocolError, match="not whole"):
        client.blur(picture())


def test_an_error_tells_the_file_and_the_request(client: Client, server: FakeServer, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"no picture")
    with pytest.raises(UnsupportedFormatError) as caught:
        client.blur(path, request_id="mine-1")
    assert str(caught.value) == f"{path}: the content is not that of a picture"
    assert (caught.value.source, caught.value.request_id, caught.value.attempts) == (str(path), "mine-1", 1)
    assert server.calls[0].request_id == "mine-1"


def test_a_file_that_is_not_there_is_an_os_error(client: Client, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a\.jpg"):
        client.blur(tmp_path / "a.jpg")


@pytest.mark.parametrize("wrong", [io.StringIO("text"), 7, None])
def test_what_is_no_picture_at_all_is_a_type_error(client: Client, wrong: Any) -> None:
    with pytest.raises(TypeError, match="binary"):
        client.blur(wrong)


def test_no_answer_in_time_is_an_error(client: Client, server: FakeServer) -> None:
    with server.holding(), pytest.raises(DeadlineExceededError) as caught:
        client.blur(picture(), timeout=0.2)
    assert len(server.calls) == caught.value.attempts == 1


def test_a_server_tells_what_it_is(client: Client) -> None:
    info = client.info()
    assert info.profiles == tuple(Profile)
    assert info.methods == tuple(Method)
    assert info.input_formats == tuple(Format)
    assert info.defaults.profile is Profile.BALANCED
    assert info.max_message_bytes == 16 * 1024 * 1024
    assert info.models[0].name == "stand-in"


def test_closing_ends_calls_that_others_wait_for(client: Client, server: FakeServer) -> None:
    with server.holding():
        waiting = Aside(lambda: client.blur(picture(), request_id="x"))
        server.wait_for_held()
        client.close()
        assert isinstance(waiting.outcome, ClientClosedError)
    with pytest.raises(ClientClosedError):
        client.blur(picture())


def test_many_threads_use_one_client(client: Client, server: FakeServer) -> None:
    barrier = threading.Barrier(16)

    def work() -> int:
        barrier.wait(20)
        return client.blur(picture()).receipt.width

    assert [aside.outcome for aside in [Aside(work) for _ in range(16)]] == [32] * 16


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_a_timeout_has_to_be_a_time(client: Client, timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        client.blur(picture(), timeout=timeout)


@pytest.mark.parametrize(
    ("header", "chunks"),
    [
        ({"total_bytes": 5, "receipt": {"output_bytes": 4}}, [b"12", b"34"]),
        ({"total_bytes": 4, "receipt": {"output_bytes": 5}}, [b"12", b"34"]),
        ({"total_bytes": 4, "receipt": {"output_bytes": 4}}, [b"12"]),
        ({"total_bytes": 4, "receipt": {"output_bytes": 4}}, [b"12", b"345"]),
        ({}, []),
        (None, [b"1234"]),
    ],
)
def test_chunks_that_are_not_what_their_header_says_are_no_result(
    header: dict[str, Any] | None, chunks: list[bytes]
) -> None:
    part = faceblur_service_pb2.BlurLargeImageResponse
    work = Calls("host:1", 9, RetryConfig()).blur(bytes(20_000_000), "", None, None, None)
    step = next(work)
    assert isinstance(step, Invoke)
    assert step.method == "BlurLargeImage"
    parts = [part(header=header)] if header is not None else []  # type: ignore[arg-type]
    with pytest.raises(ProtocolError):
        work.send([*parts, *(part(chunk=chunk) for chunk in chunks)])
