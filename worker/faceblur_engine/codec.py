"""Encoded bytes to upright pixels, and pixels back to bytes of which nothing else is left.

A result is always encoded from pixels: no part of the source's file is copied into it but the colour profile and
what `Options.keep` allows, and those are checked or built anew (see `metadata`). What the source did with its
pixels is followed as far as an encoder can: the quantisation tables and chroma subsampling of a JPEG, progressive
or not, lossless or not, bits per channel, compressed or not.

Each decoder sees only content that was recognised as its own and whose header `header.probe` has held against the
limits, and of a PNG or TIFF only the parts that make up the pixels. Libraries are imported where they are first
needed.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import struct
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from .errors import ImageError, InvalidOptions, UnreadableImage, UnsupportedFormat
from .header import PNG_MAGIC, Header, JpegHeader, probe
from .metadata import (
    LONG,
    SHORT,
    UNDEFINED,
    Directory,
    Exif,
    Value,
    checked_icc,
    kept_exif,
    write_directory,
    write_exif,
)
from .types import Format, Keep, Limits, Options

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    Bytes: TypeAlias = NDArray[np.uint8]
    Pixels: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]

__all__ = ["Header", "Picture", "decode", "encode", "probe"]

#: Rows that are converted at a time, so that a conversion needs no second copy of the whole picture.
_ROWS = 64

_WITH_ALPHA = {"LA", "RGBA"}


@dataclass(slots=True)
class Picture:
    """Decoded pixels, and what is needed to encode them as they were.

    Attributes:
        pixels: ``[height, width, channels]``, upright, C-contiguous and writable; 8 or 16 bits per channel. Colours of
            pixels whose alpha is 0 are 0: nobody was to see them.
        mode: What the channels are: L, LA, RGB, RGBA or CMYK (255 is full ink).
        transparent: Some pixel's alpha is not the maximum.
        header: The source's.
        icc: The source's colour profile, checked against the mode, or nothing.
        exif: The source's EXIF block as found, or nothing.
        png_colors: The colour space chunks of a PNG, by type.
    """

    pixels: Pixels
    mode: str
    transparent: bool
    header: Header
    icc: bytes
    exif: bytes
    png_colors: dict[bytes, bytes]

    @property
    def format(self) -> Format:
        """The source's format."""
        return self.header.format

    def views(self) -> list[Bytes]:
        """Pictures to search for faces, ``uint8[height, width, 3]``, RGB.

        One, the colours as stored; for an RGB picture these are the pixels themselves. Where some of it is
        transparent a second one on mid-grey: a face may only show with the transparency, or only without.
        """
        pixels = _eight_bits(self.pixels)
        if self.mode == "CMYK":
            return [_from_pillow(_pillow(pixels, "CMYK").convert("RGB"))]
        views = [_rgb(pixels)]
        if self.transparent:
            views.append(_rgb(_composed(pixels, 128)))
        return views


def decode(data: bytes, limits: Limits) -> Picture:
    """Decode a picture and turn it upright.

    Args:
        data: The encoded picture.
        limits: What is refused from the header alone.

    Raises:
        ImageError: As `probe`; and UnreadableImage for whatever a decoder refuses.
    """
    header = probe(data, limits)
    try:
        found = _DECODERS[header.format](data, header)
    except (ImageError, ImportError):
        raise
    except Exception as error:
        raise UnreadableImage(f"the {header.format.upper()} data is damaged and cannot be decoded") from error
    pixels = found.pixels if found.pixels.ndim == 3 else found.pixels[..., None]
    if header.format is not Format.HEIC:  # whose decoder has turned and cropped the picture already
        if pixels.shape[:2] != (header.height, header.width):
            raise UnreadableImage("the picture is damaged: it is not of the size that its header announces")
        pixels = _upright(pixels, header.orientation)
    pixels = np.require(pixels, requirements=("C", "W"))
    transparent = found.mode in _WITH_ALPHA and _clear_hidden(pixels)
    return Picture(
        pixels=pixels,
        mode=found.mode,
        transparent=transparent,
        header=header,
        icc=checked_icc(header.icc, found.mode),
        exif=header.exif or found.exif,
        png_colors=_png_colors(data, header),
    )


