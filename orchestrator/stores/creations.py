"""What a directory's store has created lately: several objects together, durable by one sync of one file.

A new object costs a sync of its file and one of its folder. Objects that are created together are appended to a log
first, `.created/<16 hex>`, one a store and process, and synced there. Then their files take their places, and some
seconds later those are synced that still are what they were; so the log is short, and is begun anew.

Its process holds a lock on it. A log that nobody holds is of a process that is gone: who opens the directory next makes
anew what a power cut has taken of its objects. A record of a log is

    <CRC-32 of the rest, 4 bytes> <size of what follows, 4 bytes> <msgpack: a list of [key, version, content or nil]>

with nil for an object that was deleted; of several records of a key, the last counts.
"""

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import NamedTuple
from zlib import crc32

import msgspec

from orchestrator.stores.disk import Disk
from orchestrator.stores.files import read_all, write_all

MOST_BYTES = 64 * 1024
"""What is larger is not written twice."""
_BEGIN = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_OPEN = os.O_RDWR | os.O_CLOEXEC
_HEAD = 8


class Created(NamedTuple):
    """An object as it was created; `data` is None where it was deleted since."""

    key: str
    version: int
    data: bytes | None


class _Log:
    """A log that is open: `size` bytes of it count, `synced` of them are on disk."""

    __slots__ = ("fd", "is_broken", "path", "size", "synced")

    def __init__(self, fd: int, path: str) -> None:
        self.fd, self.path, self.size, self.synced, self.is_broken = fd, path, 0, 0, False

    def __del__(self) -> None:
        os.close(self.fd)


class Creations:
    """The log of one store, and those that others have left.

    Args:
        folder: where the logs lie.
        make_durable: has objects, key -> version (None: it was deleted), on disk as they are.
    """

    def __init__(self, folder: str, disk: Disk, make_durable: Callable[[Mapping[str, int | None]], None]) -> None:
        self._folder, self._disk = folder, disk
        self._make_durable = make_durable
        self._log: _Log | None = None
        self._broken: list[_Log] = []
        self._there: dict[str, int | None] = {}
        self._under_way = 0
        self._writing, self._syncing = Lock(), Lock()

    def has(self, key: str) -> bool:
        """Whether what became of a key stands in the log, so that its last record there has to be true."""
        return key in self._there

    def is_durable(self, key: str, version: int) -> bool:
        """Whether an object of this version stands in the log."""
        return self._there.get(key) == version

    @contextmanager
    def noted(self, objects: Sequence[Created]) -> Iterator[None]:
        """Have objects durable; while this lasts their files take their places, under the locks of their keys."""
        body = msgspec.msgpack.encode(objects)
        body = len(body).to_bytes(4) + body
        with self._writing:
            log = self._log or self._begin()
            write_all(log.fd, crc32(body).to_bytes(4) + body, log.size)
            log.size += 4 + len(body)
            end = log.size
            self._under_way += 1
            self._there.update((each.key, None if each.data is None else each.version) for each in objects)
        try:
            self._have_synced(log, end)
            yield
        finally:
            with self._writing:
                self._under_way -= 1

    def settle(self) -> bool:
        """Have all that stands in the log on disk in its place, and begin the log anew; return whether it has to be
        tried again. Raises OSError."""
        with self._writing:
            before = dict(self._there)
        self._make_durable(before)
        with self._writing, self._syncing:
            if self._under_way:
                return True
            self._make_durable({key: version for key, version in self._there.items() if before.get(key, 0) != version})
            if self._log is not None and self._log.size:
                os.ftruncate(self._log.fd, 0)
                self._disk.fsync_data(self._log.fd)
                self._log.size = self._log.synced = 0
            self._there.clear()
            while self._broken:
                os.unlink(self._broken[-1].path)
                self._broken.pop()
        return False

    def end(self) -> None:
        """Take the log away, if nothing stands in it; the next creation makes another."""
        with self._writing:
            if self._log is not None and not self._there and not self._under_way:
                os.unlink(self._log.path)
                self._log = None

    def are_left(self) -> bool:
        """Whether there are logs of anybody."""
        try:
            return bool(os.listdir(self._folder))
        except (FileNotFoundError, NotADirectoryError):
            return False

    def recover(self, restore: Callable[[Created], None]) -> None:
        """Go through the logs that nobody holds. Only one may do so at a time.

        Args:
            restore: makes an object what it was, unless it is another one since.
        """
        for name in os.listdir(self._folder):
            path = f"{self._folder}/{name}"
            try:
                log = _Log(os.open(path, _OPEN), path)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(log.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # of a process that lives
            if not os.fstat(log.fd).st_nlink:
                continue
            last = {each.key: each for each in _read(read_all(log.fd))}
            for each in last.values():
                restore(each)
            self._make_durable({each.key: None if each.data is None else each.version for each in last.values()})
            os.unlink(path)
            self._disk.sync_directory(self._folder)

    def _begin(self) -> _Log:
        self._disk.directory(self._folder)
        while True:
            path = f"{self._folder}/{os.urandom(8).hex()}"
            log = _Log(os.open(path, _BEGIN, 0o666), path)
            fcntl.flock(log.fd, fcntl.LOCK_EX)
            if os.fstat(log.fd).st_nlink:  # else somebody was quicker, and took it for one that was left
                break
        self._disk.sync_directory(self._folder)
        self._log = log
        return log

    def _have_synced(self, log: _Log, end: int) -> None:
        """Return when a log is on disk up to `end`, whoever of those that wait for it has synced it."""
        with self._syncing:
            if log.is_broken:
                raise OSError(f"{log.path}: could not be synced")
            if log.synced >= end:
                return
            size = log.size
            try:
                self._disk.fsync_data(log.fd)
            except BaseException:
                log.is_broken = True  # what stands there may be lost, and a second sync would not say so
                self._broken.append(log)
                self._log = None
                raise
            log.synced = size


def _read(content: bytes) -> Iterator[Created]:
    """Yield the objects of a log, up to where it was cut off."""
    start = 0
    while len(content) >= start + _HEAD:
        end = start + _HEAD + int.from_bytes(content[start + 4 : start + _HEAD])
        body = content[start + 4 : end]
        if end > len(content) or crc32(body) != int.from_bytes(content[start : start + 4]):
            return
        yield from _decode(body[4:])
        start = end


def _decode(body: bytes) -> Iterable[Created]:
    return msgspec.msgpack.decode(body, type=list[Created])
