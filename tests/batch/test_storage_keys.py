"""No two pictures share an output, and every key can be stored and read back."""

from __future__ import annotations

import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from obstore.store import MemoryStore

from faceblur_batch.storage.cloud import is_expressible
from faceblur_batch.storage.keys import LONGEST_NAME, RESERVED, KeyMapping, decode, encode

PIECES = st.sampled_from(
    [
        *("a", "b", "c", "/", "//", ".", "..", " ", "%", "%2E", "%2F", "%/", "\\", "\n", "é", "e\u0301"),
        *(".heic", ".HEIC", ".jpg", ".JPG", ".png", ".webp", ".x", "_blurred", ".faceblur", "blurred"),
        *("x" * 239, "ü" * 130),
    ]
)
HARD_KEYS = st.lists(PIECES, max_size=8).map("".join)
FILE_NAMES = st.binary(max_size=300).map(os.fsdecode)
KEYS = st.one_of(st.text(), HARD_KEYS, FILE_NAMES)
FORMATS = [None, "jpeg", "webp", "png"]
TEMPLATES = [
    "{dir}/{stem}{ext}",
    "{dir}/{stem}_blurred{ext}",
    "out/deep/{dir}/x-{stem}.blurred{ext}",
    "{dir}/{stem}c{ext}",
    "{dir}/{stem}.jpg{ext}",
    "{dir}/_{stem}.x.x{ext}",
]


@given(KEYS)
@example("a//b")
@example("/a")
@example("a/")
@example("../a")
@example("%/")
@example("x" * 1024)
@example(os.fsdecode(b"\xff\xfe.jpg"))
def test_an_encoded_key_decodes_to_itself(key: str) -> None:
    assert decode(encode(key)) == key


@given(KEYS.filter(bool))
def test_an_encoded_key_can_be_stored_anywhere(key: str) -> None:
    encoded = encode(key)
    encoded.encode()
    assert is_expressible(encoded)
    assert "\\" not in encoded
    assert not encoded.startswith(RESERVED)
    for name in encoded.split("/"):
        assert len(name.encode()) <= LONGEST_NAME
        assert not name.endswith((".", " "))


@pytest.mark.parametrize(
    "key", ["a.jpg", "holidays 2024/IMG_0001.JPG", "日本/東京 ü.png", "a+b&c=(d)[e]{f}'.jpg", "👩‍👧.jpg"]
)
def test_an_ordinary_key_stays_as_it_is(key: str) -> None:
    assert encode(key) == key
    assert KeyMapping()(key) == key


@pytest.mark.parametrize(
    ("key", "encoded"),
    [
        ("a//b.jpg", "a/%2Fb.jpg"),
        ("/a.jpg", "%2Fa.jpg"),
        ("a/", "a%2F"),
        ("a/../b", "a/%2E%2E/b"),
        ("./a", "%2E/a"),
        ("100%.jpg", "100%25.jpg"),
        ("a\\b", "a%5Cb"),
        ("a\tb", "a%09b"),
        ("a\x85b", "a%C2%85b"),
        ("trailing. ", "trailing.%20"),
        ("trailing.", "trailing%2E"),
        (".faceblur/x", "%2Efaceblur/x"),
        (".FaceBlur/x", "%2EFaceBlur/x"),
        ("a/.faceblur/x", "a/.faceblur/x"),
        (os.fsdecode(b"\xff.jpg"), "%FF.jpg"),
        ("x" * 250, "x" * 239 + "%/" + "x" * 11),
    ],
)
def test_what_stores_refuse_is_percent_encoded(key: str, encoded: str) -> None:
    assert encode(key) == encoded


ENDS = ["", ".jpg", ".webp", ".png", "_blurred", "c", "/a.jpg"]


def families(keys: list[str]) -> list[str]:
    """The keys, and those that look like outputs of them."""
    return sorted({key + end for key in keys for end in ENDS})


