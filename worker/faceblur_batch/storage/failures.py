"""What a cloud store's answer means, whichever way it was asked.

Answers are told apart by the ``Code`` of their XML body, which vendors share, and by their status where that says
nothing. What a server wrote beside is not repeated: it echoes key ids and signatures.
"""

from __future__ import annotations

import re

from ..errors import (
    AccessDenied,
    InvalidLocation,
    KeyRefused,
    LocationNotFound,
    NotFound,
    ObjectChanged,
    StorageError,
    StorageFailure,
    StoreFull,
    TransientStorageError,
    Unsupported,
)

_Meaning = tuple[type[StorageError], str]

_NO_SUCH_BUCKET: _Meaning = (LocationNotFound, "there is no such bucket; create it or correct its name")
_UNKNOWN_KEY: _Meaning = (AccessDenied, "the store does not know the access key; check the credentials")
_WRONG_SECRET: _Meaning = (AccessDenied, "the secret key does not belong to the access key; check the credentials")
_EXPIRED: _Meaning = (AccessDenied, "the session token is not valid any more; provide a new one")
_CLOCK: _Meaning = (AccessDenied, "this machine's clock is wrong by more than the store accepts; set it")
_REGION: _Meaning = (
    InvalidLocation,
    "the bucket is in another region or at another endpoint; set `region`, `endpoint`",
)
_LATER: _Meaning = (TransientStorageError, "the store asks to try again later")
_KEY: _Meaning = (KeyRefused, "the store cannot hold an object with this key")
_FULL: _Meaning = (StoreFull, "the store has no room left or a quota is used up")
_CONDITION: _Meaning = (ObjectChanged, "the object is not the expected version any more")
_DENIED: _Meaning = (AccessDenied, "the credentials do not allow this; grant it or use others")
_NOTHING: _Meaning = (NotFound, "there is no such object")
_UNKNOWN: _Meaning = (Unsupported, "the store does not offer what was asked of it")

_BY_CODE: dict[str, _Meaning] = {
    "NoSuchBucket": _NO_SUCH_BUCKET,
    "ContainerNotFound": _NO_SUCH_BUCKET,
    "NoSuchKey": _NOTHING,
    "InvalidAccessKeyId": _UNKNOWN_KEY,
    "XAdminUserNotFound": _UNKNOWN_KEY,  # versitygw, with status 404
    "SignatureDoesNotMatch": _WRONG_SECRET,
    "ExpiredToken": _EXPIRED,
    "InvalidToken": _EXPIRED,
    "RequestTimeTooSkewed": _CLOCK,
    "AuthorizationHeaderMalformed": _REGION,
    "PermanentRedirect": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "ConditionalRequestConflict": _LATER,
    "OperationAborted": _LATER,
    "RequestTimeout": _LATER,
    "KeyTooLongError": _KEY,
    "ExistingObjectIsDirectory": _KEY,
    "ObjectParentIsFile": _KEY,
    "XMinioParentIsObject": _KEY,
    "XMinioObjectExistsAsDirectory": _KEY,
    "QuotaExceeded": _FULL,
    "XMinioStorageFull": _FULL,
    "NotImplemented": _UNKNOWN,
}
_BY_STATUS: dict[int, _Meaning] = {
    301: _REGION,
    307: _REGION,
    401: _DENIED,
    403: _DENIED,
    404: _NOTHING,
    408: _LATER,
    412: _CONDITION,
    429: _LATER,
    501: _UNKNOWN,
    507: _FULL,
}


def failure_of(where: str, status: int, code: str | None) -> StorageError:
    """Return the error for an answer.

    Args:
        where: The bucket or object, as a person calls it.
        status: Of HTTP.
        code: Of S3, None if the answer had none.
    """
    kind, meaning = _BY_CODE.get(code or "") or _BY_STATUS.get(status) or (_LATER if status >= 500 else _other())
    return kind(f"{where}: {meaning} (answer {status}{f' {code}' if code else ''})")


def code_in(text: str) -> str | None:
    """Return the ``Code`` of an error's XML."""
    found = re.search(r"<Code>([A-Za-z0-9.]{1,64})</Code>", text)
    return found[1] if found else None


def _other() -> _Meaning:
    return StorageFailure, "the store refused the request"


def unreachable(where: str, what: str, server: str) -> StorageError:
    """Return the error for no answer.

    Args:
        where: The bucket or object, as a person calls it.
        what: The library's description, of which only known words are used.
        server: Who was asked, empty where that is not known: a variable that was misspelt shows in nothing else.
    """
    if re.search(r"certificate|UnknownIssuer|NotValidForName", what, re.IGNORECASE):
        return StorageFailure(
            f"{where}: the server's certificate is not from a known authority, or is for another name or out of date; "
            "set `ca_bundle` to the file of its authority"
        )
    timed_out = re.search(r"TimedOut|TimeoutError|timed out", what)
    store = f"the store at {server}" if server else "the store"
    trouble = "did not answer in time" if timed_out else "cannot be reached"
    return TransientStorageError(f"{where}: {store} {trouble}; check its address and that it runs")
