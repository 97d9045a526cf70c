"""A small world for the operator's decisions: a FaceBlurCluster, what is live around it, and controllers that obey.

`World` stands in for the API server and the controllers behind it, as far as plans can tell the difference: it stores
what is applied, remembers which field manager applied the replicas, and rolls out workers when told to. What a real
API server makes of the same manifests is proven against one.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from faceblur_operator import naming
from faceblur_operator.api.v1alpha1 import FaceBlurCluster
from faceblur_operator.observed import Manifest, Memory, ObjectKey, Observed, Plan, WorkerReport
from faceblur_operator.plan import OPTIONAL_APIS, PlanSettings, make_plan, places, secrets
from support.copies import copied

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
SETTINGS = PlanSettings(
    worker_image="registry.example/faceblur-worker:1.2.3",
    operator_namespace="faceblur-system",
    operator_labels={"app.kubernetes.io/name": "faceblur-operator"},
)
KEDA, CERT_MANAGER, MONITORING = "keda.sh/v1alpha1", "cert-manager.io/v1", "monitoring.coreos.com/v1"
IMAGE_ID = "registry.example/faceblur-worker@sha256:" + "a" * 64

# A spec with something in every field, as far as the fields go together.
RICH_SPEC: dict[str, Any] = {
    "image": "registry.example/faceblur-worker@sha256:" + "b" * 64,
    "imagePullPolicy": "Always",
    "imagePullSecrets": [{"name": "registry"}],
    "detection": {"profile": "thorough", "alsoServe": ["fast"], "minScore": 0.35, "minFace": 12.5, "maxFace": 900},
    "redaction": {
        "method": "mosaic",
        "cells": 5,
        "shape": "rounded",
        "margin": {"sides": 0.2, "top": 0.3, "bottom": 0.4, "pixels": 3},
        "feather": 0,
        "verify": True,
    },
    "metadata": {"keep": ["icc", "capture-time"]},
    "limits": {
        "maxBytes": 1000000,
        "maxWidth": 5000,
        "maxHeight": 4000,
        "maxPixels": 20000000,
        "maxScans": 20,
        "maxWaiting": 8,
        "maxMessageBytes": 2000000,
        "maxBytesInFlight": 9000000,
    },
    "workers": {
        "resources": {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"cpu": "1500m", "memory": "1024Mi"}},
        "maxConnectionAgeSeconds": 45,
        "settleSeconds": 3,
        "graceSeconds": 40,
        "logLevel": "debug",
        "traceEndpoint": "http://collector.tracing:4317",
    },
    "autoscaling": {
        "minReplicas": 1,
        "maxReplicas": 4,
        "targetCPUPercent": 60,
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 30}},
    },
    "tls": {
        "secretName": "workers",
        "mutual": {"caSecretName": "clients", "allowedIdentities": ["press", "hr office"]},
    },
    "scheduling": {
        "nodeSelector": {"pool": "cpu"},
        "tolerations": [{"key": "pool", "operator": "Exists"}],
        "affinity": {
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "weight": 5,
                        "podAffinityTerm": {
                            "topologyKey": "kubernetes.io/hostname",
                            "labelSelector": {"matchLabels": {"noisy": "yes"}},
                        },
                    }
                ]
            }
        },
        "topologySpreadConstraints": [
            {"maxSkew": 2, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}
        ],
        "priorityClassName": "system-cluster-critical",
    },
    "disruptionBudget": {"minAvailable": "50%"},
    "networkPolicy": {
        "callers": [{"namespaceSelector": {"matchLabels": {"team": "press"}}}],
        "monitors": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        "egress": [{"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}], "ports": [{"port": 4317}]}],
    },
    "service": {"type": "NodePort", "annotations": {"example.org/a": "b"}},
    "podTemplate": {
        "labels": {"team": "press", "app.kubernetes.io/name": "something-else"},
        "annotations": {"example.org/c": "d"},
        "env": [
            {"name": "TZ", "value": "UTC"},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
        ],
        "volumes": [
            {"name": "cache", "emptyDir": {"sizeLimit": "1024Mi"}},
            {"name": "settings", "configMap": {"name": "settings", "optional": True}},
            {
                "name": "scratch",
                "ephemeral": {
                    "volumeClaimTemplate": {
                        "spec": {
                            "accessModes": ["ReadWriteOnce"],
                            "resources": {"requests": {"storage": "0.5Gi"}},
                        }
                    }
                },
            },
        ],
        "volumeMounts": [
            {"name": "cache", "mountPath": "/cache", "readOnly": False},
            {"name": "settings", "mountPath": "/settings", "readOnly": True},
        ],
    },
    "metrics": {"serviceMonitor": {"enabled": True, "labels": {"prometheus": "main"}, "intervalSeconds": 15}},
}


def cluster_body(name: str = "demo", namespace: str = "shop", **spec: Any) -> Manifest:
    """A FaceBlurCluster as the API server returns it; fields of the spec as users write them."""
    return {
        "apiVersion": "faceblur.io/v1alpha1",
        "kind": "FaceBlurCluster",
        "metadata": {"name": name, "namespace": namespace, "uid": f"uid-of-{name}", "generation": 1},
        "spec": spec,
    }


def cluster(name: str = "demo", namespace: str = "shop", **spec: Any) -> FaceBlurCluster:
    """The same, validated."""
    return FaceBlurCluster.model_validate(cluster_body(name, namespace, **spec))


def foreign(api_version: str, kind: str, name: str = "demo-worker", owner: Manifest | None = None) -> Manifest:
    """A live object that belongs to somebody else: to nobody, or to an owner."""
    references = [] if owner is None else [{**owner, "controller": True}]
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": name, "namespace": "shop", "uid": f"foreign-{kind}", "ownerReferences": references},
        "spec": {},
    }


def condition(name: str, status: str, reason: str = "", message: str = "", since: datetime | None = None) -> Manifest:
    """A condition as controllers write it into the status of their objects."""
    found = {"type": name, "status": status, "reason": reason, "message": message}
    return found if since is None else {**found, "lastTransitionTime": since.strftime("%Y-%m-%dT%H:%M:%SZ")}


def running_pod(name: str, template: str = "", component: str = naming.WORKER) -> Manifest:
    """A pod that answers.

    Args:
        name: Of the pod.
        template: Digest of what it was made from.
        component: That it is one of.
    """
    return {
        "metadata": {
            "name": name,
            "namespace": "shop",
            "uid": f"uid-of-{name}",
            "labels": {naming.COMPONENT_LABEL: component},
            "annotations": {naming.TEMPLATE_ANNOTATION: template},
        },
        "spec": {
            "containers": [
                {"name": component, "image": SETTINGS.worker_image, "resources": {"limits": {"memory": "1Gi"}}}
            ]
        },
        "status": {
            "phase": "Running",
            "conditions": [condition("PodScheduled", "True"), condition("Ready", "True")],
            "containerStatuses": [
                {
                    "name": component,
                    "image": SETTINGS.worker_image,
                    "imageID": IMAGE_ID,
                    "ready": True,
                    "started": True,
                    "restartCount": 0,
                    "state": {"running": {}},
                    "lastState": {},
                }
            ],
        },
    }


def starting_pod(name: str = "demo-worker-a-1", template: str = "", **container: Any) -> Manifest:
    """A worker that does not answer; `container` replaces parts of its container's status."""
    pod = running_pod(name, template)
    pod["status"]["phase"] = "Pending"
    pod["status"]["conditions"][1]["status"] = "False"
    pod["status"]["containerStatuses"][0] |= {
        "ready": False,
        "started": False,
        "imageID": "",
        "state": {"waiting": {"reason": "ContainerCreating"}},
        **container,
    }
    return pod


