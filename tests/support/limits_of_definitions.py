"""Beyond the limits of definitions: what `orchestrator validate` says, and a run where only that can tell."""

import json
from functools import cache

from orchestrator.testing import Simulation, fails, is_lost, never_ends, returns, simulate
from tests.support.limits import ROOT, Bench, Row, beyond, ended, error_of
from tests.support.world import chain, dag, parallel, task

DAY = 86400.0


def passing(result: object, **keys: object) -> dict:
    return dag(A={"type": "Pass", "result": result, **keys})


def nested(levels: int, value: object = 1) -> object:
    """A value in so many lists."""
    for _ in range(levels):
        value = [value]
    return value


def parallels(levels: int) -> dict:
    graph = chain("Inmost")
    for level in range(levels):
        graph = dag(**{f"P{level}": parallel(graph)})
    return graph


def maps(levels: int) -> dict:
    graph = chain("Inmost")
    for level in range(levels):
        graph = dag(**{f"M{level}": {"type": "Map", "items": [1], "iterator": graph}})
    return graph


def calling(**keys: object) -> dict:
    """A Task of any target type."""
    return dag(A={"type": "Task", **keys})


# ---- docs/language.md --------------------------------------------------------------------------------


@beyond("docs/language.md", "step names")
def _(bench: Bench, row: Row) -> str:
    bench.refused(dag(**{"": task()}))
    return bench.edge(lambda number: chain("A" * number), row.most)


@beyond("docs/language.md", "Parallels and Maps in one another")
def _(bench: Bench, row: Row) -> str:
    levels, of_maps = row.numbers
    return bench.edge(maps, of_maps) + bench.edge(parallels, levels)


@beyond("docs/language.md", "lists and objects in one another")
def _(bench: Bench, row: Row) -> str:
    bench.edge(lambda levels: dag(A=task(parameters={"x": nested(levels - 1)})), row.most)
    return bench.edge(lambda levels: passing(nested(levels)), row.most)


@beyond("docs/language.md", "values in all parameters")
def _(bench: Bench, row: Row) -> str:
    said = bench.refused(passing([0] * (row.most + 1)))
    assert f"steps.A.result[{row.most - 1}]: is one value too many" in said  # the list itself is one
    return said


@beyond("docs/language.md", "`timeout` and `heartbeat` of a step")
def _(bench: Bench, row: Row) -> str:
    function = {"target_type": "CloudFunction", "target_name": "f"}
    for keys in (
        lambda days: {"timeout": f"{days}d"},
        lambda days: {"heartbeat": f"{days}d"},
        lambda days: {"retry": {"delay": f"{days}d"}},
        lambda days: {"retry": {"max_delay": f"{days}d"}},
    ):
        said = bench.edge(lambda days, keys=keys: calling(**function, **keys(days)), row.most)
        assert not row.lacks(said)
    return said


@beyond("docs/language.md", "`for`, `timeout` of a run")
def _(bench: Bench, row: Row) -> str:
    said = bench.edge(lambda days: dag(A={"type": "Wait", "for": f"{days}d"}), row.most)
    assert not row.lacks(said)
    return bench.edge(lambda days: {**chain("A"), "timeout": f"{days}d"}, row.most)


@beyond("docs/language.md", "`until`")
def _(bench: Bench, row: Row) -> str:
    def until(days: int) -> Simulation:
        at = f"${{timestamp(run.started_at) + duration('{days * 86400 + 1}s')}}"
        return simulate(dag(A={"type": "Wait", "until": at}))

    assert until(row.most - 1).status == "Completed"
    return error_of(until(row.most))


@beyond("docs/language.md", "`max_attempts`")
def _(bench: Bench, row: Row) -> str:
    return bench.edge(lambda number: dag(A=task(retry={"max_attempts": number})), row.most)


@beyond("docs/language.md", "`backoff`", "`jitter`")
def _(bench: Bench, row: Row) -> str:
    key = row.what.strip("`")
    bench.refused(dag(A=task(retry={key: row.numbers[0] - 0.1})))
    return bench.edge(lambda number: dag(A=task(retry={key: number})), row.most)


