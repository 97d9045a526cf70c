"""`faceblur batch`: the pictures of a bucket or folder into another, as a job that can be cut off and goes on.

    faceblur batch run s3://photos/2026/ s3://blurred/2026/ --cluster workers:50051 --broker redis://broker/0
    faceblur batch run photos/ blurred/          # starts on this machine what it needs, and ends it again
    faceblur batch watch photos/ blurred/        # the same, and goes on with what is new until Ctrl-C

Without --cluster (FACEBLUR_BATCH_SERVER) a worker is started on this machine, without --broker (FACEBLUR_BATCH_BROKER,
which keeps its password out of the list of processes) a broker and a batch worker. JOB is the job's
destination; where that has several jobs, the path of one in it: DESTINATION/.faceblur/jobs/ID. Everything else that can
be set is in docs/batch.md; variables FACEBLUR_BATCH_... are read.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from . import arguments, files
from .exits import CannotGoOnError, Exit, UsageError
from .interruption import Stop, stop_on_signal
from .progress import write_json

if TYPE_CHECKING:
    from faceblur_batch.config import BatchSettings
    from faceblur_batch.driver import Ended
    from faceblur_batch.generation import Generation
    from faceblur_batch.job import JobSpec
    from faceblur_batch.ledger import Ledger
    from faceblur_batch.planner import Status
    from faceblur_batch.watched import Watched

    from .redactor import OpenRedactor

    SettingsT = TypeVar("SettingsT", bound=BatchSettings)

HELP = "blur the pictures of a bucket or folder into another, as a job (docs/batch.md)"
_EVERY = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    run = actions.add_parser("run", help="begin a job, or go on with it", allow_abbrev=False)
    watch = actions.add_parser("watch", help="keep the destination in step with the source", allow_abbrev=False)
    for parser_of in (run, watch):
        parser_of.add_argument("source", metavar="SOURCE", help="s3://bucket/prefix or a folder")
        parser_of.add_argument("destination", metavar="DESTINATION", help="the same, beside the source")
    _add_watching(watch)
    for parser_of in (run, watch):
        _add_surroundings(parser_of)
        _add_job(parser_of)
        arguments.add_detection(parser_of)
        arguments.add_obscuring(parser_of)
        arguments.add_limits(parser_of)
    run.add_argument("--dry-run", action="store_true", help="only count what would be done")
    run.add_argument("--check", action="store_true", help="look at every output, should some have been deleted")
    resume = actions.add_parser("resume", help="go on with a job that was cut off, cancelled or stopped")
    resume.add_argument("job", metavar="JOB")
    _add_surroundings(resume)
    for name, text in (("status", "say how far a job is"), ("cancel", "stop a job; what is written stays")):
        action = actions.add_parser(name, help=text)
        action.add_argument("job", metavar="JOB")
        _add_profile(action)
    report = actions.add_parser("report", help="write a job's report anew, and fetch it")
    report.add_argument("job", metavar="JOB")
    report.add_argument("--samples", type=int, default=0, metavar="N", help="show so many results in it (default: 0)")
    report.add_argument("--to", type=Path, metavar="FOLDER", help="copy report, manifest and root there")
    _add_profile(report)


def run(args: argparse.Namespace, open_redactor: OpenRedactor) -> Exit:
    """Do what is asked for; see the module.

    Raises:
        UsageError: It makes no sense.
        CannotGoOnError: Nothing (more) can be done.
    """
    from faceblur_batch.errors import BatchError, InvalidLocation
    from faceblur_process.settings import ConfigurationError

    actions: dict[str, Callable[[argparse.Namespace], Exit]] = {
        "run": _run,
        "watch": _watch,
        "resume": _resume,
        "status": _status,
        "cancel": _cancel,
        "report": _report,
    }
    try:
        return actions[args.action](args)
    except (ConfigurationError, InvalidLocation) as error:
        raise UsageError(str(error)) from error
    except BatchError as error:
        raise CannotGoOnError(f"{error} [{error.reason}]") from error


def _add_watching(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("when something is new")
    group.add_argument(
        "--every", dest="watch_every_seconds", type=_duration, metavar="TIME", help="list the source so often (1h)"
    )
    group.add_argument(
        "--webhook", dest="webhook_address", metavar="HOST:PORT", help="take notifications of the store that are posted"
    )
    group.add_argument(
        "--webhook-token-file", type=Path, metavar="FILE", help="has what senders show; needed beyond this machine"
    )
    group.add_argument("--sqs", dest="sqs_url", metavar="URL", help="read notifications of the store from this queue")


def _duration(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if not found or not float(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time, such as 30s, 5m, 1h or 1d")
    return float(found[1]) * units[found[2]]


def _add_surroundings(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where the work is done")
    group.add_argument("--cluster", metavar="ADDRESS", help="the workers, HOST:PORT (default: one on this machine)")
    group.add_argument("--tls-ca", type=Path, metavar="FILE", help="encrypt; who may have issued its certificates")
    group.add_argument("--tls-certificate", type=Path, metavar="FILE", help="show it this certificate")
    group.add_argument("--tls-key", type=Path, metavar="FILE", help="the certificate's key")
    group.add_argument("--tls-server-name", metavar="NAME", help="in its certificates, if not the host's")
    group.add_argument("--broker", metavar="URL", help="redis://, valkey:// or amqp:// (default: one on this machine)")
    group.add_argument("--queue", metavar="NAME", help="of the broker (default: faceblur.batch)")
    group.add_argument("--storage-profiles", type=Path, metavar="FILE", help="options of locations, by profile (JSON)")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="the status as JSON lines on stdout")
    shown.add_argument("-q", "--quiet", action="store_true", help="say nothing but what is wrong")
    if parser.prog.endswith("resume"):
        _add_profile(parser, file=False)


def _add_profile(parser: argparse.ArgumentParser, *, file: bool = True) -> None:
    parser.add_argument("--profile-of-job", metavar="NAME", default="", help="storage profile of the job's destination")
    if file:
        parser.add_argument("--storage-profiles", type=Path, metavar="FILE", help="options of locations (JSON)")


def _add_job(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("job")
    group.add_argument(
        "--name", default="", metavar="ID", help="the job's id (default: made of source and destination)"
    )
    group.add_argument("--source-profile", default="", metavar="NAME", help="storage profile of the source")
    group.add_argument("--destination-profile", default="", metavar="NAME", help="storage profile of the destination")
    group.add_argument("--page-size", type=int, metavar="N", help="most objects of one task (default: 1000; here: 200)")
    group.add_argument("--parallelism", type=int, metavar="N", help="most pages at once (default: 16)")
    group.add_argument("--attempts", type=int, metavar="N", help="tries of a picture that takes workers with it (3)")
    group.add_argument("--max-errors", type=int, metavar="N", help="stop when more objects have no result")
    group.add_argument("--max-error-percent", type=float, metavar="P", help="the same as a share")
    group.add_argument("--deadline", dest="deadline_seconds", type=float, metavar="S", help="stop after S seconds")
    group.add_argument("--samples", type=int, metavar="N", help="results that the report shows (default: 0)")
    group = parser.add_argument_group("which objects, and what becomes of their names")
    group.add_argument("--prefix", metavar="TEXT", help="keys that begin so")
    group.add_argument("--suffix", dest="suffixes", action="append", metavar="TEXT", help="keys that end so")
    group.add_argument("--include", action="append", metavar="GLOB", help="keys that fit; may be repeated")
    group.add_argument("--exclude", action="append", metavar="GLOB", help="keys that fit are left out")
    group.add_argument("--newer-than", type=_moment, metavar="TIME", help="modified after, such as 2026-01-31T12:00Z")
    group.add_argument("--min-size", type=int, metavar="BYTES", help="objects of at least this length")
    group.add_argument("--max-size", type=int, metavar="BYTES", help="objects of at most this length")
    group.add_argument("--template", metavar="TEXT", help="keys of outputs (default: {dir}/{stem}{ext})")
    group.add_argument("--cache-control", metavar="TEXT", help="of outputs")
    group.add_argument("--keep-user-metadata", action="append", metavar="NAME", help="copy this header of the source")


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time, such as 2026-01-31T12:00Z") from None
    return moment if moment.tzinfo else moment.astimezone()


# The actions


def _run(args: argparse.Namespace) -> Exit:
    spec = _spec(args)
    with stop_on_signal(announce=True) as stop:
        return _drive(args, spec, stop, whole=True)


def _watch(args: argparse.Namespace) -> Exit:
    from faceblur_batch import local, logs
    from faceblur_batch.config import WatchSettings
    from faceblur_batch.driver import Driver
    from faceblur_batch.planner import ENDED
    from faceblur_batch.watch import Watch, spec_of_a_watch

    spec = spec_of_a_watch(_spec(args))
    logs.configure("error" if args.quiet or args.json else "warning", "text")
    display = _display(args)
    with stop_on_signal(announce=True) as stop, local.Local() as machine:
        settings = _settings(args, machine, spec, WatchSettings)
        driver = Driver(spec, settings)

        def seen(status: Status) -> None:
            machine.check()
            if status.phase not in ENDED:
                display(status)
            elif args.json:
                write_json(status.as_dict())
            elif not args.quiet:
                files.stderr(_sentence(status))

        watch = Watch(driver, settings, stop, resume=True, seen=seen)
        if not _named(args.broker, "BROKER", "BROKER_FILE"):
            machine.batch_worker(settings)
        if "metrics_address" in settings.model_fields_set:
            watch.show()
        with watch.receiving():
            while not stop.is_set() and not watch.watcher.halted:
                stop.wait(watch.watcher.step())
                machine.check()
            watch.watcher.close()
    if stop.is_set():
        return Exit.INTERRUPTED
    raise CannotGoOnError("the job was cancelled or stopped; faceblur batch status says why")


def _resume(args: argparse.Namespace) -> Exit:
    from faceblur_batch.generation import is_complete
    from faceblur_batch.ledger import Mark

    generation, ledger = _open(args)
    watched = _watched(generation, ledger)
    if watched.noted() is not None:
        watched.set_mark(Mark())
        if is_complete(ledger):
            files.stderr("what watches the job goes on with it, or does when it is started")
            return Exit.OK
    # Not a new pass, should it have ended meanwhile.
    with stop_on_signal(announce=True) as stop:
        return _drive(args, generation.spec, stop, whole=False)


def _drive(args: argparse.Namespace, spec: JobSpec, stop: Stop, *, whole: bool) -> Exit:
    from faceblur_batch import local, logs
    from faceblur_batch.config import BatchSettings
    from faceblur_batch.driver import Driver
    from faceblur_batch.planner import ENDED, Phase

    logs.configure("error" if args.quiet or args.json else "warning", "text")
    display = _display(args)
    with local.Local() as machine:
        settings = _settings(args, machine, spec, BatchSettings)
        driver = Driver(spec, settings)
        if getattr(args, "dry_run", False):
            return _forecast(args, driver.forecast(patience=60))
        if not _named(args.broker, "BROKER", "BROKER_FILE"):
            machine.batch_worker(settings)

        def seen(status: Status) -> None:
            machine.check()
            if status.phase not in ENDED:
                display(status)

        ended = driver.run(seen=seen, ending=stop, resume=True)
        if whole and ended.generation.named is not None and ended.status.phase is Phase.COMPLETED:
            # It was what a watch had begun: a few objects.
            ended = driver.run(seen=seen, ending=stop, resume=True)
    return _conclude(args, ended, stop)


def _conclude(args: argparse.Namespace, ended: Ended, stop: Stop) -> Exit:
    from faceblur_batch.outcomes import Kind
    from faceblur_batch.planner import Phase

    status, ledger = ended.status, ended.ledger
    where = f"{ended.generation.spec.destination.rstrip('/')}/{ledger.prefix}"
    if args.json:
        write_json({**_facts(ended.generation, status), "report": where + "report.html"})
    elif not args.quiet:
        files.stderr(_sentence(status))
        files.stderr(f"report: {where}report.html")
    if stop.is_set():
        return Exit.INTERRUPTED
    if status.phase is not Phase.COMPLETED:
        raise CannotGoOnError(f"the job is {status.phase}: {status.reason}")
    return Exit.SOME_FAILED if status.summary.errors or status.summary.kinds[Kind.CHANGED] else Exit.OK


def _forecast(args: argparse.Namespace, forecast: Any) -> Exit:
    values = dataclasses.asdict(forecast)
    if args.json:
        write_json(values)
    else:
        todo = forecast.objects - forecast.unchanged
        sys.stdout.write(
            f"{todo:,} of {forecast.objects:,} pictures to do ({forecast.bytes / 1e6:,.1f} MB in all), "
            f"{forecast.unchanged:,} done already; {forecast.skipped:,} other objects\n"
        )
    return Exit.OK


def _status(args: argparse.Namespace) -> Exit:
    from faceblur_batch.driver import status_of

    generation, ledger = _open(args)
    noted = _watched(generation, ledger).noted()
    write_json(_facts(generation, status_of(ledger, generation)) | ({"watch": noted} if noted else {}))
    return Exit.OK


def _cancel(args: argparse.Namespace) -> Exit:
    from faceblur_batch.generation import is_complete
    from faceblur_batch.ledger import Mark, State

    generation, ledger = _open(args)
    watched, mark = _watched(generation, ledger), Mark(State.CANCEL, "cancelled")
    running, being_watched = not is_complete(ledger), (watched.noted() or {}).get("state", "ended") != "ended"
    if not running and not being_watched:
        raise CannotGoOnError("the job has ended already")
    if being_watched:
        watched.set_mark(mark)
    if running:
        ledger.set_mark(mark)
    files.stderr("cancelled; what is written stays, and `faceblur batch resume` goes on")
    return Exit.OK


def _report(args: argparse.Namespace) -> Exit:
    from faceblur_batch.driver import status_of, write_report_so_far
    from faceblur_batch.manifest import part_name

    generation, ledger = _open(args)
    write_report_so_far(ledger, generation, status_of(ledger, generation), samples=args.samples)
    if args.to:
        args.to.mkdir(parents=True, exist_ok=True)
        parts = (part_name(number) for number in range(sys.maxsize))
        for name in ("report.json", "report.html", "root.json"):
            if (data := ledger.get(name)) is not None:
                (args.to / name).write_bytes(data)
        for name in parts:
            if (data := ledger.get(name)) is None:
                break
            (args.to / name).write_bytes(data)
    where = args.to or f"{generation.spec.destination.rstrip('/')}/{ledger.prefix.rstrip('/')}"
    sys.stdout.write(f"{where}/report.html\n")
    return Exit.OK


# What they share


def _spec(args: argparse.Namespace) -> JobSpec:
    """What is asked for.

    Raises:
        UsageError: It makes no sense.
    """
    from pydantic import ValidationError

    from faceblur_batch.job import JobSpec

    local = not _named(args.broker, "BROKER", "BROKER_FILE")
    values = {
        "page_size": args.page_size or (200 if local else None),
        "parallelism": args.parallelism or (4 if local else None),
        "selection": _given(args, "prefix", "suffixes", "include", "exclude", "newer_than", "min_size", "max_size"),
        "headers": {"cache_control": args.cache_control, "keep_metadata": args.keep_user_metadata or ()},
        "options": _plain(arguments.asked_of(args)),
        **_given(args, "source", "destination", "name", "source_profile", "destination_profile", "template", "check"),
        **_given(args, "attempts", "max_errors", "max_error_percent", "deadline_seconds", "samples"),
    }
    try:
        return JobSpec(**{name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = "--" + str(first["loc"][0]).replace("_", "-") if first["loc"] else ""
        raise UsageError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None


def _settings(args: argparse.Namespace, machine: Any, spec: JobSpec, kind: type[SettingsT]) -> SettingsT:
    """Settings of this process and of batch workers on this machine, which are started as far as they are not named.

    Raises:
        UsageError: They make no sense.
        ConfigurationError: A value is wrong.
    """
    from faceblur_process.settings import read

    here = not args.cluster and not _named(None, "SERVER")
    if here and _named(args.tls_ca, "TLS_CA"):
        raise UsageError("--tls-ca: a worker on this machine has no certificate; name the workers with --cluster")
    given: dict[str, Any] = _given(args, "broker", "queue", "storage_profiles")
    given |= _given(args, "tls_ca", "tls_certificate", "tls_key", "tls_server_name")
    given |= _given(args, "watch_every_seconds", "webhook_address", "webhook_token_file", "sqs_url")
    if not _named(args.broker, "BROKER", "BROKER_FILE") and not getattr(args, "dry_run", False):
        given |= {"broker": machine.broker(), "threads": min(4, spec.parallelism), "concurrency": 4}
        given |= {"flush_seconds": 2.0, "poll_seconds": 0.5, "mark_seconds": 1.0}
    if args.cluster or here:
        given["server"] = args.cluster or machine.worker()
    return read(kind, given)


def _named(flag: object, *variables: str) -> bool:
    """Whether the command line or the environment says where something is."""
    from faceblur_batch.config import PREFIX

    return flag is not None or any(os.environ.get(PREFIX + name) for name in variables)


def _open(args: argparse.Namespace) -> tuple[Generation, Ledger]:
    """The last generation of the job that is named.

    Raises:
        UsageError: There is none, or there are several.
    """
    from faceblur_batch.config import BatchSettings
    from faceblur_batch.generation import latest
    from faceblur_batch.ledger import ROOT, jobs
    from faceblur_batch.storage.opening import open_store
    from faceblur_process.settings import read

    settings = read(BatchSettings, _given(args, "storage_profiles"))
    location, found, job = args.job.partition("/" + ROOT)
    store = open_store(location, settings.storage(args.profile_of_job))
    names = [job.strip("/").split("/")[0]] if found else list(jobs(store))
    if len(names) != 1:
        several = "".join(f"\n  {location.rstrip('/')}/{ROOT}{name}" for name in names)
        raise UsageError(f"{store.location} has {len(names)} jobs{'; name one:' + several if names else ''}")
    generation = latest(store, names[0])
    if generation is None:
        raise UsageError(f"{store.location} has no job {names[0]}")
    return generation, generation.ledger(store)


def _watched(generation: Generation, ledger: Ledger) -> Watched:
    from faceblur_batch.watched import Watched

    return Watched(ledger.store, generation.job)


def _given(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(args, name, None)) is not None}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return value


# What a person sees


def _facts(generation: Generation, status: Status) -> dict[str, Any]:
    return {"job": generation.job, "generation": generation.number, **status.as_dict()}


def _display(args: argparse.Namespace) -> Callable[[Status], None]:
    if args.quiet:
        return lambda status: None
    if args.json:
        return _at_most_every(1.0, lambda status: write_json(status.as_dict()))
    if sys.stderr.isatty():
        return _at_most_every(0.2, lambda status: _rewrite(_sentence(status)))
    return _at_most_every(_EVERY, lambda status: files.stderr(_sentence(status)))


def _at_most_every(seconds: float, show: Callable[[Status], None]) -> Callable[[Status], None]:
    shown = time.monotonic() - seconds + 1

    def display(status: Status) -> None:
        nonlocal shown
        if time.monotonic() - shown >= seconds:
            shown = time.monotonic()
            show(status)

    return display


def _rewrite(sentence: str) -> None:
    sys.stderr.write(f"\r\x1b[K{sentence}\r")
    sys.stderr.flush()


def _sentence(status: Status) -> str:
    """One line: how far, how fast, how long."""
    from faceblur_batch.outcomes import Kind

    summary, total = status.summary, status.totals.objects
    parts = [f"{status.phase}: {summary.objects:,} of {total:,}{'' if status.planned else '+'} pictures"]
    if status.percent is not None:
        parts[0] += f" ({status.percent:.1f} %)"
    parts.append(f"{summary.faces:,} faces")
    if summary.kinds[Kind.UNCHANGED]:
        parts.append(f"{summary.kinds[Kind.UNCHANGED]:,} unchanged")
    if summary.errors:
        parts.append(f"{summary.errors:,} without a result")
    if summary.kinds[Kind.CHANGED]:
        parts.append(f"{summary.kinds[Kind.CHANGED]:,} changed meanwhile: run it again")
    if status.rate:
        parts.append(f"{status.rate:,.1f}/s")
    if status.seconds_left is not None and status.seconds_left >= 1:
        minutes, seconds = divmod(round(status.seconds_left), 60)
        parts.append(f"{minutes}:{seconds:02d} left")
    return ", ".join(parts)
