"""The names in a folder of very many files, kept beside it, so that who lists some of them need not read all.

`<where>` has the names that the folder had when it was read last, sorted, and `<where>.log` what has become of them
since by the hands of its stores: `+name` and `-name`, a line each, behind a head. Both may be removed at any time.

Whether that is all is told from the folder. A store changes it under a lock, and then gives it a modification time of
its own choice, which it notes in the head, with the change time that comes of it. Whoever else makes, removes or
renames a file there leaves another time. So a folder that has the times of the head has just these names; one that has
not is read anew by who lists it next. A store that was killed in between has left another time, too.

A file that comes by hand in the very microseconds of a store's own change, between its look at the times and its
setting of them, is not noticed before the folder is read anew: as it is after a day, and when the log is full.
"""

import errno
import os
import stat
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import NamedTuple, TypeVar
from zlib import crc32

from orchestrator.stores.files import temporary_in, write_all
from orchestrator.stores.keys import is_key
from orchestrator.stores.sorted_names import SortedNames
from orchestrator.stores.stripes import Stripe

T = TypeVar("T")

FEW = 1000
"""So many names are read as quickly as they are looked up: of a folder with fewer nothing is kept."""
LONGEST_LOG = 256 * 1024
"""Bytes. Who lists reads all of it; what would make it longer is not noted, so that the folder is read anew."""
_SETTLED_NS = 3 * 10**9
"""Times of files that are as old as this tell whether a folder has been changed since, on any file system."""

_BOOT = "/proc/sys/kernel/random/boot_id"
_OPEN = os.O_RDWR | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_CLOEXEC
_MAY_NOT_WRITE = (errno.EACCES, errno.EPERM, errno.EROFS)
_BEHIND_HEAD = 128


class _Head(NamedTuple):
    """What the log begins with.

    Attributes:
        boot: of which start of the machine it is: what was not synced may be lost after another.
        epoch: which reading of the folder the log goes on from.
        is_read: whether that is over. Until then what takes the place of a file is noted, too: who reads a tmpfs or
            a btrfs meanwhile may come by neither of the two.
        device, inode, modified_ns, changed_ns: the folder, as who keeps the names has left it.
        size: so many bytes behind the head count.
        check: CRC-32 of these.
    """

    boot: bytes
    epoch: int
    is_read: bool
    device: int
    inode: int
    modified_ns: int
    changed_ns: int
    size: int
    check: int

    def is_of(self, folder: os.stat_result) -> bool:
        """Whether nobody else has changed the folder since."""
        return (self.device, self.inode, self.modified_ns, self.changed_ns) == _identity(folder)


_FORM = struct.Struct("<8s16sQ?QQqqQI")
_MAGIC = b"names 1\n"


