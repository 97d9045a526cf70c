"""CenterFace, coarse to fine: the `balanced` and `thorough` profiles.

CenterFace (Xu, Yan, Yang, Li, Wang: "CenterFace: Joint Face Detection and Alignment Using Face as Point", 2020,
arXiv:1911.03599) answers with a heat map of face centres at a quarter of its input's size, and for each centre
the face's size and the centre's offset. It finds faces from about 8 pixels of its *input*, so enlarged pictures show
it more of them, at a cost that is mostly spent where nothing is. So a coarse pass over the whole picture says where a
fine pass has to look: wherever something face-like is small or doubtful. Fine passes run on tiles, which bounds the
memory whatever the picture's size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..models import CENTERFACE
from ..types import Face, Margin, ModelInfo, Shape
from .boxes import Detections, clip, merge, no_detections, scaled_by, suppress, to_faces, uncut
from .runtimes import load_network
from .scaling import padded, scaled

TILES = (192, 288, 384)
"""Sides of the squares that fine passes look at, pixels. Few, since a runtime prepares itself for each input size."""
CALL_PIXELS = 21_000
"""So many pixels take as long as a call of the network takes beside its pixels; measured."""
COARSE = ((384, 288), (640, 480))
"""Coarse canvases, pixels: up to twice the first one's long side, and for larger pictures. Turned if upright."""
CROWD = 48
"""From this many rectangles on, those whose centres share a small square are joined before tiles are planned."""
INNER_EDGE = 4
"""A box this close to an edge of a tile inside the picture, in pixels of the tile, is of a face that the tile cuts."""
TINY = 12
"""Pixels of the coarse canvas."""
SUPPRESSION_IOU = 0.45
PEAK_POWER = 14
"""A face's box is the mean of what its peak and the cooler of the eight cells around it say, weighted by this power of
their heat against its own. Which of two neighbours is the peak can hang on the last bit, and their boxes differ by more
(docs/adr/0002). From 10 to 20 no figure of the quality table moves by more than 0.3 points."""
_DOWN, _RIGHT = np.mgrid[-1:2, -1:2].reshape(2, 9)
MERGE_IOU = 0.4


@dataclass(frozen=True, slots=True)
class FinePass:
    """A second look at a larger scale.

    Attributes:
        zoom: Times the picture's own long side, before the two limits.
        enlarged: Pictures are enlarged to no more than this long side, pixels.
        largest: The long side never exceeds this.
        mirrored: Look at the mirrored picture.
    """

    zoom: float
    enlarged: int
    largest: int
    mirrored: bool = False

    def long_side(self, picture: int) -> float:
        """Long side of the canvas for a picture of this long side, pixels."""
        return min(max(picture, min(self.enlarged, self.zoom * picture)), self.largest)


@dataclass(frozen=True, slots=True)
class Scheme:
    """What a profile does.

    Attributes:
        coarse_mirrored: Look at the mirrored picture too in the coarse pass.
        fine: The passes over what the coarse pass found small or doubtful.
        candidate: Lowest score of what is looked at again.
        candidate_tiny: The same for what is shorter than `TINY`: of so small a face little is seen, so it scores low.
        sure_score: A face with this score and of ``sure_size`` is not looked at again.
        sure_size: Pixels of the coarse canvas on the face's longer side.
        context: How far around a candidate a fine pass looks, in multiples of its longer side.
        keep_coarse: Lowest score that counts as a face in the coarse pass.
        keep_fine: The same for the fine passes.
        margin: See `Detector.margin`.
    """

    coarse_mirrored: bool
    fine: tuple[FinePass, ...]
    candidate: float
    candidate_tiny: float
    sure_score: float
    sure_size: float
    context: float
    keep_coarse: float
    keep_fine: float
    margin: Margin


# Thresholds, sizes and margins were chosen on docs/limits.md's evaluation set as a whole, each on a flat part of its
# curve: a step to either side moves no figure of the table by more than half a point.
BALANCED = Scheme(
    coarse_mirrored=False,
    fine=(FinePass(zoom=2.0, enlarged=960, largest=1600),),
    candidate=0.12,
    candidate_tiny=0.07,
    sure_score=0.45,
    sure_size=28,
    context=0.45,
    keep_coarse=0.305,
    keep_fine=0.315,
    margin=Margin(sides=0.12, top=0.02, bottom=0.22, pixels=6),
)
THOROUGH = Scheme(
    coarse_mirrored=True,
    fine=(
        FinePass(zoom=2.4, enlarged=960, largest=1600),
        FinePass(zoom=2.4, enlarged=960, largest=1920, mirrored=True),
    ),
    candidate=0.05,
    candidate_tiny=0.05,
    sure_score=0.6,
    sure_size=40,
    context=0.6,
    keep_coarse=0.34,
    keep_fine=0.345,
    margin=Margin(sides=0.13, top=0.03, bottom=0.23, pixels=6),
)


