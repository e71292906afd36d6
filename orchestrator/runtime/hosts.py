"""Which executor instances on this machine are alive."""

import fcntl
import os
import re
import weakref
from contextlib import suppress
from pathlib import Path

from orchestrator.stores.disk import unavailable

_INSTANCE = re.compile(r"[A-Za-z0-9_-]{1,64}")


class LocalHosts:
    """The instances that share a directory on one machine; each locks `<root>/.hosts/<its id>`.

    The kernel lets go of a lock when its process ends, however it ends, so nothing has to beat. A forked
    child is not its parent: it holds no lock, and joins by a LocalHosts of its own.

    Args:
        root: the bucket's directory; made if it is missing.

    Raises:
        StoreUnavailable: the file cannot be created or locked there.
    """

    me: str
    """The id of this instance: 12 hex digits, never used twice."""

    def __init__(self, root: Path) -> None:
        self._folder = os.path.join(os.path.abspath(root), ".hosts")
        try:
            os.makedirs(self._folder, exist_ok=True)
            self._remove_dead()
            self.me, self._fd = self._join()
        except OSError as exc:
            raise unavailable(self._folder, "written", exc) from exc
        self._leaving = weakref.finalize(self, _leave, self._fd, self._path(self.me))
        _hosts.add(self)

    def is_alive(self, instance: str) -> bool | None:
        """True while the process that joined as `instance` lives and has not closed, else False.

        None if that cannot be told: it is no id of ours, or its file cannot be read.
        """
        if self._leaving.alive and instance == self.me:
            return True
        return self._probe(instance)

    def close(self) -> None:
        """Leave: from now on this instance is dead. A second time it does nothing."""
        self._leaving()

    def _join(self) -> tuple[str, int]:
        while True:
            me = os.urandom(6).hex()
            fd = os.open(self._path(me), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                if os.fstat(fd).st_nlink:
                    return me, fd
            except OSError:
                _leave(fd, self._path(me))
                raise
            os.close(fd)  # another one came by before we had locked it, and took it for a dead one's

    def _probe(self, instance: str, *, remove_dead: bool = False) -> bool | None:
        if not _INSTANCE.fullmatch(instance):
            return None
        path = self._path(instance)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two may ask at the same time
            if remove_dead:
                os.unlink(path)  # while it is locked: whoever is about to join by it then notices
        except BlockingIOError:
            return True
        except OSError:
            return None
        else:
            return False
        finally:
            os.close(fd)

    def _remove_dead(self) -> None:
        """Remove the files that killed instances left; a missing file says the same."""
        for name in os.listdir(self._folder):
            self._probe(name, remove_dead=True)

    def _path(self, instance: str) -> str:
        return f"{self._folder}/{instance}"

    def _after_fork(self) -> None:
        if self._leaving.detach():
            os.close(self._fd)


def _leave(fd: int, path: str) -> None:
    with suppress(OSError):
        os.unlink(path)
    os.close(fd)


_hosts = weakref.WeakSet[LocalHosts]()


def _after_fork_in_child() -> None:
    for hosts in _hosts:
        hosts._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
