"""The seam between the command and whatever obscures pictures.

Everything above it reads files and writes files; everything below turns bytes into bytes. Today that is the engine
in this process; a server that speaks the same `Options` and `Receipt` fits as well, and so does a test's fake.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from faceblur_engine.types import ModelInfo, Options, Profile, Receipt, Result


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
    from faceblur_engine.pipeline import Engine  # takes most of the start-up time, and --help does not need it

    return Engine(profiles=profiles, runtime=runtime, threads=threads, concurrency=concurrency)
