"""A step's own code in place of a fake: its Python function, or the Cloud Function in its DAG's folder."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from threading import RLock
from types import ModuleType
from typing import TYPE_CHECKING
from urllib.parse import unquote

from orchestrator.model.commands import Launch, Outcome
from orchestrator.model.enums import TargetTypes
from orchestrator.model.errors import LaunchRefused
from orchestrator.targets.callables import NotLoaded, attempt, load
from orchestrator.targets.cloud_function_log import Call
from orchestrator.targets.twins import plain, source_of
from orchestrator.testing.behaviours import SOON_S, Behaviour
from orchestrator.testing.errors import SimulationError

if TYPE_CHECKING:
    import flask


def really() -> Behaviour:
    """Run the step's own code, in this process: a Function's callable, or a CloudFunction's `functions/<name>/main.py`.

    A Cloud Function runs under functions-framework (the extra `local`), called as the cloud calls it.
    """
    return Behaviour(work=_unbound, check=None, takes_s=SOON_S)


def _unbound(launch: Launch) -> Outcome:
    raise SimulationError(f"{launch.node_name}: really() runs in a simulation only")


class RealSteps:
    """Runs the code of steps.

    Args:
        folders: DAG name -> its folder.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = folders

    def bound(self, behaviour: Behaviour) -> Behaviour:
        """Return the behaviour with every `really()` in it, also in what follows, bound to these folders."""
        following = self.bound(behaviour.following) if behaviour.following is not None else None
        if behaviour.work is not _unbound:
            return replace(behaviour, following=following) if following is not behaviour.following else behaviour
        return replace(behaviour, work=self.run, check=self.check, following=following)

    def check(self, launch: Launch) -> None:
        """Raise LaunchRefused where there is no such code, SimulationError where the step has none at all."""
        if launch.target_type == TargetTypes.FUNCTION:
            try:
                load(launch.step.get("function"))
            except NotLoaded as exc:
                raise LaunchRefused(f"{launch.node_name}: {exc}", error_type="Function.NotFound") from exc
        elif launch.target_type == TargetTypes.CLOUD_FUNCTION:
            self._source(launch)

    def run(self, launch: Launch) -> Outcome:
        """Run the step's code to its end."""
        if launch.target_type == TargetTypes.FUNCTION:
            return attempt(load(launch.step.get("function")), launch.parameters)[0]
        if launch.target_type == TargetTypes.CLOUD_FUNCTION:
            return _called(self._source(launch), launch)
        raise SimulationError(
            f"{launch.node_name}: really() cannot run a {launch.target_type} step; "
            "allowed: Function and CloudFunction; give the others a fake"
        )

    def _source(self, launch: Launch) -> Path:
        return source_of(self._folders, launch, "functions/*/main.py", error_type="CloudFunction.NotFound")


def _called(source: Path, launch: Launch) -> Outcome:
    from orchestrator.targets.function_server import ERROR_HEADER
    from orchestrator.targets.local_cloud_function import outcome_of_answer

    call = Call.of(launch, "local-project", "local")
    with _own_modules(source.parent):
        try:
            app = _app(source, str(launch.step.get("function") or "main"))
        except ModuleNotFoundError as exc:
            if exc.name in ("flask", "functions_framework"):
                raise SimulationError(
                    f"{launch.node_name}: really() runs a Cloud Function under functions-framework; "
                    "install orchestrator[local]"
                ) from exc
            return Outcome.failed("CloudFunction.LoadError", plain(f"{source}: cannot be loaded: {exc}"))
        except Exception as exc:
            return Outcome.failed("CloudFunction.LoadError", plain(f"{source}: cannot be loaded: {exc!r}"))
        response = app.test_client().post(call.path, data=call.body, headers=call.headers)
        content = response.get_data()
    if 200 <= response.status_code < 300:
        return outcome_of_answer(content)
    words = unquote(response.headers.get(ERROR_HEADER, "")) or content.decode("utf-8", "replace")[:500]
    return Outcome.failed("Task.Failed", plain(f"HTTP {response.status_code}: {words}"))


@cache
def _app(source: Path, entry_point: str) -> "flask.Flask":
    import flask
    import functions_framework

    from orchestrator.targets.function_server import tell_errors

    app: object = functions_framework.create_app(entry_point, str(source), "http")  # type: ignore[no-untyped-call]
    if not isinstance(app, flask.Flask):
        raise TypeError(f"{entry_point} is asynchronous; only functions of the form f(request) run here")
    tell_errors(app)
    return app


_modules_of: dict[Path, dict[str, ModuleType]] = {}
_one_at_a_time = RLock()


@contextmanager
def _own_modules(folder: Path) -> Iterator[None]:
    """Let the code of one function import what lies beside it, and no other function's modules of the same names."""
    with _one_at_a_time:
        path, before = [*sys.path], dict(sys.modules)
        sys.modules.update(_modules_of.get(folder, {}))
        sys.path.insert(0, str(folder))
        try:
            yield
        finally:
            sys.path[:] = path
            own = {name: found for name, found in sys.modules.items() if _is_of(found, folder)}
            _modules_of[folder] = own
            for name in own:
                del sys.modules[name]
                if name in before:
                    sys.modules[name] = before[name]


def _is_of(module: ModuleType, folder: Path) -> bool:
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and folder in Path(file).parents
