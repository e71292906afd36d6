"""`orchestrator run PATH`: run a DAG on this machine, or finish a run that was left, and show it.

The run belongs to its bucket, not to this process: whatever ends the process early, the run is taken up
with --resume where it was left.
"""

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from logging import CRITICAL, getLogger
from pathlib import Path

from orchestrator.cli.bucket import Bucket, open_to_read
from orchestrator.cli.console import Console
from orchestrator.cli.definitions import find, load
from orchestrator.cli.follow import Interrupted, News, follow
from orchestrator.cli.inputs import read_inputs
from orchestrator.cli.progress import View, clock, view_for
from orchestrator.cli.sources import missing_modules, missing_sources
from orchestrator.cli.status import exit_code
from orchestrator.cli.summary import one_line, summary
from orchestrator.cli.trouble import StoreTrouble
from orchestrator.engine.catalog import Catalog
from orchestrator.engine.status import DefinitionStatus
from orchestrator.model.errors import InputError, RunExists
from orchestrator.model.ids import RUN_ID
from orchestrator.model.nodes import Task
from orchestrator.model.run_state import RunState, encode
from orchestrator.runtime.executor import DAGExecutor
from orchestrator.runtime.settings import Settings


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be run, and how it is to be shown."""

    path: Path
    inputs: tuple[str, ...] = ()
    bucket: str | None = None
    resume: str | None = None
    run_id: str | None = None
    is_json: bool = False
    is_verbose: bool = False

    def command(self, *more: str) -> str:
        """Return a command of this kind as a person types it."""
        bucket = ("--bucket", self.bucket) if self.bucket else ()
        return shlex.join(("orchestrator", "run", str(self.path), *more, *bucket))

    @property
    def again(self) -> str:
        """The command that starts such a run anew."""
        return self.command(*(("--input", *self.inputs) if self.inputs else ()))


def run(console: Console, wanted: Wanted, settings: Settings) -> int:
    """Run it, show it, and return the exit code."""
    _check(wanted)
    # As python -m has it: Function steps are importable from where the command is started.
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    with console.output_kept_clean() if wanted.is_json else nullcontext():
        state = _resume(console, wanted, settings) if wanted.resume else _start(console, wanted, settings)
    if wanted.is_json:
        console.document(encode(state))
        if exit_code(state):
            console.err(f"orchestrator: {one_line(state)}")
    return exit_code(state)


def _check(wanted: Wanted) -> None:
    if wanted.resume and wanted.inputs:
        raise InputError("run: --input and --resume do not go together; a run that was started has its input")
    if wanted.resume and wanted.run_id:
        raise InputError("run: --run-id and --resume do not go together; a run that was started has its id")
    for option, run_id in (("--run-id", wanted.run_id), ("--resume", wanted.resume)):
        if run_id is not None and not RUN_ID.fullmatch(run_id):
            raise InputError(f'run: {option} "{run_id}" is no run id; write 1 to 128 of A-Z a-z 0-9 _ -, no _ or - first')


def _start(console: Console, wanted: Wanted, settings: Settings) -> RunState:
    loaded = load(wanted.path)
    run_input = read_inputs(wanted.inputs)
    _check_sources(loaded.dag.all_tasks, loaded.folder)
    news, trouble = News(), StoreTrouble()

    def saved(state: RunState) -> None:
        trouble.saved()
        news.saved(state)

    executor = DAGExecutor(
        Catalog({loaded.name: loaded.definition}, loaded.name),
        wanted.bucket,
        folders={loaded.name: loaded.folder},
        settings=settings,
        on_saved=saved,
    )
    bucket = Bucket(wanted.bucket or settings.status_bucket, executor.store)
    view = view_for(console, is_json=wanted.is_json, is_verbose=wanted.is_verbose)
    with _closed_after(executor), news:
        try:
            run_id = executor.start(loaded.name, run_input, run_id=wanted.run_id)
        except RunExists as exc:
            hint = f"; or see it with: orchestrator status {wanted.run_id}"
            raise InputError(f"{exc}{hint}") from exc
        _tell(console, wanted, f"run {run_id} of {loaded.name} started")
        state = _to_the_end(console, wanted, run_id, executor, news, trouble, view)
    _show(console, wanted, state, bucket)
    return state
