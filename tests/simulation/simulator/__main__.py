"""`make simulate`: simulations without end, or one again.

python -m tests.simulation.simulator [--seed N [--size N] [--order N] [--without N,…]] [--from N] [--seeds N] [--jobs N]
    [--planted NAME]
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from contextlib import nullcontext

from tests.simulation.simulator.many import Summary, simulated
from tests.simulation.simulator.meetings import missing, tables
from tests.simulation.simulator.planted import PLANTED
from tests.simulation.simulator.shrinking import shrunk
from tests.simulation.simulator.simulation import Simulation, Told

SAY_EVERY_S = 10.0


def main() -> int:
    logging.disable(logging.CRITICAL)
    parser = argparse.ArgumentParser(prog="make simulate", description="Simulate runs of the real engine.")
    parser.add_argument("--seed", type=int, help="simulate this one and tell all that happens")
    parser.add_argument("--size", type=int, help="of its definition, where it is not the seed's")
    parser.add_argument("--order", type=int, default=0, help="of its events: another number is another order")
    parser.add_argument("--without", default="", help="numbers of faults that do not strike, with commas")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, help="how many; without it there is no end")
    parser.add_argument("--jobs", type=int, help="on so many cores; by default on all")
    parser.add_argument("--planted", choices=sorted(PLANTED), help="with this fault in the engine")
    asked = parser.parse_args()
    with PLANTED[asked.planted][0]() if asked.planted else nullcontext():
        if asked.seed is not None:
            return _again(asked.seed, asked.size, asked.order, {int(x) for x in asked.without.split(",") if x})
        return _many(asked.first, asked.seeds, asked.jobs)


def _again(seed: int, size: int | None, order: int, without: set[int]) -> int:
    told = Simulation(seed, size=size, order=order, without=without, tells=True).run()
    print("\n".join(told.story))
    _print_end(told)
    return 1 if told.violation else 0


def _many(first: int, number: int | None, jobs: int | None) -> int:
    began = said = time.monotonic()
    all_told = Summary()
    try:
        for found in simulated(first, number, jobs):
            all_told.add(found)
            if found.failed:
                return _failed(*found.failed[0])
            if time.monotonic() - said > SAY_EVERY_S:
                said = time.monotonic()
                print(f"{all_told.seeds} seeds, {all_told.seeds / (said - began):.0f} a second", flush=True)
    except KeyboardInterrupt:
        print()
    took_s = time.monotonic() - began
    print(tables(all_told.met))
    left = missing(all_told.met)
    print(f"\n{len(left)} pairs that can meet have not{': ' if left else ''}{', '.join(left)}")
    print(f"{all_told.seeds} seeds from {first} on in {took_s:.0f} s, {all_told.seeds / took_s:.0f} a second:")
    print(f"{all_told.simulations} simulations, of {all_told.steady} seeds in another order, too: the same documents;")
    print(f"{all_told.steps} steps, {all_told.struck} faults that struck, no violation")
    return 0


def _failed(seed: int, order: int, violation: str) -> int:
    print(f"seed {seed}: {violation}", flush=True)
    told = Simulation(seed, order=order).run()
    if told.violation is None:  # it is what two simulations of it say together
        print(f"make simulate SEED={seed}\nmake simulate SEED={seed} ORDER={order}")
        return 1
    print("shrinking …", flush=True)
    small, words = shrunk(told, order)
    print("\n".join(f"  {fault} at {step}" for fault, step in small.struck))
    print(f"{small.violation}\nmake simulate {words}")
    return 1


def _print_end(told: Told) -> None:
    for run_id, state in told.states.items():
        print(f"{run_id}: {state.run.status}", {name: node.status.value for name, node in state.nodes.items()})
    print(told.violation or "no violation")


if __name__ == "__main__":
    sys.exit(main())
