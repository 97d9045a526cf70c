"""The objects of a FaceBlurJob: what the planner is asked, what it may do, how its pod runs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from faceblur_batch.job import JobSpec
from faceblur_batch.kubernetes_status import progress_of
from faceblur_batch.ledger import Totals
from faceblur_batch.planner import Phase, Status
from faceblur_batch.summary import Summary
from faceblur_operator import crdgen, job_naming
from faceblur_operator.api.v1alpha1 import FaceBlurCluster
from faceblur_operator.api.v1alpha1_job import JOB_KIND, FaceBlurJob, FaceBlurJobSpec, Progress
from faceblur_operator.api.v1alpha1_job import Phase as JobPhase
from faceblur_operator.builders.planner_access import build_planner_binding, build_planner_role
from faceblur_operator.builders.planner_job import build_planner_cron_job, build_planner_job
from faceblur_operator.builders.planner_specification import build_specification, most_pages, specification
from faceblur_operator.job_conditions import ConditionType
from support.images import ROOT
from support.job_world import BATCH, batch_cluster, job_body
from support.pod_security import violations

FULL = yaml.safe_load((ROOT / "examples" / "faceblurjob-full.yaml").read_text(encoding="utf-8"))["spec"]


def job(**spec: Any) -> FaceBlurJob:
    return FaceBlurJob.model_validate(job_body(**spec))


def cluster(**spec: Any) -> FaceBlurCluster:
    return FaceBlurCluster.model_validate(batch_cluster(**spec))


def planner(**spec: Any) -> dict[str, Any]:
    return build_planner_job(job(**spec), cluster(), default_image="worker:1", cluster_domain="cluster.local")


def template(**spec: Any) -> dict[str, Any]:
    found: dict[str, Any] = planner(**spec)["spec"]["template"]
    return found


def test_the_planner_reads_what_the_operator_writes_with_every_field_in_use() -> None:
    made = build_specification(job(**FULL), cluster())
    spec = JobSpec.model_validate_json(made["data"]["spec.json"])
    assert (spec.source, spec.destination) == ("s3://photos/", "s3://blurred/press/")
    assert (spec.source_profile, spec.page_size, spec.parallelism) == ("archive", 500, 40)
    assert spec.selection.suffixes == {".jpg", ".jpeg"}
    assert spec.selection.newer_than is not None
    assert spec.selection.max_size == 50_000_000
    assert spec.headers.keep_metadata == {"department"}
    assert spec.asked_options().margin is not None
    assert spec.options["keep"] == ["copyright", "icc"]
    assert (spec.max_errors, spec.max_error_percent, spec.deadline_seconds) == (1000, 5, 21600)
    assert (spec.samples, spec.template) == (12, "{dir}/{stem}-blurred{ext}")


def test_what_the_spec_leaves_unset_is_left_to_the_batch() -> None:
    spec = JobSpec.model_validate(specification(job(), cluster()))
    plain = JobSpec(
        source="s3://photos/2026/", destination="s3://blurred/2026/", destination_profile="archive", parallelism=18
    )
    assert spec == plain
    assert specification(job(source={"location": "s3://a1b", "profile": "default"}), cluster())["source_profile"] == ""


def test_every_field_of_a_batch_can_be_asked_for() -> None:
    made = specification(job(**FULL), cluster())
    assert JobSpec.model_fields.keys() - made.keys() == {"name", "token"}


def test_as_many_pages_are_out_as_the_most_batch_workers_can_work_on() -> None:
    assert most_pages(cluster()) == 6 * 3
    fixed = {**BATCH, "replicas": 2, "autoscaling": {"mode": "Fixed"}}
    assert most_pages(cluster(batch=fixed)) == 2 * 3
    assert most_pages(cluster(batch={**fixed, "replicas": 0})) == 1


def test_a_planner_may_write_the_status_of_its_own_job_alone() -> None:
    role, binding = build_planner_role(job(), cluster()), build_planner_binding(job(), cluster())
    (rule,) = role["rules"]
    assert rule == {
        "apiGroups": ["faceblur.io"],
        "resources": ["faceblurjobs/status"],
        "resourceNames": ["photos"],
        "verbs": ["patch"],
    }
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "photos-planner", "namespace": "shop"}]


def test_the_pod_is_restricted_and_has_a_token_that_is_renewed() -> None:
    spec = template()["spec"]
    assert violations(spec) == []
    assert spec["automountServiceAccountToken"] is False
    (api,) = (volume for volume in spec["volumes"] if volume["name"] == "api")
    assert [next(iter(source)) for source in api["projected"]["sources"]] == ["serviceAccountToken", "configMap"]
    assert spec["restartPolicy"] == "Never"
    assert spec["terminationGracePeriodSeconds"] >= 60


def test_exit_codes_that_are_final_end_the_job_and_others_are_tried_again() -> None:
    """The codes are those of `faceblur_batch.plan`."""
    rules = planner()["spec"]["podFailurePolicy"]["rules"]
    codes = {code: rule["action"] for rule in rules for code in rule.get("onExitCodes", {}).get("values", ())}
    assert codes == {2: "FailJob", 3: "FailJob", 4: "Ignore"}
    assert {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]} in rules


def arguments(made: dict[str, Any]) -> list[str]:
    spec = made["spec"].get("jobTemplate", made)["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert container["command"] == ["python", "-m", "faceblur_batch.plan"]
    found: list[str] = container["args"]
    return found


def test_the_token_of_a_pass_changes_with_what_is_asked_of_it_and_that_of_a_schedule_with_each_run() -> None:
    plain, other, budget = (arguments(planner(**spec)) for spec in ({}, {"options": {"cells": 4}}, {"maxErrors": 5}))
    assert plain != other
    assert plain == budget
    assert "--resume" in plain
    scheduled = arguments(
        build_planner_cron_job(
            job(schedule="0 3 * * *"), cluster(), default_image="worker:1", cluster_domain="cluster.local"
        )
    )
    assert "--token=uid-of-photos.$(FACEBLUR_JOB_RUN)" in scheduled
    assert "--resume" not in scheduled


def test_a_changed_file_takes_another_planner() -> None:
    annotation = "faceblur.io/template"
    first = template()["metadata"]["annotations"][annotation]
    assert template()["metadata"]["annotations"][annotation] == first
    assert template(maxErrors=5)["metadata"]["annotations"][annotation] != first
    assert template(suspend=True)["metadata"]["annotations"][annotation] == first


def test_a_planner_is_found_by_its_clusters_policies_and_by_its_job() -> None:
    labels = template()["metadata"]["labels"]
    assert labels["app.kubernetes.io/instance"] == "demo"
    assert labels["app.kubernetes.io/component"] == "planner"
    assert labels[job_naming.JOB_LABEL] == "photos"
    for part in job_naming.selector(job()).split(","):
        name, _, value = part.partition("=")
        assert labels[name] == value


def test_the_longest_name_leaves_room_for_those_made_from_it() -> None:
    name = "n" * job_naming.MAX_NAME_LENGTH
    assert len(job_naming.metadata(job(name=name), cluster())["name"]) <= 52, "the most for a CronJob"


def fields(schema: dict[str, Any], path: tuple[str, ...] = ()) -> Any:
    for name, field in schema.get("properties", {}).items():
        yield (*path, name)
        yield from fields(field, (*path, name))


def test_the_full_example_has_every_field_and_is_read_as_it_was_written() -> None:
    crd = crdgen.build_crd(next(kind for kind in crdgen.KINDS if kind.kind == JOB_KIND))
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    given = {**FULL, "ttlSecondsAfterFinished": 1}

    def has(path: tuple[str, ...]) -> bool:
        found: Any = given
        for name in path:
            if not isinstance(found, dict) or name not in found:
                return False
            found = found[name]
        return True

    assert [path for path in fields(schema) if not has(path)] == []
    read = FaceBlurJobSpec.model_validate(FULL)
    assert json.loads(json.dumps(read.model_dump(mode="json", by_alias=True, exclude_none=True))) == FULL


@pytest.mark.parametrize("name", ["faceblurjob.yaml", "faceblurjob-full.yaml"])
def test_the_examples_use_a_cluster_that_there_is(name: str) -> None:
    example = yaml.safe_load((ROOT / "examples" / name).read_text(encoding="utf-8"))
    other = yaml.safe_load((ROOT / "examples" / "faceblurcluster-batch.yaml").read_text(encoding="utf-8"))
    assert example["spec"]["clusterRef"]["name"] == other["metadata"]["name"]


def test_no_field_of_the_progress_is_lost_between_planner_and_definition() -> None:
    status = Status(
        job="abc",
        generation=2,
        phase=Phase.COMPLETED,
        reason="",
        totals=Totals(objects=10),
        planned=True,
        summary=Summary(),
        rate=1.5,
        seconds_left=None,
    )
    told = progress_of(status, "run", datetime.now(UTC))
    assert told.keys() == Progress.model_json_schema(by_alias=True)["properties"].keys()


def test_the_documentation_has_every_phase_and_condition() -> None:
    text = (ROOT / "docs" / "jobs.md").read_text(encoding="utf-8")
    names = [str(phase) for phase in JobPhase]
    names += [value for name, value in vars(ConditionType).items() if name.isupper()]
    assert [name for name in names if f"`{name}`" not in text] == []
