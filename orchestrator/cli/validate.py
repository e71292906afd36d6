"""`orchestrator validate PATH…`: all problems of all definitions, and what they lack to run here or in Google Cloud."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.cli.console import Console
from orchestrator.cli.definitions import Loaded, find_all, load_file
from orchestrator.cli.lines import counted, listed
from orchestrator.cli.sources import has_sources, missing_sources
from orchestrator.model.errors import DefinitionError
from orchestrator.model.nodes import Parallel


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be judged, and for where.

    Attributes:
        is_for_gcp: what would fail in Google Cloud is a problem.
        is_online: and Google Cloud is asked.
    """

    paths: Sequence[Path]
    is_for_gcp: bool = False
    is_online: bool = False


def validate(console: Console, wanted: Wanted, environment: Mapping[str, str]) -> int:
    """Judge every definition that the paths name; a line each, or a line a problem."""
    is_valid, is_any_for_gcp = True, False
    for path in wanted.paths:
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
            if wanted.is_for_gcp:
                is_valid = _for_gcp(console, loaded, environment, is_online=wanted.is_online) and is_valid
                is_any_for_gcp = True
                continue
            console.out(verdict(loaded))
            if has_sources(loaded.folder):
                for each in missing_sources(loaded.dag.all_tasks, loaded.folder):
                    console.err(f"{file}: will not run locally: {each}")
    if is_any_for_gcp and not wanted.is_online:
        console.out("rights were not checked; --online asks Google Cloud, as whoever you are there")
    return 0 if is_valid else 2


def verdict(loaded: Loaded) -> str:
    """Return `wordcount: ok, 4 tasks, 1 parallel`."""
    return f"{loaded.name}: ok, {_parts(loaded)}"


def _parts(loaded: Loaded) -> str:
    parallels = sum(isinstance(node, Parallel) for node in loaded.dag.all_nodes)
    parts = [counted(len(loaded.dag.all_tasks), "task")]
    return ", ".join(parts + ([counted(parallels, "parallel")] if parallels else []))


def _for_gcp(console: Console, loaded: Loaded, environment: Mapping[str, str], *, is_online: bool) -> bool:
    from orchestrator.cli.for_gcp import taken_for_granted

    found = list(_problems_there(loaded, environment, is_online=is_online))
    if found:
        console.err(*(f"{loaded.file}: {each}" for each in found))
        return False
    console.out(f"{loaded.name}: ok for gcp, {_parts(loaded)}")
    expected = taken_for_granted(loaded)
    if expected and not is_online:
        console.out(f"  taken to be there already: {counted(len(expected), 'function')}: {listed(expected)}")
    return True


def _problems_there(loaded: Loaded, environment: Mapping[str, str], *, is_online: bool) -> Iterator[str]:
    from orchestrator.cli.deployment import deployment_of
    from orchestrator.cli.for_gcp import problems
    from orchestrator.cli.online import online_problems
    from orchestrator.runtime.cloud import rights

    deployment = deployment_of(loaded.folder, environment)
    yield from problems(loaded, deployment)
    if is_online:
        yield from online_problems(loaded, deployment, rights(environment))
