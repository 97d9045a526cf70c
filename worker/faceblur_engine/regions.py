"""Which pixels are obscured: from faces and options to regions, and from regions to pixels.

Pure geometry. What a `Region` claims and what `redaction` paints meet here in one rule, so that a receipt, the
verification of a result and the result itself can never disagree. A region's pixels are those from ``int(x)`` up to
but without ``int(x + w)``, likewise in y, as far as they lie in the picture; an ellipse and a rounded box take of
these the pixels whose centre lies in the shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .types import Box, Face, Margin, Options, Region, Shape

#: Corner radius of a rounded region, as a share of half its short side. Detection study: with margins of .25, .15 and
#: .35 this covers more faces than a box or an ellipse of the same area; 1 (fully round) loses .5 points of recall.
CORNER_RADIUS = 0.75


class Window(NamedTuple):
    """A rectangle of whole pixels: columns x0 to x1 and rows y0 to y1, the last ones excluded."""

    x0: int
    y0: int
    x1: int
    y1: int

    def common(self, other: Window) -> Window | None:
        """What both hold; None if that is nothing."""
        # All pairs of a crowd's faces come by here, and most have nothing in common.
        if self.x0 >= other.x1 or other.x0 >= self.x1 or self.y0 >= other.y1 or other.y0 >= self.y1:
            return None
        x0, y0 = max(self.x0, other.x0), max(self.y0, other.y0)
        x1, y1 = min(self.x1, other.x1), min(self.y1, other.y1)
        return Window(x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None

    def holds(self, other: Window) -> bool:
        """Whether the other one lies in this one."""
        return self.x0 <= other.x0 and self.y0 <= other.y0 and self.x1 >= other.x1 and self.y1 >= other.y1

    def grown(self, pixels: int, width: int, height: int) -> Window:
        """This window with `pixels` more on each side, as far as the picture reaches."""
        return Window(
            max(0, self.x0 - pixels),
            max(0, self.y0 - pixels),
            min(width, self.x1 + pixels),
            min(height, self.y1 + pixels),
        )

    def seen_from(self, outer: Window | None = None) -> tuple[slice, slice]:
        """Index of this window in an array that holds `outer`, or the whole picture."""
        x, y = (outer.x0, outer.y0) if outer else (0, 0)
        return slice(self.y0 - y, self.y1 - y), slice(self.x0 - x, self.x1 - x)


def _extent(region: Region) -> Window:
    """The region's rectangle in whole pixels, also where it reaches past the picture."""
    box = region.box
    return Window(math.floor(box.x), math.floor(box.y), math.floor(box.x + box.w), math.floor(box.y + box.h))


def longer_side(region: Region) -> int:
    """The longer side of the region in whole pixels, what lies outside the picture included."""
    x0, y0, x1, y1 = _extent(region)
    return max(x1 - x0, y1 - y0)


def window_of(region: Region, width: int, height: int) -> Window | None:
    """The region's rectangle within the picture; None if it has no pixel there."""
    return _extent(region).common(Window(0, 0, width, height))


class Outline:
    """A region's shape on the grid of a picture's pixels.

    The shape is a level set: a pixel's level is the sum of a term for its column and one for its row, so that a mask
    costs one comparison per pixel and no picture of coordinates is ever made.
    """

    __slots__ = ("_columns", "_edge", "_part", "_reach", "_rows")

    def __init__(self, region: Region, part: Window, rim: float = 0.0) -> None:
        """Lay the shape on a part of the picture.

        Args:
            region: Any shape.
            part: What will be asked about.
            rim: Width in pixels of the rim around the shape; around an ellipse, where the ellipse is longest.
        """
        self._part = part
        x, y, w, h = region.box.x, region.box.y, region.box.w, region.box.h
        if region.shape is Shape.BOX:  # its whole rectangle of pixels, so that the rim starts where that ends
            x, y, x1, y1 = map(float, _extent(region))
            w, h = x1 - x, y1 - y
        columns = np.abs(np.arange(part.x0 + 0.5, part.x1) - (x + w / 2))
        rows = np.abs(np.arange(part.y0 + 0.5, part.y1) - (y + h / 2))
        if region.shape is Shape.ELLIPSE:
            self._columns, self._rows = (columns / (w / 2)) ** 2, (rows / (h / 2)) ** 2
            self._edge, self._reach = 1.0, (1 + 2 * rim / max(w, h)) ** 2
        else:
            radius = min(region.radius, w / 2, h / 2) if region.shape is Shape.ROUNDED else 0.0
            self._columns = np.maximum(0, columns - (w / 2 - radius)) ** 2
            self._rows = np.maximum(0, rows - (h / 2 - radius)) ** 2
            self._edge, self._reach = radius**2, (radius + rim) ** 2

    def inside(self, window: Window) -> NDArray[np.bool_]:
        """Which pixels of a part of the region's window it obscures at full strength, ``[height, width]``."""
        rows, columns = window.seen_from(self._part)
        # The slack lets rounding only ever add a pixel whose centre lies on the edge.
        return self._columns[None, columns] <= (self._edge * (1 + 1e-9) - self._rows[rows])[:, None]

    def weights(self, window: Window) -> NDArray[np.uint8]:
        """How strongly the region shows, ``[height, width]``: 255 in its shape, falling to 0 over its rim."""
        rows, columns = window.seen_from(self._part)
        scale = 255 / (self._reach - self._edge)
        weights = np.subtract(
            ((self._reach - self._rows[rows]) * scale).astype(np.float32)[:, None],
            (self._columns[columns] * scale).astype(np.float32)[None, :],
        )
        return np.clip(weights, 0, 255, out=weights).astype(np.uint8)


