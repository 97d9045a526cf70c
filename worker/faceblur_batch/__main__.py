"""A batch worker process: takes pages from the broker until SIGTERM."""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from collections.abc import Sequence
from typing import Any

from celery import Celery, bootsteps, signals
from celery.exceptions import CPendingDeprecationWarning, SecurityWarning
from prometheus_client import make_wsgi_app

import faceblur
from faceblur_process.memory import keep_freed_buffers
from faceblur_process.settings import ConfigurationError, load, unknown_variables
from faceblur_process.turns import take_turns_soon

from . import health, logs
from .app import make_app, waiting
from .config import BatchSettings, WatchSettings
from .health import Health
from .metrics import Metrics
from .tasks import register
from .workplaces import Workplaces

log = logging.getLogger(__package__)  # as a program this module is called __main__


def main(argv: Sequence[str] | None = None) -> int:
    """Work until SIGTERM or SIGINT; returns the exit code.

    0: ended in order; 1: pages were still worked on at the end of the grace period; 2: the configuration is wrong.
    """
    try:
        settings = load(
            BatchSettings,
            sys.argv[1:] if argv is None else argv,
            program="python -m faceblur_batch",
            description="Work on the pages of batches until SIGTERM.",
        )
        settings.broker_url()
        settings.client().close()  # what they name is there
    except ConfigurationError as error:
        sys.stderr.write(f"faceblur batch worker: {error}\n")
        return 2
    logs.configure(settings.log_level, settings.log_format)
    for name in unknown_variables(WatchSettings):
        log.warning("%s is not a setting of this version and has no effect", name)
    return serve(settings)


def serve(settings: BatchSettings) -> int:
    """Work until SIGTERM or SIGINT; see `main`."""
    keep_freed_buffers()
    take_turns_soon()
    metrics = Metrics(faceblur.__version__, settings.queue)
    signs = Health(settings.threads)
    workplaces = Workplaces(settings, count=metrics.count)
    app = make_app(settings)
    register(app, settings, workplaces, metrics, signs)
    _feel(app, signs)

    # Celery sends signals to weak references: these live as long as this call.
    def on_shutting_down(**_: Any) -> None:
        workplaces.end()
        timer = threading.Timer(settings.grace_seconds, os._exit, (1,))  # a thread that hangs cannot be ended
        timer.daemon = True
        timer.start()

    def on_ready(**_: Any) -> None:
        # Celery would remind of a choice that is made in `app` at every lost connection; it wants to until it is ready.
        warnings.simplefilter("ignore", CPendingDeprecationWarning)
        log.info("ready", extra={"queue": settings.queue, "threads": settings.threads})

    def leave_logging_alone(**_: Any) -> None:
        pass

    # A user without a name is taken for root, of whom Celery warns because of messages other than JSON.
    warnings.simplefilter("ignore", SecurityWarning)
    signals.worker_shutting_down.connect(on_shutting_down)
    signals.worker_ready.connect(on_ready)
    signals.setup_logging.connect(leave_logging_alone)
    if settings.metrics_address:
        host, _, port = settings.metrics_address.rpartition(":")
        try:
            health.serve(host.strip("[]"), int(port), make_wsgi_app(metrics.registry), signs)
        except OSError as error:
            log.error("cannot start: %s is in use or not of this machine: %s", settings.metrics_address, error.strerror)
            return 2
        threading.Thread(target=_look, args=(app, settings.queue, signs, workplaces), name="look", daemon=True).start()
    worker = app.Worker(
        pool="threads",
        concurrency=settings.threads,
        queues=[settings.queue],
        without_gossip=True,
        without_mingle=True,
        quiet=True,
    )
    try:
        worker.start()
    finally:
        workplaces.close()
    return int(worker.exitcode or 0)


def _feel(app: Celery, signs: Health) -> None:
    """Have the main loop give signs of life, for as long as it is connected."""

    class Beat(bootsteps.StartStopStep):
        requires = ("celery.worker.consumer.tasks:Tasks",)

        def __init__(self, consumer: Any, **options: Any) -> None:
            super().__init__(consumer, **options)
            self.entry: Any = None

        def start(self, consumer: Any) -> None:
            signs.beat()
            self.entry = consumer.timer.call_repeatedly(health.BEAT_SECONDS, signs.beat)

        def stop(self, consumer: Any) -> None:
            if self.entry is not None:
                self.entry.cancel()
            signs.lost()

    app.steps["consumer"].add(Beat)


def _look(app: Celery, queue: str, signs: Health, workplaces: Workplaces) -> None:
    """Look at the queue until the process ends."""
    while not workplaces.ending:
        workplaces.wait(health.LOOK_SECONDS)
        signs.saw(waiting(app, queue) if signs.ready else None)


if __name__ == "__main__":
    sys.exit(main())
