"""The ledger of a generation: objects under the destination that say what is planned, done and concluded.

docs/adr/0007-batch-ledger.md has the layout, the invariants and what each costs. Here are the names, the formats and
the conditional writes; nothing here decides what is to be done.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from .errors import AlreadyExists, NotFound, ObjectChanged
from .outcomes import Record, Segment
from .storage.keys import RESERVED
from .storage.store import Capabilities, ObjectHeaders, ObjectInfo, ObjectStore

ROOT = RESERVED + "jobs/"
FORMAT = 1
_JSON = ObjectHeaders(content_type="application/json")
_LINES = ObjectHeaders(content_type="application/x-ndjson")
_SEGMENT = re.compile(r"work/(\d{8})/(\d{4,})-(\d{4,})(\.done)?\.jsonl$")


class State(StrEnum):
    """What the mark of a generation asks for."""

    RUN = "run"
    SUSPEND = "suspend"
    CANCEL = "cancel"
    STOP = "stop"
    SUPERSEDED = "superseded"


@dataclass(frozen=True, slots=True)
class Mark:
    """Whether work on a generation goes on, and if not, why."""

    state: State = State.RUN
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """An object of a page.

    Attributes:
        key: In the source.
        etag: When it was listed.
        size: Bytes, when it was listed.
        before: The receipt of the generation before, if nothing has to be done: see `Outcome.as_dict`.
    """

    key: str
    etag: str
    size: int
    before: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """What was planned up to and with a page.

    Attributes:
        objects: That have or need an outcome.
        bytes: Their length.
        unchanged: Of them, those for which nothing has to be done.
        skipped: Objects of the listing that the selection leaves out.
    """

    objects: int = 0
    bytes: int = 0
    unchanged: int = 0
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class PageHead:
    """The first line of a page.

    Attributes:
        page: From 0.
        last: The last key that was looked at, also if it was skipped; the next page begins behind it.
        final: The listing ends here.
        work: Objects of this page that are to be worked on.
        totals: Up to and with this page.
    """

    page: int
    last: str
    final: bool
    work: int
    totals: Totals


@dataclass(frozen=True, slots=True)
class Page:
    """Objects that are worked on together."""

    head: PageHead
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """A segment in a listing."""

    key: str
    page: int
    attempt: int
    number: int
    done: bool
    modified: datetime


class Writer:
    """Conditional writes, as far as a store has them; where it has not, it looks first."""

    def __init__(self, store: ObjectStore, capabilities: Capabilities) -> None:
        self._store = store
        self._can = capabilities

    def create(self, key: str, data: bytes, headers: ObjectHeaders) -> None:
        """Write an object that does not exist.

        Raises:
            AlreadyExists: It does; perhaps this very call wrote it and the answer was lost.
        """
        if self._can.create_only:
            self._store.put(key, data, headers=headers, only_if_absent=True)
            return
        try:
            self._store.head(key)
        except NotFound:
            self._store.put(key, data, headers=headers)
        else:
            raise AlreadyExists(f"{key} exists")

    def replace(self, key: str, data: bytes, headers: ObjectHeaders, etag: str) -> None:
        """Write over an object.

        Raises:
            ObjectChanged: It has another ETag.
        """
        if self._can.replace_if_match:
            self._store.put(key, data, headers=headers, if_match=etag)
        elif self._store.head(key).etag == etag:
            self._store.put(key, data, headers=headers)
        else:
            raise ObjectChanged(f"{key} was changed")


class Ledger:
    """The ledger of one generation of a job; may be used by several threads at once."""

    def __init__(self, store: ObjectStore, job: str, generation: int, capabilities: Capabilities) -> None:
        """Name a ledger; nothing is read or written yet.

        Args:
            store: The job's destination.
            job: Its id.
            generation: From 1.
            capabilities: Of the store.
        """
        self.store = store
        self.job = job
        self.generation = generation
        self.prefix = f"{ROOT}{job}/{generation:08d}/"
        self.writer = Writer(store, capabilities)

    # Pages

    def create_page(self, page: Page) -> Page:
        """Write a page, unless there is one with its number already; return the one that holds."""
        head = page.head
        lines: list[dict[str, Any]] = [{"format": FORMAT, **_plain(head)}]
        for entry in page.entries:
            line: dict[str, Any] = {"key": entry.key, "etag": entry.etag, "size": entry.size}
            lines.append(line if entry.before is None else line | {"before": entry.before})
        try:
            self.writer.create(self._page(head.page), dump_lines(lines), _LINES)
        except AlreadyExists:
            return self.page(head.page)
        return page

    def page(self, number: int) -> Page:
        """Read a page.

        Raises:
            NotFound: It is not planned.
        """
        head, *lines = load_lines(self.store.get(self._page(number)).data)
        totals = Totals(**head["totals"])
        entries = tuple(Entry(line["key"], line["etag"], line["size"], line.get("before")) for line in lines)
        return Page(PageHead(head["page"], head["last"], head["final"], head["work"], totals), entries)

    def last_page(self) -> Page | None:
        """The page that was planned last."""
        found: ObjectInfo | None = None
        for found in self.store.list(self.prefix + "pages/"):  # noqa: B007  the last one is wanted
            pass
        return None if found is None else self.page(int(found.key.rpartition("/")[2].split(".")[0]))

    # The log of a page

    def claim(self, page: int) -> Attempt | None:
        """Begin an attempt at a page; None if every object of it has an outcome.

        What is about to be tried is thereby said: all of it, unless the attempt announces something else.
        """
        number, who = 1, uuid.uuid4().hex
        seen: list[SegmentInfo] = []
        while True:
            attempt = Attempt(self, page, number, tuple(seen))
            try:
                attempt.begin(who)
            except AlreadyExists:
                seen = list(self.segments(page))
                if any(segment.done for segment in seen):
                    return None
                own = [s for s in seen if (s.attempt, s.number) == (number, 0)]
                if own and self.read(own[0]).records[0].get("who") == who:  # the answer to the write was lost
                    return Attempt(self, page, number, tuple(s for s in seen if s not in own), begun=True)
                number = max((segment.attempt for segment in seen), default=0) + 1
            else:
                return attempt

    def segments(self, page: int | None = None, *, behind: int | None = None) -> Iterator[SegmentInfo]:
        """The log of a page, or the logs of all pages behind one, page after page."""
        prefix = f"{self.prefix}work/" + ("" if page is None else f"{page:08d}/")
        after = None if behind is None else f"{self.prefix}work/{behind:08d}0"  # "0" sorts right behind "/"
        return (segment for info in self.store.list(prefix, after=after) if (segment := _segment_of(info)))

    def read(self, segment: SegmentInfo) -> Segment:
        """Read a segment."""
        records = tuple(load_lines(self.store.get(segment.key).data))
        return Segment(segment.attempt, segment.number, segment.modified, records)

    # Everything else

    def mark(self) -> Mark:
        """What is asked for now."""
        try:
            values = json.loads(self.store.get(self.prefix + "mark.json").data)
        except NotFound:
            return Mark()
        return Mark(State(values["state"]), values["reason"])

    def set_mark(self, mark: Mark) -> None:
        """Ask for something."""
        self.put("mark.json", dump_json({"state": mark.state, "reason": mark.reason}))

    def create(self, name: str, data: bytes) -> None:
        """Write an object of the generation that does not exist.

        Raises:
            AlreadyExists: It does.
        """
        self.writer.create(self.prefix + name, data, _JSON)

    def put(self, name: str, data: bytes, headers: ObjectHeaders = _JSON) -> None:
        """Write an object of the generation, or write it over."""
        self.store.put(self.prefix + name, data, headers=headers)

    def get(self, name: str) -> bytes | None:
        """Read an object of the generation; None: there is none."""
        try:
            return self.store.get(self.prefix + name).data
        except NotFound:
            return None

    def _page(self, number: int) -> str:
        return f"{self.prefix}pages/{number:08d}.jsonl"


class Attempt:
    """One attempt at a page, and its part of the page's log."""

    def __init__(
        self, ledger: Ledger, page: int, number: int, earlier: Sequence[SegmentInfo], *, begun: bool = False
    ) -> None:
        self.number = number
        self.earlier = earlier
        self._ledger = ledger
        self._page = page
        self._next = int(begun)

    def begin(self, who: str) -> None:
        """Write the first segment.

        Raises:
            AlreadyExists: There is an attempt with this number.
        """
        self._write([{"who": who, "try": "all"}])

    def begun(self) -> datetime:
        """When the attempt began, by the store's clock."""
        return self._ledger.store.head(self._key(0, done=False)).modified

    def append(self, records: Iterable[Record], *, done: bool = False) -> None:
        """Write a segment.

        Args:
            records: May be none: a sign of life.
            done: Now every object of the page has an outcome.
        """
        try:
            self._write(records, done=done)
        except AlreadyExists:
            self._next += 1  # nobody else has this attempt's number: it is what was just written, its answer was lost

    def finish(self, records: Iterable[Record], summary: dict[str, Any]) -> None:
        """Write the last segment: every object of the page has an outcome, and this is what they come to."""
        self.append([*records, {"summary": summary}, {"end": "done"}], done=True)

    def _write(self, records: Iterable[Record], *, done: bool = False) -> None:
        self._ledger.writer.create(self._key(self._next, done=done), dump_lines(records), _LINES)
        self._next += 1

    def _key(self, number: int, *, done: bool) -> str:
        name = f"{self.number:04d}-{number:04d}{'.done' if done else ''}.jsonl"
        return f"{self._ledger.prefix}work/{self._page:08d}/{name}"


