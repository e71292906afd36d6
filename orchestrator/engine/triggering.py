"""Triggers: which runs an event of others starts. Loaded where such an event comes; no definition is read before."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from threading import Lock

from orchestrator.engine.catalog import Catalog
from orchestrator.model.allowance import MAX_DECISION_WORK, allowed
from orchestrator.model.commands import Json
from orchestrator.model.dag import DAG
from orchestrator.model.errors import DefinitionError, EventError, ExpressionError, OrchestratorError
from orchestrator.model.events import MessageEvent, ObjectEvent
from orchestrator.model.expressions import Condition, Scope, compile_condition
from orchestrator.model.messages import MAX_DEPTH, is_too_deep
from orchestrator.model.templates import Template, compile_value

log = logging.getLogger("orchestrator")

TriggerEvent = ObjectEvent | MessageEvent


@dataclass(frozen=True, slots=True)
class Triggered:
    """One run that an event starts."""

    dag_name: str
    definition: Mapping[str, Json]
    dag: DAG
    input: Mapping[str, Json]
    variables: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class _Trigger:
    place: int
    bucket: str | None
    prefix: str
    suffix: str
    topic: str | None
    when: Condition | None
    input: Template | None

    @classmethod
    def read(cls, place: int, written: Mapping[str, Json]) -> "_Trigger":
        """Read a trigger, which may break rules: then it is only of use to say for which events it was meant."""
        found = written.get("object")
        source = found if isinstance(found, dict) else {}
        when, run_input = written.get("when"), written.get("input")
        return cls(
            place,
            _text(source.get("bucket")),
            _text(source.get("prefix")) or "",
            _text(source.get("suffix")) or "",
            _text(written.get("topic")),
            compile_condition(when) if isinstance(when, str) else None,
            compile_value(run_input) if isinstance(run_input, dict) else None,
        )

    def is_of(self, event: TriggerEvent) -> bool:
        """Whether an event comes from where this one looks."""
        if isinstance(event, MessageEvent):
            return self.topic == event.topic
        return self.bucket == event.bucket and event.name.startswith(self.prefix) and event.name.endswith(self.suffix)


@dataclass(frozen=True, slots=True)
class _Triggers:
    """Those of one definition; `problem` where it breaks rules, so that none of its runs can be started."""

    dag_name: str
    triggers: tuple[_Trigger, ...]
    problem: OrchestratorError | None = None


class Triggers:
    """The triggers of the definitions that are deployed.

    Args:
        variables_of: (DAG name, DAG) -> the variables that it asks for. Raises SettingsError.
    """

    def __init__(self, catalog: Catalog, variables_of: Callable[[str, DAG], Mapping[str, Json]]) -> None:
        self._catalog, self._variables_of = catalog, variables_of
        self._told = set[tuple[str, int, str]]()
        self._lock = Lock()

    @cached_property
    def _all(self) -> tuple[_Triggers, ...]:
        found = []
        for name in self._catalog.definitions:
            try:
                written = self._catalog.definitions[name].get("triggers")
            except OrchestratorError as exc:  # a file that cannot be read: nobody knows what was to trigger it
                log.error("triggers: %s: cannot be read: %s", name, exc)
                continue
            if isinstance(written, list) and written:
                found.append(self._read(name, [each for each in written if isinstance(each, dict)]))
        return tuple(found)

    def _read(self, name: str, written: list[Mapping[str, Json]]) -> _Triggers:
        try:
            self._catalog.find(name)
        except DefinitionError as exc:
            lenient = ({key: each[key] for key in ("object", "topic") if key in each} for each in written)
            return _Triggers(name, tuple(_Trigger.read(place, each) for place, each in enumerate(lenient)), exc)
        return _Triggers(name, tuple(_Trigger.read(place, each) for place, each in enumerate(written)))

    def runs_of(self, event: TriggerEvent) -> tuple[list[Triggered], list[OrchestratorError]]:
        """Return what an event starts, a run at most of each DAG, and what is wrong with what else it should start.

        Of the triggers of a definition the first one counts that the event matches.
        """
        found: list[Triggered] = []
        problems: list[OrchestratorError] = []
        for triggers in self._all:
            try:
                run = self._run_of(triggers, event)
                if run is not None:
                    found.append(run)
            except OrchestratorError as exc:
                problems.append(exc)
        return found, problems

    def _run_of(self, triggers: _Triggers, event: TriggerEvent) -> Triggered | None:
        looking = [each for each in triggers.triggers if each.is_of(event)]
        if not looking:
            return None
        if triggers.problem is not None:
            raise triggers.problem
        name, definition, dag = self._catalog.find(triggers.dag_name)
        variables = self._variables_of(name, dag)
        scope: Scope = {"event": event.fields, "var": variables}
        for trigger in looking:
            with allowed(MAX_DECISION_WORK):
                if not self._holds(name, trigger, scope):
                    continue
                run_input = _input(name, trigger, scope, event)
            return Triggered(name, definition, dag, run_input, variables)
        return None

    def _holds(self, name: str, trigger: _Trigger, scope: Scope) -> bool:
        """Whether an event matches. One of which that cannot be told, as a key is missing, is of another kind."""
        if trigger.when is None:
            return True
        try:
            return trigger.when(scope)
        except ExpressionError as exc:
            about = (name, trigger.place, str(exc))
            with self._lock:
                is_news = about not in self._told and len(self._told) < 1000
                self._told.add(about)
            if is_news:
                log.warning("dag %s: triggers[%d].when: %s; such an event starts no run", name, trigger.place, exc)
            return False


def _input(name: str, trigger: _Trigger, scope: Scope, event: TriggerEvent) -> Mapping[str, Json]:
    if trigger.input is None:
        return event.fields
    where = f"dag {name}: triggers[{trigger.place}].input"
    try:
        found = trigger.input.resolve(scope)
    except ExpressionError as exc:
        raise EventError(f"{where}: {exc}; allowed is what the event has, or has() in the expression") from exc
    if not isinstance(found, dict) or is_too_deep(found):
        raise EventError(f"{where}: is nested too deeply; allowed are {MAX_DEPTH} levels")
    return found


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) else None
