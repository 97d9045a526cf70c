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
from support import pictures

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


@pytest.mark.usefixtures("no_decoder")
def test_a_picture_of_50000_by_50000_in_3_kb_is_refused() -> None:
    bomb = pictures.png_bomb(50_000, 50_000)

    assert len(bomb) < 3200
    with pytest.raises(LimitExceeded, match=r"width is 50000, more than the limit max_width=20000"):
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


@pytest.mark.parametrize(
    ("content", "says"),
    [
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
    ],
)
@pytest.mark.usefixtures("no_decoder")
def test_what_is_no_picture_is_named(content: bytes, says: str) -> None:
    with pytest.raises(UnsupportedFormat, match=says):
        decode(content, LIMITS)


def test_no_bytes_are_no_picture() -> None:
    with pytest.raises(EmptyImage):
        probe(b"", LIMITS)


def animated_webp() -> bytes:
    frames = [pictures.image(pictures.photo(seed=seed)) for seed in (1, 2)]
    return pictures.saved(frames[0], "WEBP", save_all=True, append_images=frames[1:])


def pages() -> bytes:
    frames = [pictures.image(pictures.photo(seed=seed)) for seed in (1, 2)]
    return pictures.saved(frames[0], "TIFF", save_all=True, append_images=frames[1:])


def sequence() -> bytes:
    frames = [pictures.image(pictures.photo(seed=seed)) for seed in (1, 2)]
    return pictures.saved(frames[0], "AVIF", save_all=True, append_images=frames[1:], speed=10)


@pytest.mark.parametrize("build", [pictures.apng, animated_webp, pages, sequence])
@pytest.mark.usefixtures("no_decoder")
def test_more_than_one_frame_is_refused(build: type) -> None:
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


@pytest.mark.parametrize(
    "build",
    [
        lambda: lying_jpeg(False),
        lambda: lying_jpeg(True),
        lambda: pictures.png_bomb(900_000, 900_000),
        lying_webp,
        lambda: lying_tiff(256, 60_000),
        lambda: lying_tiff(257, 60_000),
        lambda: lying_tiff(279, 2**31),
        lambda: lying_tiff(273, 2**31),
        lambda: lying_tiff(279, 10),
    ],
    ids=[
        "jpeg",
        "progressive jpeg",
        "png",
        "webp",
        "tiff width",
        "tiff height",
        "tiff strip",
        "tiff offset",
        "tiff 10",
    ],
)
@pytest.mark.usefixtures("no_decoder")
def test_a_header_that_announces_more_than_the_file_can_hold_is_refused(build: type) -> None:
    with pytest.raises(UnreadableImage):
        decode(build(), WIDE)


def test_the_sizes_inside_the_compressed_data_are_held_against_the_limits_too() -> None:
    for name, coded in (("avif", (64, 48)), ("avif alpha", (64, 48)), ("heic", (64, 64))):
        assert coded in read_container(CORPUS[name]).sizes
    large = pictures.avif(np.zeros((300, 400, 3), np.uint8))
    box = large.index(b"ispe") + 8
    lying = large[:box] + struct.pack(">LL", 64, 48) + large[box + 8 :]

    assert probe(lying, LIMITS).width == 64
    with pytest.raises(LimitExceeded, match="width is 400"):
        probe(lying, replace(LIMITS, max_width=100))


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


@pytest.mark.parametrize(
    "build",
    [
        lambda: two_pngs(8, 1),
        lambda: two_pngs(8, 2),
        lambda: two_pngs(16, 1),
        lambda: two_webps(True),
        lambda: two_webps(False),
        late_canvas,
        lambda: two_jpegs(0xC0),
        lambda: two_jpegs(0xF0),
        lambda: two_jpegs(0xF7),
        large_grid,
        *(lambda name=name: with_box(name, bytes(20)) for name in (b"pitm", b"iloc", b"iinf", b"iprp")),
        lambda: CORPUS["avif"] + CORPUS["avif"][CORPUS["avif"].index(b"meta") - 4 :],
    ],
    ids=[
        *("png", "png behind the pixels", "deep png", "webp small first", "webp large first", "webp canvas"),
        *("jpeg", "jpeg in JPG0", "jpeg in JPG7", "heic grid", "pitm", "iloc", "iinf", "iprp", "meta"),
    ],
)
def test_of_two_headers_a_decoder_cannot_follow_the_other(build: type) -> None:
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


@pytest.mark.parametrize(
    "build",
    [
        lambda: b"\xff\xd8" + b"\xff\xfe\0\2" * 30_000 + pictures.jpeg()[2:],
        lambda: pictures.png(before=pictures.chunk(b"prVt", b"") * 30_000),
        lambda: pictures.riff([*pictures.webp_chunks(pictures.webp()), *[(b"XYZW", b"")] * 30_000]),
        lambda: pictures.avif()[:32] + struct.pack(">L4s", 8, b"free") * 30_000,
        lambda: with_box(b"iloc", struct.pack(">LHL", 0x02000000, 0x4440, 10**5) + bytes(14) * 10**5),
        lambda: with_box(b"iloc", struct.pack(">LHH", 0, 0x4400, 300) + overlapping_items(300)),
        lambda: with_box(b"ipma", struct.pack(">LL", 0, 10**6) + struct.pack(">HB", 1, 255) + bytes(10**6)),
        lambda: lying_tiff(258, 8, items=1_000_000) + bytes(4_000_000),
        lambda: lying_tiff(273, 8, items=1_000_000) + bytes(4_000_000),
    ],
    ids=["jpeg", "png", "webp", "avif", "items", "overlapping items", "properties", "tiff bits", "tiff strips"],
)
@pytest.mark.usefixtures("no_decoder")
def test_a_file_of_countless_parts_is_refused(build: type) -> None:
    with pytest.raises(UnreadableImage):
        decode(build(), LIMITS)


@pytest.mark.parametrize(
    ("position", "value", "says"),
    [(4, 12, "12 bits"), (9, 2, "2 channels"), (-1, 0xC3, "process 3"), (-1, 0xC9, "process 9")],
)
@pytest.mark.usefixtures("no_decoder")
def test_a_kind_of_jpeg_that_is_not_decoded_is_named(position: int, value: int, says: str) -> None:
    source = bytearray(CORPUS["jpeg"])
    frame = source.index(b"\xff\xc0")
    source[frame + (1 if position < 0 else position)] = value

    with pytest.raises(UnsupportedFormat, match=says):
        decode(bytes(source), LIMITS)


def test_a_tiff_of_16_bits_is_refused_with_a_way_out() -> None:
    deep = pictures.image(pictures.photo(channels=1)).convert("I;16")

    with pytest.raises(UnsupportedFormat, match=r"16 bits.*PNG"):
        decode(pictures.saved(deep, "TIFF"), LIMITS)


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
