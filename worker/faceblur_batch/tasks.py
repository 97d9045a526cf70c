"""The one task. It carries nothing but a ticket, and decides nothing but when to be tried again."""

from __future__ import annotations

import dataclasses
import logging
import random
import sys
from collections.abc import Callable
from typing import Any

from celery import Celery, Task

import faceblur

from .app import PAGE_TASK
from .config import BatchSettings
from .errors import BatchError, StorageError
from .health import Health
from .ledger import Mark, State
from .metrics import Metrics
from .page import GenerationHopeless, PageInTrouble, PageLeft, work_on
from .workplaces import Ticket, Workplaces

log = logging.getLogger(__name__)


def register(
    app: Celery,
    settings: BatchSettings,
    workplaces: Workplaces,
    metrics: Metrics,
    signs: Health | None = None,
) -> Task[Any, Any]:
    """Add the task to an application.

    Args:
        app: Of `make_app`.
        settings: Of the process.
        workplaces: What it works with.
        metrics: Counts how tasks end.
        signs: Learns of the pages in work.
    """

    @app.task(
        name=PAGE_TASK,  # part of the contract between versions: never derived from where this is
        bind=True,
        shared=False,  # of this application only
        acks_late=True,
        reject_on_worker_lost=True,
        ignore_result=True,
        max_retries=settings.retries,
    )
    def page(self: Any, *, destination: str, profile: str, job: str, generation: int, page: int) -> None:
        """Work on a page. May run twice, also at the same time: what is done is not done again."""
        facts = {"job": job, "generation": generation, "page": page}
        with (signs or Health(settings.threads)).page() as look_up:
            try:
                with metrics.running.track_inprogress():
                    end = _work(workplaces, Ticket(destination, profile, job, generation, page), facts, look_up)
            except PageInTrouble as trouble:
                metrics.pages.labels("trouble").inc()
                log.warning("page in trouble: %s", trouble, extra=facts)
                # Waiting here, not in the broker: while the surroundings are unwell, fewer pages are begun.
                pause = min(settings.retry_seconds, 2.0 ** min(self.request.retries, 30))
                workplaces.wait(pause * random.uniform(0.5, 1))  # noqa: S311
                raise self.retry(exc=trouble, countdown=0) from None
        metrics.pages.labels(end).inc()
        if end == "left" and workplaces.ending:
            # Another worker shall have it now, not when the planner finds out.
            raise self.retry(countdown=0, max_retries=sys.maxsize) from None

    return page


def _work(workplaces: Workplaces, ticket: Ticket, facts: dict[str, Any], look_up: Callable[[], None]) -> str:
    """Work on a page, and say how that ended.

    Raises:
        PageInTrouble: It has to be tried again; the message has no keys in it.
    """
    try:
        place = workplaces.workplace(ticket)

        def ending() -> bool:  # asked for every picture
            look_up()
            return place.ending()

        try:
            summary = work_on(dataclasses.replace(place, ending=ending), ticket.page)
        except GenerationHopeless as error:
            place.ledger.set_mark(Mark(State.STOP, f"no picture can be done with these options: {error}"))
            log.error("the generation was stopped: %s", error, extra=facts)
            return "given_up"
    except PageLeft as reason:
        log.info("page left: %s", reason, extra=facts)
        return "left"
    except PageInTrouble as error:
        raise PageInTrouble(f"{error}{_why(error.__cause__)}") from None
    except StorageError as error:
        raise PageInTrouble(error.reason) from None
    except BatchError as error:
        # Nothing that another try would mend: the ledger is gone, or of another version.
        log.error("page given up: %s", error.reason, extra=facts)
        return "given_up"
    if summary is None:
        return "known"
    log.info("page done", extra={**facts, "objects": summary.objects, "errors": summary.errors})
    return "done"


def _why(cause: BaseException | None) -> str:
    """What is behind a trouble; a store's message may have a key in it."""
    if isinstance(cause, faceblur.UnavailableError | faceblur.AccessDeniedError):
        return f": {cause.args[0]}"  # which certificate is not trusted can be seen from nothing else
    return f" ({type(cause).__name__})" if cause else ""
