"""Luigi: a task is done when its target is there; each writes a file, by a temporary one that is moved into place.

Durable mode: files (`LocalTarget`, atomic), under the central scheduler luigid with a `state_path`: "While the
--local-scheduler flag is useful for development purposes, it's not recommended for production usage"
(luigi.readthedocs.io/en/stable/central_scheduler.html). The local scheduler, in the worker's process, is measured
beside it. Luigi syncs nothing to the disk: a machine that crashes may lose the last tasks that were done.

As quick as it gets: one worker, since more of them fork a process for each task, which costs more than a task that does
nothing; no wait between. A task does not look again whether those that it requires are done: that is recommended only
"when the completeness checks are known to be bottlenecks" (`check_unfulfilled_deps`,
luigi.readthedocs.io/en/stable/configuration.html), as they are where nothing else is done. `cache_task_completion`
stays off, as it comes: it starts a process a run to keep the answers in, 30 ms, and pays where a check is more than a
look at a local file. Requests go by urllib, as `pip install luigi` leaves it; with `requests` installed it took more
processor time. 100 runs at once are one call for all of them, where a user would start a process for each.
"""

import itertools
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path

from benchmarks.peers.serving import (
    CHAIN,
    DEPTH,
    LAYER,
    RUN_LENGTH,
    RUNS,
    WIDTH,
    free_port,
    serve,
    service,
    take_standard_output,
    wait_for,
)

CONFIGURATION = """
[core]
no_configure_logging = true
[worker]
check_unfulfilled_deps = false
wait_interval = 0.01
wait_jitter = 0
[scheduler]
state_path = {folder}/luigi-state.pickle
"""


@contextmanager
def scheduler() -> Iterator[str]:
    """URL of a luigid that is there meanwhile."""
    port = free_port()
    command = [str(Path(sys.executable).parent / "luigid"), "--address", "127.0.0.1", "--port", str(port)]
    with service(command) as process:
        url = f"http://127.0.0.1:{port}"
        wait_for(f"{url}/api/count_pending?data=%7B%22worker%22%3A%22none%22%7D", process)
        yield url


def main() -> None:
    """Serve; the arguments are the folder to write to, and `luigid` or `local`."""
    replies = take_standard_output()
    folder, mode = Path(sys.argv[1]), sys.argv[2]
    (folder / "luigi.cfg").write_text(CONFIGURATION.format(folder=folder))
    os.environ["LUIGI_CONFIG_PATH"] = str(folder / "luigi.cfg")
    import logging

    import luigi

    logging.disable(logging.WARNING)
    entered: list[float] = []
    numbers = itertools.count()

    class Noop(luigi.Task):
        run_name = luigi.Parameter()
        number = luigi.IntParameter()

        def output(self) -> luigi.LocalTarget:
            return luigi.LocalTarget(f"{folder}/{self.run_name}/{self.number}")

        def run(self) -> None:
            entered.append(time.perf_counter())
            with self.output().open("w"):
                pass

    class Chain(Noop):
        def requires(self) -> list[luigi.Task]:
            return [Chain(self.run_name, self.number - 1)] if self.number else []

    class Wide(Noop):
        """0: the first, 1 to WIDTH: those at once, WIDTH + 1: the last."""

        def requires(self) -> list[luigi.Task]:
            if self.number > WIDTH:
                return [Wide(self.run_name, number) for number in range(1, WIDTH + 1)]
            return [Wide(self.run_name, 0)] if self.number else []

    class Layers(Noop):
        def requires(self) -> list[luigi.Task]:
            begin = (self.number // LAYER - 1) * LAYER
            return [Layers(self.run_name, number) for number in range(begin, begin + LAYER)] if begin >= 0 else []

    class Together(luigi.WrapperTask):
        """Waits for all roots of a run, so that its tasks are gone through once, not once for each root."""

        run_name = luigi.Parameter()

        def requires(self) -> list[luigi.Task]:
            return roots[self.run_name]

    roots: dict[str, list[luigi.Task]] = {}

    def name() -> str:
        return f"run{next(numbers)}"

    def build(root: luigi.Task, url: str | None) -> float:
        entered.clear()
        where = {"local_scheduler": True} if url is None else {"scheduler_url": url}
        assert luigi.build([root], **where)
        return entered[0]

    def layers() -> luigi.Task:
        run_name = name()
        roots[run_name] = [Layers(run_name, (DEPTH - 1) * LAYER + number) for number in range(LAYER)]
        return Together(run_name)

    def chains() -> luigi.Task:
        run_name = name()
        roots[run_name] = [Chain(name(), RUN_LENGTH - 1) for _ in range(RUNS)]
        return Together(run_name)

    with scheduler() if mode == "luigid" else nullcontext(None) as url:

        def all_of(root: luigi.Task) -> None:
            build(root, url)

        workloads = {
            "W1": lambda: all_of(Chain(name(), CHAIN - 1)),
            "W2": lambda: all_of(Wide(name(), WIDTH + 1)),
            "W3": lambda: all_of(layers()),
            "W4": lambda: build(Noop(name(), 0), url),
            "W5": lambda: all_of(chains()),
        }
        serve(version("luigi"), workloads, lambda: sum(1 for _ in folder.glob("run*/*")), replies)


if __name__ == "__main__":
    main()
