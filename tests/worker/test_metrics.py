"""What Prometheus reads, and that the dashboard asks for exactly that."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

import faceblur
from faceblur.v1 import faceblur_service_pb2
from support.eventual import eventually
from support.running_worker import Hold, RunningWorker, picture

DASHBOARD = Path(__file__).parents[2] / "worker/dashboards/faceblur-workers.json"


def test_pictures_are_counted(start: Callable[..., RunningWorker]) -> None:
    worker = start()
    for _ in range(3):
        worker.blur(picture(10, 20))
    with pytest.raises(grpc.RpcError):
        worker.blur(b"text")
    eventually(lambda: worker.samples()["faceblur_worker_requests_total OK BlurImage"] == 3)
    samples = worker.samples()
    assert samples["faceblur_worker_pictures_total ok"] == 3
    assert samples["faceblur_worker_pictures_total UNSUPPORTED_FORMAT"] == 1
    assert samples["faceblur_worker_requests_total INVALID_ARGUMENT BlurImage"] == 1
    assert samples["faceblur_worker_request_seconds_count BlurImage"] == 4
    assert samples["faceblur_worker_stage_seconds_count detect"] == 3
    assert samples["faceblur_worker_wait_seconds_count"] == 3
    assert samples["faceblur_worker_faces_total"] == 3
    assert samples["faceblur_worker_pixels_total"] == 600
    assert samples["faceblur_worker_received_bytes_total"] == 3 * len(picture(10, 20))
    assert samples["faceblur_worker_inside"] == 0


def test_a_worker_says_what_it_runs(start: Callable[..., RunningWorker]) -> None:
    worker = start()
    samples = worker.samples()
    assert {name for name in samples if name.startswith("faceblur_worker_model_info")} == {
        f"faceblur_worker_model_info {model.name} {model.runtime} {model.sha256}" for model in worker.engine.models
    }
    assert samples[f"faceblur_worker_info balanced {faceblur.__version__}"] == 1


def test_the_queue_and_refusals_are_shown(start: Callable[..., RunningWorker], hold: Hold) -> None:
    worker = start(threads=1, max_waiting=1)
    worker.engine.hook = hold
    ask = faceblur_service_pb2.BlurImageRequest(image=picture())
    calls = [worker.stub.BlurImage.future(ask, timeout=20)]
    hold.wait_until_begun()
    calls.append(worker.stub.BlurImage.future(ask, timeout=20))
    eventually(lambda: worker.samples()["faceblur_worker_waiting"] == 1)
    with pytest.raises(grpc.RpcError):
        worker.blur(picture())
    samples = worker.samples()
    assert samples["faceblur_worker_running"] == 1
    assert samples["faceblur_worker_inside"] == 2
    assert samples["faceblur_worker_bytes_in_flight"] == 2 * len(picture())
    assert samples["faceblur_worker_longest_run_seconds"] > 0
    assert samples["faceblur_worker_refusals_total OVERLOADED"] == 1
    hold.let_go.set()
    assert all(call.result().image for call in calls)


def test_every_query_of_the_dashboard_asks_for_a_metric_and_labels_that_exist(
    start: Callable[..., RunningWorker], hold: Hold
) -> None:
    worker = start(max_waiting=0, threads=1)
    worker.blur(picture())
    worker.engine.hook = hold
    busy = worker.stub.BlurImage.future(faceblur_service_pb2.BlurImageRequest(image=picture()), timeout=20)
    hold.wait_until_begun()
    with pytest.raises(grpc.RpcError):
        worker.blur(picture())
    families = worker.metrics()
    hold.let_go.set()
    busy.result()
    labels = {sample.name: set(sample.labels) for family in families for sample in family.samples}
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(queries) >= 15
    added = {"namespace", "pod"}  # by the scraper, not by the worker
    for query in queries:
        names = re.findall(r"\b((?:faceblur_worker|process)_\w+)\{", query)
        assert names, query
        for name in names:
            assert name in labels, query
            grouped = {label.strip() for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(",")}
            assert grouped <= labels[name] | added, query
    shown = {name for query in queries for name in re.findall(r"faceblur_worker_\w+", query)}
    ours = {re.sub(r"_(count|sum|created)$", "_bucket", name) for name in labels if name.startswith("faceblur_worker_")}
    created = {name for name in ours if name.endswith("_bucket") and name not in labels}
    assert ours - created == shown  # and it shows all there is
