"""Measure a Map of very many items: how large its documents are, how often one is written, how long it takes.

    python -m benchmarks.long_list --items 100000

Each item is a Function that does nothing, on the local store, every transition durable. The same list of a tenth of the
items is run in one document too (`inline_items` as large as the list), for the ratios.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from pathlib import Path

from msgspec.structs import replace

from orchestrator import DAGExecutor
from orchestrator.stores.local import LocalStore

CONCURRENCY = 200

DEFINITION = {
    "start": "Load",
    "steps": {
        "Load": {
            "type": "Map",
            "items": "${run.input.items}",
            "max_concurrency": CONCURRENCY,
            "iterator": {
                "start": "Do",
                "steps": {"Do": {"type": "Task", "target_type": "Function", "function": "benchmarks.noop:noop"}},
            },
        }
    },
}


class CountingStore(LocalStore):
    """A local store that counts what is written to run documents: as in Cloud Storage, the whole at every save."""

    change = None  # type: ignore[assignment]  # so that it is no store that takes changes

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.saves = Counter[str]()
        self.largest = 0
        self.bytes = 0
        self.seconds: dict[str, list[float]] = {}

    def put(self, key: str, data: bytes, *, expect: str | None) -> str:
        """Write and count."""
        version = super().put(key, data, expect=expect)
        if key.startswith("runs/"):
            now = time.perf_counter()
            self.saves[key] += 1
            self.seconds.setdefault(key, [now, now])[1] = now
            self.largest = max(self.largest, len(data))
            self.bytes += len(data)
        return version


def run(items: int, *, inline: bool, interval_s: float) -> dict[str, float]:
    """Run a list once; return what was measured."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        store = CountingStore(Path(folder).resolve())
        with DAGExecutor({"long": DEFINITION}, store=store) as executor:
            policy = executor._policy
            wanted = replace(policy, save_interval_s=interval_s, **({"inline_items": items} if inline else {}))
        with DAGExecutor({"long": DEFINITION}, store=store, policy=wanted) as executor:
            cpu, begin = time.process_time(), time.perf_counter()
            run_id = executor.start("long", input={"items": list(range(items))})
            state = executor.wait(run_id, timeout_s=7200)
            took, cpu = time.perf_counter() - begin, time.process_time() - cpu
        assert state.run.status == "Completed", state.run.error
        results = executor.result_of(state, "Load")
        assert isinstance(results, list)
        assert len(results) == items
    busiest, writes = store.saves.most_common(1)[0]
    first, last = store.seconds[busiest]
    return {
        "items": items,
        "documents": len(store.saves),
        "took_s": took,
        "ms_an_item": took * 1e3 / items,
        "cpu_ms_an_item": cpu * 1e3 / items,
        "largest_bytes": store.largest,
        "bytes_written_an_item": store.bytes / items,
        "writes_an_item": sum(store.saves.values()) / items,
        "writes_of_the_busiest": writes,
        "writes_of_the_busiest_a_second": writes / max(last - first, 1.0),
    }


def main() -> None:
    """Measure, and print one line of JSON for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--interval", type=float, default=0.0, help="least time between saves of one document, s")
    parser.add_argument("--without-inline", action="store_true", help="leave out what runs in one document")
    told = parser.parse_args()
    parts = run(told.items, inline=False, interval_s=told.interval)
    print(json.dumps(parts))
    if not told.without_inline:
        inline = run(told.items // 10, inline=True, interval_s=told.interval)
        print(json.dumps(inline))
        for key in ("largest_bytes", "bytes_written_an_item", "ms_an_item", "writes_of_the_busiest"):
            print(f"{key}: parts / one document of a tenth: {parts[key] / inline[key]:.2f}")


if __name__ == "__main__":
    main()
