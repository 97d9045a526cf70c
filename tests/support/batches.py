"""A batch in one process: memory stores, a queue that is a list, a stand-in for the workers, and what has to hold."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import faceblur
from faceblur.testing import MODEL
from faceblur_batch.generation import Generation, begin
from faceblur_batch.job import JobSpec
from faceblur_batch.ledger import Ledger
from faceblur_batch.manifest import part_name, verify
from faceblur_batch.outcomes import WRITTEN
from faceblur_batch.page import Pace, PageInTrouble, PageLeft, Workplace, work_on
from faceblur_batch.planner import ENDED, Phase, Planner, Watch
from faceblur_batch.storage.store import Capabilities, ObjectInfo

from .memory_store import EVERYTHING, START, Clock, Hook, MemoryStore

T = TypeVar("T")
PIXELS = b"\x89PNG\r\n\x1a\n picture "
RESULT = b"obscured "


def is_log(key: str) -> bool:
    """Whether an object of the ledger is of a page's log."""
    return "work" in key.split("/")[1:-1]


class Crash(BaseException):
    """The process is gone. No `Exception`: nothing may catch it."""


def result_of(image: bytes) -> bytes:
    return RESULT + hashlib.sha256(image).hexdigest().encode()


@dataclass
class Blurrer:
    """Stands in for `faceblur.FaceBlurClient`, one picture at a time.

    Attributes:
        errors: Picture content to the errors of its next calls; the last one stays.
        hook: Called with each picture.
        calls: What was asked for, by content.
        alone: Content of pictures that were asked for by themselves.
    """

    errors: dict[bytes, list[Exception]] = field(default_factory=dict)
    hook: Callable[[bytes], None] = lambda image: None
    calls: Counter[bytes] = field(default_factory=Counter)
    version: str = "1.0"
    models: tuple[faceblur.ModelInfo, ...] = (MODEL,)
    down: bool = False

    def blur_many(
        self,
        sources: Iterable[Any],
        options: faceblur.Options | None = None,
        *,
        concurrency: int = 8,
        timeout: float | None = None,
    ) -> Iterator[faceblur.Outcome[Any]]:
        for index, source in enumerate(sources):
            try:
                result = self._blur(source.read(), options or faceblur.Options())
                yield faceblur.Outcome(index=index, source=source, result=result)
            except (faceblur.FaceBlurError, OSError) as error:
                yield faceblur.Outcome(index=index, source=source, error=error)

    def info(self, *, timeout: float | None = None) -> faceblur.ServerInfo:
        if self.down:
            raise faceblur.UnavailableError("no worker")
        return faceblur.ServerInfo(
            version=self.version,
            profiles=tuple(faceblur.Profile),
            methods=tuple(faceblur.Method),
            models=self.models,
            defaults=faceblur.Options(profile=faceblur.Profile.BALANCED, limits=faceblur.Limits(max_bytes=1 << 20)),
            max_message_bytes=1 << 24,
            concurrency=4,
            input_formats=(faceblur.Format.PNG,),
        )

    def _blur(self, image: bytes, options: faceblur.Options) -> faceblur.BlurResult:
        if self.down:
            raise faceblur.UnavailableError("no worker")
        self.calls[image] += 1
        self.hook(image)
        if errors := self.errors.get(image):
            raise errors.pop(0) if len(errors) > 1 else errors[0]
        output = result_of(image)
        face = faceblur.Face(faceblur.Box(1, 2, 3, 4), 0.9, MODEL.name)
        return faceblur.BlurResult(
            output,
            faceblur.Receipt(
                version=self.version,
                input_sha256=hashlib.sha256(image).hexdigest(),
                output_sha256=hashlib.sha256(output).hexdigest(),
                input_bytes=len(image),
                output_bytes=len(output),
                format=faceblur.Format.PNG,
                output_format=faceblur.Format.PNG,
                width=8,
                height=8,
                faces=() if b"empty" in image else (face,),
                regions=(),
                models=self.models,
                options=options,
                milliseconds={"total": 12.0},
            ),
        )


class _WorkerDied(Exception):
    """The batch worker died, not the planner."""


