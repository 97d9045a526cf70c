"""Obscures the faces of pictures on a worker: `python examples/client.py HOST:PORT OUT PICTURE...`."""

import sys
from pathlib import Path

from faceblur import FaceBlurClient, Options, TransientError

server, out, *pictures = sys.argv[1:]

with FaceBlurClient(server, timeout=30) as client:
    for outcome in client.blur_many(pictures, Options(verify=True), concurrency=4):
        if outcome.result is not None:
            receipt = outcome.result.receipt
            Path(out, Path(outcome.source).name).write_bytes(outcome.result.image)
            print(f"{outcome.source}: {len(receipt.faces)} faces, {receipt.width}x{receipt.height}")
        elif isinstance(outcome.error, TransientError):
            sys.exit(f"the workers cannot keep up or are away, try again later: {outcome.error}")
        else:
            print(f"failed, and nothing was written: {outcome.error}")
