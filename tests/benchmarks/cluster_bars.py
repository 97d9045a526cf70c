"""Measures what FaceBlurClusters promise on a real cluster: how soon, how undisturbed, how quiet at rest.

    make bench-cluster
    make bench-cluster BARS="ready drift rolling scaling kills rest balance"

The operator is the chart's, installed by this run; images have been built and loaded already (`make e2e-cluster` does).
Each line is one figure, with minimum, median and maximum where it was taken several times.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from faceblur_operator import crdgen
from support.cluster import Cluster
from support.eventual import eventually
from support.operator import Operator
from support.workers import Callers, Workers, fixed

WORKER_IMAGE = "localhost/faceblur-worker:e2e"
OPERATOR_IMAGE = "localhost/faceblur-operator:e2e"
BARS = ("ready", "drift", "rolling", "scaling", "kills", "balance", "rest")


def line(name: str, values: list[float], unit: str = "s") -> None:
    """Print minimum, median and maximum of what was measured."""
    low, middle, high = min(values), statistics.median(values), max(values)
    print(f"{name:<58} {low:8.2f} {middle:8.2f} {high:8.2f} {unit} ({len(values)} times)", flush=True)


def note(name: str, value: object) -> None:
    """Print a single figure."""
    print(f"{name:<58} {value}", flush=True)


@contextmanager
def namespace(kube: Cluster) -> Iterator[str]:
    """A namespace that only admits restricted pods, deleted afterwards."""
    name = f"bench-{secrets.token_hex(3)}"
    kube.make_namespace(name)
    try:
        yield name
    finally:
        kube.delete("v1", "Namespace", name)
        kube.wait_until("v1", "Namespace", name, None, lambda found: found is None, 120)


@contextmanager
def called(kube: Cluster, space: str, workers: int, *arguments: str) -> Iterator[tuple[Workers, Callers]]:
    """Workers and a pod that calls them all the time; what became of the calls is printed at the end."""
    cluster = Workers(kube, space)
    cluster.apply({**fixed(workers), "workers": {"maxConnectionAgeSeconds": 10}})
    cluster.wait_ready(workers)
    callers = Callers(kube, space, "callers")
    callers.start(WORKER_IMAGE, "--target", cluster.get()["status"]["address"], *arguments)
    yield cluster, callers
    summary = callers.stop()
    note(
        "  calls answered, failed, slowest", f"{summary['answered']}, {summary['failed'] or 0}, {summary['slowest']} s"
    )


def ready(kube: Cluster, times: int) -> None:
    """From the apply until the condition is Ready, the image being on the node."""
    for profile in ("fast", "balanced"):
        taken = []
        for _ in range(times):
            with namespace(kube) as space:
                cluster = Workers(kube, space)
                begin = time.monotonic()
                cluster.apply({**fixed(1), "detection": {"profile": profile}})
                cluster.wait_ready(1)
                taken.append(time.monotonic() - begin)
        line(f"apply to Ready, {profile}", taken)


def drift(kube: Cluster, times: int) -> None:
    """From a change by hand until it is put right, and from a new spec until the Deployment has it."""
    with namespace(kube) as space:
        cluster = Workers(kube, space)
        cluster.apply(fixed(1))
        cluster.wait_ready(1)
        repaired, deleted, seen = [], [], []
        for number in range(times):
            good = cluster.deployment()["spec"]["template"]
            begin = time.monotonic()
            patch = {"spec": {"template": {"spec": {"containers": [{"name": "worker", "image": "localhost/no:1"}]}}}}
            kube.patch("apps/v1", "Deployment", "demo-worker", space, patch)
            eventually(lambda want=good: cluster.deployment()["spec"]["template"] == want, 60)
            repaired.append(time.monotonic() - begin)

            service = kube.get("v1", "Service", "demo", space) or {}
            begin = time.monotonic()
            kube.delete("v1", "Service", "demo", space)
            eventually(
                lambda old=service: (
                    (kube.get("v1", "Service", "demo", space) or old)["metadata"]["uid"] != old["metadata"]["uid"]
                ),
                60,
            )
            deleted.append(time.monotonic() - begin)

            known = {item["metadata"]["uid"] for item in kube.list("apps/v1", "ReplicaSet", space)}
            begin = time.monotonic()
            cluster.apply({**fixed(1), "redaction": {"cells": number % 7 + 1}})
            eventually(
                lambda old=known: {item["metadata"]["uid"] for item in kube.list("apps/v1", "ReplicaSet", space)} - old,
                60,
            )
            seen.append(time.monotonic() - begin)
            cluster.wait_ready(1)
        line("changed Deployment repaired", repaired)
        line("deleted Service back", deleted)
        line("changed spec in a new ReplicaSet", seen)


def rolling(kube: Cluster, times: int) -> None:
    """Rolling updates under load."""
    with namespace(kube) as space, called(kube, space, 2, "--clients", "8", "--rate", "20") as (cluster, callers):
        taken = []
        for number in range(times):
            begin = time.monotonic()
            cluster.apply(
                {
                    **fixed(2),
                    "workers": {"maxConnectionAgeSeconds": 10},
                    "redaction": {"cells": number % 7 + 1},
                }
            )
            cluster.wait_ready(2, 180)
            taken.append(time.monotonic() - begin)
            callers.goes_on()
        line("rolling update of two workers under load", taken)


def scaling(kube: Cluster, times: int) -> None:
    """One worker to five and back under load."""
    with namespace(kube) as space, called(kube, space, 1, "--clients", "8", "--rate", "20") as (cluster, callers):
        up, down = [], []
        for _ in range(times):
            for count, taken in ((5, up), (1, down)):
                begin = time.monotonic()
                cluster.apply({**fixed(count), "workers": {"maxConnectionAgeSeconds": 10}})
                cluster.wait_ready(count, 180)
                taken.append(time.monotonic() - begin)
                callers.goes_on(50)
        line("1 to 5 workers under load", up)
        line("5 to 1 workers under load", down)


def kills(kube: Cluster, times: int) -> None:
    """Workers killed without warning, under load that the other one can carry: the SDK's retries answer every call."""
    with namespace(kube) as space, called(kube, space, 2, "--clients", "8", "--rate", "10") as (cluster, callers):
        taken = []
        for _ in range(times):
            before = {pod["metadata"]["name"] for pod in cluster.pods(ready=True)}
            victim = min(before)
            begin = time.monotonic()
            kube.kubectl("-n", space, "delete", "pod", victim, "--grace-period=0", "--force")
            # Not by the status, which may still be that of before the kill.
            eventually(lambda old=before: {p["metadata"]["name"] for p in cluster.pods(ready=True)} - old, 120)
            taken.append(time.monotonic() - begin)
            callers.goes_on()
        line("killed worker replaced under load", taken)


