"""Says how large an image's own layers are when they are compressed, as a registry holds them, and what takes it.

An image comes as the archive that `docker save IMAGE` or `buildah push IMAGE docker-archive:IMAGE.tar` writes. Its own
layers are those from the first instruction of its Dockerfile's last stage on, which is to be a LABEL with the image's
title; what lies below is the base image, which a machine has once for all images that stand on it.

    python tools/image_size.py IMAGE.tar
"""

from __future__ import annotations

import argparse
import json
import sys
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

MARK = "org.opencontainers.image.title"
SHOWN = 8
IMPORTED_AS = {"cv2": "opencv_python_headless", "PIL": "pillow"}


def own_layers(archive: tarfile.TarFile) -> list[str]:
    """Return the names, in the archive, of the layers above the base image.

    Raises:
        ValueError: The image's history does not show where they begin.
    """
    (manifest,) = json.load(_member(archive, "manifest.json"))
    history = json.load(_member(archive, manifest["Config"]))["history"]
    marks = [number for number, step in enumerate(history) if MARK in step.get("created_by", "")]
    if not marks:
        raise ValueError(f"no step of the image's history has {MARK}")
    below = sum(not step.get("empty_layer") for step in history[: marks[0]])
    layers: list[str] = manifest["Layers"]
    return layers[below:]


@contextmanager
def own_files(path: Path) -> Iterator[Iterator[tuple[tarfile.TarInfo, bytes]]]:
    """Give the entries of all layers of its own, each with its content."""
    with tarfile.open(path) as archive:
        yield _entries(archive)


def _entries(archive: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    for name in own_layers(archive):
        with tarfile.open(fileobj=_member(archive, name), mode="r:*") as layer:
            for entry in layer:
                file = layer.extractfile(entry) if entry.isreg() else None
                yield entry, file.read() if file else b""


def sizes(path: Path) -> dict[str, tuple[int, int]]:
    """Return bytes, compressed and not, of each package in the image's own layers, the largest first.

    A layer is one stream, compressed as much as whoever pushes it likes. Here each package is one, of zlib's level 6.
    """
    packers: dict[str, Any] = {}
    compressed: dict[str, int] = {}
    plain: dict[str, int] = {}
    with own_files(path) as files:
        for entry, content in files:
            name = _package(entry.name)
            packer = packers.setdefault(name, zlib.compressobj(6))
            packed = packer.compress(entry.tobuf()) + packer.compress(content)
            compressed[name] = compressed.get(name, 0) + len(packed)
            plain[name] = plain.get(name, 0) + len(content)
    for name, packer in packers.items():
        compressed[name] += len(packer.flush())
    return {name: (compressed[name], plain[name]) for name in sorted(compressed, key=lambda name: -compressed[name])}


def _package(path: str) -> str:
    """The distribution that a file belongs to, as far as its path tells."""
    parts = PurePosixPath(path).parts
    if "site-packages" not in parts or parts[-1] == "site-packages":
        return "Python environment"
    name = parts[parts.index("site-packages") + 1]
    name = name.removesuffix(".libs").partition("-")[0].removesuffix(".py")
    return IMPORTED_AS.get(name, name)


def _member(archive: tarfile.TarFile, name: str) -> Any:
    file = archive.extractfile(name)
    if file is None:
        raise ValueError(f"{name} is no file in the archive")
    return file


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("archive", type=Path)
    found = list(sizes(parser.parse_args().archive).items())
    rest = [size for _, size in found[SHOWN:]]
    rows = [*found[:SHOWN], ("everything else", (sum(c for c, _ in rest), sum(p for _, p in rest)))]
    rows.append(("**sum**", (sum(c for _, (c, _) in found), sum(p for _, (_, p) in found))))
    lines = [f"| {name} | {packed / 1e6:.1f} | {plain / 1e6:.1f} |" for name, (packed, plain) in rows]
    sys.stdout.write("\n".join(["| what | compressed, MB | on disk, MB |", "|---|---|---|", *lines, ""]))


if __name__ == "__main__":
    main()
