"""A batch whose workers and broker have certificates: everybody proves who it is, or nothing happens."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from faceblur_batch.storage.opening import open_store
from support.batch_processes import Processes, Program, assert_sound, fill, running, written
from support.certificates import Authority
from support.eventual import eventually
from support.ports import free_port

COUNT = 60
BAD = 3


class Certificates:
    """Files of an authority and of those that it has certified; another authority's are beside them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        for whose in ("our", "another"):
            authority = Authority(whose)
            (folder / f"{whose}-ca.crt").write_bytes(authority.pem)
            for name in ("worker", "batch", "broker"):
                certificate, key = authority.issue(name)
                (folder / f"{whose}-{name}.crt").write_bytes(certificate)
                (folder / f"{whose}-{name}.key").write_bytes(key)

    def files(self, who: str, ca: str = "our-ca", prefix: str = "TLS_") -> dict[str, object]:
        """Settings of who trusts that authority and shows this certificate."""
        names = {"CA": f"{ca}.crt", "CERTIFICATE": f"{who}.crt", "KEY": f"{who}.key"}
        return {prefix + name: self.folder / file for name, file in names.items()}

    @property
    def of_workers(self) -> dict[str, object]:
        files = self.files("our-worker")
        return files | {"TLS_CLIENT_CA": files.pop("TLS_CA"), "ALLOWED_IDENTITIES": "batch"}


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path / "certificates")


class Places:
    """A source with pictures, and a destination."""

    def __init__(self, folder: Path) -> None:
        self.names = (str(folder / "in"), str(folder / "out"))
        self.inputs = fill(open_store(self.names[0]).put, COUNT)
        self.results = open_store(self.names[1])
        self._manifest = folder / "manifest"

    def assert_complete(self, planner: Program) -> None:
        assert planner.wait() == 1, planner.text[-5:]  # some pictures are none
        assert assert_sound(self.inputs, self.results, self._manifest) == {"blurred": COUNT, "refused": BAD}


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path)


def batch_worker(environment: Mapping[str, object], more: Mapping[str, object]) -> Program:
    more = {f"FACEBLUR_BATCH_{name}": value for name, value in more.items()}
    return Program("-m", "faceblur_batch", "--metrics-address", "", environment={**environment, **more})


def troubles(worker: Program) -> list[str]:
    return [line["message"] for line in worker.lines if line["message"].startswith("page in trouble")]


@pytest.mark.timeout(180)
def test_batch_workers_with_wrong_certificates_write_nothing_and_blame_no_picture(
    certificates: Certificates, places: Places
) -> None:
    # What is dialled are addresses, and the certificates are for a name.
    right = certificates.files("our-batch") | {"TLS_SERVER_NAME": "localhost"}
    wrong: dict[str, dict[str, object]] = {
        "CERTIFICATE_VERIFY_FAILED": certificates.files("our-batch", ca="another-ca"),
        "Hostname Verification Check failed": {"TLS_SERVER_NAME": ""},
        "no worker could be reached": {"TLS_CERTIFICATE": "", "TLS_KEY": ""},
        "(UNAVAILABLE: ": certificates.files("another-batch"),
        "IDENTITY_NOT_ALLOWED: ": certificates.files("our-worker"),
    }
    processes = Processes(settings=right, worker_settings=certificates.of_workers, picture_seconds=0)
    workers = processes.batch_workers = [batch_worker(processes.environment, more) for more in wrong.values()]
    with processes, running(processes.planner(*places.names, "--page-size", "4")) as planner:
        eventually(lambda: all(map(troubles, workers)), 90)
        for says, worker in zip(wrong, workers, strict=True):
            assert says in troubles(worker)[0]
            worker.signal(signal.SIGTERM)
        assert [worker.wait(30) for worker in workers] == [0] * len(workers)
        assert written(places.results) == 0
        workers.append(batch_worker(processes.environment, {}))
        workers[-1].start()
        places.assert_complete(planner)


@pytest.mark.timeout(180)
def test_the_command_takes_the_certificates_for_a_cluster(certificates: Certificates, places: Places) -> None:
    processes = Processes(worker_settings=certificates.of_workers, picture_seconds=0)
    processes.batch_workers.clear()  # the command starts one, and a broker
    flags = {f"--{name.lower().replace('_', '-')}": value for name, value in certificates.files("our-batch").items()}
    flags |= {"--cluster": processes.environment["FACEBLUR_BATCH_SERVER"], "--tls-server-name": "localhost"}
    command = ("-m", "faceblur_cli", "batch", "run", *places.names, "--json")
    given = [str(word) for pair in flags.items() for word in pair]
    with processes, running(Program(*command, *given, environment={}, stdout=True)) as planner:
        places.assert_complete(planner)


@pytest.fixture
def encrypted_broker(certificates: Certificates, tmp_path: Path) -> Iterator[str]:
    """A Redis or Valkey that talks only to who shows a certificate."""
    port, folder = free_port(), certificates.folder
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    files = {"cert": "our-broker.crt", "key": "our-broker.key", "ca-cert": "our-ca.crt"}
    options = {"port": 0, "bind": "127.0.0.1", "tls-port": port, "save": "", "dir": tmp_path}
    options |= {f"tls-{name}-file": folder / file for name, file in files.items()}
    command = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    log = tmp_path / "broker.log"
    with contextlib.ExitStack() as stack:
        if program:
            out = stack.enter_context(log.open("wb"))
            process = subprocess.Popen([program, *command], stdout=out, stderr=out)
            stack.callback(process.wait)
            stack.callback(process.kill)
            eventually(lambda: "Ready to accept connections" in log.read_text() or process.poll() is not None, 30)
        if not program or process.poll() is not None:
            pytest.skip("needs a redis-server or valkey-server that is built with TLS, as Debian's are")
        yield f"rediss://localhost:{port}/0"


@pytest.mark.timeout(180)
def test_a_batch_through_a_broker_that_asks_for_certificates(
    certificates: Certificates, places: Places, encrypted_broker: str
) -> None:
    proofs = certificates.files("our-batch", prefix="BROKER_")
    processes = Processes(broker=encrypted_broker, settings=proofs, picture_seconds=0)
    with processes, running(processes.planner(*places.names)) as planner:
        places.assert_complete(planner)
