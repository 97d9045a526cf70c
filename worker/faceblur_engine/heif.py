"""What an AVIF or HEIC file says about itself: its boxes, and the sizes inside its compressed data.

Both are containers around a video codec. The container announces a size, the coded data another, and a decoder
allocates what the coded data asks for; so both are read, down to the sequence header of AV1 and the sequence
parameter set of HEVC. Nothing is decoded. What cannot be parsed raises ValueError, LookupError or struct.error.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

#: Boxes, properties of items, or extents; real files have up to a few thousand.
_MAX_PARTS = 10_000
#: Pictures that one is put together of, and units of the codec in each: real files have a few hundred and a handful.
_MAX_CODED = 1_000

_SEQUENCE_BRANDS = {b"avis", b"hevc", b"hevx", b"hevm", b"hevs", b"msf1"}


@dataclass(slots=True)
class Container:
    """What the boxes say.

    Attributes:
        brands: What the file claims to be compatible with.
        sequence: It is an image sequence, or holds a video beside the picture.
        size: Width and height of the primary item as stored, after its crop.
        sizes: All that a decoder may allocate: announced and coded sizes of every item.
        turn: Quarter turns against the clock.
        mirror: 0: not; 1: top and bottom are exchanged; 2: left and right are. After turning.
        cropped: The primary item has a crop.
        icc: Its colour profile.
        cicp: Its colour primaries and transfer function.
    """

    brands: set[bytes]
    sequence: bool = False
    size: tuple[int, int] | None = None
    sizes: list[tuple[int, int]] = field(default_factory=list)
    turn: int = 0
    mirror: int = 0
    cropped: bool = False
    icc: bytes = b""
    cicp: tuple[int, int] | None = None


def read_container(data: bytes) -> Container:
    """Read the boxes of an AVIF or HEIC file.

    Raises:
        EOFError: The file is cut off.
    """
    boxes = _boxes(data, 0, len(data))
    _, start, end = next(boxes)
    major = data[start : start + 4]
    found = Container({major, *(data[i : i + 4] for i in range(start + 8, min(end, start + 400) - 3, 4))})
    found.sequence = major in _SEQUENCE_BRANDS
    meta = None
    for name, start, end in boxes:
        if name == b"moov":
            found.sequence = True
        elif name == b"meta":
            _once(meta is None)
            meta = start + 4, end
    if meta is not None and not found.sequence:
        _read_meta(data, *meta, found)
    return found


class _Bits:
    """Reads big-endian numbers of any number of bits."""

    def __init__(self, data: bytes, start: int = 0, end: int | None = None) -> None:
        self._data = data
        self._at = 8 * start
        self._end = 8 * (len(data) if end is None else end)

    def take(self, bits: int) -> int:
        end = self._at + bits
        if end > self._end:
            raise ValueError("there is no more data")
        number = int.from_bytes(self._data[self._at >> 3 : (end + 7) >> 3], "big") >> (-end & 7)
        self._at = end
        return number & ((1 << bits) - 1)

    def golomb(self) -> int:
        """An unsigned Exp-Golomb number, as HEVC stores them."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield type, start and end of each box's content."""
    for _ in range(_MAX_PARTS):
        if start + 8 > end:
            return
        size, kind, body = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8], start + 8
        if size == 1:
            size, body = int.from_bytes(data[body : body + 8], "big"), body + 8
        elif size == 0:
            size = end - start
        if start + size > end:
            raise EOFError("a box reaches past the end")
        if start + size < body:
            raise ValueError("a box is smaller than its header")
        yield kind, body, start + size
        start += size
    raise ValueError("there are too many boxes")


