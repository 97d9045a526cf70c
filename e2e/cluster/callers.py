"""Calls workers through the SDK until it is told to stop, from inside a pod; never gives a picture up by itself.

A line of JSON a second says how many pictures have been answered and why others were not; the last one, after
SIGTERM, is the whole: the test that started it reads the pod's log. Each client has connections of its own, as
programs in different pods have.

    python callers.py --target dns:///demo.shop.svc.cluster.local:50051 --picture FILE --clients 8 --rate 20
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import hashlib
import json
import signal
import sys
import time
from pathlib import Path

from faceblur import AsyncFaceBlurClient, FaceBlurError, Options, RetryConfig

RETRY = RetryConfig(attempts=30, first_pause=0.1, longest_pause=2, attempt_timeout=15)


async def call(args: argparse.Namespace) -> bool:
    """Send pictures until SIGTERM, SIGINT or `--seconds`; returns whether every single one was answered well."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    picture = args.picture.read_bytes()
    original = hashlib.sha256(picture).hexdigest()
    options = Options(profile=args.profile) if args.profile else Options()
    outcomes: collections.Counter[str] = collections.Counter()
    slowest = 0.0

    async def one(client: AsyncFaceBlurClient) -> None:
        nonlocal slowest
        began = time.monotonic()
        try:
            result = await client.blur(picture, options)
        except FaceBlurError as error:
            outcomes[f"failed: {error}"] += 1
        else:
            unchanged = hashlib.sha256(result.image).hexdigest() == original
            outcomes["failed: the picture came back as it was" if unchanged else "ok"] += 1
        slowest = max(slowest, time.monotonic() - began)

    async def caller(client: AsyncFaceBlurClient, offset: float) -> None:
        """One client: `--in-flight` pictures at all times, or a picture at each tick of `--rate`."""
        if not args.rate:

            async def without_pause() -> None:
                while not stop.is_set():
                    await one(client)

            await asyncio.gather(*(without_pause() for _ in range(args.in_flight)))
            return
        pause = args.clients / args.rate
        due = time.monotonic() + offset * pause
        async with asyncio.TaskGroup() as calls:
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), max(0.0, due - time.monotonic()))
                    return
                calls.create_task(one(client))
                due += pause

    async def report() -> None:
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 1)
            print(json.dumps({"at": round(time.time(), 2), **outcomes}), flush=True)

    if args.seconds:
        asyncio.get_running_loop().call_later(args.seconds, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(AsyncFaceBlurClient(args.target, timeout=90, retry=RETRY))
            for _ in range(args.clients)
        ]
        await asyncio.gather(report(), *(caller(client, n / args.clients) for n, client in enumerate(clients)))
    failed = {reason: count for reason, count in outcomes.items() if reason != "ok"}
    print(json.dumps({"answered": outcomes["ok"], "failed": failed, "slowest": round(slowest, 2)}), flush=True)
    return bool(outcomes["ok"]) and not failed


def main() -> None:
    """Read the command line, call, and end with 1 if any picture was not answered."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", required=True)
    parser.add_argument("--picture", type=Path, required=True)
    parser.add_argument("--profile")
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0, help="pictures per second of all clients; 0: no pauses")
    parser.add_argument("--in-flight", type=int, default=1, help="of each client, without a rate")
    parser.add_argument("--seconds", type=float, default=0, help="end by itself after this time")
    sys.exit(0 if asyncio.run(call(parser.parse_args())) else 1)


if __name__ == "__main__":
    main()
