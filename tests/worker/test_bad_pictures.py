"""Every picture that the engine refuses, sent to a worker with the real engine: refused as there, and it serves on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from faceblur.v1 import faceblur_service_pb2
from faceblur_engine.errors import ImageError
from faceblur_engine.pipeline import Engine
from faceblur_engine.types import Options, Profile
from support.bad_pictures import REFUSED
from support.running_worker import LoopThread, RunningWorker, details_of, picture, running, unpacked

GOOD = picture()


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(profiles=(Profile.FAST,), concurrency=2)


@pytest.fixture(scope="module")
def real(loop: LoopThread, engine: Any) -> Iterator[RunningWorker]:
    with running(loop, engine, profiles="fast") as worker:
        yield worker


def refusal(engine: Engine, name: str) -> tuple[bytes, str]:
    """The picture, and the reason with which the engine refuses it."""
    build, errors = REFUSED[name]
    image = build()
    with pytest.raises(ImageError) as caught:
        engine.redact(image, Options(profile=Profile.FAST))
    assert isinstance(caught.value, errors)
    return image, caught.value.reason


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_with_its_reason_by_every_method(real: RunningWorker, engine: Engine, name: str) -> None:
    image, reason = refusal(engine, name)
    detect = faceblur_service_pb2.DetectFacesRequest(image=image)
    for ask in (
        lambda: real.blur(image),
        lambda: real.upload(image, chunk=50_000),
        lambda: real.stub.DetectFaces(detect, timeout=20),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            ask()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]
        assert details_of(caught.value)[0] == reason
    assert real.blur(GOOD).image


def test_in_a_stream_each_fails_alone(real: RunningWorker, engine: Engine) -> None:
    refused = {name: refusal(engine, name) for name in REFUSED}

    def requests() -> Iterator[faceblur_service_pb2.BlurImagesRequest]:
        for name, (image, _) in refused.items():
            yield faceblur_service_pb2.BlurImagesRequest(id=name, image=image)
            yield faceblur_service_pb2.BlurImagesRequest(id=f"after {name}", image=GOOD)

    answers = {answer.id: answer for answer in real.stub.BlurImages(requests(), timeout=50)}
    for name, (_, reason) in refused.items():
        assert answers[name].WhichOneof("outcome") == "error"
        assert unpacked(answers[name].error.details)[0] == reason
        assert answers[f"after {name}"].result.image
    assert len(answers) == 2 * len(refused)