@given(st.lists(HARD_KEYS, max_size=4).map(families), st.sampled_from(TEMPLATES), st.sampled_from(FORMATS))
def test_no_two_keys_share_an_output(keys: list[str], template: str, format: str | None) -> None:
    mapping = KeyMapping(template, format)
    assert len({mapping(key) for key in keys}) == len(keys)


NAMES = st.lists(st.sampled_from(["a", "c", ".", ".jpg", ".heic", ".png", ".webp", "%2E"]), min_size=1, max_size=5)


@given(
    st.lists(NAMES.map("".join), max_size=6).map(families),
    st.sampled_from(["", "c", "a.jpg", ".heic", ".heic.jpg", "heic"]),
    st.sampled_from(["", "a", "a."]),
    st.sampled_from(FORMATS),
)
def test_no_text_of_a_template_makes_two_names_meet(keys: list[str], end: str, start: str, format: str | None) -> None:
    mapping = KeyMapping(f"{{dir}}/{start}{{stem}}{end}{{ext}}", format)
    assert len({mapping(key) for key in keys}) == len(keys)


def test_a_picture_that_leaves_in_another_format_gets_its_extension_behind_its_own() -> None:
    mapping = KeyMapping()
    assert mapping("d/a.heic") == "d/a.heic.jpg"
    assert mapping("d/a.HEIF") == "d/a.HEIF.jpg"
    assert mapping("d/a.jpg") == "d/a.jpg"
    assert mapping("d/a.heic.jpg") == "d/a%2Eheic.jpg"
    assert mapping("d/a.heic.JPG") == "d/a.heic.JPG"
    assert KeyMapping(format="webp")("d/a.jpg") == "d/a.jpg.webp"
    assert KeyMapping(format="webp")("d/a.webp") == "d/a.webp"
    assert KeyMapping(format="jpeg")("d/a.jpeg") == "d/a.jpeg"
    assert KeyMapping(format="jpeg")("d/unknown.dat") == "d/unknown.dat"


def test_a_template_puts_text_around_the_name_and_before_the_folders() -> None:
    mapping = KeyMapping("blurred/{dir}/x-{stem}_blurred{ext}")
    assert mapping("2024/05/a.b.jpg") == "blurred/2024/05/x-a.b_blurred.jpg"
    assert mapping("a.jpg") == "blurred/x-a_blurred.jpg"
    assert mapping("no-extension") == "blurred/x-no-extension_blurred"
    assert mapping("a.heic") == "blurred/x-a.heic_blurred.jpg"


@pytest.mark.parametrize(
    "template",
    [
        "{stem}{ext}",
        "{dir}/{stem}",
        "{dir}/{ext}{stem}",
        "{dir}{stem}{ext}",
        "out{dir}/{stem}{ext}",
        "{dir}/.{stem}{ext}",
        "{dir}/{stem}.{ext}",
        "../{dir}/{stem}{ext}",
        "/{dir}/{stem}{ext}",
        "100%/{dir}/{stem}{ext}",
        ".faceblur/{dir}/{stem}{ext}",
        "{dir}/{stem}{ext}{size}",
        "",
    ],
)
def test_a_template_by_which_two_keys_might_meet_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match="the t"):
        KeyMapping(template)


@pytest.mark.parametrize("format", ["heic", "gif", ""])
def test_a_format_that_no_output_has_is_refused(format: str) -> None:
    with pytest.raises(ValueError, match="choose jpeg"):
        KeyMapping(format=format)


@given(KEYS.filter(bool))
def test_what_is_called_expressible_is_what_obstore_keeps_as_it_is(key: str) -> None:
    memory = MemoryStore()
    try:
        memory.put(key, b"")
        kept = [entry["path"] for entry in memory.list().collect()] == [key]
    except (ValueError, UnicodeEncodeError):
        kept = False
    assert not is_expressible(key) or kept
