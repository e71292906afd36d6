"""`orchestrator graph PATH` or `RUN_ID`: a DAG as a flowchart, or a run as it is now."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.cli.bucket import Bucket
from orchestrator.cli.console import Console
from orchestrator.cli.definitions import load
from orchestrator.engine.status import DefinitionStatus
from orchestrator.model.errors import DefinitionError, InputError, OrchestratorError
from orchestrator.model.graph import FORMATS
from orchestrator.model.ids import RUN_ID
from orchestrator.model.run_state import RunState


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be drawn: a PATH, or a RUN_ID where no file or folder is called so, or a bucket is named."""

    what: str | None
    run_id: str | None
    bucket: str | None
    format: str


def graph(console: Console, wanted: Wanted, open_bucket: Callable[[], Bucket]) -> int:
    """Write the drawing.

    Raises:
        DefinitionError: there is no such definition, or it breaks rules.
        InputError: it is neither a file's name nor a run's.
        RunNotFound, CorruptState: there is no such run, or it cannot be read.
    """
    if (wanted.what is None) == (wanted.run_id is None):
        raise InputError("graph: needs a PATH or a RUN_ID, one of them; see orchestrator graph -h")
    draw = FORMATS[wanted.format]
    run_id = wanted.run_id or (wanted.what if wanted.bucket else None)
    if run_id is not None:
        text = _of_run(draw, open_bucket(), run_id)
    else:
        what = wanted.what or ""
        try:
            text = draw(load(Path(what)).dag, None)
        except DefinitionError:
            if Path(what).exists() or not RUN_ID.fullmatch(what):
                raise
            bucket = _bucket_with(what, open_bucket)
            if bucket is None:
                raise InputError(f"{what}: there is no such file or folder, and no run of this id") from None
            text = _of_run(draw, bucket, what)
    console.out(text.rstrip("\n"))
    return 0


def _of_run(draw: Callable[..., str], bucket: Bucket, run_id: str) -> str:
    """Draw a run, by its own definition and not by what that has become since."""
    state: RunState = bucket.load(run_id)
    return draw(DefinitionStatus(bucket.store).load(state.run.definition), state)


def _bucket_with(run_id: str, open_bucket: Callable[[], Bucket]) -> Bucket | None:
    try:
        bucket = open_bucket()
        bucket.load(run_id)
    except OrchestratorError:
        return None
    return bucket
