"""What is refused from the header alone, and how it is said."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

import faceblur_engine.codec
from faceblur_engine.codec import decode, probe
from faceblur_engine.errors import (
    EmptyImage,
    ImageError,
    LimitExceeded,
    MultipleFrames,
    UnreadableImage,
    UnsupportedFormat,
)
from faceblur_engine.heif import read_container
from faceblur_engine.types import Format, Limits
from support import bad_pictures, pictures
from support.bad_pictures import Build

LIMITS = Limits()
CORPUS = pictures.corpus()


@pytest.fixture
def no_decoder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails a test whose picture reaches a decoder, or for which more than 64 MB of Python memory is taken."""

    def fail(*_: object) -> None:
        pytest.fail("a decoder was called")

    for kind in Format:
        monkeypatch.setitem(faceblur_engine.codec._DECODERS, kind, fail)
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 1024 * 1024


@pytest.mark.parametrize("name", CORPUS)
def test_the_header_gives_size_format_and_orientation(name: str) -> None:
    header = probe(CORPUS[name], LIMITS)

    assert header.format == name.split()[0]
    assert (header.width, header.height) == (64, 48)
    assert header.upright == decode(CORPUS[name], LIMITS).pixels.shape[1::-1]


@pytest.mark.parametrize("name", CORPUS)
@pytest.mark.usefixtures("no_decoder")
def test_every_limit_holds_for_every_format(name: str) -> None:
    data = CORPUS[name]
    for limits, limit, value, allowed in (
        (replace(LIMITS, max_bytes=len(data) - 1), "max_bytes", len(data), len(data) - 1),
        (replace(LIMITS, max_width=63), "max_width", 64, 63),
        (replace(LIMITS, max_height=47), "max_height", 48, 47),
        (replace(LIMITS, max_pixels=64 * 48 - 1), "max_pixels", 64 * 48, 64 * 48 - 1),
    ):
        with pytest.raises(LimitExceeded, match=limit) as caught:
            decode(data, limits)
        # A HEIC is coded in whole blocks, which are held against the limits too.
        assert caught.value.limit == limit
        assert caught.value.value == value or name == "heic"
        assert caught.value.allowed == allowed
    probe(data, Limits(max_bytes=len(data), max_width=64, max_height=64, max_pixels=64 * 64))


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        ("max_bytes", "has 9 bytes"),
        ("max_width", "is 9 pixels wide"),
        ("max_height", "is 9 pixels high"),
        ("max_pixels", "has 9 pixels"),
        ("max_scans", "has 9 scans"),
    ],
)
def test_a_limit_says_in_words_what_the_picture_has(limit: str, says: str) -> None:
    assert str(LimitExceeded(limit, 9, 8)) == f"the picture {says}, more than the limit {limit}=8"


@pytest.mark.usefixtures("no_decoder")
def test_a_picture_of_50000_by_50000_in_3_kb_is_refused() -> None:
    bomb = pictures.png_bomb(50_000, 50_000)

    assert len(bomb) < 3200
    with pytest.raises(LimitExceeded, match=r"is 50000 pixels wide, more than the limit max_width=20000"):
        decode(bomb, LIMITS)


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("count", [101, 10_000])
def test_too_many_scans_are_refused(count: int) -> None:
    with pytest.raises(LimitExceeded) as caught:
        decode(pictures.many_scans(count), LIMITS)

    assert caught.value.limit == "max_scans"
    assert count < caught.value.value < count + 20


def test_scans_are_counted_where_entropy_coded_data_hides_markers() -> None:
    source = pictures.jpeg(progressive=True)
    scans = probe(source, LIMITS).scans

    assert scans == source.count(b"\xff\xda")
    # Neither a comment between the scans nor what follows the picture counts.
    comment = pictures.segment(0xFE, b"\xff\xda" * 200)
    last = source.rindex(b"\xff\xda")
    assert probe(source[:last] + comment + source[last:] + b"\xff\xda" * 200, LIMITS).scans == scans


@pytest.mark.parametrize(("content", "says"), bad_pictures.NO_PICTURES)
@pytest.mark.usefixtures("no_decoder")
def test_what_is_no_picture_is_named(content: bytes, says: str) -> None:
    with pytest.raises(UnsupportedFormat, match=says):
        decode(content, LIMITS)


def test_no_bytes_are_no_picture() -> None:
    with pytest.raises(EmptyImage):
        probe(b"", LIMITS)


@pytest.mark.parametrize("build", bad_pictures.SEVERAL_FRAMES.values(), ids=bad_pictures.SEVERAL_FRAMES)
@pytest.mark.usefixtures("no_decoder")
def test_more_than_one_frame_is_refused(build: Build) -> None:
    with pytest.raises(MultipleFrames):
        decode(build(), LIMITS)


