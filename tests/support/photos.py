"""The sample photographs of examples/, as tests use them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "photos"
WITH_FACES = ("city.jpg", "astronaut.png")
WITHOUT_FACES = ("coffee.png", "rocket.jpg")


def pixels_of(name: str) -> NDArray[np.uint8]:
    """A sample as RGB, ``[height, width, 3]``."""
    return cv2.cvtColor(cv2.imread(str(FOLDER / name)), cv2.COLOR_BGR2RGB)
