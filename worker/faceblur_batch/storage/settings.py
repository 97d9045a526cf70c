"""What can be set for a location. It says where secrets are and holds none, so it may be written to a ledger."""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Addressing(StrEnum):
    """Where a request names the bucket."""

    PATH = "path"
    VIRTUAL = "virtual"


class CredentialKind(StrEnum):
    """Where an S3 store's credentials come from."""

    ENVIRONMENT = "environment"
    FOLDER = "folder"
    ANONYMOUS = "anonymous"
    PLATFORM = "platform"


class Encryption(StrEnum):
    """How an S3 store is asked to encrypt what it keeps."""

    S3 = "AES256"
    KMS = "aws:kms"
    KMS_TWICE = "aws:kms:dsse"


class StorageSettings(BaseModel):
    """Options of one location; a folder needs none of them."""

    # What is refused may hold a password: it is not repeated.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    endpoint: str | None = Field(
        None, description="URL of an S3-compatible server, without bucket and path. Unset: Amazon S3 in `region`."
    )
    region: str = Field("us-east-1", min_length=1, description="Region that S3 requests are signed for.")
    addressing: Addressing = Field(
        Addressing.PATH, description="`path`: https://server/bucket/key. `virtual`: https://bucket.server/key."
    )
    allow_http: bool = Field(False, description="Permits an `http://` endpoint: pictures and keys travel in the clear.")
    ca_bundle: Path | None = Field(
        None, description="PEM file of authorities that are trusted beside the system's. Read when a store is opened."
    )
    proxy: str | None = Field(
        None, description="URL of an HTTP proxy. Unset: none is used, whatever the environment says."
    )

    credentials: CredentialKind = Field(
        CredentialKind.ENVIRONMENT,
        description="`environment`, `folder`, `anonymous` (nothing is signed), or `platform`: what the cloud provides.",
    )
    credentials_folder: Path | None = Field(
        None,
        description="Folder with files `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, if need be, "
        "`AWS_SESSION_TOKEN`; read for every request, so that they may be replaced at any time.",
    )
    environment_prefix: str = Field(
        "AWS_", description="Of `…ACCESS_KEY_ID`, `…SECRET_ACCESS_KEY` and `…SESSION_TOKEN` in the environment."
    )

    connect_seconds: float = Field(5, gt=0, description="A connection has to be made within this time.")
    request_seconds: float = Field(120, gt=0, description="A request has to be answered in full within this time.")
    retries: int = Field(8, ge=0, le=100, description="A request is sent again so often after 5xx or no answer.")
    retry_seconds: float = Field(120, ge=0, description="And not after this time since it was first sent.")
    first_pause_seconds: float = Field(
        0.1, gt=0, description="Pause before the first retry; later ones double, with jitter, up to 10 s."
    )

    encryption: Encryption | None = Field(
        None, description="`AES256` (SSE-S3), `aws:kms` or `aws:kms:dsse` for what is written. Unset: the bucket's."
    )
    kms_key: str | None = Field(None, description="Key for `aws:kms`. Unset: the bucket's or the account's.")
    storage_class: str | None = Field(None, description="Storage class of outputs. Unset: the bucket's.")

    @field_validator("endpoint", "proxy")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        url = urlsplit(value)
        if url.username is not None or url.password is not None:
            raise ValueError("it holds a user or password; keep credentials out of it")
        if url.scheme not in ("http", "https") or not url.hostname or url.path.strip("/") or url.query or url.fragment:
            raise ValueError("it has to be http:// or https:// with a host and, if need be, a port, and nothing else")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.endpoint and self.endpoint.startswith("http:") and not self.allow_http:
            raise ValueError("the endpoint is http://, which is not encrypted; set allow_http if that is meant")
        if (self.credentials is CredentialKind.FOLDER) != (self.credentials_folder is not None):
            raise ValueError("credentials=folder and credentials_folder go together")
        if self.kms_key and self.encryption not in (Encryption.KMS, Encryption.KMS_TWICE):
            raise ValueError("kms_key needs encryption aws:kms or aws:kms:dsse")
        return self

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ, **more: object) -> Self:
        """Take what the variables say that tools for S3 share (`_SHARED_VARIABLES`); `more` wins over them."""
        found: dict[str, object] = {}
        for field, names in _SHARED_VARIABLES.items():
            if value := next((environment[name] for name in names if environment.get(name)), None):
                found[field] = value
        return cls.model_validate(found | more)


_SHARED_VARIABLES = {
    "endpoint": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "ca_bundle": ("AWS_CA_BUNDLE",),
    "allow_http": ("AWS_ALLOW_HTTP",),
}
