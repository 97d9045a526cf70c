"""The seam between the command and whatever obscures pictures.

Everything above it reads files and writes files; everything below turns bytes into bytes: the engine in this process, a
server (see `server`), or a test's fake.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from faceblur import __version__
from faceblur_engine.errors import EngineError
from faceblur_engine.types import ModelInfo, Options, Profile, Receipt, Result

from . import arguments
from .exits import CannotGoOnError


class Redactor(Protocol):
    """Turns (bytes, options) into a result; called by several threads at once."""

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        """The models that will run, with their SHA-256."""
        ...

    def redact(self, data: bytes, options: Options, *, checkpoint: Callable[[], None] | None = None) -> Result:
        """Obscure the faces of one encoded picture.

        Args:
            data: The picture as read from the file.
            options: What is asked for.
            checkpoint: Called between stages; what it raises ends the call.

        Raises:
            EngineError: Why there is no result.
        """
        ...

    def detect(self, data: bytes, options: Options, *, checkpoint: Callable[[], None] | None = None) -> Receipt:
        """Find the faces of one encoded picture; same arguments and errors as `redact`."""
        ...


class OpenRedactor(Protocol):
    """Makes a `Redactor`; the command takes it as a parameter so that tests need no model."""

    def __call__(self, *, profiles: Collection[Profile], runtime: str, threads: int, concurrency: int) -> Redactor:
        """Load what the profiles need.

        Args:
            profiles: The profiles that will be asked for.
            runtime: Inference runtime, ``auto`` for the best that works here.
            threads: Inference threads of one call.
            concurrency: Calls that run at once.

        Raises:
            EngineError: A model or the runtime cannot be used.
        """
        ...


def open_engine(*, profiles: Collection[Profile], runtime: str, threads: int, concurrency: int) -> Redactor:
    """Load the engine into this process. See `OpenRedactor`."""
    # NumPy and OpenCV each bring an OpenBLAS, which is not used here, and whose threads, one per core, turn idle loops
    # for up to a tenth of a second when it is loaded.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from faceblur_engine.pipeline import Engine  # takes most of the start-up time, and --help does not need it
    from faceblur_process.memory import keep_freed_buffers
    from faceblur_process.turns import take_turns_soon

    keep_freed_buffers(concurrency + 1)
    take_turns_soon()
    return Engine(profiles=profiles, runtime=runtime, threads=threads, concurrency=concurrency)


@dataclass(frozen=True, slots=True)
class Opened:
    """What a run obscures pictures with.

    Attributes:
        redactor: Does it.
        version: Of faceblur, there.
        options: As they are applied.
        jobs: Pictures at once.
        close: Ends it, and calls in other threads with `Interrupted`.
    """

    redactor: Redactor
    version: str
    options: Options
    jobs: int
    close: Callable[[], None] = lambda: None


def opened(args: argparse.Namespace, open_redactor: OpenRedactor, *, single: bool) -> Opened:
    """Open what the command line asks for: the server that it names, or the engine in this process.

    Args:
        args: Parsed arguments.
        open_redactor: Makes the latter.
        single: There is only one picture.

    Raises:
        UsageError: What was asked for makes no sense.
        CannotGoOnError: There is no usable model, runtime or server.
    """
    options = arguments.options_of(args)  # also for a server: what is wrong is said as it is on the command line
    if args.server:
        from .server import open_server  # gRPC takes a while to load, and the engine in this process does without it

        jobs = arguments.calls_at_once(args, single=single)
        server = open_server(args)
        return Opened(server, server.version, arguments.options_of(args, server.defaults), jobs, server.close)
    arguments.refuse_server_options(args)
    jobs, threads = arguments.jobs_and_threads(args, single=single)
    try:
        redactor = open_redactor(
            profiles=[options.profile], runtime=args.runtime or "auto", threads=threads, concurrency=jobs
        )
    except EngineError as error:
        raise CannotGoOnError(str(error)) from error
    return Opened(redactor, __version__, options, jobs)
