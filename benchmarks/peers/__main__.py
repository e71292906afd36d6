"""Measure the workloads in what a user would pick instead, each in turn with ours, and print one table.

    make bench-peers
    python -m benchmarks.peers --peers dbos luigi --seconds 20

Each peer has a virtual environment of its own (.venv/peers/<peer>) of the versions in its requirements.txt. The
docstring of its workloads.py says in what mode it is measured, and why. A process of each measures its own wall time,
from the start of a run until its end has been told; CPU is that of the process and all that it started, servers
included, user and system, over the same time. What either still does after that is waited for before the other is
measured; it is counted for ours, and not for the peer (peers.json has it).

A round is a few of a workload in one and as many in the other, by turns
the one first and the other. In the end each is asked how many tasks it has recorded as done: of ours it has to be all;
what a peer lacks is shown.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.postgres import binaries, version
from benchmarks.peers.processes import cpu_s, kill, settle
from benchmarks.workloads import WORKLOADS

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
OUT = HERE.parent / "out"
VENVS = ROOT / ".venv" / "peers"
NAMES = ("W1", "W2", "W3", "W4", "W5")
WARM = ("W1", "W3", "W4")
REPEATS = {"W1": 3, "W3": 3, "W4": 20}
"""Those that are so short that a round has several of them, of which it takes the median."""
SHORT_S = 0.5
"""Where the peer took longer than this for one of them to warm up, a round has one."""
ROUNDS = {"W4": 25}
"""The start of a run is mostly a sync or two to the disk, which vary more than anything else: more rounds, too."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to run a peer."""

    peer: str
    """Its folder here."""
    mode: str
    """The argument of its workloads.py."""
    title: str


VARIANTS = (
    Variant("dbos", "postgres", "DBOS, PostgreSQL"),
    Variant("dbos", "sqlite", "DBOS, SQLite"),
    Variant("prefect", "postgres", "Prefect, PostgreSQL"),
    Variant("luigi", "luigid", "Luigi, central scheduler"),
    Variant("luigi", "local", "Luigi, local scheduler"),
)
"""What their makers recommend in production first, then what comes without a server."""


