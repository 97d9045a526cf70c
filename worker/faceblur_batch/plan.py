"""A planner process for machines: ``python -m faceblur_batch.plan SPEC.json``, as a Kubernetes Job runs it.

SPEC.json is a `JobSpec`; everything else comes from the settings' variables. The status goes to standard output as
JSON lines, and as the planner of a FaceBlurJob also there. SIGTERM suspends the job; starting the planner again goes
on with it. What a person has cancelled or a budget has stopped stays so, unless ``--resume`` is given.

Exit codes: 0: every object has a result; 1: some have none, or a defect; 2: the specification or a setting is wrong;
3: the job was cancelled or stopped, or cannot go on; 4: suspended, start it again; 5: workers or storage do not answer,
start it again later. Unless it is 0, the last line that was written says why.
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

from faceblur_process.settings import ConfigurationError, read

from . import kubernetes_status, logs
from .config import BatchSettings
from .driver import Driver, WorkersMissing
from .errors import BatchError, InvalidLocation, TransientStorageError
from .job import JobSpec
from .outcomes import Kind
from .planner import ENDED, BrokerUnavailable, Phase, Status

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
    parser.add_argument("--token", help="instead of the specification's: a second run with it begins no new pass")
    parser.add_argument(
        "--accept-errors", action="store_true", help="end with 0 also if objects have no result: the report says which"
    )
    args = parser.parse_args(argv)
    try:
        settings = read(BatchSettings)
        spec = JobSpec.model_validate_json(args.spec.read_bytes())
        if args.token is not None:
            spec = JobSpec.model_validate({**spec.model_dump(mode="json"), "token": args.token})
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
    except (WorkersMissing, TransientStorageError, BrokerUnavailable) as error:
        return _end(4 if ending.is_set() else 5, f"{error} [{error.reason}]")
    except BatchError as error:
        return _end(3, f"{error} [{error.reason}]")
    if status.phase is not Phase.COMPLETED:
        text = f"{status.phase}: {status.reason}" if status.reason else str(status.phase)
        return _end(4 if status.phase is Phase.SUSPENDED else 3, text)
    lost = status.summary.errors + status.summary.kinds[Kind.CHANGED]
    return _end(1, f"{lost} objects have no result; the report says which") if lost and not args.accept_errors else 0


def _end(code: int, message: str) -> int:
    sys.stderr.write(f"faceblur batch planner: {message}\n")
    return code


if __name__ == "__main__":
    with kubernetes_status.reporter() as _report:
        _code = main(report=_report)
    sys.exit(_code)
