"""FaceBlurJobs on a real cluster: pictures from a bucket to a bucket, and everything that may come in between."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator

import pytest

from faceblur_operator import crdgen
from faceblur_operator.api.v1alpha1_job import JOB_KIND
from support.certificates import Authority
from support.cluster import Cluster, Evidence, RefusedError, condition, full_name
from support.eventual import eventually
from support.jobs import API_VERSION, Job, Surroundings, batch, progress
from support.operator import Operator
from support.workers import Workers, fixed, merged

pytestmark = pytest.mark.timeout(420)
OWNED = (
    ("v1", "ServiceAccount"),
    ("v1", "ConfigMap"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    ("batch/v1", "Job"),
    ("batch/v1", "CronJob"),
)
# What a planner's own token may do, asked from inside its pod.
ASK = """
import json, os, ssl, urllib.error, urllib.request
folder = "/var/run/secrets/kubernetes.io/serviceaccount/"
server = "https://" + os.environ["KUBERNETES_SERVICE_HOST"] + ":" + os.environ["KUBERNETES_SERVICE_PORT"]
namespace, name = os.environ["FACEBLUR_JOB_NAMESPACE"], os.environ["FACEBLUR_JOB_NAME"]
jobs = "/apis/faceblur.io/v1alpha1/namespaces/%s/faceblurjobs/" % namespace
def ask(method, path):
    request = urllib.request.Request(server + path, method=method, data=b"{}" if method == "PATCH" else None)
    request.add_header("Authorization", "Bearer " + open(folder + "token").read())
    request.add_header("Content-Type", "application/merge-patch+json")
    try:
        with urllib.request.urlopen(request, context=ssl.create_default_context(cafile=folder + "ca.crt")) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
