"""Everything that can be configured of a worker; docs/worker-configuration.md is made from it, see `markdown`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from faceblur_engine.cores import granted_cores
from faceblur_engine.detectors import default_margin
from faceblur_engine.errors import InvalidOptions
from faceblur_engine.types import Keep, Limits, Margin, Method, Options, Profile, Shape
from faceblur_process.settings import Address, LogFormat, LogLevel, Settings, table

PREFIX = "FACEBLUR_WORKER_"
_MIB = 1024 * 1024

Names = Annotated[tuple[str, ...], NoDecode]


class WorkerSettings(Settings):
    """The settings of a worker process."""

    model_config = SettingsConfigDict(env_prefix=PREFIX)

    address: Address = Field("127.0.0.1:50051", description="Where pictures are taken in. Port 0 takes a free one.")
    health_address: Address = Field(
        "127.0.0.1:50052",
        description="Where `grpc.health.v1` answers probes without a certificate: services `liveness` and `readiness`.",
    )
    metrics_address: Address = Field(
        "127.0.0.1:9464", description="Where Prometheus reads `/metrics`, over plain HTTP."
    )

    profiles: Annotated[tuple[Profile, ...], NoDecode] = Field(
        (Profile.BALANCED,),
        min_length=1,
        description="Profiles that can be asked for; the first is the default. Each costs memory.",
    )
    threads: int = Field(
        0,
        ge=0,
        le=256,
        description="Pictures that are worked on at the same time, a core each. 0: the cores that the cgroup grants.",
    )
    runtime: str = Field("auto", description="Inference runtime, `auto` for the best that works here.")

    method: Method = Field(Method.BLUR, description="How faces are filled, where the caller does not say.")
    cells: int = Field(8, ge=1, le=8, description="Cells across an obscured face, where the caller does not say.")
    shape: Shape | None = Field(None, description="Outline of obscured regions. Unset: the profile's.")
    margin_sides: float | None = Field(
        None,
        ge=0,
        le=2,
        description="How far regions reach past a face left and right, as a share of its width, where the caller does "
        "not say. Unset, as for the next three: the profile's.",
    )
    margin_top: float | None = Field(None, ge=0, le=2, description="Likewise above, as a share of the face's height.")
    margin_bottom: float | None = Field(
        None, ge=0, le=2, description="Likewise below, as a share of the face's height."
    )
    margin_pixels: float | None = Field(None, ge=0, le=1000, description="Likewise on all sides, in pixels, on top.")
    feather: float = Field(
        0.05,
        ge=0,
        le=0.5,
        description="Blended rim outside a region, as a share of its longer side, where the caller does not say.",
    )
    min_score: float | None = Field(
        None, ge=0, le=1, description="Replaces the profile's thresholds, where the caller does not say."
    )
    min_face: float = Field(0, ge=0, description="Smaller faces are left alone, pixels, where the caller does not say.")
    max_face: float | None = Field(
        None, ge=1, description="Larger faces are left alone, pixels, where the caller does not say."
    )
    verify: bool = Field(False, description="Detect again on the result, where the caller does not say.")
    keep: Annotated[frozenset[Keep], NoDecode] = Field(
        frozenset({Keep.ICC}),
        description="Metadata copied to the result, where the caller does not say; `none` for none.",
    )
    max_image_bytes: int = Field(64 * _MIB, ge=1024, description="Longest picture, in bytes.")
    max_image_width: int = Field(20_000, ge=1, description="Widest picture, in pixels.")
    max_image_height: int = Field(20_000, ge=1, description="Highest picture, in pixels.")
    max_image_pixels: int = Field(100_000_000, ge=1, description="Largest picture, width times height.")
    max_image_scans: int = Field(100, ge=1, description="Most scans of a progressive JPEG.")

    max_message_bytes: int = Field(
        16 * _MIB,
        ge=64 * 1024,
        le=1024 * _MIB,
        description="Longest message either way; longer pictures come in chunks.",
    )
    max_waiting: int = Field(
        64,
        ge=0,
        description="Pictures that may be received or wait. Times the longest message, it bounds memory.",
    )
    max_bytes_in_flight: int = Field(
        256 * _MIB, ge=1024, description="Length of all pictures inside; a single one may be longer."
    )
    max_streams: int = Field(32, ge=1, description="`BlurImages` streams at the same time.")
    max_stream_in_flight: int = Field(
        16, ge=1, description="Pictures of one stream in work; then reading from it stops."
    )
    max_calls_per_connection: int = Field(
        256, ge=1, description="Calls at the same time on one connection; more wait at the client."
    )
    transfer_seconds: float = Field(
        60, gt=0, description="A message has to be sent or read by the client within this time, or the call ends."
    )
    stuck_seconds: float = Field(
        300, gt=0, description="When one picture takes longer, liveness is lost, so that the process is replaced."
    )

    tls_certificate: Path | None = Field(None, description="PEM chain of the server; read again when it changes.")
    tls_key: Path | None = Field(None, description="PEM key of the server; read again when it changes.")
    tls_client_ca: Path | None = Field(
        None,
        description="PEM roots that clients' certificates have to come from (mutual TLS); read again when it changes.",
    )
    allowed_identities: Names = Field(
        (),
        description="Clients that may call: alternative or common names of their certificates. Empty: every valid one.",
    )

    keepalive_seconds: float = Field(60, ge=1, description="A silent connection is probed after this time.")
    max_connection_age_seconds: float = Field(
        300, ge=1, description="Then a connection is closed once its calls are done, so that clients find new workers."
    )
    max_connection_age_grace_seconds: float = Field(120, ge=1, description="What calls on such a connection have left.")
    settle_seconds: float = Field(
        5,
        ge=0,
        description="After SIGTERM, how long pictures are still taken in while the word spreads that the worker goes.",
    )
    grace_seconds: float = Field(
        30, gt=0, description="After SIGTERM, when the process ends at the latest; includes the settle time."
    )

    log_level: LogLevel = "info"
    log_format: LogFormat = "json"
    trace_endpoint: str | None = Field(
        None, description="OTLP/gRPC endpoint for traces, such as `http://collector:4317`. Needs the extra `tracing`."
    )

    @field_validator("profiles", "keep", "allowed_identities", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return tuple(part.strip() for part in value.split(",") if part.strip() not in ("", "none"))

    @model_validator(mode="after")
    def _consistent(self) -> WorkerSettings:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key have to be set together")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("tls_client_ca needs tls_certificate and tls_key")
        if self.allowed_identities and self.tls_client_ca is None:
            raise ValueError("allowed_identities needs tls_client_ca: without it clients show no certificate")
        if self.settle_seconds >= self.grace_seconds:
            raise ValueError("settle_seconds has to be below grace_seconds")
        try:
            self.default_options()
        except InvalidOptions as error:
            raise ValueError(str(error)) from error
        return self

    def default_options(self, profile: Profile | None = None) -> Options:
        """The options of a caller who asks for nothing, or for nothing but a profile."""
        profile = profile or self.profiles[0]
        return Options(
            profile=profile,
            method=self.method,
            cells=self.cells,
            shape=self.shape,
            margin=self._margin(profile),
            feather=self.feather,
            min_score=self.min_score,
            min_face=self.min_face,
            max_face=self.max_face,
            verify=self.verify,
            keep=self.keep,
            limits=Limits(
                max_bytes=self.max_image_bytes,
                max_width=self.max_image_width,
                max_height=self.max_image_height,
                max_pixels=self.max_image_pixels,
                max_scans=self.max_image_scans,
            ),
        )

    def _margin(self, profile: Profile) -> Margin | None:
        """The profile's margin with what is configured in its place; None: all of it is the profile's."""
        parts = {part.name: getattr(self, f"margin_{part.name}") for part in dataclasses.fields(Margin)}
        chosen = {name: value for name, value in parts.items() if value is not None}
        return dataclasses.replace(default_margin(profile), **chosen) if chosen else None

    def engine_threads(self) -> int:
        """Pictures that are worked on at the same time."""
        return self.threads or granted_cores()


def markdown() -> str:
    """The table of all settings, as docs/worker-configuration.md has it."""
    lines = [
        "# Configuration of the worker",
        "",
        "Every setting is an environment variable and a flag of `faceblur serve`; the flag wins. Lists have commas.",
        "This page is generated from `worker/faceblur_worker/config.py` (`python -m faceblur_worker.config`).",
        "",
        *table(WorkerSettings.model_fields, PREFIX),
    ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    import sys

    sys.stdout.write(markdown())
