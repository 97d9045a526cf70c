"""The project's images, as tests build them and look into them.

Built by the command in FACEBLUR_BUILD_IMAGE, which gets a tag, a Dockerfile and a context, or else by Docker.
"""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
import sys
import tarfile
from importlib import util
from pathlib import Path, PurePosixPath
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
# What has no business in an image that only runs.
TOOLS = {"pip", "pip3", "setuptools", "ensurepip", "hatchling", "gcc", "cc", "g++", "ld", "make", "apt", "uv", "dpkg"}


def output(*command: str, stdin: bytes = b"") -> str:
    """What a command prints."""
    return subprocess.run(command, input=stdin, check=True, capture_output=True).stdout.decode()


def build(tag: str, dockerfile: str) -> bool:
    """Build an image from a Dockerfile of the repository, or skip; returns whether Docker is there to run it."""
    docker = bool(shutil.which("docker")) and not subprocess.run(["docker", "info"], capture_output=True).returncode
    given = shlex.split(os.environ.get("FACEBLUR_BUILD_IMAGE", ""))
    if not given and not docker:
        pytest.skip("there is no Docker here, and FACEBLUR_BUILD_IMAGE does not name what builds images")
    path, context = str(ROOT / dockerfile), str(ROOT)
    command = [*given, tag, path, context] if given else ["docker", "build", "-t", tag, "-f", path, context]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return docker


def save(tag: str, path: Path, *, docker: bool) -> Path:
    """Write an image that was built into an archive."""
    if docker:
        output("docker", "save", "--output", str(path), tag)
    else:
        output("buildah", "push", "--quiet", tag, f"docker-archive:{path}")
    return path


def image_size() -> ModuleType:
    """tools/image_size.py, which is a script."""
    spec = util.spec_from_file_location("image_size", ROOT / "tools/image_size.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def harmless_paths(archive: Path) -> list[PurePosixPath]:
    """Every path in our own layers, none of which installs, compiles, gives rights or is a device."""
    with image_size().own_files(archive) as files:
        entries: list[tarfile.TarInfo] = [entry for entry, _ in files]
    for entry in entries:
        path = PurePosixPath("/", entry.name)
        assert path.is_relative_to("/opt/faceblur") or path == PurePosixPath("/opt"), path
        assert not TOOLS & set(path.parts), path
        assert not entry.mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWOTH) or entry.issym(), path
        assert not entry.isdev(), path
    return [PurePosixPath("/", entry.name) for entry in entries]
