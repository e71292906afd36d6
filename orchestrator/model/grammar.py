"""The grammar of a definition, as one table: what keys there are, what each may hold and where.

Both judges of a definition read it: `definition.problems` and the JSON Schema. So a new key is one row here, a new
target type one entry of `_TARGETS`, a new node type one of `SHAPES`. What a table cannot say (names that must exist,
cycles, the contents of expressions) is in `definition`. Pure.
"""

from collections.abc import Mapping
from keyword import kwlist

from msgspec.structs import replace

from orchestrator.model import schedule
from orchestrator.model.enums import Missed, NodeTypes, RunEvents, TargetTypes, Triggers
from orchestrator.model.grammar_rules import Choice, Cron, Duration, Key, Kind, Pattern, Range, Shape, Zone
from orchestrator.model.ids import STEP_NAME
from orchestrator.model.messages import LAUNCH_VARIABLE

STEP_NAME_RULE = Pattern("a step name", STEP_NAME.pattern, "write 1 to 64 of A-Z a-z 0-9 _ -")

MAX_SLOTS = 1000
"""How many runs of a DAG, or Tasks of a pool, may be under way at once where that is limited: who holds a slot stands
in one object."""

MAX_PRIORITY = 100

_IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_]*"

_START = Key(
    "start",
    Kind.STEP,
    "The step that comes first: one of `steps`. Where some depend on others it can be left out: then all steps come "
    "first that neither depend on others nor have a way to them.",
    unless_in=("steps", "depends_on"),
)
_STEPS = Key("steps", Kind.STEPS, "The steps by their names.", is_required=True)
_ABOUT = Key("description", Kind.STRING, "What this DAG is for, in words for people.")

_OWNER = Key(
    "owner",
    Kind.STRING,
    "Who answers for this DAG: a person or a team.",
    rule=Pattern("an owner", r"[^\s$][^$\n]{0,99}", "write up to 100 characters on one line, without $"),
)
_TAGS = Key(
    "tags",
    Kind.TEXTS,
    "Words to find its runs by: `orchestrator runs --tag`.",
    rule=Pattern("a tag", r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,62}", "write 1 to 63 of A-Z a-z 0-9 . _ : / -"),
    most=20,
)
_INPUT_SCHEMA = Key(
    "input_schema",
    Kind.SCHEMA,
    "What the run's input must be, as JSON Schema 2020-12; a start whose input is not so is refused.",
)
_TOPIC_NAME = Pattern(
    "the name of a topic",
    r"projects/[^/\s$]+/topics/[A-Za-z][A-Za-z0-9_.~+%-]{2,254}",
    'write it as in "projects/my-project/topics/alerts"',
)
_PART_OF_A_NAME = Pattern(
    "a part of an object's name", r"[^\x00-\x1f$]{1,1024}", "write up to 1024 characters on one line, without $"
)
_TOPIC = Key("topic", Kind.STRING, "The Pub/Sub topic to publish to.", rule=_TOPIC_NAME)
_URL = Key(
    "url",
    Kind.STRING,
    "The webhook to post to, at one of NOTIFY_HOSTS.",
    rule=Pattern(
        "the URL of a webhook",
        r"https://[A-Za-z0-9.-]{1,253}(/[!#%&'()*+,./:;=?@A-Za-z0-9_~-]{0,1500})?",
        'write it as in "https://hooks.example.com/runs"',
    ),
    not_with="topic",
)
NOTIFY = Key(
    "notify",
    Kind.OBJECTS,
    "Who is told of the events of its runs, at a topic or at a webhook.",
    shape=Shape.of(
        "a notification",
        Key(
            "on",
            Kind.TEXTS,
            "The events to tell of.",
            is_required=True,
            rule=Choice("an event of a run", tuple(RunEvents)),
            most=len(RunEvents),
        ),
        replace(_TOPIC, unless="url"),
        _URL,
    ),
)
_SCHEDULE = Key(
    "schedule",
    Kind.STRING,
    "When a run starts by itself where the DAG is deployed: a cron expression of five fields.",
    rule=Cron(),
)
_TIME_ZONE = Key(
    "time_zone",
    Kind.STRING,
    "The time zone of `schedule`: an IANA name.",
    rule=Zone(),
    default=schedule.DEFAULT_ZONE,
    needs="schedule",
)
_MISSED = Key(
    "missed",
    Kind.STRING,
    "What becomes of the times of `schedule` that passed while nobody was there to start their runs: they are left out "
    "(skip), the last one gets its run late (last), or all do (all).",
    rule=Choice("what to do with missed times", tuple(Missed)),
    default=Missed.SKIP.value,
    needs="schedule",
)

