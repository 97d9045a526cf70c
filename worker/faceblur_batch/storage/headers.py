"""What is kept beside an output: its content type, and what of the source's headers may go with it.

A source's user metadata may name the photographer, the place or the person in the picture, so none of it is copied
unless it is named here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from .store import ObjectHeaders

CONTENT_TYPES = {
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "tiff": "image/tiff",
    "avif": "image/avif",
}
OWN_METADATA = "faceblur-"
"""How names of our own metadata begin; a source's never pass under such a name."""

METADATA_BYTES = 2048
"""Of names and values together: what S3 allows."""

_NAME = re.compile(r"[a-z0-9-]{1,128}")
_VALUE = re.compile(r"[ -~]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderPolicy:
    """Makes the headers of outputs.

    Attributes:
        cache_control: Of every output. None: none.
        keep_cache_control: Copy the source's instead, where it has one.
        keep_metadata: Names of the source's user metadata that are copied, whatever their case. What not every store
            could carry (other than printable ASCII, or beyond 2 KiB in all) is left out.
    """

    cache_control: str | None = None
    keep_cache_control: bool = False
    keep_metadata: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for name in self.keep_metadata:
            if not _NAME.fullmatch(name.lower()) or name.lower().startswith(OWN_METADATA):
                raise ValueError(
                    f"metadata called {name!r} cannot be kept; names are of a-z, 0-9 and -, not faceblur-…"
                )

    def headers(self, format: str, source: ObjectHeaders, own: Mapping[str, str]) -> ObjectHeaders:
        """Return the headers of an output.

        Args:
            format: Of the output, as receipts call it.
            source: The headers of the picture that it was made of.
            own: Our metadata; names begin with `OWN_METADATA`. Always written.

        Raises:
            ValueError: Our own metadata cannot be carried by every store.
        """
        room = METADATA_BYTES
        for name, value in own.items():
            room -= len(name) + len(value)
            if not name.startswith(OWN_METADATA) or not _carried(name, value) or room < 0:
                raise ValueError(f"metadata {name!r} cannot be written: printable ASCII, 2 KiB in all")
        metadata = dict(own)
        theirs = {name.lower(): value for name, value in source.metadata.items()}
        for name in sorted(name.lower() for name in self.keep_metadata):
            kept = theirs.get(name)
            if kept is not None and _carried(name, kept) and len(name) + len(kept) <= room:
                metadata[name] = kept
                room -= len(name) + len(kept)
        cache_control = source.cache_control if self.keep_cache_control else None
        return ObjectHeaders(CONTENT_TYPES[format], cache_control or self.cache_control, metadata)


def _carried(name: str, value: str) -> bool:
    # HTTP drops spaces at the ends.
    return bool(_NAME.fullmatch(name) and _VALUE.fullmatch(value)) and value == value.strip()