def _read_meta(data: bytes, start: int, end: int, found: Container) -> None:
    inside = _unique(data, start, end)
    body, last = inside[b"pitm"]
    primary = _Bits(data, body + 4, last).take(32 if data[body] else 16)
    items = _items(data, *inside[b"iloc"], inside.get(b"idat", (0, 0))[0]) if b"iloc" in inside else {}
    for item, kind in _item_types(data, *inside[b"iinf"]) if b"iinf" in inside else ():
        if kind == b"grid":
            found.sizes.append(_grid_size(items[item]))
        elif kind == b"iovl":
            raise ValueError("a picture that is put together freely is not read")
    properties, links = _properties(data, *inside[b"iprp"])
    for name, body, last in properties:
        if name == b"ispe":
            found.sizes.append(struct.unpack_from(">LL", data, body + 4))
        elif name == b"auxC":
            data[body:last].decode()
    coded = 0
    for item, numbers in links.items():
        own = {name: (body, last) for name, body, last in (properties[number - 1] for number in numbers if number)}
        coded += bool(own.keys() & {b"av1C", b"hvcC"})
        if coded > _MAX_CODED:
            raise ValueError("there are too many pictures")
        if b"av1C" in own:
            found.sizes += _av1_sizes(items[item])
        if b"hvcC" in own:
            found.sizes += _hevc_sizes(data[slice(*own[b"hvcC"])], items[item])
        if item == primary:
            for number in filter(None, numbers):
                _read_property(data, *properties[number - 1], found)


def _once(condition: bool) -> None:
    # Of two, a decoder might follow the other one.
    if not condition:
        raise ValueError("there are two of what there can only be one of")


def _unique(data: bytes, start: int, end: int) -> dict[bytes, tuple[int, int]]:
    """Start and end of each box's content, of those that matter; none of them may be there twice."""
    found: dict[bytes, tuple[int, int]] = {}
    for name, body, last in _boxes(data, start, end):
        _once(name not in found or name not in (b"pitm", b"iloc", b"iinf", b"idat", b"iprp", b"ipco"))
        found[name] = body, last
    return found


