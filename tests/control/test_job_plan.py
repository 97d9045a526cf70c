"""What is written for a FaceBlurJob, and what is said about it."""

from __future__ import annotations

from typing import Any

import pytest

from faceblur_operator.job_conditions import Reason
from faceblur_operator.observed import Memory, ObjectKey
from support.clusters import condition, foreign, waiting
from support.job_world import BATCH, CRON_JOB, JOB, JobWorld, batch_cluster, later, planner_pod

KINDS = ["ServiceAccount", "Role", "RoleBinding", "ConfigMap"]


def running(**spec: Any) -> JobWorld:
    """A job whose planner works."""
    world = JobWorld(**spec)
    world.settle()
    world.run["status"] = {"active": 1, "startTime": world.stamp()}
    world.pods = [planner_pod(world.run)]
    world.report("running", done=40, objects=100)
    world.settle()
    assert world.body["status"]["phase"] == "Running"
    return world


def completed(**spec: Any) -> JobWorld:
    world = running(**spec)
    world.report("completed", done=100, objects=100, blurred=90, refused=10, errors=10, listed=True, percent=100)
    world.end()
    world.settle()
    return world


def stopped(**spec: Any) -> JobWorld:
    world = running(**spec)
    world.report("stopped", done=60, reason="6 objects have no result; 5 are allowed")
    world.end("Failed")
    world.settle()
    return world


def reasons(world: JobWorld) -> list[str]:
    return [event.reason for event in world.step().events]


def test_everything_is_made_in_order_and_then_nothing_is_written() -> None:
    world = JobWorld()
    plan = world.step()
    assert [manifest["kind"] for manifest in plan.apply] == [*KINDS, "Job"]
    assert plan.status.phase == "Pending"
    world.settle()
    assert world.body["status"]["observedGeneration"] == 1


def test_progress_alone_is_no_reason_to_write() -> None:
    world = running()
    before = world.plan()
    world.report("running", done=41, objects=100, rate="7.0/s")
    plan = world.plan()
    assert not plan.apply
    assert plan.status.model_copy(update={"progress": None}) == before.status.model_copy(update={"progress": None})


def test_a_job_is_planned_then_runs_then_is_complete_and_says_so() -> None:
    world = JobWorld()
    world.settle()
    world.run["status"] = {"active": 1}
    assert world.settle().status.phase == "Pending"
    world.report("planning")
    assert reasons(world) == ["Started"]
    assert world.say("Progressing") == ("True", "Planning")
    world.report("concluding", done=100)
    world.step()
    assert world.body["status"]["phase"] == "Running"
    world.report("completed", done=100, blurred=60, noFace=40)
    world.end()
    assert reasons(world) == ["Completed"]
    assert world.say("Complete") == ("True", "Completed")
    assert world.message("Complete") == "100 objects: 60 blurred, 40 without a face."
    assert world.body["status"]["completionTime"] == world.stamp()
    assert not world.step().events


def test_pictures_without_a_result_are_a_warning_and_no_failure() -> None:
    world = completed()
    assert world.say("Complete") == ("True", "CompletedWithErrors")
    assert world.say("Failed")[0] == "False"
    assert "10 have no result" in world.message("Complete")


@pytest.mark.parametrize(
    ("change", "anew"),
    [
        ({"options": {"cells": 4}}, True),
        ({"selection": {"prefix": "a/"}}, True),
        ({"check": True}, True),
        ({"maxErrors": 5}, False),
        ({"pageSize": 5}, False),
        ({"planner": {"resources": {"limits": {"memory": "1Gi"}}}}, False),
        ({"ttlSecondsAfterFinished": 500}, False),
        ({"suspend": True}, False),
    ],
)
def test_a_complete_job_is_done_again_only_for_another_result(change: dict[str, Any], anew: bool) -> None:
    world = completed()
    before = world.run["metadata"]["uid"]
    later(world, 100)
    world.change(**change)
    world.settle()
    assert (world.run["metadata"]["uid"] != before) == anew
    assert (world.body["status"]["phase"] == "Pending") == anew


def test_another_cluster_image_is_no_reason_to_do_a_complete_job_again() -> None:
    world = completed()
    world.cluster = batch_cluster(image="another:2")
    assert JOB not in world.step().delete
    del world.objects[JOB]
    world.settle()
    assert JOB not in world.objects, "somebody who tidies up is not asking for more"
    assert world.body["status"]["phase"] == "Completed"


