"""Where a person finds what a run runs in the Google Cloud console, and in Cloud Logging: a row a target type. Pure.

Sources of the pages: dataflow, cloud_functions, bigquery, dataproc, workflows and vertex_ai as Apache Airflow's
provider links them (providers/google/.../cloud/links/); an execution of a Cloud Run job as its own `logUri` has it, a
Batch job as Google's HPC toolkit prints it. Sources of the filters: the labels of the monitored resources
(https://docs.cloud.google.com/logging/docs/api/v2/resource-list) and of the services' own entries.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from orchestrator.model.ids import execution_id_of, key_of
from orchestrator.model.node_state import NodeState

CONSOLE = "https://console.cloud.google.com"


@dataclass(frozen=True, slots=True)
class Row:
    """One target type. In both texts stand `{project}`, `{region}`, `{name}` (of the target), `{key}` and `{id}`.

    Attributes:
        page: path of an execution's page.
        logs: filter of an execution's own log entries.
        id_is_key: an execution is called as its launch's key, so that its id is known before it is bound.
    """

    page: str
    logs: str
    id_is_key: bool = False

    @property
    def needs_id(self) -> bool:
        """Whether the page cannot be known without the execution's id."""
        return "{id}" in self.page


ROWS: Mapping[str, Row] = {
    "CloudFunction": Row(
        page="/functions/details/{region}/{name}?project={project}",
        logs='labels.execution_id=("{call_id}" OR "{id}")',
    ),
    "Dataflow": Row(
        page="/dataflow/jobs/{region}/{id}?project={project}",
        logs='resource.type="dataflow_step" AND '
        '(resource.labels.job_name="{key}" OR labels."dataflow.googleapis.com/job_name"="{key}")',
    ),
    "CloudRunJob": Row(
        page="/run/jobs/executions/details/{region}/{id}/tasks?project={project}",
        logs='resource.type="cloud_run_job" AND labels."run.googleapis.com/execution_name"="{id}"',
    ),
    "BigQuery": Row(
        page="/bigquery?project={project}&ws=!1m5!1m4!1m3!1s{project}!2s{id}!3s{region}",
        logs='resource.type="bigquery_project" AND protoPayload.resourceName:"/jobs/{id}"',
        id_is_key=True,
    ),
    "Dataproc": Row(
        page="/dataproc/batches/{region}/{id}/monitoring?project={project}",
        logs='resource.type="cloud_dataproc_batch" AND resource.labels.batch_id="{id}"',
        id_is_key=True,
    ),
    "Batch": Row(
        page="/batch/jobsDetail/regions/{region}/jobs/{id}/details?project={project}",
        logs='resource.type="batch.googleapis.com/Job" AND labels.job_uid:"{id}"',
        id_is_key=True,
    ),
    "Workflows": Row(
        page="/workflows/workflow/{region}/{name}/execution/{id}?project={project}",
        logs='resource.type="workflows.googleapis.com/Workflow" AND '
        'labels."workflows.googleapis.com/execution_id"="{id}"',
    ),
    "VertexPipeline": Row(
        page="/vertex-ai/locations/{region}/pipelines/runs/{id}?project={project}",
        logs='resource.type="aiplatform.googleapis.com/PipelineJob" AND resource.labels.pipeline_job_id="{id}"',
        id_is_key=True,
    ),
}
"""Target type -> where its executions are seen. A type that is not here runs inside of the orchestrator."""

_NAME = re.compile(r"projects/(?P<project>[^/]+)/(?:locations|regions)/(?P<region>[^/]+)/.*?(?P<id>[^/]+)")
"""An execution id that is a resource's full name."""

_NEVER_IN_A_FILTER = re.compile(r'["\\\n]')


@dataclass(frozen=True, slots=True)
class Place:
    """Where a step runs, as far as that is known."""

    project: str | None
    region: str | None


@dataclass(frozen=True, slots=True)
class Facts:
    """What an attempt is called at its service."""

    project: str | None
    region: str | None
    name: str
    key: str
    id: str | None


def facts_of(node: NodeState, launch_id: str, place: Place, *, is_current: bool = True) -> Facts:
    """Return what an attempt is called: its execution id may be a full name, which tells project and region too.

    Args:
        is_current: it is the attempt that the node's execution id is of.
    """
    key = key_of(launch_id)
    row = ROWS.get(node.target_type or "")
    execution_id = (node.execution_id if is_current else None) or (key if row is not None and row.id_is_key else None)
    named = _NAME.fullmatch(execution_id or "")
    if named is not None:
        return Facts(named["project"], named["region"], node.target_name or "", key, named["id"])
    return Facts(place.project, place.region, node.target_name or "", key, execution_id)


def execution_page(node: NodeState, launch_id: str, place: Place) -> str | None:
    """Return the URL of the page of a node's current attempt; None where there is none, or it is not known yet."""
    row = ROWS.get(node.target_type or "")
    facts = facts_of(node, launch_id, place)
    if row is None or not node.attempt or facts.project is None or facts.region is None:
        return None
    if row.needs_id and facts.id is None:
        return None
    words = {"project": facts.project, "region": facts.region, "name": facts.name, "id": facts.id or ""}
    return CONSOLE + row.page.format_map({word: quote(text, safe="") for word, text in words.items()})


def execution_filter(node: NodeState, launch_id: str, *, is_current: bool = True) -> str | None:
    """Return the Cloud Logging filter of an attempt's own entries; None where there are none, or its id is missing."""
    row = ROWS.get(node.target_type or "")
    facts = facts_of(node, launch_id, Place(None, None), is_current=is_current)
    if row is None or ("{key}" not in row.logs and "{call_id}" not in row.logs and facts.id is None):
        return None
    words = {"key": facts.key, "call_id": execution_id_of(facts.key), "id": facts.id or facts.key}
    return row.logs.format_map({word: in_filter(text) for word, text in words.items()})


def in_filter(text: str) -> str:
    """Return a text as it may stand between quotes in a filter."""
    return _NEVER_IN_A_FILTER.sub("", text)


def logs_page(wanted: str, project: str, since: datetime) -> str:
    """Return the URL of the Logs Explorer with a query: `wanted` since then (aware).

    The console decodes its path twice as far as parentheses go, so they are encoded twice.
    """
    query = f'timestamp>="{rfc3339(since)}"\n{wanted}'
    encoded = quote(query, safe="").replace("%28", "%2528").replace("%29", "%2529")
    return f"{CONSOLE}/logs/query;query={encoded}?project={quote(project, safe='')}"


def rfc3339(at: datetime) -> str:
    """Return an aware time as filters have it."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
