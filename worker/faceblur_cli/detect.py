"""`faceblur detect`: where the faces are, as JSON lines, and what would be obscured.

One line per picture, in the order of the walk::

    {"file": "images/a.jpg", "width": 640, "height": 480, "format": "jpeg", "milliseconds": 12.1,
     "faces": [{"x": 10.5, "y": 20.0, "w": 31.0, "h": 40.2, "score": 0.91, "model": "centerface"}],
     "masks": [{"x": 4.3, "y": 16.0, "w": 43.4, "h": 56.3, "shape": "rounded", "radius": 9.0}]}

Coordinates are pixels of the upright picture. A picture that cannot be processed has a line with "error", "message"
and no faces, which says nothing about whether there are any.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import Any

from faceblur_engine.errors import EngineError, ModelError, RuntimeUnavailable
from faceblur_engine.types import Box, Format, Options, Receipt

from . import arguments, files
from .blur import faulty, passed
from .exits import CannotGoOnError, Exit, UsageError
from .files import FileProblem
from .interruption import Stop, closing, stop_on_signal
from .pool import in_order
from .progress import Bar, Display, Lines, write_json
from .records import Record, Status, Tally
from .redactor import Opened, OpenRedactor, opened
from .sources import Found, Inputs, Item, Naming, Passed
from .state import Entry, State, settings_of

HELP = "find faces and print them as JSON lines"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    arguments.add_inputs(parser)
    parser.add_argument("--root", type=Path, metavar="DIR", help='"file" is relative to it (default: as given)')
    parser.add_argument(
        "--draw", type=Path, metavar="DIR", help="write pictures with the boxes and scores drawn; the faces are visible"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing on stderr but what failed")
    arguments.add_detection(parser)
    arguments.add_limits(parser)
    arguments.add_machine(parser)
    arguments.add_server(parser)


def run(args: argparse.Namespace, open_redactor: OpenRedactor) -> Exit:
    """Print the faces of every picture; see the module.

    Raises:
        UsageError: What was asked for makes no sense.
        CannotGoOnError: Nothing (more) can be done.
    """
    if args.draw and args.draw.exists() and not args.draw.is_dir():
        raise UsageError(f"{args.draw} is a file; --draw takes a folder")
    inputs = Inputs(args.paths, out=args.draw, follow_links=args.follow_links)
    engine = opened(args, open_redactor, single=inputs.single_file is not None)

    with contextlib.ExitStack() as stack:
        state = None
        if args.draw:
            state = State(args.draw, settings_of(engine.version, engine.options, engine.redactor.models))
            stack.callback(state.close)
        naming = Naming(Format.JPEG, fold=state is not None and state.folds_case)
        stop = stack.enter_context(stop_on_signal(announce=not args.quiet))
        stack.enter_context(closing(engine.close, stop))
        display = _display(args, inputs, naming, stop)
        tally = Tally()
        work = Detect(engine, stop, args.draw, state)
        try:
            for record in in_order(inputs.walk(naming, args.draw), work, jobs=engine.jobs, stop=stop):
                tally.add(record)
                display.show(record)
                if record.status is not Status.SKIPPED:
                    write_json(line_of(record, args.root))
        finally:
            display.finish(tally, tally.sentence())
        if stop.signalled:
            return Exit.INTERRUPTED
        if not tally.found:
            raise CannotGoOnError("no picture found")
        return tally.exit_code


def _display(args: argparse.Namespace, inputs: Inputs, naming: Naming, stop: Stop) -> Display:
    # Lines that scroll by are progress enough, and a bar would be torn by them.
    if args.quiet or not files.is_terminal(sys.stderr) or files.is_terminal(sys.stdout):
        return Lines(quiet=args.quiet)

    def total() -> int | None:
        count = 0
        for found in inputs.walk(naming, args.draw):
            count += isinstance(found, Item) or found.failed
            if stop.is_set():
                return None
        return count

    return Bar(total)


class Detect:
    """Finds the faces of one picture. Called by several threads at once."""

    def __init__(self, engine: Opened, stop: Stop, draw: Path | None, state: State | None) -> None:
        self._redactor = engine.redactor
        self._options = engine.options
        self._stop = stop
        self._draw = draw
        self._state = state

    def __call__(self, found: Found) -> Record:
        """Process what was found and say what became of it.

        Raises:
            CannotGoOnError: The disk is full, or the engine cannot be used.
            Interrupted: The run is to stop.
        """
        if isinstance(found, Passed):
            return passed(found)
        self._stop.checkpoint()
        try:
            return self._process(found)
        except (ModelError, RuntimeUnavailable) as error:
            raise CannotGoOnError(str(error)) from error
        except (EngineError, FileProblem) as error:
            return Record(found.file, Status.FAILED, reason=error.reason, message=str(error))
        except CannotGoOnError:
            raise
        except Exception as error:
            return faulty(found, error)

    def _process(self, item: Item) -> Record:
        fd, info = files.open_picture(item.path, named=item.named)
        try:
            data = files.read(fd, info.st_size, self._options.limits.max_bytes)
        except OSError as error:
            raise FileProblem("READ_FAILED", f"cannot read it: {error.strerror}") from error
        finally:
            os.close(fd)
        receipt = self._redactor.detect(data, self._options, checkpoint=self._stop.checkpoint)
        if self._draw and self._state:
            target = self._draw / item.target
            self._refuse_foreign(target, item, info)
            files.write_atomically(
                target,
                drawing_of(data, receipt, self._options),
                lambda written: self._note(item, info, written, receipt),
            )
        return Record(item.file, Status.DONE, receipt=receipt)

    def _refuse_foreign(self, target: Path, item: Item, info: os.stat_result) -> None:
        assert self._state is not None
        if target.exists() and os.path.samestat(target.stat(), info):
            raise FileProblem("SAME_FILE", "the drawing would replace the original; choose another folder for --draw")
        if os.path.lexists(target) and not self._state.find(item.target):
            raise FileProblem("OUTPUT_EXISTS", "the drawing's name is taken by a file that is not ours")

    def _note(self, item: Item, info: os.stat_result, written: os.stat_result, receipt: Receipt) -> None:
        # The drawing's own hash is left out: nothing skips a drawing, the note only says that the name is ours.
        assert self._state is not None
        self._state.note(
            Entry(
                out=item.target,
                settings=self._state.settings,
                size=info.st_size,
                mtime_ns=info.st_mtime_ns,
                sha256=receipt.input_sha256,
                out_size=written.st_size,
                out_mtime_ns=written.st_mtime_ns,
                out_sha256="",
            )
        )


def line_of(record: Record, root: Path | None) -> dict[str, Any]:
    """Return a picture's line.

    Args:
        record: What became of it.
        root: What its name is relative to; None leaves it as given.
    """
    file = os.path.relpath(os.path.abspath(record.file), root.absolute()) if root else record.file  # noqa: PTH100
    line: dict[str, Any] = {"file": Path(file).as_posix()}
    receipt = record.receipt
    if receipt is None:
        return line | {"error": record.reason, "message": record.message, "faces": [], "masks": []}
    return line | {
        "width": receipt.width,
        "height": receipt.height,
        "format": receipt.format,
        "milliseconds": round(receipt.milliseconds.get("total", 0), 2),
        "faces": [_rounded(face.box) | {"score": round(face.score, 4), "model": face.model} for face in receipt.faces],
        "masks": [
            _rounded(region.box) | {"shape": region.shape, "radius": round(region.radius, 2)}
            for region in receipt.regions
        ],
    }


def _rounded(box: Box) -> dict[str, Any]:
    return {"x": round(box.x, 2), "y": round(box.y, 2), "w": round(box.w, 2), "h": round(box.h, 2)}


def drawing_of(data: bytes, receipt: Receipt, options: Options) -> bytes:
    """Return the picture as a JPEG without metadata, the faces' boxes, scores and regions drawn.

    Args:
        data: The source.
        receipt: What was found in it.
        options: Whose limits hold.
    """
    import io

    from PIL import Image, ImageDraw, ImageFont

    from faceblur_engine import codec

    picture = Image.fromarray(codec.decode(data, options.limits).views()[0])
    draw = ImageDraw.Draw(picture)
    line = max(1, round(max(picture.size) / 600))
    font = ImageFont.load_default(max(10, max(picture.size) / 60))
    for region in receipt.regions:
        draw.rectangle(_corners(region.box), outline="#4da3ff", width=line)
    for face in receipt.faces:
        draw.rectangle(_corners(face.box), outline="#ffd23f", width=line)
        corner = face.box.x, max(0.0, face.box.y - line)
        text = f"{face.score:.2f}"
        draw.text(corner, text, "white", font, anchor="lb", stroke_width=line, stroke_fill="black")
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=90)
    return out.getvalue()


def _corners(box: Box) -> tuple[float, float, float, float]:
    return box.x, box.y, box.x + box.w, box.y + box.h