class FolderNames:
    """The names of one folder, for many threads and processes.

    Args:
        folder: the folder, with a / behind it, so that it is none where there is a file of that name.
        where: the file that they are kept in.
    """

    def __init__(self, folder: str, where: str) -> None:
        self._folder, self._where, self._log = folder, where, f"{where}.log"
        self._read: tuple[tuple[int, ...], SortedNames] | None = None
        self._may_write = False
        self._lock = Stripe(self._open_log, set())

    def after_fork(self) -> None:
        """Open the lock anew: a child shares its parent's descriptors, and with them its flocks."""
        self._lock.close()
        self._lock = Stripe(self._open_log, set())

    def changing(self, deed: Callable[[], T], name: str, sign: bytes = b"") -> T:
        """Do something that changes the names in the folder, and note it, where they are kept.

        Args:
            name: which appears (`+`) or goes (`-`); that of a folder with a / behind it.
        """
        if not self._is_locked():
            return deed()
        try:
            head = None
            with suppress(OSError):
                head = self._true_head() if self._may_write else None
            if head is None:
                return deed()
            entry = b""
            if sign and is_key(name.removesuffix("/")):
                is_known = sign == b"+" and head.is_read and _is_file(self._folder + name)
                entry = b"" if is_known else b"%b%b\n" % (sign, name.encode())
            done = deed()
            with suppress(OSError):  # then the folder has not the times of the head, and is read anew
                self._note(head, entry)
            return done
        finally:
            self._lock.release()

    def now(self) -> SortedNames:
        """Return the names that are keys, those of folders with a / behind them. Raises OSError: it cannot be read."""
        with suppress(OSError):
            kept = self._kept()
            if kept is not None:
                return kept
        epoch = self._begin_anew()
        before = os.stat(self._folder)
        if epoch is None and self._read is not None and self._read[0] == _identity(before):
            return self._read[1]
        began_ns = time.time_ns()
        names, are_lasting = _names_in(self._folder)
        if epoch is None and are_lasting and len(names) >= FEW:
            epoch = self._begin_anew(may_make=True)
            if epoch is not None:
                names, are_lasting = _names_in(self._folder)
        found = SortedNames.of(names)
        self._read = None
        if epoch is not None and are_lasting:
            with suppress(OSError):
                if self._keep(found, epoch, began_ns):
                    return self._kept() or found  # with what has changed while it was read
        elif are_lasting and began_ns - max(before.st_mtime_ns, before.st_ctime_ns) > _SETTLED_NS:
            self._read = _identity(before), found
        return found

    def distrust(self) -> None:
        """Have who lists next read the folder anew."""
        with suppress(OSError):
            if self._is_locked():
                try:
                    os.pwrite(self._lock.fd, bytes(_FORM.size), 0)
                finally:
                    self._lock.release()

    def _keep(self, found: SortedNames, epoch: int, began_ns: int) -> bool:
        """Write names that were read; return whether no other reading has begun since. Raises OSError."""
        temporary = temporary_in(os.path.dirname(self._where))
        found.write(temporary, epoch, began_ns)
        try:
            if self._is_locked():
                try:
                    head = self._head()
                    if head is not None and head.epoch == epoch:
                        os.rename(temporary, self._where)
                        self._write_head(head._replace(is_read=True))
                        return True
                finally:
                    self._lock.release()
            return False
        finally:
            with suppress(OSError):
                os.unlink(temporary)

    def _kept(self) -> SortedNames | None:
        """Return the names without reading the folder; None where they are not known."""
        if not self._is_locked():
            return None
        try:
            head = self._true_head()
            if head is None:
                return None
            names = SortedNames.read(self._where, head.epoch)
            log = os.pread(self._lock.fd, head.size, _BEHIND_HEAD)
        finally:
            self._lock.release()
        if names is None or crc32(log) != head.check:
            return None
        return names.changed_by(log.splitlines())

    def _begin_anew(self, *, may_make: bool = False) -> int | None:
        """Have all changes from now on noted behind a reading of the folder that comes after this; return its number.

        None where that cannot be, or the names are not kept and need not be.
        """
        try:
            if may_make:
                with suppress(FileExistsError):
                    os.mkdir(os.path.dirname(self._where))
                os.close(os.open(self._log, _OPEN | os.O_CREAT, 0o666))
            boot = _boot_id()
            if boot is None or not self._is_locked():
                return None
            try:
                epoch = int.from_bytes(os.urandom(8))
                head = _Head(boot, epoch, False, 0, 0, 0, 0, 0, 0)
                return epoch if self._may_write and self._note(head, b"") else None
            finally:
                self._lock.release()
        except OSError:
            return None

    def _note(self, head: _Head, entry: bytes) -> bool:
        """Say in the head that the folder is as it should be; return whether it could be given a time for that."""
        if head.size + len(entry) > LONGEST_LOG:
            return False
        token = max(time.time_ns(), head.modified_ns + 2) | 1  # never one that is kept in steps of more than a ns
        os.utime(self._folder, ns=(token, token))
        found = os.stat(self._folder)
        if found.st_mtime_ns != token:
            return False
        if entry:
            write_all(self._lock.fd, entry, _BEHIND_HEAD + head.size)
        size, check = head.size + len(entry), crc32(entry, head.check)
        self._write_head(_Head(head.boot, head.epoch, head.is_read, *_identity(found), size, check))
        return True

    def _write_head(self, head: _Head) -> None:
        told = _FORM.pack(_MAGIC, *head)
        os.pwrite(self._lock.fd, told + crc32(told).to_bytes(4), 0)

    def _true_head(self) -> _Head | None:
        """Return the head, if nobody else has changed the folder since it was written."""
        head = self._head()
        return head if head is not None and head.is_of(os.stat(self._folder)) else None

    def _head(self) -> _Head | None:
        found = os.pread(self._lock.fd, _FORM.size + 4, 0)
        told = found[: _FORM.size]
        if len(told) < _FORM.size or crc32(told) != int.from_bytes(found[_FORM.size :]):
            return None
        magic, *fields = _FORM.unpack(told)
        head = _Head(*fields)
        return head if magic == _MAGIC and head.boot == _boot_id() else None

    def _is_locked(self) -> bool:
        """Take the lock, if the names are kept."""
        try:
            self._lock.__enter__()
        except OSError:
            return False
        return True

    def _open_log(self) -> int:
        try:
            fd = os.open(self._log, _OPEN)
        except OSError as exc:
            if exc.errno not in _MAY_NOT_WRITE:
                raise
            self._may_write = False
            return os.open(self._log, _READ)
        self._may_write = True
        return fd


def _identity(folder: os.stat_result) -> tuple[int, int, int, int]:
    return folder.st_dev, folder.st_ino, folder.st_mtime_ns, folder.st_ctime_ns


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def _names_in(folder: str) -> tuple[list[bytes], bool]:
    """Return the names in a folder, in no order; and whether they are the same until the folder changes."""
    names, are_lasting = [], True
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_key(entry.name):
                if entry.is_symlink():
                    are_lasting = False  # what it leads to may come and go
                if entry.is_dir():
                    names.append(f"{entry.name}/".encode())
                elif entry.is_file():
                    names.append(entry.name.encode())
    return names, are_lasting


@cache
def _boot_id() -> bytes | None:
    """Return which start of the machine this is; None where that is not told, as outside of Linux."""
    try:
        with open(_BOOT, "rb") as file:
            return bytes.fromhex(file.read().decode().strip().replace("-", ""))
    except (OSError, ValueError):
        return None
