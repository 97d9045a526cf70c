"""Log lines of the processes of a batch.

Keys may be names of persons or of their cases, so none is ever logged: a line names job, generation and page, and the
ledger, which has the access rules of the pictures, says which objects those are.
"""

from __future__ import annotations

from faceblur_process import logs


def configure(level: str, style: str) -> None:
    """Send all records to standard error; see `faceblur_process.logs.configure`."""
    logs.configure(
        level,
        style,
        left_out=("data",),  # Celery's own
        quiet=("celery.app.trace", "celery.worker.strategy"),  # `tasks` says it, with the page
    )