class Worker:
    """A process that runs workloads on demand."""

    def __init__(self, python: str, script: Path, folder: Path, *arguments: str) -> None:
        folder.mkdir()
        self._log = folder / "log"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "HOME": str(folder)}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [python, str(script), str(folder), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=folder,
                env=environment,
            )
        self.version = str(self._reply()["version"])
        self.tasks = 0
        """How many it was asked to run."""

    def run(self, workload: str, repeats: int = 1) -> tuple[float, float]:
        """Run a workload; return (wall, CPU) of one repeat, in seconds."""
        before = cpu_s(self._process.pid)
        walls = self._ask({"workload": workload, "repeats": repeats})["walls_s"]
        used = cpu_s(self._process.pid) - before
        self.tasks += WORKLOADS[workload].tasks * repeats
        assert isinstance(walls, list)
        return statistics.median(walls), used / repeats

    def settle(self) -> float:
        """Wait until it has nothing more to do; return the seconds of processor time that it used until then."""
        return settle(self._process.pid)

    def done(self) -> int:
        """Return how many tasks are recorded as done."""
        return int(str(self._ask({"count": True})["done"]))

    def close(self) -> None:
        """Let it end, and stop what it started; whatever is left after a minute is killed."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            kill(self._process.pid)

    def _ask(self, what: dict[str, object]) -> dict[str, object]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what).encode() + b"\n")
        self._process.stdin.flush()
        return self._reply()

    def _reply(self) -> dict[str, object]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            kill(self._process.pid)
            said = self._log.read_text(errors="replace")[-4000:]
            raise RuntimeError(f"{self._process.args!r} ended with {self._process.wait()}:\n{said}")
        answer = json.loads(line)
        assert isinstance(answer, dict)
        return answer


def environment_of(peer: str) -> str:
    """Path of the interpreter of a peer's virtual environment, which is made where it is not there or is another's."""
    venv, wanted = VENVS / peer, HERE / peer / "requirements.txt"
    python, installed = venv / "bin" / "python", venv / "installed.txt"
    if not installed.exists() or installed.read_text() != wanted.read_text():
        say(f"installing {peer} into {venv.relative_to(ROOT)} …")
        subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
        pip: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", wanted]
        subprocess.run(pip, check=True)
        shutil.copy(wanted, installed)
    return str(python)


@contextmanager
def worker(python: str, script: Path, folder: Path, *arguments: str) -> Iterator[Worker]:
    """A worker that is there meanwhile."""
    made = Worker(python, script, folder, *arguments)
    try:
        yield made
    finally:
        made.close()


def measure(variant: Variant, seconds: float, rounds: int) -> dict[str, object]:
    """Measure a variant and ours in turn: each workload as often as fits into `seconds`, once at least."""
    python = environment_of(variant.peer)
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="peers-", dir=OUT) as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL's user has to reach its folder in it
        script = HERE / variant.peer / "workloads.py"
        with (
            worker(sys.executable, HERE / "ours.py", folder / "ours") as ours,
            worker(python, script, folder / "theirs", variant.mode) as theirs,
        ):
            both = (ours, theirs)
            for each in both:
                warmed = {name: each.run(name)[0] for name in WARM}
                each.settle()
            repeats = {name: times if warmed[name] < SHORT_S else 1 for name, times in REPEATS.items()}
            rows = {}
            for workload in NAMES:
                found: dict[Worker, list[Cost]] = {ours: [], theirs: []}
                until = time.monotonic() + seconds
                while (done := len(found[ours])) < 1 or (
                    done < max(rounds, ROUNDS.get(workload, 0)) and time.monotonic() < until
                ):
                    for each in both if done % 2 == 0 else both[::-1]:
                        times = repeats.get(workload, 1)
                        wall_s, used_s = each.run(workload, times)
                        found[each].append((wall_s, used_s, each.settle() / times))
                rows[workload] = row(workload, found[ours], found[theirs])
                say(line(workload, rows[workload]))
            if (done := ours.done()) != ours.tasks:
                raise RuntimeError(f"this one was asked for {ours.tasks} tasks, and has recorded {done} as done")
            recorded = {"asked": theirs.tasks, "done": theirs.done()}
            return {"title": variant.title, "version": theirs.version, "rows": rows, "tasks": recorded}


Cost = tuple[float, float, float]
"""Seconds: wall, CPU, CPU after the end had been told."""


def row(workload: str, mine: Sequence[Cost], other: Sequence[Cost]) -> dict[str, float]:
    """Medians in ms a task, and how many times ours theirs is, round by round. Ours counts what it does afterwards."""
    mine = [(wall_s, used_s + after_s, after_s) for wall_s, used_s, after_s in mine]
    tasks = WORKLOADS[workload].tasks

    def ms(costs: Sequence[Cost], place: int) -> float:
        return statistics.median(cost[place] for cost in costs) * 1e3 / tasks

    def ratios(place: int) -> list[float]:
        return sorted(theirs[place] / ours[place] for ours, theirs in zip(mine, other, strict=True))

    return {
        "rounds": len(other),
        "our_wall_ms": ms(mine, 0),
        "our_cpu_ms": ms(mine, 1),
        "our_cpu_after_ms": ms(mine, 2),
        "their_wall_ms": ms(other, 0),
        "their_cpu_ms": ms(other, 1),
        "their_cpu_after_ms": ms(other, 2),
        "wall_ratio": statistics.median(ratios(0)),
        "wall_ratio_min": ratios(0)[0],
        "wall_ratio_max": ratios(0)[-1],
        "cpu_ratio": statistics.median(ratios(1)),
    }


HEADER = (
    f"{'ms a task':36}{'wall':>10}{'ours':>8}{'times':>8}{'min':>7}{'max':>7}"
    f"{'CPU':>10}{'ours':>8}{'times':>8}{'rounds':>8}"
)


def line(workload: str, row: dict[str, float]) -> str:
    """Return a row as text."""
    behind = [what for what in ("wall", "cpu") if row[f"{what}_ratio"] < 1]
    verdict = f"  AHEAD OF US on {' and '.join(behind)}".replace("cpu", "CPU") if behind else ""
    return (
        f"  {WORKLOADS[workload].what:34}{row['their_wall_ms']:10.3f}{row['our_wall_ms']:8.3f}{row['wall_ratio']:8.2f}"
        f"{row['wall_ratio_min']:7.2f}{row['wall_ratio_max']:7.2f}{row['their_cpu_ms']:10.3f}{row['our_cpu_ms']:8.3f}{row['cpu_ratio']:8.2f}{row['rounds']:8.0f}{verdict}"
    )


def table(result: dict[str, object]) -> str:
    """Return the result as text."""
    peers = result["peers"]
    assert isinstance(peers, list)
    left_out = result["left_out"]
    assert isinstance(left_out, list)
    lines = [str(result["machine"]), *left_out, "", HEADER]
    for peer in peers:
        tasks = peer["tasks"]
        short = "" if tasks["done"] == tasks["asked"] else f", has recorded {tasks['done']} of {tasks['asked']} as done"
        lines.append(f"{peer['title']} ({peer['version']}){short}")
        lines += [line(workload, row) for workload, row in peer["rows"].items()]
    ratios = [row[f"{what}_ratio"] for peer in peers for row in peer["rows"].values() for what in ("wall", "cpu")]
    ahead = f"ahead of them in {sum(ratio > 1 for ratio in ratios)} of {len(ratios)}"
    return "\n".join([*lines, "", f"times: theirs by ours of the same round, the median; {ahead}"])


def machine() -> str:
    """What was measured on, and how busy it was."""
    load = os.getloadavg()[0]
    database = f", PostgreSQL {version()}" if binaries() else ""
    python = platform.python_version()
    return f"{platform.machine()}, {os.cpu_count()} CPUs, Python {python}{database}, load before {load:.1f}"


def say(text: str) -> None:
    """Tell on standard error how far it is."""
    sys.stderr.write(text + "\n")


def main() -> int:
    """Measure, print, write benchmarks/out/peers.json; return 1 where a peer is ahead somewhere, or left out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    peers = sorted({variant.peer for variant in VARIANTS})
    parser.add_argument("--peers", nargs="+", choices=peers, default=peers, help="which (default: all)")
    parser.add_argument("--rounds", type=int, default=7, help="how often each workload is measured at the most")
    parser.add_argument("--seconds", type=float, default=8, help="how long a workload of a peer may take (default 8)")
    asked = parser.parse_args()
    if sys.platform != "linux":
        parser.error("runs on Linux only, which tells the processor time of other processes")
    measured: list[dict[str, object]] = []
    wanted = [variant for variant in VARIANTS if variant.peer in asked.peers]
    missing = [variant for variant in wanted if variant.mode == "postgres" and binaries() is None]
    left_out = [f"{each.title}: left out, without PostgreSQL's server (apt-get install postgresql)" for each in missing]
    found: dict[str, object] = {"machine": machine(), "left_out": left_out, "peers": measured}
    say("\n".join([str(found["machine"]), *left_out]))
    for variant in wanted:
        if variant in missing:
            continue
        say(f"{variant.title}\n{HEADER}")
        measured.append(measure(variant, asked.seconds, asked.rounds))
    OUT.mkdir(exist_ok=True)
    name = "peers" if asked.peers == peers else "peers-some"
    (OUT / f"{name}.json").write_text(json.dumps(found, indent=2) + "\n")
    (OUT / f"{name}.txt").write_text(table(found) + "\n")
    print(table(found))
    return 1 if left_out or "AHEAD OF US" in table(found) else 0


if __name__ == "__main__":
    sys.exit(main())
