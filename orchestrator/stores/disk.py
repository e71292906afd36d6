"""Disk: how a directory's store makes, replaces and syncs files, and what it counts of that."""

import errno
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache
from threading import Lock
from typing import TypeVar

from orchestrator.model.errors import StoreUnavailable
from orchestrator.stores.files import temporary_in
from orchestrator.stores.names import FolderNames
from orchestrator.stores.stripes import Opened, Stripe

T = TypeVar("T")

NAMES = ".names"
"""The folder of the names that are kept of large ones."""
LOCK = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC

_OPEN_DIRECTORIES = 64
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

_REMEDIES = {
    errno.ENOSPC: "free some space on its disk",
    errno.EDQUOT: "free some of this user's disk quota",
    errno.EACCES: "this user needs permission for it and its folder",
    errno.EPERM: "this user needs permission for it and its folder",
    errno.EROFS: "writing needs a file system that is not mounted read-only",
    errno.ENOTDIR: "every part of the path above it must be a folder",
    errno.EISDIR: "an object cannot have the name of a folder",
    errno.EFBIG: "the limit on file sizes (ulimit -f) must allow it",
    errno.EMFILE: "the limit on open files (ulimit -n) must allow more",
    errno.ENAMETOOLONG: "the bucket needs a shorter path",
}


