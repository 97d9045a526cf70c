"""Small pictures of *results* for the report. An original never comes here."""

from __future__ import annotations

import io
from typing import Any

SIDE = 320
# A thumbnail is looked at, not measured: a display profile of some hundred bytes is kept, a printer's of 500 KB is not.
_MAX_ICC = 4096


def thumbnail_of(image: bytes) -> bytes | None:
    """Return a WebP of at most `SIDE` pixels, None if Pillow cannot show the format.

    Args:
        image: An encoded result.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(image)) as picture:
            picture.draft("RGB", (SIDE, SIDE))  # lets libjpeg decode at a fraction of the size
            icc = picture.info.get("icc_profile")
            picture.thumbnail((SIDE, SIDE), reducing_gap=2.0)
            small: Any = picture
            if small.mode.startswith("I"):  # 16 bit: Pillow would clip it to 8, not scale it
                small = small.point(lambda value: value / 256).convert("L")
            if small.mode not in ("RGB", "RGBA"):
                icc = None  # of another colour space than the thumbnail's
                small = small.convert("RGBA" if "A" in small.mode or "transparency" in small.info else "RGB")
            extra = {"icc_profile": icc} if icc and len(icc) <= _MAX_ICC else {}
            out = io.BytesIO()
            small.save(out, "WEBP", quality=70, method=2, exif=b"", xmp=b"", **({"icc_profile": None} | extra))
            return out.getvalue()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
