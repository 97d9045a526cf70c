"""What goes wrong on a network, and with those who call."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from faceblur.v1 import faceblur_service_pb2, faceblur_service_pb2_grpc
from faceblur_worker.errors import DeadlinePassed
from support.eventual import eventually
from support.running_worker import Hold, RunningWorker, details_of, picture


def is_well(worker: RunningWorker) -> bool:
    """A new connection gets its picture done, and nothing is left over of what was before."""
    with grpc.insecure_channel(worker.target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub = faceblur_service_pb2_grpc.FaceBlurServiceStub(channel)
        stub.BlurImage(faceblur_service_pb2.BlurImageRequest(image=picture()), timeout=20)
    eventually(lambda: (worker.worker.gate.inside, worker.worker.gate.bytes) == (0, 0))
    return True


@pytest.mark.parametrize(
    "sent",
    [
        b"\0" * 10_000,
        b"GET / HTTP/1.1\r\nHost: worker\r\n\r\n",
        b"POST /faceblur.v1.FaceBlurService/BlurImage HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 10_000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500,  # the beginning of a TLS handshake
    ],
    ids=["zeros", "http-get", "http-post", "broken-http2", "tls"],
)
def test_what_is_no_grpc_is_turned_away(worker: RunningWorker, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", worker.worker.port), timeout=20) as connection:
        connection.sendall(sent)
        received = b""
        try:
            while part := connection.recv(65536):
                received += part
        except ConnectionResetError:
            pass
    assert b"200 OK" not in received
    assert is_well(worker)


def test_a_request_that_is_no_message_is_refused(worker: RunningWorker) -> None:
    call = worker.channel.unary_unary("/faceblur.v1.FaceBlurService/BlurImage")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"\xff\xff\xff", timeout=20)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert is_well(worker)


def test_a_deadline_that_has_passed_gives_no_work(start: Callable[..., RunningWorker], hold: Hold) -> None:
    worker = start(threads=1)
    worker.engine.hook = hold
    first = worker.stub.BlurImage.future(faceblur_service_pb2.BlurImageRequest(image=picture()), timeout=20)
    hold.wait_until_begun()
    with pytest.raises(grpc.RpcError) as caught:
        worker.blur(picture(), timeout=0)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    hold.let_go.set()
    assert first.result().image
    eventually(lambda: worker.worker.gate.inside == 0)
    assert len(worker.engine.seen) == 1


def test_a_deadline_that_passes_during_the_work_ends_the_call_and_the_work(
    start: Callable[..., RunningWorker], hold: Hold
) -> None:
    worker = start(threads=1)
    worker.engine.hook = hold
    with pytest.raises(grpc.RpcError) as caught:
        worker.blur(picture(), timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    hold.let_go.set()
    assert is_well(worker)


def test_a_cancelled_call_frees_the_engine_at_the_next_checkpoint(
    start: Callable[..., RunningWorker], hold: Hold
) -> None:
    worker = start(threads=1)
    worker.engine.hook = hold
    call = worker.stub.BlurImage.future(faceblur_service_pb2.BlurImageRequest(image=picture()), timeout=20)
    hold.wait_until_begun()
    call.cancel()
    eventually(lambda: worker.worker.gate.running == 1)  # the thread has not noticed yet
    hold.let_go.set()
    eventually(lambda: worker.worker.gate.running == 0)
    assert is_well(worker)


def test_a_full_worker_refuses_at_once_with_a_hint(start: Callable[..., RunningWorker], hold: Hold) -> None:
    worker = start(threads=1, max_waiting=1)
    worker.engine.hook = hold
    ask = faceblur_service_pb2.BlurImageRequest(image=picture())
    calls = [worker.stub.BlurImage.future(ask, timeout=20)]
    hold.wait_until_begun()
    calls.append(worker.stub.BlurImage.future(ask, timeout=20))
    eventually(lambda: worker.worker.gate.waiting == 1)
    with pytest.raises(grpc.RpcError) as caught:
        worker.blur(picture())
    reason, details = details_of(caught.value)
    assert reason == "OVERLOADED"
    assert details[-1].retry_delay.ToTimedelta().total_seconds() > 0
    hold.let_go.set()
    assert all(call.result().image for call in calls)
    assert is_well(worker)


def test_a_refused_picture_is_not_even_read(start: Callable[..., RunningWorker], hold: Hold) -> None:
    worker = start(threads=1, max_waiting=0)
    worker.engine.hook = hold
    first = worker.stub.BlurImage.future(faceblur_service_pb2.BlurImageRequest(image=picture()), timeout=20)
    hold.wait_until_begun()
    sent = []

    def chunks() -> Iterator[faceblur_service_pb2.BlurLargeImageRequest]:
        for number in range(1000):
            sent.append(number)
            yield faceblur_service_pb2.BlurLargeImageRequest(chunk=bytes(1024 * 1024))

    with pytest.raises(grpc.RpcError) as caught:
        list(worker.stub.BlurLargeImage(chunks(), timeout=20))
    assert details_of(caught.value)[0] == "OVERLOADED"
    assert len(sent) < 100
    hold.let_go.set()
    assert first.result().image


def test_a_client_that_dies_in_a_stream_leaves_nothing_behind(start: Callable[..., RunningWorker], hold: Hold) -> None:
    worker = start()
    worker.engine.hook = hold
    more = threading.Event()

    def requests() -> Iterator[faceblur_service_pb2.BlurImagesRequest]:
        for number in range(5):
            yield faceblur_service_pb2.BlurImagesRequest(id=str(number), image=picture())
        more.wait(20)

    channel = grpc.insecure_channel(worker.target, options=[("grpc.use_local_subchannel_pool", 1)])
    stream = faceblur_service_pb2_grpc.FaceBlurServiceStub(channel).BlurImages(requests(), timeout=20)
    gate = worker.worker.gate
    eventually(lambda: (gate.running, gate.waiting) == (2, 3))
    channel.close()
    more.set()
    with pytest.raises(grpc.RpcError):
        list(stream)
    eventually(lambda: (gate.running, gate.waiting) == (2, 0))
    hold.let_go.set()
    assert is_well(worker)
    assert len(worker.engine.seen) == 3, "what waited was not worked on"


def test_a_reader_that_takes_nothing_at_all_is_cut_off(start: Callable[..., RunningWorker]) -> None:
    worker = start(transfer_seconds=0.2)
    channel_options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(worker.target, options=channel_options) as channel:
        call = channel.stream_stream(
            "/faceblur.v1.FaceBlurService/BlurImage",
            request_serializer=faceblur_service_pb2.BlurImageRequest.SerializeToString,
        )
        asked = faceblur_service_pb2.BlurImageRequest(image=picture(2000, 1500, "TIFF"))
        answer = call(iter([asked]), timeout=20)
        eventually(lambda: worker.engine.seen)
        eventually(lambda: worker.worker.gate.inside == 0 and worker.worker.gate.bytes == 0)
        with pytest.raises(grpc.RpcError) as caught:
            list(answer)
    assert details_of(caught.value)[0] == DeadlinePassed.reason


def test_a_slow_reader_holds_up_nobody_and_is_cut_off(start: Callable[..., RunningWorker]) -> None:
    worker = start(transfer_seconds=0.3, max_message_bytes=8 * 1024 * 1024)
    source = picture(1200, 1200, "TIFF")
    worker.engine.hook = lambda data: None

    def requests() -> Iterator[faceblur_service_pb2.BlurImagesRequest]:
        for number in range(20):
            yield faceblur_service_pb2.BlurImagesRequest(id=str(number), image=source)

    with grpc.insecure_channel(worker.target, options=[("grpc.max_receive_message_length", -1)]) as channel:
        stream = faceblur_service_pb2_grpc.FaceBlurServiceStub(channel).BlurImages(requests(), timeout=20)
        assert next(stream).result.image
        assert worker.blur(picture()).image  # while nobody reads on
        cut_off = "faceblur_worker_requests_total DEADLINE_EXCEEDED BlurImages"
        eventually(lambda: worker.samples().get(cut_off) == 1, what="the end of a call whose results nobody reads")
        assert is_well(worker)
        with pytest.raises(grpc.RpcError) as caught:
            list(stream)
        assert details_of(caught.value)[0] == DeadlinePassed.reason
    assert is_well(worker)


def test_a_client_that_never_sends_its_picture_gives_its_place_back(start: Callable[..., RunningWorker]) -> None:
    worker = start(transfer_seconds=0.2)
    never = threading.Event()

    def nothing() -> Iterator[faceblur_service_pb2.BlurLargeImageRequest]:
        never.wait(20)
        yield from ()

    with pytest.raises(grpc.RpcError) as caught:
        list(worker.stub.BlurLargeImage(nothing(), timeout=20))
    never.set()
    assert details_of(caught.value)[0] == DeadlinePassed.reason
    assert is_well(worker)


def test_a_hundred_connections_are_served(worker: RunningWorker) -> None:
    def one(_: int) -> bool:
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(worker.target, options=options) as channel:
            stub = faceblur_service_pb2_grpc.FaceBlurServiceStub(channel)
            ask = faceblur_service_pb2.BlurImageRequest(image=picture())
            return bool(stub.BlurImage(ask, timeout=30, wait_for_ready=True).image)

    with ThreadPoolExecutor(32) as threads:
        assert all(threads.map(one, range(100)))
    assert is_well(worker)
