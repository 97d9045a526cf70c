"""`faceblur doctor`: it ends with OK or with what to do."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from faceblur_cli.exits import Exit
from faceblur_cli.main import main
from faceblur_engine.errors import RuntimeUnavailable
from faceblur_engine.types import Profile
from support.fake_engine import FakeEngine

from .conftest import Run


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faceblur_cli.doctor._MOMENT", 0)


def test_a_machine_that_runs_everything_is_ok(faceblur: Run) -> None:
    outcome = faceblur("doctor")
    assert outcome.code == Exit.OK
    assert outcome.out.endswith("\n\nOK\n")
    for words in ("python ", "cores ", "HEIC", "openvino: python f64", "balanced: "):
        assert words in outcome.out


def test_a_profile_that_does_not_run_is_a_problem_and_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    def open_redactor(*, profiles: Collection[Profile], runtime: str, **settings: Any) -> FakeEngine:
        if Profile.THOROUGH in profiles or runtime == "mediapipe":
            raise RuntimeUnavailable("it is not installed")
        return FakeEngine()

    assert main(["doctor"], open_redactor=open_redactor) == Exit.CANNOT
    out = capsys.readouterr().out
    assert "mediapipe: no (it is not installed)" in out
    assert "the thorough profile does not run: it is not installed\ninstall faceblur[cli] again" in out