class Serial(Executor):
    """Does at once what it is given, so that a test always goes the same way."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class ListQueue:
    """A broker that forgets, doubles and reorders as a test likes."""

    def __init__(self) -> None:
        self.pages: list[int] = []
        self.most = 0
        self.published: Counter[int] = Counter()

    def publish(self, page: int) -> None:
        self.published[page] += 1
        self.pages.append(page)
        self.most = max(self.most, len(self.pages))

    def waiting(self) -> int | None:
        return len(self.pages)


class Batch:
    """A job on memory stores. Everything but the stores can be thrown away at any time: `die`."""

    def __init__(self, count: int = 0, *, capabilities: Capabilities = EVERYTHING, **spec: Any) -> None:
        clock = Clock()
        self.source = MemoryStore("source", clock=clock)
        self.destination = MemoryStore("destination", capabilities, clock=clock)
        self.spec = JobSpec(
            **{"source": "s3://source", "destination": "s3://destination", "page_size": 4, "parallelism": 2, **spec}
        )
        self.blurrer = Blurrer()
        self.seconds = 0.0
        self.queue = ListQueue()
        self.pace = Pace(concurrency=1, flush_objects=3, pause=0.001)
        self.planner: Planner | None = None
        self.generation: Generation
        self.ledger: Ledger
        for number in range(count):
            self.add(f"folder/{number:04d}.png")

    def add(self, key: str, content: bytes | None = None) -> bytes:
        image = PIXELS + key.encode(errors="replace") if content is None else content
        self.source.put(key, image)
        return image

    def hook(self, hook: Hook) -> None:
        self.source.hook = self.destination.hook = hook

    def die(self) -> None:
        """Lose everything that is not in a store."""
        self.planner = None
        self.queue = ListQueue()
        self.hook(lambda operation, done: None)

    def start(self, *, resume: bool = False, named: Sequence[ObjectInfo] | None = None, **spec: Any) -> Planner:
        self.spec = self.spec.model_copy(update=spec)
        now = START + timedelta(seconds=self.seconds)
        self.generation, self.ledger = begin(
            self.spec, self.destination, self.blurrer.info(), self.destination.can, now, resume=resume, named=named
        )
        self.planner = Planner(
            self.generation,
            self.ledger,
            self.source,
            self.queue,
            spec=self.spec,
            watch=Watch(poll=1.0, stall=50.0),
            monotonic=lambda: self.seconds,
            now=lambda: START + timedelta(seconds=self.seconds),
        )
        return self.planner

    def workplace(self) -> Workplace:
        return Workplace(
            generation=self.generation,
            ledger=self.ledger,
            source=self.source,
            client=self.blurrer,
            pace=self.pace,
            mark=self.ledger.mark,
            sleep=lambda seconds: None,
            threads=lambda count: Serial(),
        )

    def work_one(self) -> None:
        """What a batch worker does with the next task, which is handed out again if it dies."""
        page = self.queue.pages.pop(0)
        try:
            work_on(self.workplace(), page)
        except PageLeft:
            pass
        except (Crash, PageInTrouble):
            self.queue.pages.append(page)
            raise

    def run(self, steps: int = 10_000) -> Phase:
        """Planner and one batch worker in turn, until the generation has ended."""
        try:
            planner = self.planner or self.start()
            for _ in range(steps):
                self.seconds += max(planner.step(), 0.01)
                if planner.status().phase in ENDED:
                    return planner.status().phase
                if self.queue.pages:
                    with contextlib.suppress(PageInTrouble):
                        self._work_one_as_another()
        except Crash:
            self.planner = None  # it was the planner that died
            raise
        except _WorkerDied as died:
            raise Crash from died
        raise AssertionError("the job does not end")

    def _work_one_as_another(self) -> None:
        try:
            self.work_one()
        except Crash as crash:
            raise _WorkerDied from crash

    # What has to hold

    def receipts(self, generation: int | None = None) -> dict[str, dict[str, Any]]:
        """The lines of the manifest, by key; none is there twice."""
        ledger = self.ledger if generation is None else Ledger(self.destination, self.spec.id, generation, EVERYTHING)
        lines, number = [], 0
        while (data := ledger.get(part_name(number))) is not None:
            lines += [json.loads(line) for line in data.splitlines()]
            number += 1
        receipts = [line for line in lines if "key" in line]
        assert len({line["key"] for line in receipts}) == len(receipts), "an object has two outcomes"
        return {line["key"]: line for line in receipts}

    def outcomes(self) -> Counter[str]:
        return Counter(line["kind"] for line in self.receipts().values())

    def outputs(self) -> dict[str, bytes]:
        return {
            key: stored.data for key, stored in self.destination.objects.items() if not key.startswith(".faceblur/")
        }

    def assert_sound(self, folder: Path) -> None:
        """Every input has one outcome, the manifest verifies, and at the outputs' keys is what belongs there."""
        receipts = self.receipts()
        inputs = {key: stored.data for key, stored in self.source.objects.items()}
        assert receipts.keys() == inputs.keys()
        parts, number = [], 0
        while (data := self.ledger.get(part_name(number))) is not None:
            parts.append(folder / part_name(number))
            parts[-1].write_bytes(data)
            number += 1
        root = json.loads(self.ledger.get("root.json") or b"")
        verification = verify(parts, root)
        assert verification.intact, verification.problem
        assert root["summary"]["objects"] == len(inputs)
        written = {key for key, line in receipts.items() if line["kind"] in WRITTEN}
        outputs = self.outputs()
        assert outputs.keys() == {receipts[key]["output"] for key in written}
        for key in written:
            output = outputs[receipts[key]["output"]]
            assert output == result_of(inputs[key])
            assert receipts[key]["output_sha256"] == hashlib.sha256(output).hexdigest()
            assert receipts[key]["input_sha256"] == hashlib.sha256(inputs[key]).hexdigest()
        assert not set(outputs.values()) & set(inputs.values()), "an original is at an output's key"


class CrashAt:
    """A hook that kills at one request, and keeps everything dead until it is taken away."""

    def __init__(self, at: int, *, after: bool) -> None:
        self._at, self._after = at, after
        self._lock = threading.Lock()
        self.seen = 0
        self.dead = False

    def __call__(self, operation: Any, done: bool) -> None:
        with self._lock:
            if self.dead:
                raise Crash
            if done is self._after:
                self.seen += 1
                if self.seen == self._at:
                    self.dead = True
                    raise Crash
