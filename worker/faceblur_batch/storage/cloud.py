"""Buckets through obstore, the Python face of the Rust crate object_store.

What it does not do by itself: it takes proxies from the environment, reports every failure as text, cuts a large
object into parts (whose ETag then is no longer that of one write), deletes through a bulk request that not every vendor
has, and compares prefixes segment by segment. Each is set right here.
"""

from __future__ import annotations

import contextlib
import re
import ssl
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import obstore
from obstore.exceptions import BaseError

from ..errors import (
    AccessDenied,
    AlreadyExists,
    InvalidLocation,
    KeyRefused,
    NotFound,
    ObjectChanged,
    StorageError,
    Unsupported,
)
from .credentials import CredentialSource
from .failures import code_in, failure_of, unreachable
from .location import Location
from .settings import StorageSettings
from .store import NO_HEADERS, ObjectHeaders, ObjectInfo, StoredObject, printable

if TYPE_CHECKING:
    from obstore import Attributes, ObjectMeta, PutMode
    from obstore.store import ClientConfig, RetryConfig
    from obstore.store import ObjectStore as Backend

PAGE = 1000
_RAISED = (BaseError, OSError, ValueError, NotImplementedError)
_KNOWN_ATTRIBUTES = frozenset(
    ("Content-Disposition", "Content-Encoding", "Content-Language", "Content-Type", "Cache-Control", "Storage-Class")
)
_ResultT = TypeVar("_ResultT")


class CloudStore:
    """A bucket with a prefix."""

    def __init__(
        self,
        location: Location,
        backend: Backend,
        *,
        server: str = "",
        credentials: CredentialSource | None = None,
        storage_class: str | None = None,
    ) -> None:
        """Talk to `backend`, whose keys are the whole bucket's.

        Args:
            location: Bucket and prefix.
            backend: Made from `client_options` and `retry_options`.
            server: Its name, for errors.
            credentials: What `backend` signs with, if it is known here. A request that is denied is sent again if they
                have changed meanwhile.
            storage_class: Of what is written.
        """
        self._prefix = location.prefix
        self._name = str(location)
        self._backend = backend
        self._server = server
        self._credentials = credentials
        self._storage_class = storage_class

    @property
    def location(self) -> str:
        """See `ObjectStore`."""
        return self._name

    def list(self, prefix: str = "", *, after: str | None = None) -> Iterator[ObjectInfo]:
        """See `ObjectStore`. In the order that the service lists in."""
        whole = self._prefix + prefix
        folder = whole[: whole.rfind("/")] if "/" in whole else None
        offset = None if after is None else self._prefix + after
        stream = self._call(self._name, lambda: obstore.list(self._backend, folder, offset=offset, chunk_size=PAGE))
        while chunk := self._call(self._name, lambda: next(stream, None)):
            for meta in chunk:
                if meta["path"].startswith(whole) and (offset is None or meta["path"] > offset):
                    yield self._info(meta)

    def head(self, key: str) -> ObjectInfo:
        """See `ObjectStore`."""
        path = self._path(key)
        result = self._call(self._where(key), lambda: obstore.get(self._backend, path, options={"head": True}))
        return self._info(result.meta, result.attributes)

    def get(self, key: str, *, if_match: str | None = None) -> StoredObject:
        """See `ObjectStore`."""
        path = self._path(key)
        condition = condition_of(if_match)

        def read() -> StoredObject:
            result = obstore.get(self._backend, path, options={"if_match": condition} if condition else {})
            return StoredObject(self._info(result.meta, result.attributes), result.bytes().to_bytes())

        return as_expected(self._call(self._where(key), read), self._where(key), if_match)

    def put(
        self,
        key: str,
        data: bytes,
        *,
        headers: ObjectHeaders = NO_HEADERS,
        only_if_absent: bool = False,
        if_match: str | None = None,
    ) -> str:
        """See `ObjectStore`."""
        where, path = self._where(key), self._path(key)
        attributes: Attributes = {**headers.metadata}
        if headers.content_type:
            attributes["Content-Type"] = headers.content_type
        if headers.cache_control:
            attributes["Cache-Control"] = headers.cache_control
        if self._storage_class:
            attributes["Storage-Class"] = self._storage_class
        mode: PutMode = "create" if only_if_absent else {"e_tag": if_match} if if_match else "overwrite"
        try:
            result = self._call(
                where,
                lambda: obstore.put(self._backend, path, data, attributes=attributes, mode=mode, use_multipart=False),
            )
        except ObjectChanged as error:
            if only_if_absent:
                raise AlreadyExists(f"{where}: there is an object already") from error
            raise
        except NotFound as error:
            if if_match:
                raise ObjectChanged(f"{where}: the object is gone") from error
            raise
        return result["e_tag"] or self.head(key).etag

    def delete(self, key: str) -> None:
        """See `ObjectStore`."""
        path = self._path(key)
        with contextlib.suppress(NotFound):
            self._call(self._where(key), lambda: obstore.delete(self._backend, path))

    def _where(self, key: str) -> str:
        return self._name + printable(key)

    def _path(self, key: str) -> str:
        path = self._prefix + key
        if not is_expressible(path):
            raise KeyRefused(f"{self._where(key)}: the key has empty or dot segments or control characters")
        return path

    def _info(self, meta: ObjectMeta, attributes: Attributes | None = None) -> ObjectInfo:
        headers = None
        if attributes is not None:
            headers = ObjectHeaders(
                content_type=attributes.get("Content-Type"),
                cache_control=attributes.get("Cache-Control"),
                metadata={name: value for name, value in attributes.items() if name not in _KNOWN_ATTRIBUTES},
            )
        etag = usual_etag(meta["e_tag"], meta["size"], meta["last_modified"])
        return ObjectInfo(meta["path"][len(self._prefix) :], meta["size"], etag, meta["last_modified"], headers)

    def _call(self, where: str, work: Callable[[], _ResultT]) -> _ResultT:
        while True:
            used = self._credentials() if self._credentials else None
            try:
                return work()
            except _RAISED as error:
                failure = _failure(error, where, self._server)
            if not isinstance(failure, AccessDenied) or self._credentials is None or self._credentials() == used:
                raise failure