@beyond("docs/language.md", "words with dots between")
def _(bench: Bench, row: Row) -> str:
    return bench.edge(lambda words: dag(A=task(retry={"errors": [".".join(["A"] * words)]})), row.most)


@beyond("docs/language.md", "a wait before the next attempt")
def _(bench: Bench, row: Row) -> str:
    retry = {"max_attempts": 3, "delay": f"{row.most}d", "backoff": 100}
    took = simulate(dag(A=task(retry=retry)), targets={"A": fails()}).took.total_seconds()
    assert 2 * row.most * DAY <= took < 2 * row.most * DAY + 300
    return "it is as long as the longest"


@beyond("docs/language.md", "attempts lost with their host")
def _(bench: Bench, row: Row) -> str:
    run = simulate(dag(A=task()), targets={"A": is_lost()})
    assert len(run.launches("A")) == row.most + 1
    return error_of(run)


@beyond("docs/language.md", "tries to launch an attempt")
def _(bench: Bench, row: Row) -> str:
    tries = returns(1).uncertainly(row.most + 1)
    assert simulate(dag(A=task()), targets={"A": returns(1).uncertainly(row.most)}).status == "Completed"
    return error_of(simulate(dag(A=task()), targets={"A": tries}))


@beyond("docs/targets.md", "an attempt without a `timeout`")
def _(bench: Bench, row: Row) -> str:
    definition = dag(A={"type": "Task", "target_type": "CloudFunction", "target_name": "f"})
    world = Simulation(definition, targets={"A": never_ends()}, without_outcome=["CloudFunction"])
    run = world.finish(world.start())
    assert row.most * 3600 <= run.took.total_seconds() < row.most * 3600 + 300
    return error_of(run)


@beyond("docs/language.md", "`target_name`")
def _(bench: Bench, row: Row) -> str:
    function = {"target_type": "CloudFunction"}
    return bench.edge(lambda number: calling(**function, target_name="a" * number), row.most)


@beyond("docs/language.md", "numbers")
def _(bench: Bench, row: Row) -> str:
    return bench.edge(lambda digits: passing(10 ** (digits - 1) * 9), row.most)


@beyond("docs/language.md", "digits of a number in a file")
def _(bench: Bench, row: Row) -> str:
    text = '{"start": "A", "steps": {"A": {"type": "Pass", "result": %s}}}'
    assert "too long" not in bench.refused(text % ("1" * row.most))
    return bench.refused(text % ("1" * (row.most + 1)))


@beyond("docs/language.md", "a duration's digits")
def _(bench: Bench, row: Row) -> str:
    before, behind = row.numbers
    said = bench.edge(lambda digits: dag(A=task(timeout=f"1.{'1' * digits}s")), behind)
    assert not row.lacks(said)
    return bench.edge(lambda digits: dag(A=task(timeout=f"{'0' * (digits - 1)}1s")), before)


@beyond("docs/language.md", "names of secrets")
def _(bench: Bench, row: Row) -> str:
    return bench.edge(lambda number: dag(A=task(parameters={"x": f"${{secret.{'s' * number}}}"})), row.most)


# ---- docs/targets.md ---------------------------------------------------------------------------------


@beyond("docs/targets.md", "`timeout` of a")
def _(bench: Bench, row: Row) -> str:
    keys: dict[str, object] = {"target_type": "CloudFunction", "target_name": "f", "project_id": "p"}
    keys["region"] = "europe-west1"
    if "sync" in row.what and "async" not in row.what:
        keys["invocation"] = "sync"
    if "`Function`" in row.what:
        keys = {"target_type": "Function", "function": "builtins:dict"}
    return bench.edge(lambda minutes: calling(**keys, timeout=f"{minutes}m"), row.most, "--for", "gcp")


@beyond("docs/targets.md", "name of a `CloudFunction`")
def _(bench: Bench, row: Row) -> str:
    keys = {"target_type": "CloudFunction", "project_id": "p", "region": "europe-west1"}
    return bench.edge(lambda number: calling(**keys, target_name="a" * number), row.most, "--for", "gcp")


