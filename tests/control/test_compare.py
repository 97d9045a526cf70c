"""What is drift and what is not."""

from __future__ import annotations

import copy
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faceblur_operator import quantities
from faceblur_operator.compare import contains, digest, residue

_NAMES = st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1, max_size=4)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=12,
)
# With metadata, as every object: of one that has nothing but its kind, nothing would be compared.
_OBJECTS = st.dictionaries(_NAMES, _JSON, min_size=1, max_size=4).map(
    lambda members: {"metadata": {"name": "demo"}, **members}
)


@pytest.mark.parametrize(
    ("live", "desired"),
    [
        ({"a": 1, "status": {"x": 1}}, {"a": 1}),
        ({"a": {"b": 1, "default": 2}}, {"a": {"b": 1}}),
        ({"a": [{"b": 1, "default": 2}]}, {"a": [{"b": 1}]}),
        ({}, {"a": None, "b": [], "d": "", "e": ()}),
        ({"a": {}}, {"a": {}}),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, {"limits": {"cpu": "1000m", "memory": 1073741824}}),
        ({"requests": {"storage": "512Mi"}}, {"requests": {"storage": "0.5Gi"}}),
        ({"emptyDir": {"sizeLimit": "1Gi"}}, {"emptyDir": {"sizeLimit": "1024Mi"}}),
        ({"port": "8080"}, {"port": 8080}),
        ({"port": 8080}, {"port": "8080"}),
        ({"matchLabels": {"a": "b"}}, {"matchLabels": {"a": "b"}}),
        ({"a": [1, 2]}, {"a": (1, 2)}),
        ({"a": 1.0}, {"a": 1}),
        ({"metadata": {}}, {"apiVersion": "v1", "kind": "Service", "metadata": {}}),
    ],
)
def test_an_object_as_the_api_server_stores_it_is_no_drift(live: Any, desired: Any) -> None:
    assert contains(live, desired)
    assert residue(live, desired) == ""


@pytest.mark.parametrize(
    ("live", "desired"),
    [
        ({}, {"a": 1}),
        ({"a": 2}, {"a": 1}),
        ({"a": "1"}, {"a": "01"}),
        ({"a": "1"}, {"a": "1000m"}),  # only a quantity where quantities are
        ({"a": ["1"]}, {"a": ["1000m"]}),
        ({"a": "x"}, {"a": 1}),
        ({"a": [1]}, {"a": [1, 2]}),
        ({"a": [1, 2]}, {"a": [1]}),
        ({"a": [2, 1]}, {"a": [1, 2]}),
        ({"a": [1]}, {"a": []}),
        ({"a": 1}, {"a": {"b": 1}}),
        ({"a": {"b": 1}}, {"a": 1}),
        ({"a": [{"b": 1}]}, {"a": {"b": 1}}),
        ({}, {"automountServiceAccountToken": False}),
        ({"automountServiceAccountToken": True}, {"automountServiceAccountToken": False}),
        ({"a": 0}, {"a": False}),
        ({"a": 1}, {"a": True}),
        ({"replicas": 3}, {"replicas": 0}),
        ({}, {"replicas": 0}),
        ({"podSelector": {"matchLabels": {"a": "b"}}}, {"podSelector": {}}),
        ({"ipBlock": {"cidr": "0.0.0.0/0"}}, {"podSelector": {}}),
        ({"matchLabels": {"a": "b", "c": "d"}}, {"matchLabels": {"a": "b"}}),
        ({"nodeSelector": {"a": "b", "c": "d"}}, {"nodeSelector": {"a": "b"}}),
        ({"spec": {"selector": {"a": "b", "c": "d"}}}, {"spec": {"selector": {"a": "b"}}}),
        ({"limits": {"memory": "1Gi"}}, {"limits": {"memory": "1G"}}),
        ({"sizeLimit": "x"}, {"sizeLimit": "1Gi"}),
    ],
)
def test_what_is_missing_or_different_is_drift(live: Any, desired: Any) -> None:
    assert not contains(live, desired)
    assert residue(live, desired) != ""


def test_a_residue_stands_for_one_difference_and_ignores_what_was_not_asked_for() -> None:
    desired = {"a": 1, "b": [{"c": True}]}
    left = residue({"a": 1, "b": [{}]}, desired)
    assert left == residue({"a": 1, "b": [{"more": 1}], "status": {"n": 7}}, desired)
    assert left != residue({"a": 2, "b": [{}]}, desired)
    assert left != residue({"a": 1, "b": [{"c": False}]}, desired)
    assert left != residue({"a": 1, "b": []}, desired)
    assert left != residue({"a": 1, "b": [{}]}, {**desired, "b": [{"c": "yes"}]})


def test_a_residue_of_a_selector_tells_which_labels_were_added() -> None:
    desired = {"matchLabels": {"a": "b"}}
    assert residue({"matchLabels": {"a": "b", "c": "d"}}, desired) != residue(
        {"matchLabels": {"a": "b", "e": "f"}}, desired
    )


@given(_OBJECTS)
def test_an_object_contains_itself(value: dict[str, Any]) -> None:
    assert contains(copy.deepcopy(value), value)


@given(_OBJECTS)
def test_an_object_contains_itself_after_defaults_were_filled_in(value: dict[str, Any]) -> None:
    assert contains(_defaulted(value), value)


@given(_OBJECTS, _OBJECTS)
def test_there_is_a_residue_exactly_where_there_is_drift(live: dict[str, Any], desired: dict[str, Any]) -> None:
    assert bool(residue(live, desired)) is not contains(live, desired)


@given(_JSON)
def test_a_digest_does_not_depend_on_the_order_of_members(value: Any) -> None:
    assert digest(value) == digest(_reversed(value))


def test_different_values_have_different_digests() -> None:
    assert len({digest(value) for value in ({"a": 1}, {"a": "1"}, {"a": [1]}, {"b": 1}, {})}) == 5


def _defaulted(value: Any) -> Any:
    """As an API server answers: more members, and nothing of what is empty."""
    if isinstance(value, dict):
        kept = {key: _defaulted(item) for key, item in value.items() if item not in (None, "", [])}
        return {**kept, "Default": 1} if value else value
    return [_defaulted(item) for item in value] if isinstance(value, list) else value


def _reversed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _reversed(item) for key, item in reversed(value.items())}
    return [_reversed(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("text", "worth"),
    [
        ("1", "1"),
        (2, "2"),
        ("1500m", "1.5"),
        ("100n", "1e-7"),
        ("2.5", "2.5"),
        ("1k", "1000"),
        ("1Ki", "1024"),
        ("0.5Gi", "536870912"),
        ("3E", "3e18"),
        ("1e3", "1000"),
        ("5E-1", "0.5"),
        ("-1", "-1"),
        (".5", "0.5"),
    ],
)
def test_a_quantity_is_read_by_value(text: object, worth: str) -> None:
    assert quantities.parse(text) == Decimal(worth)


@pytest.mark.parametrize("text", ["", "x", "1 Gi", "1kb", "Gi", True, None, [], "1e400", "١"])
def test_what_is_no_quantity_is_none(text: object) -> None:
    assert quantities.parse(text) is None
