"""Pixels: every kind of picture comes in upright and goes out looking the same."""

from __future__ import annotations

import io
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from faceblur_engine.codec import Picture, decode, encode
from faceblur_engine.errors import InvalidOptions, UnreadableImage
from faceblur_engine.types import Format, Keep, Limits, Options
from support import pictures

LIMITS = Limits()


def read(data: bytes) -> Picture:
    return decode(data, LIMITS)


def again(data: bytes, **options: Any) -> bytes:
    return encode(read(data), Options(**options))[0]


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def pixels_of(data: bytes, mode: str | None = None) -> np.ndarray[Any, Any]:
    image = opened(data)
    return np.asarray(image.convert(mode) if mode else image)


def psnr(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    error = float(np.mean((a.astype(np.float64) - b) ** 2))
    return 99.0 if error == 0 else 10 * np.log10(255**2 / error)


CORPUS = pictures.corpus()


@pytest.mark.parametrize("name", CORPUS)
def test_every_kind_goes_in_and_out_in_its_own_format(name: str) -> None:
    picture = read(CORPUS[name])

    assert picture.pixels.flags.c_contiguous
    assert picture.pixels.flags.writeable
    assert picture.pixels.shape[2] == len(picture.mode)
    data, kind = encode(picture, Options())
    assert kind is (Format.JPEG if picture.format is Format.HEIC else picture.format)
    image = opened(data)
    assert image.size == (picture.pixels.shape[1], picture.pixels.shape[0])
    assert read(data).pixels.dtype == picture.pixels.dtype


@pytest.mark.parametrize("target", [f for f in Format if f is not Format.HEIC])
@pytest.mark.parametrize("name", CORPUS)
def test_every_kind_can_leave_in_every_format(name: str, target: Format) -> None:
    picture = read(CORPUS[name])

    data, kind = encode(picture, Options(format=target))

    assert kind is target
    result = read(data)
    assert result.format is target
    assert result.pixels.shape[:2] == picture.pixels.shape[:2]
    # On white, since a result without transparency is put on that.
    seen = [pixels_of(encode(p, Options(format=Format.JPEG, quality=95))[0], "RGB") for p in (picture, result)]
    assert psnr(*seen) > 27


@pytest.mark.parametrize("name", [n for n, d in CORPUS.items() if read(d).header.lossless])
def test_lossless_stays_lossless(name: str) -> None:
    picture = read(CORPUS[name])

    assert np.array_equal(read(encode(picture, Options())[0]).pixels, picture.pixels)


# Orientation

ENCODERS = {
    "jpeg": lambda pixels, exif: pictures.jpeg(pixels, quality=97, subsampling=0, before=pictures.exif_segment(exif)),
    "jpeg grey": lambda pixels, exif: pictures.jpeg(pixels[..., :1], quality=97, before=pictures.exif_segment(exif)),
    "png": lambda pixels, exif: pictures.png(pixels, before=pictures.chunk(b"eXIf", exif)),
    "png deep": lambda pixels, exif: pictures.raw_png(pixels.astype(np.uint16) * 257, 2, 16, [(b"eXIf", exif)]),
    "webp": lambda pixels, exif: pictures.webp(pixels, lossless=True, exif=exif),
    "webp alpha": lambda pixels, exif: pictures.webp(
        np.dstack((pixels, pixels[..., :1] // 2 + 9)), lossless=True, exif=b"Exif\0\0" + exif
    ),
    "tiff": lambda pixels, exif: pictures.tiff_picture(pixels, exif=exif),
    "tiff lzw": lambda pixels, exif: pictures.tiff_picture(pixels, exif=exif, compression="tiff_lzw"),
    "avif": lambda pixels, exif: pictures.avif(pixels, exif=exif, subsampling="4:4:4"),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ENCODERS)
def test_the_orientation_is_applied_to_the_pixels_and_dropped(kind: str, orientation: int) -> None:
    upright = pictures.photo()
    source = ENCODERS[kind](pictures.stored_for(upright, orientation), pictures.exif(orientation))

    picture = read(source)
    result = encode(picture, Options(keep=frozenset(Keep)))[0]

    assert picture.header.upright == (64, 48)
    assert psnr(np.broadcast_to(picture.views()[0], upright.shape)[..., 0], upright[..., 0]) > 33
    assert psnr(pixels_of(result, "RGB")[..., 0], upright[..., 0]) > 33
    assert opened(result).getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_orientation_is_read_in_both_byte_orders(order: str) -> None:
    assert read(pictures.jpeg(before=pictures.exif_segment(pictures.exif(6, order)))).pixels.shape == (64, 48, 3)


def test_heic_is_turned_once_and_leaves_as_jpeg() -> None:
    picture = read(pictures.heic())

    assert picture.header.upright == (48, 64)
    assert picture.pixels.shape == (64, 48, 3)
    # Red grows to the right as stored, so downwards once turned clockwise; green grew downwards.
    assert picture.pixels[60, 24, 0] > picture.pixels[4, 24, 0] + 150
    assert picture.pixels[32, 4, 1] > picture.pixels[32, 44, 1] + 150
    assert encode(picture, Options())[1] is Format.JPEG


# JPEG


def test_a_plain_jpeg_is_decoded_like_everywhere_and_searched_without_a_copy() -> None:
    source = pictures.jpeg()
    picture = read(source)

    assert np.array_equal(picture.pixels, pixels_of(source))
    (view,) = picture.views()
    assert view is picture.pixels


@pytest.mark.parametrize("quality", [35, 75, 92, 100])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_keeps_its_tables_subsampling_and_progression(quality: int, subsampling: int, progressive: bool) -> None:
    source = opened(pictures.jpeg(quality=quality, subsampling=subsampling, progressive=progressive))
    result = opened(again(pictures.jpeg(quality=quality, subsampling=subsampling, progressive=progressive)))

    assert result.quantization == source.quantization  # type: ignore[attr-defined]
    assert result.layer == source.layer  # type: ignore[attr-defined]
    assert result.info.get("progressive", 0) == progressive


@pytest.mark.parametrize("quality", [30, 60, 85, 95])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_reencoding_loses_no_more_than_pillow_with_the_same_tables(quality: int, subsampling: int) -> None:
    source = pictures.jpeg(pictures.photo(200, 160, seed=quality), quality=quality, subsampling=subsampling)
    original = opened(source)
    reference = pictures.saved(original, "JPEG", quality="keep")

    assert psnr(pixels_of(again(source)), np.asarray(original)) > psnr(pixels_of(reference), np.asarray(original)) - 0.1


@pytest.mark.parametrize("quality", [1, 24, 25, 49, 50, 75, 92, 100])
@pytest.mark.parametrize(("channels", "subsampling"), [(1, 0), (3, 0), (3, 1), (3, 2)])
@pytest.mark.parametrize("progressive", [False, True])
def test_the_same_bytes_come_out_as_from_pillow_with_the_same_tables(
    quality: int, channels: int, subsampling: int, progressive: bool
) -> None:
    settings: dict[str, Any] = {"subsampling": subsampling} if channels == 3 else {}
    source = pictures.jpeg(pictures.photo(90, 70, channels), quality=quality, progressive=progressive, **settings)
    original = opened(source)
    tables = list(original.quantization.values())  # type: ignore[attr-defined]

    assert again(source) == pictures.saved(original, "JPEG", qtables=tables, progressive=progressive, **settings)


@pytest.mark.parametrize("tables", [{"quality": 80}, {"qtables": [[9] * 64]}])
def test_a_long_profile_and_what_is_kept_come_through_with_any_tables(tables: dict[str, Any]) -> None:
    profile = pictures.icc("CMYK", bytes(150_000))
    profile = profile[:16] + b"RGB " + profile[20:]
    source = pictures.jpeg(
        before=pictures.exif_segment(pictures.exif(rich=True)) + pictures.icc_segments(profile), **tables
    )

    result = opened(again(source, keep=frozenset({Keep.ICC, Keep.AUTHOR})))

    assert result.info["icc_profile"] == profile
    assert result.getexif()[0x013B] == "Ada Author"


def test_different_tables_for_each_component_stay_with_their_component() -> None:
    tables = [[value] * 64 for value in (3, 7, 5)]
    source = pictures.jpeg(qtables=tables)

    result = opened(again(source)).quantization  # type: ignore[attr-defined]

    assert [result[i][0] for i in range(3)] == [3, 7, 5]


def test_tables_of_16_bits_are_kept() -> None:
    source = pictures.jpeg(qtables=[[300 + i for i in range(64)]])

    assert opened(again(source)).quantization[0] == [300 + i for i in range(64)]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("luma", "expected"), [(0x12, "4:4:4"), (0x41, "4:2:2"), (0x42, "4:2:0"), (0x14, "4:4:4"), (0x24, "4:2:0")]
)
def test_unusual_subsampling_becomes_the_next_one_that_loses_nothing(luma: int, expected: str) -> None:
    source = bytearray(pictures.jpeg())
    source[source.index(b"\xff\xc0") + 11] = luma

    assert read_header(bytes(source)).jpeg.subsampling == expected


def read_header(data: bytes) -> Any:
    from faceblur_engine.codec import probe

    return probe(data, LIMITS)


def test_quality_and_subsampling_can_be_asked_for() -> None:
    result = opened(again(pictures.jpeg(subsampling=0), quality=40, subsampling="4:2:0"))
    reference = opened(pictures.jpeg(quality=40, subsampling=2))

    assert result.quantization == reference.quantization  # type: ignore[attr-defined]
    assert result.layer == reference.layer  # type: ignore[attr-defined]


def test_an_rgb_jpeg_stays_one() -> None:
    source = pictures.jpeg(keep_rgb=True)
    result = again(source)

    assert [name for name, *_ in opened(result).layer] == [82, 71, 66]  # type: ignore[attr-defined]
    assert psnr(pixels_of(result), pixels_of(source)) > 45


@pytest.mark.parametrize("name", ["jpeg cmyk", "jpeg ycck", "without Adobe's marker"])
def test_a_cmyk_jpeg_stays_cmyk_and_looks_the_same(name: str) -> None:
    source = CORPUS.get(name) or without_adobe(CORPUS["jpeg cmyk"])
    result = again(source)

    assert opened(result).mode == "CMYK"
    assert psnr(pixels_of(result), pixels_of(source)) > 38
    assert (b"Adobe" in result) == (b"Adobe" in source)


def without_adobe(data: bytes) -> bytes:
    marker = data.index(b"\xff\xee\x00\x0eAdobe")
    return data[:marker] + data[marker + 16 :]


def test_ink_is_dark_in_what_is_searched_whatever_the_marker_says() -> None:
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[..., 3] = 200
    adobe = pictures.jpeg(ink, mode="CMYK")
    plain = without_adobe(pictures.jpeg(255 - ink, mode="CMYK"))

    for source in (adobe, plain):
        (view,) = read(source).views()
        assert view.shape == (16, 16, 3)
        assert 50 <= view.mean() <= 60


def test_a_cmyk_picture_leaves_as_srgb_by_its_profile() -> None:
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[..., 0] = 255
    profile = pictures.icc("CMYK")
    source = pictures.jpeg(ink, mode="CMYK", quality=100, before=pictures.icc_segments(profile))

    assert opened(again(source)).info["icc_profile"] == profile
    result = opened(again(source, format=Format.PNG))
    assert result.mode == "RGB"
    assert "icc_profile" not in result.info
    red, _, blue = result.getpixel((8, 8))  # type: ignore[misc]
    assert red > blue + 100  # the profile calls cyan red
    bare = opened(again(pictures.jpeg(ink, mode="CMYK", quality=100), format=Format.PNG)).getpixel((8, 8))
    assert bare[2] > bare[0] + 100  # type: ignore[index]


def test_noise_of_the_highest_quality_can_be_progressive() -> None:
    picture = read(
        pictures.jpeg(np.zeros((300, 300, 3), np.uint8), qtables=[[1] * 64], subsampling=0, progressive=True)
    )
    picture.pixels[:] = np.random.default_rng(1).integers(0, 256, picture.pixels.shape)

    assert psnr(pixels_of(encode(picture, Options())[0]), picture.pixels) > 40


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_jpeg_cut_anywhere_is_refused(progressive: bool, channels: int) -> None:
    mode = "CMYK" if channels == 4 else None
    source = pictures.jpeg(pictures.photo(160, 120, channels), mode=mode, progressive=progressive)

    for share in range(5, 100, 5):
        with pytest.raises(UnreadableImage):
            read(source[: len(source) * share // 100])
    for missing in (1, 2, 3):
        with pytest.raises(UnreadableImage):
            read(source[:-missing])


def test_a_cut_jpeg_with_an_end_put_on_is_refused() -> None:
    source = pictures.jpeg(pictures.photo(160, 120))

    with pytest.raises(UnreadableImage):
        read(source[: len(source) // 2] + b"\xff\xd9")


@pytest.mark.parametrize(
    "harmless",
    [
        lambda data: data[:-2] + bytes(9) + data[-2:],
        lambda data: data + b"trailing bytes",
        lambda data: data.replace(b"\xff\xdb", b"\x01\x02\xff\xdb", 1),
        lambda data: data.replace(b"\xff\xdb", b"\xff\xff\xff\xff\xdb", 1),
        lambda data: data.replace(b"JFIF\0\x01", b"JFIF\0\x07", 1),
    ],
    ids=["junk before the end", "trailer", "junk between segments", "padding", "unknown JFIF version"],
)
def test_what_does_not_touch_the_pixels_is_no_reason_to_refuse_a_jpeg(harmless: Any) -> None:
    source = pictures.jpeg()

    assert np.array_equal(read(harmless(source)).pixels, read(source).pixels)


def test_junk_before_the_end_does_not_let_a_cut_jpeg_through() -> None:
    source = pictures.jpeg(pictures.photo(160, 120))
    source = source.replace(b"\xff\xdb", b"\x01\x02\xff\xdb", 1)

    for share in range(5, 100, 5):
        with pytest.raises(UnreadableImage):
            read(source[: len(source) * share // 100])


# The other formats


@pytest.mark.parametrize("name", [n for n in CORPUS if not n.startswith("jpeg")])
def test_a_cut_file_is_refused_in_every_format(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    source = CORPUS[name]
    # A TIFF's directory may lie before or behind its pixels, a PNG needs its end.
    for share in range(5, 100, 5):
        with pytest.raises(UnreadableImage):
            read(source[: len(source) * share // 100])
    with pytest.raises(UnreadableImage):
        read(source[: -13 if name.startswith("png") else -3])
    assert capfd.readouterr() == ("", "")


def test_a_png_with_a_wrong_checksum_is_refused() -> None:
    for source in (CORPUS["png rgb"], CORPUS["png deep rgb"]):
        damaged = bytearray(source)
        damaged[-20] ^= 1
        with pytest.raises(UnreadableImage, match="checksum"):
            read(bytes(damaged))


@pytest.mark.parametrize("color", [0, 2, 4, 6])
def test_a_png_of_16_bits_keeps_every_bit(color: int) -> None:
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[color]
    pixels = np.random.default_rng(color).integers(1, 65536, (20, 30, channels), dtype=np.uint16)

    picture = read(pictures.raw_png(pixels, color, 16))
    result = read(encode(picture, Options())[0])

    for found in (picture, result):
        assert found.pixels.dtype == np.uint16
        assert np.array_equal(found.pixels[..., 0], pixels[..., 0])
        assert np.array_equal(found.pixels[..., -1], pixels[..., -1])
    assert all(view.dtype == np.uint8 and view.shape == (20, 30, 3) for view in picture.views())
    assert np.array_equal(picture.views()[0][..., 0], pixels[..., 0] >> 8)


@pytest.mark.parametrize(("color", "bits"), [(0, 8), (0, 16), (2, 8), (2, 16)])
def test_the_colour_that_a_png_calls_transparent_is(color: int, bits: int) -> None:
    top = 2**bits
    pixels = np.random.default_rng(7).integers(1, top, (20, 30, 3 if color else 1)).astype(f"u{bits // 8}")
    key = b"".join(int(value).to_bytes(2, "big") for value in pixels[4, 5])

    picture = read(pictures.raw_png(pixels, color, bits, [(b"tRNS", key)]))

    assert picture.transparent
    assert not picture.pixels[4, 5].any()
    assert picture.pixels[0, 0, -1] == top - 1


def test_an_interlaced_png_is_read() -> None:
    # Pillow writes none: seven passes of unfiltered rows of one grey channel.
    pixels = pictures.photo(13, 11, 1)
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = [b"\0" + row.tobytes() for y, x, dy, dx in passes for row in pixels[y::dy, x::dx, 0] if row.size]
    (_, head), *_ = pictures.png_chunks(pictures.png(pixels))
    parts = [(b"IHDR", head[:12] + b"\1"), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b"")]

    assert np.array_equal(read(pictures.png_of(parts)).pixels, pixels)


@pytest.mark.parametrize("bits", [8, 16])
def test_what_is_invisible_is_cleared(bits: int) -> None:
    pixels = pictures.hidden_pixels().astype(f"u{bits // 8}") * (257 if bits == 16 else 1)

    picture = read(pictures.raw_png(pixels, 6, bits))

    assert not picture.pixels[:, :32].any()
    assert np.array_equal(picture.pixels[:, 32:], pixels[:, 32:])


def test_a_transparent_picture_is_searched_with_and_without_its_transparency() -> None:
    pixels = pictures.photo(channels=4)
    pixels[..., 3] = np.where(np.arange(64) < 20, 0, 128)

    plain, composed = read(pictures.png(pixels)).views()

    assert np.array_equal(plain[:, 20:], pixels[:, 20:, :3])
    assert (composed[:, :20] == 128).all()
    expected = (pixels[:, 20:, :3].astype(int) * 128 + 128 * 127) / 255
    assert np.abs(composed[:, 20:] - expected).max() <= 1


def test_an_opaque_picture_with_an_alpha_channel_is_searched_once() -> None:
    pixels = pictures.photo(channels=4)
    pixels[..., 3] = 255

    assert len(read(pictures.png(pixels)).views()) == 1


def test_transparency_becomes_white_where_the_format_has_none() -> None:
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[:, 8:] = (10, 20, 30, 255)

    result = pixels_of(again(pictures.png(pixels), format=Format.JPEG))

    assert (result[:, :4] > 250).all()
    assert (result[:, 12:] < 40).all()


def test_a_lossless_webp_is_lossy_only_when_a_quality_is_asked_for() -> None:
    source = pictures.webp(lossless=True)

    assert b"VP8L" in again(source)[:40]
    assert b"VP8 " in again(source, quality=80)[:40]


def test_a_tiff_is_as_compressed_as_it_was() -> None:
    assert opened(again(pictures.tiff_picture())).info["compression"] == "raw"
    assert opened(again(pictures.tiff_picture(compression="tiff_lzw"))).info["compression"] == "tiff_adobe_deflate"


@pytest.mark.parametrize("name", [n for n in CORPUS if n.startswith("tiff")])
def test_a_tiff_looks_the_same_to_other_readers(name: str) -> None:
    source, result = opened(CORPUS[name]), opened(again(CORPUS[name]))

    assert np.array_equal(np.asarray(result.convert("RGBA")), np.asarray(source.convert("RGBA")))


def test_grey_is_seen_in_three_channels() -> None:
    (view,) = read(pictures.jpeg(pictures.photo(channels=1))).views()

    assert view.shape == (48, 64, 3)
    assert (view[..., 0] == view[..., 2]).all()


def test_a_picture_too_wide_for_the_format_asked_for_is_refused_before_encoding() -> None:
    source = pictures.png(np.zeros((1, 16_384, 3), np.uint8))

    with pytest.raises(InvalidOptions, match="16383"):
        again(source, format=Format.WEBP)


# Colours


@pytest.mark.parametrize(
    "name", ["jpeg", "jpeg progressive", "png rgb", "png deep rgb", "webp", "webp lossless", "tiff", "avif"]
)
def test_the_colour_profile_is_kept_byte_for_byte(name: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    with_profile = {
        "jpeg": lambda: pictures.jpeg(before=pictures.icc_segments(profile, 200)),
        "jpeg progressive": lambda: pictures.jpeg(icc_profile=profile, progressive=True),
        "png rgb": lambda: pictures.png(icc_profile=profile),
        "png deep rgb": lambda: pictures.raw_png(
            pictures.photo().astype(np.uint16), 2, 16, [(b"iCCP", b"a\0\0" + zlib.compress(profile))]
        ),
        "webp": lambda: pictures.webp(icc_profile=profile),
        "webp lossless": lambda: pictures.webp(icc_profile=profile, lossless=True),
        "tiff": lambda: pictures.tiff_picture(icc_profile=profile),
        "avif": lambda: pictures.avif(icc_profile=profile),
    }[name]()

    assert opened(again(with_profile)).info["icc_profile"] == profile
    assert "icc_profile" not in opened(again(with_profile, keep=frozenset())).info
    for target in (Format.JPEG, Format.PNG, Format.WEBP, Format.TIFF, Format.AVIF):
        assert opened(again(with_profile, format=target)).info["icc_profile"] == profile


def test_a_profile_of_another_colour_model_is_dropped() -> None:
    for space in ("GRAY", "CMYK"):
        assert "icc_profile" not in opened(again(pictures.jpeg(icc_profile=pictures.icc(space)))).info
    grey = pictures.png(pictures.photo(channels=1), icc_profile=pictures.icc("GRAY"))
    assert opened(again(grey)).info["icc_profile"] == pictures.icc("GRAY")
    assert "icc_profile" not in opened(again(grey, format=Format.WEBP)).info


def test_the_other_ways_to_describe_colours_are_kept_in_png_and_avif() -> None:
    gamma = pictures.chunk(b"gAMA", (100_000).to_bytes(4, "big"))
    numbers = pictures.chunk(b"cICP", bytes((12, 13, 0, 1)))

    result = dict(pictures.png_chunks(again(pictures.png(before=gamma + numbers))))
    assert result[b"gAMA"] == (100_000).to_bytes(4, "big")
    assert result[b"cICP"] == bytes((12, 13, 0, 1))

    wide = pictures.avif().replace(b"colrnclx\0\1\0\x0d", b"colrnclx\0\x0c\0\x0d", 1)
    assert b"colrnclx\0\x0c\0\x0d" in again(wide)
    assert dict(pictures.png_chunks(again(wide, format=Format.PNG)))[b"cICP"] == bytes((12, 13, 0, 1))
    assert b"cICP" not in dict(pictures.png_chunks(again(wide, format=Format.PNG, keep=frozenset())))
