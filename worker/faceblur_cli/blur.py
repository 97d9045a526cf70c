"""`faceblur blur`: files and folders in, the same with obscured faces out."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import itertools
import os
import stat
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from faceblur_engine.errors import EngineError, ModelError, RuntimeUnavailable
from faceblur_engine.types import Format, Receipt

from . import arguments, files
from .exits import CannotGoOnError, Exit, UsageError
from .files import FileProblem
from .interruption import Stop, closing, stop_on_signal
from .names import printable
from .pool import in_order
from .progress import Bar, Display, JsonLines, Lines
from .receipts import Receipts
from .records import Record, Status, Tally
from .redactor import Opened, OpenRedactor, opened
from .report import Report
from .sources import PIPE, Found, Inputs, Item, Naming, Passed, format_of
from .state import Entry, State, settings_of
from .thumbnails import thumbnail_of

HELP = "obscure the faces in pictures"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    arguments.add_inputs(parser, pipe="; - is a picture from a pipe")
    parser.add_argument("-o", "--out", metavar="OUT", help="folder, file (for one picture), or - (stdout)")
    parser.add_argument("--force", action="store_true", help="repeat what is done; replace results that are not ours")
    parser.add_argument("--report", type=Path, metavar="FILE.html", help="write a page that shows the results")
    parser.add_argument(
        "--report-pictures", type=int, default=300, metavar="N", help="how many results it shows (default: 300)"
    )
    parser.add_argument("--receipts", type=Path, metavar="FILE.jsonl", help="append one JSON line per picture")
    arguments.add_names(parser)
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="one JSON line per path on stdout, and a summary")
    shown.add_argument("-q", "--quiet", action="store_true", help="say nothing but what failed")
    arguments.add_detection(parser)
    arguments.add_obscuring(parser)
    arguments.add_limits(parser)
    arguments.add_machine(parser)
    arguments.add_server(parser)


def run(args: argparse.Namespace, open_redactor: OpenRedactor) -> Exit:
    """Obscure the faces of every picture; see the module.

    Raises:
        UsageError: What was asked for makes no sense.
        CannotGoOnError: Nothing (more) can be done.
    """
    labels = arguments.labels_of(args)
    job, args.format = _job_of(args)
    engine = opened(args, open_redactor, single=job.single)
    options = engine.options

    with contextlib.ExitStack() as stack:
        receipts = Receipts(args.receipts, labels) if args.receipts else None
        if receipts:
            stack.callback(receipts.close)
        report = Report(args.report, labels, args.report_pictures) if args.report else None
        if report:
            stack.callback(report.close)
        settings = settings_of(engine.version, options, engine.redactor.models)
        state = State(job.root, settings) if job.root and not job.target else None
        if state:
            stack.callback(state.close)
        stop = stack.enter_context(stop_on_signal(announce=not (args.json or args.quiet)))
        stack.enter_context(closing(engine.close, stop))
        naming = Naming(options.format, fold=state is not None and state.folds_case)
        display = _display(args, job, naming, stop)
        tally = Tally()
        work = Blur(engine, state, job.root, settings["settings"], stop, args.force, receipts, report)
        found = job.items(naming)
        ending = ""
        try:
            for record in in_order(found, work, jobs=engine.jobs, stop=stop):
                tally.add(record)
                display.show(record)
                if receipts and record.status is Status.FAILED:
                    receipts.failed(record)
                if report:
                    report.add(record)
            if stop.signalled:
                ending = "interrupted, the same command goes on from here; "
        except BaseException:
            ending = "stopped; "
            raise
        finally:
            sentence = ending + tally.sentence()
            where = f" → {printable(str(job.out))}" if tally.done else ""
            # After a closed pipe or a fault, too, the terminal gets its bar taken away and the report its page.
            with contextlib.suppress(BrokenPipeError):
                display.finish(tally, sentence + where)
            if report:
                report.finish(tally, sentence, engine.version, options)
        if stop.signalled:
            return Exit.INTERRUPTED
        if not tally.found:
            raise CannotGoOnError(_nothing(tally))
        return tally.exit_code


def _nothing(tally: Tally) -> str:
    if tally.skipped:
        return "no picture found; --json names what was skipped, and why"
    return "no picture found"


@dataclasses.dataclass(frozen=True, slots=True)
class _Job:
    """Where pictures come from and where results go.

    Attributes:
        inputs: The paths; None for a picture from a pipe.
        out: As the user gave it.
        root: The folder of the results; None for stdout.
        target: Name of the one result if the user chose it.
    """

    inputs: Inputs | None
    out: str
    root: Path | None
    target: str | None

    @property
    def single(self) -> bool:
        """Whether there is one picture and no more."""
        return self.inputs is None or self.inputs.single_file is not None

    def items(self, naming: Naming) -> Iterator[Found]:
        """What is there to do."""
        if self.inputs is None:
            return iter([Item(None, PIPE, self.target or PIPE, named=True)])
        return self.inputs.walk(naming, self.root, self.target)


def _job_of(args: argparse.Namespace) -> tuple[_Job, Format | None]:
    """Make out what OUT is, and the format that is asked for; OUT's extension decides it where nothing else does."""
    pipe = PIPE in args.paths
    out = args.out if args.out is not None else PIPE if pipe else None
    if out is None:
        raise UsageError("where to? Give a folder with -o")
    if not out:
        raise UsageError("OUT is empty; was a variable not set?")
    if pipe and len(args.paths) > 1:
        raise UsageError("a picture from a pipe (-) goes alone")
    if pipe and files.is_terminal(sys.stdin):
        raise UsageError("stdin is a terminal; - takes a picture from a pipe, as in: faceblur blur - < a.jpg > b.jpg")
    if out == PIPE:
        inputs = None if pipe else Inputs(args.paths, follow_links=args.follow_links)
        if inputs and not inputs.single_file:
            raise UsageError("-o - writes one picture; give one file, or a folder for -o")
        if args.json:
            raise UsageError("-o - and --json both write to stdout")
        if files.is_terminal(sys.stdout):
            raise UsageError("stdout is a terminal; redirect it to a file or a pipe")
        return _Job(inputs, "stdout", None, None), args.format

    path = Path(out)
    named_format = None if path.is_dir() or out.endswith(os.sep) else format_of(path.name)
    inputs = None if pipe else Inputs(args.paths, out=path, follow_links=args.follow_links)
    if named_format is None:
        if inputs is None:
            raise UsageError("a picture from a pipe has no name; give a file for -o, with its extension, or -")
        if path.exists() and not path.is_dir():
            raise UsageError(f"{printable(out)} is a file and has no picture's extension; give a folder")
        return _Job(inputs, out, path, None), args.format
    if inputs is not None and not inputs.single_file:
        raise UsageError(
            f"{printable(out)} is a file's name and takes one picture; give a folder, as in {printable(out)}/"
        )
    if named_format is Format.HEIC:
        raise UsageError("HEIC can be read but not written; choose another extension")
    if args.format not in (None, named_format):
        raise UsageError(f"{printable(out)} and --format {args.format} contradict each other")
    return _Job(inputs, out, path.parent, path.name), named_format


