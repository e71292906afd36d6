"""The grammar of a definition, as one table: what keys there are, what each may hold and where.

Both judges of a definition read it: `definition.problems` and the JSON Schema. So a new key is one row, here or in
`grammar_of_runs`, a new target type one entry of `TARGETS` in `grammar_of_targets`, a new node type one of `SHAPES`.
What a table cannot say (names that must exist, cycles, the contents of expressions) is in `definition`. Pure.
"""

from collections.abc import Mapping

from msgspec.structs import replace

from orchestrator.model.enums import NodeTypes, TargetTypes, Triggers
from orchestrator.model.grammar_keys import Key, Kind, Shape
from orchestrator.model.grammar_of_runs import RUNS
from orchestrator.model.grammar_of_targets import TARGETS, WITHOUT_POOLS
from orchestrator.model.grammar_rules import Choice, Duration, Pattern, Range
from orchestrator.model.ids import STEP_NAME

STEP_NAME_RULE = Pattern("a step name", STEP_NAME.pattern, "write 1 to 64 of A-Z a-z 0-9 _ -")
_START = Key(
    "start",
    Kind.STEP,
    "The step that comes first: one of `steps`. Where some depend on others it can be left out: then all steps come "
    "first that neither depend on others nor have a way to them.",
    unless_in=("steps", "depends_on"),
)
_STEPS = Key("steps", Kind.STEPS, "The steps by their names.", is_required=True)
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
_TIMEOUT = Key("timeout", Kind.DURATION, "How long one attempt may take.", rule=Duration("30d"))
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
DEFINITION = Shape.of("a definition", _START, _STEPS, _FINALLY, _RUN_RESULT, *RUNS, _SCHEMA)
BRANCH = Shape.of("a branch", _START, _STEPS)
PARALLEL = Shape.of("a Parallel", *_STEP, _ON_ERROR, _BRANCHES, _ON_FAILURE)
TASKS = {
    target: Shape.of(f"a {target} Task", *_TASK, *(() if target in WITHOUT_POOLS else (POOL,)), *rows)
    for target, rows in TARGETS.items()
}
TASK = Shape.of("a Task", *_TASK, POOL, *_any_of(*(row for rows in TARGETS.values() for row in rows)))
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
