"""Builders of encoded pictures: every format and mode, with metadata, with damage, with lies in the header.

Everything is generated, nothing is read from a disk. Where a library can write what is needed it is used; the rest is
put together byte by byte, since what matters here is mostly what no library would write.
"""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

#: Stands in every hiding place of `leaky`; must never be found in a result.
MARKER = b"MARKER-7f3a91"

Array = NDArray[Any]


def photo(width: int = 64, height: int = 48, channels: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth, colourful and without any symmetry, so that a turned or mirrored copy is far from it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    planes = []
    for channel in range(channels):
        a, b, c = rng.uniform(0.5, 2.5, 3)
        plane = 0.55 * x / width + 0.35 * (y / height) ** 2 + 0.1 * np.sin(a * x / 7 + b * y / 9 + c)
        planes.append(plane if channel % 2 == 0 else 1 - plane)
    return np.clip(np.stack(planes, axis=2) * 235 + 10 + rng.normal(0, 2, (height, width, channels)), 0, 255).astype(
        np.uint8
    )


def image(pixels: Array, mode: str | None = None) -> Image.Image:
    mode = mode or {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[pixels.shape[2]]
    return Image.frombytes(mode, (pixels.shape[1], pixels.shape[0]), np.ascontiguousarray(pixels).tobytes())


def saved(picture: Image.Image, kind: str, **settings: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **settings)
    return out.getvalue()


def stored_for(upright: Array, orientation: int) -> Array:
    """What has to be stored, so that a viewer that follows the orientation shows the upright picture."""
    inverse = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.swapaxes(0, 1),
        6: lambda p: np.rot90(p, 1),
        7: lambda p: np.rot90(p.swapaxes(0, 1), 2),
        8: lambda p: np.rot90(p, -1),
    }
    return np.ascontiguousarray(inverse[orientation](upright))


# EXIF

ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 2, 3, 4, 5, 7


def tiff(entries: Mapping[int, tuple[int, Any]], order: str = "<") -> bytes:
    """A TIFF structure: tag to (type, bytes, or numbers, or a nested mapping)."""
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "L", 8) + _directory(entries, order, 8)


def _directory(entries: Mapping[int, tuple[int, Any]], order: str, start: int, following: int = 0) -> bytes:
    behind = start + 2 + 12 * len(entries) + 4
    fixed, tail = struct.pack(order + "H", len(entries)), b""
    for tag, (kind, value) in sorted(entries.items()):
        if isinstance(value, Mapping):
            nested = _directory(value, order, behind + len(tail))
            fixed += struct.pack(order + "HHLL", tag, LONG, 1, behind + len(tail))
            tail += nested
            continue
        if isinstance(value, bytes):
            data, count = value, len(value)
        else:
            values = value if isinstance(value, tuple) else (value,)
            code = {1: "B", SHORT: "H", LONG: "L", RATIONAL: "L"}[kind]
            data = struct.pack(f"{order}{len(values)}{code}", *values)
            count = len(values) // (2 if kind == RATIONAL else 1)
        if len(data) <= 4:
            fixed += struct.pack(order + "HHL4s", tag, kind, count, data)
        else:
            fixed += struct.pack(order + "HHLL", tag, kind, count, behind + len(tail))
            tail += data + bytes(len(data) % 2)
    return fixed + struct.pack(order + "L", following) + tail


def exif(orientation: int | None = None, order: str = "<", rich: bool = False) -> bytes:
    """An EXIF block without its identifier; `rich` has everything a camera writes, the marker in each free text."""
    entries: dict[int, tuple[int, Any]] = {}
    if orientation is not None:
        entries[0x0112] = (SHORT, orientation)
    if rich:
        entries |= {
            0x010E: (ASCII, MARKER + b"\0"),
            0x010F: (ASCII, MARKER + b"\0"),
            0x0131: (ASCII, MARKER + b"\0"),
            0x013B: (ASCII, b"Ada Author\0"),
            0x8298: (ASCII, b"(c) Ada Author\0"),
            0x8769: (
                LONG,
                {
                    0x9003: (ASCII, b"2024:05:17 11:22:33\0"),
                    0x9011: (ASCII, b"+02:00\0"),
                    0x9291: (ASCII, b"042\0"),
                    0x927C: (UNDEFINED, b"MakerNote" + MARKER),
                    0x9286: (UNDEFINED, b"ASCII\0\0\0" + MARKER),
                    0xA430: (ASCII, MARKER + b"\0"),
                    0xA431: (ASCII, MARKER + b"\0"),
                },
            ),
            0x8825: (
                LONG,
                {
                    0: (1, (2, 3, 0, 0)),
                    1: (ASCII, b"N\0"),
                    2: (RATIONAL, (48, 1, 12, 1, 3456, 100)),
                    3: (ASCII, b"E\0"),
                    4: (RATIONAL, (11, 1, 34, 1, 789, 100)),
                    27: (UNDEFINED, b"ASCII\0\0\0" + MARKER),
                    28: (UNDEFINED, b"ASCII\0\0\0" + MARKER),
                    29: (ASCII, b"2024:05:17\0"),
                },
            ),
        }
    return tiff(entries, order)


