"""A serverless, event-driven orchestrator for data pipelines on Google Cloud.

    from orchestrator import DAGExecutor

The names below are loaded when they are first used, so that importing this package costs nothing.
"""

from importlib import import_module

TYPE_CHECKING = False  # to load typing takes some ms, in which ctrl-C is a traceback
if TYPE_CHECKING:
    from orchestrator.engine.status import ExecutionStatus as ExecutionStatus
    from orchestrator.engine.status import OrchestrationStatus as OrchestrationStatus
    from orchestrator.model.dag import DAG as DAG
    from orchestrator.model.dag_builder import DAGBuilder as DAGBuilder
    from orchestrator.model.enums import DataflowTemplateType as DataflowTemplateType
    from orchestrator.model.enums import NodeTypes as NodeTypes
    from orchestrator.model.enums import RunStatus as RunStatus
    from orchestrator.model.enums import TargetTypes as TargetTypes
    from orchestrator.model.enums import TaskStatus as TaskStatus
    from orchestrator.model.errors import OrchestratorError as OrchestratorError
    from orchestrator.model.event_factory import EventFactory as EventFactory
    from orchestrator.model.events import CloudFunctionEvent as CloudFunctionEvent
    from orchestrator.model.events import DataflowEvent as DataflowEvent
    from orchestrator.model.events import Event as Event
    from orchestrator.model.events import JobEvent as JobEvent
    from orchestrator.model.events import StartEvent as StartEvent
    from orchestrator.model.node_factory import NodeFactory as NodeFactory
    from orchestrator.model.nodes import Node as Node
    from orchestrator.model.nodes import Parallel as Parallel
    from orchestrator.model.nodes import Task as Task
    from orchestrator.runtime.executor import DAGExecutor as DAGExecutor

_WHERE = {
    "CloudFunctionEvent": "model.events",
    "DAG": "model.dag",
    "DAGBuilder": "model.dag_builder",
    "DAGExecutor": "runtime.executor",
    "DataflowEvent": "model.events",
    "DataflowTemplateType": "model.enums",
    "Event": "model.events",
    "EventFactory": "model.event_factory",
    "ExecutionStatus": "engine.status",
    "JobEvent": "model.events",
    "Node": "model.nodes",
    "NodeFactory": "model.node_factory",
    "NodeTypes": "model.enums",
    "OrchestrationStatus": "engine.status",
    "OrchestratorError": "model.errors",
    "Parallel": "model.nodes",
    "RunStatus": "model.enums",
    "StartEvent": "model.events",
    "TargetTypes": "model.enums",
    "Task": "model.nodes",
    "TaskStatus": "model.enums",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