_TRIGGERS = Key(
    "triggers",
    Kind.OBJECTS,
    "Events of others that start a run where the DAG is deployed.",
    shape=Shape.of(
        "a trigger",
        Key(
            "object",
            Kind.OBJECT,
            "An object of Cloud Storage that is there: a new one, or a new generation of one.",
            shape=Shape.of(
                "an object that triggers",
                Key(
                    "bucket",
                    Kind.STRING,
                    "The bucket that it is in.",
                    is_required=True,
                    rule=Pattern(
                        "the name of a bucket", r"[a-z0-9][a-z0-9._-]{1,221}", 'write it as in "landing", without gs://'
                    ),
                ),
                Key("prefix", Kind.STRING, "What its name begins with.", rule=_PART_OF_A_NAME),
                Key("suffix", Kind.STRING, "What its name ends with.", rule=_PART_OF_A_NAME),
            ),
            unless="topic",
        ),
        Key(
            "topic",
            Kind.STRING,
            "The Pub/Sub topic that a message comes from.",
            rule=_TOPIC_NAME,
            not_with="object",
        ),
        Key(
            "when", Kind.CONDITION, "An expression over `event` that is true or false: whether the event starts a run."
        ),
        Key(
            "input",
            Kind.VALUES,
            "The run's input; strings may hold ${event…} expressions. By default the event itself.",
        ),
    ),
)

_TYPE = Key(
    "type",
    Kind.STRING,
    "What the step is: a Task runs something, a Parallel runs its branches at the same time, a Map runs its iterator "
    "for each item of a list, a Condition chooses what follows, a Wait waits, a Pass makes a value, an End ends a way.",
    is_required=True,
    rule=Choice("a step type", tuple(kind for kind in NodeTypes if kind not in (NodeTypes.ITEM, NodeTypes.PART))),
)
_DEPENDS_ON = Key(
    "depends_on",
    Kind.STEP_NAMES,
    "The steps that this one waits for, all of the same `steps`. It then is no other step's `next`.",
)
_TRIGGER = Key(
    "trigger",
    Kind.STRING,
    "When it starts by those: once all have ended and completed, else it is Skipped (all_completed); once all have "
    "ended, however (all_done); as soon as one has failed, Skipped if none does (one_failed).",
    rule=Choice("a trigger", tuple(Triggers)),
    default=Triggers.ALL_COMPLETED.value,
    needs="depends_on",
)
_NEXT = Key("next", Kind.STEP, "The step that follows: one of the same `steps`. Without it the way ends here.")
_END = Key("end", Kind.FLAG, "true: the way ends here, as it does without `next`.", not_with="next")
_BRANCHES = Key(
    "branches",
    Kind.BRANCHES,
    "What runs at the same time; the Parallel ends when every branch has ended.",
    is_required=True,
)
_TARGET_TYPE = Key(
    "target_type",
    Kind.STRING,
    "Where the Task runs.",
    is_required=True,
    rule=Choice("a target type", tuple(TargetTypes)),
)
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
_TIMEOUT = Key("timeout", Kind.DURATION, "How long one attempt may take.", rule=Duration("30d"))
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

# ---- Keys of the job services: what a step may leave to its `request` is required unless it does so --------

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