def balance(kube: Cluster, times: int) -> None:
    """Shares of four workers, a minute after there was one, of calls from eight clients."""
    with namespace(kube) as space, called(kube, space, 1, "--clients", "8", "--rate", "24") as (cluster, callers):
        cluster.apply({**fixed(4)})  # the connections' age that clusters have by default
        cluster.wait_ready(4, 180)
        time.sleep(60)
        before = cluster.pictures()
        callers.goes_on(480, 120)
        shares = [count - before.get(name, 0) for name, count in cluster.pictures().items()]
        mean = sum(shares) / len(shares)
        line("share of each of four workers, of a fair one", [100 * share / mean for share in shares], "%")


def rest(kube: Cluster, operator: Operator, seconds: float, clusters: int) -> None:
    """Fifty clusters without workers, created at once, then left alone."""
    audit = Path(os.environ.get("FACEBLUR_AUDIT_LOG", ""))
    with namespace(kube) as space:
        made = [Workers(kube, space, f"rest-{number}") for number in range(clusters)]
        begin = time.monotonic()
        for cluster in made:
            cluster.apply(fixed(0))
        for cluster in made:
            cluster.wait_condition("Ready", seconds=300)
        note(f"{clusters} clusters created at once, all reconciled", f"{time.monotonic() - begin:.1f} s")
        time.sleep(15)  # what the creation still causes
        user = "system:serviceaccount:" + operator.namespace + ":"
        written = sum(1 for entry in writes(audit, user)) if audit.is_file() else None
        before, started = operator.metrics(), time.monotonic()
        time.sleep(seconds)
        after, taken = operator.metrics(), time.monotonic() - started
        cpu = after["process_cpu_seconds_total", ()] - before["process_cpu_seconds_total", ()]
        note("at rest: CPU of the operator", f"{100 * cpu / taken:.2f} % of a core over {taken:.0f} s")
        note("at rest: memory of the operator", f"{after['process_resident_memory_bytes', ()] / 1e6:.0f} MB")
        if written is None:
            note("at rest: writes", "unknown, FACEBLUR_AUDIT_LOG does not name an audit log")
        else:
            note("at rest: writes", sum(1 for entry in writes(audit, user)) - written)


def writes(audit: Path, user: str) -> Iterator[dict[str, Any]]:
    """What service accounts whose name starts like this have written, as the API server's audit log tells."""
    with audit.open(encoding="utf-8") as entries:
        for entry in map(json.loads, entries):
            if entry["user"]["username"].startswith(user) and entry["objectRef"].get("resource") != "leases":
                yield entry


def main() -> None:
    """Install the operator, measure, remove it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bars", nargs="*", metavar="BAR", help=f"of {', '.join(BARS)}; all by default")
    parser.add_argument("--short", action="store_true", help="a few of everything instead of all")
    args = parser.parse_args()
    if unknown := set(args.bars) - set(BARS):
        parser.error(f"there is no bar {', '.join(sorted(unknown))}")
    kube = Cluster(Path(os.environ.get("KUBECONFIG") or "~/.kube/config").expanduser())
    for kind in crdgen.KINDS:
        kube.define(crdgen.build_crd(kind))
    operator = Operator(kube)
    operator.install(OPERATOR_IMAGE, WORKER_IMAGE, {"crds": {"create": False}})
    try:
        print(f"{'':<58} {'minimum':>8} {'median':>8} {'maximum':>8}")
        few = args.short
        for name in args.bars or BARS:
            if name == "rest":
                rest(kube, operator, 60 if few else 300, 10 if few else 50)
            else:
                times = {"ready": 5, "drift": 10, "rolling": 10, "scaling": 1, "kills": 20, "balance": 1}[name]
                globals()[name](kube, min(times, 2) if few else times)
    finally:
        operator.uninstall()


if __name__ == "__main__":
    main()
