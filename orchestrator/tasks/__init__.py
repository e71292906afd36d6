"""The helper for user functions: parameters as arguments, each launch run once, its result kept in the bucket.

    from orchestrator.tasks import task

    @task
    def main(day: str) -> dict:
        return {"rows": 3}

What it promises and what it does not is in `docs/tasks.md`.
"""

from orchestrator.tasks.context import Context
from orchestrator.tasks.decorator import task
from orchestrator.tasks.heartbeat import heartbeat

__all__ = ["Context", "heartbeat", "task"]