_ERRORS = Key(
    "errors",
    Kind.TEXTS,
    "The classes of errors that this is about, by default every one: `Task.Timeout`, `Task.*`, `*`.",
    rule=Pattern(
        "a class of errors",
        r"(\*|[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z0-9_]+){0,9}(\.\*)?)",
        'write it as in "Task.Timeout", "Task.*" or "*"',
    ),
)
_DELAY = Key("delay", Kind.DURATION, "How long to wait before the second attempt.", rule=Duration("30d"), default="1s")
_RETRY_RULE = Shape.of(
    "a retry",
    _ERRORS,
    Key(
        "max_attempts",
        Kind.NUMBER,
        "How often the step is tried at the most, the first time included; by default 3.",
        range=Range(1, 1000, is_whole=True),
    ),
    _DELAY,
    Key(
        "backoff",
        Kind.NUMBER,
        "What each further wait is longer by, as a factor; by default 2.",
        range=Range(1, 100),
    ),
    Key("max_delay", Kind.DURATION, "The longest wait between two attempts.", rule=Duration("30d")),
    Key("jitter", Kind.NUMBER, "Which share of a wait is left to chance; by default 0.", range=Range(0, 1)),
)
_RETRY = Key(
    "retry",
    Kind.OBJECT_OR_OBJECTS,
    "After which errors the step is tried again, how often and when: one rule, or several of which the first counts "
    "that names the error.",
    shape=_RETRY_RULE,
)
_ON_ERROR = Key(
    "on_error",
    Kind.OBJECTS,
    "Where errors lead, once there is no retry left: the first route counts that names the error.",
    shape=Shape.of("a route", _ERRORS, replace(_NEXT, description="The step that follows then.", is_required=True)),
)
_ON_FAILURE = Key(
    "on_failure",
    Kind.STRING,
    "What a branch that fails does to the others: they run on to their end (finish), or are cancelled (stop).",
    rule=Choice("what to do on a failure", ("finish", "stop")),
    default="finish",
)
POOL = Key(
    "pool",
    Kind.STRING,
    "The pool, of all runs and DAGs, that each attempt takes a slot of; POOLS says how many of its Tasks run at once.",
    rule=Pattern("the name of a pool", r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", "write 1 to 63 of A-Z a-z 0-9 _ -"),
)
_MAX_ACTIVE_RUNS = Key(
    "max_active_runs",
    Kind.NUMBER,
    "How many of its runs may be under way at once; more than these wait for their turn.",
    range=Range(1, MAX_SLOTS, is_whole=True),
)
_PRIORITY = Key(
    "priority",
    Kind.NUMBER,
    "Which of the runs that wait comes first, the highest; a start may give its run another one. By default 0.",
    range=Range(-MAX_PRIORITY, MAX_PRIORITY, is_whole=True),
)
_ITEMS = Key(
    "items",
    Kind.ITEMS,
    "What it runs for: a list, or one ${…} expression that is one when it starts.",
    is_required=True,
)
_ITERATOR = Key(
    "iterator",
    Kind.BRANCH,
    "What runs for each item, which its steps know as ${item}, and its place in the list as ${index}.",
    is_required=True,
)
_MAX_CONCURRENCY = Key(
    "max_concurrency",
    Kind.NUMBER,
    "How many items run at once; by default 10.",
    range=Range(1, 1000, is_whole=True),
)
_TOLERATED = Key(
    "tolerated_failures",
    Kind.COUNT_OR_SHARE,
    "How many items may fail without the Map failing: a number or, of all items, a share; by default none.",
    range=Range(0, 1_000_000, is_whole=True),
    rule=Pattern("a share", r"(?:100|[0-9]{1,2}(?:\.[0-9]{1,3})?)%", 'write it as in "10%", at most 100%'),
)
_RUN_TIMEOUT = Key(
    "timeout", Kind.DURATION, "How long a run may take, its `finally` not counted.", rule=Duration("365d")
)
_DEADLINE = Key(
    "deadline",
    Kind.DURATION,
    "By when a run should have ended, from the time that it is for, else from its start: if it has not, that is told, "
    "and it runs on.",
    rule=Duration("365d"),
)
_FINALLY = Key("finally", Kind.BRANCH, "Steps that run at the end of every run, however it ends.")
_CHOICES = Key(
    "choices",
    Kind.OBJECTS,
    "What may follow: the first choice counts that holds.",
    is_required=True,
    shape=Shape.of(
        "a choice",
        Key("when", Kind.CONDITION, "An expression that is true or false.", is_required=True),
        replace(_NEXT, description="The step that follows if it is true.", is_required=True),
    ),
)
_DEFAULT = Key("default", Kind.STEP, "The step that follows if no choice holds; without it that is an error.")
_FOR = Key("for", Kind.DURATION, "How long to wait.", rule=Duration("365d"), not_with="until", unless="until")
_UNTIL = Key(
    "until",
    Kind.TEXT,
    "The time to wait for, RFC 3339, as in 2026-12-24T18:00:00Z or ${run.input.at}; a past one waits no more.",
)
_RESULT = Key("result", Kind.ANY, "The step's result; strings in it may hold ${…} expressions.", is_required=True)
_RUN_RESULT = replace(
    _RESULT,
    description="The run's result, made when its steps have completed; by default that of its last step. Strings in it "
    "may hold ${…} expressions.",
    is_required=False,
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
    replace(_TOPIC, description="The Pub/Sub topic that the token is published to, for who is to answer."),
    replace(_URL, description="The webhook that the token is posted to, at one of NOTIFY_HOSTS."),
)
_END_STATUS = Key(
    "status",
    Kind.STRING,
    "How the way ends: Completed, or Failed with `error`.",
    rule=Choice("an end", ("Completed", "Failed")),
    default="Completed",
)
_END_ERROR = Key(
    "error",
    Kind.OBJECT,
    "What it fails with.",
    needs="status",
    shape=Shape.of(
        "an error",
        Key(
            "type",
            Kind.STRING,
            "The error's class.",
            rule=Pattern(
                "a class of errors", r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z0-9_]+){0,9}", 'write it as in "Orders.Missing"'
            ),
            default="Run.Failed",
        ),
        Key("message", Kind.TEXT, "What is wrong, in words for people; may hold ${…} expressions."),
    ),
)