def coarse_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of a picture's coarse canvas: one of four, since a runtime prepares itself for each size."""
    long_side, short_side = COARSE[0] if max(width, height) <= 2 * COARSE[0][0] else COARSE[1]
    return (long_side, short_side) if width >= height else (short_side, long_side)


def decode(outputs: list[NDArray[np.float32]], width: int, height: int, threshold: float) -> Detections:
    """Turn the network's maps into boxes in pixels of its input.

    Args:
        outputs: Heat map ``[1, 1, h, w]`` (0 to 1), log sizes ``[1, 2, h, w]`` (height, width) and
            offsets ``[1, 2, h, w]`` (down, right), at a quarter of the input's size.
        width: Of the input.
        height: Of the input.
        threshold: Lowest score.
    """
    heat, sizes, offsets = (output[0] for output in outputs)
    heat = heat[0]
    rows, columns = np.nonzero(heat > threshold)
    found = np.column_stack([_boxes(sizes, offsets, rows, columns), heat[rows, columns]])
    kept = suppress(found, SUPPRESSION_IOU)
    found, rows, columns = found[kept], rows[kept, np.newaxis] + _DOWN, columns[kept, np.newaxis] + _RIGHT
    rows, columns = np.clip(rows, 0, heat.shape[0] - 1), np.clip(columns, 0, heat.shape[1] - 1)
    weights = heat[rows, columns] / found[:, 4:]
    weights[weights > 1] = 0  # hotter: another face's
    weights = weights[..., np.newaxis] ** PEAK_POWER
    found[:, :4] = (_boxes(sizes, offsets, rows, columns) * weights).sum(axis=1) / weights.sum(axis=1)
    clip(found, width, height)
    return found


