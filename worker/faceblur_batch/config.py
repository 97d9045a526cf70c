"""Everything that can be configured of batch workers, planners and what watches; see also `markdown`."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator
from pydantic_settings import SettingsConfigDict

import faceblur
from faceblur_process.settings import ConfigurationError, LogFormat, LogLevel, Settings, table

from .errors import BatchError
from .page import Pace
from .planner import Watch
from .storage.settings import StorageSettings

PREFIX = "FACEBLUR_BATCH_"
_SCHEMES = ("redis", "rediss", "redis+socket", "valkey", "valkeys", "amqp", "amqps")
_ENCRYPTED = ("rediss://", "amqps://")


class UnusableSetting(BatchError, ConfigurationError):
    """What a setting or a job names cannot be used: a file, a storage profile, an address, a certificate."""

    reason = "CONFIGURATION"


def _broker(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        raise ValueError(f"the broker has to be one of {', '.join(s + '://…' for s in _SCHEMES)}")
    return f"{scheme.replace('valkey', 'redis')}://{rest}"


class BatchSettings(Settings):
    """The settings of a batch worker or planner process."""

    # What is refused is not repeated: a broker's URL has a password in it.
    model_config = SettingsConfigDict(env_prefix=PREFIX, hide_input_in_errors=True)

    broker: Annotated[str, AfterValidator(_broker)] = Field(
        "redis://127.0.0.1:6379/0",
        description="Celery's broker: `redis://`, `valkey://` or `amqp://`; with TLS `rediss://`, `valkeys://` or `amqps://`.",
    )
    broker_file: Path | None = Field(None, description="File with the broker's URL instead, such as a mounted secret.")
    broker_ca: Path | None = Field(
        None,
        description="PEM roots that the broker's certificate comes from, with `rediss://` or `amqps://`. Unset: the "
        "system's.",
    )
    broker_certificate: Path | None = Field(None, description="PEM certificate shown to the broker (mutual TLS).")
    broker_key: Path | None = Field(None, description="PEM key of `broker_certificate`.")
    queue: str = Field(
        "faceblur.batch",
        pattern=r"^[A-Za-z0-9._-]{1,200}$",
        description="Queue of the tasks: one for each cluster of workers.",
    )
    server: str = Field("127.0.0.1:50051", description="The workers: HOST:PORT or a gRPC target such as `dns:///…`.")
    tls_ca: Path | None = Field(None, description="PEM roots that the workers' certificates come from. Unset: no TLS.")
    tls_certificate: Path | None = Field(None, description="PEM certificate shown to the workers (mutual TLS).")
    tls_key: Path | None = Field(None, description="PEM key of `tls_certificate`.")
    tls_server_name: str | None = Field(None, description="Name in the workers' certificates, if not the host's.")
    storage_profiles: Path | None = Field(
        None,
        description="JSON file: options of locations, by name of the profile. The profile without a name is used where "
        "a job names none. Unset: what `AWS_…` variables say.",
    )

    threads: int = Field(4, ge=1, le=256, description="Pages that a batch worker works on at the same time.")
    concurrency: int = Field(8, ge=1, le=256, description="Pictures of a page in work at the same time.")
    picture_seconds: float = Field(120, gt=0, description="Longest that a picture may take, all tries included.")
    flush_objects: int = Field(500, ge=1, description="Outcomes after which they are written to the ledger.")
    flush_seconds: float = Field(30, gt=0, description="And after this time, be there none: the sign of life.")
    mark_seconds: float = Field(10, ge=0, description="A job's mark (suspend, cancel) is read again after this time.")
    retry_seconds: float = Field(
        60, gt=0, description="Longest pause before a page in trouble is tried again; a shorter one by chance."
    )
    retries: int = Field(20, ge=0, description="After so many the planner hands a page in trouble out again.")

    visibility_seconds: int = Field(
        6 * 3600,
        ge=1,
        description="Redis and Valkey only: a task not acknowledged for so long is handed out again. Has to be longer "
        "than any page takes; lost pages are found earlier, by the planner.",
    )
    poll_seconds: float = Field(2, gt=0, description="The planner looks at the ledger so often.")
    stall_seconds: float = Field(
        240,
        gt=0,
        description="A page without a sign of life for so long is handed out again, once the queue is empty. Has to be "
        "longer than `picture_seconds` and `flush_seconds` together.",
    )

    grace_seconds: float = Field(60, gt=0, description="After SIGTERM, when a batch worker ends at the latest.")
    metrics_address: str = Field(
        "127.0.0.1:9465", pattern=r"^(.+:\d{1,5})?$", description="Where Prometheus reads `/metrics`. Empty: nowhere."
    )
    log_level: LogLevel = "info"
    log_format: LogFormat = "json"

    @model_validator(mode="after")
    def _consistent(self) -> BatchSettings:
        if (self.broker_certificate is None) != (self.broker_key is None):
            raise ValueError("broker_certificate and broker_key have to be set together")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key have to be set together")
        if self.tls_certificate is not None and self.tls_ca is None:
            raise ValueError("tls_certificate needs tls_ca")
        if self.stall_seconds <= self.flush_seconds:
            raise ValueError("stall_seconds has to be longer than flush_seconds, the time between two signs of life")
        return self

    def broker_url(self) -> str:
        """Where the broker is; has the password in it.

        Raises:
            UnusableSetting: `broker_file` cannot be read, a certificate is missing, or the broker has no TLS to use it.
        """
        url = self.broker
        if self.broker_file is not None:
            try:
                url = _broker(self.broker_file.read_text(encoding="utf-8").strip())
            except (OSError, ValueError) as error:
                raise UnusableSetting(f"{PREFIX}BROKER_FILE: {self.broker_file} has no usable URL") from error
        files = [path for path in (self.broker_ca, self.broker_certificate, self.broker_key) if path]
        if files and not url.startswith(_ENCRYPTED):
            raise UnusableSetting("broker_ca and broker_certificate are for a broker at rediss:// or amqps://")
        for path in files:
            if not path.is_file():
                raise UnusableSetting(f"{path}, named for the broker, is not there")
        return url

    def storage(self, profile: str) -> StorageSettings:
        """Options of a location.

        Args:
            profile: Its name; empty: the default.

        Raises:
            UnusableSetting: There is no such profile, or the file cannot be read.
        """
        if self.storage_profiles is None:
            if profile:
                raise UnusableSetting(f"the job names storage profile {profile!r}, and there are none here")
            return StorageSettings.from_environment()
        try:
            profiles = json.loads(self.storage_profiles.read_text(encoding="utf-8"))
            if profile not in profiles and not profile:
                return StorageSettings.from_environment()
            return StorageSettings.model_validate(profiles[profile])
        except KeyError:
            raise UnusableSetting(f"{self.storage_profiles} has no storage profile {profile!r}") from None
        except (OSError, ValueError) as error:
            raise UnusableSetting(f"storage profile {profile!r} of {self.storage_profiles}: {error}") from error

    def pace(self) -> Pace:
        """How pages are worked on."""
        return Pace(
            concurrency=self.concurrency,
            timeout=self.picture_seconds,
            flush_objects=self.flush_objects,
            flush_seconds=self.flush_seconds,
        )

    def watch(self) -> Watch:
        """How a planner waits."""
        return Watch(poll=self.poll_seconds, stall=self.stall_seconds)

    def client(self) -> faceblur.FaceBlurClient:
        """A client of the workers; nothing is connected yet.

        Raises:
            UnusableSetting: The address or a certificate cannot be used.
        """
        tls = None
        if self.tls_ca is not None:
            tls = faceblur.TlsConfig(
                ca=self.tls_ca,
                certificate=self.tls_certificate,
                key=self.tls_key,
                server_name=self.tls_server_name,
            )
        try:
            return faceblur.FaceBlurClient(self.server, tls=tls, timeout=self.picture_seconds)
        except (OSError, ValueError) as error:
            raise UnusableSetting(f"the workers' address or certificates: {error}") from error


class WatchSettings(BatchSettings):
    """The settings of a process that watches."""

    watch_every_seconds: float = Field(3600, gt=0, description="The source is listed so often.")
    watch_settle_seconds: float = Field(
        10,
        ge=0,
        description="What notifications name is looked at when none came for so long, and after six times as long in "
        "any case.",
    )
    watch_most_keys: int = Field(
        10_000, ge=1, le=100_000, description="Objects that a pass looks at; if more are named, the source is listed."
    )
    watch_keep_days: float = Field(
        30, ge=0, description="Manifests and reports of older passes are removed, except those in use. 0: never."
    )
    webhook_address: str = Field(
        "",
        pattern=r"^(.+:\d{1,5})?$",
        description="Where notifications can be posted, `127.0.0.1:8080`. Empty: nowhere.",
    )
    webhook_token_file: Path | None = Field(
        None,
        description="File with what senders have to show as `Authorization`. Needed unless only this machine can reach "
        "`webhook_address`.",
    )
    sqs_url: str = Field("", description="Queue that notifications are read from, `https://…`. Empty: none.")
    sqs_region: str | None = Field(None, description="Region that its requests are signed for. Unset: as in its URL.")
    sqs_credentials_folder: Path | None = Field(
        None, description="As `credentials_folder` of a storage profile. Unset: what Amazon's own tools would take."
    )
    sqs_ca_bundle: Path | None = Field(None, description="PEM file of its authorities. Unset: the system's.")
    sqs_allow_http: bool = Field(False, description="Permits an `http://` queue: keys travel in the clear.")

    @model_validator(mode="after")
    def _reachable(self) -> WatchSettings:
        if self.webhook_address and self.webhook_token_file is None and not _is_loopback(self.webhook_address):
            raise ValueError(
                "webhook_token_file has to be set where webhook_address is not 127.0.0.1, [::1] or localhost"
            )
        url = urlsplit(self.sqs_url)
        if self.sqs_url and (url.scheme not in ("http", "https") or not url.hostname or url.username is not None):
            raise ValueError("sqs_url has to be the https:// URL of a queue, without credentials")
        if url.scheme == "http" and not self.sqs_allow_http:
            raise ValueError("sqs_url is http://, which is not encrypted; set sqs_allow_http if that is meant")
        return self


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def markdown() -> str:
    """The table of all settings, as docs/batch-configuration.md has it."""
    own = {name: field for name, field in WatchSettings.model_fields.items() if name not in BatchSettings.model_fields}
    lines = [
        "# Configuration of batch workers and planners",
        "",
        "Every setting is an environment variable, and a flag of `python -m faceblur_batch`; the flag wins.",
        "This page is generated from `worker/faceblur_batch/config.py` (`python -m faceblur_batch.config`).",
        "",
        *table(BatchSettings.model_fields, PREFIX),
        "",
        "## Watching",
        "",
        "`python -m faceblur_batch.watch` reads these as well, and takes no flags for settings.",
        "",
        *table(own, PREFIX, flags=False),
    ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    import sys

    sys.stdout.write(markdown())
