"""The worker's image, built and run for real.

Built by the command in FACEBLUR_BUILD_IMAGE, which gets a tag, a Dockerfile and a context, or else by Docker. Run by
Docker, or where there is none by runc on what buildah has built. In both the container has a read-only file system, no
capabilities and no network but its own loopback, so the client runs inside it too.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from faceblur_engine.pipeline import Engine
from faceblur_engine.types import Options, Profile
from support import images
from support.eventual import eventually
from support.images import output

pytestmark = pytest.mark.timeout(1200)  # a first build downloads all packages

ROOT = Path(__file__).parents[2]
PHOTO = (ROOT / "examples/photos/city.jpg").read_bytes()
TAG = "localhost/faceblur-worker:tested"
MEGABYTES = 200

CLIENT = """
import json, sys
from faceblur import FaceBlurClient, Options, Profile
with FaceBlurClient("127.0.0.1:50051") as client:
    result = client.blur(sys.stdin.buffer.read(), Options(profile=Profile(sys.argv[1])))
sys.stderr.write(json.dumps(result.receipt.as_dict()))
sys.stdout.buffer.write(result.image)
"""


class Runtime(Protocol):
    """Makes the commands that deal with a container."""

    def run(self, name: str, environment: dict[str, str], arguments: list[str], folder: Path) -> list[str]: ...
    def exec(self, name: str) -> list[str]: ...
    def kill(self, name: str, signal: str) -> list[str]: ...


class Docker:
    def run(self, name: str, environment: dict[str, str], arguments: list[str], folder: Path) -> list[str]:
        command = ["docker", "run", "--rm", "--name", name, "--network", "none", "--read-only", "--cap-drop", "ALL"]
        command += ["--security-opt", "no-new-privileges"]
        return [*command, *(f"--env={key}={value}" for key, value in environment.items()), TAG, *arguments]

    def exec(self, name: str) -> list[str]:
        return ["docker", "exec", "-i", name]

    def kill(self, name: str, signal: str) -> list[str]:
        return ["docker", "kill", "--signal", signal, name]


class Runc:
    """Runs what buildah mounts."""

    def __init__(self, mounted: Path) -> None:
        self._mounted = mounted

    def run(self, name: str, environment: dict[str, str], arguments: list[str], folder: Path) -> list[str]:
        subprocess.run(["runc", "spec", "--bundle", str(folder)], check=True)
        config = folder / "config.json"
        spec = json.loads(config.read_text())
        image = json.loads(output("buildah", "inspect", "--type", "image", TAG))["OCIv1"]["config"]
        uid, gid = map(int, image["User"].split(":"))
        spec["root"] = {"path": str(self._mounted), "readonly": True}
        spec["process"] |= {
            "terminal": False,
            "args": [*image["Entrypoint"], *arguments],
            "env": [*image["Env"], *(f"{key}={value}" for key, value in environment.items())],
            "user": {"uid": uid, "gid": gid},
            "capabilities": {},
        }
        config.write_text(json.dumps(spec))
        return ["runc", "run", "--bundle", str(folder), name]

    def exec(self, name: str) -> list[str]:
        return ["runc", "exec", name]

    def kill(self, name: str, signal: str) -> list[str]:
        return ["runc", "kill", name, signal]


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    """The image, built, and what runs it."""
    docker = images.build(TAG, "worker/Dockerfile")
    if docker:
        yield Docker()
        return
    if not (shutil.which("buildah") and shutil.which("runc") and os.geteuid() == 0):
        pytest.skip("what was built cannot be run here: that takes Docker, or buildah, runc and root")
    container = output("buildah", "from", "--pull-never", TAG).strip()
    try:
        yield Runc(Path(output("buildah", "mount", container).strip()))
    finally:
        output("buildah", "rm", container)


@dataclass
class Container:
    runtime: Runtime
    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def python(self, code: str, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = [*self.runtime.exec(self.name), "python", "-c", code, *arguments]
        return subprocess.run(command, input=stdin, check=True, capture_output=True)

    def messages(self) -> list[str]:
        lines = [line for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [json.loads(line)["message"] for line in lines]

    def end(self, signal: str) -> int:
        subprocess.run(self.runtime.kill(self.name, signal), check=True, capture_output=True)
        return self.process.wait(60)


@contextlib.contextmanager
def running(runtime: Runtime, folder: Path, *arguments: str, **settings: str) -> Iterator[Container]:
    name = f"faceblur-{os.getpid()}-{folder.name}"
    folder.mkdir()
    environment = {f"FACEBLUR_WORKER_{key}": value for key, value in settings.items()}
    log = folder / "log"
    with log.open("wb") as written:
        command = runtime.run(name, environment, list(arguments), folder)
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=written, stderr=subprocess.STDOUT)
    container = Container(runtime, name, process, log)
    try:
        yield container
    finally:
        if process.poll() is None:
            container.end("KILL")


@pytest.fixture(scope="module")
def worker(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """A container that has served for a while when the tests see it."""
    settings = {"PROFILES": "fast,balanced,thorough", "SETTLE_SECONDS": "0"}
    with running(runtime, tmp_path_factory.mktemp("image") / "worker", **settings) as container:
        eventually(lambda: "ready" in container.messages() or container.process.poll() is not None, 60)
        assert container.process.poll() is None, container.log.read_text()
        yield container


@pytest.mark.parametrize("profile", Profile)
def test_a_picture_goes_in_and_comes_out_obscured_in_every_profile(worker: Container, profile: Profile) -> None:
    expected = Engine(profiles=(profile,)).redact(PHOTO, Options(profile=profile))
    answer = worker.python(CLIENT, profile, stdin=PHOTO)
    receipt: dict[str, Any] = json.loads(answer.stderr)
    assert receipt["models"] == [
        {"name": m.name, "sha256": m.sha256, "runtime": m.runtime} for m in expected.receipt.models
    ]
    assert len(receipt["faces"]) == len(expected.receipt.faces) > 0
    assert answer.stdout[:3] == b"\xff\xd8\xff"
    assert answer.stdout != PHOTO


def test_it_has_no_rights_and_can_write_nowhere(worker: Container) -> None:
    lines = worker.python(READ, "/proc/1/status").stdout.decode().splitlines()
    status = {name: value for name, _, value in (line.partition(":") for line in lines)}
    assert set(status["Uid"].split()) == set(status["Gid"].split()) == {"65532"}
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    writable = worker.python(WRITABLE).stdout.decode().split()
    assert [folder for folder in writable if not folder.startswith(("/dev", "/proc"))] == []


READ = "import sys; print(open(sys.argv[1]).read())"
WRITABLE = """
import os
for folder, folders, _ in os.walk("/"):
    if os.access(folder, os.W_OK): print(folder)
    if folder == "/": folders[:] = set(folders) - {"proc", "sys"}
