"""What a picture's header says, read without decoding and held against the limits.

The decoders are C code that allocates what a header announces. So the headers are read here first, in Python,
where a lie is an exception: a picture that is too large, has more than one frame, or announces more pixels than
its bytes can hold never reaches a decoder. The content alone decides what a file is; names are not looked at.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from .errors import EmptyImage, ImageError, LimitExceeded, MultipleFrames, UnreadableImage, UnsupportedFormat
from .heif import read_container
from .metadata import MAX_ICC_BYTES, Exif, ExifError
from .types import Format, Limits

#: Segments, chunks or boxes. Real files have up to a few thousand; walking millions of empty ones takes seconds.
_MAX_PARTS = 20_000

#: Deflate cannot pack better than 1032 to 1. The others are bounds with room to spare.
_DEFLATE_RATIO = 1032
_TIFF_RATIO = 8192
#: A JPEG block of 8x8 takes at least one bit: 512 pixels a byte.
_JPEG_PIXELS_PER_BYTE = 512


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """What the encoder needs to make a JPEG like the source.

    Attributes:
        color: "grey", "YCbCr", "RGB", "CMYK" or "YCCK": what the components are.
        adobe: There is an Adobe marker, by which CMYK is stored inverted.
        progressive: It has several scans of increasing quality.
        subsampling: "4:4:4", "4:2:2" or "4:2:0": the coarsest of these that keeps all the chroma samples of the source,
            so that 4:4:0 counts as 4:4:4, 4:1:1 as 4:2:2 and 4:1:0 as 4:2:0.
        tables: The quantisation tables of the components in zigzag order, 64 bytes or 64 big-endian shorts each, empty
            when it does not stand before the first scan. The last is that of all further components.
    """

    color: str
    adobe: bool
    progressive: bool
    subsampling: str
    tables: tuple[bytes, ...]


class Part(NamedTuple):
    """A PNG or WebP chunk: its type, and where its data lies."""

    type: bytes
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a picture says about itself before it is decoded.

    Attributes:
        format: By content.
        width: As stored, before the orientation is applied, pixels.
        height: As stored, pixels.
        orientation: How the stored pixels have to be turned, 1 (not at all) to 8, as in EXIF.
        bits: Bits per channel, 1 to 16.
        lossless: Whether the pixels are stored without loss.
        packed: Whether they are compressed at all; only a TIFF may say no.
        scans: Of a progressive JPEG, otherwise 1.
        exif: The EXIF block as found (of a TIFF: the file); empty for AVIF and HEIC, whose decoders return it.
        icc: The ICC profile as found, unchecked.
        cicp: Colour primaries and transfer function by the numbers of ITU-T H.273.
        jpeg: Only of a JPEG.
        parts: Chunks of a PNG or WebP.
    """

    format: Format
    width: int
    height: int
    orientation: int = 1
    bits: int = 8
    lossless: bool = False
    packed: bool = True
    scans: int = 1
    exif: bytes = field(default=b"", repr=False)
    icc: bytes = field(default=b"", repr=False)
    cicp: tuple[int, int] | None = None
    jpeg: JpegHeader | None = field(default=None, repr=False)
    parts: tuple[Part, ...] = field(default=(), repr=False)

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height once the orientation is applied, pixels."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def probe(data: bytes, limits: Limits) -> Header:
    """Read the header and hold it against the limits, without decoding anything.

    Args:
        data: The encoded picture.
        limits: What is refused.

    Raises:
        EmptyImage: There are no bytes.
        UnsupportedFormat: The content is of no format, or no variant of one, that is decoded.
        UnreadableImage: The header, or the EXIF block that holds the orientation, is damaged, or announces more
            pixels than the file can hold.
        MultipleFrames: It is animated or has several pages.
        LimitExceeded: A limit is exceeded.
    """
    if not data:
        raise EmptyImage("the picture is empty: it has no bytes")
    _check("max_bytes", len(data), limits.max_bytes)
    reader = next((reader for magic, reader in _READERS if magic.match(data)), None)
    if reader is None:
        raise UnsupportedFormat(
            f"{_name_of(data)} cannot be processed; give a JPEG, PNG, WebP, TIFF, AVIF or HEIC picture"
        )
    try:
        return reader(data, limits)
    except ImageError:
        raise
    except ExifError as error:
        raise UnreadableImage(
            "the EXIF metadata is damaged, so which side of the picture is up cannot be known; "
            "remove the metadata or save the picture anew"
        ) from error
    except (struct.error, ValueError, LookupError, ArithmeticError, StopIteration) as error:
        raise UnreadableImage("the picture's header is damaged or cut off") from error


