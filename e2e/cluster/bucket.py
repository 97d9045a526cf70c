"""Fills and looks into buckets of the test's S3 server, in a pod: ``python bucket.py fill|keys|look|marks ...``.

Every picture is one of the samples with a comment of its own, so that no two have the same ETag.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from obstore.store import S3Store

SAMPLES = Path(__file__).parent
BLOCK = 16


def store(bucket: str) -> S3Store:
    """A bucket of the server."""
    return S3Store(
        bucket,
        endpoint=os.environ["ENDPOINT"],
        region="us-east-1",
        access_key_id=os.environ["ACCESS_KEY"],
        secret_access_key=os.environ["SECRET_KEY"],
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )


def fill(bucket: str, prefix: str, count: str, bad: str = "0") -> dict[str, Any]:
    """Put pictures there, and among them some that are none."""
    samples = sorted(SAMPLES.glob("sample-*"))
    poison = sorted(SAMPLES.glob("bad-*"))
    to = store(bucket)

    def put(number: int) -> None:
        sample = samples[number % len(samples)]
        data = sample.read_bytes()
        comment = f"picture {number}".encode()
        data = data[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + data[2:]
        kind = sample.stem.split("-")[2]
        to.put(f"{prefix}{number % 7}/{kind}-{number:05d}.jpg", data)

    def put_bad(number: int) -> None:
        to.put(f"{prefix}bad/{number:03d}.jpg", poison[number % len(poison)].read_bytes())

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(put, range(int(count))))
        list(pool.map(put_bad, range(int(bad))))
    return {"count": int(count), "bad": int(bad)}


def keys(bucket: str, prefix: str) -> dict[str, Any]:
    """How many outputs and other objects there are."""
    names = [entry["path"] for batch in store(bucket).list(prefix) for entry in batch]
    own = [name for name in names if "/.faceblur/" in f"/{name}"]
    return {"outputs": len(names) - len(own), "ledger": len(own), "html": [n for n in own if n.endswith(".html")]}


def look(source: str, source_prefix: str, destination: str, prefix: str) -> dict[str, Any]:
    """Compare every picture with its output."""
    ours, theirs = store(source), store(destination)
    names = [entry["path"] for batch in ours.list(source_prefix) for entry in batch]
    there = {
        entry["path"] for batch in theirs.list(prefix) for entry in batch if "/.faceblur/" not in f"/{entry['path']}"
    }
    wrong: list[str] = []

    def compare(name: str) -> str:
        output = prefix + name.removeprefix(source_prefix)
        if "/bad/" in name:
            return "refused" if output not in there else wrong.append(f"{name}: has an output") or "wrong"
        if output not in there:
            wrong.append(f"{name}: has no output")
            return "missing"
        before, after = ours.get(name), theirs.get(output)
        kept = {str(name).lower().rpartition("faceblur-")[2]: str(value) for name, value in after.attributes.items()}
        original, result = bytes(before.bytes()), bytes(after.bytes())
        pictures = [cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) for data in (original, result)]
        faces = int(kept.get("faces", 0))
        if kept.get("output-sha256") != hashlib.sha256(result).hexdigest():
            wrong.append(f"{name}: its output is not what the metadata says: {kept}")
        elif original == result or pictures[1] is None or pictures[0].shape != pictures[1].shape:
            wrong.append(f"{name}: its output is no picture of the same size")
        elif "/face-" in name and (not faces or _difference(*pictures) < 20):
            wrong.append(f"{name}: {faces} faces, differs by {_difference(*pictures):.0f}")
        return "face" if faces else "none"

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(compare, names))
    counts = {kind: found.count(kind) for kind in sorted(set(found))}
    return {"counts": counts, "outputs": len(there), "wrong": wrong[:10], "wrongs": len(wrong)}


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    """How much the block that differs most does."""
    height, width = (side // BLOCK * BLOCK for side in one.shape[:2])
    gap = np.abs(one[:height, :width].astype(float) - other[:height, :width]).mean(axis=2)
    return float(gap.reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK).mean(axis=(1, 3)).max())


def marks(bucket: str, prefix: str) -> dict[str, Any]:
    """What the marks of all jobs say."""
    names = [entry["path"] for batch in store(bucket).list(prefix) for entry in batch]
    found = [name for name in names if name.endswith("/mark.json")]
    return {"marks": [json.loads(bytes(store(bucket).get(name).bytes())) for name in found]}


if __name__ == "__main__":
    actions = {"fill": fill, "keys": keys, "look": look, "marks": marks}
    sys.stdout.write(json.dumps(actions[sys.argv[1]](*sys.argv[2:])) + "\n")