def test_a_change_takes_the_planner_away_and_the_next_one_comes_when_it_has_ended() -> None:
    world = running()
    world.change(options={"cells": 4})
    assert world.plan().delete == (JOB,)
    assert [manifest["kind"] for manifest in world.plan().apply] == ["ConfigMap"], "a Job cannot be changed"
    world.run["metadata"]["deletionTimestamp"] = world.stamp()
    plan = world.step()
    assert [manifest["kind"] for manifest in plan.apply] == ["ConfigMap"]
    assert not plan.delete
    assert (plan.status.phase, plan.status.conditions[0].reason) == ("Pending", Reason.RESTARTING)
    del world.objects[JOB]
    assert [manifest["kind"] for manifest in world.step().apply] == ["Job"]


def test_suspending_keeps_the_job_and_resuming_goes_on() -> None:
    world = running()
    world.change(suspend=True)
    assert reasons(world) == ["Suspended"]
    assert world.run["spec"]["suspend"] is True
    assert world.say("Suspended")[0] == "True"
    world.settle()
    world.change(suspend=False)
    assert reasons(world) == ["Resumed"]
    world.report("planning")
    world.step()
    assert world.run["spec"]["suspend"] is False
    assert world.say("Suspended") == ("", "")


def test_a_job_that_is_suspended_from_the_start_has_no_planner() -> None:
    world = JobWorld(suspend=True)
    world.settle()
    assert JOB not in world.objects
    assert world.body["status"]["phase"] == "Suspended"
    world.change(suspend=False)
    world.settle()
    assert JOB in world.objects


def test_a_stopped_job_says_why_and_goes_on_with_a_larger_budget() -> None:
    world = stopped(maxErrors=5)
    assert world.say("Failed") == ("True", "Stopped")
    assert "5 are allowed" in world.message("Failed")
    before = world.run["metadata"]["uid"]
    later(world, 100)
    world.settle()
    assert world.run["metadata"]["uid"] == before
    world.change(maxErrors=50)
    world.settle()
    assert world.run["metadata"]["uid"] != before
    assert world.say("Progressing") == ("False", "Starting"), "what the last planner said is about another run"


def test_suspending_and_resuming_a_failed_job_is_another_try() -> None:
    world = stopped()
    before = world.run["metadata"]["uid"]
    world.change(suspend=True)
    world.settle()
    assert JOB not in world.objects
    assert world.body["status"]["phase"] == "Suspended"
    later(world, 10)
    world.change(suspend=False)
    world.settle()
    assert world.run["metadata"]["uid"] != before


@pytest.mark.parametrize(
    ("said", "phase", "reason"),
    [("cancelled", "Cancelled", "Cancelled"), ("superseded", "Failed", "Superseded")],
)
def test_other_ends_have_their_own_words(said: str, phase: str, reason: str) -> None:
    world = running()
    world.report(said)
    world.end("Failed")
    assert reasons(world) == [reason]
    assert world.body["status"]["phase"] == phase


def test_a_planner_that_failed_is_quoted() -> None:
    world = running()
    log = "{}\nfaceblur batch planner: there is no bucket x [LOCATION_NOT_FOUND]\n"
    world.pods = [planner_pod(world.run, terminated={"exitCode": 3, "reason": "Error", "message": log})]
    world.report("planning")
    world.end("Failed")
    world.settle()
    assert world.say("Failed") == ("True", "PlannerFailed")
    assert "there is no bucket x [LOCATION_NOT_FOUND]" in world.message("Failed")


def test_a_planner_that_is_tried_again_or_cannot_start_is_degraded() -> None:
    world = running()
    assert world.say("Degraded")[0] == "False"
    world.pods = [planner_pod(world.run, terminated={"exitCode": 5, "message": "no worker answers"})]
    assert reasons(world) == ["PlannerFails"]
    assert "no worker answers" in world.message("Degraded")
    world.pods = [planner_pod(world.run, terminated={"exitCode": 137, "reason": "OOMKilled", "message": "{}"})]
    world.step()
    assert "more memory than its limit" in world.message("Degraded")
    world.pods = [planner_pod(world.run, **waiting("ErrImagePull", "no such image")["state"])]
    assert reasons(world) == ["ImagePullBackOff"]
    world.pods = [planner_pod(world.run, terminated={"exitCode": 4, "message": "suspended"})]
    world.step()
    assert world.say("Degraded")[0] == "False", "it was asked to end"


@pytest.mark.parametrize(
    ("cluster", "secrets", "reason"),
    [
        (None, {"broker", "store"}, "ClusterMissing"),
        (batch_cluster(batch=None), {"broker", "store"}, "BatchMissing"),
        (batch_cluster(batch={**BATCH, "storage": BATCH["storage"][:1]}), {"broker", "store"}, "StorageProfileMissing"),
        (batch_cluster(), {"broker"}, "SecretMissing"),
        ({**batch_cluster(), "status": {}}, {"broker", "store"}, "ClusterNotReady"),
    ],
)
def test_a_job_waits_for_what_its_cluster_lacks(cluster: Any, secrets: set[str], reason: str) -> None:
    world = JobWorld()
    world.cluster, world.secrets = cluster, secrets
    plan = world.step()
    assert [event.reason for event in plan.events] == [reason]
    assert world.say("ClusterReady") == ("False", reason)
    assert world.body["status"]["phase"] == "Pending"
    world.settle()
    assert JOB not in world.objects
    world.cluster, world.secrets = batch_cluster(), {"broker", "store"}
    world.settle()
    assert JOB in world.objects


