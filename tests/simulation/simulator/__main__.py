"""`make simulate`: simulations without end, or one again.

python -m tests.simulation.simulator [--seed N [--size N] [--without N,…]] [--from N] [--seeds N] [--planted NAME]
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import Counter
from contextlib import nullcontext

from tests.simulation.simulator.planted import PLANTED
from tests.simulation.simulator.shrinking import shrunk
from tests.simulation.simulator.simulation import Simulation, Told

SAY_EVERY_S = 10.0


def main() -> int:
    logging.disable(logging.CRITICAL)
    parser = argparse.ArgumentParser(prog="make simulate", description="Simulate runs of the real engine.")
    parser.add_argument("--seed", type=int, help="simulate this one and tell all that happens")
    parser.add_argument("--size", type=int, help="of its definition, where it is not the seed's")
    parser.add_argument("--without", default="", help="numbers of faults that do not strike, with commas")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, help="how many; without it there is no end")
    parser.add_argument("--planted", choices=sorted(PLANTED), help="with this fault in the engine")
    asked = parser.parse_args()
    with PLANTED[asked.planted][0]() if asked.planted else nullcontext():
        if asked.seed is not None:
            return _again(asked.seed, asked.size, {int(each) for each in asked.without.split(",") if each})
        return _many(asked.first, asked.seeds)


def _again(seed: int, size: int | None, without: set[int]) -> int:
    told = Simulation(seed, size=size, without=without, tells=True).run()
    print("\n".join(told.story))
    _print_end(told)
    return 1 if told.violation else 0


def _many(first: int, number: int | None) -> int:
    began = said = time.monotonic()
    met, steps, seed = Counter[tuple[str, str]](), 0, first
    try:
        while number is None or seed < first + number:
            told = Simulation(seed).run()
            seed += 1
            met += told.met
            steps += told.steps
            if told.violation:
                print(f"seed {told.seed}: {told.violation}\nshrinking …", flush=True)
                small, words = shrunk(told)
                print("\n".join(f"  {fault} at {step}" for fault, step in small.struck))
                print(f"{small.violation}\nmake simulate {words}")
                return 1
            if time.monotonic() - said > SAY_EVERY_S:
                said = time.monotonic()
                print(f"{seed - first} seeds, {(seed - first) / (said - began):.0f} a second", flush=True)
    except KeyboardInterrupt:
        print()
    took_s = time.monotonic() - began
    print(_table(met))
    print(f"seeds {first} to {seed - 1}: {seed - first} in {took_s:.0f} s, {(seed - first) / took_s:.0f} a second;")
    print(f"{steps} steps, {sum(met.values())} faults that struck, no violation")
    return 0


def _table(met: Counter[tuple[str, str]]) -> str:
    """Which fault met which step, and how often."""
    by_fault: dict[str, list[str]] = {}
    for (fault, step), times in sorted(met.items()):
        by_fault.setdefault(fault, []).append(f"{step} {times}")
    return "\n".join(f"{fault}: {', '.join(steps)}" for fault, steps in by_fault.items())


def _print_end(told: Told) -> None:
    for run_id, state in told.states.items():
        print(f"{run_id}: {state.run.status}", {name: node.status.value for name, node in state.nodes.items()})
    print(told.violation or "no violation")


if __name__ == "__main__":
    sys.exit(main())
