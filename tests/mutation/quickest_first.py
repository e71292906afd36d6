"""A plugin of pytest's, for the tests of a mutant: the quickest first, so that what is killed is killed soon."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

STATS = Path("mutmut-stats.json")
"""How long each test takes, as mutmut has measured it; the tests of mutants run where it lies."""


@cache
def durations() -> dict[str, float]:
    """Test -> seconds; empty before they have been measured."""
    found: dict[str, float] = json.loads(STATS.read_text())["duration_by_test"] if STATS.exists() else {}
    return found


def pytest_collection_modifyitems(items: list) -> None:
    known = durations()
    items.sort(key=lambda item: known.get(item.nodeid, 0.0))
