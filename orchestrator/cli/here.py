"""Runs of several DAGs in this process: started, driven on and told of, until a signal ends it."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from logging import CRITICAL, getLogger
from pathlib import Path

from orchestrator.cli.bucket import Bucket
from orchestrator.cli.children import Beside, tasks_by_folder
from orchestrator.cli.definitions import Loaded
from orchestrator.cli.follow import Interrupted, News
from orchestrator.cli.run import check_sources
from orchestrator.cli.trouble import Trouble
from orchestrator.engine.catalog import Catalog
from orchestrator.engine.saved import Saved
from orchestrator.model.commands import Json
from orchestrator.model.enums import RunStatus
from orchestrator.model.nodes import Task
from orchestrator.model.run_state import RunState
from orchestrator.ports import Clock
from orchestrator.runtime.executor import DAGExecutor
from orchestrator.runtime.settings import Settings


class Here:
    """An executor of DAGs on this machine.

    Args:
        say: takes a line for each run that starts or ends here.

    Attributes:
        open: run id -> status of those that have not ended, as far as this process saved them.
        ended: run id -> the run, of those that ended here.
        news: wakes who waits when a run has ended, or a signal came.
        trouble: whether the bucket has become unusable.
    """

    def __init__(
        self,
        found: Sequence[Loaded],
        url: str,
        settings: Settings,
        clock: Clock,
        say: Callable[[str], None],
        variables: Mapping[str, Json],
    ) -> None:
        self._url, self._settings, self._clock = url, settings, clock
        self._definitions: dict[str, Mapping[str, Json]] = {each.name: each.definition for each in found}
        self._folders: dict[str, Path] = {each.name: each.folder for each in found}
        self._tasks: dict[str, Sequence[Task]] = {each.name: each.dag.all_tasks for each in found}
        for each in found:  # and what they start, directly or not
            beside = Beside(each.name, each.file, each.definition)
            for name, (folder, tasks) in tasks_by_folder(each.name, each.folder, each.dag, beside).items():
                if name not in self._tasks:
                    self._definitions[name], self._folders[name], self._tasks[name] = beside[name], folder, tasks
        self._say, self._variables = say, {**settings.variables, **variables}
        self.open: dict[str, RunStatus] = {}
        self.ended: dict[str, RunState] = {}
        self.news, self.trouble = News(), Trouble()

    def check(self) -> None:
        """Raise InputError with all that the DAGs lack to run here."""
        # As python -m has it: Function steps are importable from where the command is started.
        if not {"", os.getcwd()} & set(sys.path):
            sys.path.insert(0, os.getcwd())
        for name, tasks in self._tasks.items():
            check_sources(tasks, self._folders[name], self._settings)

    @contextmanager
    def executor(self) -> Iterator[DAGExecutor]:
        """Hold the executor. It is closed while a second ctrl-C would kill. Raises Interrupted, by a signal."""
        logger = getLogger("orchestrator")
        logger.addHandler(self.trouble)
        level = logger.level
        try:
            with (
                self.news,
                DAGExecutor(
                    Catalog(self._definitions),
                    self._url,
                    folders=self._folders,
                    settings=self._settings,
                    clock=self._clock,
                    variables=self._variables,
                    on_saved=self._saved,
                ) as executor,
            ):
                try:
                    yield executor
                except Interrupted:
                    logger.setLevel(CRITICAL)  # what breaks off now breaks off because we asked for it
                    raise
        finally:
            logger.removeHandler(self.trouble)
            logger.setLevel(level)

    def bucket(self, executor: DAGExecutor) -> Bucket:
        """The bucket of the runs."""
        return Bucket(self._url, executor.store)

    def _saved(self, saved: Saved) -> None:
        self.trouble.saved()
        run = saved.after.run
        was_open = self.open.get(run.run_id)
        is_told = run.parent is None  # what a run consists of is not, as parts of Maps may be hundreds
        was_queued = saved.before is not None and saved.before.run.waits_for_slot
        begins = was_queued and not run.waits_for_slot and run.status is not RunStatus.CANCELLED
        if is_told and (saved.before is None or begins):
            at = "" if run.scheduled_for is None else f" for {run.scheduled_for:%Y-%m-%d %H:%M} UTC"
            what = "is queued" if run.waits_for_slot else "begins" if begins else "started"
            self._say(f"run {run.run_id} of {run.dag}{at} {what}")
        if not run.status.is_final:
            self.open[run.run_id] = run.status
        elif was_open is not None or saved.before is None or not saved.before.run.status.is_final:
            self.open.pop(run.run_id, None)
            self.ended[run.run_id] = saved.after
            why = f": {run.error.message}" if run.error else ""
            if is_told:
                self._say(f"run {run.run_id} of {run.dag}: {run.status}{why}")
        self.news.saved(saved.after)
