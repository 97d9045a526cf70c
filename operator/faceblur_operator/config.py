"""Everything that can be configured, in one place: each field is an environment variable and a flag.

docs/operator-configuration.md is made from this class, see `markdown`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, CliApp, NoDecode, SettingsConfigDict

PREFIX = "FACEBLUR_OPERATOR_"


def _address(value: str) -> str:
    if not re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:\s]+):\d{1,5}", value) or int(value.rpartition(":")[2]) > 65535:
        raise ValueError("it has to be HOST:PORT, an IPv6 host in brackets")
    return value


Address = Annotated[str, AfterValidator(_address)]
Namespace = Annotated[str, Field(max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]


class ConfigurationError(Exception):
    """A setting is wrong; the message is one line that names it and its value."""


class OperatorSettings(BaseSettings):
    """The settings of the operator's process."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        cli_prog_name="python -m faceblur_operator",
        cli_kebab_case=True,
    )

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

    log_level: str = Field(
        "info", pattern="^(debug|info|warning|error)$", description="`debug`, `info`, `warning` or `error`."
    )
    log_format: str = Field("json", pattern="^(json|text)$", description="`json` or `text`.")

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


def load(arguments: Sequence[str]) -> OperatorSettings:
    """Read the settings from flags and the environment; a flag wins.

    Args:
        arguments: The command line without the program's name.

    Raises:
        ConfigurationError: A value is wrong.
        SystemExit: The command line asks for help or cannot be read.
    """
    try:
        return CliApp.run(OperatorSettings, cli_args=list(arguments))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        message = first["msg"].removeprefix("Value error, ")
        name = str(first["loc"][0])
        raise ConfigurationError(
            f"{PREFIX}{name.upper()} ({_flag(name)}) is {first['input']!r}: {message[0].lower()}{message[1:]}"
        ) from None


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Names that look like settings but are none, most likely typing mistakes.

    Kubernetes adds variables for every Service in the namespace; those of one called "faceblur-operator" are left out.
    """
    known = {PREFIX + name.upper() for name in OperatorSettings.model_fields}
    of_services = re.compile(PREFIX + r"(SERVICE_(HOST|PORT)|PORT)(_.*)?$")
    return sorted(n for n in environment if n.startswith(PREFIX) and n not in known and not of_services.match(n))


def markdown() -> str:
    """The table of all settings, as docs/operator-configuration.md has it."""
    lines = [
        "# Configuration of the operator",
        "",
        "Every setting is an environment variable and a flag of `python -m faceblur_operator`; the flag wins. Lists",
        "have commas. This page is generated from `operator/faceblur_operator/config.py`",
        "(`python -m faceblur_operator.config`).",
        "",
        "| variable | flag | default | meaning |",
        "|---|---|---|---|",
    ]
    for name, field in OperatorSettings.model_fields.items():
        default = f"`{_default(field)}`" if _default(field) else ""
        lines.append(f"| `{PREFIX}{name.upper()}` | `{_flag(name)}` | {default} | {field.description} |")
    return "\n".join([*lines, ""])


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _default(field: FieldInfo) -> str:
    return (
        ""
        if field.default in ((), {}, "")
        else f"{field.default:g}"
        if isinstance(field.default, float)
        else str(field.default)
    )


if __name__ == "__main__":
    import sys

    sys.stdout.write(markdown())
