"""The committed stubs load with what is installed, and the rules of the contract hold where no tool looks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from google.rpc import status_pb2

from faceblur.v1 import errors_pb2, faceblur_service_pb2
from faceblur_worker.calls import SERVICE

PROTO = Path(__file__).parents[2] / "proto"
BUF = Path(sys.executable).with_name("buf")


def test_the_service_has_the_methods_that_clients_were_promised() -> None:
    kinds = {method.name: (method.client_streaming, method.server_streaming) for method in SERVICE.methods}
    assert kinds == {
        "BlurImage": (False, False),
        "BlurImages": (True, True),
        "BlurLargeImage": (True, True),
        "DetectFaces": (False, False),
        "DetectLargeImage": (True, False),
        "GetInfo": (False, False),
    }


def test_the_error_of_a_picture_reads_as_a_google_rpc_status() -> None:
    error = errors_pb2.PictureError(code=3, message="why")
    error.details.add().Pack(faceblur_service_pb2.UploadHeader(total_bytes=1))
    status = status_pb2.Status.FromString(error.SerializeToString())
    assert (status.code, status.message, len(status.details)) == (3, "why", 1)


def test_a_detection_has_no_field_for_a_picture() -> None:
    for message in (faceblur_service_pb2.DetectFacesResponse, faceblur_service_pb2.DetectLargeImageResponse):
        assert [field.name for field in message.DESCRIPTOR.fields] == ["receipt"]


@pytest.mark.skipif(not BUF.exists(), reason="buf-bin is not installed here")
def test_a_field_that_changes_its_type_breaks_the_contract(tmp_path: Path) -> None:
    for source in [*PROTO.rglob("*.proto"), PROTO / "buf.yaml"]:
        target = tmp_path / source.relative_to(PROTO)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source.read_text())
    command = [BUF, "breaking", "--against", str(PROTO / "baseline.binpb")]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0
    changed = tmp_path / "faceblur/v1/geometry.proto"
    changed.write_text(changed.read_text().replace("double x = 1", "float x = 1"))
    assert subprocess.run(command, cwd=tmp_path, check=False, capture_output=True).returncode != 0
