"""ExecutionRecord: what `executions/<execution_id>.json` holds. Pure."""

from datetime import datetime

import msgspec

from orchestrator.model.commands import Json


class ExecutionRecord(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Which launch an execution belongs to; an index that can be rebuilt.

    `succeeded` says that the launch was accepted, not that the task went well.
    """

    execution_id: str
    task_name: str
    node_name: str
    succeeded: bool
    response: Json = None
    run_id: str
    attempt: int
    launch_id: str
    target_type: str
    launched_at: datetime
