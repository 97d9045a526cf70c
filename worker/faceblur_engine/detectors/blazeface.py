"""MediaPipe BlazeFace full-range: the `fast` profile.

The network (Bazarevsky, Kartynnik, Vakunov, Raveendran, Grundmann: "BlazeFace: Sub-millisecond Neural Face Detection on
Mobile GPUs", 2019, arXiv:1907.05047; this is its full-range variant) sees 192 x 192 pixels, into which the whole
picture is fitted, so small faces vanish: this is the profile for close-ups. Searching squares along the picture's long
side as well found a tenth more of all faces for two and a half times the time; who wants them has `balanced`.
"""

from __future__ import annotations

import importlib
import math
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RuntimeUnavailable
from ..models import BLAZEFACE, BLAZEFACE_TFLITE
from ..types import Box, Face, Margin, ModelInfo, Shape
from .boxes import Detections, clip, merge, to_faces
from .runtimes import load_network
from .scaling import scaled

INPUT = 192
GRID = 48
SCORE_CLIP = 100.0
"""MediaPipe's limit on the logit, so that the exponential cannot overflow."""
MERGE_IOU = 0.3
"""MediaPipe's own suppression threshold."""
MIN_SCORE = 0.3
MARGIN = Margin(sides=0.2, top=0.17, bottom=0.26, pixels=9)
"""Wider than CenterFace's: a pixel of the network's input is several of the picture."""

_STEPS = (np.arange(GRID, dtype=np.float32) + 0.5) / GRID
ANCHORS: NDArray[np.float32] = np.stack(np.meshgrid(_STEPS, _STEPS), axis=-1).reshape(-1, 2).astype(np.float32)
"""Centres of the cells that the network's rows belong to, ``[2304, 2]``, x and y, 0 to 1."""


def decode(boxes: NDArray[np.float32], logits: NDArray[np.float32], threshold: float) -> Detections:
    """Turn the network's answer for one input into boxes in units of the input, 0 to 1.

    Args:
        boxes: ``[2304, 16]``: centre x, y relative to the anchor, width, height, then key points; pixels of the input.
        logits: ``[2304, 1]``.
        threshold: Lowest score.
    """
    # Nearly all cells say no, and a limit that is a little too low costs nothing here.
    lowest = math.log(max(threshold, 1e-6) / max(1 - threshold, 1e-6)) - 0.01
    likely = np.nonzero(logits[:, 0] >= lowest)[0]
    scores = 1 / (1 + np.exp(-np.clip(logits[likely, 0], -SCORE_CLIP, SCORE_CLIP).astype(np.float64)))
    kept, scores = likely[scores >= threshold], scores[scores >= threshold]
    values = boxes[kept, :4] / INPUT
    centres = values[:, :2] + ANCHORS[kept]
    halves = values[:, 2:] / 2
    found = np.concatenate([centres - halves, centres + halves, scores[:, np.newaxis]], axis=1).astype(np.float32)
    return merge(found, MERGE_IOU)


def fit(rgb: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float, float, float]:
    """Fit a picture into the middle of the network's input, the rest black.

    Returns:
        The input ``[192, 192, 3]``, pixels of the picture per pixel of it, and its left and upper border.
    """
    height, width = rgb.shape[:2]
    zoom = INPUT / max(width, height)
    inner_width, inner_height = max(1, round(width * zoom)), max(1, round(height * zoom))
    left, top = (INPUT - inner_width) // 2, (INPUT - inner_height) // 2
    canvas = np.zeros((INPUT, INPUT, 3), np.uint8)
    canvas[top : top + inner_height, left : left + inner_width] = scaled(rgb, inner_width, inner_height)
    return canvas, 1 / zoom, left, top


class BlazeFaceDetector:
    """See the module's text; `Detector` describes the interface."""

    def __init__(self, *, runtime: str = "auto", threads: int = 1, concurrency: int = 1) -> None:
        models = {"openvino": BLAZEFACE, "litert": BLAZEFACE_TFLITE}
        self._network, info = load_network(models, runtime, scale=127.5, threads=threads, concurrency=concurrency)
        self.models: tuple[ModelInfo, ...] = (info,)
        self.margin = MARGIN
        self.shape = Shape.ROUNDED

    def detect(self, rgb: NDArray[np.uint8], min_score: float | None = None) -> list[Face]:
        """See `Detector.detect`."""
        height, width = rgb.shape[:2]
        canvas, zoom, left, top = fit(rgb)
        boxes, logits = self._network(canvas[np.newaxis])
        found = decode(boxes[0], logits[0], MIN_SCORE if min_score is None else min_score)
        found[:, :4] = (found[:, :4] * INPUT - np.array([left, top, left, top], np.float32)) * zoom
        clip(found, width, height)
        return to_faces(found, BLAZEFACE.name)


class MediaPipeDetector:
    """The same model in MediaPipe's own runtime, one pass over the picture: the reference for `BlazeFaceDetector`.

    Only mediapipe 0.10.33 is accepted: it is the last release that opens no network connection.
    """

    VERSION = "0.10.33"

    def __init__(self) -> None:
        try:
            mediapipe = importlib.import_module("mediapipe")
            self._vision = importlib.import_module("mediapipe.tasks.python.vision")
            self._options = importlib.import_module("mediapipe.tasks.python").BaseOptions
        except ImportError as error:
            raise RuntimeUnavailable(
                f"the runtime mediapipe cannot be loaded ({error}); install faceblur[mediapipe]"
            ) from error
        if mediapipe.__version__ != self.VERSION:
            raise RuntimeUnavailable(
                f"mediapipe {mediapipe.__version__} is installed; releases after {self.VERSION} open connections, "
                f"so only {self.VERSION} is used"
            )
        self._image = mediapipe.Image
        self._srgb = mediapipe.ImageFormat.SRGB
        self._content = BLAZEFACE_TFLITE.load()
        self._local = threading.local()
        self.models: tuple[ModelInfo, ...] = (
            ModelInfo(BLAZEFACE_TFLITE.name, BLAZEFACE_TFLITE.sha256, f"mediapipe {self.VERSION} f32"),
        )
        self.margin = MARGIN
        self.shape = Shape.ROUNDED

    def _detector(self, threshold: float) -> Any:
        """One per thread and threshold: an instance shared by threads serialises them."""
        made = getattr(self._local, "made", None)
        if made is None or made[0] != threshold:
            options = self._vision.FaceDetectorOptions(
                base_options=self._options(model_asset_buffer=self._content), min_detection_confidence=threshold
            )
            made = self._local.made = (threshold, self._vision.FaceDetector.create_from_options(options))
        return made[1]

    def detect(self, rgb: NDArray[np.uint8], min_score: float | None = None) -> list[Face]:
        """See `Detector.detect`."""
        image = self._image(image_format=self._srgb, data=np.ascontiguousarray(rgb))
        answer = self._detector(MIN_SCORE if min_score is None else min_score).detect(image)
        return [
            Face(
                Box(float(box.origin_x), float(box.origin_y), float(box.width), float(box.height)),
                float(found.categories[0].score),
                BLAZEFACE.name,
            )
            for found in answer.detections
            for box in (found.bounding_box,)
        ]
