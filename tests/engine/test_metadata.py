"""Nothing leaks beside the pixels, and what was asked for is kept."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from faceblur_engine.codec import decode, encode, probe
from faceblur_engine.errors import UnreadableImage
from faceblur_engine.metadata import checked_icc
from faceblur_engine.types import Format, Keep, Limits, Options
from support import pictures
from support.pictures import MARKER

LIMITS = Limits()
EVERYTHING = frozenset(Keep)


def again(data: bytes, **options: Any) -> bytes:
    return encode(decode(data, LIMITS), Options(**options))[0]


def unpacked(data: bytes) -> bytes:
    """The bytes, everything in them that inflates, and the pixels, plane by plane and as they are."""
    found = [data]
    for start in (i for i in range(len(data)) if data[i : i + 1] == b"\x78"):
        try:
            found.append(zlib.decompressobj().decompress(data[start:], 1 << 20))
        except zlib.error:
            continue
    pixels = decode(data, LIMITS).pixels
    return b"|".join((*found, pixels.tobytes(), *(plane.tobytes() for plane in np.moveaxis(pixels, 2, 0))))


LEAKY = pictures.leaky()


@pytest.mark.parametrize("place", LEAKY)
def test_the_marker_is_really_in_the_source(place: str) -> None:
    source = LEAKY[place]
    planes = np.moveaxis(np.asarray(Image.open(io.BytesIO(source))), 2, 0) if "alpha" in place else ()

    assert MARKER[:7] in unpacked(source) + b"|".join(plane.tobytes() for plane in planes)


@pytest.mark.parametrize("place", LEAKY)
@pytest.mark.parametrize("keep", [frozenset({Keep.ICC}), EVERYTHING - {Keep.AUTHOR}], ids=["default", "keep all"])
def test_nothing_leaks_beside_the_pixels(place: str, keep: frozenset[Keep]) -> None:
    for target in (None, Format.PNG, Format.JPEG):
        result = unpacked(again(LEAKY[place], keep=keep, format=target))
        assert MARKER not in result
        assert MARKER[:7] not in result


@pytest.mark.parametrize("place", [place for place in LEAKY if "jpeg" in place])
def test_a_jpeg_result_is_one_picture_and_nothing_behind_it(place: str) -> None:
    result = again(LEAKY[place])

    assert result.count(b"\xff\xd8") == 1
    assert result.count(b"\xff\xd9") == 1
    assert result.endswith(b"\xff\xd9")
    assert segments(result) <= {0xC0, 0xC2, 0xC4, 0xDA, 0xDB, 0xE0, 0xE2, 0xEE}
    if "icc with" not in place:
        assert 0xE2 not in segments(result)


def segments(data: bytes) -> set[int]:
    found, position = set(), 2
    while data[position + 1] != 0xDA:
        found.add(data[position + 1])
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return found


@pytest.mark.parametrize("place", [place for place in LEAKY if place.startswith("png")])
def test_a_png_result_has_only_the_chunks_it_needs(place: str) -> None:
    names = [name for name, _ in pictures.png_chunks(again(LEAKY[place]))]

    assert set(names) <= {b"IHDR", b"iCCP", b"IDAT", b"IEND"}
    assert names[-1] == b"IEND"


def test_a_webp_result_has_only_the_chunks_it_needs() -> None:
    for place in (place for place in LEAKY if place.startswith("webp")):
        result = again(LEAKY[place])
        assert [name for name, _ in pictures.webp_chunks(result)] == [b"VP8 "]
        assert len(result) == 8 + struct.unpack_from("<L", result, 4)[0]


def rich(kind: str, order: str = "<") -> bytes:
    block = pictures.exif(6, order, rich=True)
    return {
        "jpeg": lambda: pictures.jpeg(before=pictures.exif_segment(block)),
        "png": lambda: pictures.png(before=pictures.chunk(b"eXIf", block)),
        "webp": lambda: pictures.webp(exif=block),
        "tiff": lambda: pictures.tiff_picture(exif=block),
        "avif": lambda: pictures.avif(exif=block),
    }[kind]()


GPS = {0: b"\x02\x03\0\0", 1: "N", 2: (48.0, 12.0, 34.56), 3: "E", 4: (11.0, 34.0, 7.89), 29: "2024:05:17"}
TIMES = {0x9003: "2024:05:17 11:22:33", 0x9011: "+02:00", 0x9291: "042"}


@pytest.mark.parametrize("target", [Format.JPEG, Format.PNG, Format.WEBP, Format.TIFF, Format.AVIF])
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff", "avif"])
def test_what_is_asked_for_is_kept(kind: str, target: Format) -> None:
    expected = {
        Keep.AUTHOR: ({0x013B: "Ada Author"}, {}, {}),
        Keep.COPYRIGHT: ({0x8298: "(c) Ada Author"}, {}, {}),
        Keep.CAPTURE_TIME: ({}, TIMES, {}),
        Keep.GPS: ({}, {}, GPS),
    }
    for keep, wanted in expected.items():
        found = exif_of(again(rich(kind), format=target, keep=frozenset({keep})))
        assert found == wanted


@pytest.mark.parametrize("order", ["<", ">"])
def test_everything_can_be_kept_at_once_from_both_byte_orders(order: str) -> None:
    main, times, place = exif_of(again(rich("jpeg", order), keep=EVERYTHING))

    assert main == {0x013B: "Ada Author", 0x8298: "(c) Ada Author"}
    assert times == TIMES
    assert place == GPS


def exif_of(data: bytes) -> tuple[dict[int, Any], dict[int, Any], dict[int, Any]]:
    """The tags of the main, the EXIF and the GPS directory, without those that make up a TIFF's pixels."""
    exif = Image.open(io.BytesIO(data)).getexif()
    pointers = {0x8769, 0x8825}
    own = {tag: value for tag, value in exif.items() if tag > 0x0112 and tag not in {*range(273, 340), *pointers}}
    kept = {tag: value for tag, value in exif.items() if tag in (0x013B, 0x8298)}
    assert set(own) <= set(kept)
    place = {tag: tuple(map(float, v)) if isinstance(v, tuple) else v for tag, v in exif.get_ifd(0x8825).items()}
    return kept, dict(exif.get_ifd(ExifTags.IFD.Exif)), place


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        (0x9003, MARKER + b"\0"),
        (0x9003, b"2024:05:17 11:22:33" + MARKER + b"\0"),
        (0x9011, MARKER + b"\0"),
        (0x9291, MARKER + b"\0"),
    ],
)
def test_free_text_does_not_pass_as_a_time(tag: int, value: bytes) -> None:
    block = pictures.tiff({0x8769: (4, {tag: (2, value)})})

    assert MARKER not in again(pictures.jpeg(before=pictures.exif_segment(block)), keep=EVERYTHING)


