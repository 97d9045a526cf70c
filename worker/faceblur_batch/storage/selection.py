"""Which objects of a source are meant."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache

from .keys import RESERVED, SUFFIXES
from .store import ObjectInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What has to hold for an object to be worked on; every field narrows.

    What begins with `RESERVED` is never meant, nor are the empty objects whose key ends with a slash, by which some
    tools mark folders.

    Attributes:
        prefix: The key begins with it. Given to the store, so the rest is not even listed.
        suffixes: The key ends with one of them, whatever the case. Empty: any key.
        include: The key fits one of these globs. Empty: any key.
        exclude: The key fits none of these globs.
        newer_than: Modified after this moment, which has a time zone.
        min_size: Bytes at least.
        max_size: Bytes at most.

    In a glob ``*`` and ``?`` stand for anything but ``/``, ``**`` for anything (``**/`` also for no folder),
    ``[a-z]`` and ``[!a-z]`` for one character. It has to fit the whole key.
    """

    prefix: str = ""
    suffixes: frozenset[str] = SUFFIXES
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    newer_than: datetime | None = None
    min_size: int = 0
    max_size: int | None = None
    _endings: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.newer_than is not None and self.newer_than.tzinfo is None:
            raise ValueError("newer_than needs a time zone")
        object.__setattr__(self, "_endings", tuple(suffix.lower() for suffix in self.suffixes))

    def fits(self, key: str) -> bool:
        """Whether an object with this key can be meant."""
        return (
            key.startswith(self.prefix)
            and not key.startswith(RESERVED)
            and (not self._endings or key.lower().endswith(self._endings))
            and (not self.include or _fits(key, self.include))
            and not _fits(key, self.exclude)
        )

    def __contains__(self, info: ObjectInfo) -> bool:
        """Whether the object is meant."""
        return (
            self.fits(info.key)
            and not (info.key.endswith("/") and info.size == 0)
            and (self.newer_than is None or info.modified > self.newer_than)
            and info.size >= self.min_size
            and (self.max_size is None or info.size <= self.max_size)
        )


def _fits(key: str, globs: Iterable[str]) -> bool:
    return any(_compiled(glob).fullmatch(key) for glob in globs)


@lru_cache(maxsize=256)
def _compiled(glob: str) -> re.Pattern[str]:
    return re.compile("".join(map(_translated, _TOKENS.findall(glob))), re.DOTALL)


_TOKENS = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)
_SPECIAL = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def _translated(token: str) -> str:
    if token in _SPECIAL:
        return _SPECIAL[token]
    if len(token) < 3:
        return re.escape(token)
    negated = token.startswith("[!")
    inner = re.sub(r"([\\\[\]&~|^])", r"\\\1", token[1 + negated : -1])
    return f"(?!/)[{'^' if negated else ''}{inner}]"
