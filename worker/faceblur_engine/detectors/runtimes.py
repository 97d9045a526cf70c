"""Inference runtimes: one call from a batch of pixels to a network's raw outputs.

OpenVINO runs every model of the project and is the default (docs/adr/0002). ONNX Runtime (CenterFace) and LiteRT
(BlazeFace) are fallbacks for machines that OpenVINO does not load on; both are extras. They are imported only when
they are asked for, since each takes a good part of a second.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import RuntimeUnavailable
from ..models import Model

Outputs = list[NDArray[np.float32]]


class Network(Protocol):
    """A loaded model that may be called by several threads at once.

    Attributes:
        runtime: Name, version and precision of what runs it, such as ``openvino 2026.4.1 bf16``.
    """

    runtime: str

    def __call__(self, pixels: NDArray[np.uint8]) -> Outputs:
        """Run the network.

        Args:
            pixels: ``[batch, height, width, 3]``, RGB, C-contiguous.

        Returns:
            The outputs in the model's order, the caller's to keep.
        """
        ...


def _module(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise RuntimeUnavailable(
            f"the runtime {name.partition('.')[0]} cannot be loaded ({error}); install faceblur[{extra}]"
        ) from error


class OpenVinoNetwork:
    """A model on OpenVINO's CPU plug-in, with bf16 arithmetic where the CPU has it.

    Each input size is compiled when it first comes and kept: the plug-in can take any size with one compiled network,
    but then prepares itself anew whenever the size changes, which on these small networks doubles the time.
    Callers keep the number of sizes low; of more than `KEPT_SIZES` the one that was not used for longest is dropped.
    """

    KEPT_SIZES = 8

    def __init__(self, model: Model, *, scale: float, threads: int, concurrency: int) -> None:
        # OpenVINO reports its own import where this package is installed; nothing leaves.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        ov = _module("openvino", "engine")
        # The bindings fill static tables when they are first used, and give up the interpreter lock meanwhile: two
        # threads whose first calls meet there wait for each other for ever.
        ov.Type.u8.to_dtype()
        _ = ov.Tensor(np.zeros(1, np.uint8), shared_memory=True).data
        self._core = ov.Core()
        bf16 = "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        try:
            # OpenVINO reads TensorFlow Lite only by path, so the verified file is read a second time.
            model.load()
            network = self._core.read_model(model.path)
            steps = importlib.import_module("openvino.preprocess").PrePostProcessor(network)
            steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
            if network.input().get_partial_shape()[1] == 3:
                steps.input().model().set_layout(ov.Layout("NCHW"))
            if scale != 1:
                steps.input().preprocess().convert_element_type(ov.Type.f32).mean(scale).scale(scale)
            self._network = steps.build()
        except RuntimeError as error:
            raise RuntimeUnavailable(
                f"OpenVINO cannot run {model.file}: {str(error).strip().splitlines()[-1]}"
            ) from error
        self._settings = {
            "INFERENCE_NUM_THREADS": threads * concurrency,
            "NUM_STREAMS": concurrency,
            "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
            # Pinned, two processes on one machine would sit on the same core.
            "ENABLE_CPU_PINNING": False,
        }
        self.runtime = f"openvino {ov.__version__.split('-')[0]} {'bf16' if bf16 else 'f32'}"
        self._lock = threading.Lock()
        self._sizes: OrderedDict[tuple[int, ...], _Requests] = OrderedDict()

    def __call__(self, pixels: NDArray[np.uint8]) -> Outputs:
        """See `Network`."""
        with self._lock:
            requests = self._sizes.get(pixels.shape)
            if requests is None:
                requests = self._sizes[pixels.shape] = _Requests(partial(self._compile, pixels.shape))
            self._sizes.move_to_end(pixels.shape)
            if len(self._sizes) > self.KEPT_SIZES:
                self._sizes.popitem(last=False)
        return requests.infer(pixels)

    def _compile(self, shape: tuple[int, ...]) -> Any:
        with self._lock:
            network = self._network.clone()
        network.reshape(shape)
        return self._core.compile_model(network, "CPU", self._settings)


class _Requests:
    """The inference requests of one input size, handed from call to call: each holds its own buffers."""

    def __init__(self, compile_network: Callable[[], Any]) -> None:
        self._compile = compile_network
        self._compiled: Any = None
        self._lock = threading.Lock()
        self._idle: list[Any] = []

    def infer(self, pixels: NDArray[np.uint8]) -> Outputs:
        # Only calls of the same size wait while it is compiled.
        with self._lock:
            if self._compiled is None:
                self._compiled = self._compile()
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        request.infer({0: pixels}, share_inputs=True)
        outputs = [request.get_output_tensor(index).data.copy() for index in range(len(self._compiled.outputs))]
        self._idle.append(request)
        return outputs


class OnnxNetwork:
    """An ONNX model on ONNX Runtime's CPU provider."""

    def __init__(self, model: Model, *, scale: float, threads: int, concurrency: int) -> None:
        ort = _module("onnxruntime", "fallback")
        ort.set_default_logger_severity(3)
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.inter_op_num_threads = 1
        # Spinning threads slow down whatever runs next on the same cores.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(model.load(), settings, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._scale = scale
        self.runtime = f"onnxruntime {ort.__version__} f32"

    def __call__(self, pixels: NDArray[np.uint8]) -> Outputs:
        """See `Network`."""
        planes = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32)
        if self._scale != 1:
            planes = planes / self._scale - 1
        return list(self._session.run(None, {self._input: planes}))


