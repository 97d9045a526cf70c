"""Notifications from a queue that speaks Amazon SQS.

A message is deleted only when its keys are in the ledger; one that cannot be read is left in the queue, where a
redrive policy takes care of it. Whatever becomes of this process, what it has not deleted appears again.
"""

from __future__ import annotations

import logging
import random
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from .errors import BatchError
from .events import NotUnderstood
from .intake import Intake
from .storage.credentials import Credentials, FolderCredentials

log = logging.getLogger(__name__)

AT_ONCE = 10
"""Messages of one request; SQS has no more."""
TOGETHER = 1000
"""Messages whose keys are kept together."""
_WAIT_SECONDS = 10
_COLLECT_SECONDS = 2.0
_LONGEST_PAUSE = 60.0


class QueueUnavailable(BatchError):
    """The queue does not answer, or does not allow it."""

    reason = "QUEUE_UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a queue.

    Attributes:
        body: What was sent.
        receipt: By which it is deleted.
    """

    body: str
    receipt: str


class MessageQueue(Protocol):
    """A queue that hands out messages again until they are deleted."""

    def receive(self, seconds: int) -> list[Message]:
        """Return some messages.

        Args:
            seconds: To wait for the first one.

        Raises:
            QueueUnavailable: See there.
        """

    def delete(self, messages: Sequence[Message]) -> None:
        """Delete messages, at most `AT_ONCE`. One that could not be is handed out again.

        Raises:
            QueueUnavailable: See there.
        """


class QueueReader:
    """Reads a queue in a thread of its own."""

    def __init__(
        self,
        queue: MessageQueue,
        intake: Intake,
        ending: threading.Event,
        count: Callable[[str, int], object] = lambda kind, number: None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            queue: To read.
            intake: Keeps what messages name.
            ending: Set when it has to end.
            count: Called with ``not_understood`` and how many.
            monotonic: Seconds that only grow.
        """
        self._queue = queue
        self._intake = intake
        self._ending = ending
        self._count = count
        self._monotonic = monotonic
        self._troubles = 0
        self._thread = threading.Thread(target=self._run, name="queue", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether it reads."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def close(self) -> None:
        """Read no more; what is not deleted by now is handed out again."""
        self._ending.set()
        self._thread.join(_COLLECT_SECONDS)

    def step(self) -> float:
        """Read some messages, keep what they name, and delete them; returns how long to pause."""
        if not self._intake.open:
            return 1.0
        try:
            self._read()
        except BatchError as error:
            self._troubles += 1
            log.warning("the queue is read again later: %s [%s]", error, error.reason)
            return min(_LONGEST_PAUSE, 2.0**self._troubles) * random.uniform(0.5, 1)  # noqa: S311
        self._troubles = 0
        return 0.0

    def _read(self) -> None:
        messages = more = self._queue.receive(_WAIT_SECONDS)
        begun = self._monotonic()
        # They have to be deleted before the queue shows them again.
        while more and len(messages) < TOGETHER and self._monotonic() - begun < _COLLECT_SECONDS:
            more = self._queue.receive(0)
            messages = [*messages, *more]
        keys: set[str] = set()
        understood = []
        for message in messages:
            try:
                keys |= self._intake.keys_in(message.body)
                understood.append(message)
            except NotUnderstood:
                self._count("not_understood", 1)
        if strange := len(messages) - len(understood):
            log.warning("%d messages are no notifications; they are left in the queue", strange)
        self._intake.keep(keys)
        for start in range(0, len(understood), AT_ONCE):
            self._queue.delete(understood[start : start + AT_ONCE])

    def _run(self) -> None:
        while not self._ending.is_set():
            self._ending.wait(self.step())


class SqsQueue:
    """A queue of Amazon SQS, or of a server that speaks its protocol."""

    def __init__(
        self,
        url: str,
        *,
        region: str | None = None,
        credentials_folder: Path | None = None,
        ca_bundle: Path | None = None,
    ) -> None:
        """Connect to nothing yet.

        Args:
            url: Of the queue; its server is the one that is asked.
            region: That requests are signed for. None: what the URL or the environment says.
            credentials_folder: As for a storage profile; read for each request. None: what the environment and the
                platform provide, as Amazon's own tools find it.
            ca_bundle: PEM file of authorities. None: the system's.

        Raises:
            QueueUnavailable: boto3 is not installed.
        """
        try:
            session, config, failures = map(import_module, ("boto3.session", "botocore.config", "botocore.exceptions"))
        except ImportError as error:
            raise QueueUnavailable("a queue needs boto3: install faceblur[sqs]") from error
        parts = urlsplit(url)
        in_url = re.match(r"sqs\.([a-z0-9-]+)\.amazonaws\.com", parts.hostname or "")
        self._url = url
        self._source = FolderCredentials(credentials_folder) if credentials_folder else None
        self._failures: tuple[type[Exception], ...] = (failures.BotoCoreError, failures.ClientError)
        self._session: Any = session.Session()
        region = region or (in_url and in_url[1]) or self._session.region_name or "us-east-1"
        self._options: dict[str, Any] = {
            "region_name": region,
            "endpoint_url": f"{parts.scheme}://{parts.netloc}",
            "verify": str(ca_bundle) if ca_bundle else None,
            "config": config.Config(
                connect_timeout=5,
                read_timeout=_WAIT_SECONDS + 20,
                retries={"mode": "standard", "max_attempts": 3},
                proxies={},  # none, whatever the environment says
            ),
        }
        self._made: tuple[Credentials | None, Any] | None = None

    def receive(self, seconds: int) -> list[Message]:
        """See `MessageQueue`."""
        answer = self._ask("receive_message", MaxNumberOfMessages=AT_ONCE, WaitTimeSeconds=seconds)
        return [Message(m["Body"], m["ReceiptHandle"]) for m in answer.get("Messages", ())]

    def delete(self, messages: Sequence[Message]) -> None:
        """See `MessageQueue`."""
        entries = [{"Id": str(number), "ReceiptHandle": m.receipt} for number, m in enumerate(messages)]
        answer = self._ask("delete_message_batch", Entries=entries)
        if failed := answer.get("Failed"):
            log.info("%d messages were not deleted; they come again", len(failed))

    def _ask(self, name: str, **arguments: Any) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = getattr(self._client(), name)(QueueUrl=self._url, **arguments)
            return answer
        except self._failures as error:
            # Not its text: that may repeat what was sent.
            response = getattr(error, "response", {})
            code = response.get("Error", {}).get("Code") or type(error).__name__
            raise QueueUnavailable(f"{urlsplit(self._url).netloc} says {code}") from error

    def _client(self) -> Any:
        credentials = self._source() if self._source else None
        if self._made is None or self._made[0] != credentials:
            keys = {}
            if credentials:
                keys = {
                    "aws_access_key_id": credentials.access_key,
                    "aws_secret_access_key": credentials.secret_key,
                    "aws_session_token": credentials.token,
                }
            self._made = credentials, self._session.client("sqs", **self._options, **keys)
        return self._made[1]
