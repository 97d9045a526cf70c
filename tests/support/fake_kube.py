"""An API server at the seam of the reconciler: objects in a dictionary, every call written down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from faceblur_operator import naming
from faceblur_operator.kube import KubeError
from faceblur_operator.observed import Event, Manifest, ObjectKey
from support.clusters import cluster_body
from support.copies import copied

CLUSTER = ObjectKey("faceblur.io/v1alpha1", "FaceBlurCluster", "demo")


class FakeKube:
    """See the module; everything is in the namespace `shop`.

    Attributes:
        objects: What there is, the cluster itself included.
        running: The pods.
        runs: Kubernetes Jobs of a schedule.
        secrets: Names of the Secrets that there are.
        groups: What `apis` answers.
        log: Every call, as its verb with a kind or name.
        events: That were written.
        failures: By entry of the log, what is raised instead.
        meddle: Called with every object that is applied, as an admission webhook is.
    """

    def __init__(self, **spec: Any) -> None:
        self.objects: dict[ObjectKey, Manifest] = {}
        self.running: list[Manifest] = []
        self.runs: list[Manifest] = []
        self.secrets: set[str] = set()
        self.groups = frozenset({"faceblur.io/v1alpha1"})
        self.log: list[str] = []
        self.events: list[Event] = []
        self.failures: dict[str, KubeError] = {}
        self.meddle: Callable[[Manifest], None] = lambda manifest: None
        self._version = 0
        self._store(CLUSTER, cluster_body(**spec))

    @property
    def cluster(self) -> Manifest:
        """The live FaceBlurCluster."""
        return self.objects[CLUSTER]

    def writes(self) -> list[str]:
        """The part of the log that changes something."""
        return [entry for entry in self.log if entry.split()[0] in ("apply", "keep", "status", "delete", "event")]

    def change(self, **spec: Any) -> None:
        """Change the cluster's spec as a user does."""
        body = copied(self.cluster)
        body["spec"] |= spec
        self._store(CLUSTER, body)

    async def apis(self) -> frozenset[str]:
        self._note("apis")
        return self.groups

    async def resources(self, kind: str, namespace: str | None) -> list[Manifest]:
        self._note(f"{kind}s {namespace}")
        return [{"metadata": copied(live["metadata"])} for key, live in self.objects.items() if key.kind == kind]

    async def get(self, key: ObjectKey, namespace: str) -> Manifest | None:
        self._note(f"get {key.kind}")
        return copied(self.objects.get(key))

    async def pods(self, namespace: str, selector: str) -> list[Manifest]:
        self._note("pods")
        return copied(self.running)

    async def jobs(self, namespace: str, selector: str) -> list[Manifest]:
        self._note("jobs")
        return copied(self.runs)

    async def secret_version(self, namespace: str, name: str) -> str:
        self._note(f"secret {name}")
        return "1" if name in self.secrets else ""

    async def apply(
        self, manifest: Manifest, *, manager: str = naming.FIELD_MANAGER, force: bool = True, subresource: str = ""
    ) -> Manifest:
        key = naming.key_of(manifest)
        verb = subresource or ("keep" if manager == naming.REPLICAS_FIELD_MANAGER else "apply")
        assert force == (verb != "keep")
        self._note(f"{verb} {key.kind}")
        live = copied(self.objects.get(key, {"metadata": {}}))
        if verb == "apply":
            metadata = {**live["metadata"], **manifest["metadata"]}
            fields: Manifest = {"f:spec": {"f:replicas": {}}} if "replicas" in manifest.get("spec", {}) else {}
            metadata["managedFields"] = [{"manager": manager, "operation": "Apply", "fieldsV1": fields}]
            replicas = live.get("spec", {}).get("replicas")
            live = {**live, **copied(manifest), "metadata": metadata}
            if key.kind == "Deployment" and replicas is not None:
                live["spec"].setdefault("replicas", replicas)
            self.meddle(live)
        else:
            part = subresource or "spec"
            live[part] = {**live.get(part, {}), **copied(manifest[part])}
        return copied(self._store(key, live))

    async def delete(self, key: ObjectKey, namespace: str, uid: str, version: str = "") -> None:
        self._note(f"delete {key.kind}")
        metadata = self.objects[key]["metadata"]
        assert metadata["uid"] == uid
        assert version in ("", metadata["resourceVersion"])
        del self.objects[key]

    async def post_event(self, resource: Manifest, event: Event) -> None:
        self._note(f"event {event.reason}")
        self.events.append(event)

    def put(self, manifest: Manifest) -> None:
        """Put an object there as somebody else than the operator."""
        self._store(naming.key_of(manifest), copied(manifest))

    def _store(self, key: ObjectKey, manifest: Manifest) -> Manifest:
        was = self.objects.get(key)
        if was != manifest:
            self._version += 1
            metadata = manifest["metadata"]
            metadata.setdefault("uid", f"uid-of-{key.kind}-{key.name}")
            changed = was is None or was.get("spec") != manifest.get("spec")
            metadata["generation"] = metadata.get("generation", 0) + changed
            metadata["resourceVersion"] = str(self._version)
            self.objects[key] = manifest
        return self.objects[key]

    def _note(self, entry: str) -> None:
        self.log.append(entry)
        if error := self.failures.get(entry):
            raise error