class Disk:
    """The files below one directory.

    Args:
        root: the directory, absolute.
        now_ns: the time in ns since the epoch.
        indexed: folders below it, each ending in /, whose names are kept where they are many.

    Attributes:
        fsyncs: how often this instance has made the disk write.
        writes: how many objects, and changes to objects, it has written.
        bytes_written: how many bytes in them.
        directory: opens a directory, made if it is missing, whose own entry is on disk.
        names: indexed folder -> its names.
    """

    def __init__(self, root: str, now_ns: Callable[[], int] = time.time_ns, indexed: Iterable[str] = ()) -> None:
        self.root, self._now_ns = root, now_ns
        self.names = {
            each: FolderNames(f"{root}/{each}", f"{root}/{NAMES}/{each[:-1].replace('/', '.')}") for each in indexed
        }
        self._kept = {f"{root}/{each}": names for each, names in self.names.items()}
        self.fsyncs = self.writes = self.bytes_written = 0
        self.directory = lru_cache(_OPEN_DIRECTORIES)(self._open_directory)
        self._begin()

    def _begin(self) -> None:
        self._counting = Lock()
        self._stripes = dict[str, Stripe]()
        self.opened = set[Stripe]()

    def after_fork(self) -> None:
        """Open the locks anew: a child shares its parent's descriptors, and with them its flocks."""
        for stripe in self._stripes.values():
            stripe.close()
        for names in self.names.values():
            names.after_fork()
        self._begin()

    def replace(self, path: str, data: bytes, above_ns: int, *, sync: bool) -> int:
        """Put a new file in place of `path`, its name not synced; return its modification time, > `above_ns`."""
        folder = path[: path.rfind("/")]
        temporary = temporary_in(folder)
        if sync:
            self.directory(folder)
        try:
            version = self.write(temporary, data, lambda fd: self._stamp(fd, above_ns), sync=sync)
            self.rename(temporary, path)
        except BaseException:
            self.discard(temporary)
            raise
        return version

    def write(self, temporary: str, data: bytes, stamp: Callable[[int], T], *, sync: bool) -> T:
        """Make a file; return what `stamp` returns, which sets its times."""
        fd = self.create(temporary, sync=sync)
        try:
            written = os.write(fd, data)
            while written < len(data):  # near the end of the disk, or of a limit, a write may be short
                written += os.write(fd, memoryview(data)[written:])
            self.count(len(data))
            stamped = stamp(fd)
            if sync:
                self.fsync(fd)
        finally:
            os.close(fd)
        return stamped

    def later_than(self, above_ns: int) -> int:
        """A time above `above_ns`, of now if that is later."""
        return max(self._now_ns(), above_ns + 1)

    def _stamp(self, fd: int, above_ns: int) -> int:
        """Set the file's modification time above `above_ns`, as near to now as can be; return it."""
        wanted, step = self.later_than(above_ns), 1
        while True:
            os.utime(fd, ns=(wanted, wanted))
            got = os.fstat(fd).st_mtime_ns
            if got > above_ns:
                return got
            step *= 2  # the file system keeps µs, s or 2 s only, and cut it off
            wanted += step

    def create(self, temporary: str, *, sync: bool) -> int:
        """Make a file, and its folder if that is missing; return it open."""
        try:
            return self.make(temporary, _CREATE)
        except FileNotFoundError:  # the folder is new, or somebody removed it since we opened it
            folder = os.path.dirname(temporary)
            if sync:
                self.directory.cache_clear()
                self.directory(folder)
            else:
                self._make_folders(folder)
            return self.make(temporary, _CREATE)

    def _make_folders(self, path: str) -> None:
        if not os.path.isdir(path):
            self._make_folders(os.path.dirname(path))
            with suppress(FileExistsError):
                self.make_folder(path)

    def make(self, path: str, flags: int) -> int:
        """Open a file that is new."""
        return self._changing(lambda: os.open(path, flags, 0o666), path, b"+")

    def rename(self, temporary: str, path: str) -> None:
        """Give a file its place, in the same folder."""
        self._changing(lambda: os.rename(temporary, path), path, b"+")

    def unlink(self, path: str) -> None:
        """Remove a file."""
        self._changing(lambda: os.unlink(path), path, b"-")

    def make_folder(self, path: str) -> None:
        """Make a folder that is new, in one that is there."""
        self._changing(lambda: os.mkdir(path), path, b"+", behind="/")

    def _changing(self, deed: Callable[[], T], path: str, sign: bytes, behind: str = "") -> T:
        """Change the names in a folder, and what is kept of them."""
        end = path.rfind("/") + 1
        names = self._kept.get(path[:end])
        return deed() if names is None else names.changing(deed, path[end:] + behind, sign)

    def discard(self, temporary: str) -> None:
        """Remove a file that is in the way, if that can be."""
        with suppress(OSError):
            self.unlink(temporary)

    def _open_directory(self, path: str) -> Opened:
        """Open a directory, made if it is missing; its own entry is on disk when this returns.

        From the root down that is synced even if it was there: another process may have made it just now.
        """
        parent, is_new = os.path.dirname(path), False
        try:
            directory = Opened(os.open(path, _DIRECTORY))
        except FileNotFoundError:
            self.directory(parent)
            with suppress(FileExistsError):
                self.make_folder(path)
            directory, is_new = Opened(os.open(path, _DIRECTORY)), True
        if is_new or (path.startswith(self.root) and path != parent):
            try:
                self._sync(self.directory(parent))
            except PermissionError:
                if is_new:
                    raise  # else: a folder above the root that we may pass and not read
        return directory

    def sync_directory(self, path: str) -> None:
        """Have the names in a directory on disk, and its own; it is made if it is missing."""
        directory = self.directory(path)
        try:
            is_there = os.path.samestat(os.fstat(directory.fd), os.stat(path))
        except FileNotFoundError:
            is_there = False
        if not is_there:  # somebody has removed it, or put another in its place, since we opened it
            self.directory.cache_clear()
            directory = self.directory(path)
        self._sync(directory)

    def _sync(self, directory: Opened) -> None:
        try:
            self.fsync(directory.fd)
        except OSError as exc:
            if exc.errno != errno.EINVAL:  # some network and shared file systems have no such thing
                raise

    def fsync(self, fd: int) -> None:
        """Have a file on disk."""
        os.fsync(fd)
        with self._counting:
            self.fsyncs += 1

    def fsync_data(self, fd: int) -> None:
        """Sync a file but for its times."""
        (os.fdatasync if hasattr(os, "fdatasync") else os.fsync)(fd)
        with self._counting:
            self.fsyncs += 1

    def count(self, written: int) -> None:
        """Count a write of so many bytes."""
        with self._counting:
            self.writes += 1
            self.bytes_written += written

    def lock(self, name: str) -> Stripe:
        """The lock of this name, `<root>/.locks/<name>`."""
        stripe = self._stripes.get(name)
        if stripe is None:
            path = f"{self.root}/.locks/{name}"
            stripe = self._stripes.setdefault(name, Stripe(lambda: self._open_lock(path), self.opened))
        return stripe

    def _open_lock(self, path: str) -> int:
        try:
            return os.open(path, LOCK, 0o666)
        except FileNotFoundError:
            self.directory.cache_clear()
            self.directory(self.root)
            with suppress(FileExistsError):
                os.mkdir(os.path.dirname(path))
            return os.open(path, LOCK, 0o666)

    def is_absence(self, exc: OSError) -> bool:
        """Whether the error means no more than that there is no such key."""
        if isinstance(exc, NotADirectoryError):  # a key where others have a folder, or the root is no directory
            return os.path.isdir(self.root)
        return isinstance(exc, (FileNotFoundError, IsADirectoryError))


def unavailable(path: str, verb: str, exc: OSError) -> StoreUnavailable:
    """Say in our own words that `path` could not be `verb` (a participle), and what would help."""
    remedy = _REMEDIES.get(exc.errno or 0, "what was stored there before is unchanged")
    return StoreUnavailable(f"{path}: cannot be {verb}: {exc.strerror or exc}; {remedy}")
