"""Answers the liveness probe and Prometheus, on one port."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from .rounds import Rounds
from .watches import Watches


class AddressInUse(Exception):
    """The port cannot be listened on; the message is one line."""


class Liveness:
    """Whether the operator does what it is there for, or would do better to be started anew.

    That the process answers says little: a loop can hang, and a watch can die without an error. So either the rounds
    have to succeed or the watches to tell something, and whatever was seen by asking has to be told by a watch as well.
    """

    def __init__(self, rounds: Rounds, watches: Watches, stale_seconds: float) -> None:
        """Set up.

        Args:
            rounds: Ask the API server.
            watches: Tell of changes.
            stale_seconds: How long each may be without success.
        """
        self._rounds = rounds
        self._watches = watches
        self._stale_seconds = stale_seconds

    def problem(self) -> str | None:
        """What is wrong, in one line; None as long as all is well."""
        silence = min(self._rounds.age(), self._watches.silence())
        if silence > self._stale_seconds:
            return f"nothing was heard from the API server for {silence:.0f} s"
        if self._watches.lag() > self._stale_seconds:
            return f"a change was seen {self._watches.lag():.0f} s ago that no watch has told of"
        return None


async def serve(address: str, registry: CollectorRegistry, problem: Callable[[], str | None]) -> web.AppRunner:
    """Listen; the caller closes with ``cleanup``.

    Args:
        address: HOST:PORT.
        registry: For ``/metrics``.
        problem: For ``/healthz``: 200 while it is None, 503 with its text else.

    Raises:
        AddressInUse: The port is taken or not of this machine.
    """

    async def healthz(_: web.Request) -> web.Response:
        wrong = problem()
        return web.Response(text=f"{wrong or 'ok'}\n", status=503 if wrong else 200)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    host, _, port = address.rpartition(":")
    try:
        await web.TCPSite(runner, host.strip("[]"), int(port)).start()
    except OSError as error:
        await runner.cleanup()
        raise AddressInUse(f"{address} cannot be listened on, it is in use or not of this machine") from error
    return runner