def generations(store: ObjectStore, job: str) -> Iterator[int]:
    """Numbers of a job's generations, ascending, without listing what is in them."""
    prefix, after = f"{ROOT}{job}/", None
    while True:
        info = next(iter(store.list(prefix, after=after)), None)
        if info is None:
            return
        name = info.key[len(prefix) :].partition("/")[0]
        if name.isdecimal():
            yield int(name)
        after = f"{prefix}{name}0"  # "0" sorts right behind "/": everything of that generation is passed over


def last_generation(store: ObjectStore, job: str) -> int | None:
    """The highest number of a job's generations, found in few requests, however many there are."""

    def behind(number: int) -> int | None:
        prefix = f"{ROOT}{job}/"
        info = next(iter(store.list(prefix, after=f"{prefix}{number:08d}0")), None)
        name = info.key[len(prefix) :].partition("/")[0] if info else ""
        return int(name) if name.isdecimal() else None

    last, step = behind(0), 1
    growing = True
    while last is not None and step:
        found = behind(last + step - 1)
        growing = growing and found is not None
        last, step = found or last, step * 2 if growing else step // 2
    return last


def jobs(store: ObjectStore) -> Iterator[str]:
    """Ids of the jobs that have a ledger in a destination."""
    after = None
    while True:
        info = next(iter(store.list(ROOT, after=after)), None)
        if info is None:
            return
        name = info.key[len(ROOT) :].partition("/")[0]
        yield name
        after = f"{ROOT}{name}0"


