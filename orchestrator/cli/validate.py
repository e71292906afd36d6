"""`orchestrator validate PATH…`: all problems of all definitions, and what they lack to run here."""

from collections.abc import Sequence
from pathlib import Path

from orchestrator.cli.console import Console
from orchestrator.cli.definitions import Loaded, find_all, load_file
from orchestrator.cli.lines import counted
from orchestrator.cli.sources import has_sources, missing_sources
from orchestrator.model.errors import DefinitionError
from orchestrator.model.nodes import Parallel


def validate(console: Console, paths: Sequence[Path]) -> int:
    """Judge every definition that the paths name; a line each, or a line a problem."""
    is_valid = True
    for path in paths:
        try:
            found = find_all(path)
        except DefinitionError as exc:
            console.err(*exc.problems)
            is_valid = False
            continue
        for name, file in found:
            try:
                loaded = load_file(name, file)
            except DefinitionError as exc:
                console.err(*exc.problems)
                is_valid = False
                continue
            console.out(verdict(loaded))
            if has_sources(loaded.folder):
                for each in missing_sources(loaded.dag.all_tasks, loaded.folder):
                    console.err(f"{file}: will not run locally: {each}")
    return 0 if is_valid else 2


def verdict(loaded: Loaded) -> str:
    """Return `wordcount: ok, 4 tasks, 1 parallel`."""
    parallels = sum(isinstance(node, Parallel) for node in loaded.dag.all_nodes)
    parts = [f"{loaded.name}: ok", counted(len(loaded.dag.all_tasks), "task")]
    return ", ".join(parts + ([counted(parallels, "parallel")] if parallels else []))
