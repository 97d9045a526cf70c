"""A watching process for machines: ``python -m faceblur_batch.watch SPEC.json``.

SPEC.json is a `JobSpec`, as for `plan`; everything else comes from the settings' variables. It works until SIGTERM.
What a person has cancelled or a budget has stopped, it leaves alone until it is resumed, unless ``--resume`` is given.
``/healthz``, ``/readyz`` and ``/metrics`` are at FACEBLUR_BATCH_METRICS_ADDRESS. For each pass, its last status goes to
standard output as a JSON line.

Exit codes: 2: the specification or a setting is wrong; 4: it was asked to end, start it again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from prometheus_client import make_wsgi_app
from pydantic import ValidationError

import faceblur
from faceblur_process.settings import ConfigurationError, read

from . import health, logs
from .config import WatchSettings
from .driver import Driver, Ending
from .errors import BatchError, InvalidLocation
from .inbox import Inbox
from .intake import Intake
from .job import JobSpec
from .metrics import WatchMetrics
from .planner import ENDED, Status
from .sqs import QueueReader, SqsQueue
from .watcher import Rhythm, Watcher
from .webhook import CannotListen, Server, receive

log = logging.getLogger(__name__)

_STILL_SECONDS = 600.0
_STILL_IN_A_PASS = 3600.0  # a manifest of millions of lines is written without a word


class Watch:
    """A watcher and what notifies it: everything of the process but signals."""

    def __init__(
        self,
        driver: Driver,
        settings: WatchSettings,
        ending: Ending,
        *,
        resume: bool = False,
        seen: Callable[[Status], object] = lambda status: None,
    ) -> None:
        """Prepare; nothing is opened yet.

        Args:
            driver: Of the job.
            settings: Of the process.
            ending: Set when the process has to end.
            resume: Go on also if the job was cancelled or stopped.
            seen: Called with the status of a running pass now and then.

        Raises:
            InvalidLocation: The source sends no notifications, and some are to be received.
            BatchError: The queue cannot be read.
        """
        spec = driver.spec
        self.metrics = WatchMetrics(faceblur.__version__)
        self._settings = settings
        self._inbox = Inbox(driver.destination, spec.id, settings.watch_most_keys)
        self.watcher = Watcher(
            driver,
            driver.destination,
            spec.id,
            self._inbox,
            _rhythm(settings),
            ending,
            resume=resume,
            seen=seen,
            ended=self.metrics.ended,
        )
        self._server: Server | None = None
        self._intake: Intake | None = None
        self._reader: QueueReader | None = None
        if settings.webhook_address or settings.sqs_url:
            self._intake = Intake(spec, self._inbox, self.metrics.notified)
        if settings.sqs_url and self._intake:
            queue = SqsQueue(
                settings.sqs_url,
                region=settings.sqs_region,
                credentials_folder=settings.sqs_credentials_folder,
                ca_bundle=settings.sqs_ca_bundle,
            )
            self._reader = QueueReader(queue, self._intake, threading.Event(), self.metrics.notified)

    @contextlib.contextmanager
    def receiving(self) -> Iterator[None]:
        """Receive notifications within the context.

        Raises:
            CannotListen: The address is in use, or not of this machine.
        """
        settings = self._settings
        with contextlib.ExitStack() as stack:
            if settings.webhook_address and self._intake:
                count = self.metrics.notified
                self._server = receive(settings.webhook_address, self._intake, settings.webhook_token_file, count)
                stack.callback(self._server.close)
                log.info("notifications can be posted", extra={"port": self._server.server_port})
            if self._reader:
                self._reader.start()
                stack.callback(self._reader.close)
            yield

    @property
    def ready(self) -> bool:
        """It always is: what cannot be kept now is refused one by one, and comes again."""
        return True

    def trouble(self) -> str | None:
        """What a new process would mend; None where all is well."""
        still = time.monotonic() - self.watcher.beaten
        if still > (_STILL_IN_A_PASS if self.watcher.passing else _STILL_SECONDS):
            return f"it stands still for {still:.0f} s"
        for name, receiver in (("webhook", self._server), ("queue", self._reader)):
            if receiver is not None and not receiver.alive:
                return f"nobody attends to the {name}"
        return None

    def show(self) -> None:
        """Answer probes and Prometheus until the process ends.

        Raises:
            CannotListen: The address is in use, or not of this machine.
        """
        address = self._settings.metrics_address
        if not address:
            return
        host, _, port = address.rpartition(":")
        waiting = self.metrics.waiting
        waiting.set_function(lambda: self._inbox.waiting().keys)
        try:
            health.serve(host.strip("[]"), int(port), make_wsgi_app(self.metrics.registry), self)
        except OSError as error:
            raise CannotListen(f"{address} is in use or not of this machine: {error.strerror}") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Watch a job; see the module.

    Args:
        argv: Arguments without the program's name; None takes the process's.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m faceblur_batch.watch", description=__doc__, allow_abbrev=False)
    parser.add_argument("spec", type=Path, metavar="SPEC.json")
    parser.add_argument("--resume", action="store_true", help="go on also if the job was cancelled or stopped")
    args = parser.parse_args(argv)
    ending = threading.Event()
    try:
        settings = read(WatchSettings)
        spec = JobSpec.model_validate_json(args.spec.read_bytes())
        logs.configure(settings.log_level, settings.log_format)
        driver = Driver(spec_of_a_watch(spec), settings)
        watch = Watch(driver, settings, ending, resume=args.resume, seen=_write)
    except (ConfigurationError, InvalidLocation, OSError) as error:
        return _end(2, str(error))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        return _end(2, f"{args.spec}: {'.'.join(map(str, first['loc']))}: {first['msg']}")
    except BatchError as error:
        return _end(2, f"{error} [{error.reason}]")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    try:
        watch.show()
        with watch.receiving():
            watch.watcher.run()
    except CannotListen as error:
        return _end(2, str(error))
    return 4


def spec_of_a_watch(spec: JobSpec) -> JobSpec:
    """What passes of a watch ask for: a token would make them one, and a check would look at all outputs each time."""
    return spec.model_copy(update={"token": "", "check": False})


def _rhythm(settings: WatchSettings) -> Rhythm:
    return Rhythm(
        every=settings.watch_every_seconds,
        settle=settings.watch_settle_seconds,
        most=settings.watch_most_keys,
        keep=settings.watch_keep_days * 24 * 3600,
        poll=settings.mark_seconds,
    )


def _write(status: Status) -> None:
    if status.phase in ENDED:
        sys.stdout.write(json.dumps(status.as_dict()) + "\n")
        sys.stdout.flush()


def _end(code: int, message: str) -> int:
    sys.stderr.write(f"faceblur batch watch: {message}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