def encode(picture: Picture, options: Options) -> tuple[bytes, Format]:
    """Encode the picture's pixels as they are now.

    Args:
        picture: As decoded, its pixels changed in place.
        options: `format`, `quality`, `subsampling` and `keep` are followed. Transparent pixels are put on white where
            the format has no transparency; a CMYK picture becomes sRGB where the format has no CMYK.

    Returns:
        The encoded picture, and its format.

    Raises:
        InvalidOptions: The format asked for cannot hold a picture of this size.
    """
    target = options.format or (Format.JPEG if picture.format is Format.HEIC else picture.format)
    side = _LARGEST.get(target, 2**31)
    if max(picture.pixels.shape[:2]) > side:
        raise InvalidOptions(f"{target.upper()} holds at most {side} pixels a side, the picture has more; choose png")
    return _ENCODERS[target](_fit(picture, target, options), picture.header, options), target


# Pixels


class _Decoded(NamedTuple):
    pixels: Any
    mode: str
    exif: bytes = b""


class _Canvas(NamedTuple):
    """Pixels in a mode that the target holds, and what goes with them."""

    pixels: Pixels
    mode: str
    icc: bytes
    exif: Directory
    cicp: tuple[int, int] | None
    png_colors: dict[bytes, bytes]


def _pillow(pixels: Pixels, mode: str) -> Image.Image:
    from PIL import Image

    height, width = pixels.shape[:2]
    return Image.frombuffer(mode, (width, height), pixels, "raw", mode, 0, 1)


def _from_pillow(image: Image.Image, mode: str | None = None) -> Bytes:
    """Copy a Pillow image into an array, converting it to the mode on the way."""
    mode = mode or image.mode
    width, height = image.size
    pixels = np.empty((height, width, len(mode)), np.uint8)
    for top in range(0, height, _ROWS):
        rows = image.crop((0, top, width, min(top + _ROWS, height)))
        pixels[top : top + _ROWS] = np.asarray(rows if rows.mode == mode else rows.convert(mode)).reshape(
            -1, width, len(mode)
        )
    return pixels


#: By orientation: how to flip (OpenCV's codes) what was transposed first if the orientation is 5 or more.
_FLIPS = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    if orientation == 1:
        return pixels
    import cv2

    turned: Any = cv2.transpose(pixels) if orientation >= 5 else pixels
    if orientation in _FLIPS:
        turned = cv2.flip(turned, _FLIPS[orientation])
    channels = pixels.shape[2]
    return turned.reshape(*turned.shape[:2], channels)  # type: ignore[no-any-return]  # OpenCV drops an axis of 1


def _clear_hidden(pixels: Pixels) -> bool:
    """Set the colours of invisible pixels to 0, and say whether there is any transparency."""
    alpha = pixels[..., -1]
    if alpha.min() == np.iinfo(pixels.dtype).max:
        return False
    pixels[alpha == 0] = 0
    return True


def _eight_bits(pixels: Pixels) -> Bytes:
    if pixels.dtype == np.uint8:
        return pixels  # type: ignore[return-value]
    return np.ascontiguousarray(pixels.view(np.uint8)[..., (1 if sys.byteorder == "little" else 0) :: 2])


def _rgb(pixels: Bytes) -> Bytes:
    """8 bits of L, LA, RGB or RGBA as RGB, the alpha left out."""
    if pixels.shape[2] == 3:
        return pixels
    import cv2

    if pixels.shape[2] == 4:
        return cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB)  # type: ignore[return-value]
    return cv2.cvtColor(np.ascontiguousarray(pixels[..., :1]), cv2.COLOR_GRAY2RGB)  # type: ignore[return-value]


def _composed(pixels: Bytes, backdrop: int) -> Bytes:
    """8 bits of LA or RGBA on a grey backdrop, without the alpha."""
    result = np.empty((*pixels.shape[:2], pixels.shape[2] - 1), np.uint8)
    for top in range(0, len(pixels), _ROWS):
        rows = pixels[top : top + _ROWS].astype(np.uint16)
        alpha = rows[..., -1:]
        result[top : top + _ROWS] = (rows[..., :-1] * alpha + backdrop * (255 - alpha) + 127) // 255
    return result


