"""Targets of the job services: the same ones in the cloud and on one machine, from where they are called as they are.

The registry asks for them by their target type, `orchestrator.runtime.jobs:BigQuery`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from orchestrator.model.enums import JOBS, TargetTypes
from orchestrator.model.nodes import Task
from orchestrator.ports import Target
from orchestrator.runtime.local import LocalParts
from orchestrator.runtime.settings import Settings
from orchestrator.services.google_api import OVERRIDE

if TYPE_CHECKING:
    from orchestrator.runtime.cloud import CloudParts

ASK_LOCALLY_EVERY_S = 5.0
"""The local Tick comes every second, which is more often than the services like to be asked."""


def __getattr__(name: str) -> Callable[[CloudParts | LocalParts], Target]:
    if name not in JOBS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return lambda parts: job_target(parts, TargetTypes(name))


def job_target(parts: CloudParts | LocalParts, target_type: TargetTypes) -> Target:
    """Return the target of a job service. A step that has no project or region is refused when it is launched."""
    from orchestrator.targets.job_services import SERVICES
    from orchestrator.targets.jobs import JobTarget

    settings, is_local = parts.settings, isinstance(parts, LocalParts)
    return JobTarget(
        SERVICES[target_type],
        parts.apis,
        project=settings.project,
        region=settings.region,
        launch_limit_s=settings.launch_call_limit_s,
        ask_every_s=ASK_LOCALLY_EVERY_S if is_local else 0.0,
        is_reminded=not is_local,
    )


def missing_settings(tasks: Iterable[Task], settings: Settings, environment: Mapping[str, str]) -> Iterator[str]:
    """Yield what is missing here to launch the steps of job services, each with the steps that need it.

    A service whose endpoint is overridden needs no credentials.
    """
    jobs = [task for task in tasks if task.target_type in JOBS]
    for name, value, key in (
        ("GOOGLE_CLOUD_PROJECT", settings.project, "project_id"),
        ("FUNCTION_REGION", settings.region, "region"),
    ):
        needing = [task for task in jobs if not value and key not in task.execute()[0].step]
        if needing:
            yield f'{_steps(needing)}: {name}: is not set; set it, or write "{key}" in each of these steps'
    calling = [task for task in jobs if _override(task.target_type) not in environment]
    if calling and (problem := _credentials_problem()):
        yield f"{_steps(calling)}: {problem}; `gcloud auth application-default login` gives a machine its own"


def _override(target_type: TargetTypes) -> str:
    from orchestrator.targets.job_services import SERVICES

    return f"{OVERRIDE}{SERVICES[target_type].api[0].upper()}"


def _credentials_problem() -> str | None:
    try:
        import google.auth
        from google.auth.exceptions import GoogleAuthError
    except ImportError:
        return None  # that Google's client is missing is said elsewhere
    try:
        google.auth.default()
    except GoogleAuthError as exc:
        return f"no credentials: {exc}"
    return None


def _steps(tasks: list[Task]) -> str:
    names = ", ".join(f'"{task.node_name}"' for task in tasks[:8]) + (", …" if len(tasks) > 8 else "")
    return f"step{'s' if len(tasks) > 1 else ''} {names}"
