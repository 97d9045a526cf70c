"""A planner process for machines: ``python -m faceblur_batch.plan SPEC.json``, as a Kubernetes Job runs it.

SPEC.json is a `JobSpec`; everything else comes from the settings' variables. The status goes to standard output as
JSON lines. SIGTERM suspends the job; starting the planner again goes on with it. What a person has cancelled or a
budget has stopped stays so, unless ``--resume`` is given.

Exit codes: 0: every object has a result; 1: some have none; 2: the specification or a setting is wrong; 3: the job was
cancelled or stopped, or cannot go on; 4: suspended, start it again.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import ValidationError

from . import logs
from .config import ConfigurationError, settings_from
from .driver import Driver
from .errors import BatchError, InvalidLocation
from .job import JobSpec
from .outcomes import Kind
from .planner import ENDED, Phase, Status

log = logging.getLogger(__name__)

_EVERY = 5.0


def main(argv: Sequence[str] | None = None, *, report: Callable[[Status], object] = lambda status: None) -> int:
    """Drive a job; see the module.

    Args:
        argv: Arguments without the program's name; None takes the process's.
        report: Called with the status now and then, to be shown elsewhere.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m faceblur_batch.plan", description=__doc__, allow_abbrev=False)
    parser.add_argument("spec", type=Path, metavar="SPEC.json")
    parser.add_argument("--resume", action="store_true", help="go on also if the job was cancelled or stopped")
    args = parser.parse_args(argv)
    try:
        settings = settings_from({})
        spec = JobSpec.model_validate_json(args.spec.read_bytes())
        driver = Driver(spec, settings)
    except (ConfigurationError, InvalidLocation, OSError) as error:
        return _end(2, str(error))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        return _end(2, f"{args.spec}: {'.'.join(map(str, first['loc']))}: {first['msg']}")
    logs.configure(settings.log_level, settings.log_format)
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    shown = 0.0

    def seen(status: Status) -> None:
        nonlocal shown
        if status.phase in ENDED or time.monotonic() - shown >= _EVERY:
            shown = time.monotonic()
            sys.stdout.write(json.dumps(status.as_dict()) + "\n")
            sys.stdout.flush()
            report(status)

    try:
        status = driver.run(seen=seen, ending=ending, resume=args.resume).status
    except BatchError as error:
        return _end(3, f"{error} [{error.reason}]")
    if status.phase is Phase.SUSPENDED:
        return 4
    if status.phase is not Phase.COMPLETED:
        return 3
    return int(bool(status.summary.errors or status.summary.kinds[Kind.CHANGED]))


def _end(code: int, message: str) -> int:
    sys.stderr.write(f"faceblur batch planner: {message}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
