"""The part of the grammar that is about targets: what a Task of each target type holds. Pure."""

from collections.abc import Mapping
from keyword import kwlist

from msgspec.structs import replace

from orchestrator.model.enums import TargetTypes
from orchestrator.model.grammar_keys import Key, Kind
from orchestrator.model.grammar_of_runs import TOPIC, URL
from orchestrator.model.grammar_rules import Choice, Duration, Pattern
from orchestrator.model.messages import LAUNCH_VARIABLE

_IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_]*"
_TARGET_NAME = Key(
    "target_name",
    Kind.STRING,
    "What runs: the name of the function, or of the Dataflow job's template.",
    is_required=True,
    rule=Pattern(
        "a target name",
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}",
        "write a letter or digit, then up to 127 of A-Z a-z 0-9 . _ -",
    ),
)
_PARAMETERS = Key("parameters", Kind.VALUES, "What the target is given; strings may hold ${…} expressions.")
_HEARTBEAT = Key(
    "heartbeat",
    Kind.DURATION,
    "How long one attempt may be silent: what it runs says that it is at work, by `orchestrator.tasks` or a message.",
    rule=Duration("30d"),
)
_PROJECT_ID = Key(
    "project_id",
    Kind.STRING,
    "The Google Cloud project of the target; by default the orchestrator's own.",
    rule=Pattern("a project id", r"[A-Za-z0-9][A-Za-z0-9.:_-]{0,127}", 'write it as in "my-project", without slashes'),
)
_REGION = Key(
    "region",
    Kind.STRING,
    "The region of the target; by default the orchestrator's own.",
    rule=Pattern("a region", r"[a-z][a-z0-9-]{0,63}", 'write it as in "europe-west1"'),
)
_FUNCTION = Key(
    "function",
    Kind.STRING,
    "The Python function to call.",
    is_required=True,
    rule=Pattern(
        "a Python function",
        rf"{_IDENTIFIER}(\.{_IDENTIFIER})*:{_IDENTIFIER}",
        'write "package.module:callable"',
    ),
)
_ENTRY_POINT = Key(
    "function",
    Kind.STRING,
    "The entry point: the function to call in the source of the Cloud Function.",
    rule=Pattern("an entry point", _IDENTIFIER, "write the name of a Python function", tuple(kwlist)),
    default="main",
)
_ARGUMENTS = replace(
    _PARAMETERS,
    description="The keyword arguments of the function; strings may hold ${…} expressions.",
    rule=Pattern(
        "the name of a Python argument",
        _IDENTIFIER,
        "write a letter or _, then letters, digits and _, and no keyword of Python",
        tuple(kwlist),
    ),
)
_WORKER = Key(
    "worker",
    Kind.STRING,
    "What runs the function where there is a choice: a thread, or a process of its own.",
    rule=Choice("a worker", ("thread", "process")),
)
_INVOCATION = Key(
    "invocation",
    Kind.STRING,
    "In the cloud: by way of a queue, so that nobody waits (async), or a call whose answer is the result (sync).",
    rule=Choice("an invocation", ("async", "sync")),
    default="async",
)
_TEMPLATE = Pattern("a path in Cloud Storage", r"gs://[a-z0-9][a-z0-9._-]{1,221}/[^\s$]+", 'write "gs://bucket/object"')
_FLEX = Key("container_gcs_path", Kind.STRING, "Where the flex template's specification lies.", rule=_TEMPLATE)
_CLASSIC = Key(
    "template_path",
    Kind.STRING,
    "Where the classic template lies.",
    rule=_TEMPLATE,
    not_with="container_gcs_path",
)
_VARIABLE = Pattern(
    "the name of an environment variable", _IDENTIFIER, "write a letter or _, then letters, digits and _"
)
_VARIABLES = replace(
    _PARAMETERS,
    description="Environment variables of the containers; strings may hold ${…} expressions.",
    rule=replace(_VARIABLE, reserved=(LAUNCH_VARIABLE,)),
)
_JOB = replace(
    _TARGET_NAME,
    description="The name of the Cloud Run job.",
    rule=Pattern(
        "the name of a Cloud Run job",
        r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?",
        "write a small letter, then up to 62 of a-z 0-9 -, the last no -",
    ),
)
_WORKFLOW = replace(
    _TARGET_NAME,
    description="The name of the workflow.",
    rule=Pattern(
        "the name of a workflow",
        r"[A-Za-z]([A-Za-z0-9_-]{0,62}[A-Za-z0-9])?",
        "write a letter, then up to 63 of A-Z a-z 0-9 _ -, the last a letter or digit",
    ),
)
_TITLE = replace(_TARGET_NAME, description="What people know the job by; the service takes an id of the run's own.")
_REQUEST = Key(
    "request",
    Kind.REQUEST,
    "The body of the request as the service's API has it, without what other keys and the orchestrator set.",
)
_OURS = "is set by the orchestrator"


