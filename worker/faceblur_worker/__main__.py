"""`faceblur serve`, and the entry point of the image."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence

from faceblur_engine.dumps import forbid_core_dumps
from faceblur_engine.errors import EngineError
from faceblur_process import logs
from faceblur_process.memory import keep_freed_buffers
from faceblur_process.settings import ConfigurationError, load, unknown_variables
from faceblur_process.turns import take_turns_soon

from .calls import log_context
from .config import WorkerSettings
from .engine import Engine, load_engine
from .server import AddressInUse, Worker
from .tls import CertificateError
from .tracing import TracingUnavailable

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None, make_engine: Callable[[WorkerSettings], Engine] = load_engine) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code.

    0: ended in order; 1: work was still going on at the end of the grace period, or a defect ended the process; 2: the
    configuration is wrong or cannot be used here. Unless it is 0, the last line that was written says why.
    """
    forbid_core_dumps()
    try:
        settings = load(
            WorkerSettings,
            sys.argv[1:] if argv is None else argv,
            program="faceblur serve",
            description="Serve the engine over gRPC until SIGTERM.",
        )
    except ConfigurationError as error:
        sys.stderr.write(f"faceblur serve: {error}\n")
        return 2
    logs.configure(settings.log_level, settings.log_format, context=log_context)
    for name in unknown_variables(WorkerSettings):
        log.warning("%s is not a setting of this version and has no effect", name)
    keep_freed_buffers(settings.engine_threads() + 1)
    take_turns_soon()
    try:
        in_time = asyncio.run(_serve(settings, make_engine))
    except (AddressInUse, CertificateError, EngineError, TracingUnavailable) as error:
        log.error("cannot start: %s", error)
        return 2
    except Exception as error:
        log.exception("ended by a defect, please report it: %s", type(error).__name__)
        return 1
    if not in_time:
        logging.shutdown()
        os._exit(1)  # engine threads that do not end would keep the process
    return 0


async def _serve(settings: WorkerSettings, make_engine: Callable[[WorkerSettings], Engine]) -> bool:
    """Serve until a signal comes; returns whether all work was done when the grace period ended."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    worker = Worker(settings, make_engine(settings))
    await worker.start()
    await stopping.wait()
    return await worker.stop()


if __name__ == "__main__":
    sys.exit(main())