def exif_with_thumbnail(thumbnail: bytes) -> bytes:
    """A first directory that links to a second, which holds a JPEG thumbnail."""
    first = {0x0112: (SHORT, 1)}
    second_at = 8 + 2 + 12 + 4
    second = _directory({0x0201: (LONG, second_at + 2 + 24 + 4), 0x0202: (LONG, len(thumbnail))}, "<", second_at)
    return b"II*\0\x08\0\0\0" + _directory(first, "<", 8, second_at) + second + thumbnail


# ICC


@cache
def icc(space: str = "RGB", private: bytes = b"") -> bytes:
    """A small but working profile: RGB (Pillow's sRGB), GRAY (a gamma curve) or CMYK (a table of two steps)."""
    if space == "RGB":
        return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    white = b"XYZ \0\0\0\0" + struct.pack(">lll", 63190, 65536, 54061)
    text = b"desc\0\0\0\0" + struct.pack(">L", 5) + b"test\0" + bytes(79 - 1)
    tags = {b"desc": text, b"wtpt": white, b"cprt": b"text\0\0\0\0none\0"}
    if space == "GRAY":
        tags[b"kTRC"] = b"curv\0\0\0\0" + struct.pack(">LH", 1, 461) + b"\0\0"
    else:
        ramp = bytes(range(256))
        # Lab of every combination of inks: cyan is made a strong red here, which no formula would give.
        grid = b"".join(
            bytes((max(0, 255 - 60 * (c + m + y) - 200 * k), 228 if c else 128, 200 if c else 128))
            for c in (0, 1)
            for m in (0, 1)
            for y in (0, 1)
            for k in (0, 1)
        )
        matrix = struct.pack(">9l", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
        tags[b"A2B0"] = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + matrix + ramp * 4 + grid + ramp * 3
    if private:
        tags[b"priv"] = private
    head, body, table = 132 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += struct.pack(">4sLL", name, head + len(body), len(data))
        body += data
    pcs = b"Lab " if space == "CMYK" else b"XYZ "
    kind = b"prtr" if space == "CMYK" else b"mntr"
    start = struct.pack(">L4sL4s4s4s", head + len(body), b"test", 0x02100000, kind, space.encode().ljust(4), pcs)
    start += struct.pack(">6H4s", 2024, 1, 1, 0, 0, 0, b"acsp") + bytes(68 - 40)
    start += struct.pack(">lll", 63190, 65536, 54061)
    return start.ljust(128, b"\0") + struct.pack(">L", len(tags)) + table + body


# JPEG


def segment(marker: int, data: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data


def exif_segment(block: bytes) -> bytes:
    return segment(0xE1, b"Exif\0\0" + block)


def icc_segments(profile: bytes, size: int = 60_000) -> bytes:
    parts = [profile[i : i + size] for i in range(0, len(profile), size)]
    return b"".join(
        segment(0xE2, b"ICC_PROFILE\0" + bytes((number, len(parts))) + part) for number, part in enumerate(parts, 1)
    )


def jpeg(
    pixels: Array | None = None, *, before: bytes = b"", after: bytes = b"", mode: str | None = None, **settings: Any
) -> bytes:
    """A JPEG with segments put in behind its start, and a trailer."""
    data = saved(
        image(photo() if pixels is None else pixels, mode),
        "JPEG",
        **({"quality": 92} if "qtables" not in settings else {}) | settings,
    )
    return data[:2] + before + data[2:] + after


def many_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    data = jpeg(photo(16, 16), progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[-2:]


# PNG


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">L", len(data)) + name + data + struct.pack(">L", zlib.crc32(name + data))


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    position, found = 8, []
    while position < len(data):
        (length,) = struct.unpack_from(">L", data, position)
        found.append((data[position + 4 : position + 8], data[position + 8 : position + 8 + length]))
        position += 12 + length
    return found


def png_of(chunks: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, data) for name, data in chunks)


def png(
    pixels: Array | None = None, *, before: bytes = b"", behind: bytes = b"", mode: str | None = None, **settings: Any
) -> bytes:
    """A PNG with chunks put in behind its header, or before its end."""
    data = saved(image(photo() if pixels is None else pixels, mode), "PNG", **settings)
    return data[:33] + before + data[33:-12] + behind + data[-12:]


def raw_png(pixels: Array, color: int, bits: int, extra: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
    """A PNG of 8 or 16 bits in any colour type, unfiltered."""
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1).astype(">u2" if bits == 16 else "u1")
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    head = struct.pack(">LLBBBBB", width, height, bits, color, 0, 0, 0)
    return png_of([(b"IHDR", head), *extra, (b"IDAT", packed), (b"IEND", b"")])


def png_bomb(width: int, height: int) -> bytes:
    """A valid start of a black picture of any size in about 3 KB."""
    head = struct.pack(">LLBBBBB", width, height, 8, 2, 0, 0, 0)
    return png_of([(b"IHDR", head), (b"IDAT", zlib.compress(bytes(3_000_000), 9)), (b"IEND", b"")])


def apng() -> bytes:
    frames = [image(photo(seed=seed)) for seed in (1, 2)]
    return saved(frames[0], "PNG", save_all=True, append_images=frames[1:])


# WebP


def riff(chunks: Iterable[tuple[bytes, bytes]]) -> bytes:
    body = b"WEBP" + b"".join(
        name + struct.pack("<L", len(data)) + data + bytes(len(data) % 2) for name, data in chunks
    )
    return b"RIFF" + struct.pack("<L", len(body)) + body


def webp_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    position, found = 12, []
    while position + 8 <= len(data):
        (length,) = struct.unpack_from("<L", data, position + 4)
        found.append((data[position : position + 4], data[position + 8 : position + 8 + length]))
        position += 8 + length + length % 2
    return found


def webp(pixels: Array | None = None, **settings: Any) -> bytes:
    return saved(image(photo() if pixels is None else pixels), "WEBP", **{"quality": 95, **settings})


# TIFF, AVIF, HEIC


def tiff_picture(pixels: Array | None = None, mode: str | None = None, **settings: Any) -> bytes:
    return saved(image(photo() if pixels is None else pixels, mode), "TIFF", **settings)


def avif(pixels: Array | None = None, **settings: Any) -> bytes:
    return saved(image(photo() if pixels is None else pixels), "AVIF", **{"quality": 95, "speed": 10, **settings})


def heic() -> bytes:
    """64 x 48 as stored, to be turned clockwise; red grows to the right, green downwards. The author is the marker."""
    return base64.b64decode(_HEIC).replace(b"MARKER-artist", MARKER)


# Hiding places


def leaky() -> dict[str, bytes]:
    """Pictures with the marker in one hiding place each, plain or compressed, by a name of the place."""
    hidden = jpeg(photo(16, 16, seed=3), before=segment(0xFE, MARKER))
    rich = exif(1, rich=True)
    packed = zlib.compress(MARKER)
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>" + MARKER + b"</x:xmpmeta>"
    extended = b"http://ns.adobe.com/xmp/extension/\0" + bytes(40) + MARKER
    iptc = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + struct.pack(">L", len(MARKER)) + MARKER
    mpf = b"MPF\0" + tiff({0xB000: (UNDEFINED, b"0100"), 0xB001: (LONG, 2), 0xB002: (UNDEFINED, bytes(32))})
    gain = b'http://ns.adobe.com/xap/1.0/\0<x hdrgm:Version="1.0"/>' + MARKER
    video = b"\0\0\0\x18ftypmp42" + bytes(12) + MARKER * 3
    frame = webp_chunks(webp())[0]
    canvas = struct.pack("<L", 0x2C) + (63).to_bytes(3, "little") + (47).to_bytes(3, "little")
    return {
        "jpeg comment": jpeg(before=segment(0xFE, MARKER)),
        "jpeg exif": jpeg(before=exif_segment(rich)),
        "jpeg thumbnail": jpeg(before=exif_segment(exif_with_thumbnail(hidden))),
        "jpeg jfif thumbnail": jpeg(before=segment(0xE0, b"JFXX\0\x10" + hidden)),
        "jpeg xmp": jpeg(before=segment(0xE1, xmp)),
        "jpeg extended xmp": jpeg(before=segment(0xE1, extended)),
        "jpeg iptc": jpeg(before=segment(0xED, iptc)),
        "jpeg mpf": jpeg(before=segment(0xE2, mpf), after=hidden),
        "jpeg gain map": jpeg(before=segment(0xE1, gain) + segment(0xE2, mpf), after=hidden),
        "jpeg motion photo": jpeg(after=video),
        "jpeg unknown segment": jpeg(before=segment(0xEB, MARKER)),
        "jpeg broken icc": jpeg(before=icc_segments(MARKER * 10)),
        "jpeg icc with a tail": jpeg(before=icc_segments(icc() + MARKER)),
        "jpeg comment before the end": jpeg()[:-2] + segment(0xFE, MARKER) + b"\xff\xd9",
        "cmyk jpeg comment": jpeg(photo(channels=4), mode="CMYK", before=segment(0xFE, MARKER)),
        "progressive jpeg comment": jpeg(before=segment(0xFE, MARKER), progressive=True),
        "png tEXt": png(before=chunk(b"tEXt", b"Comment\0" + MARKER)),
        "png zTXt": png(before=chunk(b"zTXt", b"Comment\0\0" + packed)),
        "png iTXt": png(before=chunk(b"iTXt", b"Comment\0\1\0\0\0" + packed)),
        "png text at the end": png(behind=chunk(b"tEXt", b"Comment\0" + MARKER)),
        "png tIME": png(before=chunk(b"tIME", MARKER[:7])),
        "png eXIf": png(before=chunk(b"eXIf", rich)),
        "png private chunk": png(before=chunk(b"prVt", MARKER)),
        "png trailer": png() + MARKER,
        "png broken icc": png(before=chunk(b"iCCP", b"x\0\0" + zlib.compress(MARKER * 9))),
        "png icc name": png(before=chunk(b"iCCP", MARKER + b"\0\0" + zlib.compress(icc()))),
        "png hidden behind alpha": png(hidden_pixels()),
        "png deep text": raw_png(photo().astype(np.uint16) * 257, 2, 16, [(b"tEXt", b"Comment\0" + MARKER)]),
        "webp exif": riff([(b"VP8X", canvas), frame, (b"EXIF", rich)]),
        "webp xmp": riff([(b"VP8X", canvas), frame, (b"XMP ", MARKER)]),
        "webp unknown chunk": riff([(b"VP8X", canvas), frame, (b"XYZW", MARKER)]),
        "webp broken icc": riff([(b"VP8X", canvas), (b"ICCP", MARKER * 9), frame]),
        "webp trailer": webp() + MARKER,
        "tiff description": tiff_picture(description=MARKER.decode(), software=MARKER.decode()),
        "tiff xmp and photoshop": tiff_picture(tiffinfo={700: MARKER, 34377: MARKER, 33723: MARKER}),
        "tiff exif": tiff_picture(exif=rich),
        "tiff trailer": tiff_picture() + MARKER,
        "avif exif": avif(exif=rich),
        "avif xmp": avif(xmp=MARKER),
        "avif trailer": avif() + struct.pack(">L4s", 8 + len(MARKER), b"free") + MARKER,
        "heic exif": heic(),
    }


def hidden_pixels() -> NDArray[np.uint8]:
    """RGBA, its left half invisible; the marker is written in the colours of the first row."""
    pixels = photo(channels=4)
    pixels[..., 3] = 255
    pixels[:, :32, 3] = 0
    pixels[0, : len(MARKER), :3] = np.frombuffer(MARKER, np.uint8)[:, None]
    return pixels


def corpus() -> dict[str, bytes]:
    """One small picture of every kind that is read, by name."""
    rgb, rgba, grey, both = photo(), photo(channels=4), photo(channels=1), photo(channels=2)
    deep = photo(channels=4).astype(np.uint16) * 257
    return {
        "jpeg": jpeg(),
        "jpeg 4:4:4": jpeg(subsampling=0),
        "jpeg 4:2:2": jpeg(subsampling=1),
        "jpeg progressive": jpeg(progressive=True),
        "jpeg grey": jpeg(grey),
        "jpeg cmyk": jpeg(rgba, mode="CMYK"),
        "jpeg ycck": ycck(),
        "jpeg rgb": jpeg(keep_rgb=True),
        "jpeg restarts": jpeg(restart_marker_blocks=3),
        "jpeg exif": jpeg(before=exif_segment(exif(6, rich=True))),
        "jpeg icc": jpeg(before=icc_segments(icc(), 300)),
        "png rgb": png(),
        "png rgba": png(rgba),
        "png grey": png(grey),
        "png grey alpha": png(both),
        "png palette": saved(image(rgb).quantize(16), "PNG"),
        "png palette alpha": saved(image(rgb).quantize(16), "PNG", transparency=3),
        "png bilevel": saved(image(rgb).convert("1"), "PNG"),
        "png key": saved(image(rgb), "PNG", transparency=tuple(map(int, rgb[5, 5]))),
        "png deep rgb": raw_png(deep[..., :3], 2, 16),
        "png deep rgba": raw_png(deep, 6, 16),
        "png deep grey": raw_png(deep[..., :1], 0, 16),
        "png deep grey alpha": raw_png(deep[..., 2:], 4, 16),
        "png metadata": png(before=chunk(b"iCCP", b"x\0\0" + zlib.compress(icc())) + chunk(b"eXIf", exif(3))),
        "webp": webp(),
        "webp lossless": webp(lossless=True),
        "webp alpha": webp(rgba),
        "webp metadata": webp(exif=exif(8), icc_profile=icc()),
        "tiff": tiff_picture(),
        "tiff lzw": tiff_picture(compression="tiff_lzw"),
        "tiff deflate": tiff_picture(rgba, compression="tiff_adobe_deflate"),
        "tiff jpeg": tiff_picture(compression="jpeg"),
        "tiff packbits": tiff_picture(grey, compression="packbits"),
        "tiff g4": saved(image(rgb).convert("1"), "TIFF", compression="group4"),
        "tiff palette": saved(image(rgb).quantize(16), "TIFF"),
        "tiff cmyk": tiff_picture(rgba, mode="CMYK"),
        "avif": avif(),
        "avif alpha": avif(rgba),
        "avif exif": avif(exif=exif(6, rich=True)),
        "heic": heic(),
    }


def ycck() -> bytes:
    """A CMYK JPEG whose Adobe marker says that the inks are stored as YCCK."""
    data = bytearray(jpeg(photo(channels=4), mode="CMYK"))
    data[data.index(b"\xff\xee\x00\x0eAdobe") + 15] = 2
    return bytes(data)


_HEIC = """
AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAchtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAA
ADRpbG9jAAAAAERAAAIAAQAAAAAB7AABAAAAAAAAANIAAgAAAAACvgABAAAAAAAAAD4AAAA4aWluZgAAAAAAAgAAABVpbmZlAgAA
AAABAABodmMxAAAAABVpbmZlAgAAAQACAABFeGlmAAAAAA5waXRtAAAAAAABAAABB2lwcnAAAADmaXBjbwAAAHZodmNDAQNwAAAA
kAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq
5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xh
cAAAAEAAAAABAAAAMAAAAAEAAAAAAAAAAv////AAAAACAAAAEHBpeGkAAAAAAwgICAAAAAlpcm90AwAAABlpcG1hAAAAAAAAAAEA
AQaBAgMFhIYAAAAaaXJlZgAAAAAAAAAOY2RzYwACAAEAAQAAARhtZGF0AAAAzigBrwngPf6x3VY1/GSSsDmQV+ieqXctzQ+fzW9u
BxV9dxrr+Qi/tDkAY3JL6nJZh9B44oCOW7ev2qCZ4Kdzn0sog9pgLs/ifJhkGGd81vybKj59Vgcf5ha2hHOrY0fGYD8qHsPgRqMg
RXnIrbhXyaDWVfvwxY++rtWl01hEhDRoE9cLTHrZnmJ4JNcQxye1oOpWj0DrXFPl9ooCmwpx/S9/UFNvvBSYvxcIh5MkxkeRVP8a
zMbp3s2N2GE2ykckOaser7pKu1sCmMDsUGSAAAAABkV4aWYAAE1NACoAAAAIAAIBEgADAAAAAQAGAAABOwACAAAADgAAACYAAAAA
TUFSS0VSLWFydGlzdAA=
"""
