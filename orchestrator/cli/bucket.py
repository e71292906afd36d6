"""The bucket that a command looks at, and where in it things lie for a person to open."""

import os
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain, islice
from pathlib import Path
from time import time

from orchestrator.cli.run_names import PREFIX, SUFFIX, RunNames
from orchestrator.engine.status import OrchestrationStatus
from orchestrator.model.errors import InputError, RunNotFound
from orchestrator.model.ids import RUN_ID, key_of
from orchestrator.model.run_state import RunState
from orchestrator.ports import ObjectStore
from orchestrator.runtime.registry import open_store
from orchestrator.runtime.settings import Settings

_MAX_COMPARED = 2000


@dataclass(frozen=True, slots=True)
class Bucket:
    """A store and its name."""

    url: str
    store: ObjectStore

    @property
    def root(self) -> Path | None:
        """The directory that it is, if it is one."""
        root: Path | None = getattr(self.store, "root", None)
        return root

    def document(self, run_id: str) -> str | None:
        """Path or URL of a run's document; None where it ends with this process."""
        key = f"{PREFIX}{run_id}{SUFFIX}"
        if self.url.startswith("memory://"):
            return None
        return short(self.root / key) if self.root else f"{self.url.rstrip('/')}/{key}"

    def log_of(self, launch_id: str) -> Path | None:
        """Where an attempt's log lies, if it has one."""
        path = self.root / "attempts" / key_of(launch_id) / "log.txt" if self.root else None
        return path if path is not None and path.is_file() else None

    def run_names(self, now_s: float, since_s: float = 0.0) -> RunNames:
        """Return the ids of its runs, for who need not know all of them; see RunNames."""
        return RunNames(self.store, now_s, since_s)

    def load(self, run_id: str) -> RunState:
        """Return a run. Raises RunNotFound, which names ids that are near, or CorruptState."""
        state = self.find(run_id)
        if state is None:
            raise self.not_found(run_id)
        return state

    def find(self, run_id: str) -> RunState | None:
        """Return a run, or None where there is none: one read, without a hint. Raises CorruptState."""
        loaded = OrchestrationStatus(self.store, run_id).load() if RUN_ID.fullmatch(run_id) else None
        return None if loaded is None else loaded[0]

    def not_found(self, run_id: str) -> RunNotFound:
        """Return the error that says which runs there are."""
        names = self.run_names(time())
        chosen = [name for _, name in names.chosen()]
        known = list(islice(chain(chosen[:_MAX_COMPARED], names.ours()), _MAX_COMPARED))
        part = [each for each in known if run_id and run_id in each]
        near = part[:3] or get_close_matches(run_id, known, 3)
        if near:
            hint = f"did you mean {' or '.join(near)}?"
        else:
            hint = f"the last one there is {known[0]}" if known else "there are none yet"
        return RunNotFound(f"run {run_id}: there is no such run in {self.url}; {hint}")


def open_to_read(url: str | None, settings: Settings) -> Bucket:
    """Return the bucket `url`, or that of the settings; nothing is made.

    Raises:
        InputError: there is no such directory, or nothing can be in it.
        SettingsError: there is no store of this kind.
    """
    url = url or settings.status_bucket
    bucket = Bucket(url, open_store(url))
    if url.startswith("memory://"):
        raise InputError(
            f"bucket {url}: is empty, it lives and ends with the process that has runs in it; name another"
        )
    if bucket.root is not None and not bucket.root.is_dir():
        what = "is no directory" if bucket.root.exists() else "there is no such directory"
        raise InputError(f"bucket {url}: {short(bucket.root)}: {what}; run a DAG first, or name another by --bucket")
    return bucket


def short(path: Path) -> str:
    """Return a path as seen from here, if it lies below."""
    path = path.absolute()
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return os.fspath(path)
