"""File names for people and for files that leave the machine.

A file name is bytes that somebody else chose: it may not be UTF-8, may hold terminal escapes, and may hold a
person's name. Towards the disk it stays as it is; everything that shows it goes through here.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from enum import StrEnum


def printable(name: str) -> str:
    r"""Return `name` safe for a terminal or a page: control and undecodable characters as ``\x1b``."""
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else _escaped(c) for c in name)


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8, as os.fsdecode carries it
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


class Names(StrEnum):
    """What receipts and the report say in place of a file's name."""

    KEEP = "keep"
    HASH = "hash"
    OMIT = "omit"


class Labels:
    """Turns file names into what may be published about them.

    A plain hash of ``IMG_0815.jpg`` is found by trying, so ``hash`` is an HMAC-SHA256 with a secret key: the caller's,
    or a random one that ends with the run. With the random key a name has one label within a run and nobody, we
    included, can link it to another run; the picture itself is found by its SHA-256.
    """

    def __init__(self, names: Names, key: bytes | None = None) -> None:
        self.names = names
        self._key = key or secrets.token_bytes(32)

    def __call__(self, file: str) -> str | None:
        """Return the label of `file`, None when names are left out."""
        if self.names is Names.KEEP:
            return file
        if self.names is Names.HASH:
            return hmac.new(self._key, os.fsencode(file), hashlib.sha256).hexdigest()[:32]
        return None
