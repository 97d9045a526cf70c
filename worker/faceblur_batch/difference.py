"""What of a source is to be done, found without beginning a generation: by listing it, or by looking at some keys."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from .errors import KeyRefused, NotFound, StorageError, TransientStorageError
from .generation import Generation
from .job import JobSpec
from .planner import Before
from .storage.store import ObjectInfo, ObjectStore

_AT_ONCE = 16
_CHUNK = 256


@dataclass(slots=True)
class Found:
    """What is to be done.

    Attributes:
        objects: That are meant and there.
        gone: Keys at which there is nothing.
        unseen: Keys of which the store does not say whether there is something.
    """

    objects: list[ObjectInfo] = field(default_factory=list)
    gone: int = 0
    unseen: int = 0


def missing(
    generation: Generation, source: ObjectStore, destination: ObjectStore, most: int, beat: Callable[[], object]
) -> Found | None:
    """Compare a source with what the ledger says of it.

    Args:
        generation: The next one, over the whole source.
        source: Is listed.
        destination: Has the ledgers.
        most: Objects that are found at most.
        beat: Called now and then.

    Returns:
        None: there are more.

    Raises:
        StorageError: The source or a ledger cannot be read.
    """
    found, before = Found(), Before(destination, generation)
    for number, info in enumerate(generation.objects(source)):
        if number % _CHUNK == 0:
            beat()
        if generation.selects(info) and not before.leaves(info):
            if len(found.objects) == most:
                return None
            found.objects.append(info)
    return found


def look_at(spec: JobSpec, source: ObjectStore, keys: Collection[str], beat: Callable[[], object]) -> Found:
    """Ask for ETag and size of objects, several at once.

    Args:
        spec: Says which are meant.
        source: Has them.
        keys: Of objects that may be there.
        beat: Called now and then.

    Raises:
        TransientStorageError: The source does not answer.
    """

    def head(key: str) -> ObjectInfo | StorageError:
        try:
            return source.head(key)
        except TransientStorageError:
            raise
        except StorageError as error:
            return error

    found, waiting = Found(), sorted(keys)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for start in range(0, len(waiting), _CHUNK):
            beat()
            for answer in pool.map(head, waiting[start : start + _CHUNK]):
                if isinstance(answer, NotFound | KeyRefused):
                    found.gone += 1
                elif isinstance(answer, StorageError):
                    found.unseen += 1
                elif answer in spec.selection:
                    found.objects.append(answer)
    return found