@beyond("docs/targets.md", "name of a `CloudRunJob`", "name of a `Workflows`")
def _(bench: Bench, row: Row) -> str:
    target_type = row.what.split("`")[1]
    return bench.edge(lambda number: calling(target_type=target_type, target_name="a" * number), row.most)


@beyond("docs/targets.md", "`project_id`", "`region`")
def _(bench: Bench, row: Row) -> str:
    keys = {"target_type": "CloudFunction", "target_name": "f"}
    return bench.edge(lambda number: calling(**keys, **{row.what.strip("`"): "a" * number}), row.most)


# ---- docs/tasks.md -----------------------------------------------------------------------------------


def beating(**keys: object) -> dict:
    return calling(**{"target_type": "CloudFunction", "target_name": "f", **keys})


@beyond("docs/tasks.md", "30 days")
def _(bench: Bench, row: Row) -> str:
    return bench.edge(lambda days: beating(heartbeat=f"{days}d"), row.most)


@beyond("docs/tasks.md", "less than the step's `timeout`")
def _(bench: Bench, row: Row) -> str:
    return bench.refused(beating(heartbeat="120s", timeout="2m"))


@beyond("docs/tasks.md", "`CloudFunction`, `CloudRunJob`, `Batch`")
def _(bench: Bench, row: Row) -> str:
    return bench.refused(beating(heartbeat="1m", target_type="BigQuery", query="SELECT 1"))


@beyond("docs/tasks.md", 'not with `"invocation"')
def _(bench: Bench, row: Row) -> str:
    return bench.refused(beating(heartbeat="1m", invocation="sync"))


# ---- docs/language/data.md ---------------------------------------------------------------------------


@beyond("docs/language/data.md", "10,000 characters of one expression")
def _(bench: Bench, row: Row) -> str:
    return bench.edge(lambda number: passing(f"${{1+{' ' * (number - 3)}1}}"), row.most)


@beyond("docs/language/data.md", "32 levels of operators")
def _(bench: Bench, row: Row) -> str:
    return bench.edge(lambda levels: passing("${" + "[" * levels + "]" * levels + "}"), row.most)


@beyond("docs/language/data.md", "9,999 rounds")
def _(bench: Bench, row: Row) -> str:
    text = passing("${run.input.x.exists(a, a < 0)}")
    assert bench.run(text, {"x": [1] * row.most}).run.status == "Completed"
    return bench.failed(text, {"x": [1] * (row.most + 1)})


@beyond("docs/language/data.md", "1,000,000 values that it takes in")
def _(bench: Bench, row: Row) -> str:
    assert bench.run(passing("${run.input.x}"), {"x": [0] * (row.most + 1)}).run.status == "Completed", "a path alone"
    return bench.failed(passing("${size(run.input.x)}"), {"x": [0] * (row.most + 1)})


