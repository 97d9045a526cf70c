from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faceblur_batch.storage.selection import Selection
from faceblur_batch.storage.store import ObjectInfo

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def an_object(key: str = "a/b.jpg", size: int = 100, modified: datetime = NOON) -> ObjectInfo:
    return ObjectInfo(key, size, '"1"', modified)


@pytest.mark.parametrize(
    ("fields", "object", "meant"),
    [
        ({}, an_object("a/b.jpg"), True),
        ({}, an_object("a/B.JPEG"), True),
        ({}, an_object("a/notes.txt"), False),
        ({"suffixes": frozenset()}, an_object("a/notes.txt"), True),
        ({"suffixes": frozenset({".TXT"})}, an_object("a/notes.txt"), True),
        ({"suffixes": frozenset({"_large.jpg"})}, an_object("a/b_large.jpg"), True),
        ({"suffixes": frozenset()}, an_object("a/", size=0), False),
        ({"suffixes": frozenset()}, an_object("a/", size=5), True),
        ({"suffixes": frozenset()}, an_object(".faceblur/jobs/1"), False),
        ({"prefix": "a/"}, an_object("a/b.jpg"), True),
        ({"prefix": "a/"}, an_object("b/a/b.jpg"), False),
        ({"include": ("a/*",)}, an_object("a/b.jpg"), True),
        ({"include": ("a/*",)}, an_object("a/b/c.jpg"), False),
        ({"include": ("x", "a/**")}, an_object("a/b/c.jpg"), True),
        ({"exclude": ("**/thumbs/**",)}, an_object("a/thumbs/c.jpg"), False),
        ({"exclude": ("**/thumbs/**",)}, an_object("thumbs/c.jpg"), False),
        ({"exclude": ("**/thumbs/**",)}, an_object("my-thumbs/c.jpg"), True),
        ({"include": ("a/**",), "exclude": ("**/c.*",)}, an_object("a/c.jpg"), False),
        ({"include": ("IMG_[0-9][!9].jpg",)}, an_object("IMG_12.jpg"), True),
        ({"include": ("IMG_[0-9][!9].jpg",)}, an_object("IMG_19.jpg"), False),
        ({"include": ("?.jpg",)}, an_object("ü.jpg"), True),
        ({"include": ("a?b.jpg",)}, an_object("a/b.jpg"), False),
        ({"include": ("a[!x]b.jpg",)}, an_object("a/b.jpg"), False),
        ({"include": ("a(b)+.jpg",)}, an_object("a(b)+.jpg"), True),
        ({"include": ("a[b.jpg",)}, an_object("a[b.jpg"), True),
        ({"newer_than": NOON}, an_object(modified=NOON), False),
        ({"newer_than": NOON}, an_object(modified=NOON + timedelta(seconds=1)), True),
        ({"min_size": 100, "max_size": 100}, an_object(size=100), True),
        ({"min_size": 101}, an_object(size=100), False),
        ({"max_size": 99}, an_object(size=100), False),
    ],
)
def test_every_filter_narrows(fields: dict[str, Any], object: ObjectInfo, meant: bool) -> None:
    assert (object in Selection(**fields)) is meant


def test_a_moment_without_a_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        Selection(newer_than=datetime(2024, 5, 1))


@given(st.text(), st.text())
def test_any_text_is_a_glob(glob: str, key: str) -> None:
    _ = an_object(key) in Selection(suffixes=frozenset(), include=(glob,))


@given(st.text(alphabet=st.characters(exclude_characters="*?[", exclude_categories=["Cs"]), min_size=1))
def test_a_glob_without_signs_fits_exactly_itself(key: str) -> None:
    reserved_or_marker = key.startswith(".faceblur/")
    assert (an_object(key) in Selection(suffixes=frozenset(), include=(key,))) is not reserved_or_marker
