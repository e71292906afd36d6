"""Sorted names, in memory or in a file, of which those from one on are found without reading the others.

In a file they stand a line each, behind

    names 1 <epoch, 16 hex digits> <modification time of the file in ns, 20 digits> <bytes of the names, 12 digits>

The file is given that time, so that one that was edited by hand is told from one that was not.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress

from orchestrator.stores.files import write_all
from orchestrator.stores.stripes import Opened

_HEAD = b"names 1 %016x %020d %012d\n"
_HEAD_SIZE = len(_HEAD % (0, 0, 0))
_LONGEST = 256
"""Bytes of a line: a name, or that of a folder with its /, without the newline."""
_PIECE = 16 * 1024
_READ = os.O_RDONLY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class SortedNames:
    """Names as they were at one time.

    Args:
        read: returns so many bytes from a place on.
        size: bytes of all.
        changes: name -> whether it is there, whatever `read` says.
    """

    def __init__(self, read: Callable[[int, int], bytes], size: int, changes: Mapping[bytes, bool]) -> None:
        self._read, self._size, self._changes = read, size, changes

    @classmethod
    def of(cls, names: list[bytes]) -> "SortedNames":
        """Return these, which may be in any order."""
        content = b"".join([name + b"\n" for name in sorted(names)])
        return cls(lambda begin, size: content[begin : begin + size], len(content), {})

    @classmethod
    def read(cls, path: str, epoch: int) -> "SortedNames | None":
        """Return those of a file; None where it is of another epoch, or somebody else has written it."""
        opened = Opened(os.open(path, _READ))
        found = os.fstat(opened.fd)
        size = found.st_size - _HEAD_SIZE
        if os.pread(opened.fd, _HEAD_SIZE, 0) != _HEAD % (epoch, found.st_mtime_ns, max(size, 0)):
            return None
        return cls(lambda begin, count: os.pread(opened.fd, count, begin + _HEAD_SIZE), size, {})

    def write(self, path: str, epoch: int, now_ns: int) -> None:
        """Put them into a new file; it is not synced. Raises OSError: it is not there then."""
        fd = os.open(path, _CREATE, 0o666)
        try:
            try:
                write_all(fd, _HEAD % (epoch, now_ns, self._size) + self._read(0, self._size), 0)
                os.utime(fd, ns=(now_ns, now_ns))
            finally:
                os.close(fd)
        except BaseException:
            with suppress(OSError):
                os.unlink(path)
            raise

    def changed_by(self, lines: Iterable[bytes]) -> "SortedNames":
        """Return these and what has become of them: `+name` and `-name`, the last one of a name counts."""
        changes = {line[1:]: line[:1] == b"+" for line in lines}
        return SortedNames(self._read, self._size, {**self._changes, **changes})

    def since(self, first: bytes) -> Iterator[str]:
        """Yield those that are no less than `first`, sorted; only so much is read as is taken."""
        added = sorted([name for name, is_there in self._changes.items() if is_there and name >= first], reverse=True)
        for name in self._written(first):
            while added and added[-1] < name:
                yield added.pop().decode()
            if name not in self._changes:
                yield name.decode()
        while added:
            yield added.pop().decode()

    def _written(self, first: bytes) -> Iterator[bytes]:
        begin, rest = self._begin_of(first), b""
        while begin < self._size:
            piece = self._read(begin, _PIECE)
            if not piece:
                return  # somebody has cut the file off
            begin += len(piece)
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if line >= first:
                    yield line

    def _begin_of(self, first: bytes) -> int:
        """Return where a line begins that has all that are no less than `first` behind it, or is one of them, and not
        much else."""
        low, high = 0, self._size
        while high - low > 4 * _LONGEST:
            middle = (low + high) // 2
            piece = self._read(middle, 2 * (_LONGEST + 1))
            begin = piece.find(b"\n") + 1
            if piece[begin : piece.find(b"\n", begin)] < first:
                low = middle + begin
            else:
                high = middle
        return low
