"""The operator's image, built for real: what is in it, how large it is, and that it starts as any user.

Built by the command in FACEBLUR_BUILD_IMAGE, which gets a tag, a Dockerfile and a context, or else by Docker. That it
does its work is proven by the tests on a cluster.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import images
from support.images import output

pytestmark = pytest.mark.timeout(1200)  # a first build downloads all packages

TAG = "localhost/faceblur-operator:tested"
MEGABYTES = 90
ARBITRARY = "123456:0"
DATA_PLANE = {"faceblur", "faceblur_batch", "faceblur_cli", "faceblur_engine", "faceblur_web", "faceblur_worker"}


@pytest.fixture(scope="module")
def docker() -> bool:
    """Build the image; whether Docker has it."""
    docker = images.build(TAG, "operator/Dockerfile")
    if not docker and not (shutil.which("buildah") and os.geteuid() == 0):
        pytest.skip("what was built cannot be looked at here: that takes Docker, or buildah and root")
    return docker


@pytest.fixture(scope="module")
def archive(docker: bool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return images.save(TAG, tmp_path_factory.mktemp("archive") / "image.tar", docker=docker)


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


def test_its_own_layers_are_small_enough(archive: Path) -> None:
    sizes = images.image_size().sizes(archive)
    assert {"kopf", "kubernetes", "aiohttp", "faceblur_operator"} < set(sizes)
    assert sum(packed for packed, _ in sizes.values()) <= MEGABYTES * 1e6


def test_its_own_layers_have_no_data_plane_nothing_that_installs_or_compiles_and_no_special_files(
    archive: Path,
) -> None:
    paths = images.harmless_paths(archive)
    assert len(paths) > 500
    for path in paths:
        assert path.parent.name != "site-packages" or path.name not in DATA_PLANE, path