def _check(name: str, value: int, allowed: int) -> None:
    if value > allowed:
        raise LimitExceeded(name, value, allowed)


def _check_size(width: int, height: int, limits: Limits) -> None:
    if width < 1 or height < 1:
        raise UnreadableImage("the picture's header is damaged: it announces no pixels")
    _check("max_width", width, limits.max_width)
    _check("max_height", height, limits.max_height)
    _check("max_pixels", width * height, limits.max_pixels)


def _truncated() -> UnreadableImage:
    return UnreadableImage("the picture is cut off: its end is missing")


def _implausible() -> UnreadableImage:
    return UnreadableImage("the picture announces more pixels than its bytes can hold; it is cut off or forged")


def _orientation(exif: bytes) -> int:
    return Exif(exif).orientation() if exif else 1


# JPEG

# The next marker, as libjpeg looks for it: stray bytes, stuffed zeros, padding and restarts are passed over.
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")
_SOS, _EOI, _DQT, _APP0, _APP1, _APP2, _APP14 = 0xDA, 0xD9, 0xDB, 0xE0, 0xE1, 0xE2, 0xEE
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


def _jpeg_segments(data: bytes, position: int) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of each segment's content, up to the end of the picture."""
    for _ in range(_MAX_PARTS):
        found = _MARKER.search(data, position)
        if not found:
            raise _truncated()
        marker = found[1][0]
        if marker == _EOI:
            return
        start = found.end() + 2
        position = found.end() + int.from_bytes(data[found.end() : start], "big")
        if position < start:
            raise UnreadableImage("the picture's header is damaged: it has an impossible segment")
        if position > len(data):
            raise _truncated()
        yield marker, start, position
    raise UnreadableImage("the picture has too many segments to be a real one")


def _read_jpeg(data: bytes, limits: Limits) -> Header:
    frame = kind = first_scan = adobe = None
    jfif = False
    tables: dict[int, bytes] = {}
    exif = b""
    icc: list[tuple[int, int, bytes]] = []
    scans = 0
    for marker, start, end in _jpeg_segments(data, 2):
        if marker == _SOS:
            if frame is None:
                raise UnreadableImage("the picture's header is damaged: its pixels come before its size")
            scans += 1
            if scans == 1:
                first_scan = start
                if kind != 0xC2 and data[start] >= frame[5]:
                    break  # all there is, in one scan: the entropy-coded data need not be walked
            elif scans > limits.max_scans:
                # Counting the rest as bytes is exact for any real file and cannot be made slow.
                _check("max_scans", scans + data.count(b"\xff\xda", end), limits.max_scans)
        elif marker in _FRAMES:
            if frame is not None:
                raise UnreadableImage("the picture's header is damaged: it has two sizes")
            frame, kind = data[start:end], marker
            height, width = struct.unpack_from(">HH", frame, 1)
            _check_size(width, height, limits)
        elif first_scan is not None:
            continue
        elif marker == _DQT:
            while start < end:
                length = 128 if data[start] >> 4 else 64
                tables[data[start] & 15] = data[start + 1 : start + 1 + length]
                start += 1 + length
        elif marker == _APP0:
            jfif = jfif or data[start : start + 5] == b"JFIF\0"
        elif marker == _APP1:
            if not exif and data[start : start + 6] == b"Exif\0\0":
                exif = data[start + 6 : end]
        elif marker == _APP2:
            if data[start : start + 12] == b"ICC_PROFILE\0":
                icc.append((data[start + 12], data[start + 13], data[start + 14 : end]))
        elif marker == _APP14 and data[start : start + 5] == b"Adobe" and end - start >= 12:
            adobe = data[start + 11]
    if frame is None or first_scan is None:
        raise UnreadableImage("the picture's header is damaged: it holds no pixels")
    if kind not in (0xC0, 0xC1, 0xC2) or frame[0] != 8 or frame[5] not in (1, 3, 4):
        raise UnsupportedFormat(
            f"this variant of JPEG (process {(kind or 0) - 0xC0}, {frame[0]} bits, {frame[5]} channels) cannot be "
            "processed; convert the picture to an ordinary JPEG or to PNG"
        )
    if width * height > _JPEG_PIXELS_PER_BYTE * len(data) + 64:
        raise _implausible()
    components = [(frame[i], frame[i + 1] >> 4, frame[i + 1] & 15, frame[i + 2]) for i in range(6, 6 + 3 * frame[5], 3)]
    if not all(1 <= h <= 4 and 1 <= v <= 4 for _, h, v, _ in components):
        raise UnreadableImage("the picture's header is damaged: its chroma subsampling is impossible")
    selectors = [selector for _, _, _, selector in components]
    while selectors[-2:-1] == selectors[-1:]:
        selectors.pop()
    return Header(
        Format.JPEG,
        width,
        height,
        _orientation(exif),
        scans=scans,
        exif=exif,
        icc=b"".join(part for _, _, part in sorted(icc)) if all(n == len(icc) for _, n, _ in icc) else b"",
        jpeg=JpegHeader(
            color=_jpeg_color([name for name, _, _, _ in components], jfif, adobe),
            adobe=adobe is not None,
            progressive=kind == 0xC2,
            subsampling=_jpeg_subsampling([(h, v) for _, h, v, _ in components]),
            tables=tuple(tables.get(selector, b"") for selector in selectors),
        ),
    )


