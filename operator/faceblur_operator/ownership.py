"""Tells what belongs to a resource, and whether it has to be written: what the plans of all kinds have in common."""

from __future__ import annotations

from collections.abc import Mapping

from . import compare, naming
from .observed import Manifest, ObjectKey


def split(
    objects: Mapping[ObjectKey, Manifest], uid: str
) -> tuple[dict[ObjectKey, Manifest], dict[ObjectKey, Manifest]]:
    """Return the live objects that belong to a resource, and those of others.

    Args:
        objects: By their place.
        uid: Of the resource.
    """
    own = {key: live for key, live in objects.items() if belongs(live, uid)}
    return own, {key: live for key, live in objects.items() if key not in own}


def belongs(live: Manifest, uid: str) -> bool:
    """Whether an object belongs to the owner with this unique id."""
    references = live["metadata"].get("ownerReferences") or ()
    return any(reference.get("uid") == uid for reference in references)


def is_going(live: Manifest) -> bool:
    """Whether an object is being deleted."""
    return bool(live["metadata"].get("deletionTimestamp"))


def stamped(manifest: Manifest) -> Manifest:
    """The manifest with what tells later that the live object was made from it."""
    metadata = manifest["metadata"]
    annotations = {**metadata.get("annotations", {}), naming.APPLIED_ANNOTATION: compare.digest(manifest)}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def is_due(live: Manifest | None, manifest: Manifest, accepted: str | None) -> bool:
    """Whether a manifest has to be applied: nothing is there, something else was applied last, or it was changed.

    That something was left out of the manifest since then only shows in its stamp.
    """
    if live is None:
        return True
    residue = compare.residue(live, manifest)
    return bool(residue) and residue != accepted
