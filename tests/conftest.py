"""What all tests share."""

import json
import signal
from functools import cache
from pathlib import Path

import pytest


def pytest_configure() -> None:
    """Have a ctrl-C work in the programs under test, wherever the tests themselves were started.

    A shell starts what runs in its background with SIGINT ignored, and a program inherits that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@cache
def _durations() -> dict[str, float]:
    """Test -> seconds, as mutmut has measured them; empty before it has."""
    stats = Path("mutmut-stats.json")
    return json.loads(stats.read_text())["duration_by_test"] if stats.exists() else {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where mutmut runs them, have those first that notice most mutants, and then the quickest.

    A mutant is done with at the first that fails.
    """
    if Path.cwd().name == "mutants":
        took = _durations()
        items.sort(key=lambda item: ("transcripts" not in item.nodeid, took.get(item.nodeid, 0.0)))
