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

Names that start with a dot are the store's own and no keys. As in any directory, no key can be a folder of
another (`a` and `a/b`), and where the file system takes `A` and `a` for one name, they are one key.
"""

import errno
import os
import resource
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from weakref import WeakSet
from zlib import crc32

from orchestrator.model.errors import StoreUnavailable, VersionConflict
from orchestrator.stores.creations import MOST_BYTES, Created, Creations
from orchestrator.stores.disk import LOCK, TEMPORARY, Disk, unavailable
from orchestrator.stores.folding import LARGE_BYTES, Folder
from orchestrator.stores.journal import Members, Record, check_document, encode, merge, record, records, since
from orchestrator.stores.journal_files import JournalFile, JournalFiles, journal_path, object_path, read_all
from orchestrator.stores.keys import check_key, is_key
from orchestrator.stores.stripes import Stripe

_STRIPES = 64  # two programs that share a directory must agree on it
"""So few that they stay open, and are there after some runs: to make a file may cost as much as to sync one."""
_RELAXED_STRIPES = 32
"""Of keys that are not synced: nobody holds one for long."""
_SWEEPING, _RECOVERING = "sweep", "recover"
"""Locks of no key, for those who hold them take the locks of keys."""
_SETTLING = ""
"""What stands in the folder's list for the log of what was created. No key is empty."""
_SETTLED_LATEST = 5 * LARGE_BYTES
"""Five times as late as a small file is folded: most runs have ended then, and their markers are gone."""
_OPEN_JOURNALS = max(16, min(512, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 8))
_MOST_SYNCED = 4096
_SMALL = 256 * 1024
"""A journal of so many bytes is read at once, however small its object is."""
_LEFTOVER_S = 3600.0  # a temporary file as old as this has lost its writer
_SWEEP_EVERY_S = 86400.0

_READ = os.O_RDONLY | os.O_CLOEXEC
_MAY_NOT_WRITE = (errno.EACCES, errno.EPERM, errno.EROFS)


