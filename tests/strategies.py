"""Hypothesis strategies for definitions, for every test that draws some.

`definitions` draws chains of Tasks and Parallels of one target type; `any_definitions` draws from the whole grammar;
`mutations_of` draws what is near to valid definitions, and mostly is none.
`any_definitions` reads the grammar's table: a new row of a known kind, a new target type or a new node type is drawn as
soon as it stands there, and a new kind is an error that says that a strategy for it is missing.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

from hypothesis import strategies as st

from orchestrator.model.enums import NodeTypes
from orchestrator.model.expressions import ROOTS
from orchestrator.model.grammar import BRANCH, DEFINITION, SHAPES, TASKS
from orchestrator.model.grammar_keys import Key, Kind, Shape
from orchestrator.model.grammar_rules import Choice, Cron, Duration, Pattern, Zone, text_problem
from tests.support.world import task


@st.composite
def definitions(draw, max_depth: int = 3, max_branches: int = 3, max_steps: int = 3):
    """Draw a valid definition: chains of Tasks and Parallels, nested up to `max_depth` deep.

    Some Tasks share a function, as real ones do; steps stand in any order.
    """
    numbers = count()

    def graph(depth: int) -> dict:
        length = draw(st.integers(1, max_steps))
        names = [f"S{next(numbers)}" for _ in range(length)]
        steps = {}
        for place, name in enumerate(names):
            if depth < max_depth and draw(st.integers(0, 2)) == 0:
                branches = [graph(depth + 1) for _ in range(draw(st.integers(1, max_branches)))]
                steps[name] = {"type": "Parallel", "branches": branches}
            else:
                steps[name] = task(target=draw(st.sampled_from(["f", "g"])))
            if place + 1 < length:
                steps[name]["next"] = names[place + 1]
            elif draw(st.booleans()):
                steps[name]["end"] = True
        order = draw(st.permutations(names))
        return {"start": names[0], "steps": {name: steps[name] for name in order}}

    return graph(0)


VARIABLES = {"project": "p"}
"""What `any_definitions` ask for of an environment."""

SECRETS = {"key": "open-sesame-1234"}
"""Likewise, of what is kept nowhere."""

KEPT = ("Dag", "Callback")
"""Target types whose parameters stand in a document, so that no secret can be in them."""

POOLS = {"api": 1, "bigquery": 2}
"""Likewise: how many slots each pool has."""

# -- what people and machines get wrong ------------------------------------------------------------------

_WORDS = sorted({"start", "steps", "next", "end", "branches", "type", "A", "B", "P", "Task", "Parallel", "Function"})

odd_texts = st.text(max_size=8) | st.sampled_from(
    [*_WORDS, "10s", "${steps.A.result}", "${run.input}", "gs://b1/x", "a.b:c"]
)
odd_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | odd_texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(odd_texts, inner, max_size=4),
    max_leaves=15,
)


@st.composite
def mutations_of(draw, definitions: Sequence[dict]):
    """Draw one of `definitions` in which one to three values were replaced, removed, renamed, added or swapped."""
    definition = copy.deepcopy(draw(st.sampled_from(definitions)))
    for _ in range(draw(st.integers(1, 3))):
        spots = [
            (holder, key)
            for holder in _containers(definition)
            for key in (holder if isinstance(holder, dict) else range(len(holder)))
        ]
        if not spots:
            break
        holder, key = draw(st.sampled_from(spots))
        match draw(st.sampled_from(["replace", "remove", "rename", "add", "swap"])):
            case "replace":
                holder[key] = draw(odd_values)
            case "remove":
                del holder[key]
            case "rename" if isinstance(holder, dict):
                holder[draw(odd_texts)] = holder.pop(key)
            case "swap":
                other, other_key = draw(st.sampled_from(spots))
                holder[key] = copy.deepcopy(other[other_key])
            case _ if isinstance(holder, dict):
                holder[draw(odd_texts)] = draw(odd_values)
    return definition


def _containers(value):
    if isinstance(value, dict | list):
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _containers(inner)


# -- the whole grammar -----------------------------------------------------------------------------------

texts = st.text(max_size=8).filter(lambda text: not text_problem(text) and "$" not in text)
numbers = st.integers(-(2**53), 2**53) | st.floats(-1e6, 1e6, allow_nan=False)
scalars = st.none() | st.booleans() | numbers | texts
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2), max_leaves=4
)
inputs = st.fixed_dictionaries(
    {"flag": st.booleans() | st.booleans() | scalars},
    optional={
        "day": texts,
        "at": st.sampled_from(
            [
                "2026-01-02T00:00:00Z",
                "0001-01-01T00:00:00+14:00",
                "9999-12-31T23:59:59-14:00",
                "2025-01-01T00:00:00+01:00",
                "soon",
                7,
            ]
        ),
        "rows": st.lists(json_values, max_size=3),
    },
)
"""Input of a run, as the expressions that are drawn ask about it: often what they ask for is not there."""

ERROR_CLASSES = ("*", "Task.*", "Task.Failed", "Task.Timeout", "Launch.*", "Own.Error")
times = st.sampled_from(
    [
        *("2026-01-01T12:00:00Z", "2026-01-01T13:30:00.5+01:00", "2026-03-01T00:00:00Z", "2025-06-01T00:00:00Z"),
        *("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-01-01T12:00:01Z"),
    ]
)


@dataclass(eq=False)
class _Hole:
    """In place of what may hold expressions, until it is known what they can ask about."""

    kind: Kind
    name: str


@dataclass(eq=False)
class _Body:
    """A `start` and its `steps`, as far as they are drawn."""

    steps: dict[str, dict]
    inner: dict[str, list["_Body"]] = field(default_factory=dict)
    may_depend: bool = False
    """Whether its steps may depend on others."""

    @property
    def entries(self) -> list[str]:
        """The steps that it starts with; without dependencies, the first alone."""
        if not any("depends_on" in step for step in self.steps.values()):
            return [next(iter(self.steps))]
        led_to = {other for name in self.steps for other in self.ways(name)}
        return [name for name, step in self.steps.items() if name not in led_to and "depends_on" not in step]

    def names(self) -> Iterator[str]:
        for name in self.steps:
            yield from self.with_inner(name)

    def with_inner(self, name: str) -> Iterator[str]:
        """A step, and all that it holds."""
        yield name
        for body in self.inner.get(name, ()):
            yield from body.names()

    def ways(self, name: str) -> set[str]:
        """Steps of this body that are named anywhere in a step; no step is called like anything else."""
        step = {key: value for key, value in self.steps[name].items() if key != "depends_on"}
        return {text for text in _strings(step) if text in self.steps}

    def beyond(self, name: str) -> set[str]:
        """All that ways from a step lead to."""
        found: set[str] = set()
        waiting = [name]
        while waiting:
            for other in self.ways(waiting.pop()) - found:
                found.add(other)
                waiting.append(other)
        return found

    def ended_before(self) -> dict[str, set[str]]:
        """Name -> the steps of this body that have certainly ended when a step starts; they stand before it."""
        found: dict[str, set[str]] = {}
        for name, step in self.steps.items():
            waits_for = step.get("depends_on") or [other for other in self.steps if name in self.ways(other)]
            each = [found[other] | {other} for other in waits_for]
            is_early = step.get("trigger") == "one_failed"
            found[name] = set() if not each else set.intersection(*each) if is_early else set.union(*each)
        return found


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)


class _Drawer:
    def __init__(self, draw, max_depth: int, max_steps: int, max_branches: int, most: int | None) -> None:
        self.draw, self.most = draw, most
        self.max_depth, self.max_steps, self.max_branches = max_depth, max_steps, max_branches
        self.numbers = count()

    def stands(self, row: Key, label: str) -> bool:
        """Draw whether a key that is not required stands there: what says how a run goes on, does so more often."""
        often = row.kind in (Kind.STEP, Kind.STEP_NAMES) or row.needs == "depends_on"
        quarters = 3 if often else 2 if row.shape is not None or row.kind is Kind.DURATION else 1
        return self.draw(st.integers(1, 4), label=label) > 4 - quarters

    # ---- steps: each may name those that stand behind it, so there are no cycles ------------------------

    def body(self, depth: int) -> _Body:
        names = [f"S{next(self.numbers)}" for _ in range(self.draw(st.integers(1, self.max_steps), label="steps"))]
        body = _Body({}, may_depend=self.draw(st.booleans(), label="may depend"))
        for place, name in enumerate(names):
            body.steps[name] = self.step(body, name, names[place + 1 :], depth)
        if not any("depends_on" in step for step in body.steps.values()):
            reached = {names[0]} | body.beyond(names[0])
            body.steps = {name: step for name, step in body.steps.items() if name in reached}
        return body

    def step(self, body: _Body, name: str, later: list[str], depth: int) -> dict:
        kinds = [
            kind
            for kind, shape in SHAPES.items()
            if (later or not _needs_way(shape)) and (depth < self.max_depth or not _holds_steps(shape))
        ]
        heavy = [kind for kind in kinds if kind is NodeTypes.TASK or _holds_steps(SHAPES[kind])]
        kind = self.draw(st.sampled_from(kinds + 3 * heavy), label=f"type of {name}")
        if kind is NodeTypes.TASK:
            target = self.draw(st.sampled_from(list(TASKS)), label=f"target of {name}")
            fixed = {"type": kind.value, "target_type": target.value}
            return self.keys(TASKS[target], later, body, name, depth, fixed)
        return self.keys(SHAPES[kind], later, body, name, depth, {"type": kind.value})

    def keys(self, shape: Shape, later: list[str], body: _Body, name: str, depth: int, fixed: dict) -> dict:
        found: dict = dict(fixed)
        for key, row in shape.keys.items():
            if key in fixed or (not later and _leads_on(row)):
                continue
            if row.kind is Kind.STEP_NAMES and not self.can_depend(body, name):
                continue
            if row.is_required or row.unless_requested or self.stands(row, f"{name}.{key}"):
                found[key] = self.value(row, later, body, name, depth)
        for key, row in shape.keys.items():
            if row.unless and not {key, row.unless} & found.keys():
                found[key] = self.value(row, later, body, name, depth)
        if fixed.get("target_type") in KEPT and "parameters" in found:
            found["parameters"] = {each: _Hole(Kind.ANY, each) for each in found["parameters"]}
        self.repair(shape, found)
        if "heartbeat" in found:
            if found.get("invocation") == "sync":
                del found["invocation"]
            found["timeout"] = "30d"
            found["heartbeat"] = self.draw(st.sampled_from(["1s", "20m", "3d"]), label="heartbeat")
        return found

    @staticmethod
    def can_depend(body: _Body, name: str) -> bool:
        """Whether a step may depend on those that stand before it: none of them leads to it."""
        is_led_to = any(name in _strings(step) for step in body.steps.values())
        return body.may_depend and bool(body.steps) and not is_led_to

    def repair(self, shape: Shape, found: dict) -> None:
        """Take out what cannot stand together."""
        for key, row in shape.keys.items():
            has_request = row.unless_requested and isinstance(found.get("request"), dict)
            if has_request and self.draw(st.booleans(), label=f"{key} in the request"):
                del found[key]
                found["request"][row.unless_requested[0]] = {"some": "thing"}
        for key, row in shape.keys.items():
            stands = found.get(key) is True if row.kind is Kind.FLAG else key in found
            if (stands and row.not_with in found) or (key in found and row.needs and row.needs not in found):
                del found[key]

    def value(self, row: Key, later: list[str], body: _Body, name: str, depth: int):
        match row.kind:
            case Kind.STEP:
                return self.draw(st.sampled_from(later), label=f"{name}.{row.name}")
            case Kind.STEP_NAMES:
                some = st.lists(st.sampled_from(list(body.steps)), min_size=1, max_size=3, unique=True)
                return self.draw(some, label=f"{name}.{row.name}")
            case Kind.BRANCHES:
                number = self.draw(st.integers(1, self.max_branches), label="branches")
                body.inner[name] = [self.body(depth + 1) for _ in range(number)]
                return [None] * number
            case Kind.BRANCH:
                return self.body(depth + 1)
            case Kind.OBJECT:
                return self.keys(row.shape, later, body, name, depth, {})
            case Kind.OBJECTS | Kind.OBJECT_OR_OBJECTS:
                number = self.draw(st.integers(1, 2), label=f"{name}.{row.name}")
                found = [self.keys(row.shape, later, body, name, depth, {}) for _ in range(number)]
                is_one = row.kind is Kind.OBJECT_OR_OBJECTS and number == 1
                return found[0] if is_one else found
            case Kind.CONDITION | Kind.TEXT | Kind.ANY | Kind.ITEMS:
                return _Hole(row.kind, row.name)
            case Kind.VALUES:
                names = self.strings(row)
                return {
                    each: _Hole(Kind.VALUES, each) for each in self.draw(st.sets(names, max_size=2), label=row.name)
                }
            case _:
                return self.draw(self.plain(row), label=f"{name}.{row.name}")

    def plain(self, row: Key) -> st.SearchStrategy:
        """What holds neither steps nor expressions."""
        match row.kind:
            case Kind.STRING | Kind.DURATION:
                return self.strings(row)
            case Kind.TEXTS:
                own = self.strings(row) if row.rule else texts
                known = [text for text in ERROR_CLASSES if row.rule is None or row.rule.problem(text) is None]
                some = st.sampled_from(known) | own if known else own
                return st.lists(some, min_size=1, max_size=2, unique=row.most is not None)
            case Kind.FLAG:
                return st.booleans()
            case Kind.NUMBER if row.range is not None:
                most = row.range.most if self.most is None else min(row.range.most, row.range.least + self.most)
                least = row.range.least
                whole = st.integers(int(least), int(most))
                return whole if row.range.is_whole else whole | st.floats(least, most)
            case Kind.NUMBER:
                return numbers
            case Kind.COUNT_OR_SHARE:
                return st.integers(int(row.range.least), 3) | self.strings(row)
            case Kind.REQUEST:
                taken = {path.partition(".")[0] for path in row.taken}
                return st.dictionaries(texts.filter(lambda text: text not in taken), json_values, max_size=2)
            case Kind.SCHEMA:
                return st.sampled_from([{}, {"type": "object"}, {"properties": {"day": {"default": "today"}}}])
        raise NotImplementedError(f"{row.name}: tests/strategies.py has no strategy for {row.kind}; write one")

    def strings(self, row: Key) -> st.SearchStrategy[str]:
        if row.name == "pool":  # so few that steps meet in them
            return st.sampled_from(sorted(POOLS))
        match row.rule:
            case Choice(allowed=allowed):
                return st.sampled_from(allowed)
            case Duration():
                some = ["1s", "90s", "500ms", "10m", "2h", "1.5d", "20d"]
                units = st.builds("{}{}".format, st.integers(1, 99), st.sampled_from(["ms", "s", "m", "h", "d"]))
                return (st.sampled_from(some) | units).filter(lambda text: row.rule.problem(text) is None)
            case Pattern(pattern=pattern):
                made = st.from_regex(pattern, fullmatch=True)
                return made.filter(lambda text: not (row.rule.problem(text) or text_problem(text)))
            case Cron():
                return st.sampled_from(["30 6 * * *", "*/15 8-18 * * MON-FRI", "0 0 29 2 *"])
            case Zone():
                return st.sampled_from(["Europe/Berlin", "Etc/UTC", "America/New_York"])
            case None:
                return texts
        raise NotImplementedError(f"{row.name}: tests/strategies.py has no strategy for {type(row.rule)}; write one")

    # ---- expressions: what has ended before, and the error where one leads to the step -----------------

    def filled(
        self,
        body: _Body,
        shape: Shape,
        before: tuple[str, ...] = (),
        catches: bool = False,
        *,
        is_item: bool = False,
    ) -> dict:
        """Return a body with its holes filled and its branches in place, its steps in any order."""
        steps: dict[str, dict] = {}
        caught = {
            route["next"]
            for step in body.steps.values()
            for route in step.get("on_error", ())
            if isinstance(route, dict)
        }
        caught |= {name for name, step in body.steps.items() if step.get("trigger") == "one_failed"}
        caught |= {name for first in caught for name in body.beyond(first)}
        ended = body.ended_before()
        for name, step in body.steps.items():
            earlier = [other for other in body.steps if other in ended[name]]
            known = (*before, *(each for other in earlier for each in body.with_inner(other)))
            has_error = catches or name in caught
            made = {key: self.fill(value, known, has_error, is_item) for key, value in step.items()}
            for key, value in made.items():
                if isinstance(value, _Body):  # of a Map: nobody outside of it may ask about its steps
                    made[key] = self.filled(value, BRANCH, known, has_error, is_item=True)
            if name in body.inner:
                key = next(key for key, value in made.items() if isinstance(value, list) and None in value)
                made[key] = [self.filled(each, BRANCH, known, has_error, is_item=is_item) for each in body.inner[name]]
            steps[name] = made
        order = self.draw(st.permutations(list(steps)), label="order")
        extra = {} if shape is BRANCH else self.keys(shape, [], body, "", 0, {"start": "", "steps": {}})
        for key, value in extra.items():
            if isinstance(value, _Body):  # it runs when all that is here has ended
                extra[key] = self.filled(value, BRANCH, tuple(body.names()), True)
            elif key == "triggers":
                extra[key] = self.fill_trigger(value)
            elif isinstance(value, _Hole):  # the run's result: likewise, if nothing has failed
                extra[key] = self.fill(value, tuple(body.names()), False, False)
        entries = body.entries
        if len(entries) > 1 or (len(steps) > 1 and any("depends_on" in step for step in steps.values())):
            extra.pop("start", None)
            start = {}
            if len(entries) == 1 and self.draw(st.booleans(), label="start"):
                start = {"start": entries[0]}
        else:
            start = {"start": entries[0]}
        return {**extra, **start, "steps": {name: steps[name] for name in order}}

    def fill_trigger(self, value: object):
        """Fill the holes of triggers, which are where there is no run yet."""
        if isinstance(value, dict):
            return {key: self.fill_trigger(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.fill_trigger(inner) for inner in value]
        if not isinstance(value, _Hole):
            return value
        if value.kind is Kind.CONDITION:
            return self.draw(
                st.sampled_from(["${event.size > 0}", "${event.data.is_new}", "${true}"]), label=value.name
            )
        expressions = st.sampled_from(["${event.name}", "${event}", "for ${event.data.day}", "${var.project}"])
        return self.draw(json_values | expressions, label=value.name)

    def fill(self, value: object, known: tuple[str, ...], has_error: bool, is_item: bool):
        if isinstance(value, dict):
            return {key: self.fill(inner, known, has_error, is_item) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.fill(inner, known, has_error, is_item) for inner in value]
        if not isinstance(value, _Hole):
            return value
        expressions = [f"${{run.{key}}}" for key in (*ROOTS["run"], "input.flag", "input.day", "input.at")]
        expressions += ["${var.project}", "${size(run.input.day) > 3}", "${1 / int(run.input.day)}", "${run.dag + '!'}"]
        expressions += [f"${{steps.{name}.status != 'Completed'}}" for name in known]
        expressions += [f"${{size(steps.{name}.result)}}" for name in known]
        expressions += [f"${{steps.{name}.{key}}}" for name in known for key in (*ROOTS["steps"], "result.rows")]
        expressions += [f"${{error.{key}}}" for key in ROOTS["error"]] if has_error else []
        expressions += ["${item}", "${index}", "${item.rows}", "${index + 1}", "${item == 'x'}"] if is_item else []
        expression = st.sampled_from(expressions)
        if value.kind is Kind.VALUES:
            expression |= st.just("Bearer ${secret.key}")
        match value.kind:
            case Kind.CONDITION:
                likely = st.sampled_from(["${run.input.flag}", "${!run.input.flag}"])
                likely |= st.sampled_from(["${true}", *(f"${{steps.{name}.result}}" for name in known)])
                expression = st.sampled_from([text for text in expressions if _may_hold(text)])
                return self.draw(likely | expression, label=value.name)
            case Kind.ITEMS:
                lists = ["${run.input.rows}", "${['a', 'b', run.dag]}", "${run.input.flag ? [1, 2] : [3]}"]
                lists += [f"${{steps.{name}.{key}}}" for name in known for key in ("result", "result.rows")]
                lists += ["${item}", "${[index, index]}"] if is_item else []
                one = json_values | expression
                return self.draw(st.lists(one, max_size=4) | st.sampled_from(lists) | expression, label=value.name)
            case Kind.TEXT:
                return self.draw(times | expression, label=value.name)
        mixed = st.builds("a {} b {}".format, expression, expression)
        return self.draw(json_values | expression | mixed | st.lists(expression, max_size=2), label=value.name)


def _may_hold(text: str) -> bool:
    """Whether a condition may be this: what can never be true or false is no valid one."""
    return not text.startswith(("${size(steps", "${1 /", "${run.dag +", "${index +"))


def _holds_steps(shape: Shape) -> bool:
    return any(row.kind in (Kind.BRANCHES, Kind.BRANCH) for row in shape.keys.values())


def _leads_on(row: Key) -> bool:
    """Whether a key cannot stand where no step follows."""
    return row.kind is Kind.STEP or (row.shape is not None and _needs_way(row.shape))


def _needs_way(shape: Shape) -> bool:
    return any(row.is_required and _leads_on(row) for row in shape.keys.values())


@st.composite
def any_definitions(
    draw, max_depth: int = 2, max_steps: int = 5, max_branches: int = 2, most: int | None = None
) -> dict:
    """Draw a valid definition from the whole grammar.

    Args:
        max_depth: how deeply Parallels are nested.
        max_steps, max_branches: of each.
        most: how far a number goes beyond the least that is allowed; None: to the most that is.
    """
    drawer = _Drawer(draw, max_depth, max_steps, max_branches, most)
    return drawer.filled(drawer.body(0), DEFINITION)


# -- graphs in which steps depend on others ----------------------------------------------------------------


@st.composite
def dependent_definitions(draw, max_depth: int = 1, max_steps: int = 7) -> dict:
    """Draw a valid definition in which steps depend on others, mixed with all kinds of ways, in all kinds of bodies.

    Its Tasks are Functions; conditions are `${true}` or `${false}`.
    """
    numbers = count()

    def body(depth: int) -> dict:
        names = [f"S{next(numbers)}" for _ in range(draw(st.integers(2, max_steps)))]
        steps, led_to = {}, set()
        for place, name in enumerate(names):
            later = names[place + 1 :]
            step = steps[name] = a_step(depth, later)
            is_last_to_depend = place == len(names) - 1 and not any("depends_on" in each for each in steps.values())
            if place and name not in led_to and (is_last_to_depend or draw(st.integers(0, 3))):
                some = st.lists(st.sampled_from(names[:place]), min_size=1, max_size=4, unique=True)
                step["depends_on"] = draw(some)
                trigger = draw(st.sampled_from([None, None, "all_completed", "all_done", "one_failed"]))
                step.update({"trigger": trigger} if trigger else {})
            led_to |= {
                text
                for key, value in step.items()
                if key not in ("depends_on", "branches")
                for text in _strings(value)
                if text in later
            }
        if not any("depends_on" in step for step in steps.values()):  # the last one is led to
            steps[f"S{next(numbers)}"] = task(depends_on=[names[0]])
        order = draw(st.permutations(list(steps)))
        return {"steps": {name: steps[name] for name in order}}

    def a_step(depth: int, later: list[str]) -> dict:
        way = st.sampled_from(later) if later else None
        kind = draw(st.sampled_from(["Task", "Task", "Task", "Pass", "Condition", "Parallel"]))
        if kind == "Condition" and way is not None:
            when = draw(st.sampled_from(["${true}", "${false}"]))
            return {"type": "Condition", "choices": [{"when": when, "next": draw(way)}], "default": draw(way)}
        if kind == "Parallel" and depth < max_depth:
            step = {"type": "Parallel", "branches": [body(depth + 1) for _ in range(draw(st.integers(1, 2)))]}
        elif kind == "Pass":
            step = {"type": "Pass", "result": 1}
        else:
            step = task(target=draw(st.sampled_from(["f", "g"])))
        if way is not None and draw(st.booleans()):
            step["next"] = draw(way)
        if way is not None and draw(st.integers(0, 2)) == 2:
            step["on_error"] = [{"next": draw(way)}]
        return step

    found = body(0)
    return {**found, "finally": body(0)} if draw(st.integers(0, 3)) == 3 else found