def plan_regions(
    faces: Sequence[Face], options: Options, *, margin: Margin, shape: Shape, width: int, height: int
) -> tuple[Region, ...]:
    """Turn the faces of a picture and the caller's boxes into the regions to obscure.

    Args:
        faces: All that are to be obscured; none is left out here.
        options: `margin` and `shape` replace the profile's where they are set; `regions` are added as boxes without a
            margin, to whole pixels: a pixel that a box touches belongs to it.
        margin: The profile's.
        shape: The profile's.
        width: Of the upright picture, pixels.
        height: Of the upright picture, pixels.

    Returns:
        The faces' regions in the order of the faces, then the caller's. A region may reach past the border: how
        coarsely it is obscured follows from its whole size. Left out are regions without a pixel in the picture, and
        those that lie in one at least as coarse.
    """
    margin = options.margin or margin
    shape = options.shape or shape
    regions = [_around(face.box, margin, shape) for face in faces] + [_touched(box) for box in options.regions]
    # Where two lie in each other, that is, are equal in pixels, the first in the order of size is the one to stay.
    by_size = sorted(range(len(regions)), key=lambda i: -longer_side(regions[i]))
    kept: dict[int, Window] = {}
    for i in by_size:
        window = window_of(regions[i], width, height)
        if window and not any(
            other.holds(window) and _covers(regions[j], regions[i], window) for j, other in kept.items()
        ):
            kept[i] = window
    return tuple(regions[i] for i in sorted(kept))


def _around(face: Box, margin: Margin, shape: Shape) -> Region:
    sides, more = margin.sides * face.w, margin.pixels
    box = Box(
        face.x - sides - more,
        face.y - margin.top * face.h - more,
        face.w + 2 * (sides + more),
        face.h * (1 + margin.top + margin.bottom) + 2 * more,
    )
    return Region(box, shape, CORNER_RADIUS * min(box.w, box.h) / 2 if shape is Shape.ROUNDED else 0.0)


def _touched(box: Box) -> Region:
    x, y = math.floor(box.x), math.floor(box.y)
    return Region(Box(float(x), float(y), float(math.ceil(box.x + box.w) - x), float(math.ceil(box.y + box.h) - y)))


def _covers(outer: Region, inner: Region, window: Window) -> bool:
    """Whether every pixel of `inner` belongs to `outer`; the window is the inner one's and lies in the outer one's."""
    return outer.shape is Shape.BOX or bool(
        (Outline(outer, window).inside(window) | ~Outline(inner, window).inside(window)).all()
    )


def mask_of(regions: Sequence[Region], width: int, height: int) -> NDArray[np.bool_]:
    """Which pixels of a picture are obscured at full strength.

    Args:
        regions: In any order.
        width: Of the picture, pixels.
        height: Of the picture, pixels.

    Returns:
        ``[height, width]``, True where at least one region obscures; a blended rim does not count.
    """
    return mask_within(regions, Window(0, 0, width, height))


def mask_within(regions: Sequence[Region], window: Window) -> NDArray[np.bool_]:
    """`mask_of` for a part of the picture, at that part's cost."""
    mask = np.zeros((window.y1 - window.y0, window.x1 - window.x0), np.bool_)
    for region in regions:
        common = _extent(region).common(window)
        if common:
            mask[common.seen_from(window)] |= Outline(region, common).inside(common)
    return mask


def covered_share(box: Box, regions: Sequence[Region], width: int, height: int) -> float:
    """How much of a box is obscured at full strength.

    Args:
        box: For instance a face that was found in the result; every pixel it touches counts.
        regions: What was obscured.
        width: Of the picture, pixels.
        height: Of the picture, pixels.

    Returns:
        A share of the box's pixels within the picture, 0 to 1; 1 where it has none, as nothing of it can be seen.
    """
    window = window_of(_touched(box), width, height)
    return float(mask_within(regions, window).mean()) if window else 1.0
