"""The metadata of a picture: what is read from it, and the little that may be copied to a result.

Nothing is ever copied as a block. EXIF is parsed, and a new one is built of the tags that the caller allows, each
checked for its type, length and form, so that thumbnails, maker notes and whatever else hides between the tags
stay behind. An ICC profile is the exception: it is one opaque value, kept when it describes itself consistently.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple, TypeAlias

from .types import Keep

#: Larger than any real profile (a big CMYK one has 3 MB), smaller than what hurts.
MAX_ICC_BYTES = 4 * 1024 * 1024

#: Numbers in one tag. A picture of the largest size that is read has some 400,000 tiles.
_MAX_NUMBERS = 500_000

_ICC_SPACES = {"L": b"GRAY", "LA": b"GRAY", "RGB": b"RGB ", "RGBA": b"RGB ", "CMYK": b"CMYK"}

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 1, 2, 3, 4, 5, 7
_SIZES = {BYTE: 1, ASCII: 1, SHORT: 2, LONG: 4, RATIONAL: 8, 6: 1, UNDEFINED: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}

_CODES = {BYTE: "B", ASCII: "B", SHORT: "H", LONG: "L", RATIONAL: "LL", UNDEFINED: "B", 13: "L"}

ORIENTATION, ARTIST, COPYRIGHT, EXIF_IFD, GPS_IFD = 0x0112, 0x013B, 0x8298, 0x8769, 0x8825


class Value(NamedTuple):
    """The value of one tag: its TIFF type, the number of items, and the items as little-endian bytes."""

    type: int
    items: int
    data: bytes


#: A directory that is still to be written: tag to value, or to a directory that the tag points at.
Directory: TypeAlias = Mapping[int, "Value | Directory"]


class ExifError(ValueError):
    """The structure of an EXIF block is so damaged that its orientation cannot be known."""


def _matches(pattern: str) -> Callable[[bytes], bool]:
    compiled = re.compile(pattern.encode(), re.DOTALL)
    return lambda text: compiled.fullmatch(text) is not None


# What a text has to look like. Free text is only allowed where it is what the caller asked for.
_PRINTED = _matches(r"[^\x00-\x1f\x7f]{1,2000}")
_CAPTURE_TEXTS = {
    0x9003: _matches(r"[\d ]{4}:[\d ]{2}:[\d ]{2} [\d ]{2}:[\d ]{2}:[\d ]{2}"),  # DateTimeOriginal
    0x9011: _matches(r"[+-]\d\d:\d\d"),  # OffsetTimeOriginal
    0x9291: _matches(r"\d{1,9} *"),  # SubSecTimeOriginal
}
_LETTER = _matches(r"[A-Z0-9]")
_GPS_TEXTS = {
    **dict.fromkeys((1, 3, 9, 10, 12, 14, 16, 19, 21, 23, 25), _LETTER),
    18: _matches(r"[A-Z]{2,5}[ -]?\d{2,4}"),  # the map datum, such as WGS-84
    29: _matches(r"\d{4}:\d\d:\d\d"),
}
# Tag to type and count. Left out: 27 and 28 (method and area), which are free text.
_GPS_NUMBERS = {
    0: (BYTE, 4),
    5: (BYTE, 1),
    30: (SHORT, 1),
    **dict.fromkeys((2, 4, 7, 20, 22), (RATIONAL, 3)),
    **dict.fromkeys((6, 11, 13, 15, 17, 24, 26, 31), (RATIONAL, 1)),
}


class Exif:
    """Reads an EXIF block (or a TIFF file, which is one): its first directory and the two that it points at.

    Args:
        block: From the byte order mark on, or from the ``Exif`` identifier before it.

    Raises:
        ExifError: No byte order mark, or the first directory is not inside the block.
    """

    def __init__(self, block: bytes) -> None:
        if block.startswith(b"Exif\0\0"):
            block = block[6:]
        try:
            self._order = {b"II*\0": "<", b"MM\0*": ">"}[bytes(block[:4])]
            self._block = block
            (start,) = struct.unpack_from(self._order + "L", block, 4)
            self.entries, self.complete, self.next = self._read(start)
        except (KeyError, struct.error) as error:
            raise ExifError("the EXIF block has no readable directory") from error

    def _read(self, start: int) -> tuple[dict[int, tuple[int, int, int]], bool, int | None]:
        """Return tag to (type, count, position of the data), whether all entries were there, and the next directory.

        The next directory is 0 where there is none, None where the block ends before it says so.
        """
        if start < 8:
            raise struct.error("a directory cannot lie in the header")
        (count,) = struct.unpack_from(self._order + "H", self._block, start)
        entries: dict[int, tuple[int, int, int]] = {}
        there = min(count, (len(self._block) - start - 2) // 12)
        entry = struct.Struct(self._order + "HHLL")
        for position in range(start + 2, start + 2 + 12 * there, 12):
            tag, kind, items, offset = entry.unpack_from(self._block, position)
            size = _SIZES.get(kind, 0) * items
            entries.setdefault(tag, (kind, items, position + 8 if size <= 4 else offset))
        end = start + 2 + 12 * count
        following = struct.unpack_from(self._order + "L", self._block, end)[0] if end + 4 <= len(self._block) else None
        return entries, there == count, following

    def value(self, tag: int, entries: Mapping[int, tuple[int, int, int]] | None = None) -> Value | None:
        """One tag's value in little-endian order, None when it is absent, damaged or of a type that is not read."""
        kind, items, position = (self.entries if entries is None else entries).get(tag, (0, 0, 0))
        code = _CODES.get(kind)
        if code is None or not items or position + _SIZES[kind] * items > len(self._block):
            return None
        if code == "B" or self._order == "<":
            return Value(kind, items, bytes(self._block[position : position + _SIZES[kind] * items]))
        if items > _MAX_NUMBERS:
            return None
        layout = f"{items * len(code)}{code[0]}"
        return Value(kind, items, struct.pack("<" + layout, *struct.unpack_from(">" + layout, self._block, position)))

    def numbers(self, tag: int, entries: Mapping[int, tuple[int, int, int]] | None = None) -> tuple[int, ...]:
        """The unsigned integers of a tag (a rational counts as two), empty where `value` is None."""
        value = self.value(tag, entries)
        if value is None or value.items > _MAX_NUMBERS:
            return ()
        code = _CODES[value.type]
        return struct.unpack(f"<{value.items * len(code)}{code[0]}", value.data)

    def data(self, tag: int) -> bytes:
        """The bytes of a tag whose items are single bytes, otherwise nothing."""
        value = self.value(tag)
        return value.data if value is not None and _SIZES[value.type] == 1 else b""

    def orientation(self) -> int:
        """How the stored picture has to be turned, 1 (not at all) to 8; 1 when the tag is absent or makes no sense.

        Raises:
            ExifError: The directory is cut off, so that the tag may be missing for that.
        """
        if ORIENTATION not in self.entries and not self.complete:
            raise ExifError("the EXIF block's directory is cut off")
        value = self.numbers(ORIENTATION)
        return value[0] if len(value) == 1 and 1 <= value[0] <= 8 else 1

    def kept(self, keep: Collection[Keep]) -> dict[int, Value | Directory]:
        """Build the directory of what the caller allows; what is damaged or of an unexpected form is left out."""
        result: dict[int, Value | Directory] = {}
        for wanted, tag in ((Keep.AUTHOR, ARTIST), (Keep.COPYRIGHT, COPYRIGHT)):
            if wanted in keep and (text := self._text(tag, _PRINTED)):
                result[tag] = text
        if Keep.CAPTURE_TIME in keep and (entries := self._below(EXIF_IFD)):
            times = {tag: text for tag, form in _CAPTURE_TEXTS.items() if (text := self._text(tag, form, entries))}
            if times:
                result[EXIF_IFD] = times
        if Keep.GPS in keep and (entries := self._below(GPS_IFD)):
            place = {tag: text for tag, form in _GPS_TEXTS.items() if (text := self._text(tag, form, entries))}
            for tag, (kind, count) in _GPS_NUMBERS.items():
                if (value := self.value(tag, entries)) and value[:2] == (kind, count):
                    place[tag] = value
            if place:
                result[GPS_IFD] = place
        return result

    def _below(self, tag: int) -> dict[int, tuple[int, int, int]]:
        start = self.numbers(tag)
        try:
            return self._read(start[0])[0] if len(start) == 1 else {}
        except struct.error:
            return {}

    def _text(
        self, tag: int, form: Callable[[bytes], bool], entries: Mapping[int, tuple[int, int, int]] | None = None
    ) -> Value | None:
        value = self.value(tag, entries)
        if value is None or value.type != ASCII:
            return None
        text = value.data.split(b"\0", 1)[0]
        return Value(ASCII, len(text) + 1, text + b"\0") if form(text) else None


