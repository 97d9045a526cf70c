"""Where pictures lie, as a person writes it.

A location is ``s3://bucket/prefix``, ``gs://bucket/prefix``, ``az://container/prefix``, ``file:///folder`` or the path
of a folder. A bucket's prefix is taken literally (nothing in it is decoded) and always stands for a folder of the
bucket: ``s3://b/in`` holds ``in/a.jpg`` but not ``inside.jpg``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from ..errors import InvalidLocation

CLOUDS = ("s3", "gs", "az")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")


@dataclass(frozen=True, slots=True)
class Location:
    """A bucket with a prefix, or a folder.

    Attributes:
        scheme: ``s3``, ``gs``, ``az`` or ``file``.
        bucket: The bucket or container; empty for a folder.
        prefix: Of keys in the bucket, empty or ending with a slash; for a folder its absolute path.
    """

    scheme: str
    bucket: str
    prefix: str

    def __str__(self) -> str:
        return self.prefix if self.scheme == "file" else f"{self.scheme}://{self.bucket}/{self.prefix}"


def parse_location(text: str) -> Location:
    """Read what a person wrote.

    Raises:
        InvalidLocation: It is none of the known forms. The message never repeats what may be a password.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        if not text:
            raise InvalidLocation("a location is empty; give s3://bucket/prefix or the path of a folder")
        return _folder(text)
    if scheme == "file":
        host, _, path = rest.partition("/")
        if host not in ("", "localhost"):
            raise InvalidLocation("a file:// location has a host; write file:///path, with three slashes")
        return _folder(unquote("/" + path, errors="surrogateescape"))
    if scheme not in CLOUDS:
        raise InvalidLocation(f"no storage is called {scheme!r}; known are s3://, gs://, az://, file:// and folders")
    bucket, _, prefix = rest.partition("/")
    if "@" in bucket:
        raise InvalidLocation(f"a {scheme}:// location holds a user or password; keep credentials out of it")
    if not _BUCKET.fullmatch(bucket):
        raise InvalidLocation(f"{bucket!r} cannot be the name of a bucket; write {scheme}://bucket/prefix")
    prefix = prefix if not prefix or prefix.endswith("/") else prefix + "/"
    return Location(scheme, bucket, prefix)


def _folder(path: str) -> Location:
    if "\0" in path:
        raise InvalidLocation("the path of a folder cannot hold a NUL character")
    return Location("file", "", str(Path(path).absolute()))
