"""ObjectStore in a dict: the tests' default and the simulation's disk."""

from collections.abc import Iterator
from threading import Lock

from orchestrator.model.errors import VersionConflict
from orchestrator.stores.journal import Members, lines, lines_of, of_lines
from orchestrator.stores.keys import check_key


class MemoryStore:
    """Everything is lost with the process; nothing else differs from a bucket.

    Versions are numbered through over all keys, so that a key that comes back never gets an old one.
    """

    def __init__(self) -> None:
        self._lock, self._objects, self._writes = Lock(), dict[str, tuple[bytes, str]](), 0
        self._lines = dict[str, tuple[str, dict[str, bytes]]]()
        """Key -> (version, its lines) as it was changed last: to read them anew each time costs more than the rest."""

    def get(self, key: str) -> tuple[bytes, str] | None:
        """Return (content, version), or None if there is no such key."""
        check_key(key)
        return self._objects.get(key)

    def put(self, key: str, data: bytes, *, expect: str | None) -> str:
        """Write iff the stored version is `expect` (None = absent), else VersionConflict; return the new."""
        check_key(key)
        with self._lock:
            found = self._objects.get(key, (b"", None))[1]
            if found != expect:
                raise VersionConflict(f"{key}: version is {found}; expected {expect}")
            self._writes += 1
            version = str(self._writes)
            self._objects[key] = (data, version)
            return version

    def change(self, key: str, members: Members, *, expect: str) -> str:
        """Replace or add members of a JSON object iff its version is `expect`, by a `put` of the whole."""
        found = self.get(key)
        if found is None or found[1] != expect:
            raise VersionConflict(f"{key}: version is {found[1] if found else None}; expected {expect}")
        known = self._lines.get(key)
        before = known[1] if known is not None and known[0] == expect else lines_of(key, found[0])
        after = {**before, **lines(members)}
        version = self.put(key, of_lines(after), expect=expect)
        self._lines[key] = version, after
        return version

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[str]:
        """Yield the keys that start with `prefix` and are > `start_after`, sorted, as they are now."""
        with self._lock:
            return iter(sorted(k for k in self._objects if k > start_after and k.startswith(prefix)))

    def delete(self, key: str) -> None:
        """Remove a key; it is no error if there is none."""
        check_key(key)
        with self._lock:
            self._objects.pop(key, None)
            self._lines.pop(key, None)