@pytest.mark.parametrize("cluster", [None, batch_cluster(batch=None), {**batch_cluster(), "status": {}}])
def test_a_planner_that_works_is_left_to_it_when_its_cluster_is_in_trouble(cluster: Any) -> None:
    world = running()
    world.cluster = cluster
    plan = world.step()
    assert not plan.delete
    assert not plan.apply
    assert world.body["status"]["phase"] == "Running"
    assert world.say("ClusterReady")[0] == "False"


def test_a_finished_job_is_deleted_when_its_time_is_over_and_not_before() -> None:
    world = completed(ttlSecondsAfterFinished=300)
    plan = world.plan()
    assert (plan.again, plan.expired) == (300, False)
    later(world, 299)
    assert world.plan().again == 1
    later(world, 1)
    assert world.plan().expired
    world.change(options={"cells": 4})
    assert not world.plan().expired, "it is not finished any more"
    assert completed().plan().again is None
    assert running(ttlSecondsAfterFinished=300).plan().again is None


def test_drift_is_repaired_and_what_is_not_ours_is_left_alone() -> None:
    world = running()
    role = ObjectKey("rbac.authorization.k8s.io/v1", "Role", "photos-planner")
    world.objects[role]["rules"][0]["verbs"] = ["*"]
    assert [manifest["kind"] for manifest in world.plan().apply] == ["Role"]
    world.objects[role] = foreign(role.api_version, "Role", role.name)
    plan = world.step()
    assert not plan.apply
    assert world.say("Degraded") == ("True", "NameTaken")
    assert "Role photos-planner does not belong to this job" in world.message("Degraded")


def test_a_refused_object_is_a_condition_in_the_api_servers_words() -> None:
    world = JobWorld()
    world.memory = Memory(refused={JOB: "exceeded quota"})
    assert "ApplyRefused" in [event.reason for event in world.plan().events]


def test_a_schedule_is_a_cron_job_and_its_last_run_is_what_the_status_is_about() -> None:
    world = JobWorld(schedule="0 3 * * *", timeZone="Europe/Berlin", startingDeadlineSeconds=60)
    world.settle()
    live = world.objects[CRON_JOB]
    assert live["spec"]["schedule"] == "0 3 * * *"
    assert (live["spec"]["timeZone"], live["spec"]["concurrencyPolicy"]) == ("Europe/Berlin", "Forbid")
    assert world.say("Scheduled") == ("True", "Scheduled")
    assert (world.body["status"]["phase"], JOB in world.objects) == ("Pending", False)

    owner = [{"kind": "CronJob", "name": "photos-planner", "uid": live["metadata"]["uid"]}]
    for number, kind in enumerate(("Complete", "Failed"), 1):
        metadata = {"name": f"run-{number}", "uid": f"run-{number}", "creationTimestamp": world.stamp(number)}
        run = {"metadata": {**metadata, "ownerReferences": owner}}
        world.runs.append(run)
        world.report("planning", run)
        world.step()
        assert (world.body["status"]["phase"], world.body["status"]["run"]) == ("Planning", f"run-{number}")
        world.report("completed" if kind == "Complete" else "stopped", run, done=3, blurred=3)
        world.end(kind, run)
        world.settle()
        assert world.say(kind)[0] == "True"
    live["status"] = {"lastScheduleTime": world.stamp()}
    assert world.step().status.last_schedule_time == world.stamp()
    world.change(suspend=True)
    world.settle()
    assert world.objects[CRON_JOB]["spec"]["suspend"] is True
    assert world.say("Scheduled") == ("False", "Suspended")


def test_a_schedule_that_is_not_one_is_told_in_the_api_servers_words() -> None:
    world = JobWorld(schedule="whenever")
    world.memory = Memory(refused={CRON_JOB: "invalid schedule"})
    world.step()
    assert world.say("Scheduled") == ("False", "ApplyRefused")


def test_a_run_of_another_owner_is_none_of_this_job() -> None:
    world = JobWorld(schedule="0 3 * * *")
    world.settle()
    stranger = {"metadata": {"name": "x", "uid": "x", "creationTimestamp": world.stamp(), "ownerReferences": []}}
    world.runs = [{**stranger, "status": {"conditions": [condition("Failed", "True", since=world.now)]}}]
    world.settle()
    assert world.body["status"]["phase"] == "Pending"
