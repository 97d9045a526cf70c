"""What the settings of all processes have in common: where they come from, what is said of a wrong one, their page."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from faceblur_batch import config as batch
from faceblur_batch.config import WatchSettings
from faceblur_operator import config as operator
from faceblur_operator.config import OperatorSettings
from faceblur_process.settings import (
    Address,
    ConfigurationError,
    LogFormat,
    LogLevel,
    Settings,
    load,
    read,
    table,
    unknown_variables,
)
from faceblur_worker import config as worker
from faceblur_worker.config import WorkerSettings

DOCUMENTS = Path(__file__).parents[2] / "docs"


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Sample(Settings):
    model_config = SettingsConfigDict(env_prefix="SAMPLE_")

    address: Address = Field("127.0.0.1:80", description="Where it listens.")
    threads: int = Field(4, ge=1, description="At once, 100 % of them.")
    key: Path | None = Field(None, description="A file.")
    colours: tuple[Colour, ...] = Field((Colour.RED, Colour.BLUE), description="Wanted.")
    safe: bool = Field(False, description="Or not.")
    log_level: LogLevel = "info"
    log_format: LogFormat = "json"

    @model_validator(mode="after")
    def _consistent(self) -> Sample:
        if self.safe and self.key is None:
            raise ValueError("safe needs a key")
        return self


class Secretive(Settings):
    model_config = SettingsConfigDict(env_prefix="SECRETIVE_", hide_input_in_errors=True)

    broker: str = Field("", pattern="^redis://", description="With its password.")


def loaded(*arguments: str) -> Sample:
    return load(Sample, arguments, program="sample", description="Show.")


def test_a_flag_wins_over_the_environment_and_that_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMPLE_THREADS", "7")
    monkeypatch.setenv("SAMPLE_ADDRESS", "[::1]:90")
    settings = loaded("--threads", "9")
    assert (settings.threads, settings.address, settings.log_level) == (9, "[::1]:90", "info")
    assert read(Sample, {"address": "localhost:1"}).threads == 7


def test_an_empty_variable_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMPLE_KEY", "")
    assert loaded().key is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--threads", "many"], "--threads is 'many': input should be a valid integer"),
        (["--threads", "0"], "--threads is '0': "),
        (["--address", "nowhere"], "--address is 'nowhere': it has to be HOST:PORT"),
        (["--address", "localhost:70000"], "--address is 'localhost:70000': it has to be HOST:PORT"),
        (["--log-level", "loud"], "--log-level is 'loud'"),
        (["--log-format", "xml"], "--log-format is 'xml'"),
        (["--safe", "yes"], "safe needs a key"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments: list[str], words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        loaded(*arguments)
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)


def test_a_wrong_variable_is_named_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMPLE_THREADS", "many")
    with pytest.raises(ConfigurationError, match=r"^SAMPLE_THREADS is 'many'"):
        loaded()


def test_a_value_that_may_be_secret_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"^--broker: string should match") as caught:
        read(Secretive, {"broker": "http://:secret@host"})
    monkeypatch.setenv("SECRETIVE_BROKER", "http://:secret@host")
    with pytest.raises(ConfigurationError, match=r"^SECRETIVE_BROKER: string") as by_variable:
        read(Secretive)
    for error in (caught.value, by_variable.value):
        assert "secret@" not in str(error)
        assert error.__context__ is None


def test_a_flag_that_does_not_exist_is_refused_and_none_is_abbreviated() -> None:
    for argument in ("--thread", "--treads"):
        with pytest.raises(SystemExit):
            loaded(argument, "3")


def test_help_has_every_flag_with_its_default_and_choices(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        loaded("--help")
    assert caught.value.code == 0
    written = " ".join(capsys.readouterr().out.split())
    assert "--threads VALUE At once, 100 % of them. [4]" in written
    assert "--key VALUE A file. [unset]" in written
    assert "Wanted. One of red, blue. [blue,red]" in written
    assert written.endswith("Each flag is also an environment variable: --address is SAMPLE_ADDRESS.")


def test_variables_that_mean_nothing_are_found_but_not_those_of_services() -> None:
    environment = dict.fromkeys(
        [
            "SAMPLE_THREDS",
            "SAMPLE_THREADS",
            "SAMPLE_ADMIN_PORT",
            *("SAMPLE_SERVICE_HOST", "SAMPLE_SERVICE_PORT_GRPC", "SAMPLE_PORT", "SAMPLE_PORT_50051_TCP_ADDR"),
            *("SAMPLE_2_A_SERVICE_HOST", "SAMPLE_2_A_SERVICE_PORT", "SAMPLE_2_A_PORT_80_TCP"),
            "HOME",
        ],
        "",
    )
    assert unknown_variables(Sample, environment) == ["SAMPLE_ADMIN_PORT", "SAMPLE_THREDS"]


def test_a_table_has_the_flags_where_there_are_any() -> None:
    fields = {name: Sample.model_fields[name] for name in ("colours", "safe", "log_format")}
    assert table(fields, "SAMPLE_") == [
        "| variable | flag | default | meaning |",
        "|---|---|---|---|",
        "| `SAMPLE_COLOURS` | `--colours` | `blue,red` | Wanted. One of `red`, `blue`. |",
        "| `SAMPLE_SAFE` | `--safe` | `false` | Or not. |",
        "| `SAMPLE_LOG_FORMAT` | `--log-format` | `json` | `json` or `text`. |",
    ]
    assert table({"key": Sample.model_fields["key"]}, "SAMPLE_", flags=False) == [
        "| variable | default | meaning |",
        "|---|---|---|",
        "| `SAMPLE_KEY` |  | A file. |",
    ]


@pytest.mark.parametrize(("name", "process"), [("worker", worker), ("batch", batch), ("operator", operator)])
def test_the_page_of_a_process_is_that_of_its_settings(name: str, process: ModuleType) -> None:
    assert (DOCUMENTS / f"{name}-configuration.md").read_text() == process.markdown(), "make generate writes it anew"


@pytest.mark.parametrize("kind", [WorkerSettings, WatchSettings, OperatorSettings])
def test_every_setting_is_described(kind: type[Settings]) -> None:
    assert all(field.description for field in kind.model_fields.values())
