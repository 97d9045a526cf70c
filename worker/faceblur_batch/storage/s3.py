"""S3-compatible buckets: obstore for what it can ask for, `S3Reader` for listings and the keys that it cannot."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus, urlsplit

from obstore.store import S3Store as S3Backend

from ..errors import StorageFailure
from .cloud import (
    CloudStore,
    as_expected,
    client_options,
    condition_of,
    is_expressible,
    retry_options,
    usual_etag,
)
from .credentials import CredentialSource, EnvironmentCredentials, FolderCredentials, Latest
from .location import Location
from .s3_reader import S3Reader
from .settings import Addressing, CredentialKind, StorageSettings
from .store import ObjectHeaders, ObjectInfo, StoredObject

if TYPE_CHECKING:
    from obstore.store import S3Config, S3Credential

_METADATA = "x-amz-meta-"


class S3Store(CloudStore):
    """A bucket of an S3-compatible server."""

    def __init__(self, location: Location, settings: StorageSettings) -> None:
        """Connect to nothing yet.

        Raises:
            InvalidLocation: An option cannot be used.
        """
        known = _credentials(settings)
        source = Latest(known) if known else None
        url = bucket_url(location.bucket, settings)
        # All of these are given, so that none is taken from the environment behind the settings' back.
        config: S3Config = {
            "endpoint": url if settings.addressing is Addressing.VIRTUAL else url.rpartition("/")[0],
            "region": settings.region,
            "virtual_hosted_style_request": settings.addressing is Addressing.VIRTUAL,
            "skip_signature": settings.credentials is CredentialKind.ANONYMOUS,
            "disable_bulk_delete": True,
            "conditional_put": "etag",
        }
        config["aws_endpoint_url_s3"] = config["endpoint"]
        if settings.encryption:
            config["server_side_encryption"] = settings.encryption.value
        if settings.kms_key:
            config["sse_kms_key_id"] = settings.kms_key
        backend = S3Backend(
            location.bucket,
            config=config,
            client_options=client_options(settings),
            retry_config=retry_options(settings),
            credential_provider=_Provider(source) if source else None,
        )
        server = urlsplit(url).netloc
        super().__init__(location, backend, server=server, credentials=source, storage_class=settings.storage_class)
        # The credentials that a cloud's platform provides are known to obstore alone.
        platform = settings.credentials is CredentialKind.PLATFORM
        self._reader = None if platform else S3Reader(url, settings, source)

    def list(self, prefix: str = "", *, after: str | None = None) -> Iterator[ObjectInfo]:
        """See `ObjectStore`."""
        if self._reader is None:
            yield from super().list(prefix, after=after)
            return
        query = {"list-type": "2", "encoding-type": "url", "prefix": self._prefix + prefix}
        if after is not None:
            query["start-after"] = self._prefix + after
        while True:
            page = _Page(self._reader.ask(self._name, query=query).body, self._name)
            for info in page.objects(len(self._prefix)):
                # Not every server knows start-after, and the prefix itself may be an object: a folder's marker.
                if info.key and (after is None or info.key > after):
                    yield info
            if page.next is None:
                return
            query["continuation-token"] = page.next

    def head(self, key: str) -> ObjectInfo:
        """See `ObjectStore`."""
        if self._reader is None or is_expressible(self._prefix + key):
            return super().head(key)
        answer = self._reader.ask(self._where(key), method="HEAD", key=self._prefix + key)
        return _info(key, answer.headers)

    def get(self, key: str, *, if_match: str | None = None) -> StoredObject:
        """See `ObjectStore`."""
        if self._reader is None or is_expressible(self._prefix + key):
            return super().get(key, if_match=if_match)
        where = self._where(key)
        answer = self._reader.ask(where, key=self._prefix + key, if_match=condition_of(if_match))
        return as_expected(StoredObject(_info(key, answer.headers), answer.body), where, if_match)


def bucket_url(bucket: str, settings: StorageSettings) -> str:
    """Return the URL that requests for the bucket begin with, without a slash at the end."""
    endpoint = settings.endpoint or f"https://s3.{settings.region}.amazonaws.com"
    if settings.addressing is Addressing.PATH:
        return f"{endpoint}/{bucket}"
    scheme, _, host = endpoint.partition("://")
    return f"{scheme}://{bucket}.{host}"


def _credentials(settings: StorageSettings) -> CredentialSource | None:
    if settings.credentials is CredentialKind.ENVIRONMENT:
        return EnvironmentCredentials(settings.environment_prefix)
    return FolderCredentials(settings.credentials_folder) if settings.credentials_folder else None


class _Provider:
    """Hands credentials to obstore. They expire at once, so it asks for every request.

    `CloudStore` has read them when the request began.
    """

    def __init__(self, source: Latest) -> None:
        self._source = source

    def __call__(self) -> S3Credential:
        now = self._source.again()
        return {
            "access_key_id": now.access_key,
            "secret_access_key": now.secret_key,
            "token": now.token,
            "expires_at": datetime.now(UTC),
        }


class _Page:
    """A page of a listing."""

    def __init__(self, body: bytes, where: str) -> None:
        try:
            self._root = ET.fromstring(body)  # noqa: S314  expat limits what entities may grow to
        except ET.ParseError:
            self._root = ET.Element("nothing")
        for element in self._root.iter():
            element.tag = element.tag.rpartition("}")[2]
        if self._root.tag != "ListBucketResult":
            raise StorageFailure(f"{where}: the answer is no listing; is `endpoint` an S3-compatible server?")
        self._decode = unquote_plus if self._root.findtext("EncodingType") == "url" else str
        self.next: str | None = None
        if self._root.findtext("IsTruncated") == "true":
            self.next = self._root.findtext("NextContinuationToken")
            if not self.next:
                raise StorageFailure(f"{where}: a page of the listing says there are more, but not where they begin")

    def objects(self, prefix: int) -> Iterator[ObjectInfo]:
        """Each object, without the first `prefix` characters of its key."""
        for entry in self._root.iterfind("Contents"):
            size, modified = (
                int(entry.findtext("Size", "0")),
                datetime.fromisoformat(entry.findtext("LastModified", "")),
            )
            etag = usual_etag(entry.findtext("ETag"), size, modified)
            yield ObjectInfo(self._decode(entry.findtext("Key", ""))[prefix:], size, etag, modified)


def _info(key: str, headers: Message) -> ObjectInfo:
    size, modified = int(headers["content-length"]), parsedate_to_datetime(headers["last-modified"])
    return ObjectInfo(
        key,
        size,
        usual_etag(headers["etag"], size, modified),
        modified,
        ObjectHeaders(
            headers["content-type"],
            headers["cache-control"],
            {
                name.lower().removeprefix(_METADATA): value
                for name, value in headers.items()
                if name.lower().startswith(_METADATA)
            },
        ),
    )