class LiteRtNetwork:
    """A TensorFlow Lite model of fixed input shape on LiteRT; one interpreter per thread."""

    def __init__(self, model: Model, *, scale: float, threads: int, concurrency: int) -> None:
        litert = _module("ai_edge_litert.interpreter", "fallback")
        content = model.load()
        self._make: Callable[[], Any] = lambda: litert.Interpreter(model_content=content, num_threads=threads)
        self._scale = scale
        self._local = threading.local()
        self.runtime = f"litert {version('ai-edge-litert')} f32"

    def __call__(self, pixels: NDArray[np.uint8]) -> Outputs:
        """See `Network`."""
        interpreter = getattr(self._local, "interpreter", None)
        if interpreter is None:
            interpreter = self._local.interpreter = self._make()
            interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels / np.float32(self._scale) - 1)
        interpreter.invoke()
        return [interpreter.get_tensor(output["index"]) for output in interpreter.get_output_details()]


_RUNTIMES: dict[str, type[OpenVinoNetwork | OnnxNetwork | LiteRtNetwork]] = {
    "openvino": OpenVinoNetwork,
    "onnxruntime": OnnxNetwork,
    "litert": LiteRtNetwork,
}


def load_network(
    model: Model, runtime: str, *, fallback: str, scale: float = 1.0, threads: int = 1, concurrency: int = 1
) -> Network:
    """Load a model on a runtime.

    Args:
        model: What to load.
        runtime: One of the runtimes' names, or ``auto``: OpenVINO, and ``fallback`` where it cannot be loaded.
        fallback: The other runtime that can run this model.
        scale: Pixels reach the network as ``value / scale - 1`` if this is not 1, otherwise as they are.
        threads: Threads that one call uses.
        concurrency: How many calls run at once.

    Raises:
        RuntimeUnavailable: The runtime is not installed or cannot run this model.
        ModelError: The model's file is not the pinned one.
    """
    if runtime == "auto":
        try:
            return OpenVinoNetwork(model, scale=scale, threads=threads, concurrency=concurrency)
        except RuntimeUnavailable as unavailable:
            try:
                return _RUNTIMES[fallback](model, scale=scale, threads=threads, concurrency=concurrency)
            except RuntimeUnavailable:
                raise unavailable from None
    if runtime not in ("openvino", fallback):
        raise RuntimeUnavailable(f"{model.title} runs on openvino or {fallback}, not on {runtime}")
    return _RUNTIMES[runtime](model, scale=scale, threads=threads, concurrency=concurrency)