def _to_srgb(pixels: Bytes, mode: str, icc: bytes) -> Bytes:
    """L or CMYK as sRGB, by the profile if there is one that works."""
    image = _pillow(pixels, mode)
    if icc:
        from PIL import ImageCms

        with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError):
            turned = ImageCms.profileToProfile(image, BytesIO(icc), ImageCms.createProfile("sRGB"), outputMode="RGB")
            if turned is not None:
                return _from_pillow(turned)
    return _from_pillow(image, "RGB")


def _fit(picture: Picture, target: Format, options: Options) -> _Canvas:
    """Bring the picture into a mode that the target holds, and choose what goes with it."""
    pixels, mode, icc = picture.pixels, picture.mode, picture.icc
    colors = Keep.ICC in options.keep
    if target is not Format.PNG:
        pixels = _eight_bits(pixels)
    if mode in _WITH_ALPHA and target is Format.JPEG:
        pixels, mode = _composed(_eight_bits(pixels), 255), mode[:-1]
    if mode not in _MODES[target]:
        plain, alpha = ("L", _eight_bits(pixels)[..., 1:]) if mode == "LA" else (mode, None)
        pixels = _to_srgb(np.ascontiguousarray(_eight_bits(pixels)[..., : len(plain)]), plain, icc)
        mode, icc = "RGB", b""
        if alpha is not None:
            pixels, mode = np.concatenate((pixels, alpha), axis=2), "RGBA"
    return _Canvas(
        pixels,
        mode,
        icc if colors else b"",
        kept_exif(picture.exif, options.keep),
        picture.header.cicp if colors and mode == picture.mode else None,
        picture.png_colors if colors and mode == picture.mode else {},
    )


# Decoders: bytes and header to pixels as stored


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep Pillow from warning of sizes, which our limits have decided, and of metadata, which it is not asked for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _expect(size: tuple[int, int], header: Header, announced: tuple[int, int] | None = None) -> None:
    """Refuse, before it allocates, what a decoder has understood differently from `probe`."""
    if size != (announced or (header.width, header.height)):
        raise UnreadableImage("the picture is damaged: it is not of the size that its header announces")


# What a strict decoder also refuses, though every pixel can be decoded: bytes that nothing refers to (some cameras
# leave them before the end), unknown versions, and chroma subsampling that it just does not know.
_HARMLESS = re.compile("extraneous bytes|subsampling level|JFIF revision|Adobe color transform|Invalid SOS")


def _decode_jpeg(data: bytes, header: Header) -> _Decoded:
    from simplejpeg import decode_jpeg, decode_jpeg_header  # type: ignore[attr-defined]  # its __all__ is malformed

    assert header.jpeg is not None
    mode = {"grey": "L", "CMYK": "CMYK", "YCCK": "CMYK"}.get(header.jpeg.color, "RGB")
    try:
        height, width = map(int, decode_jpeg_header(data)[:2])
        _expect((width, height), header)
        pixels = decode_jpeg(data, "GRAY" if mode == "L" else mode)
    except ValueError as error:
        if not _HARMLESS.search(str(error)):
            raise UnreadableImage("the JPEG data is damaged or cut off") from error
        from PIL.JpegImagePlugin import JpegImageFile

        # Refuses what is cut off, but decodes what it can of damaged data: only for what is not damaged.
        with _silence(), JpegImageFile(BytesIO(data)) as image:
            _expect(image.size, header)
            pixels = _from_pillow(image)
        if mode == "CMYK":
            np.invert(pixels, out=pixels)  # Pillow takes every CMYK for Adobe's
    if mode == "CMYK" and header.jpeg.adobe:
        np.invert(pixels, out=pixels)
    return _Decoded(pixels, mode)


