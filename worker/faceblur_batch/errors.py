"""What can go wrong between a batch and the places it reads from and writes to.

The tree, each leaf with the stable ``reason`` that ledgers, reports and metrics carry::

    BatchError
    └── StorageError
        ├── InvalidLocation        INVALID_LOCATION      a location or an option of it is wrong
        ├── LocationNotFound       LOCATION_NOT_FOUND    there is no such bucket or folder
        ├── AccessDenied           ACCESS_DENIED         the store knows the credentials not, or does not allow it
        ├── NotFound               NOT_FOUND             there is no object with this key
        ├── AlreadyExists          ALREADY_EXISTS        it was to be created, and something is there
        ├── ObjectChanged          OBJECT_CHANGED        its ETag is not the expected one (any more)
        ├── KeyRefused             KEY_REFUSED           the store cannot hold, or must not follow, such a key
        ├── Unsupported            UNSUPPORTED           the store does not know what was asked of it
        ├── StoreFull              STORE_FULL            the disk is full or read-only, a quota is used up
        ├── TransientStorageError  STORAGE_UNAVAILABLE   no answer, or "later", after all retries: worth another try
        └── StorageFailure         STORAGE_FAILED        an answer that is none of these

Messages are sentences for a person: what happened, where, and what to do. They never hold credentials, signed URLs or
content.
"""

from __future__ import annotations

from typing import ClassVar


class BatchError(Exception):
    """Anything that stops a batch or one object of it."""

    reason: ClassVar[str] = "BATCH_ERROR"


class StorageError(BatchError):
    """A store did not do what was asked."""

    reason = "STORAGE_ERROR"


class InvalidLocation(StorageError):
    """A location or an option of it is wrong, or two locations must not be used together."""

    reason = "INVALID_LOCATION"


class LocationNotFound(StorageError):
    """There is no such bucket or folder."""

    reason = "LOCATION_NOT_FOUND"


class AccessDenied(StorageError):
    """The store does not know the credentials, or they do not allow this."""

    reason = "ACCESS_DENIED"


class NotFound(StorageError):
    """There is no object with this key."""

    reason = "NOT_FOUND"


class AlreadyExists(StorageError):
    """The object was to be created only if absent, and one with this key is there."""

    reason = "ALREADY_EXISTS"


class ObjectChanged(StorageError):
    """The object's ETag is not the expected one, or the object is gone."""

    reason = "OBJECT_CHANGED"


class KeyRefused(StorageError):
    """The store cannot hold an object with this key, or the key leads out of it."""

    reason = "KEY_REFUSED"


class Unsupported(StorageError):
    """The store does not know what was asked of it, a conditional write for example."""

    reason = "UNSUPPORTED"


class StoreFull(StorageError):
    """Nothing more can be written: the disk is full or read-only, or a quota is used up."""

    reason = "STORE_FULL"


class TransientStorageError(StorageError):
    """No answer, or a refusal for now, after all retries; the same may succeed later."""

    reason = "STORAGE_UNAVAILABLE"


class StorageFailure(StorageError):
    """The store answered with an error that is none of the others."""

    reason = "STORAGE_FAILED"
