"""What a store really does, seen by writing to it: many accept a condition and ignore it."""

from __future__ import annotations

import contextlib
import secrets

from ..errors import AlreadyExists, ObjectChanged, StorageFailure, Unsupported
from .store import Capabilities, ObjectHeaders, ObjectStore

_OTHER_ETAG = '"00000000000000000000000000000000"'
_REFUSALS = (Unsupported, StorageFailure)


def probe(store: ObjectStore, prefix: str) -> Capabilities:
    """Write a few small objects under `prefix`, look what happened, and remove them.

    Args:
        store: The destination.
        prefix: Of the ledger, ends with a slash.

    Raises:
        StorageError: The store cannot be written to, read or listed at all.
    """
    folder, mine = f"{prefix}probe/", secrets.token_hex(8)
    # In the order of their bytes, which is neither that of folders before files nor that of a dictionary.
    keys = [f"{folder}{name}{mine}" for name in ("B", "a-", "a/", "a0")]
    new = f"{folder}new-{mine}"
    try:
        seen = ObjectHeaders("application/octet-stream", None, {"faceblur-probe": "seen it"})
        etags = [store.put(key, b"first", headers=seen) for key in keys]
        listed = [info.key for info in store.list(folder) if info.key.endswith(mine)]
        metadata = store.head(keys[0]).headers
        return Capabilities(
            create_only=_honours_create_only(store, new, keys[0]),
            replace_if_match=_honours_if_match(store, keys[1], etags[1]),
            metadata=metadata is not None and metadata.metadata == seen.metadata,
            sorted_listing=listed == keys,
        )
    finally:
        for key in (*keys, new):
            # What went wrong is already on its way, and a leftover of a few bytes harms nobody.
            with contextlib.suppress(Exception):
                store.delete(key)


def _honours_create_only(store: ObjectStore, absent: str, present: str) -> bool:
    try:
        # A request that was sent twice finds its own object.
        with contextlib.suppress(AlreadyExists):
            store.put(absent, b"second", only_if_absent=True)
        store.put(present, b"second", only_if_absent=True)
    except AlreadyExists:
        return store.get(present).data == b"first"
    except _REFUSALS:
        return False
    return False


def _honours_if_match(store: ObjectStore, key: str, etag: str) -> bool:
    try:
        store.put(key, b"second", if_match=_OTHER_ETAG)
    except ObjectChanged:
        pass
    except _REFUSALS:
        return False
    else:
        return False
    try:
        etag = store.put(key, b"second", if_match=etag)
    except (ObjectChanged, *_REFUSALS):
        return False
    return store.get(key, if_match=etag).data == b"second"
