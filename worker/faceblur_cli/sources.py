"""From the paths on the command line to pictures, each with the name that its result gets.

The walk is lazy (a folder's names are in memory, never a tree's) and sorted, so that two runs see the same order. What
decides a result's name is known from a folder's listing alone, never from which picture happens to be first: so no two
pictures of one run share a result, and a rerun comes to the same names.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from faceblur_engine.types import Format

from . import state
from .exits import CannotGoOnError, UsageError
from .files import problem_of
from .names import printable

PIPE = "-"

FORMATS = {
    ".jpg": Format.JPEG,
    ".jpeg": Format.JPEG,
    ".jpe": Format.JPEG,
    ".jfif": Format.JPEG,
    ".png": Format.PNG,
    ".webp": Format.WEBP,
    ".tif": Format.TIFF,
    ".tiff": Format.TIFF,
    ".avif": Format.AVIF,
    ".heic": Format.HEIC,
    ".heif": Format.HEIC,
}
EXTENSIONS = {
    Format.JPEG: ".jpg",
    Format.PNG: ".png",
    Format.WEBP: ".webp",
    Format.TIFF: ".tif",
    Format.AVIF: ".avif",
}


def format_of(name: str) -> Format | None:
    """Return the format that a file name's extension announces."""
    return FORMATS.get(os.path.splitext(name)[1].lower())  # noqa: PTH122  a name, and a hot path


@dataclass(frozen=True, slots=True)
class Item:
    """A picture to be processed.

    Attributes:
        path: To open it; None is stdin.
        file: What it is called in messages: the path as given, and the way down from there.
        target: Name of its result, relative to OUT.
        named: The user named this very file, so it is tried whatever it is.
    """

    path: Path | None
    file: str
    target: str
    named: bool


@dataclass(frozen=True, slots=True)
class Passed:
    """Something that was found and is not a picture to process.

    Attributes:
        file: What it is called in messages.
        reason: A stable name, such as ``NOT_A_PICTURE``.
        message: A sentence.
        failed: It should have been processed: it counts as a failure, not as skipped.
    """

    file: str
    reason: str
    message: str
    failed: bool


Found = Item | Passed


@dataclass(frozen=True, slots=True)
class Naming:
    """How results are named.

    Attributes:
        format: Asked for with ``--format``.
        fold: The destination does not tell upper from lower case.
    """

    format: Format | None = None
    fold: bool = False

    def key(self, name: str) -> str:
        """Return what two names have in common when they are one file at the destination."""
        return name.casefold() if self.fold else name

    def target(self, name: str) -> str:
        """Return the result's name: the source's, with another extension only where the format changes."""
        stem, extension = os.path.splitext(name)  # noqa: PTH122
        announced = FORMATS.get(extension.lower())
        wanted = self.format or (Format.JPEG if announced is Format.HEIC else announced)
        if wanted is None or announced is wanted:
            return name
        return (stem if announced else name) + EXTENSIONS[wanted]

    def targets(self, names: Sequence[str], taken: Iterable[str] = ()) -> list[str | None]:
        """Name the results of pictures that will lie in one folder.

        Where ``a.heic`` would take the place of ``a.jpg``, it becomes ``a.heic.jpg``. None stands for a picture whose
        name is taken even then.
        """
        wanted = [self.target(name) for name in names]
        claims = Counter(map(self.key, wanted))
        used = set(map(self.key, taken))
        result: list[str | None] = [None] * len(names)
        # Those that keep their name come first: a converted picture makes way, whatever the order.
        for index in sorted(range(len(names)), key=lambda i: wanted[i] != names[i]):
            target = wanted[index]
            if target != names[index] and (claims[self.key(target)] > 1 or self.key(target) in used):
                target = names[index] + os.path.splitext(target)[1]  # noqa: PTH122
            if self.key(target) not in used:
                used.add(self.key(target))
                result[index] = target
        return result


