"""The workloads: definitions of no-op Functions."""

from collections.abc import Mapping
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


DEFINITIONS: Mapping[str, dict[str, Any]] = {
    "W1": chain(100),
    "W2": fan_out(1000),
    "W3": layers(5, 20),
    "W4": chain(1, function="benchmarks.noop:note"),
    "W5": chain(10),
    "W6": warehouse(),
    "W7": chain(1000),
}
TASKS = {"W1": 100, "W2": 1002, "W3": 100, "W4": 1, "W5": 1000, "W6": 1000, "W7": 1000}
RUNS = {"W1": 1, "W2": 1, "W3": 1, "W4": 1, "W5": 100, "W6": 1, "W7": 1}
WHAT = {
    "W1": "chain of 100",
    "W2": "fan-out 1 -> 1,000 -> 1",
    "W3": "five layers of 20",
    "W4": "start to first task, warm",
    "W5": "100 runs of a chain of 10 at once",
    "W6": "1,000 that depend on up to 599",
    "W7": "chain of 1,000",
}
AIMS = {"W1": 4.0, "W2": 1.0, "W3": 1.5, "W5": 5.0, "W6": 2.0, "W7": 12.0}
"""Largest ratio to the floor that is aimed at; W4's aim is 5 ms."""
W4_AIM_MS = 5.0
