"""The grammar of a definition, as one table: what keys there are, what each may hold and where.

Both judges of a definition read it: `definition.problems` (through `Shape.problems`) and the JSON Schema
(through `Key.schema`). So a new key is one row here, and a new target type one entry of `_TARGETS`. What
a table cannot say (names that must exist, cycles, the contents of expressions) is in `definition`. Pure.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from enum import Enum
from keyword import kwlist

import msgspec
from msgspec.structs import replace

from orchestrator.model import durations, schedule
from orchestrator.model.commands import Json
from orchestrator.model.enums import NodeTypes, TargetTypes
from orchestrator.model.expressions import at, closest, did_you_mean, kind_of, quoted
from orchestrator.model.ids import STEP_NAME
from orchestrator.model.messages import LAUNCH_VARIABLE

# ---- What a string may be: each rule is a check and a piece of the schema ----------------------------


class Choice(msgspec.Struct, frozen=True):
    """One of a few words; `noun` is what such a word is."""

    noun: str
    allowed: tuple[str, ...]

    def problem(self, text: str) -> str | None:
        """Return what is wrong with `text`, if anything."""
        if text in self.allowed:
            return None
        hint = did_you_mean(text, self.allowed)
        return f"{quoted(text)} is not {self.noun};{hint} allowed: {', '.join(self.allowed)}"

    def schema(self) -> dict[str, Json]:
        """Return the same as JSON Schema."""
        return {"enum": list(self.allowed)}


class Pattern(msgspec.Struct, frozen=True):
    """A regular expression that the whole string matches, in what Python and ECMAScript share.

    It has no `|` outside of brackets, so that `^` and `$` can be put around it.
    """

    noun: str
    pattern: str
    how: str
    reserved: tuple[str, ...] = ()
    """Words of the pattern that are not allowed all the same."""

    def problem(self, text: str) -> str | None:
        """Return what is wrong with `text`, if anything."""
        if re.fullmatch(self.pattern, text) and text not in self.reserved:
            return None
        hint = '; an expression can stand in "parameters" only' if "${" in text else ""
        return f"{quoted(text)} is not {self.noun}; {self.how}{hint}"

    def schema(self) -> dict[str, Json]:
        """Return the same as JSON Schema."""
        found: dict[str, Json] = {"pattern": f"^{self.pattern}$"}
        return found | {"not": {"enum": list(self.reserved)}} if self.reserved else found


class Duration(msgspec.Struct, frozen=True):
    """A duration above zero, of at most `most`; how long it is at most a schema cannot say."""

    most: str

    def problem(self, text: str) -> str | None:
        """Return what is wrong with `text`, if anything."""
        try:
            seconds = durations.parse_duration(text)
        except durations.DurationError:
            return f"{quoted(text)} is not a duration; {durations.HOW}"
        if not 0 < seconds <= durations.parse_duration(self.most):
            return f"{quoted(text)} is out of range; allowed: more than 0, at most {self.most}"
        return None

    def schema(self) -> dict[str, Json]:
        """Return the same as JSON Schema."""
        return {"pattern": f"^(?=[0-9.]*[1-9]){durations.PATTERN}$", "examples": ["90s", "10m", "1.5h"]}


class Cron(msgspec.Struct, frozen=True):
    """A cron expression; whether its numbers are in range, and whether it is ever due, a schema cannot say."""

    def problem(self, text: str) -> str | None:
        """Return what is wrong with `text`, if anything."""
        return _schedule_problem(schedule.parse_cron, text)

    def schema(self) -> dict[str, Json]:
        """Return the same as JSON Schema."""
        return {"pattern": f"^{schedule.PATTERN}$", "examples": ["30 6 * * *", "*/15 8-18 * * MON-FRI"]}


class Zone(msgspec.Struct, frozen=True):
    """The name of a time zone; which there are a schema cannot say."""

    def problem(self, text: str) -> str | None:
        """Return what is wrong with `text`, if anything."""
        return _schedule_problem(schedule.zone_of, text)

    def schema(self) -> dict[str, Json]:
        """Return the same as JSON Schema."""
        return {"pattern": f"^{schedule.ZONE}$", "examples": ["Europe/Berlin", schedule.DEFAULT_ZONE]}


def _schedule_problem(read: Callable[[str], object], text: str) -> str | None:
    try:
        read(text)
    except schedule.ScheduleError as exc:
        return str(exc)
    return None


def text_problem(text: str) -> str | None:
    """Return what is wrong with any string, if anything: JSON can spell what UTF-8 cannot hold."""
    if text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text):
        return None
    return f"{quoted(text)} holds half of a surrogate pair; write the whole character"


def key_problem(path: str, key: object) -> str:
    """Return the problem of a key that is no string, as YAML allows it, in the object at `path`."""
    is_short = key is None or isinstance(key, bool | date) or (isinstance(key, int | float) and -1e15 < key < 1e15)
    shown = str(key) if isinstance(key, date) else json.dumps(key) if is_short else kind_of(key)
    return f"{path or 'definition'}: the key {shown} is not a string; put it in quotes"


DIALECT = "https://json-schema.org/draft/2020-12/schema"
"""Of the JSON Schema of a definition, and of the `input_schema` in one."""

MAX_TAGS = 20

# ---- The table ---------------------------------------------------------------------------------------


class Kind(Enum):
    """What a key holds: its Python type, its type in JSON Schema, and what a message calls it."""

    STRING = (str, "string", "a string")
    STEP = (str, "string", "the name of a step")
    DURATION = (str, "string", 'a duration as in "90s"')
    FLAG = (bool, "boolean", "true or false")
    VALUES = (dict, "object", "an object")
    REQUEST = (dict, "object", "an object, a request as the service's API has it")
    STEPS = (dict, "object", "an object that holds steps by their names")
    BRANCHES = (list, "array", "a list of branches")
    TAGS = (list, "array", "a list of tags")
    SCHEMA = (dict, "object", "an object, a JSON Schema")


class Key(msgspec.Struct, frozen=True):
    """One row: a key, what it holds, and what it is for."""

    name: str
    kind: Kind
    description: str
    is_required: bool = False
    rule: Choice | Pattern | Duration | Cron | Zone | None = None
    """Of the string, or of the names in an object of values."""
    default: str | None = None
    not_with: str | None = None
    """A key that cannot stand beside this one; a flag that is false stands nowhere."""
    unless_requested: tuple[str, ...] = ()
    """It is required unless the step's `request` has one of these."""
    not_requested: tuple[str, ...] = ()
    """Paths of what cannot stand in the step's `request` beside this key."""
    taken: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Of a request: path of what is not to stand in it -> why it is not."""
    needs: str | None = None
    """A key without which this one says nothing."""

    def problem(self, value: object) -> str | None:
        """Return what is wrong with the value itself, if anything; what is in it is judged elsewhere."""
        python_type, _, noun = self.kind.value
        if not isinstance(value, python_type):
            return f"must be {noun}, not {kind_of(value)}"
        if isinstance(value, str):
            return text_problem(value) or (self.rule.problem(value) if self.rule else None)
        if self.kind in (Kind.STEPS, Kind.BRANCHES) and not value:
            return f"is empty; write at least one {'step' if self.kind is Kind.STEPS else 'branch'}"
        return None

    def schema(self) -> dict[str, Json]:
        """Return the row as JSON Schema; it refers to `$defs` for steps and branches."""
        found: dict[str, Json] = {"description": self.description, "type": self.kind.value[1]}
        if self.default is not None:
            found["default"] = self.default
        if self.kind is Kind.STEPS:
            return found | {"$ref": "#/$defs/steps"}
        if self.kind is Kind.BRANCHES:
            return found | {"minItems": 1, "items": {"$ref": "#/$defs/branch"}}
        if self.kind is Kind.SCHEMA:
            return found | {"$ref": DIALECT}
        rule = self.rule.schema() if self.rule else {}
        if self.kind is Kind.VALUES:
            return found | ({"propertyNames": rule} if rule else {})
        if self.kind is Kind.REQUEST:
            return found | _without(self.taken)
        if self.kind is Kind.TAGS:
            return found | {"maxItems": MAX_TAGS, "uniqueItems": True, "items": {"type": "string", **rule}}
        return found | rule

    def tag_problems(self, path: str, tags: Sequence[object]) -> Iterator[str]:
        """Yield what is wrong with the tags at `path`."""
        if len(tags) > MAX_TAGS:
            yield f"{path}: has {len(tags):,} tags; allowed are {MAX_TAGS}"
        for index, tag in enumerate(tags[:MAX_TAGS]):
            if not isinstance(tag, str):
                yield f"{at(path, index)}: must be a string, not {kind_of(tag)}"
            elif problem := text_problem(tag) or (self.rule.problem(tag) if self.rule else None):
                yield f"{at(path, index)}: {problem}"
            elif tag in tags[:index]:
                yield f"{at(path, index)}: {quoted(tag)} stands there twice; write it once"

    def taken_problems(self, path: str, request: Mapping[object, object]) -> Iterator[str]:
        """Yield what stands in the request at `path` that is not the author's to set."""
        yield from (f"{path}.{taken}: {why}; leave it out" for taken, why in self.taken.items() if _has(request, taken))