class LocalStore:
    """A directory as bucket, for many threads and many processes of one machine.

    Nothing is created before the first put, so a directory that can only be read can still be listed.

    Args:
        root: the directory; made when it is first needed.
        relaxed: prefixes of keys that are written atomically but not synced to disk: they survive the
            death of the process, and after a power cut they can be rebuilt. Who shares a directory must agree on it.
        now_ns: the time in ns since the epoch, which new versions follow where they can.
    """

    root: Path
    """The directory, absolute."""

    def __init__(
        self,
        root: Path,
        *,
        relaxed: tuple[str, ...] = ("executions/",),
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._root = os.path.abspath(root)
        self.root = Path(self._root)
        self._relaxed = relaxed
        self._disk = Disk(self._root, now_ns)
        self._now_ns, self._keeps_ns = now_ns, True
        self._is_recovered = False
        self._begin_journals()
        _stores.add(self)

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

    def _begin_journals(self) -> None:
        self._journals, self._folder = JournalFiles(_OPEN_JOURNALS), Folder(self._fold)
        self._suspect = set[str]()  # paths where a sync has failed: what stands there may be lost
        self._synced = dict[str, int]()  # path -> time of the file that this instance has synced last
        self._creations = Creations(f"{self._root}/.created", self._disk, self._make_durable)

    def ensure_writable(self) -> None:
        """Make the root if it is missing and write to it once, before a run relies on it.

        Also removes what killed writers left behind, about once a day.

        Raises:
            StoreUnavailable: it cannot be created or written, or is full.
        """
        self._is_recovered = False
        self._recover()
        probe = self._disk.temporary(self._root)
        try:
            self._disk.directory(self._root)
            fd = self._disk.create(probe, sync=True)
            try:
                os.write(fd, b"\n")
            finally:
                os.close(fd)
                os.unlink(probe)
            with self._disk.lock(_SWEEPING):
                left = self._sweep()
            self._remove_journals(left)
        except OSError as exc:
            raise unavailable(self._root, "written", exc) from exc

    def get(self, key: str) -> tuple[bytes, str] | None:
        """Return (content, version), or None if there is no such key. Takes no lock, unless a sync has failed."""
        check_key(key)
        self._recover()
        path = f"{self._root}/{key}"
        if path in self._suspect:
            self._write_anew(key, path)
        try:
            document, version, changes = self._read(path)
        except OSError as exc:
            if self._is_absence(exc):
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
        self._recover()
        path = f"{self._root}/{key}"
        if path in self._suspect:
            self._write_anew(key, path)  # who is told that it is there relies on that, too
        try:
            with self._stripe(key) as floor_ns:
                before = _modified_ns(path)
                journal = self._journals.find(path, before) if before is not None else None
                version = journal.version if journal is not None else before
                found = None if version is None else str(version)
                if found != expect:
                    raise VersionConflict(f"{key}: version is {found}; expected {expect}")
                return str(self._put(key, path, data, floor_ns if version is None else version, journal))
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
        self._recover()
        path = f"{self._root}/{key}"
        try:
            with self._stripe(key):
                document_ns = _modified_ns(path)
                if document_ns is None:
                    raise VersionConflict(f"{key}: version is None; expected {expect}")
                journal = self._journals.find(path, document_ns)
                before = journal.version if journal is not None else document_ns
                if str(before) != expect:
                    raise VersionConflict(f"{key}: version is {before}; expected {expect}")
                if journal is None:
                    journal = self._begin_journal(key, path, document_ns)
                version = max(self._now_ns(), before + 1)
                line = record(before, version, members)
                if (
                    journal is None
                    or journal.size + len(line) > max(journal.document_size, _SMALL)
                    or path in self._suspect
                ):
                    document, _, changes = self._read(path)
                    data = merge(key, document, [*(each.members for each in changes), encode(members)])
                    return str(self._put(key, path, data, before, journal))
                self._append(key, path, journal, line, version)
                return str(version)
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
        self._recover()
        is_small = sum(map(len, objects.values())) <= MOST_BYTES
        if is_small and self._keeps_ns and not any(key.startswith(self._relaxed) for key in objects):
            try:
                created = self._create_together(objects)
            except OSError as exc:
                raise unavailable(f"{self._root}/{next(iter(objects))}", "written", exc) from exc
            if created is not None:
                return created
        return {key: self.put(key, data, expect=None) for key, data in objects.items()}

    def fold(self) -> None:
        """Have all that this instance has changed stand in the files that people open."""
        self._folder.fold_all()
        with suppress(OSError):  # else who opens the directory next sees to it
            self._creations.end()

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[str]:
        """Yield the keys that start with `prefix` and are > `start_after`, sorted.

        It reads only folders that can hold such keys, each when its turn comes.
        """
        self._recover()
        folder = prefix[: prefix.rfind("/") + 1]
        if not folder or is_key(folder[:-1]):
            yield from self._walk(folder, prefix, start_after)

    def delete(self, key: str) -> None:
        """Remove a key; it is no error if there is none. Its folder stays."""
        check_key(key)
        self._recover()
        path = f"{self._root}/{key}"
        try:
            if _modified_ns(path) is None:
                return  # without a lock, which would make the root
            stripe = self._stripe(key)
            with stripe as floor_ns:
                before = _modified_ns(path)
                if before is None:
                    return
                journal = self._journals.find(path, before)
                stripe.raise_floor(max(floor_ns, before if journal is None else journal.version))
                if self._creations.has(key):
                    with self._creations.noted([Created(key, before if journal is None else journal.version, None)]):
                        os.unlink(path)
                        self._drop_journal(key, path, journal)
                    self._folder.note(_SETTLING, _SETTLED_LATEST)
                    return
                os.unlink(path)
                self._drop_journal(key, path, journal)
                if not key.startswith(self._relaxed):
                    self._disk.sync_directory(self._disk.directory(os.path.dirname(path)))
        except OSError as exc:
            if not self._is_absence(exc):
                raise unavailable(path, "deleted", exc) from exc

    def _read(self, path: str) -> tuple[bytes, int, Sequence[Record]]:
        """Return a file's content and modification time, and what its journal has beyond that."""
        return self._read_from(path)[:3]

    def _read_from(self, path: str) -> tuple[bytes, int, Sequence[Record], int]:
        """As `_read`, and from where on the journal was read.

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

    def _create_together(self, objects: Mapping[str, bytes]) -> dict[str, str] | None:
        """Write objects by one sync; None where the file system does not keep times as they are set."""
        made: list[tuple[str, str, Created]] = []
        with ExitStack() as held:
            names = {key: self._stripe_name(key) for key in objects}
            # Whoever takes several, takes them in this order.
            floors = {name: held.enter_context(self._disk.lock(name)) for name in sorted(set(names.values()))}
            for key in objects:
                found = _modified_ns(f"{self._root}/{key}")
                if found is not None:
                    raise VersionConflict(f"{key}: version is {found}; expected None")
            try:
                for key, data in objects.items():
                    path = f"{self._root}/{key}"
                    folder = path[: path.rfind("/")]
                    self._disk.directory(folder)
                    made.append(
                        (
                            self._disk.temporary(folder),
                            path,
                            Created(key, self._disk.later_than(floors[names[key]]), data),
                        )
                    )
                    self._keeps_ns = self._keeps_ns and self._write_stamped(*made[-1][::2], sync=False)
                if self._keeps_ns:
                    with self._creations.noted([created for _, _, created in made]):
                        for temporary, path, _ in made:
                            os.rename(temporary, path)
            except BaseException:
                self._remove(temporary for temporary, _, _ in made)
                raise
            if not self._keeps_ns:
                self._remove(temporary for temporary, _, _ in made)
                return None
        self._disk.count(sum(map(len, objects.values())))
        self._folder.note(_SETTLING, _SETTLED_LATEST)
        return {created.key: str(created.version) for _, _, created in made}

    def _write_stamped(self, temporary: str, created: Created, *, sync: bool) -> bool:
        """Make a file with an object's content and time; return whether it has that time."""

        def stamp(fd: int) -> bool:
            os.utime(fd, ns=(created.version, created.version))
            return os.fstat(fd).st_mtime_ns == created.version

        return self._disk.write(temporary, created.data or b"", stamp, sync=sync)

    @staticmethod
    def _remove(paths: Iterable[str]) -> None:
        for path in paths:
            with suppress(OSError):
                os.unlink(path)

    def _make_durable(self, objects: Mapping[str, int | None]) -> None:
        """Have objects on disk, those that still have the version; and that others are gone, or other ones."""
        folders = set[str]()
        for key, version in objects.items():
            path = f"{self._root}/{key}"
            folders.add(path[: path.rfind("/")])
            with suppress(FileNotFoundError):
                if version is not None and _modified_ns(path) == version:
                    if path in self._suspect:
                        raise OSError(errno.EIO, "a sync of it has failed", path)
                    fd = os.open(path, _READ)
                    try:
                        with self._doubting(path):
                            self._disk.fsync(fd)
                    finally:
                        os.close(fd)
        for folder in folders:
            self._disk.sync_directory(self._disk.directory(folder))

    def _recover(self) -> None:
        """Have what others have created and were killed before it was settled in its place, before it is relied on."""
        if self._is_recovered:
            return
        try:
            if self._creations.are_left():
                with self._disk.lock(_RECOVERING):
                    self._creations.recover(self._restore)
        except OSError as exc:
            if exc.errno not in _MAY_NOT_WRITE:  # who may only read finds what is there
                raise unavailable(f"{self._root}/.created", "gone through", exc) from exc
        self._is_recovered = True

    def _restore(self, created: Created) -> None:
        """Make an object what it was when it was created, or deleted, unless somebody has written it since."""
        check_key(created.key)
        path = f"{self._root}/{created.key}"
        with self._stripe(created.key):
            found = _modified_ns(path)
            if found is not None and found > created.version:
                return
            if created.data is None:
                if found is not None:
                    os.unlink(path)
                    self._journals.remove(path)
                return
            if found == created.version and self._read(path)[0] == created.data:
                return
            folder = path[: path.rfind("/")]
            self._disk.directory(folder)
            temporary = self._disk.temporary(folder)
            self._write_stamped(temporary, created, sync=True)
            os.rename(temporary, path)

    def _put(self, key: str, path: str, data: bytes, above_ns: int, journal: JournalFile | None) -> int:
        """Write a whole object under the lock of its key; its journal is void then."""
        sync = not key.startswith(self._relaxed)
        version = self._disk.replace(path, data, above_ns, sync=sync)
        if sync:
            with self._doubting(path):
                self._disk.sync_directory(self._disk.directory(path[: path.rfind("/")]))
        self._suspect.discard(path)
        self._drop_journal(key, path, journal)
        if sync:
            if len(self._synced) >= _MOST_SYNCED:
                self._synced.clear()
            self._synced[path] = version
        return version

    def _write_anew(self, key: str, path: str) -> None:
        """Write an object as a whole that is as it should be, but may not be on disk: who reads it relies on it."""
        try:
            with self._stripe(key):
                document_ns = _modified_ns(path)
                if document_ns is not None and path in self._suspect:
                    journal = self._journals.find(path, document_ns)
                    document, version, changes = self._read(path)
                    if changes:
                        document = merge(key, document, [each.members for each in changes])
                        version = changes[-1].version
                    self._put(key, path, document, version, journal)
                self._suspect.discard(path)
        except OSError as exc:
            raise unavailable(path, "written", exc) from exc

    def _drop_journal(self, key: str, path: str, journal: JournalFile | None) -> None:
        if journal is not None:
            self._journals.remove(path)
            self._folder.forget(key)

    def _begin_journal(self, key: str, path: str, document_ns: int) -> JournalFile | None:
        """Begin the journal of an object that has none; None where it is to be written as a whole."""
        fd = os.open(path, _READ)
        try:
            document = read_all(fd)
            check_document(key, document)
            is_ours = self._synced.get(path) == document_ns or self._creations.is_durable(key, document_ns)
            if not is_ours and not key.startswith(self._relaxed):  # no journal is to be left of what is lost
                self._disk.fsync(fd)
        finally:
            os.close(fd)
        return self._journals.begin(path, document_ns, len(document))

    def _append(self, key: str, path: str, journal: JournalFile, line: bytes, version: int) -> None:
        try:
            journal.append(line, version)
            self._disk.count(len(line))
            if not key.startswith(self._relaxed):
                with self._doubting(path):
                    self._disk.fsync_data(journal.fd)
                    if journal.is_new:
                        self._disk.sync_directory(self._disk.directory(path[: path.rfind("/")]))
            journal.is_new = False
        except BaseException:
            self._journals.forget(path)  # how much of it was written is seen when it is opened anew
            raise
        self._folder.note(key, journal.document_size)

    def _fold(self, key: str) -> bool:
        """Fold what a journal has into its object's file; return whether it has to be tried again.

        The file is written without the lock, for who owns the object is changing it meanwhile. The journal stays, so
        that the new file's name need not be on disk yet.
        """
        if key == _SETTLING:
            try:
                for path in tuple(self._suspect):
                    self._write_anew(path[len(self._root) + 1 :], path)
                return self._creations.settle()
            except (OSError, StoreUnavailable):
                return True
        path = f"{self._root}/{key}"
        try:
            document, document_ns, changes, begin = self._read_from(path)
            if not changes:
                return False
            data, version = merge(key, document, [each.members for each in changes]), changes[-1].version
            temporary = self._disk.temporary(os.path.dirname(path))
            try:
                self._disk.write(temporary, data, lambda fd: os.utime(fd, ns=(version, version)), sync=True)
                with self._stripe(key):
                    if _modified_ns(path) == document_ns and _modified_ns(temporary) == version:
                        os.rename(temporary, path)
                        self._journals.folded(path, document_ns, version, len(data), begin + changes[-1].end)
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(temporary)
        except (
            FileNotFoundError,
            ValueError,
        ):  # it was deleted meanwhile, or spoilt by hand, which a reader is told of
            return False
        except (OSError, MemoryError):
            return True
        return False

    @contextmanager
    def _doubting(self, path: str) -> Iterator[None]:
        """Note that what stands there may be lost, if this fails."""
        try:
            yield
        except BaseException:
            self._suspect.add(path)
            raise

    def _stripe(self, key: str) -> Stripe:
        return self._disk.lock(self._stripe_name(key))

    def _stripe_name(self, key: str) -> str:
        number = crc32(key.encode())
        # Apart, so that who writes many small things that are not synced does not wait for who syncs.
        return f"relaxed-{number % _RELAXED_STRIPES:02}" if key.startswith(self._relaxed) else f"{number % _STRIPES:02}"

    def _walk(self, folder: str, prefix: str, start_after: str) -> Iterator[str]:
        """Yield the keys below `folder` (empty, or ending in /): `prefix` up to its last /, or deeper."""
        path, found = f"{self._root}/{folder}", []
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    key = folder + entry.name
                    if not is_key(entry.name) or not key.startswith(prefix):
                        continue
                    if entry.is_dir():
                        key += "/"  # so that it sorts as the keys below it do: a-b < a/b < a0
                        if key > start_after or start_after.startswith(key):
                            found.append(key)
                    elif key > start_after and entry.is_file():
                        found.append(key)
        except OSError as exc:
            if self._is_absence(exc):
                return
            raise unavailable(path, "listed", exc) from exc
        for key in sorted(found):
            if key.endswith("/"):
                yield from self._walk(key, prefix, start_after)
            else:
                yield key

    def _is_absence(self, exc: OSError) -> bool:
        """Whether the error means no more than that there is no such key."""
        if isinstance(exc, NotADirectoryError):  # a key where others have a folder, or the root is no directory
            return os.path.isdir(self._root)
        return isinstance(exc, (FileNotFoundError, IsADirectoryError))

    def _sweep(self) -> Sequence[str]:
        """Remove the temporary files of writers that were killed long ago; return the paths whose objects are gone and
        their journals are not."""
        now = self._now_ns() / 1e9
        marker = f"{self._root}/.locks/swept"
        left: list[str] = []
        with suppress(FileNotFoundError):
            if now - os.stat(marker).st_mtime < _SWEEP_EVERY_S:
                return left
        os.close(os.open(marker, LOCK, 0o666))
        os.utime(marker)
        for folder, folders, files in os.walk(self._root):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in files:
                path = f"{folder}/{name}"
                with suppress(OSError):
                    if name.startswith(TEMPORARY) and now - os.stat(path).st_mtime > _LEFTOVER_S:
                        os.unlink(path)
                    elif (owner := object_path(path)) is not None and _modified_ns(owner) is None:
                        left.append(owner)
        return left

    def _remove_journals(self, paths: Sequence[str]) -> None:
        """Remove the journals of objects that are gone, under no other lock: two keys may share one."""
        for path in paths:
            with suppress(OSError), self._stripe(path[len(self._root) + 1 :]):
                if _modified_ns(path) is None:
                    self._journals.remove(path)

    def _after_fork(self) -> None:
        self._disk.after_fork()
        self._begin_journals()


def _modified_ns(path: str) -> int | None:
    """Return a file's modification time, or None if there is no such file."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return None if stat.S_ISDIR(found.st_mode) else found.st_mtime_ns


_stores = WeakSet[LocalStore]()


def _after_fork_in_child() -> None:
    for store in _stores:
        store._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