def kept_exif(block: bytes, keep: Collection[Keep]) -> dict[int, Value | Directory]:
    """The directory of what the caller allows out of an EXIF block, empty when nothing is or the block is broken."""
    if not block or not set(keep) - {Keep.ICC}:
        return {}
    try:
        return Exif(block).kept(keep)
    except ExifError:
        return {}


def write_directory(directory: Directory, start: int) -> bytes:
    """Lay out a little-endian TIFF directory, the values that do not fit into it, and the directories below it.

    Args:
        directory: What to write.
        start: The offset that the result will have in its file, an even number.
    """
    entries = bytearray()
    values = bytearray()
    behind = start + 2 + 12 * len(directory) + 4
    for tag in sorted(directory):
        value = directory[tag]
        if not isinstance(value, Value):
            data = write_directory(value, behind + len(values))
            entries += struct.pack("<HHLL", tag, LONG, 1, behind + len(values))
            values += data
        elif len(value.data) <= 4:
            entries += struct.pack("<HHL4s", tag, value.type, value.items, value.data)
        else:
            entries += struct.pack("<HHLL", tag, value.type, value.items, behind + len(values))
            values += value.data + bytes(len(value.data) % 2)
    return struct.pack("<H", len(directory)) + entries + bytes(4) + values


def write_exif(directory: Directory) -> bytes:
    """A whole EXIF block (without the ``Exif`` identifier) of one directory, or nothing for an empty one."""
    return b"II*\0\x08\0\0\0" + write_directory(directory, 8) if directory else b""


def checked_icc(profile: bytes, mode: str) -> bytes:
    """The profile, cut to the length it declares, if it is one for this colour mode, otherwise nothing.

    Args:
        profile: As found in the file.
        mode: L, LA, RGB, RGBA or CMYK.
    """
    if not 132 <= len(profile) <= MAX_ICC_BYTES or profile[36:40] != b"acsp" or profile[16:20] != _ICC_SPACES[mode]:
        return b""
    size, count = struct.unpack_from(">L", profile)[0], struct.unpack_from(">L", profile, 128)[0]
    if not 132 + 12 * count <= size <= len(profile):
        return b""
    for position in range(132, 132 + 12 * count, 12):
        offset, length = struct.unpack_from(">LL", profile, position + 4)
        if offset + length > size:
            return b""
    return bytes(profile[:size])
