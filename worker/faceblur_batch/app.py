"""The Celery application: how tasks travel. What they do is in `page`, and the ledger is the truth about it.

A task is acknowledged when it has ended, and handed out again if its worker is lost; it may therefore run twice, which
the ledger makes harmless. There is no result backend, nothing but JSON is accepted, and names are part of the contract
between versions.
"""

from __future__ import annotations

import dataclasses
import logging
import ssl
from typing import Any
from urllib.parse import urlsplit

from amqp.exceptions import ChannelError
from celery import Celery
from kombu import Exchange, Queue
from kombu.exceptions import OperationalError

from .config import BatchSettings
from .planner import BrokerUnavailable
from .workplaces import Ticket

PAGE_TASK = "faceblur.batch.page.v1"
_SOCKET_SECONDS = 10

log = logging.getLogger(__name__)


def make_app(settings: BatchSettings) -> Celery:
    """Return the application, without tasks: who only sends them needs none."""
    url = settings.broker_url()
    rabbit = url.startswith("amqp")
    app = Celery("faceblur.batch", broker=url, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        event_serializer="json",
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_acks_on_failure_or_timeout=True,
        # A lost connection is made anew; then the planner waits by itself, and sees meanwhile what is asked of it.
        task_publish_retry_policy={"max_retries": 2, "interval_start": 0.1, "interval_step": 0.4, "interval_max": 1},
        task_queues=[_queue(settings.queue, quorum=rabbit)],
        task_default_queue=settings.queue,
        task_create_missing_queues=False,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_send_task_events=False,
        worker_enable_remote_control=False,  # no queue per worker, and nobody gives orders through the broker
        worker_soft_shutdown_timeout=settings.grace_seconds,
        worker_cancel_long_running_tasks_on_connection_loss=False,  # threads cannot be; the ledger sorts it out
        worker_detect_quorum_queues=True,
        broker_connection_retry_on_startup=True,
        broker_connection_retry=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=_SOCKET_SECONDS,
        broker_use_ssl=_encryption(settings, url),
        broker_transport_options=_transport_options(settings, rabbit=rabbit),
        broker_heartbeat=30,
        enable_utc=True,
    )
    return app


def _queue(name: str, *, quorum: bool) -> Queue:
    # Celery binds its delayed delivery to the exchanges of quorum queues, and that takes no direct ones.
    exchange = Exchange(name, type="topic" if quorum else "direct", durable=True)
    return Queue(name, exchange, name, durable=True, queue_arguments={"x-queue-type": "quorum"} if quorum else None)


def _encryption(settings: BatchSettings, url: str) -> dict[str, Any] | None:
    """What the broker has to prove; left to themselves, the libraries would take any certificate, or any name in it."""
    files = {"ca_certs": settings.broker_ca, "certfile": settings.broker_certificate, "keyfile": settings.broker_key}
    named = {name: str(path) for name, path in files.items() if path}
    where = urlsplit(url)
    if where.scheme == "rediss":
        options = {"cert_reqs": ssl.CERT_REQUIRED, "check_hostname": True, **named}
        return {f"ssl_{name}": value for name, value in options.items()}
    if where.scheme == "amqps":
        return {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": where.hostname, **named}
    return None


def _transport_options(settings: BatchSettings, *, rabbit: bool) -> dict[str, Any]:
    if rabbit:
        return {"confirm_publish": True}
    # Tasks that are worked on are kept under names of the queue's own: who shares the broker does not hand them out
    # again, and an autoscaler can count them.
    names = {f"{name}_key": f"{settings.queue}.{name}" for name in ("unacked", "unacked_index", "unacked_mutex")}
    return {
        **names,
        "visibility_timeout": settings.visibility_seconds,
        "socket_timeout": _SOCKET_SECONDS * 3,  # longer than the wait for a message
        "socket_connect_timeout": _SOCKET_SECONDS,
        "socket_keepalive": True,
        "health_check_interval": 25,
    }


class CeleryQueue:
    """`planner.Queue` on a Celery broker."""

    def __init__(self, app: Celery, name: str, ticket: Ticket) -> None:
        """Prepare to hand out the pages of a generation.

        Args:
            app: Of `make_app`.
            name: Of the queue.
            ticket: What all tasks say, but for the page.
        """
        self._app = app
        self._name = name
        self._ticket = ticket
        self._failures = _failures(app)

    def publish(self, page: int) -> None:
        """See `planner.Queue`."""
        ticket = dataclasses.replace(self._ticket, page=page)
        try:
            self._app.send_task(PAGE_TASK, kwargs=dataclasses.asdict(ticket), queue=self._name, ignore_result=True)
        except self._failures as error:
            raise BrokerUnavailable("the broker takes no tasks") from error

    def waiting(self) -> int | None:
        """See `planner.Queue`."""
        return waiting(self._app, self._name)


def waiting(app: Celery, queue: str) -> int | None:
    """Tasks in a queue; None where the broker does not answer. Makes a connection of its own."""
    try:
        with app.connection_for_read() as connection:
            channel: Any = connection.default_channel
            return int(channel.queue_declare(queue, passive=True).message_count)
    except ChannelError:
        return 0  # there is no such queue: nothing was sent yet, it is empty, or the broker has lost its data
    except _failures(app):
        return None


def _failures(app: Celery) -> tuple[type[BaseException], ...]:
    """What a broker that is away looks like."""
    connection = app.connection_for_write()
    return (*connection.connection_errors, *connection.channel_errors, OperationalError, OSError)
