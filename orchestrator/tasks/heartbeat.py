"""heartbeat(): what runs for a launch says that it is at work, for a step with a `heartbeat`.

In a function with `@task` it is known which launch that is; in a container, by the variable ORCHESTRATOR_LAUNCH. It is
written to the bucket of the runs as progress is, or, under the twin of Cloud Functions, to a file beside the log.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from orchestrator.model.errors import OrchestratorError
from orchestrator.model.ids import key_of, parse_launch_id
from orchestrator.model.messages import HEARTBEATS_VARIABLE, LAUNCH_VARIABLE
from orchestrator.model.task_result import heartbeat_file
from orchestrator.tasks.bucket import status_bucket
from orchestrator.tasks.context import Beat, to_nobody
from orchestrator.tasks.progress import Progress

log = logging.getLogger(__name__)

_at_work: ContextVar[Beat | None] = ContextVar("orchestrator_heartbeat", default=None)


def heartbeat() -> None:
    """Say that the launch that this is a part of goes on.

    Cheap to call often: one a second is written, the rest dropped. It never raises, and does nothing where nobody
    listens: in a call by hand, or in a test. A thread that the function has started says it by `Context.heartbeat`.
    """
    (_at_work.get() or _of_container(os.environ.get(LAUNCH_VARIABLE, "")))()


@contextmanager
def at_work(beat: Beat) -> Iterator[None]:
    """Let `heartbeat()` be this one's, in this thread."""
    token = _at_work.set(beat)
    try:
        yield
    finally:
        _at_work.reset(token)


def touch(folder: str, key: str) -> None:
    """Say it by a file. Never raises."""
    try:
        file = Path(folder) / heartbeat_file(key)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    except OSError as exc:
        log.warning("%s: a heartbeat cannot be written: %r", key, exc)


def heartbeats_folder() -> str:
    """Where the twin of Cloud Functions looks for them; empty elsewhere."""
    return os.environ.get(HEARTBEATS_VARIABLE, "")


@lru_cache(maxsize=1)
def _of_container(launch_id: str) -> Beat:
    """Return what says it for the launch that this process is."""
    if parse_launch_id(launch_id) is None:
        return to_nobody
    try:
        store = status_bucket.store()
    except OrchestratorError as exc:
        log.warning("%s: heartbeats cannot be written (told once): %s", launch_id, exc)
        return to_nobody
    if store is None:
        return to_nobody
    return Progress(store, key_of(launch_id), launch_id, lambda: datetime.now(UTC)).beat