@pytest.mark.parametrize("tag", [1, 2, 7, 18, 27, 28, 29, 40])
@pytest.mark.parametrize("kind", [1, 2, 7])
def test_free_text_does_not_pass_as_a_place(tag: int, kind: int) -> None:
    block = pictures.tiff({0x8825: (4, {tag: (kind, MARKER + b"\0")})})

    assert MARKER not in again(pictures.jpeg(before=pictures.exif_segment(block)), keep=EVERYTHING)


def test_what_stands_behind_the_end_of_a_text_is_dropped() -> None:
    block = pictures.tiff({0x013B: (2, b"Ada\0" + MARKER + b"\0"), 0x8298: (2, b"\x01\x02" + MARKER + b"\0")})
    result = again(pictures.jpeg(before=pictures.exif_segment(block)), keep=EVERYTHING)

    assert b"Ada" in result
    assert MARKER not in result


BROKEN_EXIF = {
    "no byte order": b"XX*\0" + bytes(40),
    "too short": b"II*\0",
    "directory outside": b"II*\0" + struct.pack("<L", 5000),
    "directory in the header": b"II*\0" + struct.pack("<L", 2) + bytes(40),
    "cut before the orientation": b"II*\0" + struct.pack("<LH", 8, 9) + pictures.exif(rich=True)[10:40],
}


@pytest.mark.parametrize("damage", BROKEN_EXIF)
def test_exif_too_damaged_to_know_which_side_is_up_is_refused(damage: str) -> None:
    block = BROKEN_EXIF[damage]

    for source in (
        pictures.jpeg(before=pictures.exif_segment(block)),
        pictures.png(before=pictures.chunk(b"eXIf", block)),
        pictures.riff([*pictures.webp_chunks(pictures.webp()), (b"EXIF", block)]),
    ):
        with pytest.raises(UnreadableImage, match="EXIF"):
            probe(source, LIMITS)


@pytest.mark.parametrize(
    "block",
    [
        pictures.exif(0),
        pictures.exif(9),
        pictures.tiff({0x0112: (2, b"6\0")}),
        pictures.tiff({0x0112: (3, (6, 6, 6))}),
        pictures.tiff({}),
        pictures.exif(1)[:-4],
        b"",
    ],
)
def test_an_orientation_that_makes_no_sense_counts_as_upright(block: bytes) -> None:
    assert probe(pictures.jpeg(before=pictures.exif_segment(block)), LIMITS).orientation == 1


def test_damage_behind_the_orientation_does_no_harm() -> None:
    block = bytearray(pictures.exif(6, rich=True)[:120])
    source = pictures.jpeg(before=pictures.exif_segment(bytes(block)))

    assert probe(source, LIMITS).orientation == 6
    assert again(source, keep=EVERYTHING)


def test_a_directory_that_points_at_itself_ends() -> None:
    loop = b"II*\0\x08\0\0\0" + struct.pack("<HHHLLL", 1, 0x8769, 4, 1, 8, 8)

    assert again(pictures.jpeg(before=pictures.exif_segment(loop)), keep=EVERYTHING)


@pytest.mark.parametrize("space", ["RGB", "GRAY", "CMYK"])
def test_a_profile_that_contradicts_itself_is_dropped(space: str) -> None:
    mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}[space]
    profile = pictures.icc(space)

    def damaged(position: int, data: bytes) -> bytes:
        return profile[:position] + data + profile[position + len(data) :]

    assert checked_icc(profile, mode) == profile
    assert checked_icc(profile + MARKER, mode) == profile
    assert not checked_icc(profile[:-4], mode)
    assert not checked_icc(damaged(0, b"\xff"), mode)
    assert not checked_icc(damaged(36, b"xxxx"), mode)
    assert not checked_icc(damaged(128, b"\0\0\xff\xff"), mode)
    assert not checked_icc(damaged(136, b"\0\xff\xff\xff"), mode)
    assert not checked_icc(profile, "LA" if space == "RGB" else "RGB")
    assert not checked_icc(b"", mode)
