"""Ledger: what became of each launch on this machine, in a directory that outlives the orchestrator.

    <root>/<key>/execution.json      its id, and who holds it
    <root>/<key>/outcome.json        how it ended
    <root>/<key>/log.txt             what it wrote
    <root>/<key>/stop-<holder>       somebody wants it stopped
    <root>/.executions/<id>          -> ../<key>
    <root>/.holders/<name>           locked by the process that runs it, as long as that lives

Whether an execution without an outcome still runs is asked of the kernel: it lets go of a holder's lock when
the process ends, however it ends. One lock a process, not one an execution: a Map over a thousand functions
would need a thousand open files, and macOS gives a process 256.
"""

import fcntl
import os
import re
import tempfile
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from orchestrator.model.commands import Outcome
from orchestrator.model.errors import CorruptState, LaunchUncertain

T = TypeVar("T")

_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


class Record(msgspec.Struct, frozen=True):
    """What `execution.json` holds."""

    execution_id: str
    holder: str


class Holder:
    """A file under `.holders` that is locked while this process, or one that inherits `fd`, lives."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.fd, path = tempfile.mkstemp(dir=folder, prefix="")
        fcntl.flock(self.fd, fcntl.LOCK_EX)
        self._path = Path(path)
        self._is_open = True
        _holders.add(self)

    @property
    def name(self) -> str:
        """Never used twice."""
        return self._path.name

    def hand_over(self) -> None:
        """Leave the lock to the process that has inherited it."""
        if self._is_open:
            self._is_open = False
            os.close(self.fd)

    def release(self) -> None:
        """Hold no more. What is held by this name is given up."""
        with suppress(OSError):
            self._path.unlink()
        self.hand_over()


class Ledger:
    """The records of one directory, for many threads and processes of one machine.

    Args:
        root: the directory; made when it is first needed.

    All methods raise LaunchUncertain where the directory cannot be read or written just now, and
    CorruptState where a record is not what it should be.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))  # a function may change the working directory
        self._lock = threading.Lock()
        self._mine: Holder | None = None

    def log_file(self, key: str) -> Path:
        """Where an execution's output lies."""
        return self.root / key / "log.txt"

    def begin(self, key: str, execution_id: str, holder: Holder | None = None) -> bool:
        """Take the launch on; False if it has ended or somebody alive has it. Of those who ask one gets it.

        Args:
            key: the launch's key.
            execution_id: what its execution is to be called; the same for every try of this launch.
            holder: who lives as long as it runs; this process if None.
        """
        with self._translated(key), self._locked(key):
            record = self._record(key)
            if self._outcome(key) is not None or (record is not None and self._is_alive(record.holder)):
                return False
            held_by = (holder or self._my_holder()).name
            self._write(key, "execution.json", Record(execution_id, held_by))
            index = self.root / ".executions"
            index.mkdir(exist_ok=True)
            with suppress(FileExistsError):
                (index / execution_id).symlink_to(f"../{key}")
            return True

    def finish(self, key: str, outcome: Outcome, holder: str | None = None) -> bool:
        """Keep how it ended, durably; False if that was known already, or somebody else has the launch now.

        Args:
            key: the launch's key.
            outcome: how it ended.
            holder: name of the holder that it was begun with; this process if None.
        """
        with self._translated(key), self._locked(key):
            record = self._record(key)
            held_by = holder or (self._mine.name if self._mine else "")
            if record is None or record.holder != held_by or self._outcome(key) is not None:
                return False
            self._write(key, "outcome.json", outcome)
            return True

    def read(self, key: str) -> tuple[str, Outcome | None] | None:
        """Return (execution id, its outcome if it has ended), or None if the launch was never begun."""
        with self._translated(key):
            record = self._record(key)
            return None if record is None else (record.execution_id, self._outcome(key))

    def find(self, key: str) -> str | None:
        """Return the id of the launch's execution, finished or running; None if it has to be launched."""
        with self._translated(key):
            record = self._record(key)
            if record is None:
                return None
            # Alive first: whoever finishes writes the outcome and only then lets go.
            is_there = self._is_alive(record.holder) or self._outcome(key) is not None
            return record.execution_id if is_there else None

    def outcome(self, execution_id: str) -> Outcome | None:
        """Return how it ended, None while it runs; Lost where its process is gone and left no outcome."""
        key = self.key_of(execution_id)
        if key is None:
            return Outcome.lost(f"{execution_id}: {self.root} holds no record of it")
        with self._translated(key):
            outcome = self._outcome(key)
            if outcome is not None:
                return outcome
            record = self._record(key)
            if record is not None and self._is_alive(record.holder):
                return None
            gone = Outcome.lost(f"{execution_id}: the process that ran it is gone and left no outcome")
            return self._outcome(key) or gone

    def ask_to_stop(self, execution_id: str) -> None:
        """Ask whoever runs it to stop it; no more than that. Ended or unknown, there is nothing to ask."""
        key = self.key_of(execution_id)
        if key is None:
            return
        with self._translated(key):
            record = self._record(key)
            if record is not None and self._outcome(key) is None:
                (self.root / key / f"stop-{record.holder}").touch()

    def is_asked_to_stop(self, key: str, holder: str) -> bool:
        """Whether somebody wants this execution stopped, not an earlier one of the same launch."""
        return (self.root / key / f"stop-{holder}").exists()

    def key_of(self, execution_id: str) -> str | None:
        """Return the key of the launch that this execution belongs to, if there is a record of it."""
        if not _ID.fullmatch(execution_id):
            return None
        with self._translated(execution_id):
            try:
                return Path(os.readlink(self.root / ".executions" / execution_id)).name
            except FileNotFoundError:
                return None

    def hold(self) -> Holder:
        """Make a holder of its own, for an execution that a process of its own runs."""
        with self._translated(".holders"):
            return Holder(self.root / ".holders")

    def close(self) -> None:
        """Give up what this process has begun and not finished: from now on it is lost."""
        with self._lock:
            if self._mine is not None:
                self._mine.release()
                self._mine = None

    def _my_holder(self) -> Holder:
        with self._lock:
            if self._mine is None:
                self._mine = Holder(self.root / ".holders")
            return self._mine

    def _is_alive(self, holder: str) -> bool:
        try:
            fd = os.open(self.root / ".holders" / holder, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: those who ask do not see each other
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(fd)

    def _record(self, key: str) -> Record | None:
        return self._read(key, "execution.json", Record)

    def _outcome(self, key: str) -> Outcome | None:
        return self._read(key, "outcome.json", Outcome)

    def _read(self, key: str, name: str, type_: type[T]) -> T | None:
        path = self.root / key / name
        try:
            return msgspec.json.decode(path.read_bytes(), type=type_)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as exc:
            raise CorruptState(f"{path}: {exc}; remove the folder to have the attempt forgotten") from exc

    def _write(self, key: str, name: str, value: Record | Outcome) -> None:
        """Replace the file as a whole. An outcome is on disk when this returns; that a launch was begun, which
        the power cut that forgets it ends anyway, need not be."""
        folder = self.root / key
        fd, temporary = tempfile.mkstemp(dir=folder, prefix=".new-")
        try:
            with open(fd, "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
                file.flush()
                os.fsync(fd)
            os.rename(temporary, folder / name)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        if isinstance(value, Outcome):
            directory = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Be the only one who changes this record, for a moment."""
        folder = self.root / key
        folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    @contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise LaunchUncertain(
                f"{self.root}/{name}: {exc.strerror or exc}; the record of a launch must be readable and writable"
            ) from exc


_holders = weakref.WeakSet[Holder]()


def _after_fork_in_child() -> None:
    for holder in _holders:
        holder.hand_over()


os.register_at_fork(after_in_child=_after_fork_in_child)
