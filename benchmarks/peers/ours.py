"""This orchestrator: a DAGExecutor on the local store, every transition durable, as `make bench` measures it."""

import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import noop
from benchmarks.peers.serving import serve, take_standard_output
from benchmarks.workloads import WORKLOADS
from orchestrator import DAGExecutor

NAMES = ("W1", "W2", "W3", "W4", "W5")


def main() -> None:
    """Serve; the argument is the folder to write to."""
    replies = take_standard_output()
    with DAGExecutor(
        {name: WORKLOADS[name].definition() for name in NAMES}, f"file://{sys.argv[1]}/bucket"
    ) as executor:

        def workload(name: str) -> Callable[[], float | None]:
            def run() -> float | None:
                noop.called_at.clear()
                for run_id in [executor.start(name) for _ in range(WORKLOADS[name].runs)]:
                    state = executor.wait(run_id, timeout_s=120)
                    assert state.run.status == "Completed", state.run.error
                return noop.called_at[0] if name == "W4" else None

            return run

        def done() -> int:
            keys = [key for key in executor.store.list("runs/") if key.endswith(".json")]
            states = [executor.wait(key.removeprefix("runs/").removesuffix(".json")) for key in keys]
            nodes = [node for state in states for node in state.nodes.values() if node.target_type]
            return sum(node.status == "Completed" for node in nodes)

        serve("this one", {name: workload(name) for name in NAMES}, done, replies)


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(exist_ok=True)
    main()
