"""Scaling pictures for the networks: exact halves first, which is several times faster than one large reduction."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def halved(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Halve a picture while it stays at least so large; an odd last row or column is left out."""
    while pixels.shape[1] >= 2 * width and pixels.shape[0] >= 2 * height:
        down, across = pixels.shape[0] // 2, pixels.shape[1] // 2
        even = pixels[: 2 * down, : 2 * across]
        pixels = cv2.resize(even, (across, down), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return pixels


def scaled(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Scale a picture to a size, ``[height, width, 3]``."""
    result: NDArray[np.uint8] = cv2.resize(  # type: ignore[assignment]
        halved(pixels, width, height), (width, height), interpolation=cv2.INTER_LINEAR
    )
    return result


def padded(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Add black at the right and below up to a size."""
    right, below = width - pixels.shape[1], height - pixels.shape[0]
    if right or below:
        pixels = cv2.copyMakeBorder(pixels, 0, below, 0, right, cv2.BORDER_CONSTANT)  # type: ignore[assignment]
    return pixels
