"""The command line under test: small DAGs of Function steps in a directory, and `orchestrator` called there."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from orchestrator.stores.local import LocalStore

STEPS = '''
import time
from pathlib import Path


def echo(value=None):
    """Return what comes in."""
    return value


def note(name, value=None):
    """Leave a line for each call."""
    with open("calls.txt", "a") as file:
        file.write(name + "\\n")
    return value


def wait_for(name, path):
    """Note the call, and end when there is a file."""
    note(name)
    while not Path(path).exists():
        time.sleep(0.01)
    return name


def shout(text):
    print(text, flush=True)


def boom(message="boom"):
    raise ValueError(message)
'''

_numbers = itertools.count()

TOKEN = re.compile(r"run_\d+_[0-9a-f]{12}")


class Place:
    """A directory in which a person works: DAGs, a module of steps, and the bucket that the commands make."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.module = f"steps_{root.stat().st_ino}_{next(_numbers)}"  # never imported before
        (root / f"{self.module}.py").write_text(STEPS)
        importlib.invalidate_caches()

    def task(self, function: str, following: str | None = None, **parameters: object) -> dict[str, object]:
        """A step that calls a function of the module."""
        way = {"next": following} if following else {"end": True}
        step = {"type": "Task", "target_type": "Function", "function": f"{self.module}:{function}"}
        return step | ({"parameters": parameters} if parameters else {}) | way

    def dag(self, name: str, steps: dict[str, object], start: str | None = None) -> Path:
        """Write a DAG and return its folder."""
        folder = self.root / name
        folder.mkdir(exist_ok=True)
        definition = {"start": start or next(iter(steps)), "steps": steps}
        (folder / "dag.json").write_text(json.dumps(definition, indent=2))
        return folder

    def start(self, *argv: str, **options: object) -> subprocess.Popen[str]:
        """Start `orchestrator` in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "orchestrator", *argv],
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def calls(self) -> list[str]:
        """The calls that were noted, in their order."""
        path = self.root / "calls.txt"
        return path.read_text().split() if path.exists() else []

    def run_ids(self) -> list[str]:
        """The runs in the default bucket."""
        return sorted(path.stem for path in (self.root / ".orchestrator" / "runs").glob("[!.]*.json"))

    def document(self, run_id: str) -> dict[str, dict[str, object]]:
        """A run's document."""
        found = LocalStore(self.root / ".orchestrator").get(f"runs/{run_id}.json")  # beside it may lie what changed
        assert found is not None
        return json.loads(found[0])

    def statuses(self, run_id: str) -> dict[str, tuple[object, object]]:
        """Node -> (status, attempt)."""
        entries = self.document(run_id).items()
        return {name: (entry["status"], entry.get("attempt", 0)) for name, entry in entries if name != "$run"}


def until(happened, limit_s: float = 60.0) -> None:
    """Wait for something that other processes do."""
    end = time.monotonic() + limit_s
    while not happened():
        assert time.monotonic() < end, "it has not happened"
        time.sleep(0.01)


def clean_environment() -> None:
    """Forget the settings of whoever runs the tests."""
    for name in ("STATUS_BUCKET", "ORCHESTRATOR_LOG", "DEFAULT_DAG", "NO_COLOR", "FORCE_COLOR"):
        os.environ.pop(name, None)
