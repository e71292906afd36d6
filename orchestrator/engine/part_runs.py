"""The child run of a part of a Map: what it begins with, taken from the run that launches it.

It has the definition of that run, the Map with its slice of the items, and what the iterator's expressions name of the
run's input and of its steps: these ended before the Map started, and change no more.
"""

from collections.abc import Mapping

from msgspec.structs import replace

from orchestrator.engine.address import Start
from orchestrator.engine.draft import NO_TIMES, new_state
from orchestrator.engine.large_results import LargeResults
from orchestrator.engine.status import DefinitionStatus, OrchestrationStatus
from orchestrator.model.commands import Json, Launch
from orchestrator.model.dag import DAG
from orchestrator.model.enums import NodeTypes
from orchestrator.model.errors import CorruptState, LaunchRefused
from orchestrator.model.ids import instance_of
from orchestrator.model.node_state import Items, NodeState
from orchestrator.model.nodes import Map
from orchestrator.model.run_state import ParentRun, PartOf, RunState
from orchestrator.model.templates import names_in, paths_in
from orchestrator.ports import ObjectStore


class PartRuns:
    """Makes the starts of parts."""

    def __init__(self, store: ObjectStore, definitions: DefinitionStatus, large_results: LargeResults) -> None:
        self._store, self._definitions, self._large_results = store, definitions, large_results

    def start(self, launch: Launch, run_id: str) -> Start:
        """Return the start of the child run that a part's launch makes.

        Raises:
            LaunchRefused: the run that launches it is gone, or its items are.
            StoreUnavailable: they cannot be read now.
        """
        loaded = OrchestrationStatus(self._store, launch.run_id).load()
        name = launch.node_name[: launch.node_name.rindex("[")]
        entry, part = (loaded[0].nodes.get(each) for each in (name, launch.node_name)) if loaded else (None, None)
        if loaded is None or entry is None or entry.items is None or part is None or part.slice is None:
            raise LaunchRefused(f"{launch.launch_id}: there is no such part of a Map", error_type="Map.NoPart")
        state, cut = loaded[0], part.slice
        dag = self._definitions.load(state.run.definition, state.run.dag)
        place = dag.place(name)
        try:
            values = self._large_results.items_of(entry)
        except CorruptState as exc:
            raise LaunchRefused(f"{name}: {exc}", error_type="Map.BadItems") from exc
        if not isinstance(values, list) or not isinstance(place, Map):
            raise LaunchRefused(f"{name}: has no items", error_type="Map.BadItems")
        items = Items(
            cut.count,
            values[cut.first : cut.first + cut.count],
            first=cut.first,
            at_once=cut.at_once,
            tolerated=cut.tolerated,
        )
        own = replace(new_state(place, instance_of(name)), items=items, caught=entry.caught)
        run = state.run
        above = run.part_of
        part_of = PartOf(
            map=name,
            run_id=above.run_id if above is not None else run.run_id,
            started_at=above.started_at if above is not None else run.started_at,
            ending=above.ending if above is not None else run.ending,
        )
        return Start(
            run_id,
            run.dag,
            dag.definition,
            dag,
            _input_of(place, run.input),
            launch.launch_id,
            run.scheduled_for,
            run.variables,
            parent=ParentRun(launch.run_id, launch.node_name, launch.attempt, launch.depth + 1),
            part_of=part_of,
            nodes=(*_carried(dag, state, place, entry), own),
            priority=run.priority,
        )


def _carried(dag: DAG, state: RunState, place: Map, entry: NodeState) -> list[NodeState]:
    """The entries that what runs in a Map may ask about, as they are for it: nothing of them is under way."""
    definition: Json = place.iterator.definition if isinstance(place.iterator, DAG) else None
    names = [_seen_from(entry.node_name, step, state) for step in sorted(names_in(definition, "steps"))]
    inside = {node.node_name for node in place.iterator.all_nodes}
    found = [state.nodes[name] for name in names if name in state.nodes and dag.place(name).node_name not in inside]
    if entry.caught is not None and entry.caught in state.nodes:
        found.append(state.nodes[entry.caught])
    bare = {
        node.node_name: replace(node, attempt=0, claim=None, due=NO_TIMES, execution_id=None, items=None)
        for node in found
    }
    return [*bare.values()]


def _input_of(place: Map, given: Mapping[str, Json]) -> Mapping[str, Json]:
    """What runs in a Map may ask about of the run's input, which may well hold the whole list that it runs for."""
    definition: Json = place.iterator.definition if isinstance(place.iterator, DAG) else None
    asked = [path[2:3] for path in paths_in(definition, "run") if path[1] == "input"]
    if () in asked:
        return given
    names = {key for path in asked for key in path}
    return {key: value for key, value in given.items() if key in names}


def _seen_from(name: str, step: str, state: RunState) -> str:
    """The entry that an expression inside of the Map `name` means by a step outside."""
    instance = instance_of(name)
    while instance:
        found = state.nodes.get(step + instance)
        if found is not None and found.node_type not in (NodeTypes.ITEM, NodeTypes.PART):
            break
        instance = instance[: instance.rindex("[")]
    return step + instance