def _decode_png(data: bytes, header: Header) -> _Decoded:
    for part in header.parts:
        if part.type[:1].isupper() or part.type in (b"tRNS", b"iCCP", b"eXIf"):
            (crc,) = struct.unpack_from(">L", data, part.end)
            if zlib.crc32(memoryview(data)[part.start - 4 : part.end]) != crc:
                raise UnreadableImage("the PNG data is damaged: a checksum is wrong")
    # Only what makes up the pixels: the decoder never sees texts and profiles, which can be bombs.
    pixel_parts = [part for part in header.parts if part.type in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")]
    png = b"".join((PNG_MAGIC, *(data[part.start - 8 : part.end + 4] for part in pixel_parts)))
    if header.bits == 16:
        return _decode_deep_png(data, header, png)
    from PIL.PngImagePlugin import PngImageFile

    with PngImageFile(BytesIO(png)) as image:
        _expect(image.size, header)
        image.load()
        if "transparency" in image.info:
            mode = "LA" if image.mode in ("1", "L") else "RGBA"
        else:
            mode = {"1": "L", "P": "RGB"}.get(image.mode, image.mode)
        return _Decoded(_from_pillow(image, mode), mode)


def _decode_deep_png(data: bytes, header: Header, png: bytes) -> _Decoded:
    """Decode 16 bits per channel, which Pillow cannot. OpenCV returns grey with alpha as RGBA."""
    # OpenCV prints its errors: look for them first.
    unpacker = zlib.decompressobj()
    for part in header.parts:
        packed = data[part.start : part.end] if part.type == b"IDAT" else b""
        while packed and not unpacker.eof:
            unpacker.decompress(packed, 1 << 20)
            packed = unpacker.unconsumed_tail
    if not unpacker.eof:
        raise UnreadableImage("the PNG data is cut off")
    import cv2

    pixels: Any = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        raise UnreadableImage("the PNG data is damaged")
    key = next((part for part in header.parts if part.type == b"tRNS"), None)
    if pixels.ndim == 3 or key is None:
        return _from_opencv(pixels)
    shown = pixels != int.from_bytes(data[key.start : key.end], "big")
    return _Decoded(np.dstack((pixels, pixels, pixels, shown * np.uint16(0xFFFF))), "RGBA")


def _from_opencv(pixels: Any) -> _Decoded:
    import cv2

    if pixels.ndim == 2:
        return _Decoded(pixels, "L")
    if pixels.shape[2] == 3:
        return _Decoded(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels), "RGB")
    return _Decoded(cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA, dst=pixels), "RGBA")


def _decode_webp(data: bytes, header: Header) -> _Decoded:
    import cv2

    # Pillow's decoder keeps four copies of the picture.
    pixels: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint8 or pixels.ndim != 3:
        raise UnreadableImage("the WebP data is damaged or cut off")
    return _from_opencv(pixels)


#: What makes up the pixels of a TIFF: size, layout, compression, colours and where the data lies.
_TIFF_TAGS = (
    *(256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325),
    *(332, 338, 339, 347, 529, 530, 531, 532),
)


def _decode_tiff(data: bytes, header: Header) -> _Decoded:
    from PIL.TiffImagePlugin import TiffImageFile

    # The decoder reads every tag that it finds. It gets a directory of those that it needs, behind the same data.
    # Its byte order may be another than the file's, since the pixels are single bytes.
    file = Exif(data)
    directory = {tag: value for tag in _TIFF_TAGS if (value := file.value(tag))}
    if len(directory) != len(file.entries.keys() & {*_TIFF_TAGS}):
        raise UnreadableImage("the TIFF's directory is damaged or cut off")
    start = len(data) + len(data) % 2
    tiff = b"".join(
        (struct.pack("<4sL", b"II*\0", start), data[8:], bytes(len(data) % 2), write_directory(directory, start))
    )
    with _silence(), TiffImageFile(BytesIO(tiff)) as image:
        _expect(image.size, header)
        image.load()
        mode = {"1": "L", "P": "RGB", "PA": "RGBA", "RGBX": "RGB", "RGBa": "RGBA", "YCbCr": "RGB"}.get(
            image.mode, image.mode
        )
        if mode not in _MODES[Format.TIFF]:
            raise UnsupportedFormat("this variant of TIFF cannot be processed; convert the picture to PNG")
        return _Decoded(_from_pillow(image, mode), mode)


def _decode_avif(data: bytes, header: Header) -> _Decoded:
    from PIL.AvifImagePlugin import AvifImageFile

    with _silence(), AvifImageFile(BytesIO(data)) as image:
        _expect(image.size, header)
        image.load()
        return _Decoded(_from_pillow(image), image.mode, image.info.get("exif", b""))


