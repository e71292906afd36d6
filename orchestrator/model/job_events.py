"""Readers of what the logs of job services tell of a job's end, for the table of `event_factory`.

A line is only a reason to ask the job. It is ours by the launch id or the key that it carries; where it could carry one
and does not, it is somebody else's. Sources: the audit log's and the services' own log entries, tests/payloads. Pure.
"""

from collections.abc import Mapping
from typing import Final

from orchestrator.model.commands import Json
from orchestrator.model.enums import TargetTypes
from orchestrator.model.events import Common, JobEvent
from orchestrator.model.ids import KEY_PREFIX, parse_launch_id
from orchestrator.model.json_paths import at, is_of_log, name_at, objects_at
from orchestrator.model.messages import LAUNCH_VARIABLE

_FLOW_ENDS: Final = frozenset(("SUCCEEDED", "FAILED", "CANCELLED"))
_PIPELINE_ENDS: Final = frozenset(f"PIPELINE_STATE_{word}" for word in ("SUCCEEDED", "FAILED", "CANCELLED"))


def cloud_run_job(data: Mapping[str, Json], common: Common) -> JobEvent | None:
    """A Cloud Run job's execution has ended. The event shows the variables that it was launched with."""
    if not is_of_log(data, "cloudaudit.googleapis.com%2Fsystem_event"):
        return None
    if at(data, "protoPayload", "methodName") != "/Jobs.RunJob":
        return None
    for container in objects_at(data, "protoPayload", "response", "spec", "template", "spec", "containers"):
        for variable in objects_at(container, "env"):
            launch_id = name_at(variable, "value") if variable.get("name") == LAUNCH_VARIABLE else None
            ids = parse_launch_id(launch_id) if launch_id else None
            if ids is not None:
                return _job(
                    common,
                    TargetTypes.CLOUD_RUN_JOB,
                    name_at(data, "protoPayload", "response", "metadata", "name"),
                    task_name=name_at(data, "resource", "labels", "job_name"),
                    launch_id=launch_id,
                    run_id=ids[0],
                )
    return None


def bigquery(data: Mapping[str, Json], common: Common) -> JobEvent | None:
    """A BigQuery job is done, well or not. Its id is ours, or the job is somebody else's."""
    if not is_of_log(data, "cloudaudit.googleapis.com%2Fdata_access"):
        return None
    change = at(data, "protoPayload", "metadata", "jobChange")
    if at(change, "after") != "DONE":
        return None
    return _job_of_ours(common, TargetTypes.BIGQUERY, name_at(change, "job", "jobName"))


def workflow(data: Mapping[str, Json], common: Common) -> JobEvent | None:
    """A workflow's execution has ended; its id is the service's own."""
    state = at(data, "jsonPayload", "state")
    is_end = isinstance(state, str) and state in _FLOW_ENDS
    if not is_end or not is_of_log(data, "workflows.googleapis.com%2Fexecutions_system"):
        return None
    execution_id = name_at(data, "labels", "workflows.googleapis.com/execution_id")
    if execution_id is None:
        return None
    task_name = name_at(data, "resource", "labels", "workflow_id")
    return _job(common, TargetTypes.WORKFLOWS, execution_id, task_name=task_name)


def pipeline(data: Mapping[str, Json], common: Common) -> JobEvent | None:
    """A Vertex AI pipeline has ended. Its id is ours, or the job is somebody else's."""
    state = at(data, "jsonPayload", "state")
    is_end = isinstance(state, str) and state in _PIPELINE_ENDS
    if not is_end or not is_of_log(data, "aiplatform.googleapis.com%2Fpipeline_job_events"):
        return None
    job_id = name_at(data, "resource", "labels", "pipeline_job_id") or name_at(data, "jsonPayload", "pipelineName")
    return _job_of_ours(common, TargetTypes.VERTEX_PIPELINE, job_id)


def _job_of_ours(common: Common, target_type: TargetTypes, name: str | None) -> JobEvent | None:
    """The event of a job whose id could be a launch's key, None if it is not."""
    job_id = name.rpartition("/")[2] if name else ""
    return _job(common, target_type, job_id) if job_id.startswith(KEY_PREFIX) else None


def _job(
    common: Common,
    target_type: TargetTypes,
    execution_id: str | None,
    *,
    task_name: str | None = None,
    launch_id: str | None = None,
    run_id: str | None = None,
) -> JobEvent:
    return JobEvent(
        **common,
        task_name=task_name,
        target_type=target_type,
        execution_id=execution_id,
        run_id=run_id,
        launch_id=launch_id,
    )
