"""From the key of a picture to the key of its output.

No two keys may share an output, and nobody has all keys at hand to compare: each step below keeps different keys
different by itself.

1. What stores or file systems refuse is percent-encoded, and so is the percent sign: `encode`.
2. A picture that leaves in another format gets that format's extension *behind* its own: ``a.heic`` becomes
   ``a.heic.jpg``. A picture that is called so already gives way: ``a.heic.jpg`` becomes ``a%2Eheic.jpg``, a spelling
   that the first step never makes.
3. The template puts text before the folders and around the name, never between them, so that each part can be told.
4. A name that is too long for a file system goes on in a folder: ``long%/er``. The first step leaves no bare ``%``.

Unicode is kept as it is, not normalised: ``é`` has two spellings, and in a bucket or on Linux they are two keys. A file
system that takes them, or ``a.jpg`` and ``A.jpg``, for the same (macOS) cannot hold both outputs.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field

RESERVED = ".faceblur/"
"""Everything in a destination that is no output: the ledger, reports, and what a folder needs to be a store."""

LONGEST_NAME = 240
"""Bytes of a name in UTF-8, below the 255 of file systems."""

_EXTENSIONS = {
    "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "png": (".png",),
    "webp": (".webp",),
    "tiff": (".tif", ".tiff"),
    "avif": (".avif",),
    "heic": (".heic", ".heif"),
}
_FORMATS = {extension: name for name, extensions in _EXTENSIONS.items() for extension in extensions}
SUFFIXES = frozenset(_FORMATS)
"""Extensions of pictures, in lower case."""

_TEMPLATE = re.compile(r"(?P<before>[^{}]*)\{dir\}/(?P<start>[^{}/]*)\{stem\}(?P<end>[^{}/]*)\{ext\}")


def encode(key: str) -> str:
    """Return `key` so that every store can hold it; `decode` gives it back.

    Percent-encoded are: ``%`` itself, control characters, bytes that are no UTF-8, backslashes, leading, doubled and
    trailing slashes, the names ``.`` and ``..``, a dot or space at the end of a name, and the dot of `RESERVED`. Names
    above `LONGEST_NAME` are cut.
    """
    return _cut(_encode(key))


def decode(key: str) -> str:
    """Undo `encode`."""
    return re.sub(
        r"(?:%[0-9A-F]{2})+",
        lambda run: bytes.fromhex(run[0].replace("%", "")).decode("utf-8", "surrogateescape"),
        key.replace("%/", ""),
    )


def _encode(key: str) -> str:
    # A slash that begins the key, follows another or ends the key would leave a name empty.
    parts = re.split(r"(?<=[^/])/(?=.)", key, flags=re.DOTALL)
    names = [_encode_name(part) for part in parts]
    if names[0].casefold() + "/" == RESERVED:
        names[0] = "%2E" + names[0][1:]
    return "/".join(names)


def _encode_name(name: str) -> str:
    text = "".join(_escaped(c) if c in "%/\\" or unicodedata.category(c) in _REFUSED else c for c in name)
    if set(text) == {"."}:
        return "%2E" * len(text)
    return text[:-1] + _escaped(text[-1]) if text.endswith((".", " ")) else text


_REFUSED = ("Cc", "Cs", "Zl", "Zp")


def _escaped(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogateescape"))


def _cut(key: str) -> str:
    return "/".join(map(_cut_name, key.split("/")))


def _cut_name(name: str) -> str:
    if len(name.encode()) <= LONGEST_NAME:
        return name
    pieces, length = [""], 0
    for character in name:
        size = len(character.encode())
        if length + size >= LONGEST_NAME:  # with the sign that it goes on
            pieces.append("")
            length = 0
        pieces[-1] += character
        length += size
    return "%/".join(pieces)


@dataclass(frozen=True)
class KeyMapping:
    """Makes the output's key, which is relative to the destination, of a key that is relative to the source.

    Attributes:
        template: ``TEXT{dir}/TEXT{stem}TEXT{ext}``, each text optional: ``{dir}`` are the key's folders, ``{stem}`` and
            ``{ext}`` its name without and from the last dot. The first text is a folder (``blurred/{dir}/…``).
        format: That all outputs have: ``jpeg``, ``png``, ``webp``, ``tiff`` or ``avif``. None: each picture's own, and
            JPEG for HEIC, as the engine does.

    Raises:
        ValueError: The template is another, so two keys might share an output, or the format is unknown.
    """

    template: str = "{dir}/{stem}{ext}"
    format: str | None = None
    _texts: tuple[str, str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        found = _TEMPLATE.fullmatch(self.template)
        if not found:
            raise ValueError(
                f"the template {self.template!r} has to be {{dir}}/{{stem}}{{ext}} in this order, with text before, "
                "between or behind {stem} if need be, so that no two pictures get the same key"
            )
        before, start, end = found["before"], found["start"], found["end"]
        plain = encode(f"{before}x{start}x{end}") == f"{before}x{start}x{end}" and encode(end) == end
        if not plain or start.startswith(".") or (before and not before.endswith("/")):
            raise ValueError(
                f"the text in the template {self.template!r} has to be a folder that ends with a slash before {{dir}}, "
                "no dot before {stem}, and nothing that stores refuse"
            )
        if self.format is not None and (self.format not in _EXTENSIONS or self.format == "heic"):
            raise ValueError(f"no output has the format {self.format!r}; choose jpeg, png, webp, tiff or avif")
        object.__setattr__(self, "_texts", (before, start, end))

    def __call__(self, key: str) -> str:
        """Return the output's key."""
        folder, slash, name = _encode(key).rpartition("/")
        before, start, end = self._texts
        stem, extension = _split(self._named_by_format(name))
        return _cut(f"{before}{folder}{slash}{start}{stem}{end}{extension}")

    def _named_by_format(self, name: str) -> str:
        if added := self._added(name):
            return name + added
        stem, extension = _split(name)
        if extension and self._added(stem) == extension:  # the name that `stem` gets
            stem = "%2E".join(stem.rsplit(".", 1))
        return stem + extension

    def _added(self, name: str) -> str:
        own = _FORMATS.get(_split(name)[1].lower())
        if own is None:  # what it holds is only known later; it leaves as it came
            return ""
        wanted = self.format or ("jpeg" if own == "heic" else own)
        return "" if wanted == own else _EXTENSIONS[wanted][0]


def _split(name: str) -> tuple[str, str]:
    """Cut `name` before its last dot; dots that it begins with do not count."""
    dot = name.rfind(".")
    return (name[:dot], name[dot:]) if dot >= 0 and name[:dot].strip(".") else (name, "")
