"""A worker as a process: how it starts, how it ends, and what signals do to calls in flight."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from faceblur import FaceBlurClient, KeepaliveConfig, RetryConfig
from faceblur.v1 import faceblur_service_pb2, faceblur_service_pb2_grpc
from support.eventual import eventually
from support.running_worker import picture

TESTS = Path(__file__).parents[2] / "tests"


class Process:
    """`faceblur serve` with a fake engine that works on pictures as long as `hold` exists."""

    def __init__(self, hold: Path, **settings: object) -> None:
        self.hold = hold
        environment = {f"FACEBLUR_WORKER_{name.upper()}": str(value) for name, value in settings.items()}
        addresses = ("ADDRESS", "HEALTH_ADDRESS", "METRICS_ADDRESS")
        environment |= {f"FACEBLUR_WORKER_{name}": "127.0.0.1:0" for name in addresses}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "support.running_worker"],
            env={**os.environ, **environment, "PYTHONPATH": str(TESTS), "FACEBLUR_TEST_HOLD": str(hold)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        eventually(lambda: self.named("ready") or self.process.poll() is not None, 30)
        self.ready = self.named("ready")[0]
        self.target = f"127.0.0.1:{self.ready['port']}"

    def named(self, message: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["message"] == message]

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if line.startswith("{"):
                self.lines.append(json.loads(line))

    def end(self) -> int:
        code = self.process.wait(30)
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


@contextlib.contextmanager
def process(hold: Path, **settings: object) -> Iterator[Process]:
    running = Process(hold, **settings)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
        running.end()


@pytest.fixture
def hold(tmp_path: Path) -> Path:
    return tmp_path / "hold"


ASK = faceblur_service_pb2.BlurImageRequest(image=picture())


def test_sigterm_loses_no_call_that_was_taken_in(hold: Path) -> None:
    hold.touch()
    with process(hold, settle_seconds=1, threads=2) as worker, grpc.insecure_channel(worker.target) as channel:
        stub = faceblur_service_pb2_grpc.FaceBlurServiceStub(channel)
        calls = [stub.BlurImage.future(ASK, timeout=30) for _ in range(20)]
        metrics = worker.ready["metrics_port"]
        eventually(lambda: "faceblur_worker_inside 20.0" in scrape(metrics))
        worker.process.send_signal(signal.SIGTERM)
        eventually(lambda: worker.named("ending"))
        late = stub.BlurImage.future(ASK, timeout=30)  # before the word has spread
        eventually(lambda: health(worker, "readiness") == health_pb2.HealthCheckResponse.NOT_SERVING)
        assert health(worker, "liveness") == health_pb2.HealthCheckResponse.SERVING
        hold.unlink()
        assert all(call.result().image for call in [*calls, late])
        assert worker.end() == 0
    assert worker.named("ended")


def test_work_that_does_not_end_is_cut_off_at_the_end_of_the_grace_period(hold: Path) -> None:
    hold.touch()
    with process(hold, settle_seconds=0, grace_seconds=2) as worker, grpc.insecure_channel(worker.target) as channel:
        call = faceblur_service_pb2_grpc.FaceBlurServiceStub(channel).BlurImage.future(ASK, timeout=30)
        eventually(lambda: "faceblur_worker_running 1.0" in scrape(worker.ready["metrics_port"]))
        worker.process.send_signal(signal.SIGTERM)
        with pytest.raises(grpc.RpcError):
            call.result()
        assert worker.end() == 1
    assert [line for line in worker.lines if line["level"] == "error"]


def test_sigkill_ends_calls_with_unavailable_and_no_picture(hold: Path) -> None:
    hold.touch()
    with process(hold) as worker, grpc.insecure_channel(worker.target) as channel:
        call = faceblur_service_pb2_grpc.FaceBlurServiceStub(channel).BlurImage.future(ASK, timeout=30)
        eventually(lambda: "faceblur_worker_running 1.0" in scrape(worker.ready["metrics_port"]))
        worker.process.kill()
        with pytest.raises(grpc.RpcError) as caught:
            call.result()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]


def test_a_thousand_connections_are_answered(hold: Path) -> None:
    with process(hold, threads=2, max_waiting=2000) as worker:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.insecure_channel(worker.target, options) for _ in range(1000)]
        stubs = [faceblur_service_pb2_grpc.FaceBlurServiceStub(channel) for channel in channels]
        calls = [stub.BlurImage.future(ASK, timeout=50, wait_for_ready=True) for stub in stubs]
        assert all(call.result().image for call in calls)
        for channel in channels:
            channel.close()


@pytest.mark.skipif(not Path("/proc/self/coredump_filter").exists(), reason="only Linux can be asked")
def test_a_crash_puts_no_picture_on_a_disk(hold: Path) -> None:
    with process(hold) as worker:
        told = Path(f"/proc/{worker.process.pid}")
        (core,) = (line for line in told.joinpath("limits").read_text().splitlines() if "core file" in line)
        assert core.split()[4:6] == ["0", "0"]
        assert int(told.joinpath("coredump_filter").read_text(), 16) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--threads", "many"], "--threads is 'many'"),
        (["--threds", "2"], "unrecognized arguments: --threds"),
        (["--runtime", "none"], "cannot start: there is no runtime 'none'"),
        (["--tls-certificate", "/none.crt", "--tls-key", "/none.key"], "cannot start: /none.crt cannot be read"),
        (["--address", "{}"], "cannot start: address {} cannot be listened on"),
        (["--health-address", "{}"], "cannot start: health_address {} cannot be listened on"),
        (["--metrics-address", "{}"], "cannot start: metrics_address {} cannot be listened on"),
    ],
)
def test_the_last_line_of_a_worker_that_cannot_start_says_why(arguments: list[str], words: str) -> None:
    """As Kubernetes takes it for the message of a container that ended."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        given = [argument.format(address) for argument in arguments]
        command = [sys.executable, "-m", "faceblur_worker", "--address=127.0.0.1:0", *given]
        done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert done.returncode == 2
    assert words.format(address) in done.stderr.splitlines()[-1]


