"""ObjectStore in a directory: each key is the plain file `<root>/<key>` that a person opens.

What a put does, under the lock of its key, and why in this order (Pillai et al. 2014, "All file systems are
not created equal"): write a temporary file beside the target, fsync it, rename it over the target, fsync the
directory. A crash at any point leaves the old document or the new one, and a reader needs no lock.

The version is the file's own modification time in ns. Every put sets it, always above the one before, so an
editor's save is a new version too, and nothing has to be kept beside the documents. The locks are 64 files
under `<root>/.locks`, shared by all keys; flock frees them when their process dies.

A change of some members costs one sync: it is appended to a journal beside the file (`journal.py`), and a second
later folded into that. Until then the version is that of the last record; the fold gives the file this very
modification time, so that nobody notices. A journal does not go for a file of any other time: then it was put
anew, or saved by hand. No record is taken out of a journal, which goes when its object is put, deleted, or
outgrown by it: so a reader who has opened the journal first, and then the file, needs no lock either.

What is created together, as a run and its marker, costs one sync: of a log (`creations.py`), by which its files are
made anew if a power cut takes them; they are synced some seconds later.

Of a folder of very many files, as `runs/` may be, the names are kept in a file of their own (`names.py`), in which a
listing finds what it is asked for without reading the folder.

Names that start with a dot are the store's own and no keys. As in any directory, no key can be a folder of
another (`a` and `a/b`), and where the file system takes `A` and `a` for one name, they are one key.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from weakref import WeakSet

from orchestrator.model.errors import StoreUnavailable, VersionConflict
from orchestrator.stores.creations import MOST_BYTES
from orchestrator.stores.disk import Disk, unavailable
from orchestrator.stores.files import modified_ns, temporary_in
from orchestrator.stores.folding import LARGE_BYTES, Folder
from orchestrator.stores.journal import Members, merge
from orchestrator.stores.key_locks import KeyLocks
from orchestrator.stores.keys import check_key
from orchestrator.stores.objects import Objects
from orchestrator.stores.sweeping import sweep
from orchestrator.stores.together import Together
from orchestrator.stores.walking import walk

_SETTLING = ""
"""What stands in the folder's list for the log of what was created. No key is empty."""
_SETTLED_LATEST = 5 * LARGE_BYTES
"""Five times as late as a small file is folded: most runs have ended then, and their markers are gone."""