def _has(request: object, path: str) -> bool:
    """Whether something stands at `path` of a request."""
    for part in path.split("."):
        if not isinstance(request, dict) or part not in request:
            return False
        request = request[part]
    return True


def with_schema(path: str) -> dict[str, Json]:
    """Return the schema of an object in which something stands at `path`."""
    first, _, rest = path.partition(".")
    found: dict[str, Json] = {"type": "object", "required": [first]}
    return found | {"properties": {first: with_schema(rest)}} if rest else found


def _without(taken: Iterable[str]) -> dict[str, Json]:
    """Return the schema of an object in which nothing stands at these paths."""
    inner: dict[str, list[str]] = {}
    for path in taken:
        first, _, rest = path.partition(".")
        inner.setdefault(first, []).append(rest)
    properties: dict[str, Json] = {first: False if "" in rests else _without(rests) for first, rests in inner.items()}
    return {"properties": properties} if properties else {}


STEP_NAME_RULE = Pattern("a step name", STEP_NAME.pattern, "write 1 to 64 of A-Z a-z 0-9 _ -")

_IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_]*"

_START = Key("start", Kind.STEP, "The step that comes first; one of `steps`.", is_required=True)
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
    Kind.TAGS,
    "Words to find its runs by: `orchestrator runs --tag`.",
    rule=Pattern("a tag", r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,62}", "write 1 to 63 of A-Z a-z 0-9 . _ : / -"),
)
_INPUT_SCHEMA = Key(
    "input_schema",
    Kind.SCHEMA,
    "What the run's input must be, as JSON Schema 2020-12; a start whose input is not so is refused.",
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

_TYPE = Key(
    "type",
    Kind.STRING,
    "What the step is: a Task runs something, a Parallel runs its branches at the same time.",
    is_required=True,
    rule=Choice("a step type", tuple(NodeTypes)),
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

_STEP = (_TYPE, _NEXT, _END)
_TASK = (*_STEP, _TARGET_TYPE, _TIMEOUT)
_TARGETS: Mapping[TargetTypes, tuple[Key, ...]] = {
    TargetTypes.CLOUD_FUNCTION: (_TARGET_NAME, _ENTRY_POINT, _PARAMETERS, _INVOCATION, _PROJECT_ID, _REGION),
    TargetTypes.DATAFLOW: (_TARGET_NAME, _PARAMETERS, _FLEX, _CLASSIC, _PROJECT_ID, _REGION),
    TargetTypes.FUNCTION: (_FUNCTION, replace(_TARGET_NAME, is_required=False), _ARGUMENTS, _WORKER),
    TargetTypes.CLOUD_RUN_JOB: (_JOB, _VARIABLES, _request(), _PROJECT_ID, _REGION),
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
    TargetTypes.BATCH: (_TITLE, _IMAGE, _VARIABLES, _request("labels"), _PROJECT_ID, _REGION),
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
}


# ---- The shapes that the rows make up ----------------------------------------------------------------


class Shape(msgspec.Struct, frozen=True):
    """What one kind of object may hold; `noun` is what a message calls such an object."""

    noun: str
    keys: Mapping[str, Key]

    @classmethod
    def of(cls, noun: str, *rows: Key) -> "Shape":
        """Return the shape of these rows."""
        return cls(noun, {row.name: row for row in rows})

    def problems(self, path: str, found: Mapping[object, object]) -> Iterator[str]:
        """Yield what is wrong with the keys of the object `found` at `path`, and with their values."""
        meant = set()
        for name, value in found.items():
            if not isinstance(name, str):
                yield key_problem(path, name)
                continue
            row = self.keys.get(name)
            if row is None and not _homes(name):
                meant.add(closest(name, self.keys))
            problem = self._unknown(name) if row is None else row.problem(value)
            if problem:
                yield f"{at(path, name)}: {problem}"
            elif row is not None and row.kind is Kind.TAGS and isinstance(value, list):
                yield from row.tag_problems(at(path, name), value)
        for name, row in self.keys.items():
            if row.is_required and name not in found and name not in meant:
                allowed = f"allowed: {', '.join(row.rule.allowed)}" if isinstance(row.rule, Choice) else ""
                yield f"{at(path, name)}: is missing; {allowed or f'{self.noun} needs it'}"
            if row.unless_requested and name not in found and name not in meant:
                request = found.get("request")
                if not any(part in request for part in row.unless_requested if isinstance(request, dict)):
                    others = " or ".join(row.unless_requested)
                    yield f'{at(path, name)}: is missing; {self.noun} needs it, or {others} in its "request"'
            if name in found:
                for beside in row.not_requested:
                    if _has(found.get("request"), beside):
                        yield f'{at(path, "request")}.{beside}: cannot stand beside "{name}"; keep one of the two'
            stands = found.get(name) is True if row.kind is Kind.FLAG else name in found
            if stands and row.not_with is not None and row.not_with in found:
                yield f'{at(path, name)}: cannot stand beside "{row.not_with}"; keep one of the two'
            if row.needs is not None and name in found and row.needs not in found:
                yield f'{at(path, name)}: says nothing without "{row.needs}"; write that too, or neither'

    def _unknown(self, name: str) -> str:
        homes = _homes(name)
        if homes:
            return f"is not a key of {self.noun}, only of {' and '.join(homes)}"
        return f"is not a key of {self.noun};{did_you_mean(name, self.keys)} allowed: {', '.join(self.keys)}"


def _homes(name: str) -> list[str]:
    """Return the nouns of the steps that have a key of this name."""
    tasks = [shape.noun for shape in TASKS.values() if name in shape.keys]
    return (["a Task"] if len(tasks) == len(TASKS) else tasks) + (["a Parallel"] if name in PARALLEL.keys else [])


def _any_of(*rows: Key) -> tuple[Key, ...]:
    """Return the rows that are left when it is not known which of them hold: none is required."""
    found: dict[str, Key] = {}
    for row in rows:
        row = replace(row, is_required=False, unless_requested=(), not_requested=(), taken={})
        same = found.setdefault(row.name, row)
        found[row.name] = same if same.rule == row.rule else replace(same, rule=None)
    return tuple(found.values())


_SCHEMA = Key("$schema", Kind.STRING, "Where an editor finds the JSON Schema of a definition; the engine ignores it.")
DEFINITION = Shape.of(
    "a definition", _START, _STEPS, _ABOUT, _OWNER, _TAGS, _INPUT_SCHEMA, _SCHEDULE, _TIME_ZONE, _SCHEMA
)
BRANCH = Shape.of("a branch", _START, _STEPS)
PARALLEL = Shape.of("a Parallel", *_STEP, _BRANCHES)
TASKS = {target: Shape.of(f"a {target} Task", *_TASK, *rows) for target, rows in _TARGETS.items()}
TASK = Shape.of("a Task", *_TASK, *_any_of(*(row for rows in _TARGETS.values() for row in rows)))
"""A Task of which the target type is not known."""
STEP = Shape.of("a step", _TYPE, *_any_of(*PARALLEL.keys.values(), *TASK.keys.values())[1:])
"""A step of which not even the type is known."""


def shape_of(step: Mapping[object, object]) -> Shape:
    """Return the shape that a step must have, as far as its type and target type tell."""
    match step.get("type"), step.get("target_type"):
        case NodeTypes.PARALLEL, _:
            return PARALLEL
        case NodeTypes.TASK, str(target_type):
            return next((shape for target, shape in TASKS.items() if target == target_type), TASK)
        case NodeTypes.TASK, _:
            return TASK
        case _:
            return STEP
