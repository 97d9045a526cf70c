"""Pictures that the engine refuses, of every kind that is known, and as what.

Each is built when it is asked for. `REFUSED` has them all.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from faceblur_engine.errors import (
    EmptyImage,
    ImageError,
    LimitExceeded,
    MultipleFrames,
    UnreadableImage,
    UnsupportedFormat,
)

from . import pictures

Build: TypeAlias = Callable[[], bytes]
CORPUS = pictures.corpus()

#: What it is, and a word by which the message names it.
NO_PICTURES = [
    (b"hello world, this is text\n", "text"),
    (b"hi", "text"),
    (b"%PDF-1.7 ...", "a PDF"),
    (b"BM" + bytes(60), "a BMP"),
    (b"8BPS" + bytes(60), "Photoshop"),
    (b"<?xml version='1.0'?><svg/>", "SVG"),
    (b"\0\0\0\x18ftypmp42" + bytes(40), "video"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\x1f\x8b\x08" + bytes(20), "archive"),
    (bytes(100), "unknown kind"),
    (b"\xff\xd8", "unknown kind"),
    (b"II+\0\x08\0\0\0" + bytes(20), "BigTIFF"),
    (b"GIF89a" + bytes(20), "a GIF"),
    (b"GIF87a" + bytes(20), "as PNG"),
]


def animated_webp() -> bytes:
    frames = [pictures.image(pictures.photo(seed=seed)) for seed in (1, 2)]
    return pictures.saved(frames[0], "WEBP", save_all=True, append_images=frames[1:])


def pages() -> bytes:
    frames = [pictures.image(pictures.photo(seed=seed)) for seed in (1, 2)]
    return pictures.saved(frames[0], "TIFF", save_all=True, append_images=frames[1:])


def sequence() -> bytes:
    frames = [pictures.image(pictures.photo(seed=seed)) for seed in (1, 2)]
    return pictures.saved(frames[0], "AVIF", save_all=True, append_images=frames[1:], speed=10)


SEVERAL_FRAMES: dict[str, Build] = {
    "png": pictures.apng,
    "webp": animated_webp,
    "tiff": pages,
    "avif": sequence,
}


def lying_jpeg(progressive: bool) -> bytes:
    source = bytearray(pictures.jpeg(progressive=progressive))
    struct.pack_into(">HH", source, source.index(b"\xff\xc2" if progressive else b"\xff\xc0") + 5, 60_000, 60_000)
    return bytes(source)


def lying_tiff(tag: int, value: int, items: int = 1) -> bytes:
    source = bytearray(CORPUS["tiff" if tag < 400 else "tiff lzw"])
    (start,) = struct.unpack_from("<L", source, 4)
    (count,) = struct.unpack_from("<H", source, start)
    for position in range(start + 2, start + 2 + 12 * count, 12):
        found, kind, _ = struct.unpack_from("<HHL", source, position)
        if found == tag:
            struct.pack_into("<L", source, position + 4, items)
            struct.pack_into("<L" if kind == 4 else "<H", source, position + 8, value)
    return bytes(source)


def lying_webp() -> bytes:
    frame = dict(pictures.webp_chunks(CORPUS["webp"]))[b"VP8 "]
    size = (60_000 - 1).to_bytes(3, "little")
    return pictures.riff([(b"VP8X", bytes(4) + size + size), (b"VP8 ", frame)])


#: With wide limits only the lie is a reason to refuse.
LYING: dict[str, Build] = {
    "jpeg": lambda: lying_jpeg(False),
    "progressive jpeg": lambda: lying_jpeg(True),
    "png": lambda: pictures.png_bomb(900_000, 900_000),
    "webp": lying_webp,
    "tiff width": lambda: lying_tiff(256, 60_000),
    "tiff height": lambda: lying_tiff(257, 60_000),
    "tiff strip": lambda: lying_tiff(279, 2**31),
    "tiff offset": lambda: lying_tiff(273, 2**31),
    "tiff 10": lambda: lying_tiff(279, 10),
}

LARGE = 19_000


def two_pngs(bits: int, at: int) -> bytes:
    chunks = pictures.png_chunks(CORPUS["png rgb" if bits == 8 else "png deep rgb"])
    chunks.insert(at, (b"IHDR", struct.pack(">LL", LARGE, 5000) + chunks[0][1][8:]))
    return pictures.png_of(chunks)


def two_webps(first: bool) -> bytes:
    small, large = (dict(pictures.webp_chunks(pictures.webp(np.zeros((h, h, 3), np.uint8)))) for h in (16, 900))
    frames = [(b"VP8 ", small[b"VP8 "]), (b"VP8 ", large[b"VP8 "])]
    return pictures.riff(frames if first else frames[::-1])


def late_canvas() -> bytes:
    size = (15_999).to_bytes(3, "little")
    return pictures.riff([*pictures.webp_chunks(CORPUS["webp"]), (b"VP8X", bytes(4) + size + size)])


def two_jpegs(marker: int) -> bytes:
    """A second, larger frame header: behind the first, or where only some decoders look into a segment."""
    source = pictures.jpeg()
    at = source.index(b"\xff\xc0")
    frame = bytearray(source[at : at + 19])
    struct.pack_into(">HH", frame, 5, 5000, LARGE)
    # The stray byte makes the strict decoder hand over to the tolerant one.
    added = bytes(frame) if marker == 0xC0 else b"\0" + pictures.segment(marker, bytes(frame))
    return source[: at + 19] + added + source[at + 19 :]


def large_grid() -> bytes:
    source = CORPUS["heic"]
    # The metadata item becomes a grid whose description, its data, begins with flags and ends in a size.
    source = source.replace(b"\0Exif\0", b"\0grid\0")
    data = source.index(b"\0\0\0\x06Exif\0\0MM")
    return source[:data] + struct.pack(">BBBBLL", 0, 1, 0, 0, 60_000, 60_000) + source[data + 12 :]


def with_box(name: bytes, body: bytes) -> bytes:
    """An AVIF with one more box, behind all others, in its `meta` box; properties lie in an `iprp`."""
    source = CORPUS["avif"]
    box = struct.pack(">L4s", 8 + len(body), name) + body
    if name == b"ipma":
        box = struct.pack(">L4s", 8 + len(box), b"iprp") + box
    at = source.index(b"meta") - 4
    (size,) = struct.unpack_from(">L", source, at)
    return source[:at] + struct.pack(">L", size + len(box)) + source[at + 4 : at + size] + box + source[at + size :]


def overlapping_items(count: int) -> bytes:
    return b"".join(struct.pack(">HHHLL", item, 0, 1, 0, 1000) for item in range(1, count + 1))


TWO_HEADERS: dict[str, Build] = {
    "png": lambda: two_pngs(8, 1),
    "png behind the pixels": lambda: two_pngs(8, 2),
    "deep png": lambda: two_pngs(16, 1),
    "webp small first": lambda: two_webps(True),
    "webp large first": lambda: two_webps(False),
    "webp canvas": late_canvas,
    "jpeg": lambda: two_jpegs(0xC0),
    "jpeg in JPG0": lambda: two_jpegs(0xF0),
    "jpeg in JPG7": lambda: two_jpegs(0xF7),
    "heic grid": large_grid,
    "pitm": lambda: with_box(b"pitm", bytes(20)),
    "iloc": lambda: with_box(b"iloc", bytes(20)),
    "iinf": lambda: with_box(b"iinf", bytes(20)),
    "iprp": lambda: with_box(b"iprp", bytes(20)),
    "meta": lambda: CORPUS["avif"] + CORPUS["avif"][CORPUS["avif"].index(b"meta") - 4 :],
}

COUNTLESS_PARTS: dict[str, Build] = {
    "jpeg": lambda: b"\xff\xd8" + b"\xff\xfe\0\2" * 30_000 + pictures.jpeg()[2:],
    "png": lambda: pictures.png(before=pictures.chunk(b"prVt", b"") * 30_000),
    "webp": lambda: pictures.riff([*pictures.webp_chunks(pictures.webp()), *[(b"XYZW", b"")] * 30_000]),
    "avif": lambda: pictures.avif()[:32] + struct.pack(">L4s", 8, b"free") * 30_000,
    "items": lambda: with_box(b"iloc", struct.pack(">LHL", 0x02000000, 0x4440, 10**5) + bytes(14) * 10**5),
    "overlapping items": lambda: with_box(b"iloc", struct.pack(">LHH", 0, 0x4400, 300) + overlapping_items(300)),
    "properties": lambda: with_box(b"ipma", struct.pack(">LL", 0, 10**6) + struct.pack(">HB", 1, 255) + bytes(10**6)),
    "tiff bits": lambda: lying_tiff(258, 8, items=1_000_000) + bytes(4_000_000),
    "tiff strips": lambda: lying_tiff(273, 8, items=1_000_000) + bytes(4_000_000),
}


def unusual_jpeg(position: int, value: int) -> bytes:
    source = bytearray(CORPUS["jpeg"])
    source[source.index(b"\xff\xc0") + position] = value
    return bytes(source)


#: By the words with which the message names it.
UNUSUAL_JPEGS: dict[str, Build] = {
    "12 bits": lambda: unusual_jpeg(4, 12),
    "2 channels": lambda: unusual_jpeg(9, 2),
    "process 3": lambda: unusual_jpeg(1, 0xC3),
    "process 9": lambda: unusual_jpeg(1, 0xC9),
}


def deep_tiff() -> bytes:
    return pictures.saved(pictures.image(pictures.photo(channels=1)).convert("I;16"), "TIFF")


def damaged_png() -> bytes:
    """A PNG with a wrong checksum."""
    source = bytearray(CORPUS["png rgb"])
    source[source.index(b"IDAT") + 10] ^= 1
    return bytes(source)


def cut_with_an_end_put_on() -> bytes:
    source = pictures.jpeg(pictures.photo(160, 120))
    return source[: len(source) // 2] + b"\xff\xd9"


def _half(name: str) -> Build:
    return lambda: CORPUS[name][: len(CORPUS[name]) // 2]


def _all() -> dict[str, tuple[Build, tuple[type[ImageError], ...]]]:
    found: dict[str, tuple[Build, tuple[type[ImageError], ...]]] = {
        "nothing": (lambda: b"", (EmptyImage,)),
        "a bomb": (lambda: pictures.png_bomb(50_000, 50_000), (LimitExceeded,)),
        "too many scans": (lambda: pictures.many_scans(101), (LimitExceeded,)),
        "a tiff of 16 bits": (deep_tiff, (UnsupportedFormat,)),
        "a wrong checksum": (damaged_png, (UnreadableImage,)),
        "cut, with an end put on": (cut_with_an_end_put_on, (UnreadableImage,)),
    }
    for number, (content, says) in enumerate(NO_PICTURES):
        found[f"{says} {number}"] = (lambda content=content: content), (UnsupportedFormat,)
    lists = {
        "frames": (SEVERAL_FRAMES, (MultipleFrames,)),
        "lying": (LYING, (UnreadableImage, LimitExceeded)),
        "two headers": (TWO_HEADERS, (UnreadableImage, LimitExceeded)),
        "countless parts": (COUNTLESS_PARTS, (UnreadableImage,)),
        "unusual": (UNUSUAL_JPEGS, (UnsupportedFormat,)),
        "half of": ({name: _half(name) for name in CORPUS}, (UnreadableImage,)),
    }
    for kind, (builders, errors) in lists.items():
        found |= {f"{kind} {name}": (build, errors) for name, build in builders.items()}
    return found


#: By name: how it is built, and which errors it may be refused with.
REFUSED = _all()
