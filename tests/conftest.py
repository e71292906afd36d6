"""What all tests share."""

import signal
from pathlib import Path

import pytest


def pytest_configure() -> None:
    """Have a ctrl-C work in the programs under test, wherever the tests themselves were started.

    A shell starts what runs in its background with SIGINT ignored, and a program inherits that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where mutmut runs them, have those first that notice most mutants soonest; a mutant is done with at the first."""
    if Path.cwd().name == "mutants":
        items.sort(key=lambda item: ("transcripts" not in item.nodeid, "/unit/" not in item.nodeid))
