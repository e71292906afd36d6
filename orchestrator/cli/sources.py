"""What the tasks of a DAG run on this machine, and whether it is there."""

from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from orchestrator.cli.lines import listed
from orchestrator.model.enums import JOBS, TargetTypes
from orchestrator.model.nodes import Task
from orchestrator.model.words import did_you_mean

PATTERNS: Mapping[TargetTypes, str] = {
    TargetTypes.CLOUD_FUNCTION: "functions/*/main.py",
    TargetTypes.DATAFLOW: "pipelines/*.py",
}
"""Where the source of a target called `*` lies in its DAG's folder."""

_NEEDS: Mapping[TargetTypes, tuple[str, str, str]] = {
    TargetTypes.CLOUD_FUNCTION: ("functions_framework", "functions-framework", "local"),
    TargetTypes.DATAFLOW: ("apache_beam", "apache-beam", "local"),
    **dict.fromkeys(JOBS, ("googleapiclient", "google-api-python-client", "gcp")),
}
"""target type -> what is imported for it, in which package it is, and in which extra of ours."""


def has_sources(folder: Path) -> bool:
    """Whether the DAG in `folder` is meant to run on this machine too."""
    return any((folder / pattern.partition("/")[0]).is_dir() for pattern in PATTERNS.values())


def source_of(task: Task, folder: Path) -> Path | None:
    """Return where the source of a task has to be; None where it needs none there."""
    pattern = PATTERNS.get(task.target_type)
    return folder / pattern.replace("*", task.target_name) if pattern else None


def missing_sources(tasks: Iterable[Task], folder: Path) -> Iterator[str]:
    """Yield what the DAG in `folder` lacks to run here, each with the steps that it is for."""
    wanted: dict[Path, list[Task]] = {}
    for task in tasks:
        path = source_of(task, folder)
        if path is not None and not path.is_file():
            wanted.setdefault(path, []).append(task)
    for path, users in wanted.items():
        yield f"{_steps(users)}: {path}: there is no such file;{_near(users[0], folder)}"


def missing_modules(tasks: Iterable[Task]) -> Iterator[str]:
    """Yield what cannot be imported here and is needed, each with the steps that it is for."""
    wanted: dict[tuple[str, str, str], list[Task]] = {}
    for task in tasks:
        if task.target_type in _NEEDS:
            wanted.setdefault(_NEEDS[task.target_type], []).append(task)
        elif task.function:
            wanted.setdefault((task.function.partition(":")[0].partition(".")[0], "", ""), []).append(task)
    for (module, package, extra), users in wanted.items():
        if _is_importable(module):
            continue
        if package:
            yield f"{_steps(users)}: {package} is not installed; pip install 'orchestrator[{extra}]'"
        else:
            yield (
                f"{_steps(users)}: {users[0].function}: there is no module {module}; "
                "it must be importable from where this command is started"
            )


def _near(task: Task, folder: Path) -> str:
    before, _, after = PATTERNS[task.target_type].partition("*")
    there = (found.relative_to(folder).as_posix() for found in folder.glob(f"{before}*{after}"))
    names = sorted(each.removeprefix(before).removesuffix(after) for each in there)
    return did_you_mean(task.target_name, names) or f" {before.rstrip('/')} that exist: {listed(names)}"


def _steps(users: list[Task]) -> str:
    return f"step{'s' if len(users) > 1 else ''} {listed(task.node_name for task in users)}"


def _is_importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False
