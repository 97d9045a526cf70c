"""`faceblur audit verify MANIFEST`: is the manifest of a batch what was written? Needs no network and no batch extra.

MANIFEST is manifest.jsonl, or the folder that it is in; its further parts lie beside it. The root that was kept comes
from --root: the file root.json or the 64 digits themselves; without it, from the root.json beside the manifest, which
whoever altered the one may have altered, too.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .exits import CannotGoOnError, Exit, UsageError
from .names import printable

if TYPE_CHECKING:
    from .redactor import OpenRedactor

HELP = "check the manifest of a batch"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    verify = actions.add_parser("verify", help="find the first line that was altered", description=__doc__)
    verify.add_argument("manifest", type=Path, metavar="MANIFEST")
    verify.add_argument("--root", metavar="ROOT", help="root.json that was kept elsewhere, or its 64 digits")


def run(args: argparse.Namespace, open_redactor: OpenRedactor) -> Exit:
    """Verify a manifest; see the module.

    Raises:
        UsageError: The root is neither a file nor a hash.
        CannotGoOnError: A file cannot be read.
    """
    from faceblur_batch.manifest import parts_beside, verify

    manifest: Path = args.manifest / "manifest.jsonl" if args.manifest.is_dir() else args.manifest
    try:
        result = verify(parts_beside(manifest), _root(args.root, manifest))
    except OSError as error:
        raise CannotGoOnError(f"cannot read {printable(str(error.filename))}: {error.strerror}") from error
    if not result.intact:
        where = f"{printable(result.part)}, line {result.line}: " if result.part else ""
        sys.stdout.write(f"ALTERED: {where}{result.problem}\n")
        return Exit.SOME_FAILED
    sys.stdout.write(f"intact: {result.lines:,} lines, root {result.root}\n")
    return Exit.OK


def _root(given: str | None, manifest: Path) -> dict[str, Any] | str | None:
    if given and re.fullmatch("[0-9a-fA-F]{64}", given):
        return given.lower()
    path = Path(given) if given else manifest.with_name("root.json")
    if not given and not path.exists():
        return None
    try:
        root = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"--root {printable(str(path))} is neither a root.json nor 64 digits") from error
    if not isinstance(root, dict) or not isinstance(root.get("root"), str):
        raise UsageError(f"--root {printable(str(path))} is no root.json")
    return root
