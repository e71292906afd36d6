"""The objects of a directory: of each its file, its journal, and what of both may not be on disk.

All but reading is done under the lock of the key, where nothing else is said.
"""

import os
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from orchestrator.stores.disk import Disk, unavailable
from orchestrator.stores.files import modified_ns, read_all, temporary_in
from orchestrator.stores.folding import Folder
from orchestrator.stores.journal import Members, Record, check_document, encode, merge, record, records, since
from orchestrator.stores.journal_files import JournalFile, JournalFiles, journal_path
from orchestrator.stores.key_locks import KeyLocks

_OPEN_JOURNALS = max(16, min(512, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 8))
_MOST_SYNCED = 4096
_SMALL = 256 * 1024
"""A journal of so many bytes is read at once, however small its object is."""
_READ = os.O_RDONLY | os.O_CLOEXEC


class Objects:
    """Reads and writes one object at a time.

    Args:
        folder: is told of what is to be folded.

    Attributes:
        suspect: paths where a sync has failed: what stands there may be lost.
    """

    def __init__(self, disk: Disk, locks: KeyLocks, folder: Folder) -> None:
        self._disk, self._locks, self._folder = disk, locks, folder
        self._journals = JournalFiles(disk, _OPEN_JOURNALS)
        self.suspect = set[str]()
        self._synced = dict[str, int]()  # path -> time of the file that this instance has synced last

    def path(self, key: str) -> str:
        """Where the file of a key lies."""
        return f"{self._disk.root}/{key}"

    def journal_of(self, path: str, document_ns: int) -> JournalFile | None:
        """Return the journal of the object whose file has this modification time, if it has one."""
        return self._journals.find(path, document_ns)

    def read(self, path: str) -> tuple[bytes, int, Sequence[Record]]:
        """Return a file's content and modification time, and what its journal has beyond that. Takes no lock."""
        return self._read_from(path)[:3]

    def _read_from(self, path: str) -> tuple[bytes, int, Sequence[Record], int]:
        """As `read`, and from where on the journal was read.

        The journal is opened first: whatever is written meanwhile, this is how the object was at some time since.
        """
        journal_fd, where = -1, journal_path(path)
        if where is not None:
            with suppress(FileNotFoundError, NotADirectoryError):
                journal_fd = os.open(where, _READ)
        try:
            fd = os.open(path, _READ)
            try:
                found = os.fstat(fd)  # of this very content: a put makes a new file, it never changes one
                data = os.read(fd, found.st_size)
                while len(data) < found.st_size and (more := os.read(fd, found.st_size - len(data))):
                    data += more
            finally:
                os.close(fd)
            begin = self._journals.folded_of(path, found.st_mtime_ns)
            changes = since(found.st_mtime_ns, records(read_all(journal_fd, begin))) if journal_fd >= 0 else []
        finally:
            if journal_fd >= 0:
                os.close(journal_fd)
        return data, found.st_mtime_ns, changes, begin

    def write(self, key: str, data: bytes, above_ns: int, journal: JournalFile | None) -> int:
        """Write a whole object; its journal is void then. Return the new version, above another one."""
        path, sync = self.path(key), not self._locks.is_relaxed(key)
        version = self._disk.replace(path, data, above_ns, sync=sync)
        if sync:
            with self.doubting(path):
                self._disk.sync_directory(path[: path.rfind("/")])
        self.suspect.discard(path)
        self._drop_journal(key, path, journal)
        if sync:
            if len(self._synced) >= _MOST_SYNCED:
                self._synced.clear()
            self._synced[path] = version
        return version

    def change(
        self, key: str, members: Members, document_ns: int, journal: JournalFile | None, *, is_durable: bool
    ) -> int:
        """Replace or add members of an object, by a record of its journal where that pays; return the new version.

        Args:
            document_ns: the time of its file.
            journal: its journal, if it has one.
            is_durable: whether the file is known to be on disk.
        """
        path, version = self.path(key), document_ns if journal is None else journal.version
        if journal is None:
            journal = self._begin_journal(key, path, document_ns, is_durable)
        after = self._disk.later_than(version)
        line = record(version, after, members)
        if journal is None or journal.size + len(line) > max(journal.document_size, _SMALL) or path in self.suspect:
            document, _, changes = self.read(path)
            data = merge(key, document, [*(each.members for each in changes), encode(members)])
            return self.write(key, data, version, journal)
        self._append(key, path, journal, line, after)
        return after

    def remove(self, key: str, journal: JournalFile | None) -> None:
        """Remove an object and its journal; its folder is not synced."""
        path = self.path(key)
        self._disk.unlink(path)
        self._drop_journal(key, path, journal)

    def remove_journal(self, path: str) -> None:
        """Remove what may be left of a journal where there is no object."""
        self._journals.remove(path)

    def make_certain(self, key: str, path: str) -> None:
        """Write an object as a whole that is as it should be, but may not be on disk: who reads it relies on it.

        It takes the lock itself.
        """
        if path not in self.suspect:
            return
        try:
            with self._locks.of(key):
                document_ns = modified_ns(path)
                if document_ns is not None and path in self.suspect:
                    journal = self._journals.find(path, document_ns)
                    document, version, changes = self.read(path)
                    if changes:
                        document = merge(key, document, [each.members for each in changes])
                        version = changes[-1].version
                    self.write(key, document, version, journal)
                self.suspect.discard(path)
        except OSError as exc:
            raise unavailable(path, "written", exc) from exc

    @contextmanager
    def doubting(self, path: str) -> Iterator[None]:
        """Note that what stands there may be lost, if this fails."""
        try:
            yield
        except BaseException:
            self.suspect.add(path)
            raise

    def fold(self, key: str) -> bool:
        """Fold what a journal has into its object's file; return whether it has to be tried again.

        The file is written without the lock, for who owns the object is changing it meanwhile. The journal stays, so
        that the new file's name need not be on disk yet.
        """
        path = self.path(key)
        try:
            document, document_ns, changes, begin = self._read_from(path)
            if not changes:
                return False
            data, version = merge(key, document, [each.members for each in changes]), changes[-1].version
            temporary, is_in_place = temporary_in(os.path.dirname(path)), False
            try:
                self._disk.write(temporary, data, lambda fd: os.utime(fd, ns=(version, version)), sync=True)
                with self._locks.of(key):
                    if modified_ns(path) == document_ns and modified_ns(temporary) == version:
                        self._disk.rename(temporary, path)
                        is_in_place = True
                        self._journals.folded(path, document_ns, version, len(data), begin + changes[-1].end)
            finally:
                if not is_in_place:
                    with suppress(FileNotFoundError):
                        self._disk.unlink(temporary)
        except (
            FileNotFoundError,
            ValueError,
        ):  # it was deleted meanwhile, or spoilt by hand, which a reader is told of
            return False
        except (OSError, MemoryError):
            return True
        return False

    def _drop_journal(self, key: str, path: str, journal: JournalFile | None) -> None:
        if journal is not None:
            self._journals.remove(path)
            self._folder.forget(key)

    def _begin_journal(self, key: str, path: str, document_ns: int, is_durable: bool) -> JournalFile | None:
        """Begin the journal of an object that has none; None where it is to be written as a whole."""
        fd = os.open(path, _READ)
        try:
            document = read_all(fd)
            check_document(key, document)
            is_ours = is_durable or self._synced.get(path) == document_ns
            if not is_ours and not self._locks.is_relaxed(key):  # no journal is to be left of what is lost
                self._disk.fsync(fd)
        finally:
            os.close(fd)
        return self._journals.begin(path, document_ns, len(document))

    def _append(self, key: str, path: str, journal: JournalFile, line: bytes, version: int) -> None:
        try:
            journal.append(line, version)
            self._disk.count(len(line))
            if not self._locks.is_relaxed(key):
                with self.doubting(path):
                    self._disk.fsync_data(journal.fd)
                    if journal.is_new:
                        self._disk.sync_directory(path[: path.rfind("/")])
            journal.is_new = False
        except BaseException:
            self._journals.forget(path)  # how much of it was written is seen when it is opened anew
            raise
        self._folder.note(key, journal.document_size)