def _decode_heic(data: bytes, header: Header) -> _Decoded:
    try:
        import pi_heif
    except ImportError as error:
        raise UnsupportedFormat(
            "HEIC pictures need an optional decoder: install faceblur with its extra `heic`, or convert to JPEG"
        ) from error
    image = pi_heif.open_heif(BytesIO(data))  # type: ignore[attr-defined]
    if image.mode not in _MODES[Format.TIFF]:
        raise UnsupportedFormat("this variant of HEIC cannot be processed; convert the picture to JPEG or PNG")
    _expect(image.size, header, header.upright)
    return _Decoded(np.asarray(image), image.mode, image.info.get("exif") or b"")


def _png_colors(data: bytes, header: Header) -> dict[bytes, bytes]:
    sizes = {b"sRGB": 1, b"gAMA": 4, b"cHRM": 32}
    if header.format is not Format.PNG:
        return {}
    return {
        part.type: data[part.start : part.end] for part in header.parts if sizes.get(part.type) == part.end - part.start
    }


_DECODERS: dict[Format, Callable[[bytes, Header], _Decoded]] = {
    Format.JPEG: _decode_jpeg,
    Format.PNG: _decode_png,
    Format.WEBP: _decode_webp,
    Format.TIFF: _decode_tiff,
    Format.AVIF: _decode_avif,
    Format.HEIC: _decode_heic,
}


# Encoders: pixels in a mode that the format holds, to bytes

_DEFAULT_QUALITY = 90

_MODES = {
    Format.JPEG: {"L", "RGB", "CMYK"},
    Format.PNG: {"L", "LA", "RGB", "RGBA"},
    Format.WEBP: {"RGB", "RGBA"},
    Format.TIFF: {"L", "LA", "RGB", "RGBA", "CMYK"},
    Format.AVIF: {"L", "RGB", "RGBA"},
}
_LARGEST = {Format.JPEG: 65_500, Format.WEBP: 16_383, Format.AVIF: 65_536}

#: Where the coefficient of each row and column stands in a JPEG's quantisation table.
_ZIGZAG = sorted(range(64), key=lambda i: (i // 8 + i % 8, i // 8 if (i // 8 + i % 8) % 2 else i % 8))
_ROW_BY_ROW = [_ZIGZAG.index(i) for i in range(64)]


def _save(canvas: _Canvas, format_name: str, **settings: Any) -> bytes:
    if canvas.icc:
        settings["icc_profile"] = canvas.icc
    if canvas.exif:
        settings["exif"] = (b"Exif\0\0" if format_name == "JPEG" else b"") + write_exif(canvas.exif)
    with _memory_file() as file:
        _pillow(canvas.pixels, canvas.mode).save(file, format_name, **settings)
        file.seek(0)
        return file.read()


def _memory_file() -> IO[bytes]:
    """A file in memory; where the system has such, a real one: Pillow keeps the interpreter locked for any other."""
    with contextlib.suppress(AttributeError, OSError):
        return os.fdopen(os.memfd_create("picture", os.MFD_CLOEXEC), "w+b", buffering=0)
    return BytesIO()


def _encode_jpeg(canvas: _Canvas, header: Header, options: Options) -> bytes:
    source = header.jpeg
    tables = _tables(source) if source and options.quality is None else []
    quality = _standard_quality(tables, canvas.mode) if tables else options.quality or _DEFAULT_QUALITY
    progressive = bool(source and source.progressive)
    own = source.subsampling if source else "4:4:4" if header.lossless else "4:2:0"
    subsampling = options.subsampling or own
    keep_rgb = bool(tables and source and source.color == "RGB" and subsampling == "4:4:4")
    if quality and not keep_rgb and canvas.mode in ("L", "RGB"):
        return _opencv_jpeg(canvas, quality, subsampling, progressive=progressive)
    from PIL import JpegImagePlugin  # noqa: F401  with it loaded, saving looks for no other plug-in

    settings: dict[str, Any] = {"qtables": tables} if tables else {"quality": quality}
    if progressive:
        settings["progressive"] = True
    if canvas.mode == "RGB":
        settings |= {"subsampling": subsampling, "keep_rgb": keep_rgb}
    if canvas.mode != "CMYK" or source is None or source.adobe:
        return _save_jpeg(canvas, settings)
    # Without Adobe's marker the source was not inverted, and its readers go by that.
    encoded = _save_jpeg(canvas._replace(pixels=np.invert(canvas.pixels)), settings)
    marker = encoded.index(b"\xff\xee\x00\x0eAdobe")
    return encoded[:marker] + encoded[marker + 16 :]


_JFIF_END = 20


def _opencv_jpeg(canvas: _Canvas, quality: int, subsampling: str, *, progressive: bool) -> bytes:
    """Encode L or RGB with the standard's tables: the same bytes as Pillow's, without a copy of four bytes a pixel."""
    import cv2

    settings = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)]
    pixels = canvas.pixels
    if canvas.mode == "RGB":
        factors = subsampling.replace(":", "")
        settings += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{factors}")]
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)  # type: ignore[assignment]
    jpeg = memoryview(cv2.imencode(".jpg", pixels, settings)[1])  # type: ignore[arg-type]
    segments = []
    step = 0xFFFF - 2 - 14
    parts = [canvas.icc[start : start + step] for start in range(0, len(canvas.icc), step)]
    for number, part in enumerate(parts, 1):
        segments.append((0xE2, b"ICC_PROFILE\0" + bytes((number, len(parts))) + part))
    if canvas.exif:
        segments.append((0xE1, b"Exif\0\0" + write_exif(canvas.exif)))
    added = [struct.pack(">BBH", 0xFF, marker, 2 + len(data)) + data for marker, data in segments]
    return b"".join((jpeg[:_JFIF_END], *added, jpeg[_JFIF_END:]))


