"""The operator's image, built for real: what is in it, how large it is, and that it starts as any user.

Built by the command in FACEBLUR_BUILD_IMAGE, which gets a tag, a Dockerfile and a context, or else by Docker. That it
does its work is proven by the tests on a cluster.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from importlib import util
from pathlib import Path, PurePosixPath
from types import ModuleType

import pytest

pytestmark = pytest.mark.timeout(1200)  # a first build downloads all packages

ROOT = Path(__file__).parents[2]
TAG = "localhost/faceblur-operator:tested"
MEGABYTES = 90
ARBITRARY = "123456:0"
ABSENT = {"pip", "pip3", "setuptools", "ensurepip", "hatchling", "gcc", "cc", "g++", "ld", "make", "apt", "uv", "dpkg"}
DATA_PLANE = {"faceblur", "faceblur_batch", "faceblur_cli", "faceblur_engine", "faceblur_web", "faceblur_worker"}


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True).stdout.decode()


def has_docker() -> bool:
    return bool(shutil.which("docker")) and not subprocess.run(["docker", "info"], capture_output=True).returncode


@pytest.fixture(scope="module")
def docker() -> bool:
    """Build the image; whether Docker has it."""
    given, docker = shlex.split(os.environ.get("FACEBLUR_BUILD_IMAGE", "")), has_docker()
    if not given and not docker:
        pytest.skip("there is no Docker here, and FACEBLUR_BUILD_IMAGE does not name what builds images")
    dockerfile = str(ROOT / "operator/Dockerfile")
    build = (
        [*given, TAG, dockerfile, str(ROOT)] if given else ["docker", "build", "-t", TAG, "-f", dockerfile, str(ROOT)]
    )
    subprocess.run(build, check=True, stdout=sys.stderr)
    if not docker and not (shutil.which("buildah") and os.geteuid() == 0):
        pytest.skip("what was built cannot be looked at here: that takes Docker, or buildah and root")
    return docker


@pytest.fixture(scope="module")
def archive(docker: bool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "image.tar"
    save = ["docker", "save", "--output", str(path), TAG]
    output(*(save if docker else ["buildah", "push", "--quiet", TAG, f"docker-archive:{path}"]))
    return path


@pytest.fixture(scope="module")
def image_size() -> ModuleType:
    spec = util.spec_from_file_location("image_size", ROOT / "tools/image_size.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def command(docker: bool) -> Iterator[list[str]]:
    """What runs a command in the image as a user without a name, with no network and no variables but the image's."""
    if docker:
        options = ["--rm", "--network=none", "--read-only", "--cap-drop=ALL", f"--user={ARBITRARY}", "--entrypoint=env"]
        yield ["docker", "run", *options, TAG]
        return
    container = output("buildah", "from", "--pull-never", TAG).strip()
    try:
        mounted = output("buildah", "mount", container).strip()
        variables = json.loads(output("buildah", "inspect", "--type", "image", TAG))["OCIv1"]["config"]["Env"]
        yield ["unshare", "--net", "chroot", f"--userspec={ARBITRARY}", mounted, "/usr/bin/env", "-i", *variables]
    finally:
        output("buildah", "rm", container)


def test_it_starts_as_anybody_and_says_what_is_missing(command: list[str]) -> None:
    ended = subprocess.run([*command, "python", "-m", "faceblur_operator"], capture_output=True, timeout=60)
    last = ended.stderr.decode().splitlines()[-1]
    assert "no way to the API server" in last
    assert ended.returncode == 2


def test_its_own_layers_are_small_enough(image_size: ModuleType, archive: Path) -> None:
    sizes = image_size.sizes(archive)
    assert {"kopf", "kubernetes", "aiohttp", "faceblur_operator"} < set(sizes)
    assert sum(packed for packed, _ in sizes.values()) <= MEGABYTES * 1e6


def test_its_own_layers_have_no_data_plane_nothing_that_installs_or_compiles_and_no_special_files(
    image_size: ModuleType, archive: Path
) -> None:
    with image_size.own_files(archive) as files:
        entries: list[tarfile.TarInfo] = [entry for entry, _ in files]
    assert len(entries) > 500
    for entry in entries:
        path = PurePosixPath("/", entry.name)
        assert path.is_relative_to("/opt/faceblur") or path == PurePosixPath("/opt"), path
        assert not ABSENT & set(path.parts), path
        assert path.parent.name != "site-packages" or path.name not in DATA_PLANE, path
        assert not entry.mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWOTH) or entry.issym(), path
        assert not entry.isdev(), path