def _jpeg_color(names: list[int], jfif: bool, adobe: int | None) -> str:
    """Say what the components are, by the rules of libjpeg."""
    if len(names) == 1:
        return "grey"
    if len(names) == 4:
        return "YCCK" if adobe == 2 else "CMYK"
    if jfif or adobe not in (None, 0):
        return "YCbCr"
    return "RGB" if adobe == 0 or bytes(names) == b"RGB" else "YCbCr"


def _jpeg_subsampling(factors: list[tuple[int, int]]) -> str:
    chroma = factors[1:3]
    wide, high = max(h for h, _ in factors), max(v for _, v in factors)
    if not chroma or any(2 * h > wide for h, _ in chroma):
        return "4:4:4"
    return "4:2:2" if any(2 * v > high for _, v in chroma) else "4:2:0"


# PNG

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def _read_png(data: bytes, limits: Limits) -> Header:
    length, kind, width, height, bits, color, compression, filters, interlace = struct.unpack_from(
        ">L4sLLBBBBB", data, 8
    )
    if kind != b"IHDR" or length != 13:
        raise UnreadableImage("the picture's header is damaged: a PNG has to start with its size")
    _check_size(width, height, limits)
    if bits not in _PNG_DEPTHS.get(color, ()) or compression or filters or interlace > 1:
        raise UnreadableImage("the picture's header is damaged: it announces no possible kind of PNG")
    parts = tuple(_png_chunks(data))
    found = {part.type: part for part in reversed(parts)}
    if sum(part.type == b"IHDR" for part in parts) > 1:
        raise UnreadableImage("the picture is damaged: it announces two sizes")  # and decoders would believe the last
    if found.keys() & {b"acTL", b"fcTL", b"fdAT"}:
        raise MultipleFrames("the picture is an animated PNG; give each of its frames as a picture")
    packed = sum(part.end - part.start for part in parts if part.type == b"IDAT")
    if not packed:
        raise UnreadableImage("the picture is damaged: it holds no pixels")
    # Interlacing only adds to this.
    if height * (1 + (width * bits * _PNG_CHANNELS[color] + 7) // 8) > packed * _DEFLATE_RATIO:
        raise _implausible()
    exif, icc, cicp = (data[p.start : p.end] if (p := found.get(n)) else b"" for n in (b"eXIf", b"iCCP", b"cICP"))
    return Header(
        Format.PNG,
        width,
        height,
        _orientation(exif),
        bits=bits,
        lossless=True,
        exif=exif,
        icc=_unpack_icc(icc),
        cicp=(cicp[0], cicp[1]) if len(cicp) == 4 and cicp[2] == 0 else None,
        parts=parts,
    )


def _png_chunks(data: bytes) -> Iterator[Part]:
    position = len(PNG_MAGIC)
    for _ in range(_MAX_PARTS):
        if position + 12 > len(data):
            raise _truncated()
        length = int.from_bytes(data[position : position + 4], "big")
        part = Part(data[position + 4 : position + 8], position + 8, position + 8 + length)
        position = part.end + 4
        if position > len(data):
            raise _truncated()
        yield part
        if part.type == b"IEND":
            return
    raise UnreadableImage("the picture has too many chunks to be a real one")


def _unpack_icc(chunk: bytes) -> bytes:
    """The profile in an iCCP chunk, or nothing if it is damaged or unpacks to more than a profile has."""
    name, _, packed = chunk.partition(b"\0")
    try:
        unpacker = zlib.decompressobj()
        profile = unpacker.decompress(packed[1:], MAX_ICC_BYTES)
    except zlib.error:
        return b""
    return profile if name and unpacker.eof else b""


# WebP


def _read_webp(data: bytes, limits: Limits) -> Header:
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise _truncated()
    parts = tuple(_webp_chunks(data, end))
    found = {part.type: part for part in reversed(parts)}
    canvas = None
    if parts[0].type == b"VP8X":
        start = parts[0].start
        width, height = (1 + int.from_bytes(data[i : i + 3], "little") for i in (start + 4, start + 7))
        _check_size(width, height, limits)
        canvas = width, height
        if data[start] & 2 or found.keys() & {b"ANIM", b"ANMF"}:
            raise MultipleFrames("the picture is an animated WebP; give each of its frames as a picture")
    names = [part.type for part in parts]
    if names.count(b"VP8 ") + names.count(b"VP8L") != 1 or b"VP8X" in names[1:]:
        raise UnreadableImage("the picture is damaged: it does not hold one picture")
    lossless = b"VP8L" in found
    frame = found.get(b"VP8L") or found[b"VP8 "]
    start = frame.start
    if lossless:
        if data[start] != 0x2F:
            raise UnreadableImage("the picture's header is damaged: it holds no pixels")
        packed = int.from_bytes(data[start + 1 : start + 5], "little")
        width, height = (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    else:
        if data[start + 3 : start + 6] != b"\x9d\x01\x2a":
            raise UnreadableImage("the picture's header is damaged: it holds no pixels")
        width, height = struct.unpack_from("<HH", data, start + 6)
        width, height = width & 0x3FFF, height & 0x3FFF
    _check_size(width, height, limits)
    if canvas not in (None, (width, height)):
        raise UnreadableImage("the picture is damaged: it announces two different sizes")
    exif, icc = (data[p.start : p.end] if (p := found.get(n)) else b"" for n in (b"EXIF", b"ICCP"))
    return Header(Format.WEBP, width, height, _orientation(exif), lossless=lossless, exif=exif, icc=icc, parts=parts)


def _webp_chunks(data: bytes, end: int) -> Iterator[Part]:
    position = 12
    for _ in range(_MAX_PARTS):
        if position + 8 > end:
            return
        start = position + 8
        part = Part(data[position : position + 4], start, start + int.from_bytes(data[position + 4 : start], "little"))
        if part.end > end:
            raise _truncated()
        yield part
        position = part.end + part.end % 2
    raise UnreadableImage("the picture has too many chunks to be a real one")


# TIFF

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _SAMPLE_FORMAT = 256, 257, 258, 259, 262, 277, 339
_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES, _TILE_WIDTH, _TILE_HEIGHT = 273, 279, 324, 325, 322, 323
_TIFF_ICC = 34675
_BILEVEL, _TIFF_JPEG = (2, 3, 4), 7
_TIFF_COMPRESSIONS = {1, *_BILEVEL, 5, _TIFF_JPEG, 8, 32773, 32946}


def _read_tiff(data: bytes, limits: Limits) -> Header:
    if data[2:4] in (b"+\0", b"\0+"):
        raise UnsupportedFormat("BigTIFF cannot be processed; save the picture as an ordinary TIFF or as PNG")
    file = Exif(data)
    if file.next is None:
        raise _truncated()
    if file.next:
        raise MultipleFrames("the TIFF has more than one page; give each page as a picture")

    def many(tag: int) -> tuple[int, ...]:
        values = file.numbers(tag)
        if not values and tag in file.entries:
            raise ValueError("a tag is damaged")
        return values

    def one(tag: int, otherwise: int) -> int:
        values = many(tag)
        return values[0] if values else otherwise

    width, height = one(_WIDTH, 0), one(_HEIGHT, 0)
    _check_size(width, height, limits)
    compression, samples, color = one(_COMPRESSION, 1), one(_SAMPLES, 1), one(_PHOTOMETRIC, 0)
    bits = many(_BITS) or (1,)
    if (
        compression not in _TIFF_COMPRESSIONS
        or set(bits) not in ({1}, {2}, {4}, {8})
        or not 1 <= samples <= 5
        or color not in (0, 1, 2, 3, 5, 6)
        or set(many(_SAMPLE_FORMAT)) - {1}
        or (compression in _BILEVEL and bits != (1,))
    ):
        raise UnsupportedFormat(
            f"this variant of TIFF (compression {compression}, {bits[0]} bits, {samples} channels, colour model "
            f"{color}) cannot be processed; convert the picture to PNG"
        )
    tiles = _TILES in file.entries
    offsets = many(_TILES if tiles else _STRIPS)
    lengths = many(_TILE_BYTES if tiles else _STRIP_BYTES)
    if not offsets or len(offsets) != len(lengths):
        raise UnreadableImage("the picture's header is damaged: it holds no pixels")
    if any(offset + length > len(data) for offset, length in zip(offsets, lengths, strict=True)):
        raise _truncated()
    if tiles:
        # Tiles may reach past the border, but not make the decoder allocate more than the picture would.
        _check("max_pixels", one(_TILE_WIDTH, 0) * one(_TILE_HEIGHT, 0), limits.max_pixels)
    ratio = 1 if compression == 1 else _TIFF_RATIO
    # Uncompressed YCbCr is stored with subsampled chroma: at least one sample a pixel.
    stored = 1 if color == 6 else samples
    if compression not in _BILEVEL and height * ((width * bits[0] * stored + 7) // 8) > ratio * sum(lengths):
        raise _implausible()
    return Header(
        Format.TIFF,
        width,
        height,
        file.orientation(),
        bits=bits[0],
        lossless=compression != _TIFF_JPEG,
        packed=compression != 1,
        exif=data,
        icc=file.data(_TIFF_ICC),
    )


# AVIF and HEIC

_AVIF_BRANDS = {b"avif"}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis"}
# By quarter turns against the clock, then by mirroring: none, top with bottom, left with right.
_TURNS = ((1, 4, 2), (8, 5, 7), (3, 2, 4), (6, 7, 5))


def _read_heif(data: bytes, limits: Limits) -> Header:
    try:
        found = read_container(data)
    except EOFError as error:
        raise _truncated() from error
    if not found.brands & (_AVIF_BRANDS | _HEIC_BRANDS):
        raise UnsupportedFormat("a video, or a file of an unknown kind, cannot be processed; give a picture")
    if found.sequence:
        raise MultipleFrames("the file is an image sequence or holds a video; give each of its frames as a picture")
    if found.size is None:
        raise UnreadableImage("the picture's header is damaged: it announces no size")
    for width, height in (found.size, *found.sizes):
        _check_size(width, height, limits)
    kind = Format.AVIF if found.brands & _AVIF_BRANDS else Format.HEIC
    if found.cropped and kind is Format.AVIF:
        # The decoder ignores the crop, which would bring back what its author has cut away.
        raise UnsupportedFormat("an AVIF with a crop inside cannot be processed; convert the picture to PNG")
    return Header(kind, *found.size, _TURNS[found.turn][found.mirror], icc=found.icc, cicp=found.cicp)


_READERS: tuple[tuple[re.Pattern[bytes], Callable[[bytes, Limits], Header]], ...] = (
    (re.compile(rb"\xff\xd8\xff"), _read_jpeg),
    (re.compile(re.escape(PNG_MAGIC)), _read_png),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), _read_webp),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), _read_tiff),
    (re.compile(rb"....ftyp", re.DOTALL), _read_heif),
)

_KNOWN = (
    (rb"GIF8[79]a", "a GIF (save the picture, or each of its frames, as PNG)"),
    (rb"BM", "a BMP"),
    (rb"%PDF", "a PDF"),
    (rb"8BPS", "a Photoshop file"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "a JPEG XL"),
    (rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  ", "a JPEG 2000"),
    (rb"\x1aE\xdf\xa3|RIFF....AVI ", "a video"),
    (rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf", "an archive"),
    (rb"\s*<(\?xml|svg|!DOCTYPE|html)", "an SVG or HTML document"),
    (rb"[\t\n\r -~]{16}|[\t\n\r -~]+\Z", "text"),
)


def _name_of(data: bytes) -> str:
    """Say what a file that is no picture seems to be."""
    for pattern, name in _KNOWN:
        if re.match(pattern, data[:64], re.DOTALL | re.IGNORECASE):
            return name
    return "content of an unknown kind"
