"""Objects that are created together: their files, which a log keeps until they are synced in their places."""

import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from orchestrator.model.errors import VersionConflict
from orchestrator.stores.creations import Created, Creations
from orchestrator.stores.disk import Disk, unavailable
from orchestrator.stores.files import modified_ns, temporary_in
from orchestrator.stores.key_locks import KeyLocks
from orchestrator.stores.keys import check_key
from orchestrator.stores.objects import Objects

_RECOVERING = "recover"
"""A lock of no key, for who holds it takes the locks of keys."""
_READ = os.O_RDONLY | os.O_CLOEXEC
_MAY_NOT_WRITE = (errno.EACCES, errno.EPERM, errno.EROFS)


class Together:
    """Creates objects by one sync, and sees to what others have left of theirs.

    Attributes:
        log: what was created lately.
    """

    def __init__(self, disk: Disk, locks: KeyLocks, objects: Objects) -> None:
        self._disk, self._locks, self._objects = disk, locks, objects
        self.log = Creations(f"{disk.root}/.created", disk, self._make_durable)
        self._keeps_ns = True
        self.is_recovered = False

    def create(self, objects: Mapping[str, bytes]) -> dict[str, str] | None:
        """Write objects by one sync; None where the file system does not keep times as they are set."""
        made: list[tuple[str, str, Created]] = []
        if not self._keeps_ns:
            return None
        with ExitStack() as held:
            names = {key: self._locks.name_of(key) for key in objects}
            floors = {name: held.enter_context(self._disk.lock(name)) for name in sorted(set(names.values()))}
            for key in objects:
                found = modified_ns(self._objects.path(key))
                if found is not None:
                    raise VersionConflict(f"{key}: version is {found}; expected None")
            try:
                for key, data in objects.items():
                    path = self._objects.path(key)
                    folder = path[: path.rfind("/")]
                    self._disk.directory(folder)
                    made.append(
                        (
                            temporary_in(folder),
                            path,
                            Created(key, self._disk.later_than(floors[names[key]]), data),
                        )
                    )
                    self._keeps_ns = self._keeps_ns and self._write_stamped(*made[-1][::2], sync=False)
                if self._keeps_ns:
                    with self.log.noted([created for _, _, created in made]):
                        for temporary, path, _ in made:
                            self._disk.rename(temporary, path)
            except BaseException:
                self._discard(temporary for temporary, _, _ in made)
                raise
            if not self._keeps_ns:
                self._discard(temporary for temporary, _, _ in made)
                return None
        self._disk.count(sum(map(len, objects.values())))
        return {created.key: str(created.version) for _, _, created in made}

    @contextmanager
    def removing(self, key: str, version: int) -> Iterator[None]:
        """Have it durable that an object is gone which stands in the log; while this lasts it is removed."""
        with self.log.noted([Created(key, version, None)]):
            yield

    def settle(self) -> bool:
        """Have all that was created on disk in its place; return whether it has to be tried again.

        Raises OSError or StoreUnavailable.
        """
        for path in tuple(self._objects.suspect):
            self._objects.make_certain(path[len(self._disk.root) + 1 :], path)
        return self.log.settle()

    def recover(self) -> None:
        """Have what others have created and were killed before it was settled in its place, before it is relied on."""
        if self.is_recovered:
            return
        try:
            if self.log.are_left():
                with self._disk.lock(_RECOVERING):
                    self.log.recover(self._restore)
        except OSError as exc:
            if exc.errno not in _MAY_NOT_WRITE:  # who may only read finds what is there
                raise unavailable(f"{self._disk.root}/.created", "gone through", exc) from exc
        self.is_recovered = True

    def _restore(self, created: Created) -> None:
        """Make an object what it was when it was created, or deleted, unless somebody has written it since."""
        check_key(created.key)
        path = self._objects.path(created.key)
        with self._locks.of(created.key):
            found = modified_ns(path)
            if found is not None and found > created.version:
                return
            if created.data is None:
                if found is not None:
                    self._disk.unlink(path)
                    self._objects.remove_journal(path)
                return
            if found == created.version and self._objects.read(path)[0] == created.data:
                return
            folder = path[: path.rfind("/")]
            self._disk.directory(folder)
            temporary = temporary_in(folder)
            self._write_stamped(temporary, created, sync=True)
            self._disk.rename(temporary, path)

    def _make_durable(self, objects: Mapping[str, int | None]) -> None:
        """Have objects on disk, those that still have the version; and that others are gone, or other ones."""
        folders = dict[str, None]()
        for key, version in objects.items():
            path = self._objects.path(key)
            folders[path[: path.rfind("/")]] = None
            try:
                if version is not None and modified_ns(path) == version:
                    if path in self._objects.suspect:
                        raise OSError(errno.EIO, "a sync of it has failed", path)
                    fd = os.open(path, _READ)
                    try:
                        with self._objects.doubting(path):
                            self._disk.fsync(fd)
                    finally:
                        os.close(fd)
            except FileNotFoundError:
                continue
        for folder in folders:
            self._disk.sync_directory(folder)

    def _write_stamped(self, temporary: str, created: Created, *, sync: bool) -> bool:
        """Make a file with an object's content and time; return whether it has that time."""

        def stamp(fd: int) -> bool:
            os.utime(fd, ns=(created.version, created.version))
            return os.fstat(fd).st_mtime_ns == created.version

        return self._disk.write(temporary, created.data or b"", stamp, sync=sync)

    def _discard(self, temporaries: Iterable[str]) -> None:
        for temporary in temporaries:
            self._disk.discard(temporary)
