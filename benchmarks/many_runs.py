"""Measure what finished runs in a bucket cost those that come after: each beside the same in an empty bucket.

    python -m benchmarks.many_runs --runs 100000

A new run, a Tick, `orchestrator runs` (also after the folder was changed by hand, so that it is read anew) and, if
asked for, `orchestrator prune --dry-run` on a local bucket; and how many requests the same listings take of Cloud
Storage, with their time at 30 ms each.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.cloud import CALL_S
from orchestrator import DAGExecutor
from orchestrator.cli.bucket import Bucket
from orchestrator.cli.runs import ALL, Filter, newest
from orchestrator.engine.pruning import Pruner
from orchestrator.model.enums import RunStatus
from orchestrator.model.run_document import encode
from orchestrator.model.run_state import RunInfo, RunState
from orchestrator.ports import ObjectStore
from orchestrator.stores.local import LocalStore
from orchestrator.stores.memory import MemoryStore

OUT = Path(__file__).parent / "out"
CHAIN = {
    "start": "A",
    "steps": {
        "A": {"type": "Task", "target_type": "Function", "function": "benchmarks.noop:noop", "next": "B"},
        "B": {"type": "Task", "target_type": "Function", "function": "benchmarks.noop:noop"},
    },
}
REPEATS = 41
FEW = 20
LISTED = 1000


def ended(number: int, now: datetime) -> tuple[str, bytes]:
    """Return key and document of the number-th newest of runs that ended, one a minute."""
    at = now - timedelta(minutes=number + 1)
    run_id = f"run_{int(at.timestamp())}_{number:012x}"
    info = RunInfo(
        format=1,
        run_id=run_id,
        dag="d",
        definition="sha256:0",
        status=RunStatus.COMPLETED,
        input={},
        started_at=at,
        ended_at=at,
    )
    return f"runs/{run_id}.json", encode(RunState(info, {}))


def fill(root: Path, count: int) -> None:
    """Write so many ended runs, without syncing each."""
    (root / "runs").mkdir(parents=True)
    now = datetime.now(UTC)
    for number in range(count):
        key, document = ended(number, now)
        (root / key).write_bytes(document)
    os.sync()


def took_ms(do: Callable[[], object]) -> float:
    """Milliseconds of a call."""
    begin = time.perf_counter()
    do()
    return (time.perf_counter() - begin) * 1e3


def calls(root: Path, executor: DAGExecutor) -> dict[str, Callable[[], object]]:
    """What is measured in a local bucket."""
    store = LocalStore(root)
    bucket = Bucket(f"file://{root}", store)
    running = Filter(statuses=frozenset({RunStatus.RUNNING}))
    by_hand = root / "runs" / ".by_hand"

    def runs_after_a_hand() -> object:
        if by_hand.exists():
            by_hand.unlink()
        else:
            by_hand.touch()
        return newest(bucket, 20, ALL)

    pruner = Pruner(store, datetime.now(UTC), 3600.0, lambda _: True, is_all=True, is_dry=True)
    return {
        "a new run": lambda: executor.wait(executor.start("d"), timeout_s=60),
        "a Tick": executor.tick,
        "runs": lambda: newest(bucket, 20, ALL),
        "runs, after a hand": runs_after_a_hand,
        "runs --status Running": lambda: newest(bucket, 20, running),
        "prune --dry-run": pruner.prune,
    }


def local(few: Path, many: Path, runs: int, *, is_pruning: bool) -> dict[str, tuple[float, float, float]]:
    """Return the medians of two local buckets, each thing in turn, and of the ratios of these turns."""
    fill(few, FEW)
    fill(many, runs)
    found = {}
    with DAGExecutor({"d": CHAIN}, f"file://{few}") as one, DAGExecutor({"d": CHAIN}, f"file://{many}") as other:
        above = calls(many, other)
        for name, do in calls(few, one).items():
            if name.startswith("prune") and not is_pruning:
                continue
            repeats = 1 if name.startswith("prune") else REPEATS
            do()
            if repeats > 1:
                above[name]()
            both = [(took_ms(do), took_ms(above[name])) for _ in range(repeats)]
            ratio = statistics.median(more / less for less, more in both)
            found[name] = (statistics.median(less for less, _ in both), statistics.median(m for _, m in both), ratio)
    return found


class CountedBucket(MemoryStore):
    """Counts requests as Cloud Storage does: a listing is one for each 1,000 names."""

    def __init__(self) -> None:
        super().__init__()
        self.requests = 0

    def get(self, key: str) -> tuple[bytes, str] | None:
        """See ports.ObjectStore."""
        self.requests += 1
        return super().get(key)

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[str]:
        """See ports.ObjectStore."""
        self.requests += 1
        for number, key in enumerate(super().list(prefix, start_after=start_after), 1):
            self.requests += number % LISTED == 0
            yield key


def cloud(runs: int) -> dict[str, float]:
    """Count the requests of `orchestrator runs` in a bucket of the cloud."""
    store = CountedBucket()
    now = datetime.now(UTC)
    for number in range(runs):
        key, document = ended(number, now)
        store.put(key, document, expect=None)
    found: dict[str, float] = {}
    every: ObjectStore = store
    wanted = {"runs": ALL, "runs --status Running": Filter(statuses=frozenset({RunStatus.RUNNING}))}
    for name, meant in wanted.items():
        store.requests = 0
        newest(Bucket("gs://b", every), 20, meant)
        found[name] = store.requests
    return found


def main() -> None:
    """Measure, print ratios, write benchmarks/out/many_runs.json."""
    parser = argparse.ArgumentParser(prog="benchmarks.many_runs", description=__doc__)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--prune", action="store_true", help="measure prune --dry-run too, which reads every run")
    args = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="many-", dir=OUT)).resolve()
    try:
        found = local(folder / "few", folder / "many", args.runs, is_pruning=args.prune)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{'':28}{f'{FEW} runs':>12}{f'{args.runs:,} runs':>16}{'ratio':>8}")
    for name, (less, more, ratio) in found.items():
        print(f"{name:28}{less:9.2f} ms{more:13.2f} ms{ratio:8.2f}")
    requests = {runs: cloud(runs) for runs in (FEW, args.runs)}
    for name, value in requests[FEW].items():
        above = requests[args.runs][name]
        print(
            f"{'gs:// ' + name:28}{value:7.0f} calls{above:11.0f} calls{above / value:8.2f}   ({above * CALL_S:.1f} s)"
        )
    (OUT / "many_runs.json").write_text(json.dumps({"local_ms": found, "requests": requests}, indent=2) + "\n")


if __name__ == "__main__":
    main()