class LocalStore:
    """A directory as bucket, for many threads and many processes of one machine.

    Nothing is created before the first put, so a directory that can only be read can still be listed.

    Args:
        root: the directory; made when it is first needed.
        relaxed: prefixes of keys that are written atomically but not synced to disk: they survive the
            death of the process, and after a power cut they can be rebuilt. Who shares a directory must agree on it.
        indexed: folders, each ending in /, that are listed from their names as they are kept (`names.py`).
        now_ns: the time in ns since the epoch, which new versions follow where they can.
    """

    root: Path
    """The directory, absolute."""

    def __init__(
        self,
        root: Path,
        *,
        relaxed: tuple[str, ...] = ("executions/",),
        indexed: tuple[str, ...] = ("runs/",),
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._root = os.path.abspath(root)
        self.root = Path(self._root)
        self._now_ns = now_ns
        self._disk = Disk(self._root, now_ns, indexed)
        self._locks = KeyLocks(self._disk, relaxed)
        self._begin()
        _stores.add(self)

    def _begin(self) -> None:
        self._folder = Folder(self._fold)
        self._objects = Objects(self._disk, self._locks, self._folder)
        self._together = Together(self._disk, self._locks, self._objects)

    @property
    def fsyncs(self) -> int:
        """How often this instance has made the disk write, so far."""
        return self._disk.fsyncs

    @property
    def writes(self) -> int:
        """How many objects, and changes to objects, this instance has written, so far."""
        return self._disk.writes

    @property
    def bytes_written(self) -> int:
        """How many bytes in them."""
        return self._disk.bytes_written

    def ensure_writable(self) -> None:
        """Make the root if it is missing and write to it once, before a run relies on it.

        Also removes what killed writers left behind, about once a day.

        Raises:
            StoreUnavailable: it cannot be created or written, or is full.
        """
        self._together.is_recovered = False
        self._together.recover()
        probe = temporary_in(self._root)
        try:
            self._disk.directory(self._root)
            fd = self._disk.create(probe, sync=True)
            try:
                os.write(fd, b"\n")
            finally:
                os.close(fd)
                os.unlink(probe)
            sweep(self._disk, self._locks, self._objects, self._now_ns())
        except OSError as exc:
            raise unavailable(self._root, "written", exc) from exc

    def get(self, key: str) -> tuple[bytes, str] | None:
        """Return (content, version), or None if there is no such key. Takes no lock, unless a sync has failed."""
        check_key(key)
        self._together.recover()
        path = f"{self._root}/{key}"
        self._objects.make_certain(key, path)
        try:
            document, version, changes = self._objects.read(path)
        except OSError as exc:
            if self._disk.is_absence(exc):
                return None
            raise unavailable(path, "read", exc) from exc
        if changes:
            return merge(key, document, [each.members for each in changes]), str(changes[-1].version)
        return document, str(version)

    def put(self, key: str, data: bytes, *, expect: str | None) -> str:
        """Write iff the stored version is `expect` (None = must not exist); return the new version.

        Raises:
            VersionConflict: the stored version is another one; nothing was written.
            StoreUnavailable: the content is as before, or the new one if only the very last sync failed.
        """
        check_key(key)
        self._together.recover()
        path = f"{self._root}/{key}"
        self._objects.make_certain(key, path)  # who is told that it is there relies on that, too
        try:
            with self._locks.of(key) as floor_ns:
                before = modified_ns(path)
                journal = self._objects.journal_of(path, before) if before is not None else None
                version = journal.version if journal is not None else before
                found = None if version is None else str(version)
                if found != expect:
                    raise VersionConflict(f"{key}: version is {found}; expected {expect}")
                return str(self._objects.write(key, data, floor_ns if version is None else version, journal))
        except OSError as exc:
            raise unavailable(path, "written", exc) from exc

    def change(self, key: str, members: Members, *, expect: str) -> str:
        """Replace or add members of a JSON object iff its version is `expect`; return the new version.

        Args:
            members: name -> JSON. What is replaced stays in its place, what is new comes behind.
        Raises:
            VersionConflict: the stored version is another one, or there is none; nothing was written.
            ValueError: what is stored is no JSON object.
            StoreUnavailable: the content is as before, or the new one if only a last sync failed.
        """
        check_key(key)
        self._together.recover()
        path = f"{self._root}/{key}"
        try:
            with self._locks.of(key):
                document_ns = modified_ns(path)
                if document_ns is None:
                    raise VersionConflict(f"{key}: version is None; expected {expect}")
                journal = self._objects.journal_of(path, document_ns)
                before = journal.version if journal is not None else document_ns
                if str(before) != expect:
                    raise VersionConflict(f"{key}: version is {before}; expected {expect}")
                is_durable = self._together.log.is_durable(key, document_ns)
                return str(self._objects.change(key, members, document_ns, journal, is_durable=is_durable))
        except OSError as exc:
            raise unavailable(path, "written", exc) from exc

    def create_all(self, objects: Mapping[str, bytes]) -> dict[str, str]:
        """Write objects none of which may exist yet; return their versions. All are durable when this returns.

        Small ones cost one sync together, of the log of what was created; their own files are synced later.

        Raises:
            VersionConflict: one of them exists. None was written, or, of large ones, those before it.
            StoreUnavailable: as of `put`; some may have been written.
        """
        for key in objects:
            check_key(key)
        self._together.recover()
        is_small = sum(map(len, objects.values())) <= MOST_BYTES
        if is_small and not any(map(self._locks.is_relaxed, objects)):
            try:
                created = self._together.create(objects)
            except OSError as exc:
                raise unavailable(f"{self._root}/{next(iter(objects))}", "written", exc) from exc
            if created is not None:
                self._folder.note(_SETTLING, _SETTLED_LATEST)
                return created
        return {key: self.put(key, data, expect=None) for key, data in objects.items()}

    def fold(self) -> None:
        """Have all that this instance has changed stand in the files that people open."""
        self._folder.fold_all()
        with suppress(OSError):  # else who opens the directory next sees to it
            self._together.log.end()

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[str]:
        """Yield the keys that start with `prefix` and are > `start_after`, sorted.

        It reads only folders that can hold such keys, each when its turn comes; of indexed ones, only what it yields.
        """
        self._together.recover()
        yield from walk(self._disk, prefix, start_after)

    def written_at(self, key: str) -> float | None:
        """Return when the file of a key was written last, in seconds since the epoch; None if that cannot be told."""
        check_key(key)
        try:
            return os.stat(f"{self._root}/{key}").st_mtime
        except OSError:
            return None

    def delete(self, key: str) -> None:
        """Remove a key; it is no error if there is none. Its folder stays."""
        check_key(key)
        self._together.recover()
        path = f"{self._root}/{key}"
        try:
            if modified_ns(path) is None:
                return  # without a lock, which would make the root
            lock = self._locks.of(key)
            with lock as floor_ns:
                before = modified_ns(path)
                if before is None:
                    return
                journal = self._objects.journal_of(path, before)
                version = before if journal is None else journal.version
                lock.raise_floor(max(floor_ns, version))
                if self._together.log.has(key):
                    with self._together.removing(key, version):
                        self._objects.remove(key, journal)
                    self._folder.note(_SETTLING, _SETTLED_LATEST)
                    return
                self._objects.remove(key, journal)
                if not self._locks.is_relaxed(key):
                    self._disk.sync_directory(os.path.dirname(path))
        except OSError as exc:
            if not self._disk.is_absence(exc):
                raise unavailable(path, "deleted", exc) from exc

    def _fold(self, key: str) -> bool:
        """Bring what has changed of a key, or was created, where it belongs; whether that has to be tried again."""
        if key != _SETTLING:
            return self._objects.fold(key)
        try:
            return self._together.settle()
        except (OSError, StoreUnavailable):
            return True

    def _after_fork(self) -> None:
        self._disk.after_fork()
        self._begin()


_stores = WeakSet[LocalStore]()


def _after_fork_in_child() -> None:
    for store in _stores:
        store._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
