"""Health, and the order in which a worker goes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from faceblur.v1 import faceblur_service_pb2
from faceblur_worker.server import LIVENESS, READINESS, AddressInUse
from support.eventual import eventually
from support.running_worker import Hold, RunningWorker, details_of, picture

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def health(worker: RunningWorker, service: str = "", port: int | None = None) -> int:
    with grpc.insecure_channel(f"127.0.0.1:{port or worker.worker.health_port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=20)
        return int(answer.status)


@pytest.mark.parametrize("service", ["", LIVENESS, READINESS, "faceblur.v1.FaceBlurService"])
def test_a_started_worker_is_healthy_on_both_ports(worker: RunningWorker, service: str) -> None:
    assert health(worker, service) == SERVING
    assert health(worker, service, worker.worker.port) == SERVING


def test_a_picture_that_takes_far_too_long_costs_liveness_only(start: Callable[..., RunningWorker], hold: Hold) -> None:
    worker = start(stuck_seconds=0.1)
    worker.engine.hook = hold
    call = worker.stub.BlurImage.future(faceblur_service_pb2.BlurImageRequest(image=picture()), timeout=20)
    eventually(lambda: health(worker, LIVENESS) == NOT_SERVING)
    assert health(worker, READINESS) == SERVING
    hold.let_go.set()
    assert call.result().image
    eventually(lambda: health(worker, LIVENESS) == SERVING)


def test_a_worker_that_goes_says_so_first_then_refuses_and_finishes_what_it_has(
    start: Callable[..., RunningWorker], hold: Hold
) -> None:
    worker = start(threads=1)
    worker.engine.hook = hold
    ask = faceblur_service_pb2.BlurImageRequest(image=picture())
    running = worker.stub.BlurImage.future(ask, timeout=20)
    hold.wait_until_begun()
    waiting = worker.stub.BlurImage.future(ask, timeout=20)
    eventually(lambda: worker.worker.gate.waiting == 1)
    stopping = threading.Thread(target=lambda: worker.loop.run(worker.worker.stop(settle_seconds=0.5)))
    stopping.start()
    eventually(lambda: health(worker, READINESS) == NOT_SERVING)
    assert health(worker, LIVENESS) == SERVING
    late = worker.stub.BlurImage.future(ask, timeout=20)  # the word has not reached everybody
    eventually(lambda: worker.worker.gate.waiting == 2)
    eventually(worker.worker.gate.closing.is_set)
    with pytest.raises(grpc.RpcError) as caught:
        worker.blur(picture())
    # A call that reaches a server between its end and the word of it on the connection is cancelled by gRPC itself;
    # the SDK takes both for the same, and repeats the call elsewhere.
    assert caught.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    hold.let_go.set()
    assert all(call.result().image for call in (running, waiting, late))
    stopping.join(20)


def test_an_open_stream_gets_its_answers_and_then_learns_that_the_worker_goes(
    start: Callable[..., RunningWorker], hold: Hold
) -> None:
    worker = start(threads=1)
    worker.engine.hook = hold
    more = threading.Event()

    def requests() -> Iterator[faceblur_service_pb2.BlurImagesRequest]:
        for name in "ab":
            yield faceblur_service_pb2.BlurImagesRequest(id=name, image=picture())
        more.wait(20)

    stream = worker.stub.BlurImages(requests(), timeout=20)
    hold.wait_until_begun()
    eventually(lambda: worker.worker.gate.waiting == 1)
    stopping = threading.Thread(target=lambda: worker.loop.run(worker.worker.stop(settle_seconds=0)))
    stopping.start()
    eventually(worker.worker.gate.closing.is_set)
    hold.let_go.set()
    answered = [next(stream).id, next(stream).id]
    with pytest.raises(grpc.RpcError) as caught:
        next(stream)
    assert answered == ["a", "b"]
    assert details_of(caught.value)[0] == "SHUTTING_DOWN"
    more.set()
    stopping.join(20)


def test_a_port_that_is_taken_ends_the_start_with_one_line(
    start: Callable[..., RunningWorker], worker: RunningWorker
) -> None:
    for setting, port in (
        ("address", worker.worker.port),
        ("health_address", worker.worker.health_port),
        ("metrics_address", worker.worker.metrics_port),
    ):
        with pytest.raises(AddressInUse, match=f"127.0.0.1:{port}"):
            start(**{setting: f"127.0.0.1:{port}"})