"""


def test_it_listens_on_its_three_ports_and_no_other(worker: Container) -> None:
    """State 0A is LISTEN; the port is hexadecimal."""
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in worker.python(READ, f"/proc/net/{table}").stdout.decode().splitlines()[1:]
        if line
    ]
    assert {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A"} == {50051, 50052, 9464}


def test_sigterm_ends_it_in_order(worker: Container) -> None:
    """Last of those that use the container."""
    assert worker.end("TERM") == 0
    assert worker.messages()[-1] == "ended"


def test_a_wrong_setting_ends_it_and_the_last_line_says_which(runtime: Runtime, tmp_path: Path) -> None:
    with running(runtime, tmp_path / "wrong", THREADS="many") as container:
        assert container.process.wait(60) == 2
    assert "FACEBLUR_WORKER_THREADS is 'many'" in container.log.read_text().splitlines()[-1]


@pytest.fixture(scope="module")
def archive(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "image.tar"
    return images.save(TAG, path, docker=isinstance(runtime, Docker))


def test_its_own_layers_are_small_enough(archive: Path) -> None:
    sizes = images.image_size().sizes(archive)
    assert {"openvino", "numpy", "faceblur_engine"} < set(sizes)
    assert sum(packed for packed, _ in sizes.values()) <= MEGABYTES * 1e6


def test_its_own_layers_have_nothing_that_installs_or_compiles_and_no_special_files(archive: Path) -> None:
    assert len(images.harmless_paths(archive)) > 1000