def dump_json(value: Any) -> bytes:
    """One JSON value, always in the same words."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def dump_lines(values: Iterable[Any]) -> bytes:
    """JSON lines."""
    return b"".join(dump_json(value) + b"\n" for value in values)


def load_lines(data: bytes) -> list[Any]:
    """The values of JSON lines."""
    return [json.loads(line) for line in data.splitlines()]


def with_page(totals: Totals, *, entries: Sequence[Entry], skipped: int) -> Totals:
    """Totals up to and with a page that follows."""
    return replace(
        totals,
        objects=totals.objects + len(entries),
        bytes=totals.bytes + sum(entry.size for entry in entries),
        unchanged=totals.unchanged + sum(entry.before is not None for entry in entries),
        skipped=totals.skipped + skipped,
    )


def _plain(head: PageHead) -> dict[str, Any]:
    totals = {name: getattr(head.totals, name) for name in Totals.__slots__}
    return {"page": head.page, "last": head.last, "final": head.final, "work": head.work, "totals": totals}


def _segment_of(info: ObjectInfo) -> SegmentInfo | None:
    match = _SEGMENT.search(info.key)
    if match is None:
        return None
    page, attempt, number = (int(match[i]) for i in (1, 2, 3))
    return SegmentInfo(info.key, page, attempt, number, match[4] is not None, info.modified)
