"""What goes with an output beside its pixels."""

from __future__ import annotations

import pytest

from faceblur_batch.storage.headers import HeaderPolicy
from faceblur_batch.storage.store import ObjectHeaders

SOURCE = ObjectHeaders(
    "image/heic", "max-age=60", {"photographer": "Ada", "Place": "Paris", "note": "é", "long": "x" * 3000}
)
OWN = {"faceblur-source-etag": '"abc"'}


def test_nothing_of_the_source_is_kept_unless_it_is_named() -> None:
    assert HeaderPolicy().headers("jpeg", SOURCE, OWN) == ObjectHeaders("image/jpeg", None, OWN)


def test_what_is_named_is_kept() -> None:
    policy = HeaderPolicy(keep_cache_control=True, keep_metadata=frozenset({"Photographer", "place", "absent"}))
    assert policy.headers("png", SOURCE, OWN) == ObjectHeaders(
        "image/png", "max-age=60", {**OWN, "photographer": "Ada", "place": "Paris"}
    )


def test_what_not_every_store_could_carry_is_left_out() -> None:
    policy = HeaderPolicy(keep_metadata=frozenset({"note", "long", "photographer", "padded"}))
    source = ObjectHeaders(metadata={**SOURCE.metadata, "padded": " x"})
    assert policy.headers("png", source, OWN).metadata == {**OWN, "photographer": "Ada"}


def test_cache_control_is_the_configured_one_where_the_source_has_none() -> None:
    policy = HeaderPolicy(cache_control="no-store", keep_cache_control=True)
    assert policy.headers("webp", ObjectHeaders(), {}).cache_control == "no-store"
    assert policy.headers("webp", SOURCE, {}).cache_control == "max-age=60"
    assert HeaderPolicy(cache_control="no-store").headers("webp", SOURCE, {}).cache_control == "no-store"


@pytest.mark.parametrize("name", ["faceblur-source-etag", "FaceBlur-x", "a b", "", "é"])
def test_a_name_that_cannot_be_kept_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be kept"):
        HeaderPolicy(keep_metadata=frozenset({name}))


@pytest.mark.parametrize(
    "own", [{"etag": "x"}, {"faceblur-x": "é"}, {"faceblur-x": "a\nb"}, {"faceblur-x": "x" * 3000}]
)
def test_own_metadata_that_would_not_come_back_is_a_mistake(own: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="cannot be written"):
        HeaderPolicy().headers("jpeg", ObjectHeaders(), own)
