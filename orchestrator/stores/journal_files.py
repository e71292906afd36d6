"""The journals of a directory's objects: `.<name>.journal` beside the file of each that has been changed by parts."""

import os
from contextlib import suppress
from threading import Lock

from orchestrator.stores.disk import Disk
from orchestrator.stores.files import read_all, write_all
from orchestrator.stores.journal import records, since

_SUFFIX = ".journal"
"""So that what looks for `*.json` does not come by it."""
_LONGEST_NAME = 255 - len(f".{_SUFFIX}")

_OPEN = os.O_RDWR | os.O_CLOEXEC
_BEGIN = _OPEN | os.O_CREAT | os.O_EXCL
_ODD_NS = 1_000_000_001
"""A time that only a file system keeps which keeps every ns."""


def journal_path(path: str) -> str | None:
    """Where the journal of the object at `path` lies; None where its name would be too long."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/.{name}{_SUFFIX}" if len(name) <= _LONGEST_NAME else None


def object_path(path: str) -> str | None:
    """Whose journal the file at `path` is; None where it is none."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/{name[1:].removesuffix(_SUFFIX)}" if name[:1] == "." and name.endswith(_SUFFIX) else None


class JournalFile:
    """A journal that is open. Its key's lock has to be held, for all but closing it.

    Attributes:
        document_ns, document_size: modification time and size in bytes of the object's file, which it goes for.
        version: the object's, with what stands in here.
        size: bytes of it that count; what may stand behind them was cut off by a crash.
        folded: so many of them are known to be in the object's file.
        is_new: its name is not on disk yet.
    """

    __slots__ = ("document_ns", "document_size", "fd", "folded", "is_new", "size", "version")

    def __init__(self, fd: int, document_ns: int, document_size: int, version: int, size: int, is_new: bool) -> None:
        self.fd, self.document_ns, self.document_size = fd, document_ns, document_size
        self.version, self.size, self.is_new, self.folded = version, size, is_new, 0

    def is_in_step(self, document_ns: int) -> bool:
        """Whether neither the object's file nor this one was changed by anybody else."""
        if document_ns != self.document_ns:
            return False
        found = os.fstat(self.fd)
        return found.st_size == self.size and found.st_nlink > 0

    def append(self, line: bytes, version: int) -> None:
        """Write a record, which is on disk once the file is synced."""
        write_all(self.fd, line, self.size)
        self.size += len(line)
        self.version = version

    def __del__(self) -> None:
        os.close(self.fd)


class JournalFiles:
    """Opens journals, and keeps some of them open.

    Args:
        most: how many are kept open.
    """

    def __init__(self, disk: Disk, most: int) -> None:
        self._disk, self._most = disk, most
        self._lock = Lock()
        self._open: dict[str, JournalFile] = {}
        self._keeps_ns = True

    def find(self, path: str, document_ns: int) -> JournalFile | None:
        """Return the journal of the object at `path`, whose file has this modification time; None if it has none.

        A journal that does not go for it is removed: somebody has written the file by hand since.
        """
        kept = self._open.get(path)
        if kept is not None and kept.is_in_step(document_ns):
            return kept
        self.forget(path)
        where = journal_path(path)
        if where is None:
            return None
        try:
            fd = os.open(where, _OPEN)
        except FileNotFoundError:
            return None
        opened = JournalFile(fd, document_ns, 0, document_ns, 0, is_new=True)
        opened.document_size = os.stat(path).st_size
        data = read_all(fd)
        all_of_it = list(records(data))
        if not all_of_it or not (all_of_it[-1].version == document_ns or since(document_ns, all_of_it)):
            self._disk.unlink(where)
            return None
        opened.version, opened.size = all_of_it[-1].version, all_of_it[-1].end
        if opened.size < len(data):
            os.ftruncate(fd, opened.size)
        return self._keep(path, opened)

    def begin(self, path: str, document_ns: int, document_size: int) -> JournalFile | None:
        """Make the journal of an object that has none; None where versions cannot be kept, or its name is too long."""
        where = journal_path(path)
        if where is None or not self._keeps_ns:
            return None
        made = JournalFile(self._disk.make(where, _BEGIN), document_ns, document_size, document_ns, 0, is_new=True)
        os.utime(made.fd, ns=(_ODD_NS, _ODD_NS))
        if os.fstat(made.fd).st_mtime_ns != _ODD_NS:
            self._disk.unlink(where)
            self._keeps_ns = False
            return None
        return self._keep(path, made)

    def folded(self, path: str, before_ns: int, document_ns: int, document_size: int, end: int) -> None:
        """Note that the object's file has been replaced by one that has what stands in the journal up to `end`."""
        kept = self._open.get(path)
        if kept is not None and kept.document_ns == before_ns:
            kept.document_ns, kept.document_size, kept.folded = document_ns, document_size, end

    def folded_of(self, path: str, document_ns: int) -> int:
        """Return from where on a journal may have what its object's file has not, as far as that is known."""
        kept = self._open.get(path)
        return kept.folded if kept is not None and kept.document_ns == document_ns else 0

    def remove(self, path: str) -> None:
        """Delete the journal of an object whose file has it all in it, or is gone; no error if there is none."""
        self.forget(path)
        where = journal_path(path)
        if where is not None:
            with suppress(FileNotFoundError):
                self._disk.unlink(where)

    def forget(self, path: str) -> None:
        """Let go of a journal; it stays where it is."""
        with self._lock:
            self._open.pop(path, None)

    def _keep(self, path: str, journal: JournalFile) -> JournalFile:
        with self._lock:
            self._open[path] = journal
            if len(self._open) > self._most:
                del self._open[next(iter(self._open))]  # closed once nobody uses it any more
        return journal
