"""Asks workers which version and models they run, by the metrics that they publish anyway."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError

from .api.v1alpha1 import ModelVersion
from .naming import METRICS_PORT
from .observed import Key, Manifest, WorkerReport

_TEMPLATE_HASH = "pod-template-hash"
_SECONDS = 2.0
_LONGEST_ANSWER = 1024 * 1024
_LONGEST_VERSION = 64
_MOST_MODELS = 16

log = logging.getLogger(__name__)


def read_report(text: str) -> WorkerReport | None:
    """Read what a worker runs from its metrics; None where they do not say.

    Raises:
        ValueError: These are no metrics, or values that no worker has.
    """
    version, models = "", []
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "faceblur_worker_info":
                version = sample.labels.get("version", "")
            elif sample.name == "faceblur_worker_model_info":
                labels = sample.labels
                models.append(ModelVersion(name=labels.get("name", ""), sha256=labels.get("sha256", "")))
    if len(version) > _LONGEST_VERSION or len(models) > _MOST_MODELS:
        raise ValueError("longer than what a worker says")
    return WorkerReport(version, tuple(sorted(models, key=lambda model: model.name))) if version else None


class WorkerClient:
    """Reads the metrics of workers, as an asynchronous context."""

    def __init__(self, port: int = METRICS_PORT) -> None:
        """Make a client; it connects with the first question.

        Args:
            port: On which workers publish their metrics.
        """
        self._port = port
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> WorkerClient:
        """Open the client."""
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_SECONDS), trust_env=False, connector=aiohttp.TCPConnector(limit=8)
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close all connections."""
        if self._session:
            await self._session.close()

    async def ask(self, address: str) -> WorkerReport | None:
        """Ask the worker at an IP address; None where it gives no answer that can be used."""
        assert self._session is not None
        host = f"[{address}]" if ":" in address else address
        url = f"http://{host}:{self._port}/metrics"
        try:
            async with self._session.get(url, allow_redirects=False, raise_for_status=True) as response:
                text = b""
                async for chunk in response.content.iter_chunked(64 * 1024):
                    text += chunk
                    if len(text) > _LONGEST_ANSWER:
                        raise ValueError("the answer is too long")
            return read_report(text.decode())
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, ValidationError) as error:
            log.info("worker %s does not say what it runs: %s", address, str(error) or type(error).__name__)
            return None


class Reports:
    """What the workers of all clusters say, asked once for each generation of pods and never waited for."""

    def __init__(
        self, ask: Callable[[str], Awaitable[WorkerReport | None]], answered: Callable[[Key], None] = lambda key: None
    ) -> None:
        """Begin with no reports.

        Args:
            ask: Asks the worker at an address.
            answered: Called with the cluster for which there is something new.
        """
        self.answered = answered
        self._ask = ask
        self._reports: dict[Key, tuple[str, WorkerReport | None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def of(self, key: Key, pods: Iterable[Manifest]) -> WorkerReport | None:
        """The report of the cluster's newest generation of pods, as far as one of them is ready and has answered."""
        newest = newest_ready(pods)
        if newest is None:
            return None
        generation = newest["metadata"].get("labels", {}).get(_TEMPLATE_HASH, "")
        known = self._reports.get(key)
        if known is None or known[0] != generation:
            self._reports[key] = (generation, None)
            task = asyncio.create_task(self._find_out(key, generation, newest["status"]["podIP"]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return None
        return known[1]

    def ask_again(self, key: Key) -> None:
        """Ask anew with the next look, where there was no answer."""
        if key in self._reports and self._reports[key][1] is None:
            del self._reports[key]

    def forget(self, key: Key) -> None:
        """Drop the report of a cluster that is gone."""
        self._reports.pop(key, None)

    async def close(self) -> None:
        """Give up all questions."""
        for task in list(self._tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _find_out(self, key: Key, generation: str, address: str) -> None:
        report = await self._ask(address)
        if report is not None and key in self._reports and self._reports[key][0] == generation:
            self._reports[key] = (generation, report)
            self.answered(key)


def newest_ready(pods: Iterable[Manifest]) -> Manifest | None:
    """The pod that was made last among those that are ready and stay."""
    ready = [
        pod
        for pod in pods
        if "deletionTimestamp" not in pod["metadata"]
        and pod.get("status", {}).get("podIP")
        and any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))
    ]
    return max(ready, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]), default=None)
