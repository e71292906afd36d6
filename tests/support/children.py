"""Definitions of child runs, which runs are whose, and a Dag target by itself."""

from orchestrator import DAGExecutor
from orchestrator.engine.status import OrchestrationStatus
from orchestrator.targets.dag import DagTarget


def child(dag="kid", **keys):
    return {"type": "Task", "target_type": "Dag", "target_name": dag, **keys}


def job(name="work", **keys):
    return {"type": "Task", "target_type": "Dataflow", "target_name": name, **keys}


def dag(*steps, **keys):
    """A chain of (name, step)."""
    names = [name for name, _ in steps]
    chained = {
        name: step if following is None else {**step, "next": following}
        for (name, step), following in zip(steps, [*names[1:], None], strict=True)
    }
    return {"start": names[0], "steps": chained, **keys}


def children_of(world, run_id):
    """The runs that a run has launched, parts of its Maps too."""
    return [run for run in world.runs if run.state.run.parent and run.state.run.parent.run_id == run_id]


class Family:
    """An executor whose Dag target publishes only what it is let to."""

    def __init__(self, definitions):
        self.executor = DAGExecutor(definitions, "memory://")
        self.store = self.executor.store
        self.published = []
        self.target = DagTarget(self.store, self.published.append, self.executor.make_child)

    def state(self, run_id):
        return OrchestrationStatus(self.store, run_id).load()[0]
