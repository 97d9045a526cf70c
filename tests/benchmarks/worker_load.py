"""Sends pictures to a worker at the times of a Poisson process, and says how long the answers took.

Open loop: when a picture is due it is sent, whatever became of those before, and its latency counts from then.
A generator that waits for answers measures a worker that is never asked more than it can give. It runs in a process
of its own and is as light as it can be: requests are encoded beforehand and answers are not decoded.

    python tests/benchmarks/worker_load.py --target 127.0.0.1:50051 --pictures DIR --rate 88 --seconds 60
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2

from faceblur.v1 import faceblur_service_pb2, options_pb2
from faceblur_process.memory import keep_freed_buffers

METHOD = "/faceblur.v1.FaceBlurService/BlurImage"
CHANNEL_OPTIONS = [("grpc.max_receive_message_length", 64 << 20), ("grpc.use_local_subchannel_pool", 1)]


@dataclass
class Measured:
    """What became of the pictures: outcome by due time, latency in seconds."""

    latencies: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    done_at: list[float] = field(default_factory=list)


def percentile(values: list[float], share: float) -> float:
    """The value that this share of all values does not exceed, 0 if there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def requests_from(pictures: list[bytes], profile: str) -> list[bytes]:
    """The encoded requests for the pictures."""
    options = options_pb2.Options(profile=options_pb2.Profile.Value(f"PROFILE_{profile.upper()}"))
    return [faceblur_service_pb2.BlurImageRequest(image=p, options=options).SerializeToString() for p in pictures]


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The reason in the details of an error, or its code."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            info = error_details_pb2.ErrorInfo()
            if status_pb2.Status.FromString(value).details[0].Unpack(info):
                return str(info.reason)
    return f"{error.code().name}: {error.details()}"


async def send(
    target: str,
    requests: list[bytes],
    *,
    rate: float,
    seconds: float,
    connections: int,
    deadline: float | None,
    seed: int,
) -> Measured:
    """Send at the given rate per second and wait for all answers."""
    channels = [grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS) for _ in range(connections)]
    calls = [channel.unary_unary(METHOD) for channel in channels]
    await asyncio.gather(*(channel.channel_ready() for channel in channels))
    measured = Measured()
    chance = random.Random(seed)
    pending: set[asyncio.Task[None]] = set()

    async def one(number: int, due: float, begin: float) -> None:
        try:
            await calls[number % connections](requests[number % len(requests)], timeout=deadline)
        except grpc.aio.AioRpcError as error:
            reason = reason_of(error)
            measured.outcomes[reason] += 1
            if reason in ("OVERLOADED", "DEADLINE_TOO_SHORT"):
                measured.refusals.append(time.perf_counter() - due)
        else:
            now = time.perf_counter()
            measured.outcomes["ok"] += 1
            measured.latencies.append(now - due)
            measured.done_at.append(now - begin)

    begin = due = time.perf_counter()
    number = 0
    while due - begin < seconds:
        if (ahead := due - time.perf_counter()) > 0:
            await asyncio.sleep(ahead)
        task = asyncio.create_task(one(number, due, begin))
        pending.add(task)
        task.add_done_callback(pending.discard)
        due += chance.expovariate(rate)
        number += 1
    await asyncio.gather(*pending)
    await asyncio.gather(*(channel.close() for channel in channels))
    return measured


def cpu_seconds() -> float:
    """User and system time of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def summary(measured: Measured, seconds: float, cpu: float) -> dict[str, Any]:
    """The figures, times in milliseconds; ``cpu_seconds`` is what sending and receiving took of this process."""
    return {
        "sent": measured.outcomes.total(),
        "outcomes": dict(measured.outcomes),
        "per_second": round(sum(at <= seconds for at in measured.done_at) / seconds, 1),
        **{f"p{share}": round(percentile(measured.latencies, share / 100) * 1000, 1) for share in (50, 95, 99)},
        "refusal_p95": round(percentile(measured.refusals, 0.95) * 1000, 1),
        "cpu_seconds": round(cpu, 2),
    }


def main() -> None:
    """Send as the command line says and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--target", required=True)
    parser.add_argument("--pictures", type=Path, required=True, help="a folder of pictures")
    parser.add_argument("--profile", default="balanced")
    parser.add_argument("--rate", type=float, required=True, help="pictures per second, in total")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--deadline", type=float, help="seconds that each call has")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    keep_freed_buffers(2)
    pictures = [path.read_bytes() for path in sorted(given.pictures.iterdir())]
    requests = requests_from(pictures, given.profile)
    before = cpu_seconds()
    measured = asyncio.run(
        send(
            given.target,
            requests,
            rate=given.rate,
            seconds=given.seconds,
            connections=given.connections,
            deadline=given.deadline,
            seed=given.seed,
        )
    )
    json.dump(summary(measured, given.seconds, cpu_seconds() - before), sys.stdout)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