def _display(args: argparse.Namespace, job: _Job, naming: Naming, stop: Stop) -> Display:
    if args.json:
        return JsonLines()
    if args.quiet or job.single or not files.is_terminal(sys.stderr):
        return Lines(quiet=args.quiet)

    def total() -> int | None:
        count = 0
        for found in job.items(naming):
            count += isinstance(found, Item) or found.failed
            if stop.is_set():
                return None
        return count

    return Bar(total)


class Blur:
    """Takes one path from file to file. Called by several threads at once; keeps nothing about any picture."""

    def __init__(
        self,
        engine: Opened,
        state: State | None,
        root: Path | None,
        settings: str,
        stop: Stop,
        force: bool,
        receipts: Receipts | None,
        report: Report | None,
    ) -> None:
        self._redactor = engine.redactor
        self._options = engine.options
        self._version = engine.version
        self._state = state
        self._root = root
        self._settings = settings
        self._stop = stop
        self._force = force
        self._receipts = receipts
        self._thumbnails = itertools.count()
        self._max_thumbnails = report.pictures if report else 0

    def __call__(self, found: Found) -> Record:
        """Process what was found and say what became of it.

        Raises:
            CannotGoOnError: The disk is full, or the engine cannot be used.
            Interrupted: The run is to stop.
        """
        if isinstance(found, Passed):
            return passed(found)
        self._stop.checkpoint()
        target = self._root / found.target if self._root else None
        before = _stat(target)
        try:
            return self._process(found, target, before)
        except (ModelError, RuntimeUnavailable) as error:
            raise CannotGoOnError(str(error)) from error
        except (EngineError, FileProblem) as error:
            earlier = "; the result of an earlier run was left as it is" if self._noted(found, before) else ""
            return Record(found.file, Status.FAILED, reason=error.reason, message=f"{error}{earlier}")
        except (BrokenPipeError, CannotGoOnError):
            raise
        except Exception as error:
            return faulty(found, error)

    def _process(self, item: Item, target: Path | None, before: os.stat_result | None) -> Record:
        fd, info = files.open_picture(item.path, named=item.named)
        try:
            if target and before:
                self._refuse_original(target, info)
            entry = self._noted(item, before)
            if target and before and not entry and not self._force:
                raise FileProblem("OUTPUT_EXISTS", "its result's name is taken by a file that is not ours; see --force")
            done = entry if entry and before and not self._force and entry.settings == self._settings else None
            if done and before and _same(done, info, before):
                return Record(item.file, Status.UNCHANGED, output=str(target))
            data = self._read(fd, info)
        finally:
            os.close(fd)
        if done and before and target and self._same_content(done, info, before, data, target):
            return Record(item.file, Status.UNCHANGED, output=str(target))
        result = self._redactor.redact(data, self._options, checkpoint=self._stop.checkpoint)
        del data
        self._stop.checkpoint()
        receipt = result.receipt

        def note(written: os.stat_result) -> None:
            if self._receipts:
                self._receipts.done(item.file, receipt)
            if self._state:
                self._state.note(self._entry(item, info, written, receipt))

        if target is None:
            if self._receipts:
                self._receipts.done(item.file, receipt)
            sys.stdout.buffer.write(result.image)
            sys.stdout.buffer.flush()
        else:
            files.write_atomically(target, result.image, note)
        thumbnail = None
        if self._max_thumbnails and next(self._thumbnails) < self._max_thumbnails:
            thumbnail = thumbnail_of(result.image)
        return Record(
            item.file,
            Status.DONE,
            output=str(target) if target else None,
            warning=_warning(item, receipt.format, receipt.output_format),
            receipt=receipt,
            thumbnail=thumbnail,
        )

    def _read(self, fd: int, info: os.stat_result) -> bytes:
        try:
            return files.read(fd, info.st_size, self._options.limits.max_bytes)
        except OSError as error:
            raise FileProblem("READ_FAILED", f"cannot read it: {error.strerror}") from error

    @staticmethod
    def _refuse_original(target: Path, info: os.stat_result) -> None:
        """Whatever the names look like: a hard link, a link, another case of the same letters."""
        with contextlib.suppress(OSError):
            if os.path.samestat(target.stat(), info):
                raise FileProblem("SAME_FILE", "its result would replace the original; choose another folder for -o")

    def _noted(self, item: Item, before: os.stat_result | None) -> Entry | None:
        return self._state.find(item.target) if self._state and before else None

    def _same_content(
        self, entry: Entry, info: os.stat_result, before: os.stat_result, data: bytes, target: Path
    ) -> bool:
        """Whether only the times differ, as after copying either folder; if so the new ones are noted."""
        if entry.out_size != before.st_size or entry.sha256 != hashlib.sha256(data).hexdigest():
            return False
        if entry.out_mtime_ns != before.st_mtime_ns:
            try:
                if hashlib.sha256(target.read_bytes()).hexdigest() != entry.out_sha256:
                    return False
            except OSError:
                return False
        if self._state:
            times: dict[str, Any] = {"mtime_ns": info.st_mtime_ns, "out_mtime_ns": before.st_mtime_ns}
            self._state.note(dataclasses.replace(entry, size=info.st_size, **times))
        return True

    def _entry(self, item: Item, info: os.stat_result, written: os.stat_result, receipt: Receipt) -> Entry:
        return Entry(
            out=item.target,
            # Of several servers one may have another version than the one that was asked: then it is repeated.
            settings=self._settings if receipt.version == self._version else "",
            size=info.st_size,
            mtime_ns=info.st_mtime_ns,
            sha256=receipt.input_sha256,
            out_size=written.st_size,
            out_mtime_ns=written.st_mtime_ns,
            out_sha256=receipt.output_sha256 or "",
        )


