"""Prints the manifest of a batch as a table: `python examples/show_manifest.py manifest.jsonl...`."""

import json
import sys
from pathlib import Path

print(f"{'object':36} {'outcome':11} {'faces':>6} {'ms':>7}   SHA-256 of the result")
for part in sys.argv[1:]:
    for line in Path(part).read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if "key" not in entry:  # the first line is about the job, the last closes the chain
            continue
        faces, milliseconds = entry.get("faces", 0), entry.get("milliseconds", 0)
        result = f"{entry['output_sha256'][:16]}..." if entry.get("output_sha256") else ""
        print(f"{entry['key']:36} {entry['kind']:11} {faces:>6} {milliseconds:>7.0f}   {result}")
