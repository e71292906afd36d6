"""DAGBuilder: from a definition to its DAG. Pure: what it knows of a run it is handed."""

from collections.abc import Mapping
from typing import Protocol

from orchestrator.model.commands import Json
from orchestrator.model.dag import DAG
from orchestrator.model.definition import check
from orchestrator.model.execution import ExecutionRecord
from orchestrator.model.node_state import NodeState


class NodeStates(Protocol):
    """Where the builder reads the nodes of a run (an OrchestrationStatus)."""

    def nodes(self) -> Mapping[str, NodeState]:
        """Node name -> its state; empty where the run does not exist."""


class Executions(Protocol):
    """Where the builder reads execution records (an ExecutionStatus)."""

    def get_execution(self, execution_id: str) -> ExecutionRecord | None:
        """The record, or None if there is none."""


class DAGBuilder:
    """Checks a definition and builds its DAG, seen with the statuses of a run if one is given."""

    def __init__(
        self,
        definition: Mapping[str, Json],
        execution_status: Executions | None = None,
        orchestration_status: NodeStates | None = None,
    ) -> None:
        self._definition = definition
        self._execution_status = execution_status
        self._orchestration_status = orchestration_status

    def build_dag(self) -> DAG:
        """Return the DAG. Raises DefinitionError with all problems of the definition."""
        check(self._definition)
        nodes = self._orchestration_status.nodes() if self._orchestration_status else {}
        executions: dict[str, ExecutionRecord] = {}
        if self._execution_status is not None:
            for name, node in nodes.items():
                if node.execution_id and (record := self._execution_status.get_execution(node.execution_id)):
                    executions[name] = record
        statuses = {name: node.status for name, node in nodes.items()}
        return DAG(self._definition, statuses=statuses, executions=executions)
