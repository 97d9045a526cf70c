"""What is started for one command ends with it, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from faceblur_batch import leash
from support.eventual import eventually

# Says that it runs, and ends in order when it is asked to.
COMMAND = """
import os, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path(sys.argv[2]).write_text("in order"), os._exit(7)))
pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
while True:
    time.sleep(0.05)
"""


class Started:
    def __init__(self, folder: Path, command: str = COMMAND) -> None:
        self.pid, self.end = folder / "pid", folder / "end"
        self.process = leash.start([sys.executable, "-c", command, str(self.pid), str(self.end)])
        eventually(lambda: self.pid.exists() and self.pid.read_text())

    def is_gone(self) -> bool:
        return is_gone(int(self.pid.read_text()))


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # Nobody may be there to take note of its end.
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_command_ends_in_order_when_the_leash_is_let_go(tmp_path: Path) -> None:
    started = Started(tmp_path)
    assert leash.end(started.process) == 7
    assert started.is_gone()
    assert started.end.read_text() == "in order"


def test_a_command_ends_when_who_holds_the_leash_is_killed(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time\nfrom faceblur_batch import leash\n"
            "leash.start([sys.executable, '-c', *sys.argv[1:]])\ntime.sleep(600)",
            COMMAND,
            str(tmp_path / "pid"),
            str(tmp_path / "end"),
        ]
    )
    eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    pid = int((tmp_path / "pid").read_text())
    holder.kill()
    holder.wait()
    eventually(lambda: (tmp_path / "end").exists() and is_gone(pid))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells children of their parent's death")
def test_a_command_ends_when_its_leash_is_killed(tmp_path: Path) -> None:
    started = Started(tmp_path)
    started.process.send_signal(signal.SIGKILL)
    started.process.wait()
    assert started.process.stdin is not None
    started.process.stdin.close()
    eventually(started.is_gone)


def test_a_command_that_ends_by_itself_takes_the_leash_with_it(tmp_path: Path) -> None:
    started = Started(tmp_path, "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text('1'); sys.exit(5)")
    assert started.process.wait(20) == 5
    assert leash.end(started.process) == 5
