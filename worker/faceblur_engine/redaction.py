"""Obscuring that cannot be undone, and a proof of it that is short enough to check.

A blur can be inverted: its kernel spreads what was there but keeps it. Here a region is not filtered but rebuilt from
a few averages, and what is not in them is gone:

1. Every pixel that lies in regions belongs to one of them, the one with the longest side.
2. A region is divided into at most `Options.cells` cells (8 or fewer) along its longer side, about square, and no side
   of a cell is under 6 pixels unless that is all there is. The size of a cell follows from the whole region, also
   from what lies outside the picture. `Method.SOLID` has one cell.
3. The mean of a cell is taken over the pixels that belong to the region, exactly, and rounded to the pixels' type.
   Where these are fewer than 36 (6 x 6), the cell goes by its neighbours; where all cells of a region are like that,
   the region is one cell; and if that is still under 36, it gets the mean of what can be seen around it.
4. Regions are filled from their cells alone: with the cells themselves (`Method.MOSAIC`), or a smooth surface through
   them (`Method.BLUR`). All means are taken before the first region is filled.
5. Regions are filled from the shortest to the longest, each in full, and each fades into what is around it outside its
   own full-strength area. A pixel belongs to the last region that is filled there; what fades over it later mixes one
   fill with another. So no pixel of a region comes back.

So an obscured pixel takes part in nothing but one mean of at least 36 pixels, and no other byte of the result depends
on it. The tests change pictures within their cells and compare all bytes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from .regions import Outline, Window, longer_side, mask_within, window_of
from .types import Method, Options, Region

#: ``[height, width, channels]``, channels 1 to 4, C-contiguous.
Pixels: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]

#: No side of a cell is shorter, and no mean is taken of fewer pixels than its square. A face under twice this is one
#: colour, as two cells across would already tell a dark side from a light one.
MIN_CELL = 6

#: Samples per cell of the smooth surface; odd, so that a filter can be exactly one cell wide.
_SAMPLES = 7

#: Of the picture that is worked on at a time.
_BAND_BYTES = 1 << 17

#: Seen on skin, hair and clothes alike.
_CONTOUR = (0, 255, 64)


class _Layer(NamedTuple):
    region: Region
    window: Window  # its rectangle in the picture
    around: Window  # the same with the rim
    outline: Outline
    fades: bool  # there is a rim


def redact(pixels: Pixels, regions: Sequence[Region], options: Options, *, cmyk: bool = False) -> None:
    """Obscure the regions of a picture, in place.

    Args:
        pixels: ``[height, width, channels]`` of grey, grey and alpha, RGB, RGBA or CMYK, C-contiguous, 8 or 16 bits.
            Alpha is obscured like a colour: the outline of a cut-out is a face's outline. Colours under an alpha of 0
            take part in the means and should have been cleared.
        regions: In any order; a repeated one counts once.
        options: `method`, `cells`, `feather` and `color` are used.
        cmyk: The four channels are inks (0: none) and not RGBA.
    """
    height, width = pixels.shape[:2]
    # Longest first: who owns a pixel. The rest of the key and the set make order and repetition irrelevant.
    ordered = sorted(
        set(regions), key=lambda r: (-longer_side(r), r.box.x, r.box.y, r.box.w, r.box.h, r.shape, r.radius)
    )
    layers: list[_Layer] = []
    fills: list[NDArray[Any]] = []
    for region in ordered:
        window = window_of(region, width, height)
        if window is None:
            continue
        rim = min(options.feather * max(region.box.w, region.box.h), max(width, height))
        around = window.grown(math.ceil(rim), width, height)
        layer = _Layer(region, window, around, Outline(region, around, rim), rim > 0)
        if options.method is Method.SOLID and options.color is not None:
            cells = _colour(options.color, pixels, cmyk)
        else:
            cells = _cells_of(pixels, layer, layers, ordered, options)
        layers.append(layer)
        fills.append(cells)
    for layer, cells in zip(reversed(layers), reversed(fills), strict=True):
        _paint(pixels, layer, cells, options.method)


def draw_contours(pixels: Pixels, regions: Sequence[Region], *, cmyk: bool = False) -> None:
    """Draw a line around each region, in place, for somebody who checks what was obscured.

    The line lies outside the region it belongs to and has one colour, so it tells nothing that the region's place
    does not. It is about 1/400 of the picture's longer side wide, at least 2 pixels.

    Args:
        pixels: As for `redact`, which comes before.
        regions: In any order.
        cmyk: The four channels are inks and not RGBA.
    """
    height, width = pixels.shape[:2]
    thickness = max(2, round(max(height, width) / 400))
    colour = _colour(_CONTOUR, pixels, cmyk)
    for region in regions:
        window = window_of(region, width, height)
        if window:
            around = window.grown(thickness, width, height)
            outline = Outline(region, around, thickness)
            line = outline.weights(around) > 0
            line[window.seen_from(around)] &= ~outline.inside(window)
            pixels[around.seen_from()][line] = colour[0, 0]


def _colour(rgb: tuple[int, int, int], pixels: NDArray[Any], cmyk: bool) -> NDArray[Any]:
    """An RGB colour as one cell of this picture, opaque."""
    channels = pixels.shape[2]
    if cmyk:
        values = [255 - channel for channel in rgb] + [0]
    else:
        red, green, blue = rgb
        values = list(rgb) if channels >= 3 else [round(0.299 * red + 0.587 * green + 0.114 * blue)]
        values += [255] * (channels - len(values))
    return np.array(values, pixels.dtype).reshape(1, 1, channels) * (np.iinfo(pixels.dtype).max // 255)


def _cells_of(
    pixels: Pixels, layer: _Layer, earlier: Sequence[_Layer], regions: Sequence[Region], options: Options
) -> NDArray[Any]:
    """The means that a region is rebuilt from, ``[rows, columns, channels]``: steps 1 to 3 of the module's proof."""
    window = layer.window
    own = layer.outline.inside(window)
    for other in earlier:
        common = window.common(other.window)
        if common:
            own[common.seen_from(window)] &= ~other.outline.inside(common)
    height, width = own.shape
    longer = longer_side(layer.region)
    most = 1 if options.method is Method.SOLID else options.cells
    rows, columns = (max(1, min(side * most // longer, side // MIN_CELL)) for side in (height, width))

    mask = own.view(np.uint8)
    picture = pixels[window.seen_from()]
    counts = _sums(mask, rows, columns)
    sums = _sums(picture, rows, columns, None if own.all() else mask)
    enough = counts >= MIN_CELL**2
    if not enough.any():
        counts, sums = counts.sum((0, 1), keepdims=True), sums.sum((0, 1), keepdims=True)
        enough = counts >= MIN_CELL**2
        if not enough.any():
            return _surroundings(pixels, window, regions)
    means = (2 * sums + counts) // np.maximum(1, 2 * counts)
    if not enough.all():
        _spread(means, enough[:, :, 0])
    return means.astype(pixels.dtype)


def _edges(length: int, cells: int) -> list[int]:
    """Where each cell begins, and the end: whole pixels, sizes that differ by at most one."""
    return [length * k // cells for k in range(cells + 1)]


def _sums(values: NDArray[Any], rows: int, columns: int, mask: NDArray[np.uint8] | None = None) -> NDArray[np.int64]:
    """The exact sum of each cell, ``[rows, columns, channels]``: the proof does not hold for a rounded one."""
    height, width = values.shape[:2]
    depth = cv2.CV_32S if values.dtype == np.uint8 else cv2.CV_64F  # whole numbers under 2^53 are exact
    bands = []
    for top, bottom in itertools.pairwise(_edges(height, rows)):
        band = values[top:bottom] if mask is None else cv2.copyTo(values[top:bottom], mask[top:bottom])
        bands.append(cv2.reduce(band, 0, cv2.REDUCE_SUM, dtype=depth))
    whole = np.concatenate(bands).reshape(rows, width, -1).astype(np.int64)
    return np.add.reduceat(whole, _edges(width, columns)[:-1], axis=1)


def _spread(means: NDArray[np.int64], known: NDArray[np.bool_]) -> None:
    """Give each cell without a mean of its own the mean of its neighbours that have one, step by step, in place."""

    def around(values: NDArray[Any]) -> NDArray[np.int64]:
        total = cv2.boxFilter(values.astype(np.float64), -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT)
        return total.reshape(values.shape).astype(np.int64)

    while not known.all():
        weights = around(known[:, :, None])
        reached = ~known & (weights[:, :, 0] > 0)
        means[reached] = around(means * known[:, :, None])[reached] // weights[reached]
        known = known | reached


def _surroundings(pixels: NDArray[Any], window: Window, regions: Sequence[Region]) -> NDArray[Any]:
    """One cell with the mean of the unobscured pixels around a window; zeros if there are none."""
    height, width, channels = pixels.shape
    around = window.grown(MIN_CELL, width, height)
    visible = ~mask_within(regions, around)
    mean = cv2.mean(pixels[around.seen_from()], visible.view(np.uint8))  # zeros for an empty mask
    return np.rint(mean[:channels]).astype(pixels.dtype).reshape(1, 1, channels)


def _paint(pixels: Pixels, layer: _Layer, cells: NDArray[Any], method: Method) -> None:
    """Fill a region from its cells and fade the fill into what is around it."""
    window, around, outline = layer.window, layer.around, layer.outline
    fill = (_smooth if method is Method.BLUR else _flat)(cells, window, around)
    # In bands that stay in the processor's cache: a large face would else take several times as long.
    step = max(1, _BAND_BYTES // fill[0].nbytes)
    for y in range(around.y0, around.y1, step):
        band = around._replace(y0=y, y1=min(y + step, around.y1))
        if layer.fades:
            _fade(pixels[band.seen_from()], fill[band.seen_from(around)], outline.weights(band))
        full = band.common(window)
        if full:
            mask = outline.inside(full).view(np.uint8)
            cv2.copyTo(fill[full.seen_from(around)], mask, pixels[full.seen_from()])


def _fade(picture: NDArray[Any], fill: NDArray[Any], weights: NDArray[np.uint8]) -> None:
    """Mix the fill into the picture, in place, by weights of 0 to 255."""
    most = np.iinfo(picture.dtype).max
    share = weights if most == 255 else weights * picture.dtype.type(most // 255)
    share = cv2.merge([share] * picture.shape[2])
    kept = cv2.multiply(picture, cv2.bitwise_not(share), scale=1 / most)
    # As a mask the weights keep every pixel beyond the rim from being written at all.
    cv2.copyTo(cv2.add(kept, cv2.multiply(fill, share, scale=1 / most)), weights, picture)


def _smooth(cells: NDArray[Any], window: Window, around: Window) -> NDArray[Any]:
    """A smooth surface through the cells of a window, carried on to `around`, ``[height, width, channels]``."""
    # Linear between the cells, then averaged over the width of one: a quadratic B-spline, as smooth to the eye as a
    # Gaussian. All weights are positive, so there is no ringing and nothing to clip.
    rows, columns = (count * _SAMPLES for count in cells.shape[:2])
    fine = cv2.resize(cells.astype(np.float32), (columns, rows))
    fine = cv2.blur(fine, (_SAMPLES, _SAMPLES), borderType=cv2.BORDER_REPLICATE)
    # Whole samples are near enough for the rim. They are rounded here, as whole numbers are enlarged much faster.
    down, right = rows / (window.y1 - window.y0), columns / (window.x1 - window.x0)
    fine = cv2.copyMakeBorder(
        np.rint(fine).astype(cells.dtype),
        round((window.y0 - around.y0) * down),
        round((around.y1 - window.y1) * down),
        round((window.x0 - around.x0) * right),
        round((around.x1 - window.x1) * right),
        cv2.BORDER_REPLICATE,
    )
    height, width = around.y1 - around.y0, around.x1 - around.x0
    return cv2.resize(fine, (width, height)).reshape(height, width, -1)


def _flat(cells: NDArray[Any], window: Window, around: Window) -> NDArray[Any]:
    """The cells of a window as they are, the outer ones carried on to `around`, ``[height, width, channels]``."""
    rows, columns = (
        np.searchsorted(edges[1:-1], np.arange(low, high), side="right")
        for edges, low, high in (
            (_edges(window.y1 - window.y0, cells.shape[0]), around.y0 - window.y0, around.y1 - window.y0),
            (_edges(window.x1 - window.x0, cells.shape[1]), around.x0 - window.x0, around.x1 - window.x0),
        )
    )
    return cells.take(columns, axis=1).take(rows, axis=0)
