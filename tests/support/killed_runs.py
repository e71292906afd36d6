"""A run whose process dies (-9) again and again, at a moment that is drawn; the next process goes on with it.

The process kills itself, once so many functions have run in it, and lets only so many more begin until that strikes: so
how often it is killed before the run has ended follows from how much there is to do, and not from how fast who is.
"""

import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from orchestrator.model.commands import Json

_MARK = """
import os, signal, threading, time
from itertools import count

numbers = count(1)
after, beyond, delay_s = int(os.environ["DIES_AFTER"]), int(os.environ["GETS_BEYOND"]), float(os.environ["DIES_IN_S"])

def die():
    time.sleep(delay_s)
    os.kill(os.getpid(), signal.SIGKILL)

def mark(name, path):
    number = next(numbers)
    if after and number > after + beyond:
        threading.Event().wait()
    with open(path, "a") as log:
        log.write(name + "\\n")
    if number == after:
        threading.Thread(target=die).start()
    time.sleep(0.004)
"""

_RUN = """
import json, sys
from orchestrator import DAGExecutor
with DAGExecutor(json.load(open("dag.json")), "file://bucket") as executor:
    try:
        executor.start(run_id="mine")
    except Exception:
        executor.resume("mine")
    print(executor.wait("mine", 60).run.status)
"""


def marking(log: Path, name: str, **keys: Json) -> dict[str, Json]:
    """A step that writes its name into a log."""
    parameters = {"name": name, "path": str(log)}
    return {"type": "Task", "target_type": "Function", "function": "mark:mark", "parameters": parameters, **keys}


def marked(log: Path) -> Counter[str]:
    """How often each step has run."""
    return Counter(log.read_text().split()) if log.exists() else Counter()


def killed_again_and_again(
    folder: Path, definition: Json, at_once: int, *, most_kills: int = 12
) -> Iterator[subprocess.CompletedProcess[str]]:
    """Yield each process that has gone on with the run `mine` in `folder`; the last one has come to its end.

    Args:
        at_once: how many of its functions run side by side at most. In one process some 2 * at_once + 2 run.
        most_kills: after so many, a process is left alive.
    """
    (folder / "mark.py").write_text(_MARK)
    (folder / "run.py").write_text(_RUN)
    (folder / "dag.json").write_text(json.dumps(definition))
    draw = random.Random(7)
    for number in count():
        after = draw.randint(1, at_once + 2) if number < most_kills else 0
        told = {"DIES_AFTER": after, "GETS_BEYOND": at_once, "DIES_IN_S": draw.uniform(0.0, 0.02)}
        process = subprocess.run(
            [sys.executable, "run.py"],
            cwd=folder,
            env={**os.environ, **{name: str(value) for name, value in told.items()}},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        yield process
        if process.returncode == 0 or not after:
            return