def passed(found: Passed) -> Record:
    """Say that something was passed over."""
    status = Status.FAILED if found.failed else Status.SKIPPED
    return Record(found.file, status, reason=found.reason, message=found.message)


def faulty(item: Item, error: Exception) -> Record:
    """Say that a picture met a fault of ours: where, not what it said, which may hold what is in the picture."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{type(error).__name__} in {Path(frame.filename).name}, line {frame.lineno}"
    message = (
        "not enough memory" if isinstance(error, MemoryError) else f"a fault in faceblur ({where}); please report it"
    )
    return Record(item.file, Status.FAILED, reason="INTERNAL_ERROR", message=message)


def _stat(target: Path | None) -> os.stat_result | None:
    if target is None:
        return None
    try:
        return target.lstat()
    except OSError:
        return None


def _same(entry: Entry, info: os.stat_result, before: os.stat_result) -> bool:
    return (
        stat.S_ISREG(before.st_mode)
        and stat.S_ISREG(info.st_mode)
        and (entry.size, entry.mtime_ns) == (info.st_size, info.st_mtime_ns)
        and (entry.out_size, entry.out_mtime_ns) == (before.st_size, before.st_mtime_ns)
    )


def _warning(item: Item, source: Format, result: Format | None) -> str | None:
    announced = format_of(item.file)
    if announced is None or announced is source:
        return None
    same = result is not None and format_of(item.target) not in (None, result)
    return f"its content is {source.upper()}, not what its name says" + ("; its result's is too" if same else "")
