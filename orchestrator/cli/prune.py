"""`orchestrator prune --older-than 30d`: delete ended runs with all that belongs to them, and dead letters.

It may run beside instances that run others, and be run again after it was interrupted. Exit code 2 where something
could not be read or deleted; all else is deleted all the same.
"""

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from orchestrator.cli.bucket import Bucket
from orchestrator.cli.console import Console
from orchestrator.cli.lines import counted, printable
from orchestrator.cli.runs import Filter
from orchestrator.engine.pruning import LEAST_AGE_S, Pruned, Pruner
from orchestrator.model.enums import RunStatus
from orchestrator.model.errors import InputError
from orchestrator.runtime.catalog import as_json

MAX_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be deleted, and how that is told."""

    older_than_s: float
    runs: Filter
    is_dry: bool = False
    is_json: bool = False


def prune(console: Console, bucket: Bucket, wanted: Wanted, now: datetime) -> int:
    """Delete it, and say what was deleted.

    Raises:
        InputError: what is meant could not be deleted safely.
    """
    if wanted.older_than_s < LEAST_AGE_S:
        raise InputError("prune: --older-than: is too short; at least 1h, as events of a run come again for a while")
    open_ones = sorted(status for status in wanted.runs.statuses if not status.is_final)
    if open_ones:
        ended = ", ".join(status for status in RunStatus if status.is_final)
        raise InputError(f"prune: --status {open_ones[0]}: such a run has not ended; allowed: {ended}")
    told = Pruner(
        bucket.store,
        now,
        wanted.older_than_s,
        wanted.runs.meets,
        is_all=wanted.runs == Filter(),
        is_dry=wanted.is_dry,
        remove_attempt=_remover(bucket.root / "attempts" if bucket.root else None),
    ).prune()
    if wanted.is_json:
        console.document(as_json({**asdict(told), "dry_run": wanted.is_dry}))
    else:
        _tell(console, told, wanted)
    console.err(*(f"orchestrator: {printable(problem)}" for problem in told.problems))
    return 2 if told.problems else 0


def _tell(console: Console, told: Pruned, wanted: Wanted) -> None:
    verb = "would delete" if wanted.is_dry else "deleted"
    objects = (
        (told.results, "result"),
        (told.attempts, "attempt"),
        (told.executions, "execution record"),
        (told.definitions, "definition"),
        (told.dead_letters, "dead letter"),
    )
    parts = [counted(count, noun) for count, noun in ((len(told.runs), "run"), *objects) if count]
    console.out(f"{verb} {', '.join(parts) or 'nothing'}; {counted(told.kept, 'run')} kept")
    console.out(*(f"  {run_id}" for run_id in told.runs[:MAX_SHOWN]))
    if len(told.runs) > MAX_SHOWN:
        console.out(f"  … and {len(told.runs) - MAX_SHOWN:,} more")


def _remover(attempts: Path | None) -> Callable[[str, bool], int]:
    """Return what removes the directory that the local targets keep of a launch, and the way there by its execution."""

    def remove(key: str, is_dry: bool) -> int:
        folder = attempts / key if attempts is not None else None
        if folder is None or not folder.is_dir():
            return 0
        if not is_dry:
            with suppress(OSError, msgspec.DecodeError, KeyError, TypeError):
                record = msgspec.json.decode((folder / "execution.json").read_bytes())
                link = folder.parent / ".executions" / Path(str(record["execution_id"])).name
                if link.is_symlink():
                    link.unlink()
            shutil.rmtree(folder, ignore_errors=True)
        return 1

    return remove
