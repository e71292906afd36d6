"""`make mutate`: which mutants of the engine the tests let live.

mutmut makes the mutants and runs the tests; there are thousands, so a sample is run: drawn over all of the engine, each
mutant as likely as any other, or so many of each module.

python -m tests.mutation sample [--of N | --each N] [--seed N]    names of mutants, for `mutmut run`
python -m tests.mutation report [--of N | --each N] [--seed N]    how many of them were killed, and those that were not
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from random import Random

MUTANTS = Path("mutants/orchestrator/engine")
FAILED = {1, 3}
NEVER_ENDED = {24, -24, 36, 152, 255}
"""Exit codes of mutmut's: a test failed, and the tests took many times as long as without the mutant."""

Codes = Mapping[str, int | None]
"""Mutant -> the exit code of its tests; None: not run."""


def modules() -> dict[str, Codes]:
    """Module -> its mutants."""
    return {
        found.name.removesuffix(".py.meta"): json.loads(found.read_text())["exit_code_by_key"]
        for found in sorted(MUTANTS.glob("*.meta"))
    }


def drawn(names: list[str], number: int, seed: int) -> set[str]:
    """So many of these mutants, the same for the same seed, and more if more are asked for."""
    names = sorted(names)
    Random(seed).shuffle(names)
    return set(names[:number])


def sample(found: Mapping[str, Codes], number: int, seed: int, *, is_each: bool) -> set[str]:
    """Draw so many over all, or of each module."""
    if is_each:
        return {name for mutants in found.values() for name in drawn([*mutants], number, seed)}
    return drawn([name for mutants in found.values() for name in mutants], number, seed)


def report(found: Mapping[str, Codes], asked: set[str]) -> None:
    """Print how many were killed, module by module, and the names of those that were not, or that never ended."""
    alive: list[str] = []
    endless: list[str] = []
    run = 0
    print("| module | mutants | of these run | killed |\n| --- | --- | --- | --- |")
    for module, mutants in found.items():
        codes = {name: code for name, code in sorted(mutants.items()) if name in asked and code is not None}
        if not codes:
            continue
        live = [name for name, code in codes.items() if code not in FAILED | NEVER_ENDED]
        endless += [name for name, code in codes.items() if code in NEVER_ENDED]
        alive, run = alive + live, run + len(codes)
        print(f"| {module} | {len(mutants)} | {len(codes)} | {len(codes) - len(live)} |")
    if run:
        total = sum(len(mutants) for mutants in found.values())
        print(f"| all | {total} | {run} | {run - len(alive)}, {(run - len(alive)) / run:.1%} |")
    print("\n" + "\n".join([*alive, *(f"{name}: killed, for its tests did not end" for name in endless)]))


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.mutation")
    parser.add_argument("what", choices=["sample", "report"])
    parser.add_argument("--of", type=int, default=300, help="so many, drawn over all")
    parser.add_argument("--each", type=int, help="so many of each module instead")
    parser.add_argument("--seed", type=int, default=1, help="another number is another sample")
    asked = parser.parse_args()
    found = modules()
    names = sample(found, asked.each or asked.of, asked.seed, is_each=asked.each is not None)
    if asked.what == "report":
        report(found, names)
    else:
        print("\n".join(sorted(names)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
