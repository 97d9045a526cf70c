"""The `faceblur` command: arguments, the surroundings of a run, and how it ends.

Nothing heavy is imported here, so that ``--help`` answers at once; each command's module is loaded when it runs.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from faceblur import __version__
from faceblur_engine.dumps import forbid_core_dumps

from . import files
from .exits import MEANINGS, CannotGoOnError, Exit, UsageError
from .interruption import raise_on_signal
from .redactor import OpenRedactor, open_engine

COMMANDS = ("blur", "detect", "batch", "audit", "models", "doctor")
SERVE = "serve"


def main(argv: Sequence[str] | None = None, *, open_redactor: OpenRedactor = open_engine) -> int:
    """Run the command line and return its exit code, see `exits.Exit`.

    Args:
        argv: Arguments without the program's name; None takes the process's.
        open_redactor: Makes what obscures pictures.
    """
    forbid_core_dumps()
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        if arguments[:1] == [SERVE]:
            # The worker is a program of its own, with its own options, signals and exit codes.
            return int(importlib.import_module("faceblur_worker.__main__").main(arguments[1:]) or 0)
        args = _parser().parse_args(arguments)
        command = importlib.import_module(f"{__package__}.{args.command}")
        with raise_on_signal():
            code: Exit = command.run(args, open_redactor)
            sys.stdout.flush()
        return code
    except UsageError as error:
        return _end(f"{error}\nfaceblur --help says more", Exit.USAGE)
    except CannotGoOnError as error:
        return _end(str(error), Exit.CANNOT)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("faceblur"):
            raise
        extra = {SERVE: "worker", "batch": "local", "audit": "batch"}.get(arguments[0] if arguments else "", "cli")
        return _end(f"{error.name} is not installed; install faceblur[{extra}]", Exit.CANNOT)
    except KeyboardInterrupt:
        return _end("interrupted", Exit.INTERRUPTED)
    except BrokenPipeError:
        return Exit.PIPE_CLOSED


def _end(message: str, code: Exit) -> Exit:
    files.stderr(f"faceblur: {message}")
    return code


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(Exit.USAGE, f"{self.prog}: {message}\n{self.prog} --help says more\n")


def _parser() -> argparse.ArgumentParser:
    codes = "\n".join(f"  {code.value:<4} {meaning}" for code, meaning in MEANINGS.items())
    parser = _Parser(
        prog="faceblur",
        description="Obscures the faces in pictures, on this machine. Without --server it opens no connection.",
        epilog=f"exit codes:\n{codes}\n\nfaceblur COMMAND --help lists a command's options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"faceblur {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    for name in COMMANDS:
        module = importlib.import_module(f"{__package__}.{name}")
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=module.__doc__,
            epilog=f"exit codes:\n{codes}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_arguments(command)
    commands.add_parser(SERVE, help="run a gRPC worker here (faceblur serve --help; docs/worker.md)", add_help=False)
    return parser
