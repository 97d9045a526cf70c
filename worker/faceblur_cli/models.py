"""`faceblur models`: which models are in here, under which licence, from where, and whether they are intact."""

from __future__ import annotations

import argparse
import sys

from .exits import Exit
from .progress import write_json
from .redactor import OpenRedactor

HELP = "list the models with licences and hashes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--json", action="store_true", help="one JSON line per model")


def run(args: argparse.Namespace, open_redactor: OpenRedactor) -> Exit:
    """Verify and list the models; `Exit.CANNOT` if one is not the pinned one."""
    from faceblur_engine.errors import ModelError
    from faceblur_engine.models import MODELS

    code = Exit.OK
    for model in MODELS:
        try:
            model.load()
            verified = "yes"
        except ModelError as error:
            verified = f"NO: {error}"
            code = Exit.CANNOT
        if args.json:
            write_json(
                {
                    "name": model.name,
                    "title": model.title,
                    "profiles": model.profiles,
                    "licence": model.licence,
                    "source": model.source,
                    "source_sha256": model.source_sha256,
                    "changes": model.changes,
                    "file": model.file,
                    "sha256": model.sha256,
                    "verified": verified == "yes",
                }
            )
            continue
        rows = {
            "profiles": ", ".join(model.profiles),
            "licence": model.licence,
            "source": model.source,
            "changes": model.changes or "none",
            "file": model.file,
            "SHA-256": model.sha256,
            "verified": verified,
        }
        lines = "".join(f"  {name:<9} {value}\n" for name, value in rows.items())
        sys.stdout.write(f"{model.name} ({model.title})\n{lines}")
    return code
