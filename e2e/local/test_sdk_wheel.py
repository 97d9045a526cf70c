"""The SDK as an application gets it: the wheel, what it requires without extras, and nothing else."""

from __future__ import annotations

import email
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from support.fake_engine import FakeEngine
from support.running_worker import LoopThread, RunningWorker, picture, running

ROOT = Path(__file__).parents[2]
OWN = {"grpcio", "protobuf", "googleapis-common-protos"}

PROGRAM = """
import importlib.util, sys
import faceblur, faceblur.testing
for name in faceblur.__all__:
    getattr(faceblur, name)
image = sys.stdin.buffer.read()
with faceblur.FaceBlurClient(sys.argv[1]) as client:
    result = client.blur(image)
    assert result.receipt.faces and client.info().models[0].name == "fake"
with faceblur.testing.serving() as server, faceblur.FaceBlurClient(server.target) as client:
    assert client.detect(image).faces == server.faces
for name in ("numpy", "cv2", "PIL", "openvino", "pydantic", "prometheus_client", "grpc_health"):
    assert importlib.util.find_spec(name) is None, name
sys.stdout.buffer.write(result.image)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(ROOT)], check=True)
    (built,) = folder.iterdir()
    return built


def required(requirements: list[str]) -> dict[str, Distribution]:
    """What is installed for these requirements and for theirs, as pip would choose it."""
    found: dict[str, Distribution] = {}
    for requirement in map(Requirement, requirements):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            here = distribution(requirement.name)
            assert requirement.specifier.contains(here.version)
            found |= {canonicalize_name(requirement.name): here, **required(here.requires or [])}
    return found


@pytest.fixture(scope="module")
def requirements(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as content:
        (name,) = (name for name in content.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(content.read(name)).get_all("Requires-Dist") or []


@pytest.fixture
def worker() -> Iterator[RunningWorker]:
    loop = LoopThread()
    with running(loop, FakeEngine()) as started:
        yield started
    loop.close()


def test_without_extras_it_requires_three_packages(requirements: list[str]) -> None:
    without_extras = [Requirement(text) for text in requirements if "extra ==" not in text]
    assert {requirement.name for requirement in without_extras} == OWN
    assert set(required(requirements)) == OWN | {"typing-extensions"}


def test_it_works_with_these_alone(wheel: Path, requirements: list[str], worker: RunningWorker, tmp_path: Path) -> None:
    venv.create(tmp_path / "alone")
    python = tmp_path / "alone/bin/python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*install, str(wheel)], check=True)
    # No index is asked: what this environment has of the same packages is linked to, file by file.
    (site,) = (tmp_path / "alone/lib").glob("python*/site-packages")
    for package in required(requirements).values():
        for file in package.files or ():
            if ".." not in file.parts and file.suffix != ".pyc":
                link = site.joinpath(*file.parts)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(package.locate_file(file))
    command = [str(python), "-I", "-B", "-W", "error", "-c", PROGRAM, worker.target]
    done = subprocess.run(command, input=picture(), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.startswith(b"\x89PNG")
    assert done.stdout != picture()
