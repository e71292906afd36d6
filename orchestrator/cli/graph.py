"""`orchestrator graph PATH`: a DAG as a flowchart."""

from pathlib import Path

from orchestrator.cli.console import Console
from orchestrator.cli.definitions import load
from orchestrator.model.graph import FORMATS


def graph(console: Console, path: Path, format_name: str) -> int:
    """Write the drawing of the DAG at `path`."""
    console.out(FORMATS[format_name](load(path).dag).rstrip("\n"))
    return 0