# The results of earlier runs, by every state file in and above a folder: the way from there, and the names it notes.
_Known = tuple[tuple[str, Collection[str]], ...]


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder on the walk's stack: where, as what, and what is known about it."""

    path: Path
    file: str
    target: str
    ancestors: tuple[tuple[int, int], ...]
    known: _Known


class Inputs:
    """The paths of the command line."""

    def __init__(self, paths: Sequence[str], *, out: Path | None = None, follow_links: bool = False) -> None:
        """Expand globs and check what can be checked before anything is read.

        Args:
            paths: Files, folders and globs.
            out: The folder of the results, existing or not.
            follow_links: Descend into folders behind links.

        Raises:
            UsageError: OUT is an input folder or holds one, or two of the paths would have one result.
            CannotGoOnError: None of the paths exists.
        """
        self._follow = follow_links
        self._out = _identity(out) if out else None
        self._folders: list[str] = []
        self._files: list[str] = []
        self._missing: list[str] = []
        if "" in paths:
            raise UsageError("a path is empty; was a variable not set?")
        for path in dict.fromkeys(_expanded(paths)):
            if Path(path).is_dir():
                self._folders.append(path)
            elif os.path.lexists(path):
                self._files.append(path)
            else:
                self._missing.append(path)
        if not self._folders and not self._files:
            raise CannotGoOnError(f"there is no such file or folder: {', '.join(map(printable, self._missing))}")
        self._refuse_duplicates(Naming())
        if self._out is not None:
            for folder in self._folders:
                whole = Path(folder).resolve()
                if any(_identity(p) == self._out for p in (whole, *whole.parents)):
                    raise UsageError(
                        f"the results of {printable(folder)} cannot lie in {printable(str(out))}, which "
                        "is that folder or holds it: results would mix with originals. Choose another folder for -o"
                    )

    @property
    def single_file(self) -> str | None:
        """The one file that was given, if it is all that was given."""
        return self._files[0] if len(self._files) == 1 and not self._folders and not self._missing else None

    def walk(self, naming: Naming, out: Path | None = None, target: str | None = None) -> Iterator[Found]:
        """Find the pictures, lazily, files first and then folder by folder in the order given.

        One folder's content goes right into OUT. Given more paths, each folder's goes into a folder of its name there.

        Args:
            naming: How results are named.
            out: The folder of the results if it exists by now; it is never walked into.
            target: Name of the single file's result, if the user chose it.

        Raises:
            UsageError: Two of the given paths would have one result.
        """
        self._refuse_duplicates(naming)
        skip = _identity(out) if out else None
        names, tops = self._tops()
        targets = [target] if target else naming.targets(names, [*tops, state.NAME])
        for missing in self._missing:
            yield Passed(missing, "NOT_FOUND", "there is no such file or folder", failed=True)
        for file, name in zip(self._files, targets, strict=True):
            yield Item(Path(file), file, name, named=True) if name else _taken(file)
        for index, folder in enumerate(self._folders):
            yield from self._walk(folder, tops[index] + os.sep if tops else "", naming, skip)

    def _tops(self) -> tuple[list[str], list[str]]:
        """The names that the files and the folders have in OUT; a folder that is alone needs none."""
        alone = len(self._folders) == 1 and not self._files
        tops = [] if alone else [Path(folder).resolve().name for folder in self._folders]
        return [Path(file).name for file in self._files], tops

    def _refuse_duplicates(self, naming: Naming) -> None:
        names, tops = self._tops()
        seen: dict[str, str] = {}
        for name, path in [*zip(names, self._files, strict=True), *zip(tops, self._folders, strict=bool(tops))]:
            other = seen.setdefault(naming.key(name), path)
            if other != path:
                raise UsageError(
                    f"{printable(other)} and {printable(path)} would both become {printable(name)} in OUT; "
                    "give them in two runs with two folders for -o"
                )

    def _walk(self, root: str, target: str, naming: Naming, skip: tuple[int, int] | None) -> Iterator[Found]:
        path = Path(root)
        stack = [_Folder(path, root, target, (), _known_above(path.resolve()))]
        while stack:
            folder = stack.pop()
            identity = _identity(folder.path)
            if identity is not None and identity == skip:
                yield Passed(folder.file, "OUTPUT", "it is the folder of the results", failed=False)
                continue
            if identity in folder.ancestors:
                yield Passed(folder.file, "LOOP", "the link leads back to a folder above it", failed=False)
                continue
            try:
                listing = _list(folder, self._follow)
            except OSError as error:
                problem = problem_of(error, folder.path)
                yield Passed(folder.file, problem.reason, f"{problem}; nothing in it was processed", failed=True)
                continue
            yield from listing.others
            targets = naming.targets(listing.pictures, () if folder.target else (state.NAME,))
            for name, result in zip(listing.pictures, targets, strict=True):
                file = _join(folder.file, name)
                yield Item(folder.path / name, file, folder.target + result, named=False) if result else _taken(file)
            ancestors = (*folder.ancestors, identity) if identity is not None and self._follow else ()
            stack.extend(
                _Folder(
                    folder.path / name,
                    _join(folder.file, name),
                    folder.target + name + os.sep,
                    ancestors,
                    tuple((way + name + os.sep, outputs) for way, outputs in listing.known),
                )
                for name in reversed(listing.folders)
            )


