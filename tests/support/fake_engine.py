"""A redactor without models: looks at the header, paints the picture one colour, and does what a test tells it to.

Run as a module it is the `faceblur` command with this redactor, for tests that need a process of their own::

    python -m support.fake_engine blur photos -o out
"""

from __future__ import annotations

import hashlib
import io
import sys
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

from faceblur import __version__
from faceblur_engine.errors import EmptyImage, UnsupportedFormat
from faceblur_engine.types import Box, Face, Format, ModelInfo, Options, Profile, Receipt, Region, Result, Shape

COLOR = (200, 30, 60)


class FakeEngine:
    """See the module.

    Attributes:
        seen: The bytes of each call, in order of arrival.
        faces: What every picture has.
        hook: Called with the bytes of each call; may raise or block.
        opened: The arguments that it was opened with.
        version: What its receipts say.
    """

    def __init__(self, hook: Callable[[bytes], None] = lambda data: None, version: str = "1") -> None:
        self.seen: list[bytes] = []
        self.faces = [Face(Box(2, 2, 8, 10), 0.9, "fake")]
        self.hook = hook
        self.opened: dict[str, object] = {}
        self.version = __version__
        self.models = (ModelInfo("fake", hashlib.sha256(version.encode()).hexdigest(), "python f64"),)

    def open(self, *, profiles: Collection[Profile], runtime: str, threads: int, concurrency: int) -> FakeEngine:
        self.opened = {"profiles": list(profiles), "runtime": runtime, "threads": threads, "concurrency": concurrency}
        return self

    def redact(self, data: bytes, options: Options, *, checkpoint: Callable[[], None] | None = None) -> Result:
        from PIL import Image

        receipt = self.detect(data, options, checkpoint=checkpoint)
        target = options.format or (Format.JPEG if receipt.format is Format.HEIC else receipt.format)
        out = io.BytesIO()
        Image.new("RGB", (receipt.width, receipt.height), COLOR).save(out, target.value)
        image = out.getvalue()
        fields = {name: getattr(receipt, name) for name in Receipt.__slots__}
        fields |= {
            "output_sha256": hashlib.sha256(image).hexdigest(),
            "output_bytes": len(image),
            "output_format": target,
        }
        return Result(image, Receipt(**fields))

    def detect(self, data: bytes, options: Options, *, checkpoint: Callable[[], None] | None = None) -> Receipt:
        from PIL import Image, UnidentifiedImageError

        self.seen.append(data)
        self.hook(data)
        if checkpoint:
            checkpoint()
        if not data:
            raise EmptyImage("the file is empty")
        try:
            with Image.open(io.BytesIO(data)) as picture:
                (width, height), kind = picture.size, Format((picture.format or "").lower())
        except (UnidentifiedImageError, ValueError) as error:
            raise UnsupportedFormat("the content is not that of a picture") from error
        return Receipt(
            version=self.version,
            input_sha256=hashlib.sha256(data).hexdigest(),
            output_sha256=None,
            input_bytes=len(data),
            output_bytes=0,
            format=kind,
            output_format=None,
            width=width,
            height=height,
            faces=tuple(self.faces),
            regions=tuple(Region(face.box, Shape.ROUNDED, 2) for face in self.faces),
            models=self.models,
            options=options.as_dict(),
            milliseconds={"decode": 1.0, "detect": 2.0, "redact": 0.5, "encode": 1.0, "total": 4.5},
        )


def _wait_for(marker: Path) -> Callable[[bytes], None]:
    """Say on stdout that a picture is being worked on, and work on it until `marker` exists."""
    lock = threading.Lock()

    def hook(data: bytes) -> None:
        with lock:
            sys.stdout.write("working\n")
            sys.stdout.flush()
        while not marker.exists():
            time.sleep(0.01)

    return hook


if __name__ == "__main__":
    from faceblur_cli.main import main

    arguments = sys.argv[1:]
    engine = FakeEngine()
    if arguments[0] == "--wait-for":
        engine.hook = _wait_for(Path(arguments[1]))
        arguments = arguments[2:]
    sys.exit(main(arguments, open_redactor=engine.open))
