"""Inference runtimes: one call from a batch of pixels to a network's raw outputs.

OpenVINO runs every model of the project and is the default (docs/adr/0002). ONNX Runtime (CenterFace) and LiteRT
(BlazeFace) are fallbacks for machines that OpenVINO does not load on; both are extras. They are imported only when
they are asked for, since each takes a good part of a second.
"""

from __future__ import annotations

import importlib
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import RuntimeUnavailable
from ..models import Model
from ..types import ModelInfo

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


def _openvino() -> Any:
    """The package, without two parts of it: one reports each import (nothing may leave), the other converts models."""
    unwanted = [name for name in ("openvino_telemetry", "openvino.tools.ovc") if name not in sys.modules]
    sys.modules.update(dict.fromkeys(unwanted))  # type: ignore[arg-type]
    try:
        return _module("openvino", "engine")
    finally:
        sys.modules.pop("openvino.tools.ovc" if "openvino.tools.ovc" in unwanted else "", None)


class OpenVinoNetwork:
    """A model on OpenVINO's CPU plug-in, with bf16 arithmetic where the CPU has it.

    Each input size is compiled when it first comes and kept: the plug-in can take any size with one compiled network,
    but then prepares itself anew whenever the size changes, which on these small networks doubles the time.
    Callers keep the number of sizes low; of more than `KEPT_SIZES` the one that was not used for longest is dropped.
    """

    KEPT_SIZES = 8

    def __init__(self, model: Model, *, scale: float, threads: int, concurrency: int) -> None:
        ov = _openvino()
        # The bindings fill static tables when they are first used, and give up the interpreter lock meanwhile: two
        # threads whose first calls meet there wait for each other for ever.
        ov.Type.u8.to_dtype()
        _ = ov.Tensor(np.zeros(1, np.uint8), shared_memory=True).data
        self._core = ov.Core()
        bf16 = "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        try:
            # From memory, so that what was verified is what runs.
            network = self._core.read_model(model.load(), b"")
            steps = importlib.import_module("openvino.preprocess").PrePostProcessor(network)
            image = steps.input()  # a part of `steps`, which has to be kept
            image.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
            image.model().set_layout(ov.Layout("NCHW"))
            step = image.preprocess()
            if scale == 1:
                # bf16 holds 0 to 255 exactly. Converted before the planes are taken apart, nothing has to be copied.
                # It does not hold 1 / scale, and that can be seen in what is found.
                step = step.convert_element_type(ov.Type.bf16 if bf16 else ov.Type.f32)
                step.convert_layout(ov.Layout("NCHW")).convert_element_type(ov.Type.f32)
            else:
                step.convert_element_type(ov.Type.f32).mean(scale).scale(scale)
            self._network = steps.build()
        except RuntimeError as error:
            raise RuntimeUnavailable(
                f"OpenVINO cannot run {model.file}: {str(error).strip().splitlines()[-1]}"
            ) from error
        self._settings = {
            "INFERENCE_NUM_THREADS": threads,
            # One stream runs in the thread that calls. Several have threads of their own, and a caller sleeps until
            # one has woken and is done.
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
            # Pinned, two processes on one machine would sit on the same core.
            "ENABLE_CPU_PINNING": False,
        }
        self._concurrency = concurrency
        self.runtime = f"openvino {ov.__version__.split('-')[0]} {'bf16' if bf16 else 'f32'}"
        self._lock = threading.Lock()
        self._sizes: OrderedDict[tuple[int, ...], _Requests] = OrderedDict()

    def __call__(self, pixels: NDArray[np.uint8]) -> Outputs:
        """See `Network`."""
        with self._lock:
            requests = self._sizes.get(pixels.shape)
            if requests is None:
                requests = self._sizes[pixels.shape] = _Requests(
                    partial(self._compile, pixels.shape), self._concurrency
                )
            self._sizes.move_to_end(pixels.shape)
            if len(self._sizes) > self.KEPT_SIZES:
                self._sizes.popitem(last=False)
        return requests.infer(pixels)

    def _compile(self, shape: tuple[int, ...]) -> Any:
        with self._lock:
            network = self._network.clone()
        network.reshape(shape)
        return self._core.compile_model(network, "CPU", self._settings).create_infer_request()


