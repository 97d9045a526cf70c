"""Settings and what is asked of a job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import faceblur
from faceblur_batch.__main__ import main
from faceblur_batch.config import BatchSettings
from faceblur_batch.generation import Generation
from faceblur_batch.job import JobSpec, parse_options
from faceblur_process.settings import ConfigurationError, read
from support.batches import Batch


@pytest.mark.parametrize("url", ["http://x", "localhost:6379", "kafka://x"])
def test_a_broker_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="broker"):
        read(BatchSettings, {"broker": url})


def test_a_wrong_setting_is_named_and_its_value_is_not() -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(BatchSettings, {"broker": "http://user:secret@host"})
    assert "--broker" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_the_broker_can_come_from_a_secret_s_file(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("valkey://:secret@broker:6379/1\n")
    settings = BatchSettings(broker_file=tmp_path / "url")
    assert settings.broker_url() == "redis://:secret@broker:6379/1"
    with pytest.raises(ConfigurationError, match="BROKER_FILE"):
        BatchSettings(broker_file=tmp_path / "nothing").broker_url()


def test_signs_of_life_come_before_a_page_counts_as_silent() -> None:
    with pytest.raises(ConfigurationError, match="stall_seconds"):
        read(BatchSettings, {"stall_seconds": 20, "flush_seconds": 30})


def test_storage_profiles_are_found_by_name(tmp_path: Path) -> None:
    path = tmp_path / "profiles.json"
    path.write_text(json.dumps({"archive": {"region": "eu-1"}, "broken": {"nothing": 1}}))
    settings = BatchSettings(storage_profiles=path)
    assert settings.storage("archive").region == "eu-1"
    assert settings.storage("").region == "us-east-1"
    for name in ("missing", "broken"):
        with pytest.raises(ConfigurationError, match=name):
            settings.storage(name)
    with pytest.raises(ConfigurationError, match="archive"):
        BatchSettings().storage("archive")


def test_a_batch_worker_with_a_wrong_setting_does_not_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--threads", "none"]) == 2
    assert "--threads" in capsys.readouterr().err


# Jobs


def test_a_job_is_its_source_destination_selection_and_names(tmp_path: Path) -> None:
    places = {"source": str(tmp_path / "a"), "destination": str(tmp_path / "b")}
    spec = JobSpec(**places)
    assert JobSpec(**places, options={"cells": 4}, parallelism=3).id == spec.id
    assert JobSpec(**places, template="x/{dir}/{stem}{ext}").id != spec.id
    assert JobSpec(**places, selection={"prefix": "2026/"}).id != spec.id
    assert JobSpec(**places, name="nightly").id == "nightly"


def test_a_location_is_the_same_however_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert JobSpec(source="a", destination="b").id == JobSpec(source=f"file://{tmp_path}/a", destination="./b").id


@pytest.mark.parametrize(
    "wrong",
    [
        {"source": "s3://user:password@bucket/x"},
        {"template": "{stem}"},
        {"options": {"cell": 4}},
        {"options": {"profile": "slow"}},
        {"page_size": 0},
        {"max_error_percent": 101},
        {"name": "Not A Name"},
        {"name": "../x"},
        {"unknown": 1},
    ],
)
def test_a_job_that_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        JobSpec(**{"source": "s3://aaa", "destination": "s3://bbb", **wrong})
    assert "password@" not in caught.value.errors(include_url=False)[0]["msg"]


def test_options_are_those_of_the_sdk() -> None:
    options = faceblur.Options(
        profile=faceblur.Profile.FAST,
        margin=faceblur.Margin(sides=0.1, top=0.2, bottom=0.3),
        keep=frozenset({faceblur.Keep.ICC}),
        regions=(faceblur.Box(1, 2, 3, 4),),
        limits=faceblur.Limits(max_width=100),
    )
    assert parse_options(options.as_dict()) == options
    spec = JobSpec(source="s3://aaa", destination="s3://bbb", options=options.as_dict())
    assert JobSpec.model_validate_json(spec.model_dump_json()) == spec
    assert spec.asked_options() == options


def test_what_is_asked_of_workers_is_complete_but_for_their_limits() -> None:
    batch = Batch(1, options={"cells": 4, "limits": {"max_width": 50}})
    batch.start()
    asked = batch.generation.options
    assert (asked.cells, asked.profile) == (4, faceblur.Profile.BALANCED)
    assert asked.limits == faceblur.Limits(max_width=50)
    assert batch.generation.resolved["limits"]["max_bytes"] == 1 << 20


def test_another_profile_does_not_take_over_the_default_one_s_margin() -> None:
    batch = Batch(1, options={"profile": "fast"})
    info = batch.blurrer.info
    margin = faceblur.Margin(sides=1, top=1, bottom=1)

    def with_margin(**_: Any) -> faceblur.ServerInfo:
        import dataclasses

        found = info()
        return dataclasses.replace(found, defaults=dataclasses.replace(found.defaults, margin=margin))

    batch.blurrer.info = with_margin  # type: ignore[method-assign]
    batch.start()
    assert batch.generation.options.margin is None


def test_a_generation_is_read_as_it_was_written() -> None:
    batch = Batch(1, options={"cells": 4}, selection={"include": ["**/*.png"], "suffixes": [".png", ".jpg"]})
    batch.start()
    data = batch.ledger.get("spec.json")
    assert data is not None
    assert Generation.model_validate_json(data) == batch.generation