def _item_types(data: bytes, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Yield the types of the items. Refuse names that are no text: pi_heif 1.4 crashes on them."""
    for name, body, last in _boxes(data, start + (6 if data[start] == 0 else 8), end):
        if name == b"infe":
            wide = data[body] == 3
            kind = body + (10 if wide else 8)
            data[kind : kind + 4].decode("ascii")
            data[kind + 4 : last].decode()
            yield _Bits(data, body + 4, last).take(32 if wide else 16), data[kind : kind + 4]


def _grid_size(item: bytes) -> tuple[int, int]:
    bits = _Bits(item, 1)
    wide = 32 if bits.take(8) & 1 else 16
    bits.take(16)
    return bits.take(wide), bits.take(wide)


def _properties(data: bytes, start: int, end: int) -> tuple[list[tuple[bytes, int, int]], dict[int, list[int]]]:
    """Return all properties, and which of them (from 1) each item has."""
    inside = _unique(data, start, end)
    links: dict[int, list[int]] = {}
    for name, body, last in _boxes(data, start, end):
        if name == b"ipma":
            for item, numbers in _links(data, body, last):
                _once(item not in links)
                links[item] = numbers
    return list(_boxes(data, *inside[b"ipco"])), links


def _read_property(data: bytes, name: bytes, start: int, end: int, found: Container) -> None:
    if name == b"ispe":
        found.size = struct.unpack_from(">LL", data, start + 4)
    elif name == b"irot":
        found.turn = data[start] & 3
    elif name == b"imir":
        found.mirror = 1 + (data[start] & 1)
    elif name == b"clap":
        found.cropped = True
        width, width_divisor, height, height_divisor = struct.unpack_from(">LLLL", data, start)
        if found.size:
            found.size = min(found.size[0], width // width_divisor), min(found.size[1], height // height_divisor)
    elif name == b"colr" and data[start : start + 4] in (b"prof", b"rICC"):
        found.icc = data[start + 4 : end]
    elif name == b"colr" and data[start : start + 4] == b"nclx":
        found.cicp = struct.unpack_from(">HH", data, start + 4)


def _links(data: bytes, start: int, end: int) -> Iterator[tuple[int, list[int]]]:
    """Yield each item, and which properties (from 1) it has."""
    bits = _Bits(data, start, end)
    item, wide = (32 if bits.take(8) else 16), (15 if bits.take(24) & 1 else 7)
    total = 0
    for _ in range(bits.take(32)):
        name, numbers = bits.take(item), []
        for _ in range(bits.take(8)):
            bits.take(1)
            numbers.append(bits.take(wide))
        total += 1 + len(numbers)
        if total > _MAX_PARTS:
            raise ValueError("there are too many properties")
        yield name, numbers


def _items(data: bytes, start: int, end: int, inner: int) -> dict[int, bytes]:
    """The data of each item that lies in this file."""
    items: dict[int, bytes] = {}
    bits = _Bits(data, start, end)
    version = bits.take(8)
    bits.take(24)
    offset_bits, length_bits, base_bits, index_bits = (8 * bits.take(4) for _ in range(4))
    total = copied = 0
    for _ in range(bits.take(16 if version < 2 else 32)):
        item = bits.take(16 if version < 2 else 32)
        total += 1
        if total > _MAX_PARTS:
            raise ValueError("there are too many items")
        method = bits.take(16) & 15 if version else 0
        bits.take(16)
        base = bits.take(base_bits) + (inner if method == 1 else 0)
        parts = []
        for _ in range(bits.take(16)):
            if version:
                bits.take(index_bits)
            first = base + bits.take(offset_bits)
            length = bits.take(length_bits) or len(data) - first
            if first + length > len(data):
                raise EOFError("an item reaches past the end")
            total += 1
            copied += length
            if copied > 2 * len(data):
                raise ValueError("the items overlap")
            parts.append(data[first : first + length])
        _once(item not in items)
        items[item] = b"".join(parts)
    return items


def _av1_sizes(item: bytes) -> Iterator[tuple[int, int]]:
    """The size in each sequence header of an AV1 stream."""
    position = 0
    for _ in range(_MAX_CODED):
        if position >= len(item):
            return
        head = item[position]
        position += 2 if head & 4 else 1
        size = len(item) - position
        if head & 2:
            size = shift = 0
            while True:
                byte = item[position]
                position += 1
                size |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80 or shift > 56:
                    break
        if head >> 3 & 15 == 1:
            yield _av1_size(_Bits(item, position, min(position + size, len(item))))
        position += size
    raise ValueError("there are too many units")


def _av1_size(bits: _Bits) -> tuple[int, int]:
    bits.take(4)
    if bits.take(1):  # reduced: all there is before the size is a level
        bits.take(5)
    else:
        if bits.take(1):
            raise ValueError("a still picture has no timing")
        delays = bits.take(1)
        for _ in range(bits.take(5) + 1):
            bits.take(12)
            if bits.take(5) > 7:
                bits.take(1)
            if delays and bits.take(1):
                bits.take(4)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    return bits.take(width_bits) + 1, bits.take(height_bits) + 1


def _hevc_sizes(config: bytes, item: bytes) -> Iterator[tuple[int, int]]:
    """The size in each sequence parameter set of an HEVC item, in its configuration or its data."""
    for number, unit in enumerate(_hevc_units(config, item)):
        if number >= _MAX_CODED:
            raise ValueError("there are too many units")
        if unit and unit[0] >> 1 & 63 == 33:
            yield _hevc_size(_Bits(unit[2:256].replace(b"\0\0\3", b"\0\0")))


def _hevc_units(config: bytes, item: bytes) -> Iterator[bytes]:
    position = 23
    for _ in range(config[22]):
        count = int.from_bytes(config[position + 1 : position + 3], "big")
        position += 3
        for _ in range(count):
            length = int.from_bytes(config[position : position + 2], "big")
            yield config[position + 2 : position + 2 + length]
            position += 2 + length
    width = (config[21] & 3) + 1
    position = 0
    while position + width < len(item):
        length = int.from_bytes(item[position : position + width], "big")
        yield item[position + width : position + width + min(length, 256)]
        position += width + length


def _hevc_size(bits: _Bits) -> tuple[int, int]:
    bits.take(4)
    layers = bits.take(3)
    bits.take(1 + 96)
    flags = [(bits.take(1), bits.take(1)) for _ in range(layers)]
    if layers:
        bits.take(2 * (8 - layers))
    for profile, level in flags:
        bits.take(88 * profile + 8 * level)
    bits.golomb()
    if bits.golomb() == 3:
        bits.take(1)
    return bits.golomb(), bits.golomb()
