"""What a directory's store holds open: its locks, and the folders that it syncs."""

import fcntl
import os
from collections.abc import Callable
from threading import Lock

_MOST_OPEN = 96  # locks; macOS gives a process 256 descriptors


class Stripe:
    """A lock that one thread of one process on this machine holds at a time.

    Threads of one process queue at a lock of their own first: flock tells open files apart, not threads.

    Attributes:
        fd: its file, while it is held.
    """

    def __init__(self, open_file: Callable[[], int], opened: "set[Stripe]") -> None:
        self._open_file, self._opened = open_file, opened
        self._lock, self.fd = Lock(), -1

    def __enter__(self) -> int:
        """Return a time in ns that is no less than the version of any key deleted under this lock."""
        self._lock.acquire()
        try:
            while True:
                if self.fd < 0:
                    self.fd = self._open_file()
                    self._opened.add(self)
                fcntl.flock(self.fd, fcntl.LOCK_EX)
                found = os.fstat(self.fd)
                if found.st_nlink:
                    return found.st_mtime_ns
                self.close()  # somebody removed the file, and others may hold a new one
        except BaseException:
            self.close()
            self._lock.release()
            raise

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Let go of the lock, for who has not taken it by `with`."""
        try:
            if len(self._opened) > _MOST_OPEN:
                self.close()
            else:
                fcntl.flock(self.fd, fcntl.LOCK_UN)
        finally:
            self._lock.release()

    def raise_floor(self, floor_ns: int) -> None:
        """Have every later `with` return at least `floor_ns`, in any process. Only while it is held."""
        os.utime(self.fd, ns=(floor_ns, floor_ns))

    def close(self) -> None:
        """Let go of the file, and with it of the lock, if this process alone has it open."""
        fd, self.fd = self.fd, -1
        self._opened.discard(self)
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


class Opened:
    """What is open, closed when the last thread that uses it lets go."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)
