"""The tables of limits in the docs, and a bench to go beyond each of them on.

Such a table has a column "beyond it". What stands in `code` in that column is said to whoever goes beyond the limit of
the row; `…` in it stands for any words.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from orchestrator import DAGExecutor
from orchestrator.cli.main import main
from orchestrator.model.run_state import RunState
from orchestrator.runtime.settings import Settings
from orchestrator.testing import SimulatedRun, Simulation
from tests.support.command_line import Place

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("docs/language/*.md"))]


@dataclass(frozen=True)
class Row:
    """A row of such a table: what it says of which page, and of which limit."""

    page: str
    what: str
    limit: str
    beyond: str

    @property
    def key(self) -> tuple[str, str]:
        """What a trial names it by: what begins so is meant."""
        return self.page, self.what

    @cached_property
    def quoted(self) -> list[list[str]]:
        """What is said beyond the limit, each in its pieces."""
        return [re.split(r"\s*…\s*", words) for words in re.findall(r"`([^`]+)`", self.beyond)]

    @property
    def numbers(self) -> list[int]:
        """The numbers that it gives, in order."""
        found = re.findall(r"(?<![\w.])-?\d[\d,]*", self.limit)
        return [int(number.replace(",", "")) for number in found]

    @property
    def most(self) -> int:
        """The limit, where it is one number, or goes from one to another."""
        return self.numbers[1] if re.search(r"\d to -?\d", self.limit) else self.numbers[0]

    def lacks(self, said: str) -> list[str]:
        """Return what it quotes and was not said."""
        return [
            "…".join(pieces)
            for pieces in self.quoted
            if not re.search(".*".join(map(re.escape, pieces)), said, re.DOTALL)
        ]


def rows(pages: list[Path] = PAGES) -> list[Row]:
    """Return the rows of all tables of limits, in the order of the pages."""
    found: list[Row] = []
    for page in pages:
        header: list[str] | None = None
        for line in page.read_text().splitlines():
            cells = [cell.strip() for cell in line[1:-1].split("|")] if line.startswith("| ") else None
            if cells is None:
                header = None
            elif header is None:
                header = cells
            elif header[-1] == "beyond it" and cells[-1] and not set(cells[0]) <= set("- "):
                assert len(cells) == len(header), f"{page}: {line}"
                what, *middle = cells[:-1]
                found.append(Row(str(page.relative_to(ROOT)), what, middle[-1] if middle else what, cells[-1]))
    return found


class Bench:
    """A directory to work in, with the words that the commands say."""

    def __init__(self, root: Path, capture: Callable[[], str]) -> None:
        self.root, self._capture = root, capture
        self.place = Place(root)

    def command(self, *argv: str | Path, ends: int) -> str:
        """Call `orchestrator`, which ends with this exit code; return its name and all that it says."""
        self._capture()
        code = main([str(each) for each in argv])
        said = self._capture()
        assert code == ends, f"{argv}: ended with {code}\n{said[:2000]}"
        return f"{' '.join(str(each) for each in argv if str(each)[0] != '/')}\n{said}"

    def write(self, definition: object, name: str = "d") -> Path:
        """Write the definition of a DAG; return its folder."""
        folder = self.root / name
        folder.mkdir(exist_ok=True)
        (folder / "dag.json").write_text(definition if isinstance(definition, str) else json.dumps(definition))
        return folder

    def refused(self, definition: object, *options: str) -> str:
        """What `orchestrator validate` says of a definition that breaks rules."""
        return self.command("validate", *options, self.write(definition), ends=2)

    def edge(self, make: Callable[[int], object], most: int, *options: str) -> str:
        """What `orchestrator validate` says of the first definition beyond `most`, where it has none against `most`."""
        self.command("validate", *options, self.write(make(most)), ends=0)
        return self.refused(make(most + 1), *options)

    def run(self, definition: dict, input: Mapping[str, object] | None = None, **settings: str) -> RunState:
        """Run a definition to its end, in memory."""
        with DAGExecutor(definition, "memory://", settings=Settings.read(settings)) as executor:
            return executor.wait(executor.start(input=dict(input or {})), timeout_s=60)

    def failed(self, definition: dict, input: Mapping[str, object] | None = None) -> str:
        """What the error of a run is."""
        return error_of(self.run(definition, input))


def error_of(run: RunState | SimulatedRun) -> str:
    """`class: message` of the error that a run has ended with."""
    error = run.error if isinstance(run, SimulatedRun) else run.run.error
    assert error is not None, "it has not failed"
    return f"{error.error_type}: {error.message}"


def ended(world: Simulation, run_id: str) -> str:
    """Likewise, of a run of a simulation."""
    return error_of(world.finish(run_id))


def ending(bench: Bench, definition: dict, ends: int, *options: str) -> str:
    """Run a definition in a directory; return the run's id."""
    before = set(bench.place.run_ids())
    bench.command("run", bench.write(definition), *options, ends=ends)
    (run_id,) = set(bench.place.run_ids()) - before
    return run_id


Trial = Callable[[Bench, Row], str]
"""Goes beyond the limit of a row, and returns what is said."""

TRIALS: dict[tuple[str, str], Trial] = {}
"""(page, how the row begins) -> what tries it."""

ELSEWHERE: dict[tuple[str, str], str] = {}
"""Likewise -> the test that tries it, where that takes more than a bench."""

OTHERS: dict[tuple[str, str], str] = {}
"""Likewise -> whose limit it is, where nothing of ours can show it."""


def beyond(page: str, *begins: str) -> Callable[[Trial], Trial]:
    """Register the trial of the rows of a page that begin so."""

    def register(trial: Trial) -> Trial:
        for begin in begins:
            assert (page, begin) not in TRIALS
            TRIALS[page, begin] = trial
        return trial

    return register
