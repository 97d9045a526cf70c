"""Reading from an S3-compatible server what obstore cannot ask for: listings with any key in them, and such keys.

Object stores take any text as a key, and real buckets have ``a//b.jpg``, ``/a.jpg`` and ``a/../b.jpg``. obstore ends a
listing with an error at the first of them, or hands out another key in its place. So the pages of a listing, and the
few objects with such keys, are read here, with requests signed by Signature Version 4. Nothing is ever written here.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import random
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from urllib.parse import quote, urlsplit

from ..errors import AccessDenied, StorageFailure
from .cloud import LONGEST_PAUSE, read_authorities
from .credentials import Credentials, CredentialSource
from .failures import code_in, failure_of, unreachable
from .settings import StorageSettings

_EMPTY = hashlib.sha256(b"").hexdigest()
_UNRESERVED = "-_.~"


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer."""

    headers: Message
    body: bytes


class S3Reader:
    """Signs and sends GET and HEAD requests to one bucket. Holds no connection: any thread may use it."""

    def __init__(self, bucket_url: str, settings: StorageSettings, credentials: CredentialSource | None) -> None:
        """Prepare requests.

        Args:
            bucket_url: The bucket's own URL, without a slash at the end.
            settings: Of the location.
            credentials: None: requests are not signed.

        Raises:
            InvalidLocation: The file of authorities cannot be used.
        """
        self._url = bucket_url
        self._host = urlsplit(bucket_url).netloc
        self._path = urlsplit(bucket_url).path
        self._settings = settings
        self._credentials = credentials
        proxies = dict.fromkeys(("http", "https"), settings.proxy) if settings.proxy else {}
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler(proxies), _NoRedirects()]
        if bucket_url.startswith("https:"):
            context = ssl.create_default_context()
            if settings.ca_bundle:
                context.load_verify_locations(cadata=read_authorities(settings.ca_bundle))
            handlers.append(urllib.request.HTTPSHandler(context=context))
        self._opener = urllib.request.build_opener(*handlers)

    def ask(
        self,
        where: str,
        *,
        method: str = "GET",
        key: str | None = None,
        query: Mapping[str, str] | None = None,
        if_match: str | None = None,
    ) -> Answer:
        """Send a request, again if need be, and return the answer.

        Args:
            where: What is asked for, as errors call it.
            method: ``GET`` or ``HEAD``.
            key: Of the object, None for the bucket itself.
            query: Parameters.
            if_match: ETag that the object has to have.

        Raises:
            StorageError: There was no such answer.
        """
        path = f"{self._path}/{quote(key, safe='/' + _UNRESERVED)}" if key is not None else self._path or "/"
        parameters = "&".join(
            f"{quote(name, safe=_UNRESERVED)}={quote(value, safe=_UNRESERVED)}"
            for name, value in sorted((query or {}).items())
        )
        conditions = {"if-match": if_match} if if_match else {}
        started = time.monotonic()
        attempt = 0
        while True:
            used = self._credentials() if self._credentials else None
            try:
                return self._send(method, path, parameters, conditions, used)
            except urllib.error.HTTPError as error:
                with error:
                    failure = failure_of(where, error.code, code_in(error.read(65536).decode("utf-8", "replace")))
                    again = error.code >= 500 or error.code in (408, 429)
            except (OSError, http.client.HTTPException) as error:
                failure = unreachable(where, f"{error!r} {getattr(error, 'reason', '')!r}", self._host)
                again = not isinstance(failure, StorageFailure)
            if isinstance(failure, AccessDenied) and self._credentials and self._credentials() != used:
                continue
            pause = min(LONGEST_PAUSE, self._settings.first_pause_seconds * 2**attempt) * random.uniform(0.5, 1)  # noqa: S311
            attempt += 1
            spent = time.monotonic() - started + pause
            if not again or attempt > self._settings.retries or spent > self._settings.retry_seconds:
                raise failure
            time.sleep(pause)

    def _send(
        self, method: str, path: str, parameters: str, conditions: dict[str, str], credentials: Credentials | None
    ) -> Answer:
        headers = conditions
        if credentials:
            headers = signed(
                method, self._host, path, parameters, conditions, credentials, self._settings.region, datetime.now(UTC)
            )
        scheme = urlsplit(self._url).scheme
        url = f"{scheme}://{self._host}{path}{'?' if parameters else ''}{parameters}"
        request = urllib.request.Request(url, headers=headers, method=method)  # noqa: S310  http or https by now
        with self._opener.open(request, timeout=self._settings.request_seconds) as answer:
            return Answer(answer.headers, answer.read())


def signed(
    method: str,
    host: str,
    path: str,
    parameters: str,
    headers: Mapping[str, str],
    credentials: Credentials,
    region: str,
    now: datetime,
) -> dict[str, str]:
    """Return `headers` with those that sign a request without a body by AWS Signature Version 4.

    Args:
        method: Of HTTP.
        host: As the Host header has it.
        path: Encoded, as it is sent.
        parameters: Encoded and sorted by name.
        headers: With lower-case names; all of them are signed.
        credentials: Of the caller.
        region: Of the bucket.
        now: In UTC.
    """
    moment, day = f"{now:%Y%m%dT%H%M%SZ}", f"{now:%Y%m%d}"
    own = {**headers, "x-amz-content-sha256": _EMPTY, "x-amz-date": moment}
    if credentials.token:
        own["x-amz-security-token"] = credentials.token
    all_headers = {**own, "host": host}
    names = ";".join(sorted(all_headers))
    lines = "".join(f"{name}:{all_headers[name].strip()}\n" for name in sorted(all_headers))
    request = "\n".join((method, path, parameters, lines, names, _EMPTY))
    scope = f"{day}/{region}/s3/aws4_request"
    text = "\n".join(("AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(request.encode()).hexdigest()))
    key = f"AWS4{credentials.secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    own["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return own


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A signature is for one host: a redirect is an answer that says the endpoint or region is wrong."""

    def redirect_request(self, *_: object) -> None:
        return None