def waiting(reason: str, message: str = "") -> Manifest:
    """Part of a container's status: it waits."""
    return {"state": {"waiting": {"reason": reason, "message": message}}}


def ended(exit_code: int, log: str = "", reason: str = "Error") -> Manifest:
    """How a container ended, as `state` or `lastState` has it."""
    return {"terminated": {"exitCode": exit_code, "reason": reason, "message": log}}


def unschedulable_pod(message: str) -> Manifest:
    """A worker for which there is no node."""
    pod = starting_pod()
    pod["status"] = {
        "phase": "Pending",
        "conditions": [condition("PodScheduled", "False", "Unschedulable", message)],
    }
    return pod


class World:
    """See the module.

    Attributes:
        body: The FaceBlurCluster.
        objects: What is live in its namespace.
        pods: Of the workers.
        secrets: Names of those that there are.
        versions: Of Secrets that were changed.
        apis: Optional kinds that there are.
        memory: What the operator remembers.
        report: What the workers say.
        writes: How many objects were applied or deleted.
    """

    def __init__(self, apis: Iterable[str] = OPTIONAL_APIS, **spec: Any) -> None:
        self.body = cluster_body(**spec)
        self.objects: dict[ObjectKey, Manifest] = {}
        self.pods: list[Manifest] = []
        self.secrets: set[str] = set()
        self.versions: dict[str, str] = {}
        self.apis = frozenset(apis)
        self.memory = Memory()
        self.report: WorkerReport | None = None
        self.writes = 0

    @property
    def cluster(self) -> FaceBlurCluster:
        """The FaceBlurCluster as the operator reads it."""
        return FaceBlurCluster.model_validate(self.body)

    @property
    def deployment(self) -> Manifest:
        """The live Deployment."""
        return self.live("Deployment")

    def live(self, kind: str, name: str = "demo-worker") -> Manifest:
        """A live object."""
        return next(live for key, live in self.objects.items() if (key.kind, key.name) == (kind, name))

    def kinds(self) -> set[str]:
        """Kinds of the live objects."""
        return {key.kind for key in self.objects}

    def change(self, **spec: Any) -> None:
        """Change fields of the spec as a user does; None unsets one."""
        wanted = {**self.body["spec"], **spec}
        self.body["spec"] = {name: value for name, value in wanted.items() if value is not None}
        self.body["metadata"]["generation"] += 1

    def add(self, *manifests: Manifest) -> None:
        """Put objects there as they are."""
        for manifest in manifests:
            self.objects[naming.key_of(manifest)] = manifest

    def observe(self) -> Observed:
        """One look."""
        seen = self.cluster
        names = {place for place in places(seen) if place.api_version not in OPTIONAL_APIS - self.apis}
        return Observed(
            cluster=seen,
            objects={key: copied(live) for key, live in self.objects.items() if key in names},
            pods=tuple(copied(self.pods)),
            secrets={name: self.versions.get(name, "1") if name in self.secrets else "" for name in secrets(seen)},
            apis=self.apis,
            report=self.report,
        )

    def plan(self, now: datetime = NOON) -> Plan:
        """What the operator would do."""
        return make_plan(self.observe(), SETTINGS, now, self.memory)

    def step(self, now: datetime = NOON) -> Plan:
        """One reconcile."""
        plan = self.plan(now)
        for manifest in plan.keep_replicas:
            self._apply(manifest, naming.REPLICAS_FIELD_MANAGER)
        for manifest in plan.apply:
            self._apply(manifest, naming.FIELD_MANAGER)
        for key in plan.delete:
            del self.objects[key]
        self.writes += len(plan.apply) + len(plan.delete)
        self.body["status"] = plan.status.model_dump(mode="json", by_alias=True, exclude_none=True)
        return plan

    def settle(self, now: datetime = NOON) -> Plan:
        """Reconcile until there is nothing to do; returns the plan that finds so."""
        for _ in range(6):
            plan = self.step(now)
            if not (plan.apply or plan.delete or plan.keep_replicas):
                return plan
        raise AssertionError(f"there is no end to it: {plan}")

    def roll_out(self, now: datetime = NOON) -> Plan:
        """Let the controllers do their work: all workers run the live Deployment's template. Then reconcile."""
        self.settle(now)
        count = self.deployment["spec"]["replicas"]
        template = self.deployment["spec"]["template"]["metadata"]["annotations"][naming.TEMPLATE_ANNOTATION]
        self.pods = [running_pod(f"demo-worker-{template[:4]}-{number}", template) for number in range(count)]
        self.say(count, count, count)
        return self.settle(now)

    def say(self, replicas: int, updated: int, available: int, *conditions: Manifest) -> None:
        """Write the status of the Deployment as its controller does."""
        self.deployment["status"] = {
            "observedGeneration": self.deployment["metadata"]["generation"],
            "replicas": replicas,
            "updatedReplicas": updated,
            "readyReplicas": available,
            "availableReplicas": available,
            "conditions": list(conditions),
        }

    def autoscale(self, count: int) -> None:
        """Write the replicas as the controller of the autoscaler does."""
        self.deployment["spec"]["replicas"] = count
        self.deployment["metadata"]["managedFields"] = []

    def find(self, name: str) -> tuple[str, str] | None:
        """Status and reason of a condition of the cluster."""
        for found in self.cluster.status.conditions:
            if found.type == name:
                return str(found.status), found.reason
        return None

    def message(self, name: str) -> str:
        """Message of a condition of the cluster."""
        return next(found.message for found in self.cluster.status.conditions if found.type == name)

    def _apply(self, manifest: Manifest, manager: str) -> None:
        key = naming.key_of(manifest)
        before = self.objects.get(key)
        after = copied(manifest)
        if manager == naming.REPLICAS_FIELD_MANAGER:
            assert before is not None
            after = {**before, "spec": {**before["spec"], "replicas": manifest["spec"]["replicas"]}}
        metadata = after["metadata"]
        was = before["metadata"] if before else {"uid": f"uid-of-{key.kind}", "generation": 0}
        metadata |= {"uid": was["uid"], "generation": was["generation"]}
        if before is None or before["spec" if "spec" in before else "metadata"] != after.get("spec", metadata):
            metadata["generation"] += 1
        if key.kind == "Deployment":
            owners = _owners(before)
            owners = owners | {manager} if "replicas" in manifest["spec"] else owners - {manager}
            if "replicas" not in after["spec"]:
                kept = owners or not _owners(before)
                after["spec"]["replicas"] = before["spec"]["replicas"] if before and kept else 1
            metadata["managedFields"] = [
                {"manager": owner, "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
                for owner in sorted(owners)
            ]
        if before and "status" in before:
            after["status"] = before["status"]
        self.objects[key] = after


def _owners(deployment: Manifest | None) -> set[str]:
    entries = (deployment or {"metadata": {}})["metadata"].get("managedFields", ())
    return {entry["manager"] for entry in entries}


def template_of(world: World) -> str:
    """Digest of what the workers of the present spec are made from, as the live Deployment has it."""
    return str(world.deployment["spec"]["template"]["metadata"]["annotations"][naming.TEMPLATE_ANNOTATION])
