"""`faceblur serve` with an engine that does nothing: what is left is the transport, and the callers.

Answers are as long as a picture's and carry a receipt of as many faces, so that they cost as much to send.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from faceblur_engine.types import Box, Face, Format, ModelInfo, Options, Receipt, Region, Result
from faceblur_worker.__main__ import main

FACES = 10


class EmptyEngine:
    """Looks at nothing."""

    models = (ModelInfo("none", "0" * 64, "none"),)

    def __init__(self) -> None:
        boxes = [Box(100.0 * number, 50.5, 40.25, 60.75) for number in range(FACES)]
        self._faces = tuple(Face(box, 0.9, "none") for box in boxes)
        self._regions = tuple(Region(box) for box in boxes)

    def redact(self, data: bytes, options: Options, *, checkpoint: Callable[[], None] | None = None) -> Result:
        """Answer with zeros."""
        return Result(bytes(len(data)), self._receipt(data, options, len(data)))

    def detect(self, data: bytes, options: Options, *, checkpoint: Callable[[], None] | None = None) -> Receipt:
        """Answer with faces that are nowhere."""
        return self._receipt(data, options, 0)

    def _receipt(self, data: bytes, options: Options, length: int) -> Receipt:
        return Receipt(
            version="0",
            input_sha256="0" * 64,
            output_sha256="0" * 64 if length else None,
            input_bytes=len(data),
            output_bytes=length,
            format=Format.JPEG,
            output_format=Format.JPEG if length else None,
            width=1920,
            height=1080,
            faces=self._faces,
            regions=self._regions,
            models=self.models,
            options={},
            milliseconds=dict.fromkeys(("decode", "detect", "redact", "encode", "total"), 1.0),
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], lambda settings: EmptyEngine()))
