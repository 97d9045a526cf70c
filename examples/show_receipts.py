"""Prints receipts as a table: `python examples/show_receipts.py receipts.jsonl`."""

import json
import sys
from pathlib import Path

print(f"{'picture':36} {'size':>11} {'faces':>6} {'ms':>7}   SHA-256 of the result")
for line in Path(sys.argv[1]).read_text().splitlines():
    receipt = json.loads(line)
    size = f"{receipt['width']}x{receipt['height']}"
    faces, milliseconds = len(receipt["faces"]), receipt["milliseconds"]["total"]
    print(f"{receipt['file']:36} {size:>11} {faces:>6} {milliseconds:>7.0f}   {receipt['output_sha256'][:16]}...")
