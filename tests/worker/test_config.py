"""Settings of the worker: what they mean and what is refused."""

from __future__ import annotations

import json
import logging

import pytest

from faceblur_engine.detectors import default_margin
from faceblur_engine.types import Keep, Margin, Options, Profile
from faceblur_process import settings
from faceblur_worker.__main__ import main
from faceblur_worker.config import PREFIX, WorkerSettings
from support.fake_engine import FakeEngine


def load(*arguments: str) -> WorkerSettings:
    return settings.load(WorkerSettings, arguments, program="x", description="")


def test_lists_have_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PREFIX + "PROFILES", "fast, thorough")
    monkeypatch.setenv(PREFIX + "KEEP", "none")
    loaded = load("--allowed-identities", "", "--settle-seconds=0")
    assert loaded.profiles == (Profile.FAST, Profile.THOROUGH)
    assert loaded.default_options().keep == frozenset()
    assert loaded.allowed_identities == ()
    assert load("--keep", "gps,author").keep == {Keep.GPS, Keep.AUTHOR}


def test_parts_of_the_margin_that_are_not_set_are_the_profile_s(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load("--profiles", "fast,balanced").default_options().margin is None
    monkeypatch.setenv(PREFIX + "MARGIN_BOTTOM", "0.5")
    monkeypatch.setenv(PREFIX + "FEATHER", "0.1")
    loaded = load("--profiles", "fast,balanced,thorough", "--margin-pixels", "0")
    for profile in Profile:
        options, own = loaded.default_options(profile), default_margin(profile)
        assert options.margin == Margin(own.sides, own.top, 0.5, 0)
        assert (options.profile, options.feather) == (profile, 0.1)
    assert default_margin(Profile.FAST) != default_margin(Profile.BALANCED)


def test_defaults_are_those_of_the_engine() -> None:
    assert load().default_options() == Options()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--threads", "many"], "--threads is 'many'"),
        (["--profiles", "fast,slow"], "--profiles is 'fast,slow'"),
        (["--profiles", ""], "--profiles"),
        (["--address", "nowhere"], "HOST:PORT"),
        (["--cells", "9"], "--cells is '9'"),
        (["--tls-key", "key.pem"], "tls_certificate and tls_key"),
        (["--tls-client-ca", "ca.pem"], "tls_client_ca needs"),
        (["--allowed-identities", "me"], "allowed_identities needs"),
        (["--settle-seconds", "40"], "settle_seconds has to be below"),
        (["--min-face", "50", "--max-face", "40"], "max_face 40 is below min_face 50"),
        (["--margin-top", "2.1"], "--margin-top is '2.1'"),
        (["--feather", "-1"], "--feather is '-1'"),
    ],
)
def test_a_wrong_value_ends_the_start_with_one_clear_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments, lambda settings: FakeEngine()) == 2
    written = capsys.readouterr().err
    assert written.count("\n") == 1
    assert words in written


def test_a_missing_model_ends_the_start_with_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    from faceblur_engine.errors import ModelError

    def broken(settings: WorkerSettings) -> FakeEngine:
        raise ModelError("the model is missing; install faceblur again")

    before = logging.root.handlers[:]
    try:
        assert main(["--address", "127.0.0.1:0"], broken) == 2
    finally:
        logging.root.handlers[:] = before
    (line,) = capfd.readouterr().err.splitlines()
    assert json.loads(line)["message"] == "cannot start: the model is missing; install faceblur again"
