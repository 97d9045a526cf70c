"""The methods of the contract over a real socket."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Callable, Iterator

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from PIL import Image

import faceblur
from faceblur.v1 import faceblur_service_pb2, info_pb2, options_pb2
from faceblur_engine.errors import UnreadableImage
from faceblur_worker.calls import SERVICE
from support.eventual import eventually
from support.fake_engine import COLOR, FakeEngine
from support.running_worker import Hold, RunningWorker, details_of, picture, unpacked


def color_of(image: bytes) -> tuple[int, ...]:
    with Image.open(io.BytesIO(image)) as opened:
        color = opened.convert("RGB").getpixel((0, 0))
    assert isinstance(color, tuple)
    return color


def test_a_picture_comes_back_obscured_with_its_receipt(worker: RunningWorker) -> None:
    source = picture()
    answer = worker.blur(source)
    assert color_of(answer.image) == COLOR
    receipt = answer.receipt
    assert receipt.input_sha256 == hashlib.sha256(source).hexdigest()
    assert receipt.output_sha256 == hashlib.sha256(answer.image).hexdigest()
    assert (receipt.width, receipt.height, receipt.format) == (32, 24, options_pb2.FORMAT_PNG)
    assert [(face.box.x, face.score, face.model) for face in receipt.faces] == [(2, 0.9, "fake")]
    assert receipt.options.profile == options_pb2.PROFILE_BALANCED
    assert receipt.milliseconds["total"] > 0


def test_detection_returns_coordinates_and_no_picture(worker: RunningWorker) -> None:
    answer = worker.stub.DetectFaces(faceblur_service_pb2.DetectFacesRequest(image=picture()), timeout=20)
    assert len(answer.receipt.faces) == 1
    assert not answer.receipt.HasField("output_sha256")
    assert [field.name for field in answer.DESCRIPTOR.fields] == ["receipt"]


def test_a_large_picture_goes_and_comes_in_chunks(worker: RunningWorker) -> None:
    source = picture(900, 900, "TIFF")
    assert len(source) > 2_000_000
    receipt, result = worker.upload(source, chunk=64 * 1024)
    assert receipt.output_sha256 == hashlib.sha256(result).hexdigest()
    assert color_of(result) == COLOR


def test_a_picture_over_the_message_limit_goes_in_chunks_only(start: Callable[..., RunningWorker]) -> None:
    worker = start(max_message_bytes=64 * 1024)
    source = picture(300, 300, "TIFF")
    with pytest.raises(grpc.RpcError) as caught:
        worker.blur(source)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in caught.value.details()
    _, result = worker.upload(source, chunk=32 * 1024)
    assert color_of(result) == COLOR
    assert worker.blur(picture()).image  # and the connection is as good as before


def test_a_result_over_the_message_limit_says_which_call_to_use(start: Callable[..., RunningWorker]) -> None:
    worker = start(max_message_bytes=64 * 1024)
    with pytest.raises(grpc.RpcError) as caught:
        worker.blur(picture(300, 300), format=options_pb2.FORMAT_TIFF)
    assert details_of(caught.value)[0] == "MESSAGE_TOO_LARGE"
    assert "BlurLargeImage" in caught.value.details()


def test_detection_of_a_large_picture_takes_chunks(worker: RunningWorker) -> None:
    source = picture()
    parts = [
        faceblur_service_pb2.DetectLargeImageRequest(header=faceblur_service_pb2.UploadHeader(total_bytes=len(source))),
        faceblur_service_pb2.DetectLargeImageRequest(chunk=source),
    ]
    answer = worker.stub.DetectLargeImage(iter(parts), timeout=20)
    assert len(answer.receipt.faces) == 1


HEADER = faceblur_service_pb2.BlurLargeImageRequest(header=faceblur_service_pb2.UploadHeader(total_bytes=4))
CHUNK = faceblur_service_pb2.BlurLargeImageRequest(chunk=b"abc")


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([], "ended before"),
        ([CHUNK], "header"),
        ([HEADER], "0 came"),
        ([HEADER, CHUNK], "3 came"),
        ([HEADER, CHUNK, CHUNK], "more came"),
        ([HEADER, HEADER], "one header"),
    ],
)
def test_an_upload_out_of_order_is_refused(
    worker: RunningWorker, parts: list[faceblur_service_pb2.BlurLargeImageRequest], words: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(worker.stub.BlurLargeImage(iter(parts), timeout=20))
    assert details_of(caught.value)[0] == "MALFORMED_UPLOAD"
    assert words in caught.value.details()


def test_an_upload_that_announces_too_much_is_refused_before_it_is_read(start: Callable[..., RunningWorker]) -> None:
    worker = start(max_image_bytes=2000)
    with pytest.raises(grpc.RpcError) as caught:
        worker.upload(picture(), announced=2001)
    assert details_of(caught.value)[0] == "LIMIT_EXCEEDED"
    assert not worker.engine.seen


def request(name: str, image: bytes) -> faceblur_service_pb2.BlurImagesRequest:
    return faceblur_service_pb2.BlurImagesRequest(id=name, image=image)


def test_a_stream_answers_every_picture_under_its_id(worker: RunningWorker) -> None:
    sources = {f"p{number}": picture(10 + number, 20) for number in range(50)}
    requests = (request(name, image) for name, image in sources.items())
    answers = {answer.id: answer for answer in worker.stub.BlurImages(requests, timeout=30)}
    assert answers.keys() == sources.keys()
    for name, answer in answers.items():
        assert answer.result.receipt.input_sha256 == hashlib.sha256(sources[name]).hexdigest()


def test_a_bad_picture_does_not_end_its_stream(worker: RunningWorker) -> None:
    sources = [request("a", picture()), request("b", b"text"), request("c" * 2000, picture()), request("d", picture())]
    sources[3].options.cells = 99
    sources.append(request("e", picture()))
    answers = {answer.id: answer for answer in worker.stub.BlurImages(iter(sources), timeout=20)}
    assert answers["a"].result.image
    assert answers["e"].result.image
    reasons = {name: unpacked(answers[name].error.details)[0] for name in ("b", "c" * 1024, "d")}
    assert list(reasons.values()) == ["UNSUPPORTED_FORMAT", "MALFORMED_UPLOAD", "INVALID_OPTIONS"]
    assert answers["b"].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


def test_results_come_as_they_are_finished(worker: RunningWorker, hold: Hold) -> None:
    slow, fast = picture(11, 11), picture(12, 12)
    worker.engine.hook = lambda data: hold(data) if data == slow else None
    answers = worker.stub.BlurImages(iter([request("slow", slow), request("fast", fast)]), timeout=20)
    assert next(answers).id == "fast"
    hold.let_go.set()
    assert next(answers).id == "slow"


def test_a_stream_is_read_only_while_there_is_room(start: Callable[..., RunningWorker], hold: Hold) -> None:
    worker = start(max_stream_in_flight=3, max_waiting=20)
    worker.engine.hook = hold
    taken = []

    def requests() -> Iterator[faceblur_service_pb2.BlurImagesRequest]:
        for number in range(200):
            taken.append(number)
            yield request(str(number), picture(300, 300, "TIFF"))  # large, so that no buffer between holds many

    answers = worker.stub.BlurImages(requests(), timeout=30)
    hold.wait_until_begun(2)
    eventually(lambda: worker.worker.gate.inside == 3)
    assert len(taken) < 200
    hold.let_go.set()
    assert len(list(answers)) == 200


def test_streams_are_bounded(start: Callable[..., RunningWorker], hold: Hold) -> None:
    worker = start(max_streams=1)
    worker.engine.hook = hold
    first = worker.stub.BlurImages(iter([request("1", picture())]), timeout=20)
    hold.wait_until_begun()
    with pytest.raises(grpc.RpcError) as caught:
        list(worker.stub.BlurImages(iter([request("2", picture())]), timeout=20))
    assert details_of(caught.value)[0] == "OVERLOADED"
    hold.let_go.set()
    assert [answer.id for answer in first] == ["1"]


def test_a_stream_of_nothing_ends_well(worker: RunningWorker) -> None:
    assert list(worker.stub.BlurImages(iter([]), timeout=20)) == []


def test_the_worker_describes_itself(start: Callable[..., RunningWorker]) -> None:
    worker = start(profiles="fast,thorough", cells=5, max_message_bytes=100_000, max_image_pixels=1000)
    info = worker.stub.GetInfo(info_pb2.GetInfoRequest(), timeout=20)
    assert info.version == faceblur.__version__
    assert list(info.profiles) == [options_pb2.PROFILE_FAST, options_pb2.PROFILE_THOROUGH]
    assert info.defaults.profile == options_pb2.PROFILE_FAST
    assert (info.defaults.cells, info.defaults.limits.max_pixels) == (5, 1000)
    assert info.max_message_bytes == 100_000
    assert info.concurrency == 2
    assert [model.name for model in info.models] == ["fake"]
    assert options_pb2.FORMAT_JPEG in info.input_formats


def test_the_licences_of_the_real_models_are_told(start: Callable[..., RunningWorker], engine: FakeEngine) -> None:
    from faceblur_engine.models import MODELS
    from faceblur_engine.types import ModelInfo

    engine.models = tuple(ModelInfo(model.name, model.sha256, "somehow") for model in MODELS)
    info = start().stub.GetInfo(info_pb2.GetInfoRequest(), timeout=20)
    assert {model.license for model in info.models} <= {"MIT", "Apache-2.0"}
    assert all(model.origin for model in info.models)


def test_a_profile_that_is_not_served_is_refused(worker: RunningWorker) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        worker.blur(picture(), profile=options_pb2.PROFILE_THOROUGH)
    assert details_of(caught.value)[0] == "INVALID_OPTIONS"
    assert "balanced" in caught.value.details()


def test_the_request_id_of_the_caller_comes_back(worker: RunningWorker) -> None:
    ask = faceblur_service_pb2.BlurImageRequest(image=picture())
    _, call = worker.stub.BlurImage.with_call(ask, metadata=(("x-request-id", "job-1:7"),), timeout=20)
    assert dict(call.trailing_metadata())["x-request-id"] == "job-1:7"
    _, call = worker.stub.BlurImage.with_call(ask, metadata=(("x-request-id", "no good" * 20),), timeout=20)
    assert len(dict(call.trailing_metadata())["x-request-id"]) == 32


def test_an_error_has_the_request_id_too(worker: RunningWorker) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        worker.stub.BlurImage(
            faceblur_service_pb2.BlurImageRequest(image=b"text"), metadata=(("x-request-id", "7"),), timeout=20
        )
    assert dict(caught.value.trailing_metadata())["x-request-id"] == "7"


def test_reflection_describes_the_service(worker: RunningWorker) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(worker.channel)
    answers = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=20)
    services = {service.name for service in next(answers).list_services_response.service}
    assert SERVICE.full_name in services


@pytest.mark.parametrize("method", [method.name for method in SERVICE.methods])
def test_every_method_of_the_contract_is_answered(worker: RunningWorker, method: str) -> None:
    descriptor = SERVICE.methods_by_name[method]
    call = worker.channel.stream_stream(
        f"/{SERVICE.full_name}/{method}",
        request_serializer=GetMessageClass(descriptor.input_type).SerializeToString,
        response_deserializer=GetMessageClass(descriptor.output_type).FromString,
    )
    answer = call(iter([GetMessageClass(descriptor.input_type)()]), timeout=20)
    with contextlib.suppress(grpc.RpcError):
        list(answer)
    # An empty request may be a bad one, but not an unknown one.
    assert answer.code() in (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT)


def test_no_error_ever_carries_the_picture(worker: RunningWorker) -> None:
    """Whatever fails, at whatever stage, the answer is an error and nothing else."""
    source = picture()

    def fail(data: bytes) -> None:
        raise UnreadableImage("the picture is truncated")

    worker.engine.hook = fail
    answers = worker.stub.BlurImages(iter([request("1", source)]), timeout=20)
    (answer,) = answers
    assert answer.WhichOneof("outcome") == "error"
    assert source not in answer.SerializeToString()