@pytest.mark.usefixtures("no_decoder")
def test_a_video_hidden_beside_a_picture_is_refused() -> None:
    with pytest.raises(MultipleFrames, match="video"):
        decode(CORPUS["avif"] + struct.pack(">L4s", 8, b"moov"), LIMITS)


@pytest.mark.usefixtures("no_decoder")
def test_a_tiff_whose_directories_form_a_loop_ends() -> None:
    source = bytearray(CORPUS["tiff"])
    (start,) = struct.unpack_from("<L", source, 4)
    (count,) = struct.unpack_from("<H", source, start)
    struct.pack_into("<L", source, start + 2 + 12 * count, start)

    with pytest.raises(MultipleFrames):
        decode(bytes(source), LIMITS)


# Lies. Limits are wide here, so that only the lie is a reason to refuse.

WIDE = Limits(max_width=10**6, max_height=10**6, max_pixels=10**12)


@pytest.mark.parametrize("build", bad_pictures.LYING.values(), ids=bad_pictures.LYING)
@pytest.mark.usefixtures("no_decoder")
def test_a_header_that_announces_more_than_the_file_can_hold_is_refused(build: Build) -> None:
    with pytest.raises(UnreadableImage):
        decode(build(), WIDE)


def test_the_sizes_inside_the_compressed_data_are_held_against_the_limits_too() -> None:
    for name, coded in (("avif", (64, 48)), ("avif alpha", (64, 48)), ("heic", (64, 64))):
        assert coded in read_container(CORPUS[name]).sizes
    large = pictures.avif(np.zeros((300, 400, 3), np.uint8))
    box = large.index(b"ispe") + 8
    lying = large[:box] + struct.pack(">LL", 64, 48) + large[box + 8 :]

    assert probe(lying, LIMITS).width == 64
    with pytest.raises(LimitExceeded, match="is 400 pixels wide"):
        probe(lying, replace(LIMITS, max_width=100))


@pytest.mark.parametrize("build", bad_pictures.TWO_HEADERS.values(), ids=bad_pictures.TWO_HEADERS)
def test_of_two_headers_a_decoder_cannot_follow_the_other(build: Build) -> None:
    source = build()
    tracemalloc.start()
    with pytest.raises((UnreadableImage, LimitExceeded)):
        decode(source, LIMITS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 1024 * 1024


@pytest.mark.parametrize("name", [b"zTXt", b"iTXt", b"iCCP"])
def test_a_compressed_bomb_beside_the_pixels_does_no_harm(name: bytes) -> None:
    packer = zlib.compressobj(9)
    zeros = bytes(1 << 20)
    packed = b"".join(packer.compress(zeros) for _ in range(256)) + packer.flush()
    head = b"x\0\1\0\0\0" if name == b"iTXt" else b"x\0\0"
    source = pictures.png(before=pictures.chunk(name, head + packed))

    tracemalloc.start()
    picture = decode(source, LIMITS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert np.array_equal(picture.pixels, pictures.photo())
    assert not picture.icc
    assert peak < 16 * 1024 * 1024


@pytest.mark.parametrize("build", bad_pictures.COUNTLESS_PARTS.values(), ids=bad_pictures.COUNTLESS_PARTS)
@pytest.mark.usefixtures("no_decoder")
def test_a_file_of_countless_parts_is_refused(build: Build) -> None:
    with pytest.raises(UnreadableImage):
        decode(build(), LIMITS)


@pytest.mark.parametrize(("says", "build"), bad_pictures.UNUSUAL_JPEGS.items())
@pytest.mark.usefixtures("no_decoder")
def test_a_kind_of_jpeg_that_is_not_decoded_is_named(says: str, build: Build) -> None:
    with pytest.raises(UnsupportedFormat, match=says):
        decode(build(), LIMITS)


def test_a_tiff_of_16_bits_is_refused_with_a_way_out() -> None:
    with pytest.raises(UnsupportedFormat, match=r"16 bits.*PNG"):
        decode(bad_pictures.deep_tiff(), LIMITS)


def test_heic_without_its_decoder_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pi_heif", None)

    with pytest.raises(UnsupportedFormat, match="`heic`"):
        decode(CORPUS["heic"], LIMITS)


def test_whatever_a_decoder_raises_is_an_unreadable_image(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (MemoryError(), RuntimeError("x"), ValueError("x"), OSError("x"), RecursionError()):

        def fail(*_: object, error: BaseException = error) -> None:
            raise error

        monkeypatch.setitem(faceblur_engine.codec._DECODERS, Format.PNG, fail)
        with pytest.raises(UnreadableImage) as caught:
            decode(CORPUS["png rgb"], LIMITS)
        assert caught.value.__cause__ is error


def test_messages_are_short_and_hold_no_content() -> None:
    for name, data in CORPUS.items():
        for cut in (10, 40, len(data) // 2):
            with pytest.raises(ImageError) as caught:
                decode(data[:cut], LIMITS)
            assert len(str(caught.value)) < 200, name
            assert pictures.MARKER.decode() not in str(caught.value)