@beyond("docs/language/data.md", "1,000,000 values that it gives out")
def _(bench: Bench, row: Row) -> str:
    several = "[" + ", ".join(["run.input.x"] * 101) + "]"
    return bench.failed(passing(f"${{{several}}}"), {"x": [0] * (row.most // 100)})


@beyond("docs/language/data.md", "100,000,000 values that it may have to touch")
def _(bench: Bench, row: Row) -> str:
    return bench.failed(passing("${run.input.x.map(a, run.input.x + run.input.x)}"), {"x": [1] * 9000})


@beyond("docs/language/data.md", "numbers of 64 bits")
def _(bench: Bench, row: Row) -> str:
    assert bench.run(passing("${run.input.x}"), {"x": 2**row.most}).run.status == "Completed", "a path alone"
    return bench.failed(passing("${run.input.x + 1}"), {"x": 2**row.most})


# ---- docs/language/depends_on.md -----------------------------------------------------------------------


@cache
def said_of_the_corpus() -> str:
    from orchestrator.model.definition import problems

    files = sorted((ROOT / "tests/definitions/invalid").glob("*.json"))
    return "validate\n" + "\n".join(problem for file in files for problem in problems(json.loads(file.read_text())))


@beyond(
    "docs/language/depends_on.md",
    *("a name that is no step", "a name that stands twice", "a cycle, over", "`depends_on` at a step"),
    *("`depends_on` at the `start`", "no `start`, and", "`trigger` without", "an expression about a step"),
)
def _(bench: Bench, row: Row) -> str:
    return said_of_the_corpus()


# ---- docs/language/map.md ------------------------------------------------------------------------------


def each(items: object, **keys: object) -> dict:
    """A Map whose items are made of themselves."""
    inner = dag(Do={"type": "Pass", "result": "${item}"})
    return dag(M={"type": "Map", "items": items, "iterator": inner, **keys})


@beyond("docs/language/map.md", "`items` that are no list")
def _(bench: Bench, row: Row) -> str:
    said = bench.failed(each("${run.input.x}"), {"x": 7})
    assert "${run.input.x} is a number, no list" in said
    return said + bench.failed(each("${run.input.y}"), {"x": 7})


@beyond("docs/language/map.md", "items of one Map")
def _(bench: Bench, row: Row) -> str:
    return bench.failed(each("${run.input.x}"), {"x": [0] * (row.most + 1)})


@beyond("docs/language/map.md", "Maps in one another")
def _(bench: Bench, row: Row) -> str:
    return bench.edge(maps, row.most)


@beyond("docs/language/map.md", "`max_concurrency`")
def _(bench: Bench, row: Row) -> str:
    bench.refused(each([1], max_concurrency=0))
    return bench.edge(lambda number: each([1], max_concurrency=number), row.most)


@beyond("docs/language/map.md", "`tolerated_failures`")
def _(bench: Bench, row: Row) -> str:
    number, share, digits = row.numbers
    bench.edge(lambda most: each([1], tolerated_failures=f"1.{'1' * most}%"), digits)
    return bench.edge(lambda most: each([1], tolerated_failures=most), number) + bench.edge(
        lambda most: each([1], tolerated_failures=f"{most}%"), share
    )


# ---- docs/language/queues.md, runs.md, starting.md: keys of a definition -----------------------------------


@beyond("docs/language/queues.md", "`max_active_runs`", "`priority` of a definition")
def _(bench: Bench, row: Row) -> str:
    key = row.what.split("`")[1]
    bench.refused({**chain("A"), key: row.numbers[0] - 1})
    return bench.edge(lambda number: {**chain("A"), key: number}, row.most)


@beyond("docs/language/queues.md", "a pool's name")
def _(bench: Bench, row: Row) -> str:
    return bench.edge(lambda number: dag(A=task(pool="p" * number)), row.most)


@beyond("docs/language/runs.md", "`owner`")
def _(bench: Bench, row: Row) -> str:
    return bench.edge(lambda number: {**chain("A"), "owner": "o" * number}, row.most)


@beyond("docs/language/runs.md", "`tags`")
def _(bench: Bench, row: Row) -> str:
    return bench.edge(lambda number: {**chain("A"), "tags": [f"t{each}" for each in range(number)]}, row.most)


@beyond("docs/language/runs.md", "a tag")
def _(bench: Bench, row: Row) -> str:
    return bench.edge(lambda number: {**chain("A"), "tags": ["t" * number]}, row.most)


def schema(levels: int) -> dict:
    found: dict = {}
    for _ in range(levels - 1):
        found = {"not": found}
    return {**chain("A"), "input_schema": found}


@beyond("docs/language/runs.md", "a schema of 30 levels")
def _(bench: Bench, row: Row) -> str:
    return bench.edge(schema, row.most)


@beyond("docs/language/runs.md", "`$schema` of another dialect")
def _(bench: Bench, row: Row) -> str:
    old = {"$schema": "http://json-schema.org/draft-07/schema#"}
    return bench.refused({**chain("A"), "input_schema": old}) + bench.refused(
        {**chain("A"), "input_schema": {"$id": "https://example.com/day"}}
    )


@beyond("docs/language/runs.md", "a schema that leads only to itself")
def _(bench: Bench, row: Row) -> str:
    return bench.refused({**chain("A"), "input_schema": {"$ref": "#"}})


@beyond("docs/language/runs.md", "`deadline`")
def _(bench: Bench, row: Row) -> str:
    return bench.edge(lambda days: {**chain("A"), "deadline": f"{days}d"}, row.most)


def telling(**to: str) -> dict:
    return {**chain("A"), "notify": [{"on": ["failed"], **to}]}


@beyond("docs/language/runs.md", "a `topic`")
def _(bench: Bench, row: Row) -> str:
    least, most = row.numbers
    bench.refused(telling(topic=f"projects/p/topics/{'t' * (least - 1)}"))
    return bench.edge(lambda number: telling(topic=f"projects/p/topics/{'t' * number}"), most)


@beyond("docs/language/runs.md", "a `url`")
def _(bench: Bench, row: Row) -> str:
    assert not row.lacks(bench.refused(telling(url="http://example.com/")))
    assert not row.lacks(bench.refused(telling(url="https://example.com/$x")))
    return bench.edge(lambda number: telling(url=f"https://example.com/{'a' * number}"), row.most)


def scheduled(cron: str) -> dict:
    return {**chain("A"), "schedule": cron}


@beyond("docs/language/starting.md", "`schedule`: five fields")
def _(bench: Bench, row: Row) -> str:
    bench.command("validate", bench.write(scheduled("0 6 * * *")), ends=0)
    return bench.refused(scheduled("0 6 * * * *")) + bench.refused(scheduled("@daily"))


@beyond("docs/language/starting.md", "`schedule`: 500 characters")
def _(bench: Bench, row: Row) -> str:
    def minutes(length: int) -> str:
        return "1," * ((length - 1) // 2) + ("1" if length % 2 else "10")

    return bench.edge(lambda number: scheduled(minutes(number - len(" * * * *")) + " * * * *"), row.most)


@beyond("docs/language/starting.md", "no `*/n` in one of the two day fields")
def _(bench: Bench, row: Row) -> str:
    return bench.refused(scheduled("0 6 */2 * MON"))


def landing(**source: str) -> dict:
    return {**chain("A"), "triggers": [{"object": {"bucket": "landing", **source}}]}


@beyond("docs/language/starting.md", "a `prefix` or `suffix`")
def _(bench: Bench, row: Row) -> str:
    assert not row.lacks(bench.edge(lambda number: landing(suffix="s" * number), row.most))
    return bench.edge(lambda number: landing(prefix="p" * number), row.most)


@beyond("docs/language/starting.md", "a `bucket`")
def _(bench: Bench, row: Row) -> str:
    least, most = row.numbers
    bench.refused(landing(bucket="b" * (least - 1)))
    assert not row.lacks(bench.refused(landing(bucket="gs://landing")))
    return bench.edge(lambda number: landing(bucket="b" * number), most)


# ---- docs/language/children.md -------------------------------------------------------------------------


@beyond("docs/language/children.md", "child runs in one another")
def _(bench: Bench, row: Row) -> str:
    again = dag(A={"type": "Task", "target_type": "Dag", "target_name": "d"})
    world = Simulation({"d": again})
    said = ended(world, world.start(dag="d"))
    assert len(world.runs) == row.most + 1
    return said + bench.refused(again)


@beyond("docs/language/children.md", "levels of objects and lists in a child's input")
def _(bench: Bench, row: Row) -> str:
    parent = dag(A={"type": "Task", "target_type": "Dag", "target_name": "child", "parameters": {"y": "${run.input}"}})
    world = Simulation({"parent": parent, "child": passing(1)})
    assert world.finish(world.start({"x": nested(row.most - 2)}, dag="parent")).status == "Completed"
    said = ended(world, world.start({"x": nested(row.most - 1)}, dag="parent"))
    answered = bench.command("run", bench.write(passing(1)), "--run-id", "r", ends=0)
    result = json.dumps(nested(row.most + 1))
    return answered + said + bench.command("approve", "r", "A", "--result", result, ends=2)
