"""Where pictures come from and go to: buckets and folders behind one seam.

- `store`: the seam, `ObjectStore`, and what goes through it.
- `opening`: ``open_store(location, StorageSettings) -> ObjectStore`` and ``refuse_overlap(source, destination)``.
- `probe`: ``probe(store, prefix) -> Capabilities``, by real writes.
- `keys`: ``KeyMapping``, a source's key to the key of its output; ``RESERVED``, the prefix of everything else.
- `selection`: ``Selection``, which objects of a listing are meant.
- `headers`: ``HeaderPolicy``, what is kept beside an output.
"""
