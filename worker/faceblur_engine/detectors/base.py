"""What the pipeline asks of a detector."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..types import Face, Margin, ModelInfo, Shape


class Detector(Protocol):
    """Finds faces. One instance may be used by several threads at once.

    Attributes:
        models: What it runs.
        margin: How far its boxes have to be grown to cover what a person calls the face; measured.
        shape: The outline that covers most for its area with this margin.
    """

    models: tuple[ModelInfo, ...]
    margin: Margin
    shape: Shape

    def detect(self, rgb: NDArray[np.uint8], min_score: float | None = None) -> list[Face]:
        """Find the faces of an upright picture.

        Args:
            rgb: ``[height, width, 3]``, 0 to 255, C-contiguous.
            min_score: Replaces the detector's own thresholds, 0 to 1.

        Returns:
            Boxes in pixels of ``rgb``, best score first.
        """
        ...