print(json.dumps({
    "own status": ask("PATCH", jobs + name + "/status"),
    "own spec": ask("PATCH", jobs + name),
    "read own": ask("GET", jobs + name),
    "list jobs": ask("GET", jobs[:-1]),
    "another's status": ask("PATCH", jobs + "another/status"),
    "secrets": ask("GET", "/api/v1/namespaces/%s/secrets/store" % namespace),
    "pods": ask("GET", "/api/v1/namespaces/%s/pods" % namespace),
    "cluster": ask("GET", "/apis/faceblur.io/v1alpha1/namespaces/%s/faceblurclusters/demo" % namespace),
}))
"""


@pytest.fixture(scope="module")
def surroundings(kube: Cluster, operator: Operator, worker_image: str) -> Iterator[Surroundings]:
    """Workers that do batches, a store and a broker: once for all tests, which have folders of their own."""
    for image in ("FACEBLUR_REDIS_IMAGE", "FACEBLUR_VERSITYGW_IMAGE"):
        if image not in os.environ:
            pytest.skip(f"{image} does not name an image that the cluster has")
    namespace = f"e2e-jobs-{secrets.token_hex(3)}"
    kube.make_namespace(namespace)
    made = Surroundings(kube, namespace)
    try:
        made.start(worker_image)
        workers = Workers(kube, namespace)
        workers.apply({**fixed(1), "batch": batch(namespace)})
        workers.wait_ready(1)
        yield made
    finally:
        kube.delete("v1", "Namespace", namespace)


@pytest.fixture
def job(surroundings: Surroundings, evidence: Evidence, request: pytest.FixtureRequest) -> Iterator[Job]:
    """A job of a name that no other test has; it is gone afterwards."""
    evidence.namespaces.append(surroundings.namespace)
    name = f"job-{request.node.name.removeprefix('test_')[:24].replace('_', '-').strip('-')}"
    made = Job(surroundings.kube, surroundings.namespace, name)
    yield made
    evidence.keep_if_failed()
    made.delete()
    eventually(lambda: not owned(made), 90, "the end of what the job made")


def owned(job: Job) -> list[str]:
    """What there is of a job."""
    name = f"{job.name}-planner"
    found = [f"{kind}" for api, kind in OWNED if job.kube.get(api, kind, name, job.namespace)]
    return found + ["Pod" for _ in job.pods()]


def test_two_thousand_pictures_go_from_a_bucket_to_a_bucket_and_poison_among_them_is_refused(
    kube: Cluster, surroundings: Surroundings, job: Job
) -> None:
    surroundings.bucket("fill", "photos", "all/", "2000", "20")
    job.apply("all", options={"cells": 6}, samples=2)
    job.wait_phase("Planning", "Running")
    body = job.wait_phase("Completed", "Failed", "Stopped", seconds=300)
    done = progress(body)
    assert body["status"]["phase"] == "Completed", body["status"]
    assert (done["objects"], done["done"], done["refused"], done["percent"]) == (2020, 2020, 20, 100), done
    assert done["blurred"] + done["noFace"] == 2000
    assert condition(body, "Complete")["reason"] == "CompletedWithErrors"
    kube.kubectl("-n", job.namespace, "wait", "--for=condition=Complete", f"faceblurjob/{job.name}", "--timeout=5s")

    found = surroundings.bucket("look", "photos", "all/", "blurred", "all/")
    assert found["wrongs"] == 0, found
    assert found["outputs"] == 2000
    assert found["counts"] == {"face": done["blurred"], "none": done["noFace"], "refused": 20}
    assert f"all/{done['report']}" in surroundings.bucket("keys", "blurred", "all/")["html"]

    columns = kube.kubectl("-n", job.namespace, "get", "fbj", job.name).splitlines()[1].split()
    assert columns[:5] == [job.name, "Completed", "100", "2020", "2020"]
    planner = job.planner()
    assert planner is not None
    assert condition(planner, "Complete")["status"] == "True"
    eventually(lambda: "CompletedWithErrors" in job.events(), 20, "an Event")

    # Nothing is done again for a change of what only Kubernetes reads; then the job goes when its time is over.
    version = planner["metadata"]["uid"]
    job.apply("all", options={"cells": 6}, samples=2, planner={"resources": {"requests": {"cpu": "50m"}}})
    job.wait(lambda found: found["status"]["observedGeneration"] == found["metadata"]["generation"])
    planner = job.planner()
    assert planner is not None
    assert planner["metadata"]["uid"] == version
    job.apply("all", options={"cells": 6}, samples=2, ttlSecondsAfterFinished=1)
    kube.wait_until(API_VERSION, JOB_KIND, job.name, job.namespace, lambda found: found is None, 60)
    eventually(lambda: not owned(job), 60, "the end of what the job made")
    assert surroundings.bucket("keys", "blurred", "all/")["outputs"] == 2000


def test_a_job_that_is_suspended_stops_and_goes_on_where_it_was(surroundings: Surroundings, job: Job) -> None:
    surroundings.bucket("fill", "photos", "suspended/", "600")
    job.apply("suspended")
    job.wait_done(50)
    job.apply("suspended", suspend=True)
    body = job.wait_phase("Suspended")
    eventually(lambda: not job.pods(), 90, "the planner's end")
    assert condition(body, "Suspended")["status"] == "True"
    assert surroundings.bucket("marks", "blurred", "suspended/")["marks"][0]["state"] == "suspend"
    job.apply("suspended", suspend=False)
    done = progress(job.wait_phase("Completed", seconds=180))
    assert (done["done"], done["errors"], done["generation"]) == (600, 0, 1)
    assert surroundings.bucket("look", "photos", "suspended/", "blurred", "suspended/")["wrongs"] == 0
    assert {"Suspended", "Resumed"} <= set(job.events())


def test_a_planner_that_is_killed_is_followed_by_one_that_goes_on(
    kube: Cluster, surroundings: Surroundings, job: Job
) -> None:
    surroundings.bucket("fill", "photos", "killed/", "600")
    job.apply("killed")
    for count in (50, 200):
        job.wait_done(count)
        (pod,) = job.pods()
        kube.kubectl("-n", job.namespace, "delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force")
        eventually(lambda pod=pod: job.pods() and job.pods()[0]["metadata"]["uid"] != pod["metadata"]["uid"], 90)
    done = progress(job.wait_phase("Completed", seconds=180))
    assert (done["done"], done["errors"], done["generation"]) == (600, 0, 1)
    assert surroundings.bucket("look", "photos", "killed/", "blurred", "killed/")["wrongs"] == 0


def test_a_job_that_is_deleted_leaves_what_is_written_and_its_queued_pages_stop(
    surroundings: Surroundings, job: Job
) -> None:
    surroundings.bucket("fill", "photos", "deleted/", "800")
    job.apply("deleted")
    job.wait_done(50)
    job.delete()
    eventually(lambda: not owned(job), 90, "the end of what the job made")
    assert surroundings.bucket("marks", "blurred", "deleted/")["marks"][0]["state"] == "suspend"
    there = surroundings.bucket("keys", "blurred", "deleted/")["outputs"]
    assert 50 <= there < 800
    job.apply("deleted")
    done = progress(job.wait_phase("Completed", seconds=180))
    assert (done["done"], done["generation"]) == (800, 1), "another job of the same kind goes on with the ledger"
    assert surroundings.bucket("look", "photos", "deleted/", "blurred", "deleted/")["wrongs"] == 0


def test_too_many_errors_stop_a_job_and_a_larger_budget_lets_it_go_on(surroundings: Surroundings, job: Job) -> None:
    surroundings.bucket("fill", "photos", "budget/", "100", "30")
    job.apply("budget", maxErrors=5, pageSize=16)
    body = job.wait_phase("Stopped")
    assert condition(body, "Failed")["reason"] == "Stopped"
    assert "5 are allowed" in condition(body, "Failed")["message"]
    planner = job.planner()
    assert planner is not None
    assert condition(planner, "Failed")["status"] == "True"
    job.apply("budget", maxErrors=30, pageSize=16)
    done = progress(job.wait_phase("Completed"))
    assert (done["done"], done["refused"], done["generation"]) == (130, 30, 1)


def test_a_schedule_runs_by_the_minute_and_a_run_does_what_is_new(
    kube: Cluster, surroundings: Surroundings, job: Job
) -> None:
    surroundings.bucket("fill", "photos", "scheduled/", "40")
    job.apply("scheduled", schedule="* * * * *", timeZone="Europe/Berlin")
    assert job.wait(lambda body: condition(body, "Scheduled").get("status") == "True")
    body = job.wait_phase("Completed", seconds=110)
    done = progress(body)
    assert (done["done"], done["generation"]) == (40, 1)
    assert body["status"]["lastScheduleTime"]
    cron_job = job.planner("CronJob")
    assert cron_job is not None
    assert cron_job["spec"]["concurrencyPolicy"] == "Forbid"

    job.apply("scheduled", schedule="0 4 1 1 *", timeZone="Europe/Berlin")
    eventually(lambda: (job.planner("CronJob") or {})["spec"]["schedule"] == "0 4 1 1 *", 20, "the other schedule")
    first = progress(job.get())["run"]
    surroundings.bucket("fill", "photos", "scheduled/", "60")
    kube.kubectl("-n", job.namespace, "create", "job", f"--from=cronjob/{job.name}-planner", f"{job.name}-now")
    done = progress(job.wait(lambda body: progress(body)["run"] != first and progress(body)["phase"] == "completed"))
    assert (done["done"], done["unchanged"]) == (60, 40), done
    assert done["generation"] == progress(body)["generation"] + 1
    job.wait(lambda body: body["status"]["run"] == f"{job.name}-now" and body["status"]["phase"] == "Completed")


def test_a_planner_may_write_the_status_of_its_own_job_and_nothing_else(
    kube: Cluster, surroundings: Surroundings, job: Job
) -> None:
    surroundings.bucket("fill", "photos", "rights/", "2000")
    job.apply("rights", planner={"resources": {"requests": {"cpu": "50m"}}})
    job.wait_done(1)
    (pod,) = job.pods()
    said = kube.kubectl("-n", job.namespace, "exec", pod["metadata"]["name"], "--", "python", "-c", ASK)
    codes = json.loads(said.splitlines()[-1])
    assert codes.pop("own status") == 200
    assert set(codes.values()) == {403}, codes


def test_a_job_waits_for_its_cluster_and_says_what_is_missing(kube: Cluster, surroundings: Surroundings) -> None:
    surroundings.bucket("fill", "photos", "waiting/", "10")
    job = Job(kube, surroundings.namespace, "waiting")
    job.apply("waiting", clusterRef={"name": "another"})
    job.wait(lambda body: condition(body, "ClusterReady").get("reason") == "ClusterMissing")
    assert job.get()["status"]["phase"] == "Pending"
    another = Workers(kube, surroundings.namespace, "another")
    another.apply(fixed(1))
    job.wait(lambda body: condition(body, "ClusterReady").get("reason") == "BatchMissing")
    another.apply({**fixed(1), "batch": {**batch(surroundings.namespace), "storage": []}})
    job.wait(lambda body: condition(body, "ClusterReady").get("reason") == "StorageProfileMissing")
    another.apply({**fixed(1), "batch": batch(surroundings.namespace)})
    done = progress(job.wait_phase("Completed", seconds=180))
    assert done["done"] == 10
    job.delete()
    another.delete()
    eventually(lambda: not owned(job), 60, "the end of what the job made")


def test_a_job_where_workers_and_broker_ask_for_certificates(
    kube: Cluster, surroundings: Surroundings, job: Job
) -> None:
    authority, namespace = Authority(), surroundings.namespace
    for name in ("secured", "encrypted", "batch"):
        certificate, key = authority.issue(name, alternative=full_name(name, namespace))
        url = f"rediss://{full_name(name, namespace)}:6379/0"
        kube.put_secret(name, namespace, {"tls.crt": certificate, "tls.key": key, "ca.crt": authority.pem, "url": url})
    surroundings.encrypted_redis("encrypted")
    secured = Workers(kube, namespace, "secured")
    tls = {"secretName": "secured", "mutual": {"caSecretName": "secured", "allowedIdentities": ["batch"]}}
    broker = {"secretName": "encrypted", "caSecretName": "encrypted", "clientSecretName": "batch"}
    asked = {"broker": broker, "tls": {"clientSecretName": "batch"}}
    secured.apply({**fixed(1), "tls": tls, "batch": merged(batch(namespace), asked)})
    surroundings.bucket("fill", "photos", "secured/", "40")
    job.apply("secured", clusterRef={"name": "secured"})
    done = progress(job.wait_phase("Completed", seconds=180))
    assert (done["done"], done["errors"]) == (40, 0), done
    assert surroundings.bucket("look", "photos", "secured/", "blurred", "secured/")["wrongs"] == 0
    secured.delete()


def test_a_source_that_cannot_be_read_is_a_failure_in_the_planners_words(job: Job) -> None:
    job.apply("none", source={"location": "s3://no-such-bucket/x/"})
    body = job.wait_phase("Failed", seconds=90)
    failed = condition(body, "Failed")
    assert failed["reason"] == "PlannerFailed"
    assert "no-such-bucket" in failed["message"]


def test_what_cannot_be_meant_is_refused_by_the_api_server(kube: Cluster, crds: None) -> None:
    job = Job(kube, "default", "nonsense")

    def refused(folder: str = "x", **spec: object) -> str:
        with pytest.raises(RefusedError) as caught:
            job.apply(folder, **spec)
        return str(caught.value)

    assert "results would be taken for pictures" in refused(destination={"location": "s3://photos/x/y/"})
    assert "results would be taken for pictures" in refused(destination={"location": "s3://photos"})
    assert "timeZone is only read with schedule" in refused(timeZone="UTC")
    assert "startingDeadlineSeconds is only read with schedule" in refused(startingDeadlineSeconds=60)
    assert "never finishes" in refused(schedule="* * * * *", ttlSecondsAfterFinished=5)
    assert "give the time zone in timeZone" in refused(schedule="TZ=UTC * * * * *")
    assert "minBytes must not be above maxBytes" in refused(selection={"minBytes": 5, "maxBytes": 4})
    assert "minFace must not be above maxFace" in refused(options={"minFace": 5, "maxFace": 4})
    assert "is FaceBlur's own" in refused(headers={"keepMetadata": ["faceblur-job"]})
    assert "spec.template" in refused(template="{stem}{ext}")
    assert "spec.source.location" in refused(source={"location": "/folder"})
    assert "at most" in str(_named(kube, "n" * 45))
    rules = [
        rule["message"]
        for kind in crdgen.KINDS
        if kind.kind == JOB_KIND
        for rule in crdgen.build_crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"][
            "x-kubernetes-validations"
        ]
    ]
    job.apply("x", suspend=True)
    try:
        changes = {
            "clusterRef": refused(suspend=True, clusterRef={"name": "b"}),
            "source": refused(suspend=True, source={"location": "s3://photos/y/"}),
            "destination": refused(suspend=True, destination={"location": "s3://blurred/y/"}),
            "schedule": refused(suspend=True, schedule="* * * * *"),
        }
    finally:
        job.delete()
    for field, said in changes.items():
        assert any(rule in said and field in rule for rule in rules), said


def _named(kube: Cluster, name: str) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        Job(kube, "default", name).apply("x")
    return caught.value
