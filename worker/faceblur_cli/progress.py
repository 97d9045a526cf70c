"""What the user sees while it runs: a bar on a terminal, JSON lines or next to nothing elsewhere.

Messages go to stderr. Stdout is for data: the picture of a pipe, JSON lines.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from . import files
from .names import printable
from .records import Record, Status, Tally

if TYPE_CHECKING:
    from rich.progress import Progress


class Display(Protocol):
    """Shows a run."""

    def show(self, record: Record) -> None:
        """Show what became of one path."""
        ...

    def note(self, text: str) -> None:
        """Show a sentence, now."""
        ...

    def finish(self, tally: Tally, sentence: str) -> None:
        """Take the bar away and show the last line."""
        ...


class Lines:
    """Problems on stderr and a last line; quiet, only the problems."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet

    def show(self, record: Record) -> None:
        """See `Display`."""
        if record.status is Status.FAILED:
            self._write(f"{printable(record.file)}: {record.message} [{record.reason}]")
        elif record.warning and not self._quiet:
            self._write(f"{printable(record.file)}: {record.warning}")

    def note(self, text: str) -> None:
        """See `Display`."""
        if not self._quiet:
            self._write(text)

    def finish(self, tally: Tally, sentence: str) -> None:
        """See `Display`."""
        self.note(sentence)

    def _write(self, text: str) -> None:
        files.stderr(text)


class Bar(Lines):
    """A progress bar with rate and time left, on a terminal."""

    def __init__(self, total: Callable[[], int | None]) -> None:
        """Show the bar.

        Args:
            total: Counts the pictures; called in a thread of its own. None: it gave up.
        """
        super().__init__()
        # Imported here: it takes longer than everything else that --help needs.
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        self._bar: Progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[counts]}"),
            console=self._console,
            transient=True,
        )
        self._tally = Tally()
        self._task = self._bar.add_task("", total=None, rate="", counts="")
        self._bar.start()
        threading.Thread(target=self._count, args=(total,), daemon=True).start()

    def _count(self, total: Callable[[], int | None]) -> None:
        found = total()
        if found is not None:
            self._bar.update(self._task, total=found)

    def show(self, record: Record) -> None:
        """See `Display`."""
        super().show(record)
        if record.status is Status.SKIPPED:
            return
        tally = self._tally
        tally.add(record)
        counts = f"{tally.faces:,} faces" + (f", {tally.failed:,} failed" if tally.failed else "")
        rate = f"{tally.done / max(tally.seconds, 1e-3):.1f}/s"
        self._bar.update(self._task, advance=1, rate=rate, counts=counts)

    def finish(self, tally: Tally, sentence: str) -> None:
        """See `Display`."""
        self._bar.stop()
        super().finish(tally, sentence)

    def _write(self, text: str) -> None:
        self._console.print(text)


class JsonLines:
    """One JSON object per path on stdout, and one about the whole at the end."""

    def show(self, record: Record) -> None:
        """See `Display`."""
        line: dict[str, Any] = {"file": record.file, "status": record.status}
        for name in ("output", "reason", "message", "warning"):
            if (value := getattr(record, name)) is not None:
                line[name] = value
        if receipt := record.receipt:
            line |= {
                "faces": len(receipt.faces),
                "regions": len(receipt.regions),
                "width": receipt.width,
                "height": receipt.height,
                "milliseconds": round(receipt.milliseconds.get("total", 0), 2),
            }
        write_json(line)

    def note(self, text: str) -> None:
        """See `Display`: a sentence is for people, and JSON is asked for by programs."""

    def finish(self, tally: Tally, sentence: str) -> None:
        """See `Display`."""
        write_json(
            {
                "summary": {
                    "pictures": tally.done,
                    "faces": tally.faces,
                    "unchanged": tally.unchanged,
                    "failed": tally.failed,
                    "skipped": tally.skipped,
                    "seconds": round(tally.seconds, 3),
                    "message": sentence,
                }
            }
        )


def write_json(line: dict[str, Any]) -> None:
    """Write one line to stdout, at once. ASCII: a name that is no UTF-8 is escaped, and reads back as the same name."""
    sys.stdout.write(json.dumps(line, separators=(",", ":")) + "\n")
    sys.stdout.flush()
