"""Tells Kubernetes how far a planner is: it writes ``status.progress`` of its FaceBlurJob, and nothing else.

Only planners can read the storage, so only they know. The operator reads what is written here and makes phase and
conditions of it; each has fields of its own. Nothing but the standard library is needed for one request every few
seconds. Progress that cannot be told is told later: no failure here ever ends or delays a batch.
"""

from __future__ import annotations

import json
import logging
import os
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from .ledger import ROOT
from .outcomes import Kind
from .planner import ENDED, Status

FIELD_MANAGER = "faceblur-planner"
_API_VERSION = "faceblur.io/v1alpha1"
_CREDENTIALS = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TIMEOUT = 10.0
_PATIENCE = 20.0
_LONGEST_PAUSE = 60.0
_LONGEST_REASON = 1000
_NOBODY = frozenset({404, 409})  # the job is gone, or another one has its name

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The FaceBlurJob that is written to.

    Attributes:
        server: URL of the API server.
        credentials: Folder with ``token`` and ``ca.crt``, both renewed by the kubelet and read for every request.
        namespace: Of the job.
        name: Of the job.
        uid: Of the job, so that none that is made anew under its name is written to.
        run: Unique id of the Kubernetes Job that this planner is of.
    """

    server: str
    credentials: Path
    namespace: str
    name: str
    uid: str
    run: str


def reporter(
    environment: Mapping[str, str] = os.environ,
) -> AbstractContextManager[Callable[[Status], object]]:
    """Return what takes in the status of a planner, as a context; outside a FaceBlurJob's planner it does nothing."""
    name = environment.get("FACEBLUR_JOB_NAME")
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not name or not host:
        return nullcontext(lambda status: None)
    return Reporter(
        Target(
            server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
            credentials=_CREDENTIALS,
            namespace=environment["FACEBLUR_JOB_NAMESPACE"],
            name=name,
            uid=environment["FACEBLUR_JOB_UID"],
            run=environment["FACEBLUR_JOB_RUN"],
        )
    )


class Reporter:
    """Writes the last status it was given, in a thread of its own; what came in between is left out."""

    def __init__(self, target: Target, *, first_pause: float = 1.0, patience: float = _PATIENCE) -> None:
        """Set up; nothing is sent before the context is entered.

        Args:
            target: Where to.
            first_pause: Seconds before what failed is tried again; later pauses double, up to a minute.
            patience: Seconds that the end of the context waits for the last status to be written.
        """
        self._target = target
        self._first_pause = first_pause
        self._patience = patience
        self._news = threading.Condition()
        self._latest: Status | None = None
        self._ending = threading.Event()
        self._over = False
        self._said = ""
        self._thread = threading.Thread(target=self._run, name="status", daemon=True)

    def __enter__(self) -> Reporter:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait until the last status is written, though not for ever."""
        with self._news:
            self._ending.set()
            self._news.notify_all()
        self._thread.join(self._patience)
        self._over = True

    def __call__(self, status: Status) -> None:
        """Take in a status."""
        with self._news:
            self._latest = status
            self._news.notify_all()

    def _run(self) -> None:
        pause = self._first_pause
        while not self._over:
            with self._news:
                self._news.wait_for(lambda: self._latest is not None or self._ending.is_set())
                status = self._latest
            if status is None:
                return
            if self._write(status):
                pause = self._first_pause
                with self._news:
                    if self._latest is status:
                        self._latest = None
                continue
            if self._ending.wait(pause):
                time.sleep(self._first_pause)
            pause = min(_LONGEST_PAUSE, 2 * pause)

    def _write(self, status: Status) -> bool:
        """Write a status; returns whether that is done with."""
        try:
            _apply(self._target, progress_of(status, self._target.run, datetime.now(UTC)))
        except urllib.error.HTTPError as error:
            self._say(f"the API server answers {error.code} {error.reason}")
            return error.code in _NOBODY
        except (OSError, ValueError) as error:
            self._say(f"the API server is not reached: {type(error).__name__}: {error}")
            return False
        self._said = ""
        return True

    def _say(self, text: str) -> None:
        """Once for as long as it stays the same."""
        if text != self._said:
            self._said = text
            log.warning("the progress of FaceBlurJob %s is not written: %s", self._target.name, text)


def progress_of(status: Status, run: str, now: datetime) -> dict[str, Any]:
    """Return a status as the fields of ``status.progress``.

    Args:
        status: Of a generation.
        run: See `Target`.
        now: The time.
    """
    summary, percent = status.summary, status.percent
    progress = {
        "run": run,
        "phase": str(status.phase),
        "reason": status.reason[:_LONGEST_REASON],
        "job": status.job,
        "generation": status.generation,
        "objects": status.totals.objects,
        "listed": status.planned,
        "skipped": status.totals.skipped,
        "done": summary.objects,
        **{_camel(kind): summary.kinds[kind] for kind in Kind},
        "errors": summary.errors,
        "faces": summary.faces,
        "bytesIn": summary.bytes_in,
        "bytesOut": summary.bytes_out,
        "rate": f"{status.rate:.1f}/s",
        "timeLeft": "" if status.seconds_left is None or status.phase in ENDED else _duration(status.seconds_left),
        "report": f"{ROOT}{status.job}/{status.generation:08d}/report.html" if status.phase in ENDED else "",
        "updated": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return progress if percent is None else progress | {"percent": int(percent)}  # 100 is not said before it is so


def _apply(target: Target, progress: dict[str, Any]) -> None:
    """Server-side apply of a job's progress."""
    kind, manager = "faceblurjobs", FIELD_MANAGER
    path = f"/apis/{_API_VERSION}/namespaces/{target.namespace}/{kind}/{target.name}/status"
    body = {
        "apiVersion": _API_VERSION,
        "kind": "FaceBlurJob",
        "metadata": {"name": target.name, "namespace": target.namespace, "uid": target.uid},
        "status": {"progress": progress},
    }
    request = urllib.request.Request(  # noqa: S310  the server's scheme is our own choice
        f"{target.server}{path}?fieldManager={manager}&force=true",
        data=json.dumps(body).encode(),
        method="PATCH",
        headers={
            "Authorization": f"Bearer {(target.credentials / 'token').read_text(encoding='ascii').strip()}",
            "Content-Type": "application/apply-patch+yaml",
            "Accept": "application/json",
            "User-Agent": manager,
        },
    )
    context = ssl.create_default_context(cafile=str(target.credentials / "ca.crt"))
    # Proxies of the environment are for the outside world.
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context), _NoRedirects
    )
    with opener.open(request, timeout=_TIMEOUT) as answer:
        answer.read()


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The token is for nobody else."""

    def redirect_request(self, *args: Any, **more: Any) -> None:
        """Follow none."""


def _camel(kind: str) -> str:
    first, *others = kind.split("_")
    return first + "".join(map(str.capitalize, others))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours}h"
    if hours:
        return f"{hours}h{minutes}m"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
