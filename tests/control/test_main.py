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

from faceblur_operator.__main__ import main
from faceblur_operator.config import PREFIX, OperatorSettings
from faceblur_operator.liveness import AddressInUse, serve
from faceblur_operator.metrics import Metrics
from faceblur_process.settings import load
from support.api_server import api_server


def test_lists_have_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PREFIX + "OWN_LABELS", "a=b,c=d=e")
    settings = load(OperatorSettings, ["--namespaces", "shop, press"], program="x", description="")
    assert settings.namespaces == ("shop", "press")
    assert settings.own_labels == {"a": "b", "c": "d=e"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--concurrency", "many"], "--concurrency is 'many'"),
        (["--namespaces", "shop,Press"], "--namespaces is 'shop,Press'"),
        (["--own-labels", "a"], "name=value"),
    ],
)
def test_a_wrong_value_is_named(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


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


@pytest.mark.real_time
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
