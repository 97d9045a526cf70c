"""Tells whether a live object is what was applied, so that nothing is written that is there already.

The live object has more than was applied: defaults, what other field managers own, the status. So it is drift only
where something that was applied is missing or different:

- of an object (a mapping) the applied members count, of a list all elements, in their order;
- null, an empty list and an empty string are the same as absent, since the API server drops them;
- false, 0 and ``{}`` are what they are: a missing ``automountServiceAccountToken: false`` means true, and
  ``podSelector: {}`` means all pods, which neither its absence nor a selector with labels does;
- selectors are compared as a whole, because one more label selects less;
- quantities are compared by value: ``1000m`` is stored as ``1``.

An API server or an admission webhook may still change what it is sent in ways that nothing here knows of. Repairing
that again and again would never end, so the difference right after a successful apply is *accepted*: `residue` stands
for it as a string, the reconciler remembers it (`Memory.accepted`), and only another difference is drift.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from . import quantities
from .observed import Manifest

_WHOLE = frozenset({"matchLabels", "selector", "nodeSelector"})
_HOLDS_QUANTITIES = frozenset({"requests", "limits"})
_QUANTITIES = frozenset({"sizeLimit", "divisor"})


def digest(value: Any) -> str:
    """Return a string that is the same for the same JSON value, whatever the order of members."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def contains(live: Manifest, desired: Manifest) -> bool:
    """Whether a live object, or a part of one, has all that is desired of it."""
    return _contains(live, _body(desired))


def residue(live: Manifest, desired: Manifest) -> str:
    """Return what stands for the difference of a live object from what is desired, empty where there is none.

    Args:
        live: As the API server answered the apply of the manifest, or as it is seen later.
        desired: The manifest.
    """
    body = _body(desired)
    return "" if _contains(live, body) else digest([body, _projection(live, body)])


def _body(desired: Manifest) -> Manifest:
    """All but what a list leaves out of its items."""
    return {name: value for name, value in desired.items() if name not in ("apiVersion", "kind")}


def _contains(live: Any, desired: Any, name: str = "", in_quantities: bool = False) -> bool:
    if _empty(desired):
        return _empty(live)
    if desired == {}:
        return isinstance(live, dict) and not live
    if isinstance(desired, dict):
        return (
            isinstance(live, dict)
            and not (name in _WHOLE and live.keys() - desired.keys())
            and all(_contains(live.get(key), value, key, name in _HOLDS_QUANTITIES) for key, value in desired.items())
        )
    if isinstance(desired, list | tuple):
        return (
            isinstance(live, list)
            and len(live) == len(desired)
            and all(_contains(there, wanted) for there, wanted in zip(live, desired, strict=True))
        )
    if live == desired:
        return isinstance(live, bool) == isinstance(desired, bool)
    if in_quantities or name in _QUANTITIES or isinstance(live, str) != isinstance(desired, str):
        wanted = quantities.parse(desired)
        return wanted is not None and quantities.parse(live) == wanted
    return False


def _empty(value: Any) -> bool:
    return value is None or value in ([], (), "")


def _projection(live: Any, desired: Any, name: str = "") -> Any:
    """The part of a live object that its desired form speaks about."""
    if isinstance(live, dict) and isinstance(desired, dict) and desired and name not in _WHOLE:
        return {key: _projection(live.get(key), value, key) for key, value in desired.items()}
    if isinstance(live, list) and isinstance(desired, list | tuple) and len(live) == len(desired):
        return [_projection(there, wanted) for there, wanted in zip(live, desired, strict=True)]
    return live