def scrape(port: int) -> str:
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        text: str = answer.read().decode()
    return text


def health(worker: Process, service: str) -> int:
    with grpc.insecure_channel(f"127.0.0.1:{worker.ready['health_port']}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return int(stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=20).status)


def test_the_sdk_finishes_on_another_worker_what_a_killed_one_had(hold: Path, tmp_path: Path) -> None:
    hold.touch()
    with process(hold, threads=1) as killed, process(tmp_path / "never") as other:
        target, metrics = f"ipv4:{killed.target},{other.target}", killed.ready["metrics_port"]
        with FaceBlurClient(target, timeout=30) as client, ThreadPoolExecutor(8) as pool:
            eventually(lambda: client.info() and 'method="GetInfo"' in scrape(metrics))  # it is connected with both
            calls = [pool.submit(client.blur, picture()) for _ in range(8)]
            eventually(lambda: "faceblur_worker_running 1.0" in scrape(metrics))
            killed.process.kill()
            assert all(call.result().image for call in calls)


def test_the_sdk_finishes_on_another_worker_what_a_stopped_one_does_not_answer(hold: Path, tmp_path: Path) -> None:
    with process(hold) as stopped, process(tmp_path / "never") as other:
        target = f"ipv4:{stopped.target},{other.target}"
        retry = RetryConfig(attempts=10, first_pause=0.01, longest_pause=0.1, attempt_timeout=1)
        with FaceBlurClient(target, timeout=30, retry=retry, keepalive=KeepaliveConfig(interval=10)) as client:
            for _ in range(4):
                assert client.blur(picture()).image
            stopped.process.send_signal(signal.SIGSTOP)
            for _ in range(4):
                assert client.blur(picture()).image
            stopped.process.kill()
