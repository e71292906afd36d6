"""Measure the workloads in what a user would pick instead, each in turn with ours, and print one table.

    make bench-peers
    python -m benchmarks.peers --peers dbos luigi --seconds 20

Each peer has a virtual environment of its own (.venv/peers/<peer>) of the versions in its requirements.txt. The
docstring of its workloads.py says in what mode it is measured, and why. A process of each measures its own wall time,
from the start of a run until its end has been told; CPU is that of the process and all that it started, servers
included, user and system, from Linux's /proc, over the same time. What a peer still does after a run has ended is not
counted, and is waited for before ours is measured.
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

from benchmarks.peers.postgres import binaries
from benchmarks.peers.processes import TICKS_A_SECOND, cpu_s, kill, settle
from benchmarks.workloads import WORKLOADS

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
OUT = HERE.parent / "out"
VENVS = ROOT / ".venv" / "peers"
NAMES = ("W1", "W2", "W3", "W4", "W5")
REPEATS = {"W1": 3, "W3": 3, "W4": 10}
"""Those that are so short that a round has several of them: Linux counts processor time in hundredths of a second."""


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

    def run(self, workload: str, repeats: int = 1) -> tuple[float, float]:
        """Run a workload; return (wall, CPU) of one repeat, in seconds."""
        before = cpu_s(self._process.pid)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"workload": workload, "repeats": repeats}).encode() + b"\n")
        self._process.stdin.flush()
        walls = self._reply()["walls_s"]
        used = cpu_s(self._process.pid) - before
        assert isinstance(walls, list)
        return statistics.median(walls), used / repeats

    def settle(self) -> None:
        """Wait until it has nothing more to do."""
        settle(self._process.pid)

    def close(self) -> None:
        """Let it end, and stop what it started; whatever is left after a minute is killed."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            kill(self._process.pid)

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
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", wanted]
        subprocess.run(pip, check=True)
        shutil.copy(wanted, installed)
    return str(python)


@contextmanager
def worker(*arguments: object) -> Iterator[Worker]:
    """A worker that is there meanwhile."""
    made = Worker(*arguments)  # type: ignore[arg-type]
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
            for each in (ours, theirs):
                for warm in ("W3", "W4"):
                    each.run(warm)
            rows = {}
            for workload in NAMES:
                repeats = REPEATS.get(workload, 1)
                mine, other = [], []
                until = time.monotonic() + seconds
                while not other or (len(other) < rounds and time.monotonic() < until):
                    theirs.settle()
                    mine.append(ours.run(workload, repeats))
                    other.append(theirs.run(workload, repeats))
                rows[workload] = row(workload, mine, other)
                say(line(workload, rows[workload]))
            return {"title": variant.title, "version": theirs.version, "rows": rows}


def row(workload: str, mine: list[tuple[float, float]], other: list[tuple[float, float]]) -> dict[str, float]:
    """Medians in ms a task, and how many times ours theirs is, round by round."""
    tasks = WORKLOADS[workload].tasks

    def ms(pairs: Sequence[tuple[float, float]], place: int) -> float:
        return statistics.median(pair[place] for pair in pairs) * 1e3 / tasks

    def ratio(place: int) -> float:
        both = zip(mine, other, strict=True)
        return statistics.median(theirs[place] / max(ours[place], 1 / TICKS_A_SECOND) for ours, theirs in both)

    return {
        "rounds": len(other),
        "our_wall_ms": ms(mine, 0),
        "our_cpu_ms": ms(mine, 1),
        "their_wall_ms": ms(other, 0),
        "their_cpu_ms": ms(other, 1),
        "wall_ratio": ratio(0),
        "cpu_ratio": ratio(1),
    }


HEADER = f"{'ms a task':36}{'wall':>10}{'ours':>8}{'times':>8}{'CPU':>12}{'ours':>8}{'times':>8}{'rounds':>8}"


def line(workload: str, row: dict[str, float]) -> str:
    """Return a row as text."""
    behind = [what for what in ("wall", "cpu") if row[f"{what}_ratio"] < 1]
    verdict = f"  AHEAD OF US on {' and '.join(behind)}".replace("cpu", "CPU") if behind else ""
    return (
        f"  {WORKLOADS[workload].what:34}{row['their_wall_ms']:10.3f}{row['our_wall_ms']:8.3f}{row['wall_ratio']:8.2f}"
        f"{row['their_cpu_ms']:12.3f}{row['our_cpu_ms']:8.3f}{row['cpu_ratio']:8.2f}{row['rounds']:8.0f}{verdict}"
    )


def table(result: dict[str, object]) -> str:
    """Return the result as text."""
    peers = result["peers"]
    assert isinstance(peers, list)
    lines = [str(result["machine"]), "", HEADER]
    for peer in peers:
        lines.append(f"{peer['title']} ({peer['version']})")
        lines += [line(workload, row) for workload, row in peer["rows"].items()]
    ratios = [row[f"{what}_ratio"] for peer in peers for row in peer["rows"].values() for what in ("wall", "cpu")]
    ahead = f"ahead of them in {sum(ratio > 1 for ratio in ratios)} of {len(ratios)}"
    return "\n".join([*lines, "", f"times: theirs by ours of the same round; {ahead}"])


def machine() -> str:
    """What was measured on, and how busy it was."""
    load = os.getloadavg()[0]
    return f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, load before {load:.1f}"


def say(text: str) -> None:
    """Tell on standard error how far it is."""
    sys.stderr.write(text + "\n")


def main() -> int:
    """Measure, print, write benchmarks/out/peers.json; return 1 where a peer is ahead somewhere."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    peers = sorted({variant.peer for variant in VARIANTS})
    parser.add_argument("--peers", nargs="+", choices=peers, default=peers, help="which (default: all)")
    parser.add_argument("--rounds", type=int, default=7, help="how often each workload is measured at the most")
    parser.add_argument("--seconds", type=float, default=30, help="how long a workload of a peer may take (default 30)")
    asked = parser.parse_args()
    measured: list[dict[str, object]] = []
    found = {"machine": machine(), "peers": measured}
    for variant in VARIANTS:
        if variant.peer not in asked.peers:
            continue
        if variant.mode == "postgres" and binaries() is None:
            say(f"{variant.title}: left out, PostgreSQL's server is not installed (apt-get install postgresql)")
            continue
        say(f"{variant.title}\n{HEADER}")
        measured.append(measure(variant, asked.seconds, asked.rounds))
    OUT.mkdir(exist_ok=True)
    name = "peers" if asked.peers == peers else "peers-some"
    (OUT / f"{name}.json").write_text(json.dumps(found, indent=2) + "\n")
    (OUT / f"{name}.txt").write_text(table(found) + "\n")
    print(table(found))
    return 1 if "AHEAD OF US" in table(found) else 0


if __name__ == "__main__":
    sys.exit(main())
