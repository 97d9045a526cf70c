"""What the ledger says of a watched job beside its generations: what is asked of who watches it, and how it is.

``DEST/.faceblur/jobs/<job>/watch-mark.json`` has what a person asks for also where no pass is running,
``watch.json`` what the watching process last said of itself.
"""

from __future__ import annotations

import json
from typing import Any

from .errors import NotFound
from .ledger import ROOT, Mark, State, dump_json
from .storage.store import ObjectHeaders, ObjectStore

_JSON = ObjectHeaders(content_type="application/json")


class Watched:
    """See the module."""

    def __init__(self, store: ObjectStore, job: str) -> None:
        """Name the objects; nothing is read or written yet.

        Args:
            store: The job's destination.
            job: Its id.
        """
        self._store = store
        self._prefix = f"{ROOT}{job}/"

    def mark(self) -> Mark:
        """What is asked for.

        Raises:
            StorageError: It cannot be read.
        """
        values = self._get("watch-mark.json")
        return Mark() if values is None else Mark(State(values["state"]), values["reason"])

    def set_mark(self, mark: Mark) -> None:
        """Ask for something.

        Raises:
            StorageError: It cannot be written.
        """
        self._put("watch-mark.json", {"state": mark.state, "reason": mark.reason})

    def noted(self) -> dict[str, Any] | None:
        """How the process is; None: the job is not watched, and was not.

        Raises:
            StorageError: It cannot be read.
        """
        return self._get("watch.json")

    def note(self, values: dict[str, Any]) -> None:
        """Say how the process is.

        Raises:
            StorageError: It cannot be written.
        """
        self._put("watch.json", values)

    def _get(self, name: str) -> dict[str, Any] | None:
        try:
            values: dict[str, Any] = json.loads(self._store.get(self._prefix + name).data)
            return values
        except NotFound:
            return None

    def _put(self, name: str, values: dict[str, Any]) -> None:
        self._store.put(self._prefix + name, dump_json(values), headers=_JSON)
