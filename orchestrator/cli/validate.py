"""`orchestrator validate PATH…`: all problems of all definitions, and what they lack to run here or in Google Cloud."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli.children import Beside, child_problems
from orchestrator.cli.console import Console
from orchestrator.cli.definitions import Loaded, Written, find_all, read_file
from orchestrator.cli.lines import counted, listed
from orchestrator.cli.sources import has_sources, missing_sources
from orchestrator.model.errors import DefinitionError
from orchestrator.model.nodes import Map, Parallel

if TYPE_CHECKING:
    from orchestrator.cli.deployment import Deployment


_WHO_ASKED = "rights are those of whoever asked; the orchestrator's own account has what Terraform gives it"
_NEEDS_ACCOUNT = (
    "its jobs run as a service account, which the orchestrator may launch them as only if it is in "
    "job_service_accounts of terraform/terraform.tfvars"
)
_NOT_ASKED = "rights were not checked; --online asks Google Cloud, as whoever you are there"


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
    found: list[Written] = []
    is_valid = True
    for path in wanted.paths:
        try:
            located = find_all(path)
        except DefinitionError as exc:
            console.err(*exc.problems)
            is_valid = False
            continue
        for name, file in located:
            try:
                written = read_file(name, file)
                if wanted.is_for_gcp:
                    found.append(written)  # all are judged together
                else:
                    loaded = written.loaded()
                    if refused := list(child_problems(name, loaded.definition, Beside(name, file, loaded.definition))):
                        raise DefinitionError([f"{file}: {problem}" for problem in refused])
                    _here(console, loaded)
            except DefinitionError as exc:
                console.err(*exc.problems)
                is_valid = False
    if wanted.is_for_gcp:
        is_valid = _for_gcp(console, found, environment, is_online=wanted.is_online) and is_valid
    return 0 if is_valid else 2


def _here(console: Console, loaded: Loaded) -> None:
    """Say what it is, and what it lacks to run on this machine."""
    console.out(verdict(loaded))
    if has_sources(loaded.folder):
        for each in missing_sources(loaded.dag.all_tasks, loaded.folder):
            console.err(f"{loaded.file}: will not run locally: {each}")


def verdict(loaded: Loaded) -> str:
    """Return `wordcount: ok, 4 tasks, 1 parallel`."""
    return f"{loaded.name}: ok, {_parts(loaded)}"


def _parts(loaded: Loaded) -> str:
    parallels = sum(isinstance(node, Parallel) for node in loaded.dag.all_nodes)
    parts = [counted(len(loaded.dag.all_tasks), "task")]
    maps = sum(isinstance(node, Map) for node in loaded.dag.all_nodes)
    parts += [counted(number, noun) for number, noun in ((parallels, "parallel"), (maps, "map")) if number]
    return ", ".join(parts)


def _for_gcp(console: Console, found: Sequence[Written], environment: Mapping[str, str], *, is_online: bool) -> bool:
    """Judge definitions for Google Cloud: those that break rules too, as far as their steps tell, and all together."""
    from orchestrator.cli.deployment import deployment_of
    from orchestrator.cli.for_gcp import problems, types_without_accounts
    from orchestrator.cli.online import online_problems
    from orchestrator.cli.together import Together
    from orchestrator.runtime.cloud import rights

    asked = rights(environment) if is_online else None
    beside: dict[Deployment, list[Written]] = {}
    for written in {each.file.resolve(): each for each in found}.values():  # a path may name another's DAG too
        beside.setdefault(deployment_of(written.folder, environment), []).append(written)
    is_valid = True
    for deployment, deployed in beside.items():
        together = Together(deployed, deployment)
        refused = list(together.problems())
        for written in deployed:
            grammar = written.problems()
            expected = together.taken_for_granted(written)
            there = [*problems(written, deployment), *(problem for whose, problem in refused if whose is written)]
            if asked is not None:
                there += online_problems(written, deployment, asked, expected)
            told = {each.partition(": ")[0] for each in grammar}
            lines = [*grammar, *(each for each in there if each.partition(": ")[0] not in told)]
            if lines:
                console.err(*(f"{written.file}: {each}" for each in dict.fromkeys(lines)))
                is_valid = False
                continue
            console.out(f"{written.name}: ok for gcp, {_parts(written.loaded())}")
            if expected and not is_online:
                names = sorted({name for _, _, name in expected})
                console.out(f"  taken to be there already: {counted(len(names), 'function')}: {listed(names)}")
            for target_type in types_without_accounts(written, deployment):
                console.out(f"  {target_type}: {_NEEDS_ACCOUNT}")
    if found:
        console.out(_WHO_ASKED if is_online else _NOT_ASKED)
    return is_valid
