"""What the processes of a batch are given: settings, the broker's URL, certificates, storage profiles, credentials.

Batch workers and planners get the same, so that a page means the same to all of them. The names are those of
docs/batch-configuration.md. Secrets are mounted as files, never put into the environment: renewed credentials of a
store arrive without a restart.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .. import naming
from ..api.v1alpha1 import Batch, BatchAutoscalingMode, FaceBlurCluster, StorageProfile
from ..observed import Manifest

PREFIX = "FACEBLUR_BATCH_"
DEFAULT_PROFILE = "default"

_FOLDER = "/etc/faceblur"
_BROKER_FOLDER = f"{_FOLDER}/broker"
_BROKER_CA_FOLDER = f"{_FOLDER}/broker-ca"
_BROKER_CLIENT_FOLDER = f"{_FOLDER}/broker-client"
_CA_FOLDER = f"{_FOLDER}/ca"
_CLIENT_FOLDER = f"{_FOLDER}/client"
_STORAGE_FOLDER = f"{_FOLDER}/storage"
_PROFILES_FOLDER = f"{_FOLDER}/profiles"
_PROFILES_FILE = "profiles.json"
_CA = (("ca.crt", "ca.crt"),)
_PAIR = (("tls.crt", "tls.crt"), ("tls.key", "tls.key"))


@dataclass(frozen=True, slots=True)
class PodAccess:
    """Parts of a pod with access to everything that a batch needs.

    Attributes:
        env: Variables of the container.
        volumes: Of the pod.
        mounts: Of the container.
    """

    env: list[dict[str, Any]]
    volumes: list[dict[str, Any]]
    mounts: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class _Files:
    """Files of a Secret in a folder of their own; no items: all of them, and read whenever they are needed."""

    volume: str
    secret: str
    folder: str
    items: tuple[tuple[str, str], ...] = ()


def build_batch_environment(cluster: FaceBlurCluster, *, cluster_domain: str) -> PodAccess:
    """Return what pods of batch workers and planners have in common; the spec has to ask for batches.

    Args:
        cluster: Whose workers are called.
        cluster_domain: DNS domain of the Kubernetes cluster, such as ``cluster.local``.
    """
    batch = _batch_of(cluster)
    settings = {
        "queue": naming.queue(cluster),
        "server": f"dns:///{naming.host(cluster)}.{cluster_domain}:{naming.GRPC_PORT}",
        "storage_profiles": f"{_PROFILES_FOLDER}/{_PROFILES_FILE}",
        "log_level": batch.workers.log_level.value,
        "log_format": "json",
        **_broker(cluster, batch, cluster_domain),
        **_tls(cluster, batch),
    }
    files = list(_files(cluster, batch))
    profiles = {"name": "profiles", "configMap": {"name": naming.batch_name(cluster.name), "defaultMode": 0o444}}
    return PodAccess(
        env=[{"name": PREFIX + name.upper(), "value": value} for name, value in settings.items()],
        volumes=[profiles, *map(_volume, files)],
        mounts=[_mount("profiles", _PROFILES_FOLDER), *(_mount(one.volume, one.folder) for one in files)],
    )


def build_profiles(cluster: FaceBlurCluster) -> Manifest:
    """Return the ConfigMap with the storage profiles. They say where credentials are, and hold none."""
    profiles = {_profile_key(profile): _profile(profile) for profile in _batch_of(cluster).storage}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": naming.metadata(cluster, naming.batch_name(cluster.name), naming.BATCH),
        "data": {_PROFILES_FILE: json.dumps(profiles, indent=1, sort_keys=True)},
    }


def secrets_read_once(cluster: FaceBlurCluster) -> tuple[str, ...]:
    """Names of the Secrets that a process reads when it starts: another content takes another process."""
    return tuple(dict.fromkeys(one.secret for one in _files(cluster, _batch_of(cluster)) if one.items))


def secrets_of(cluster: FaceBlurCluster) -> tuple[str, ...]:
    """Names of all Secrets that pods of batch workers and planners mount: without one of them none starts."""
    return tuple(dict.fromkeys(one.secret for one in _files(cluster, _batch_of(cluster))))


def storage_profiles(cluster: FaceBlurCluster) -> frozenset[str]:
    """Names of the storage profiles as a batch has them; the default one's is empty."""
    return frozenset(map(_profile_key, _batch_of(cluster).storage))


def batch_parallelism(cluster: FaceBlurCluster) -> int:
    """Pages that all batch workers together can work on at once, when there are as many as there may be."""
    batch = _batch_of(cluster)
    fixed = batch.autoscaling.mode is BatchAutoscalingMode.FIXED
    workers = batch.replicas if fixed else batch.autoscaling.max_replicas
    return max(1, workers or 0) * batch.workers.threads