def _boxes(
    sizes: NDArray[np.float32], offsets: NDArray[np.float32], rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> NDArray[np.float32]:
    """What cells of the maps say, ``[..., 4]``: x1, y1, x2, y2 in pixels of the network's input."""
    half_height, half_width = np.exp(sizes[:, rows, columns]) * 2
    down, right = offsets[:, rows, columns]
    x = (columns + right + 0.5) * 4
    y = (rows + down + 0.5) * 4
    boxes = np.stack([x - half_width, y - half_height, x + half_width, y + half_height], axis=-1)
    return boxes.astype(np.float32)


_COSTS = np.array([*(side * side + CALL_PIXELS for side in TILES), np.inf], np.float32)


def _costs(widths: NDArray[np.float32], heights: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the smallest tile that holds each rectangle costs, in pixels; infinite where none does."""
    costs: NDArray[np.float32] = _COSTS[np.searchsorted(TILES, np.maximum(widths, heights))]
    return costs


def plan_tiles(rectangles: NDArray[np.float32], width: int, height: int) -> list[tuple[int, int, int]]:
    """Cover rectangles with square tiles of few sizes, so that searching them costs little.

    Starts with a tile for each rectangle and joins, as long as that saves time, the two that save most.

    Args:
        rectangles: ``[n, 4]``, n > 0: x1, y1, x2, y2 in pixels of a canvas.
        width: Of the canvas.
        height: Of the canvas.

    Returns:
        x, y and side of each tile. It may reach past the canvas's right and lower border. A rectangle larger than
        the largest tile gets one around its centre.
    """
    rows = rectangles.copy()
    clip(rows, width, height)
    if len(rows) > CROWD:
        squares = ((rows[:, :2] + rows[:, 2:]) / 2 // TILES[0]).astype(int)
        _, owner = np.unique(squares, axis=0, return_inverse=True)
        groups = [rows[owner.ravel() == index] for index in range(owner.max() + 1)]
        rows = np.array([np.append(group[:, :2].min(axis=0), group[:, 2:].max(axis=0)) for group in groups])
    costs = np.minimum(_costs(rows[:, 2] - rows[:, 0], rows[:, 3] - rows[:, 1]), _COSTS[-2])
    while len(rows) > 1:
        low = np.minimum(rows[:, np.newaxis, :2], rows[np.newaxis, :, :2])
        high = np.maximum(rows[:, np.newaxis, 2:], rows[np.newaxis, :, 2:])
        joined = _costs(high[..., 0] - low[..., 0], high[..., 1] - low[..., 1])
        savings = costs[:, np.newaxis] + costs - joined
        np.fill_diagonal(savings, 0)
        first, second = np.unravel_index(np.argmax(savings), savings.shape)
        if savings[first, second] <= 0:
            break
        rest = np.delete(np.arange(len(rows)), [first, second])
        rows = np.vstack([rows[rest], np.append(low[first, second], high[first, second])])
        costs = np.append(costs[rest], joined[first, second])
    tiles = []
    for x1, y1, x2, y2 in rows:
        side = next((side for side in TILES if max(x2 - x1, y2 - y1) <= side), TILES[-1])
        x, y = (
            max(0, min(round((start + stop - side) / 2), limit - side))
            for start, stop, limit in ((x1, x2, width), (y1, y2, height))
        )
        tiles.append((x, y, side))
    return tiles


class CenterFaceDetector:
    """See the module's text; `Detector` describes the interface."""

    def __init__(self, scheme: Scheme, *, runtime: str = "auto", threads: int = 1, concurrency: int = 1) -> None:
        self._scheme = scheme
        models = {"openvino": CENTERFACE, "onnxruntime": CENTERFACE}
        self._network, info = load_network(models, runtime, threads=threads, concurrency=concurrency)
        self.models: tuple[ModelInfo, ...] = (info,)
        self.margin = scheme.margin
        self.shape = Shape.ROUNDED

    def detect(self, rgb: NDArray[np.uint8], min_score: float | None = None) -> list[Face]:
        """See `Detector.detect`."""
        scheme = self._scheme
        keep_coarse = scheme.keep_coarse if min_score is None else min_score
        keep_fine = scheme.keep_fine if min_score is None else min_score
        coarse, zoom = self._coarse(rgb, min(scheme.candidate_tiny, keep_coarse))
        found = [coarse[coarse[:, 4] >= keep_coarse]]
        found += [self._fine(rgb, coarse, zoom, fine, keep_fine) for fine in scheme.fine]
        return to_faces(merge(np.concatenate(found), MERGE_IOU), CENTERFACE.name)

    def _run(self, pixels: NDArray[np.uint8], mirrored: bool, threshold: float) -> Detections:
        """Run the network; boxes are of the pixels as given, whether they were mirrored for it or not."""
        height, width = pixels.shape[:2]
        if mirrored:
            pixels = pixels[:, ::-1]
        found = decode(self._network(np.ascontiguousarray(pixels[np.newaxis])), width, height, threshold)
        if mirrored:
            found[:, [0, 2]] = width - found[:, [2, 0]]
        return found

    def _coarse(self, rgb: NDArray[np.uint8], threshold: float) -> tuple[Detections, float]:
        """Search the whole picture; boxes in its pixels, and the canvas's pixels per picture's pixel."""
        height, width = rgb.shape[:2]
        canvas_width, canvas_height = coarse_size(width, height)
        zoom = min(canvas_width / width, canvas_height / height)
        canvas = scaled(rgb, max(1, round(width * zoom)), max(1, round(height * zoom)))
        canvas = padded(canvas, canvas_width, canvas_height)
        found = [self._run(canvas, False, threshold)]
        if self._scheme.coarse_mirrored:
            found.append(self._run(canvas, True, threshold))
        return np.concatenate(found) * scaled_by(1 / zoom), zoom

    def _fine(
        self, rgb: NDArray[np.uint8], coarse: Detections, coarse_zoom: float, fine: FinePass, threshold: float
    ) -> Detections:
        """Search around the coarse pass's small or doubtful boxes; boxes in pixels of the picture."""
        scheme = self._scheme
        height, width = rgb.shape[:2]
        sizes = (coarse[:, 2:4] - coarse[:, :2]).max(axis=1, initial=0)
        seen, scores = sizes * coarse_zoom, coarse[:, 4]
        again = (seen < scheme.sure_size) | (scores < scheme.sure_score)
        again &= scores >= np.where(seen < TINY, scheme.candidate_tiny, scheme.candidate)
        if not again.any():
            return no_detections()
        zoom = fine.long_side(max(width, height)) / max(width, height)
        reach = (scheme.context * sizes[again, np.newaxis] + 4) * zoom
        boxes = coarse[again, :4] * zoom
        rectangles = np.concatenate([boxes[:, :2] - reach, boxes[:, 2:] + reach], axis=1)
        canvas = scaled(rgb, max(1, round(width * zoom)), max(1, round(height * zoom)))
        canvas_height, canvas_width = canvas.shape[:2]
        found = []
        for x, y, side in plan_tiles(rectangles, canvas_width, canvas_height):
            tile = padded(canvas[y : y + side, x : x + side], side, side)
            boxes = self._run(tile, fine.mirrored, threshold)
            found.append(uncut(boxes, (x, y, side), canvas_width, canvas_height, INNER_EDGE))
        return np.concatenate(found) * scaled_by(1 / zoom)