@dataclass(frozen=True, slots=True)
class _Listing:
    """A folder's entries, each list sorted."""

    pictures: list[str]
    folders: list[str]
    others: list[Passed]
    known: _Known


def _list(folder: _Folder, follow_links: bool) -> _Listing:
    pictures: list[str] = []
    folders: list[str] = []
    others: list[Passed] = []
    known = folder.known

    def passed(name: str, reason: str, message: str) -> None:
        others.append(Passed(_join(folder.file, name), reason, message, failed=False))

    with os.scandir(folder.path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            elif entry.is_symlink() and (folder.path / entry.name).is_dir():  # entry.is_dir() raises on a loop
                if follow_links:
                    folders.append(entry.name)
                else:
                    passed(entry.name, "LINKED_FOLDER", "it is a link to a folder; --follow-links goes into it")
            elif entry.name == state.NAME:
                known = (*known, ("", state.outputs_in(folder.path)))
                passed(entry.name, "NOT_A_PICTURE", "it says what is done in this folder")
            elif format_of(entry.name) is None:
                passed(entry.name, "NOT_A_PICTURE", "its extension is not that of a picture")
            elif entry.name.startswith("._"):
                passed(entry.name, "NOT_A_PICTURE", "it holds what macOS notes about a file, no picture")
            else:
                pictures.append(entry.name)
    outputs = {name for name in pictures if any(way + name in noted for way, noted in known)} if known else set()
    for name in outputs:
        passed(name, "OUTPUT", "it is the result of an earlier run")
    others.sort(key=lambda other: other.file)
    return _Listing(sorted(set(pictures) - outputs), sorted(folders), others, known)


def _join(folder: str, name: str) -> str:
    return os.path.join(folder, name)  # noqa: PTH118  pathlib would tidy up what the user wrote


def _taken(file: str) -> Passed:
    message = "another picture's result has its name; give it in a run of its own, with another folder for -o"
    return Passed(file, "NAME_TAKEN", message, failed=True)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_dev, info.st_ino


def _expanded(paths: Sequence[str]) -> Iterator[str]:
    for path in paths:
        if glob.has_magic(path) and not os.path.lexists(path):
            matches = sorted(glob.glob(path, recursive=True))  # noqa: PTH207  pathlib has no absolute patterns
            yield from matches or [path]
        else:
            yield path


def _known_above(root: Path) -> _Known:
    """What the state files above a walk's root note."""
    return tuple(
        (str(root.relative_to(parent)) + os.sep, outputs)
        for parent in root.parents
        if (outputs := state.outputs_in(parent))
    )
