"""The process: settings, log lines, the port for probes, exit codes and signals."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from pathlib import Path

import aiohttp
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from faceblur_operator import config, logs
from faceblur_operator.__main__ import main
from faceblur_operator.config import PREFIX, ConfigurationError, OperatorSettings, load, unknown_variables
from faceblur_operator.liveness import AddressInUse, serve
from faceblur_operator.metrics import Metrics
from faceblur_operator.observed import Key
from support.api_server import api_server

DOCUMENT = Path(__file__).parents[2] / "docs/operator-configuration.md"


def test_the_documented_table_is_the_one_of_the_settings() -> None:
    assert DOCUMENT.read_text() == config.markdown(), (
        "run: python -m faceblur_operator.config > docs/operator-configuration.md"
    )


def test_every_setting_is_described() -> None:
    assert all(field.description for field in OperatorSettings.model_fields.values())


def test_a_flag_wins_over_the_environment_and_lists_have_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PREFIX + "CONCURRENCY", "7")
    monkeypatch.setenv(PREFIX + "NAMESPACES", "shop, press")
    monkeypatch.setenv(PREFIX + "OWN_LABELS", "a=b,c=d=e")
    monkeypatch.setenv(PREFIX + "OWN_NAME", "")
    settings = load(["--concurrency", "9"])
    assert (settings.concurrency, settings.namespaces) == (9, ("shop", "press"))
    assert settings.own_labels == {"a": "b", "c": "d=e"}
    assert load(["--namespaces", "one"]).namespaces == ("one",)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--concurrency", "many"], "FACEBLUR_OPERATOR_CONCURRENCY (--concurrency) is 'many'"),
        (["--concurrency", "0"], "greater than or equal to 1"),
        (["--namespaces", "Shop"], "FACEBLUR_OPERATOR_NAMESPACES"),
        (["--own-labels", "a"], "name=value"),
        (["--address", "nowhere"], "HOST:PORT"),
        (["--log-format", "xml"], "FACEBLUR_OPERATOR_LOG_FORMAT"),
    ],
)
def test_a_wrong_value_is_named(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(arguments)
    assert words in str(caught.value)
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


def test_a_flag_that_does_not_exist_is_refused() -> None:
    with pytest.raises(SystemExit):
        load(["--concurency", "3"])


def test_names_that_look_like_settings_are_told() -> None:
    environment = {
        PREFIX + "NAMESPACES": "",
        PREFIX + "NAMESPACE": "",
        PREFIX + "SERVICE_HOST": "",
        PREFIX + "PORT_8080_TCP": "",
        "OTHER": "",
    }
    assert unknown_variables(environment) == [PREFIX + "NAMESPACE"]


def record(message: str, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("faceblur_operator.test", logging.INFO, __file__, 1, message, (), None)
    vars(made).update(extra)
    return made


def test_a_log_line_is_json_and_names_the_cluster() -> None:
    token = logs.RESOURCE.set(Key("FaceBlurCluster", "shop", "demo"))
    try:
        line = json.loads(logs.JsonFormatter().format(record("applied", kind="Service")))
        text = logs.TextFormatter().format(record("applied", kind="Service"))
    finally:
        logs.RESOURCE.reset(token)
    assert {name: line[name] for name in ("level", "message", "namespace", "cluster", "kind")} == {
        "level": "info",
        "message": "applied",
        "namespace": "shop",
        "cluster": "demo",
        "kind": "Service",
    }
    assert text.endswith("applied namespace=shop cluster=demo kind=Service")
    assert "cluster" not in json.loads(logs.JsonFormatter().format(record("applied")))


def test_an_error_is_logged_with_its_traceback_on_the_same_line() -> None:
    try:
        raise ValueError("why")
    except ValueError:
        made = record("broken")
        made.exc_info = sys.exc_info()
    line = logs.JsonFormatter().format(made)
    assert "\n" not in line
    assert "ValueError: why" in json.loads(line)["traceback"]


async def test_the_port_for_probes_answers_as_things_are() -> None:
    problems: list[str] = []
    metrics = Metrics()
    metrics.count_request("get", 200)
    runner = await serve("127.0.0.1:0", metrics.registry, lambda: problems[0] if problems else None)
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with aiohttp.ClientSession() as session:
            async with session.get(url + "/healthz") as answer:
                assert (answer.status, await answer.text()) == (200, "ok\n")
            problems.append("the watch is dead")
            async with session.get(url + "/healthz") as answer:
                assert (answer.status, await answer.text()) == (503, "the watch is dead\n")
            async with session.get(url + "/metrics") as answer:
                families = {family.name for family in text_string_to_metric_families(await answer.text())}
        assert families >= {"faceblur_operator_api_requests", "faceblur_operator_clusters", "process_cpu_seconds"}
    finally:
        await runner.cleanup()


async def test_a_port_that_is_taken_is_one_line() -> None:
    runner = await serve("127.0.0.1:0", Metrics().registry, lambda: None)
    try:
        with pytest.raises(AddressInUse, match="cannot be listened on"):
            await serve(f"127.0.0.1:{runner.addresses[0][1]}", Metrics().registry, lambda: None)
    finally:
        await runner.cleanup()


def test_without_a_way_to_the_api_server_it_says_so_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nothing"))
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        assert main(["--address", "127.0.0.1:0"]) == 2
    finally:
        root.handlers[:], root.level = before
    assert "no way to the API server" in capsys.readouterr().err.splitlines()[-1]


async def test_a_process_serves_until_it_is_told_to_go(tmp_path: Path) -> None:
    async with api_server() as server:
        kubeconfig = tmp_path / "kubeconfig"
        context = {"name": "c", "context": {"cluster": "k", "user": "u"}}
        kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "current-context": "c",
                    "contexts": [context],
                    "clusters": [{"name": "k", "cluster": {"server": server.url}}],
                    "users": [{"name": "u", "user": {}}],
                }
            )
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "faceblur_operator", "--address", "127.0.0.1:0", "--tick-seconds", "0.1"),
            env={"PATH": os.environ["PATH"], "KUBECONFIG": str(kubeconfig), PREFIX + "TYPO": "1"},
            cwd=tmp_path,
            stderr=asyncio.subprocess.PIPE,
        )
        while not any(call.verb == "watch" and call.resource == "faceblurclusters" for call in server.calls):
            assert process.returncode is None
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        _, errors = await process.communicate()
    assert process.returncode == 0
    lines = [json.loads(line) for line in errors.decode().splitlines()]
    assert lines[0]["message"] == "FACEBLUR_OPERATOR_TYPO is not a setting of this version and has no effect"
    assert [line["message"] for line in lines][-1] == "ending"
    assert {line["level"] for line in lines[1:]} == {"info"}