def _request(labels: str = "", **taken: str) -> Key:
    """Return the row of a request in which these (`__` for a dot) are not to stand, each with why.

    Args:
        labels: path of the labels, of which some are ours.
    """
    ours = {f"{labels}.orchestrator_{name}": _OURS for name in ("dag", "run", "node", "attempt", "key")}
    by_path = {path.replace("__", "."): why for path, why in taken.items()}
    return replace(_REQUEST, taken={**by_path, **(ours if labels else {})})


_LOCATION = replace(
    _REGION,
    description="Where the data is: a region, or EU or US; by default the orchestrator's own region.",
    rule=Pattern("a location", r"[A-Za-z][A-Za-z0-9-]{0,63}", 'write it as in "europe-west1" or "EU"'),
)
_QUERY = Key(
    "query",
    Kind.STRING,
    "The query, in GoogleSQL; values come in as @name, from `parameters`.",
    is_required=True,
    rule=Pattern(
        "a query without expressions", r"(?:[^$]|\$(?!\{))+", 'write @name in it, and the value under "parameters"'
    ),
)
_QUERY_PARAMETERS = replace(
    _PARAMETERS,
    description="The query's named parameters; strings may hold ${…} expressions.",
    rule=Pattern("the name of a query parameter", _IDENTIFIER, "write a letter or _, then letters, digits and _"),
)
_MAIN = Key(
    "main_python_file",
    Kind.STRING,
    "Where the PySpark program lies.",
    rule=_TEMPLATE,
    unless_requested=("pysparkBatch", "sparkBatch", "sparkRBatch", "sparkSqlBatch", "pysparkNotebookBatch"),
    not_requested=(
        *("pysparkBatch.mainPythonFileUri", "sparkBatch", "sparkRBatch", "sparkSqlBatch", "pysparkNotebookBatch"),
    ),
)
_ARGUMENTS_OF_SPARK = replace(
    _PARAMETERS,
    description="The program's arguments, --name=value each, or the variables of Spark SQL; with ${…} expressions.",
    rule=Pattern("the name of an argument", r"[A-Za-z_][A-Za-z0-9_.-]*", "write a letter or _, then A-Z a-z 0-9 _ . -"),
)
_IMAGE = Key(
    "image",
    Kind.STRING,
    "The container image that the tasks run.",
    rule=Pattern("a container image", r"[^\s$]+", 'write it as in "europe-docker.pkg.dev/my-project/images/count:1"'),
    unless_requested=("taskGroups",),
)
_PIPELINE = Key(
    "template_path",
    Kind.STRING,
    "The compiled pipeline in Artifact Registry.",
    rule=Pattern(
        "the path of a pipeline in Artifact Registry",
        r"https://[a-z0-9-]+-kfp\.pkg\.dev/[^\s$]+",
        'write it as in "https://europe-west1-kfp.pkg.dev/my-project/pipelines/train/v1"',
    ),
    unless_requested=("pipelineSpec",),
    not_requested=("pipelineSpec",),
)
_PIPELINE_ROOT = Key(
    "pipeline_root",
    Kind.STRING,
    "The folder in Cloud Storage that the pipeline writes to.",
    rule=Pattern(
        "a folder in Cloud Storage", r"gs://[a-z0-9][a-z0-9._-]{1,221}(/[^\s$]*)?", 'write "gs://bucket/folder"'
    ),
    unless_requested=("runtimeConfig",),
    not_requested=("runtimeConfig.gcsOutputDirectory",),
)
_CHILD = replace(_TARGET_NAME, description="The name of the DAG, a run of which is started.")
_CHILD_INPUT = replace(
    _PARAMETERS, description="The input of the run that is started; strings may hold ${…} expressions."
)
_WHOM = replace(_TARGET_NAME, description="Who is to answer, in a word for people.", is_required=False)
_SHOWN = replace(
    _PARAMETERS, description="What who is to answer has to know; strings may hold ${…} expressions, but no secrets."
)
_TOLD = (
    replace(TOPIC, description="The Pub/Sub topic that the token is published to, for who is to answer."),
    replace(URL, description="The webhook that the token is posted to, at one of NOTIFY_HOSTS."),
)
TARGETS: Mapping[TargetTypes, tuple[Key, ...]] = {
    TargetTypes.CLOUD_FUNCTION: (
        *(_TARGET_NAME, _ENTRY_POINT, _PARAMETERS, _INVOCATION, _HEARTBEAT),
        *(_PROJECT_ID, _REGION),
    ),
    TargetTypes.DATAFLOW: (_TARGET_NAME, _PARAMETERS, _FLEX, _CLASSIC, _PROJECT_ID, _REGION),
    TargetTypes.FUNCTION: (_FUNCTION, replace(_TARGET_NAME, is_required=False), _ARGUMENTS, _WORKER),
    TargetTypes.CLOUD_RUN_JOB: (_JOB, _VARIABLES, _HEARTBEAT, _request(), _PROJECT_ID, _REGION),
    TargetTypes.BIGQUERY: (
        *(_TITLE, _QUERY, _QUERY_PARAMETERS, _PROJECT_ID, _LOCATION),
        _request(
            "configuration.labels",
            jobReference=_OURS,
            configuration__query__query='is what the key "query" is for',
            configuration__query__useLegacySql=_OURS,
            configuration__query__parameterMode=_OURS,
            configuration__dryRun="would make it no run",
            configuration__load="is what LOAD DATA in a query is for",
            configuration__extract="is what EXPORT DATA in a query is for",
            configuration__copy="is what CREATE TABLE … COPY in a query is for",
        ),
    ),
    TargetTypes.DATAPROC: (_TITLE, _MAIN, _ARGUMENTS_OF_SPARK, _request("labels"), _PROJECT_ID, _REGION),
    TargetTypes.BATCH: (_TITLE, _IMAGE, _VARIABLES, _HEARTBEAT, _request("labels"), _PROJECT_ID, _REGION),
    TargetTypes.WORKFLOWS: (
        _WORKFLOW,
        _PARAMETERS,
        _request("labels", argument='is what the key "parameters" is for'),
        _PROJECT_ID,
        _REGION,
    ),
    TargetTypes.VERTEX_PIPELINE: (
        *(_TITLE, _PIPELINE, _PIPELINE_ROOT, _PARAMETERS, _PROJECT_ID, _REGION),
        _request(
            templateUri='is what the key "template_path" is for', displayName='is what the key "target_name" is for'
        ),
    ),
    TargetTypes.DAG: (_CHILD, _CHILD_INPUT),
    TargetTypes.CALLBACK: (_WHOM, _SHOWN, *_TOLD),
}
WITHOUT_POOLS = (TargetTypes.DAG, TargetTypes.CALLBACK)
"""A slot that is held while a child run goes on could be the one that it waits for; one held for a person is wasted."""