# Tables K.1 and K.2 of ITU-T T.81, row by row.
_LUMA = bytes.fromhex(
    "100b0a101828333d0c0c0e131a3a3c370e0d1018283945380e11161d3357503e"
    "12162538446d674d182337405168715c31404e5767797865485c5f6270646763"
)
_CHROMA = bytes.fromhex("1112182f6363636312151a4263636363181a3863636363632f42636363636363") + b"\x63" * 32


@functools.cache
def _standard_qualities() -> dict[tuple[bytes, ...], int]:
    """The quality of libjpeg's scale for the tables of luminance and chroma that it stands for, both row by row."""
    qualities: dict[tuple[bytes, ...], int] = {}
    for quality in range(1, 101):
        percent = 5000 // quality if quality < 50 else 200 - 2 * quality
        scaled = (bytes(min(max((v * percent + 50) // 100, 1), 255) for v in table) for table in (_LUMA, _CHROMA))
        qualities[tuple(scaled)] = quality
    return qualities


def _standard_quality(tables: list[list[int]], mode: str) -> int | None:
    """The quality of libjpeg's scale that stands for these tables, None if they are of somebody's own."""
    if len(tables) > 2 or max(map(max, tables)) > 255:
        return None
    luma, chroma = bytes(tables[0]), bytes(tables[-1])
    if mode != "L":
        return _standard_qualities().get((luma, chroma))
    return next((quality for (own, _), quality in _standard_qualities().items() if own == luma), None)


def _save_jpeg(canvas: _Canvas, settings: dict[str, Any]) -> bytes:
    try:
        return _save(canvas, "JPEG", **settings)
    except OSError:
        # Pillow gives a progressive encoder too little room for noise of the highest quality.
        return _save(canvas, "JPEG", **{**settings, "progressive": False})


def _tables(source: JpegHeader) -> list[list[int]]:
    """The source's quantisation tables row by row, none if one lacks."""
    # YCCK is written as CMYK: all four inks get the table of the luminance, not the coarser one of the chroma.
    raw = source.tables[:1] if source.color == "YCCK" else source.tables
    if any(len(table) not in (64, 128) for table in raw):
        return []
    zigzags = [table if len(table) == 64 else struct.unpack(">64H", table) for table in raw]
    return [[max(1, zigzag[i]) for i in _ROW_BY_ROW] for zigzag in zigzags]


def _encode_png(canvas: _Canvas, header: Header, options: Options) -> bytes:
    if canvas.mode == "LA":
        from PIL import PngImagePlugin  # noqa: F401

        png = _save(canvas._replace(icc=b"", exif={}), "PNG", compress_level=2)
    else:
        png = _opencv_png(canvas.pixels, header)
    chunks = []
    if canvas.cicp and max(canvas.cicp) < 256:
        chunks.append((b"cICP", bytes((*canvas.cicp, 0, 1))))
    if canvas.icc:
        chunks.append((b"iCCP", b"icc\0\0" + zlib.compress(canvas.icc)))
    else:
        chunks += canvas.png_colors.items()
    if canvas.exif:
        chunks.append((b"eXIf", write_exif(canvas.exif)))
    added = [
        struct.pack(">L", len(data)) + name + data + struct.pack(">L", zlib.crc32(name + data)) for name, data in chunks
    ]
    return b"".join((png[:_PNG_IHDR_END], *added, png[_PNG_IHDR_END:]))


_PNG_IHDR_END = 33


def _opencv_png(pixels: Pixels, header: Header) -> bytes:
    """Encode L, RGB or RGBA of 8 or 16 bits.

    Noise, such as of a photograph, hardly packs better by searching for repetitions, which takes twice as long. A
    drawing or a screenshot does, and is known by how well the source was packed.
    """
    import cv2

    codes = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    stored = sum(part.end - part.start for part in header.parts if part.type == b"IDAT")
    drawing = header.format is Format.PNG and stored < 0.4 * pixels.nbytes
    code = codes.get(pixels.shape[2])
    _, png = cv2.imencode(
        ".png",
        pixels if code is None else cv2.cvtColor(pixels, code),
        [
            *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_PAETH),
            *(cv2.IMWRITE_PNG_COMPRESSION, 2),
            *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_DEFAULT if drawing else cv2.IMWRITE_PNG_STRATEGY_RLE),
        ],
    )
    return png.tobytes()


def _encode_webp(canvas: _Canvas, header: Header, options: Options) -> bytes:
    from PIL import WebPImagePlugin  # noqa: F401

    if options.quality is None and header.format is Format.WEBP and header.lossless:
        return _save(canvas, "WEBP", lossless=True, quality=50, method=1)
    return _save(canvas, "WEBP", quality=options.quality or _DEFAULT_QUALITY, method=2)


def _encode_tiff(canvas: _Canvas, header: Header, options: Options) -> bytes:
    """Write one strip of 8 bits, little-endian, deflated unless the source was a TIFF that was not compressed."""
    height, width, channels = canvas.pixels.shape
    packed = header.packed
    if packed:
        # Neighbours' differences pack better than the values themselves.
        differences = canvas.pixels.copy()
        differences[:, 1:] -= canvas.pixels[:, :-1]
        data = zlib.compress(differences.data, 2)
    else:
        data = canvas.pixels.tobytes()

    def shorts(*values: int) -> Value:
        return Value(SHORT, len(values), struct.pack(f"<{len(values)}H", *values))

    def long(value: int) -> Value:
        return Value(LONG, 1, struct.pack("<L", value))

    directory: dict[int, Value | Directory] = {
        256: long(width),
        257: long(height),
        258: shorts(*[8] * channels),
        259: shorts(8 if packed else 1),
        262: shorts({"L": 1, "LA": 1, "CMYK": 5}.get(canvas.mode, 2)),
        273: long(8),
        277: shorts(channels),
        278: long(height),
        279: long(len(data)),
        284: shorts(1),
        **canvas.exif,
    }
    if packed:
        directory[317] = shorts(2)
    if canvas.mode in _WITH_ALPHA:
        directory[338] = shorts(2)
    if canvas.icc:
        directory[34675] = Value(UNDEFINED, len(canvas.icc), canvas.icc)
    start = 8 + len(data) + len(data) % 2
    return b"".join(
        (struct.pack("<4sL", b"II*\0", start), data, bytes(len(data) % 2), write_directory(directory, start))
    )


def _encode_avif(canvas: _Canvas, header: Header, options: Options) -> bytes:
    from PIL import AvifImagePlugin  # noqa: F401

    avif = _save(canvas, "AVIF", quality=options.quality or _DEFAULT_QUALITY, speed=9, max_threads=1)
    colors = avif.find(b"colrnclx")
    if not canvas.cicp or colors < 0:
        return avif
    return avif[: colors + 8] + struct.pack(">HH", *canvas.cicp) + avif[colors + 12 :]


_ENCODERS: dict[Format, Callable[[_Canvas, Header, Options], bytes]] = {
    Format.JPEG: _encode_jpeg,
    Format.PNG: _encode_png,
    Format.WEBP: _encode_webp,
    Format.TIFF: _encode_tiff,
    Format.AVIF: _encode_avif,
}
