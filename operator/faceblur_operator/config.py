"""Everything that can be configured of the operator; docs/operator-configuration.md is made from it, see `markdown`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from faceblur_process.settings import Address, LogFormat, LogLevel, Settings, table

PREFIX = "FACEBLUR_OPERATOR_"

Namespace = Annotated[str, Field(max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]


class OperatorSettings(Settings):
    """The settings of the operator's process."""

    model_config = SettingsConfigDict(env_prefix=PREFIX)

    namespaces: Annotated[tuple[Namespace, ...], NoDecode] = Field(
        (), description="Namespaces that are served. Empty: all, which needs a ClusterRole."
    )
    worker_image: str = Field(
        "faceblur-worker:latest",
        min_length=1,
        description="Image of the workers of clusters that name none. The chart sets the one of its own version.",
    )
    cluster_domain: str = Field(
        "cluster.local", min_length=1, description="DNS domain of the Kubernetes cluster, for certificates."
    )
    own_namespace: str = Field(
        "", description="Where the operator runs, for the NetworkPolicies that let it read the workers' versions."
    )
    own_labels: Annotated[dict[str, str], NoDecode] = Field(
        {}, description="Labels that select the operator's pod, for the same reason, as `name=value,name=value`."
    )
    own_name: str = Field("", description="Name of the operator's pod, which Events give as their source.")

    address: Address = Field(
        "127.0.0.1:8080", description="Where `/healthz` answers the liveness probe and Prometheus reads `/metrics`."
    )
    concurrency: int = Field(4, ge=1, le=64, description="Clusters that are reconciled at the same time.")
    resync_seconds: float = Field(
        300, ge=1, description="Every cluster is looked at again within this time, whatever was noticed."
    )
    tick_seconds: float = Field(
        15,
        gt=0,
        description="How often the API server is asked which clusters, optional kinds and Secrets there are.",
    )
    stale_seconds: float = Field(
        180,
        ge=1,
        description="Liveness is lost when for this long the API server was not reached, or a change was seen that no "
        "watch has told of.",
    )
    request_seconds: float = Field(20, gt=0, description="A request to the API server is given up after this time.")
    retry_seconds: float = Field(60, gt=0, description="Longest wait before a failed reconcile is tried again.")

    log_level: LogLevel = "info"
    log_format: LogFormat = "json"

    @field_validator("namespaces", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("own_labels", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        pairs = [part.strip().partition("=") for part in value.split(",") if part.strip()]
        if not all(separator for _, separator, _ in pairs):
            raise ValueError("it has to be name=value,name=value")
        return {name: label for name, _, label in pairs}


def markdown() -> str:
    """The table of all settings, as docs/operator-configuration.md has it."""
    lines = [
        "# Configuration of the operator",
        "",
        "Every setting is an environment variable and a flag of `python -m faceblur_operator`; the flag wins. Lists",
        "have commas. This page is generated from `operator/faceblur_operator/config.py`",
        "(`python -m faceblur_operator.config`).",
        "",
        *table(OperatorSettings.model_fields, PREFIX),
    ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    import sys

    sys.stdout.write(markdown())
