"""What a batch needs on one machine, started for one command and gone with it: broker, worker, batch worker."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from . import broker, leash
from .config import PREFIX, BatchSettings
from .errors import BatchError

_START_SECONDS = 120.0


class LocalStartFailed(BatchError):
    """Something that the batch needs did not start here."""

    reason = "LOCAL_START_FAILED"


@dataclass(frozen=True, slots=True)
class Command:
    """A process of a local batch.

    Attributes:
        name: What it is, for a person.
        arguments: Program and arguments.
        environment: Added to this process's.
    """

    name: str
    arguments: tuple[str, ...]
    environment: dict[str, str]


def worker_command(threads: int | None = None) -> Command:
    """A worker, on a free port."""
    addresses = {f"FACEBLUR_WORKER_{name}ADDRESS": "127.0.0.1:0" for name in ("", "HEALTH_", "METRICS_")}
    more = {} if threads is None else {"FACEBLUR_WORKER_THREADS": str(threads)}
    fixed = {"FACEBLUR_WORKER_LOG_FORMAT": "json", "FACEBLUR_WORKER_SETTLE_SECONDS": "0"}
    return Command("worker", (sys.executable, "-m", "faceblur_worker"), addresses | fixed | more)


class Local:
    """Processes on this machine. Leave the context to end them; they end with this process in any case.

    Attributes:
        processes: What was started, by name; each is a leash with the process itself below it.
    """

    def __init__(self, worker: Command | None = None) -> None:
        """Prepare; nothing is started yet.

        Args:
            worker: How a worker is started.
        """
        self._worker = worker or worker_command()
        self._stack = contextlib.ExitStack()
        self.processes: list[tuple[str, subprocess.Popen[bytes]]] = []

    def __enter__(self) -> Local:
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="faceblur-batch-")))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def broker(self) -> str:
        """Start a broker, and return its URL.

        Raises:
            LocalStartFailed: It does not start.
        """
        # A socket in a folder that only this user can enter: nobody else on the machine can hand out tasks.
        path = self._folder / "broker.sock"
        try:
            arguments = broker.command("--port", "0", "--unixsocket", str(path), folder=self._folder)
        except ImportError as error:
            raise LocalStartFailed(
                "a broker is needed: install faceblur[local], which has one in it, or name one with --broker"
            ) from error
        self._start(Command("broker", arguments, {}))
        self._wait_for("broker", lambda: _listens(path))
        return f"redis+socket://{path}"

    def worker(self) -> str:
        """Start a worker, and return its address.

        Raises:
            LocalStartFailed: It does not start.
        """
        port: list[int] = []
        said: list[str] = []

        def read(line: str) -> None:
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if record.get("message") == "ready":
                    port.append(record["port"])
                elif record.get("level") == "error":
                    said.append(record["message"])

        self._start(self._worker, read)
        self._wait_for("worker", lambda: bool(port), said)
        return f"127.0.0.1:{port[0]}"

    def batch_worker(self, settings: BatchSettings) -> None:
        """Start a batch worker with the settings of this process.

        Raises:
            LocalStartFailed: It does not start.
        """
        given = {name: getattr(settings, name) for name in settings.model_fields_set}
        environment = {f"{PREFIX}{name.upper()}": str(value) for name, value in given.items()}
        ready: list[bool] = []
        said: list[str] = []

        def read(line: str) -> None:
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if record.get("message") == "ready":
                    ready.append(True)
                elif record.get("level") in ("warning", "error"):
                    said.append(record["message"])

        fixed = {f"{PREFIX}LOG_FORMAT": "json", f"{PREFIX}METRICS_ADDRESS": ""}
        # An empty variable counts as unset, so that the address has to be given as a flag.
        command = (sys.executable, "-m", "faceblur_batch", "--metrics-address", "")
        self._start(Command("batch worker", command, environment | fixed), read)
        self._wait_for("batch worker", lambda: bool(ready), said)

    def check(self) -> None:
        """See whether all processes are well.

        Raises:
            LocalStartFailed: One has ended.
        """
        for name, process in self.processes:
            if process.poll() is not None:
                raise LocalStartFailed(f"the {name} on this machine has ended with code {process.returncode}")

    def _start(self, command: Command, read: Callable[[str], None] = lambda line: None) -> None:
        process = leash.start(
            command.arguments, environment={**os.environ, **command.environment}, stderr=subprocess.PIPE
        )
        assert process.stderr is not None
        reader = threading.Thread(target=_read, args=(process.stderr, read), daemon=True)
        reader.start()
        self._stack.callback(reader.join, 5)
        self._stack.callback(leash.end, process)
        self.processes.append((command.name, process))

    def _wait_for(self, name: str, holds: Callable[[], bool], said: list[str] | None = None) -> None:
        process = self.processes[-1][1]
        end = time.monotonic() + _START_SECONDS
        while not holds():
            if process.poll() is not None or time.monotonic() > end:
                why = f": {said[-1]}" if said else ""
                raise LocalStartFailed(f"the {name} does not start on this machine{why}")
            time.sleep(0.02)


def _read(stream: IO[bytes], read: Callable[[str], None]) -> None:
    with stream:
        for line in stream:
            read(line.decode(errors="replace"))


def _listens(path: Path) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        probe.connect(str(path))
        probe.sendall(b"PING\r\n")
        return probe.recv(64).startswith(b"+PONG")
    return False
