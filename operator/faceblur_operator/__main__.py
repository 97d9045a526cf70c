"""`python -m faceblur_operator`, the entry point of the image."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Sequence

from faceblur_process import logs
from faceblur_process.settings import ConfigurationError, load, unknown_variables

from .config import OperatorSettings
from .handlers import Handlers, watch
from .kinds import ClusterKind, JobKind
from .kube import Kube, NoCredentials, load_configuration
from .liveness import AddressInUse, Liveness, serve
from .metrics import Metrics
from .observed import Key
from .plan import PlanSettings
from .reconciler import Reconciler, log_context
from .rounds import Rounds
from .watches import Watches
from .workers import Reports, WorkerClient
from .workqueue import Queue

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code.

    0: ended in order; 1: ended by a defect; 2: the configuration is wrong or cannot be used here. Unless it is 0, the
    last line that was written says why.
    """
    try:
        settings = load(
            OperatorSettings,
            sys.argv[1:] if argv is None else argv,
            program="python -m faceblur_operator",
            description="Keep FaceBlurClusters and FaceBlurJobs as their specs say until SIGTERM.",
        )
    except ConfigurationError as error:
        sys.stderr.write(f"faceblur_operator: {error}\n")
        return 2
    logs.configure(
        settings.log_level,
        settings.log_format,
        context=log_context,
        left_out=("settings", "k8s_skip", "k8s_ref"),  # kopf's own
        quiet=("kopf", "asyncio", "aiohttp"),  # they tell about themselves, in debug with whole objects
    )
    for name in unknown_variables(OperatorSettings):
        log.warning("%s is not a setting of this version and has no effect", name)
    try:
        asyncio.run(serve_resources(settings))
    except (AddressInUse, NoCredentials) as error:
        log.error("cannot start: %s", error)
        return 2
    except Exception as error:
        log.exception("ended by a defect, please report it: %s", type(error).__name__)
        return 1
    return 0


async def serve_resources(settings: OperatorSettings, stopping: asyncio.Event | None = None) -> None:
    """Serve clusters and jobs until a signal comes.

    Args:
        settings: As they are configured.
        stopping: Ends it when set, besides signals.

    Raises:
        AddressInUse: The port for probes cannot be listened on.
        NoCredentials: There is no way to an API server.
    """
    stopping = stopping or asyncio.Event()
    metrics, watches = Metrics(), Watches()
    kube = Kube(
        await load_configuration(),
        seconds=settings.request_seconds,
        source=settings.own_name,
        count=metrics.count_request,
    )
    async with WorkerClient() as workers:
        reports = Reports(workers.ask)
        planning = PlanSettings(
            worker_image=settings.worker_image,
            operator_namespace=settings.own_namespace,
            operator_labels=settings.own_labels,
            cluster_domain=settings.cluster_domain,
        )
        reconciler = Reconciler(
            kube,
            (ClusterKind(kube, planning, reports), JobKind(kube, planning)),
            watches=watches,
            metrics=metrics,
            forgotten=reports.forget,
        )
        queue: Queue[Key] = Queue(
            reconciler.reconcile, concurrency=settings.concurrency, longest_retry=settings.retry_seconds
        )
        reports.answered = reconciler.changed = queue.add
        rounds = Rounds(
            kube,
            reconciler,
            queue=queue,
            watches=watches,
            metrics=metrics,
            namespaces=settings.namespaces,
            tick_seconds=settings.tick_seconds,
            resync_seconds=settings.resync_seconds,
            time_has_come=reports.ask_again,
        )
        metrics.show("queue_length", "Clusters and jobs that wait to be reconciled or are.", lambda: len(queue))
        metrics.show("round_age_seconds", "Since the API server was last asked with success.", rounds.age)
        metrics.show("watch_silence_seconds", "Since a watch has last told of something.", watches.silence)
        metrics.show("watch_lag_seconds", "Since a change was seen that no watch has told of, 0 for none.", watches.lag)
        server = await serve(
            settings.address, metrics.registry, Liveness(rounds, watches, settings.stale_seconds).problem
        )

        def take_signals() -> None:
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, stopping.set)

        take_signals()
        log.info("serving", extra={"namespaces": list(settings.namespaces) or "all", "address": settings.address})
        tasks = [
            asyncio.create_task(rounds.run(), name="rounds"),
            asyncio.create_task(
                watch(
                    Handlers(watches, queue.add),
                    watches=watches,
                    namespaces=settings.namespaces,
                    apis=lambda: reconciler.apis,
                    changed=rounds.changed,
                    credentials=kube.credentials,
                    started=take_signals,
                ),
                name="watch",
            ),
        ]
        stop = asyncio.create_task(stopping.wait(), name="stop")
        try:
            await asyncio.wait([*tasks, stop], return_when=asyncio.FIRST_COMPLETED)
            log.info("ending")
        finally:
            for task in (*tasks, stop):
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            await queue.close()
            await reports.close()
            await server.cleanup()
            await kube.close()
        for result in results:
            if isinstance(result, Exception):
                raise result


if __name__ == "__main__":
    sys.exit(main())
