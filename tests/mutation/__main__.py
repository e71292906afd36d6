"""`make mutate`: which mutants of the engine the tests let live.

mutmut makes the mutants and runs the tests; there are thousands, so a sample of each module is run.

python -m tests.mutation sample [--of N] [--seed N]    names of mutants, for `mutmut run`; N of each module
python -m tests.mutation report [--of N] [--seed N]    how many of the sample were killed, and the names of the others
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from random import Random

MUTANTS = Path("mutants/orchestrator/engine")
KILLED = {1, 3, 24, -24, 36}
"""Exit codes of mutmut's that mean that a test failed, or never ended."""


def modules() -> dict[str, dict[str, int | None]]:
    """Module -> its mutants, and the exit code of the tests of each; None: not run."""
    return {
        found.name.removesuffix(".py.meta"): json.loads(found.read_text())["exit_code_by_key"]
        for found in sorted(MUTANTS.glob("*.meta"))
    }


def sample(mutants: dict[str, int | None], number: int, seed: int) -> list[str]:
    """So many of a module's mutants, the same for the same seed, and more if more are asked for."""
    names = sorted(mutants)
    Random(seed).shuffle(names)
    return sorted(names[:number])


def report(number: int, seed: int) -> int:
    """Print how many were killed, module by module, and the names of those that were not."""
    alive, killed, run = [], 0, 0
    print("| module | mutants | of these run | killed |\n| --- | --- | --- | --- |")
    for module, mutants in modules().items():
        codes = {name: mutants[name] for name in sample(mutants, number, seed) if mutants[name] is not None}
        if not codes:
            continue
        dead = sum(code in KILLED for code in codes.values())
        alive += [name for name, code in codes.items() if code not in KILLED]
        killed, run = killed + dead, run + len(codes)
        print(f"| {module} | {len(mutants)} | {len(codes)} | {dead / len(codes):.0%} |")
    if run:
        print(f"| all | | {run} | {killed / run:.1%} |\n")
    print("\n".join(alive))
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.mutation")
    parser.add_argument("what", choices=["sample", "report"])
    parser.add_argument("--of", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    if asked.what == "report":
        return report(asked.of, asked.seed)
    for mutants in modules().values():
        print("\n".join(sample(mutants, asked.of, asked.seed)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