def _failure(error: Exception, where: str, server: str) -> StorageError:
    text = str(error)
    if status := re.search(r"status code: (\d{3})", text):
        return failure_of(where, int(status[1]), code_in(text))
    if "redirect without LOCATION" in text:
        return failure_of(where, 301, None)
    for kinds, failure, meaning in _WITHOUT_STATUS:
        if type(error).__name__ in kinds:
            return failure(f"{where}: {meaning}")
    return unreachable(where, text, server)


_WITHOUT_STATUS: Sequence[tuple[tuple[str, ...], type[StorageError], str]] = (
    (("InvalidPathError", "ValueError"), KeyRefused, "a key has empty or dot segments or control characters"),
    (("NotSupportedError", "NotImplementedError"), Unsupported, "the store does not offer what was asked of it"),
    (("NotFoundError", "FileNotFoundError"), NotFound, "there is no such object"),
    (("AlreadyExistsError",), AlreadyExists, "there is an object already"),
    (("PreconditionError",), ObjectChanged, "the object is not the expected version any more"),
    (("PermissionDeniedError", "UnauthenticatedError"), AccessDenied, "the credentials do not allow this"),
)


def usual_etag(etag: str | None, size: int, modified: datetime) -> str:
    """Return an ETag in quotes, whether it comes from a listing or a header; a stand-in where a store gives none.

    The stand-in is made of size and time of modification, to the second: headers are no more precise.
    """
    if not etag:
        return f'"{_STAND_IN}{int(modified.timestamp())}-{size}"'
    return etag if '"' in etag else f'"{etag}"'


def condition_of(etag: str | None) -> str | None:
    """Return what a request is made conditional on; None for a stand-in, which the store does not know."""
    return None if etag is None or etag.startswith(f'"{_STAND_IN}') else etag


def as_expected(stored: StoredObject, where: str, etag: str | None) -> StoredObject:
    """Return an object that was read, if it is the one that a stand-in stands for.

    Raises:
        ObjectChanged: It is another.
    """
    info = stored.info
    if etag != condition_of(etag) and etag != usual_etag(None, info.size, info.modified):
        raise ObjectChanged(f"{where}: the object is not the expected version any more")
    return stored


_STAND_IN = "modified-"


def is_expressible(key: str) -> bool:
    """Whether obstore asks for `key` and not for another one: it drops slashes at the ends, refuses the rest."""
    return all(
        segment not in ("", ".", "..") and not any(unicodedata.category(c) in ("Cc", "Cs") for c in segment)
        for segment in key.split("/")
    )


def client_options(settings: StorageSettings) -> ClientConfig:
    """Return the options of HTTP connections.

    Raises:
        InvalidLocation: The file of authorities cannot be read.
    """
    options: ClientConfig = {
        "allow_http": settings.allow_http,
        "connect_timeout": timedelta(seconds=settings.connect_seconds),
        "timeout": timedelta(seconds=settings.request_seconds),
    }
    if settings.proxy:
        options["proxy_url"] = settings.proxy
    else:
        # Only a proxy of its own keeps the client from the environment's; everything is exempt from this one.
        options["proxy_url"] = "http://127.0.0.1:9"
        options["proxy_excludes"] = "*,0.0.0.0/0,::/0"
    if settings.ca_bundle:
        options["root_certificate"] = read_authorities(settings.ca_bundle)
    return options


def retry_options(settings: StorageSettings) -> RetryConfig:
    """Return how often and how long a request is sent again."""
    return {
        "max_retries": settings.retries,
        "retry_timeout": timedelta(seconds=settings.retry_seconds),
        "backoff": {
            "init_backoff": timedelta(seconds=settings.first_pause_seconds),
            "max_backoff": timedelta(seconds=max(LONGEST_PAUSE, settings.first_pause_seconds)),
            "base": 2,
        },
    }


LONGEST_PAUSE = 10.0


def read_authorities(path: Path) -> str:
    """Read a PEM file of authorities.

    Raises:
        InvalidLocation: It cannot be read or holds no certificate.
    """
    try:
        pem = path.read_text(encoding="ascii", errors="ignore")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem)
    except ssl.SSLError as error:
        raise InvalidLocation(f"{path} (ca_bundle) is no PEM file of certificates") from error
    except OSError as error:
        raise InvalidLocation(f"{path} (ca_bundle) cannot be read: {error.strerror}") from error
    return pem