class _Requests:
    """The compiled networks of one input size; each serves one call at a time.

    Compiling takes as long as dozens of calls, so once there is a network, another is made only when calls have waited
    as long as that: a size that is rare, or a network that is fast, is compiled once. Until then a call makes its own,
    which takes no longer than waiting for another's. Waits that are less than `BEARABLE` of the time do not count, or
    they would add up over a long run to one network after the other.
    """

    BEARABLE = 0.01
    """Share of the time that calls may wait for ever: another network takes 12 to 35 MB."""

    def __init__(self, compile_network: Callable[[], Any], most: int) -> None:
        """Compile nothing yet.

        Args:
            compile_network: Makes one request on a network of its own.
            most: How many are made at most.
        """
        self._compile = compile_network
        self._most = most
        self._made = 0
        self._cost = 0.0
        self._waited = 0.0
        self._counted_from = 0.0
        self._returned = threading.Condition()
        self._idle: list[Any] = []

    def infer(self, pixels: NDArray[np.uint8]) -> Outputs:
        request = self._taken() or self._compiled()
        try:
            request.infer({0: pixels}, share_inputs=True, share_outputs=True)
            return [tensor.data.copy() for tensor in request.output_tensors]
        finally:
            self._return(request)

    def _taken(self) -> Any:
        """An idle request, or none: the caller is to compile one."""
        with self._returned:
            start = time.perf_counter()
            while not self._idle:
                if self._made < self._most and self._waited >= self._cost:
                    self._made += 1
                    return None
                self._returned.wait()
                now = time.perf_counter()
                let_go = self.BEARABLE * (now - self._counted_from)
                self._waited = max(0.0, self._waited + now - max(start, self._counted_from) - let_go)
                start = self._counted_from = now
            return self._idle.pop()

    def _compiled(self) -> Any:
        start = time.perf_counter()
        try:
            request = self._compile()
        except BaseException:
            with self._returned:
                self._made -= 1
                self._returned.notify()
            raise
        with self._returned:
            # Those who waited meanwhile waited for this one, not for one more.
            self._counted_from = time.perf_counter()
            self._cost = self._counted_from - start
            self._waited = 0.0
        return request

    def _return(self, request: Any) -> None:
        with self._returned:
            self._idle.append(request)
            self._returned.notify()


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
    models: Mapping[str, Model], runtime: str, *, scale: float = 1.0, threads: int = 1, concurrency: int = 1
) -> tuple[Network, ModelInfo]:
    """Load a model on a runtime.

    Args:
        models: The runtimes that can run it, each with the file that it reads, best first.
        runtime: One of the runtimes' names, or ``auto``: the first of ``models`` that can be loaded.
        scale: Pixels reach the network as ``value / scale - 1`` if this is not 1, otherwise as they are.
        threads: Threads that one call uses.
        concurrency: How many calls run at once.

    Returns:
        The network, and what a receipt says about it.

    Raises:
        RuntimeUnavailable: The runtime is not installed or cannot run this model.
        ModelError: The model's file is not the pinned one.
    """
    if runtime != "auto" and runtime not in models:
        title = next(iter(models.values())).title
        raise RuntimeUnavailable(f"{title} runs on {' or '.join(models)}, not on {runtime}")
    unavailable: RuntimeUnavailable | None = None
    for name in models if runtime == "auto" else [runtime]:
        model = models[name]
        try:
            network = _RUNTIMES[name](model, scale=scale, threads=threads, concurrency=concurrency)
        except RuntimeUnavailable as error:
            unavailable = unavailable or error
        else:
            return network, ModelInfo(model.name, model.sha256, network.runtime)
    assert unavailable is not None
    raise unavailable
