"""The closed vocabularies of definitions and run documents. Pure."""

from enum import StrEnum


class NodeTypes(StrEnum):
    """`type` of a step; of an entry of a run document also `Item`, one item of a Map, and `Part`, many of one."""

    TASK = "Task"
    PARALLEL = "Parallel"
    MAP = "Map"
    CONDITION = "Condition"
    WAIT = "Wait"
    PASS = "Pass"  # noqa: S105 - no password
    END = "End"
    ITEM = "Item"
    PART = "Part"


class TargetTypes(StrEnum):
    """`target_type` of a Task: where its attempts are launched."""

    CLOUD_FUNCTION = "CloudFunction"
    DATAFLOW = "Dataflow"
    FUNCTION = "Function"
    CLOUD_RUN_JOB = "CloudRunJob"
    BIGQUERY = "BigQuery"
    DATAPROC = "Dataproc"
    BATCH = "Batch"
    WORKFLOWS = "Workflows"
    VERTEX_PIPELINE = "VertexPipeline"
    DAG = "Dag"
    CALLBACK = "Callback"


JOBS = (
    TargetTypes.CLOUD_RUN_JOB,
    TargetTypes.BIGQUERY,
    TargetTypes.DATAPROC,
    TargetTypes.BATCH,
    TargetTypes.WORKFLOWS,
    TargetTypes.VERTEX_PIPELINE,
)
"""Services of the shape launch / get / list / cancel: a row each of `targets/job_services.py`."""


NOWHERE_ELSE = (TargetTypes.FUNCTION, TargetTypes.DAG, TargetTypes.CALLBACK)
"""What has no place of its own in Google Cloud: it runs inside of the orchestrator, or is its own doing."""


class DataflowTemplateType(StrEnum):
    """Which kind of template a Dataflow step names: `container_gcs_path` or `template_path`."""

    FLEX = "Flex"
    CLASSIC = "Classic"


class TaskStatus(StrEnum):
    """Status of a node. Waiting for its next attempt = Running, no claim, something due."""

    NEW = "New"
    RUNNING = "Running"
    COMPLETED = "Completed"
    FAILED = "Failed"
    SKIPPED = "Skipped"
    CANCELLED = "Cancelled"

    @property
    def is_final(self) -> bool:
        """Whether a node in this status never changes again."""
        return self is not TaskStatus.NEW and self is not TaskStatus.RUNNING


class Triggers(StrEnum):
    """When a step starts that depends on others."""

    ALL_COMPLETED = "all_completed"
    """Once all of them have ended, all Completed; else it is Skipped."""
    ALL_DONE = "all_done"
    """Once all of them have ended, however."""
    ONE_FAILED = "one_failed"
    """As soon as one of them has Failed or was Cancelled; Skipped once all have ended without."""


class RunStatus(StrEnum):
    """Status of a run. It ends only when nothing in it is Running."""

    QUEUED = "Queued"
    RUNNING = "Running"
    PAUSED = "Paused"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELLED = "Cancelled"

    @property
    def is_final(self) -> bool:
        """Whether a run in this status has ended."""
        return self in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED)


class Missed(StrEnum):
    """What becomes of the times of a schedule that passed while nobody was there to start their runs."""

    SKIP = "skip"
    LAST = "last"
    """The last one of them gets its run, late."""
    ALL = "all"


class RunEvents(StrEnum):
    """What notifications are sent of."""

    STARTED = "started"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LATE = "late"
    """It had not ended by its deadline."""


class OutcomeKind(StrEnum):
    """How an execution ended, as its target tells it."""

    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELLED = "Cancelled"
    LOST = "Lost"
    """Its host is gone and left no result: the engine starts the node's next attempt."""


class Identity(StrEnum):
    """What a target's service does with a key of ours (see `ports.Target`)."""

    FOREVER = "forever"
    WINDOW = "window"
    FOUND = "found"
    NONE = "none"


class DueKind(StrEnum):
    """What can be due at a node."""

    TIMEOUT = "timeout"
    RETRY = "retry"
    """The next attempt is to be launched."""
    WAIT = "wait"
    """A Wait is over."""
    HEARTBEAT = "heartbeat"
    """It was not heard of for so long that it is given up."""
    QUESTION = "question"
    """The target is to be asked: its service leaves no event that would tell."""


NOTHING_RUNS = frozenset((DueKind.RETRY.value, DueKind.WAIT.value))
"""What is due only where nothing runs: there is nobody to ask and nothing to cancel."""
