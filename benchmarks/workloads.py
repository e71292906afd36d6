"""The workloads: definitions of no-op Functions, what is aimed at for each, and what is compared as the work grows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

NOOP = {"type": "Task", "target_type": "Function", "function": "benchmarks.noop:noop"}


def chain(length: int, prefix: str = "S", function: str = "benchmarks.noop:noop") -> dict[str, Any]:
    """`length` tasks one after another."""
    steps = {}
    for place in range(length):
        following = {"next": f"{prefix}{place + 1}"} if place + 1 < length else {}
        steps[f"{prefix}{place}"] = {**NOOP, "function": function, **following}
    return {"start": f"{prefix}0", "steps": steps}


def fan_out(width: int) -> dict[str, Any]:
    """One task, `width` at once, one task."""
    branches = [chain(1, f"B{branch}_") for branch in range(width)]
    steps = {"First": {**NOOP, "next": "Fan"}, "Fan": {"type": "Parallel", "branches": branches, "next": "Last"}}
    return {"start": "First", "steps": {**steps, "Last": NOOP}}


def layers(depth: int, width: int) -> dict[str, Any]:
    """`depth` Parallels of `width` tasks one after another."""
    steps = {}
    for layer in range(depth):
        branches = [chain(1, f"L{layer}_{branch}_") for branch in range(width)]
        following = {"next": f"P{layer + 1}"} if layer + 1 < depth else {}
        steps[f"P{layer}"] = {"type": "Parallel", "branches": branches, **following}
    return {"start": "P0", "steps": steps}


def warehouse(areas: int = 1, tenth: int = 100) -> dict[str, Any]:
    """Tasks that depend on others, ten times `tenth` an area: sources, stages, marts that wait for up to hundreds of
    them, reports, one last. The stages of an area after the first also wait for one of the area before."""
    awaited: dict[str, list[str]] = {}
    ends: list[str] = []
    before: list[str] = []
    for area in range(areas):
        sources, stages, marts, reports = (
            [f"{f'A{area}' if area else ''}{what}{number}" for number in range(count)]
            for what, count in (
                ("Source", 4 * tenth),
                ("Stage", 38 * tenth // 10),
                ("Mart", 18 * tenth // 10),
                ("Report", 4 * tenth // 10 - (area == 0)),
            )
        )
        least = 4 * tenth // 10
        awaited |= {name: [] for name in sources}
        awaited |= {name: sources[at : at + 3] + before[at : at + 1] for at, name in enumerate(stages)}
        awaited |= {name: stages[: least + 2 * at] if at % 9 else stages for at, name in enumerate(marts)}
        awaited |= {name: marts[at % 4 :: 2] + stages[at:] for at, name in enumerate(reports)}
        ends += [*stages, *marts, *reports]
        before = stages
    awaited["Last"] = ends
    return {"steps": {name: {**NOOP, **({"depends_on": names} if names else {})} for name, names in awaited.items()}}


LIST_CONCURRENCY = 200


def long_list() -> dict[str, Any]:
    """A Map of what `items` of the run's input has, 200 at once."""
    iterator = {"start": "Do", "steps": {"Do": NOOP}}
    load = {"type": "Map", "items": "${run.input.items}", "max_concurrency": LIST_CONCURRENCY, "iterator": iterator}
    return {"start": "Load", "steps": {"Load": load}}


@dataclass(frozen=True, slots=True)
class Workload:
    """What is measured."""

    what: str
    tasks: int
    """Of all its runs together."""
    definition: Callable[[], dict[str, Any]]
    aim: float | None = None
    """Largest ratio to the floor that is aimed at; of W4, milliseconds."""
    runs: int = 1
    """How many are started at once."""
    items: int = 0
    """How many items the run is given."""
    is_long: bool = False
    """Whether `make bench-long` measures it, and `make bench` does not."""


WORKLOADS: Mapping[str, Workload] = {
    "W1": Workload("chain of 100", 100, lambda: chain(100), 2.3),
    "W2": Workload("fan-out 1 -> 1,000 -> 1", 1002, lambda: fan_out(1000), 0.4),
    "W3": Workload("five layers of 20", 100, lambda: layers(5, 20), 0.7),
    "W4": Workload("start to first task, warm", 1, lambda: chain(1, function="benchmarks.noop:note"), 3.0),
    "W5": Workload("100 runs of a chain of 10 at once", 1000, lambda: chain(10), 2.5, runs=100),
    "W6": Workload("1,000 that depend on up to 599", 1000, warehouse, 2.0),
    "W7": Workload("chain of 1,000", 1000, lambda: chain(1000), 2.3),
    "W8": Workload("fan-out 1 -> 100 -> 1", 102, lambda: fan_out(100)),
    "W9": Workload("100 that depend on up to 59", 100, lambda: warehouse(tenth=10)),
    "L1": Workload("chain of 10,000", 10_000, lambda: chain(10_000), is_long=True),
    "L2": Workload("fan-out 1 -> 10,000 -> 1", 10_002, lambda: fan_out(10_000), 0.4, is_long=True),
    "L3": Workload("10,000 that depend on up to 5,999", 10_000, lambda: warehouse(areas=10), is_long=True),
    "L4": Workload("10,000 in 100 areas like W9", 10_000, lambda: warehouse(areas=100, tenth=10), is_long=True),
    "L5": Workload("a Map of 100,000 items", 100_000, long_list, items=100_000, is_long=True),
}
"""W8 and W9 are there for what the long ones are compared with. W4's aim is in milliseconds."""

GROWTH: Mapping[str, tuple[str, str]] = {"chain": ("W1", "L1"), "fan-out": ("W8", "L2"), "depends_on": ("W9", "L4")}
"""What -> (its workload of 100 nodes, its workload of 10,000)."""
GROWTH_AIM = 3.0
"""CPU and bytes a transition at 10,000 nodes are at most so many times those at 100."""
TRANSITIONS_A_TASK = 2
"""It starts, and it ends."""
