"""The seam between the server and the engine: what the worker needs, and how the real one is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from faceblur_engine.types import ModelInfo, Options, Receipt, Result

from .config import WorkerSettings


class Engine(Protocol):
    """Does the work on one picture; called by several threads at once."""

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        """Every model that is loaded."""
        ...

    def redact(self, data: bytes, options: Options, *, checkpoint: Callable[[], None] | None = None) -> Result:
        """Obscure the faces of an encoded picture; ``checkpoint`` is called between stages and may end the work.

        Raises:
            EngineError: Why there is no result.
        """
        ...

    def detect(self, data: bytes, options: Options, *, checkpoint: Callable[[], None] | None = None) -> Receipt:
        """Find the faces of an encoded picture; same arguments and errors as `redact`."""
        ...


def load_engine(settings: WorkerSettings) -> Engine:
    """Load the models of all profiles that are served.

    Raises:
        EngineError: A model or the runtime cannot be used.
    """
    from faceblur_engine.pipeline import Engine as RealEngine  # only here, so that tests of the server need no runtime

    threads = settings.engine_threads()
    return RealEngine(profiles=settings.profiles, runtime=settings.runtime, threads=1, concurrency=threads)
