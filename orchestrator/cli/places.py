"""Where in the cloud a run's steps run: the step's own project and region, else those of the settings."""

from collections.abc import Mapping

from orchestrator.cli.bucket import Bucket
from orchestrator.engine.status import DefinitionStatus
from orchestrator.model.commands import EMPTY, Json
from orchestrator.model.console import Place
from orchestrator.model.errors import CorruptState
from orchestrator.model.ids import step_of
from orchestrator.model.run_state import RunState
from orchestrator.runtime.settings import Settings


class Places:
    """Of one run.

    Args:
        project: instead of that of the settings. Without either, the topic's or the queue's names tell.
    """

    def __init__(self, bucket: Bucket, state: RunState, settings: Settings, project: str | None = None) -> None:
        topic, queue = settings.events_topic or "", settings.tasks_queue or ""
        self.project = project or settings.project or _part(topic, "projects") or _part(queue, "projects")
        self.region = settings.region or _part(queue, "locations")
        self._steps: dict[str, Mapping[str, Json]] = {}
        try:
            dag = DefinitionStatus(bucket.store).load(state.run.definition)
        except CorruptState:
            return  # the run is shown all the same
        self._steps = {task.node_name: task.execute()[0].step for task in dag.all_tasks}

    def of(self, node_name: str) -> Place:
        """Where a step runs."""
        step = self._steps.get(step_of(node_name), EMPTY)
        project, region = step.get("project_id"), step.get("region")
        return Place(str(project) if project else self.project, str(region) if region else self.region)

    def projects(self) -> list[str]:
        """All projects in which the run runs something, the orchestrator's own first."""
        own = (str(step["project_id"]) for step in self._steps.values() if step.get("project_id"))
        return list(dict.fromkeys(each for each in (self.project, *own) if each))


def _part(name: str, kind: str) -> str | None:
    """What follows `kind` in a resource's name."""
    parts = name.split("/")
    return parts[parts.index(kind) + 1] if kind in parts[:-1] else None
