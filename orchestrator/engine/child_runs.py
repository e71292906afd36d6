"""ChildRuns: makes the child run that a launch of a Dag Task asks for, or lets an earlier attempt's go on."""

from msgspec.structs import replace

from orchestrator.engine.address import Start
from orchestrator.engine.child_rules import check_child, refusal_of
from orchestrator.engine.large_results import LargeResults
from orchestrator.engine.leading import Leader
from orchestrator.engine.resolve import Resolver
from orchestrator.engine.run_boxes import RunBoxes
from orchestrator.engine.status import DefinitionStatus, OrchestrationStatus
from orchestrator.model.commands import Launch
from orchestrator.model.errors import LaunchRefused, LaunchUncertain, OrchestratorError
from orchestrator.model.facts import RunAdopted
from orchestrator.ports import Clock, ObjectStore


class ChildRuns:
    """Makes child runs by the loop that makes all runs."""

    def __init__(
        self,
        store: ObjectStore,
        clock: Clock,
        definitions: DefinitionStatus,
        large_results: LargeResults,
        resolver: Resolver,
        boxes: RunBoxes,
        leader: Leader,
    ) -> None:
        self._store, self._clock = store, clock
        self._definitions, self._large_results = definitions, large_results
        self._resolver, self._boxes, self._leader = resolver, boxes, leader

    def make(self, launch: Launch, run_id: str) -> str:
        """Make the child run of a launch, or let one go on; return its id.

        It is durable when this returns, and has not begun. Once for a launch, however often it is asked for.

        Raises:
            LaunchRefused: it can never be: there is no such DAG, its input is wrong, …
            LaunchUncertain: not now.
        """
        try:
            check_child(launch)
            if launch.goes_on is not None and self._let_go_on(launch, launch.goes_on):
                return launch.goes_on
            made = self._leader.handle(self._start_of(launch, run_id)).verdict
            if made == "unchanged" and OrchestrationStatus(self._store, run_id).load() is None:
                raise LaunchRefused(f"run {run_id}: was pruned", error_type="Dag.Pruned")
        except OrchestratorError as exc:
            raise refusal_of(exc, launch) from exc
        return run_id

    def _start_of(self, launch: Launch, run_id: str) -> Start:
        if "part" not in launch.step:
            return self._resolver.child(launch, run_id)
        from orchestrator.engine.part_runs import PartRuns

        return PartRuns(self._store, self._definitions, self._large_results).start(launch, run_id)

    def _let_go_on(self, launch: Launch, run_id: str) -> bool:
        """Make a child run that of a later attempt; False where it is gone, or never was."""
        loaded = OrchestrationStatus(self._store, run_id).load()
        if loaded is None or loaded[0].run.parent is None:
            return False
        run, parent = loaded[0].run, loaded[0].run.parent
        if (parent.run_id, parent.node) != (launch.run_id, launch.node_name):
            return False
        if run.pruned_at is not None:
            raise LaunchUncertain(f"run {run_id}: is being deleted by prune")
        if parent.attempt <= launch.attempt:  # also where it goes on already: who let it may have been killed over it
            tolerated: int | None = None
            if "part" in launch.step:
                above = OrchestrationStatus(self._store, launch.run_id).load()
                part = above[0].nodes.get(launch.node_name) if above is not None else None
                tolerated = part.slice.tolerated if part is not None and part.slice is not None else None
            adopted = RunAdopted(replace(parent, attempt=launch.attempt), self._clock.now(), tolerated)
            self._leader.apply(self._boxes.box(run_id), (adopted,))
        return True