_WAITS = (_DEPENDS_ON, _TRIGGER)
_STEP = (_TYPE, _NEXT, _END, *_WAITS)
_TASK = (*_STEP, _TARGET_TYPE, _TIMEOUT, _RETRY, _ON_ERROR)
_TARGETS: Mapping[TargetTypes, tuple[Key, ...]] = {
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


_WITHOUT_POOLS = (TargetTypes.DAG, TargetTypes.CALLBACK)
"""A slot that is held while a child run goes on could be the one that it waits for; one held for a person is wasted."""


# ---- The shapes that the rows make up ----------------------------------------------------------------


def homes(name: str) -> list[str]:
    """Return the nouns of the steps that have a key of this name."""
    tasks = [shape.noun for shape in TASKS.values() if name in shape.keys]
    others = [shape.noun for kind, shape in SHAPES.items() if kind is not NodeTypes.TASK and name in shape.keys]
    return (["a Task"] if len(tasks) == len(TASKS) else tasks) + others


def _any_of(*rows: Key) -> tuple[Key, ...]:
    """Return the rows that are left when it is not known which of them hold: none is required."""
    found: dict[str, Key] = {}
    for row in rows:
        row = replace(
            row, is_required=False, unless=None, unless_in=None, unless_requested=(), not_requested=(), taken={}
        )
        same = found.setdefault(row.name, row)
        found[row.name] = same if same.rule == row.rule else replace(same, rule=None)
    return tuple(found.values())


_SCHEMA = Key("$schema", Kind.STRING, "Where an editor finds the JSON Schema of a definition; the engine ignores it.")
DEFINITION = Shape.of(
    "a definition",
    *(
        _START,
        _STEPS,
        _RUN_TIMEOUT,
        _DEADLINE,
        _FINALLY,
        _RUN_RESULT,
        _ABOUT,
        _OWNER,
        _TAGS,
        _INPUT_SCHEMA,
        NOTIFY,
        _MAX_ACTIVE_RUNS,
        _PRIORITY,
        _SCHEDULE,
        _TIME_ZONE,
        _MISSED,
        _TRIGGERS,
        _SCHEMA,
    ),
)
BRANCH = Shape.of("a branch", _START, _STEPS)
PARALLEL = Shape.of("a Parallel", *_STEP, _ON_ERROR, _BRANCHES, _ON_FAILURE)
TASKS = {
    target: Shape.of(f"a {target} Task", *_TASK, *(() if target in _WITHOUT_POOLS else (POOL,)), *rows)
    for target, rows in _TARGETS.items()
}
TASK = Shape.of("a Task", *_TASK, POOL, *_any_of(*(row for rows in _TARGETS.values() for row in rows)))
"""A Task of which the target type is not known."""
SHAPES: Mapping[NodeTypes, Shape] = {
    NodeTypes.TASK: TASK,
    NodeTypes.PARALLEL: PARALLEL,
    NodeTypes.MAP: Shape.of(
        "a Map",
        *_STEP,
        _ON_ERROR,
        _ITEMS,
        _ITERATOR,
        _MAX_CONCURRENCY,
        _TOLERATED,
        replace(
            _ON_FAILURE,
            description="What one failure too many does to the items that run: they run on to their end (finish), or "
            "are cancelled (stop).",
        ),
    ),
    NodeTypes.CONDITION: Shape.of("a Condition", _TYPE, *_WAITS, _CHOICES, _DEFAULT, _ON_ERROR),
    NodeTypes.WAIT: Shape.of("a Wait", *_STEP, _FOR, _UNTIL, _ON_ERROR),
    NodeTypes.PASS: Shape.of("a Pass", *_STEP, _RESULT, _ON_ERROR),
    NodeTypes.END: Shape.of("an End", _TYPE, *_WAITS, _END_STATUS, _END_ERROR),
}
STEP = Shape.of("a step", _TYPE, *_any_of(*(row for shape in SHAPES.values() for row in shape.keys.values()))[1:])
"""A step of which not even the type is known."""


def shape_of(step: Mapping[object, object]) -> Shape:
    """Return the shape that a step must have, as far as its type and target type tell."""
    match step.get("type"), step.get("target_type"):
        case NodeTypes.TASK, str(target_type):
            return next((shape for target, shape in TASKS.items() if target == target_type), TASK)
        case str(step_type), _:
            return next((shape for kind, shape in SHAPES.items() if kind == step_type), STEP)
        case _:
            return STEP