def _batch_of(cluster: FaceBlurCluster) -> Batch:
    assert cluster.spec.batch is not None
    return cluster.spec.batch


def _broker(cluster: FaceBlurCluster, batch: Batch, domain: str) -> dict[str, str]:
    if batch.broker.secret_name:
        settings = {"broker_file": f"{_BROKER_FOLDER}/url"}
        if batch.broker.ca_secret_name:
            settings["broker_ca"] = f"{_BROKER_CA_FOLDER}/ca.crt"
        if batch.broker.client_secret_name:
            settings["broker_certificate"] = f"{_BROKER_CLIENT_FOLDER}/tls.crt"
            settings["broker_key"] = f"{_BROKER_CLIENT_FOLDER}/tls.key"
        return settings
    return {"broker": f"redis://{naming.broker_host(cluster)}.{domain}:{naming.BROKER_PORT}/0"}


def _tls(cluster: FaceBlurCluster, batch: Batch) -> dict[str, str]:
    if cluster.spec.tls is None:
        return {}
    settings = {"tls_ca": f"{_CA_FOLDER}/ca.crt"}
    if batch.tls and batch.tls.client_secret_name:
        settings |= {"tls_certificate": f"{_CLIENT_FOLDER}/tls.crt", "tls_key": f"{_CLIENT_FOLDER}/tls.key"}
    if batch.tls and batch.tls.server_name:
        settings["tls_server_name"] = batch.tls.server_name
    return settings


def _files(cluster: FaceBlurCluster, batch: Batch) -> Iterator[_Files]:
    if batch.broker.secret_name:
        yield _Files("broker", batch.broker.secret_name, _BROKER_FOLDER, ((batch.broker.key, "url"),))
    if batch.broker.ca_secret_name:
        yield _Files("broker-ca", batch.broker.ca_secret_name, _BROKER_CA_FOLDER, _CA)
    if batch.broker.client_secret_name:
        yield _Files("broker-client", batch.broker.client_secret_name, _BROKER_CLIENT_FOLDER, _PAIR)
    certificate = naming.tls_secret_name(cluster)
    if certificate:
        authority = (batch.tls and batch.tls.ca_secret_name) or certificate
        yield _Files("ca", authority, _CA_FOLDER, _CA)
        if batch.tls and batch.tls.client_secret_name:
            yield _Files("client", batch.tls.client_secret_name, _CLIENT_FOLDER, _PAIR)
    for profile in batch.storage:
        if profile.credentials_secret_name:
            yield _Files(f"storage-{profile.name}", profile.credentials_secret_name, _credentials_folder(profile))
        if profile.ca_secret_name:
            items = ((profile.ca_key, "ca.crt"),)
            yield _Files(f"storage-ca-{profile.name}", profile.ca_secret_name, _authorities_folder(profile), items)


def _profile_key(profile: StorageProfile) -> str:
    """What names a profile for a batch: the one without a name is used where a job names none."""
    return "" if profile.name == DEFAULT_PROFILE else profile.name


def _profile(profile: StorageProfile) -> dict[str, Any]:
    """The options as `faceblur_batch.storage.settings.StorageSettings` has them."""
    kind = "anonymous" if profile.anonymous else "folder" if profile.credentials_secret_name else "platform"
    settings: dict[str, Any] = {
        "endpoint": profile.endpoint,
        "region": profile.region,
        "addressing": profile.addressing.value,
        "allow_http": profile.allow_http,
        "ca_bundle": f"{_authorities_folder(profile)}/ca.crt" if profile.ca_secret_name else None,
        "credentials": kind,
        "credentials_folder": _credentials_folder(profile) if kind == "folder" else None,
        "encryption": profile.encryption,
        "kms_key": profile.kms_key,
        "storage_class": profile.storage_class,
    }
    return {name: value for name, value in settings.items() if value is not None}


def _credentials_folder(profile: StorageProfile) -> str:
    return f"{_STORAGE_FOLDER}/{profile.name}"


def _authorities_folder(profile: StorageProfile) -> str:
    return f"{_STORAGE_FOLDER}-ca/{profile.name}"


def _volume(files: _Files) -> dict[str, Any]:
    # Readable for the pod's group alone. Not mounted by subPath, so that the kubelet writes renewed files into it.
    secret: dict[str, Any] = {"secretName": files.secret, "defaultMode": 0o440}
    if files.items:
        secret["items"] = [{"key": key, "path": path} for key, path in files.items]
    return {"name": files.volume, "secret": secret}


def _mount(volume: str, folder: str) -> dict[str, Any]:
    return {"name": volume, "mountPath": folder, "readOnly": True}
