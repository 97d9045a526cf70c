"""Settings: where they come from, what is refused, and that they are documented."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from faceblur_engine.detectors import default_margin
from faceblur_engine.types import Keep, Margin, Options, Profile
from faceblur_worker import config
from faceblur_worker.__main__ import main
from faceblur_worker.config import PREFIX, ConfigurationError, WorkerSettings, load, unknown_variables
from support.fake_engine import FakeEngine

DOCUMENT = Path(__file__).parents[2] / "docs/worker-configuration.md"


def test_the_documented_table_is_the_one_of_the_settings() -> None:
    assert DOCUMENT.read_text() == config.markdown(), (
        "run: python -m faceblur_worker.config > docs/worker-configuration.md"
    )


def test_every_setting_is_described() -> None:
    assert all(field.description for field in WorkerSettings.model_fields.values())


def test_a_flag_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PREFIX + "MAX_WAITING", "7")
    monkeypatch.setenv(PREFIX + "CELLS", "5")
    settings = load(["--max-waiting", "9"])
    assert (settings.max_waiting, settings.cells) == (9, 5)


def test_lists_have_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PREFIX + "PROFILES", "fast, thorough")
    monkeypatch.setenv(PREFIX + "KEEP", "none")
    settings = load(["--allowed-identities", "", "--settle-seconds=0"])
    assert settings.profiles == (Profile.FAST, Profile.THOROUGH)
    assert settings.default_options().keep == frozenset()
    assert settings.allowed_identities == ()
    assert load(["--keep", "gps,author"]).keep == {Keep.GPS, Keep.AUTHOR}


def test_parts_of_the_margin_that_are_not_set_are_the_profile_s(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(["--profiles", "fast,balanced"]).default_options().margin is None
    monkeypatch.setenv(PREFIX + "MARGIN_BOTTOM", "0.5")
    monkeypatch.setenv(PREFIX + "FEATHER", "0.1")
    settings = load(["--profiles", "fast,balanced,thorough", "--margin-pixels", "0"])
    for profile in Profile:
        options, own = settings.default_options(profile), default_margin(profile)
        assert options.margin == Margin(own.sides, own.top, 0.5, 0)
        assert (options.profile, options.feather) == (profile, 0.1)
    assert default_margin(Profile.FAST) != default_margin(Profile.BALANCED)


def test_defaults_are_those_of_the_engine() -> None:
    assert load([]).default_options() == Options()


def test_an_empty_variable_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PREFIX + "TLS_KEY", "")
    assert load([]).tls_key is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--threads", "many"], "--threads is 'many'"),
        (["--threads", "-1"], "--threads is '-1'"),
        (["--profiles", "fast,slow"], "--profiles is 'fast,slow'"),
        (["--profiles", ""], "--profiles"),
        (["--address", "nowhere"], "HOST:PORT"),
        (["--address", "localhost:70000"], "HOST:PORT"),
        (["--cells", "9"], "--cells is '9'"),
        (["--tls-key", "key.pem"], "tls_certificate and tls_key"),
        (["--tls-client-ca", "ca.pem"], "tls_client_ca needs"),
        (["--allowed-identities", "me"], "allowed_identities needs"),
        (["--settle-seconds", "40"], "settle_seconds has to be below"),
        (["--min-face", "50", "--max-face", "40"], "max_face 40 is below min_face 50"),
        (["--margin-top", "2.1"], "--margin-top is '2.1'"),
        (["--feather", "-1"], "--feather is '-1'"),
        (["--log-level", "loud"], "--log-level is 'loud'"),
    ],
)
def test_a_wrong_value_ends_the_start_with_one_clear_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments, lambda settings: FakeEngine()) == 2
    written = capsys.readouterr().err
    assert written.count("\n") == 1
    assert words in written


def test_a_wrong_variable_is_named_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PREFIX + "THREADS", "many")
    with pytest.raises(ConfigurationError, match="FACEBLUR_WORKER_THREADS is 'many'"):
        load([])


def test_help_names_every_flag_and_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load(["--help"])
    assert caught.value.code == 0
    written = capsys.readouterr().out
    assert all("--" + name.replace("_", "-") in written for name in WorkerSettings.model_fields)


def test_variables_that_mean_nothing_are_found_but_not_those_of_a_service() -> None:
    environment = dict.fromkeys(
        [
            "FACEBLUR_WORKER_THREDS",
            "FACEBLUR_WORKER_THREADS",
            "FACEBLUR_WORKER_PORT",
            "FACEBLUR_WORKER_SERVICE_HOST",
            "FACEBLUR_WORKER_PORT_50051_TCP_ADDR",
            "FACEBLUR_WORKER_SERVICE_PORT_GRPC",
            "HOME",
        ],
        "",
    )
    assert unknown_variables(environment) == ["FACEBLUR_WORKER_THREDS"]


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
