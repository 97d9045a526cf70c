"""From what a person wrote to a store, and the check that a destination lies apart from its source."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from obstore.store import AzureStore, GCSStore

from ..errors import InvalidLocation, StorageError
from .cloud import CloudStore, client_options, retry_options
from .folder import FolderStore
from .keys import RESERVED
from .location import Location, parse_location
from .s3 import S3Store, bucket_url
from .settings import CredentialKind, StorageSettings
from .store import ObjectStore

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Backend

_DEFAULTS = StorageSettings()


def open_store(location: str, settings: StorageSettings = _DEFAULTS) -> ObjectStore:
    """Return the store at a location. Nothing is asked of it yet, so it need not exist or be reachable.

    It is opened in the process that uses it: obstore's threads do not survive a fork.

    Args:
        location: As `parse_location` reads it.
        settings: Of a bucket.

    Raises:
        InvalidLocation: The location or an option cannot be used.
    """
    place = parse_location(location)
    if place.scheme == "file":
        return FolderStore(Path(place.prefix))
    if place.scheme == "s3":
        return S3Store(place, settings)
    return CloudStore(place, _other_cloud(place, settings))


def _other_cloud(place: Location, settings: StorageSettings) -> Backend:
    # Offered because obstore brings them; endpoint, credentials and encryption come from the cloud's own environment.
    options: dict[str, Any] = {"client_options": client_options(settings), "retry_config": retry_options(settings)}
    anonymous = settings.credentials is CredentialKind.ANONYMOUS
    try:
        if place.scheme == "gs":
            return GCSStore(place.bucket, config={"skip_signature": anonymous}, **options)
        return AzureStore(place.bucket, config={"skip_signature": anonymous}, **options)
    except Exception as error:
        raise InvalidLocation(f"{place}: it cannot be opened with the credentials of the environment") from error


def check_apart(
    source: str,
    destination: str,
    source_settings: StorageSettings = _DEFAULTS,
    destination_settings: StorageSettings = _DEFAULTS,
) -> None:
    """Refuse a destination inside the source, where outputs would be taken for pictures, and the other way round.

    Folders are compared with links resolved and by identity, buckets by the server's name where that tells. Where a
    bucket of the same name lies at another spelling of the server, an object is written to the destination, looked for
    through the source's settings, and removed.

    Raises:
        InvalidLocation: One contains the other, or they are the same.
        StorageError: The destination cannot be written to.
    """
    one, other = parse_location(source), parse_location(destination)
    if one.scheme != other.scheme or one.bucket != other.bucket:
        return
    if one.scheme == "file":
        together = _contains(Path(one.prefix), Path(other.prefix)) or _contains(Path(other.prefix), Path(one.prefix))
    else:
        together = one.prefix.startswith(other.prefix) or other.prefix.startswith(one.prefix)
        if together and one.scheme == "s3" and _server(one, source_settings) != _server(other, destination_settings):
            together = _seen_through(source_settings, destination_settings, destination)
    if together:
        raise InvalidLocation(
            f"the destination {other} and the source {one} are the same place or one lies in the other: outputs would "
            "be taken for pictures, or pictures overwritten; choose a destination beside the source"
        )


def _contains(outer: Path, inner: Path) -> bool:
    inner = Path(os.path.realpath(inner))
    if inner.is_relative_to(os.path.realpath(outer)):
        return True
    # Mounted twice, or a file system without upper and lower case: the same folder by another name.
    return any(_same(outer, path) for path in (inner, *inner.parents))


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there yet
        return False


def _server(place: Location, settings: StorageSettings) -> tuple[str, int]:
    url = urlsplit(bucket_url(place.bucket, settings))
    host = (url.hostname or "").rstrip(".").removeprefix(f"{place.bucket.lower()}.")
    if host.startswith("s3.") and host.endswith(".amazonaws.com"):
        host = "s3.amazonaws.com"  # names of buckets are shared by all regions
    return host, url.port or {"http": 80, "https": 443}[url.scheme]


def _seen_through(source_settings: StorageSettings, destination_settings: StorageSettings, destination: str) -> bool:
    key = f"{RESERVED}probe-{secrets.token_hex(8)}"
    store = open_store(destination, destination_settings)
    store.put(key, b"is this bucket also the source's?")
    try:
        open_store(destination, source_settings).head(key)
    except StorageError:
        return False  # not there, or not reachable with the source's credentials, so it is no source
    else:
        return True
    finally:
        store.delete(key)
