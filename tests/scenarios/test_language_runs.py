"""docs/language/runs.md, run: each of its examples through the public surface, and its limits."""

import json
import re
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from orchestrator.cli.main import main
from orchestrator.model.definition import problems
from orchestrator.model.errors import InputRejected
from orchestrator.model.input_schema import MAX_LEVELS, MAX_PROBLEMS, filled_in
from orchestrator.runtime.executor import DAGExecutor
from tests.support.command_line import Place, clean_environment
from tests.support.world import START, World, chain

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "language" / "runs.md").read_text()
EXAMPLES = {
    name: json.loads(text)
    for name, text in re.findall(r"<!-- example: (\w+) -->\n```json\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    clean_environment()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    place = Place(tmp_path)
    for name, definition in EXAMPLES.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "dag.json").write_text(json.dumps(definition))
    return place


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_is_valid(name):
    assert problems(EXAMPLES[name]) == []
    assert len(EXAMPLES) == PAGE.count("```json")


# -- description, owner, tags ----------------------------------------------------------------------------


def test_a_run_tells_what_its_definition_says_about_it(place, capsys):
    assert main(["run", "about", "--run-id", "one"]) == 0
    assert place.document("one")["$run"]["owner"] == "data-team"
    assert place.document("one")["$run"]["tags"] == ["daily", "finance"]
    capsys.readouterr()
    assert main(["status", "one"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-4:-1] == ["about: Counts the words of a day.", "owner: data-team", "tags: daily, finance"]
    assert main(["runs"]) == 0
    heading, line = capsys.readouterr().out.splitlines()
    assert heading.endswith("  Owner #tags")
    assert line.endswith("  data-team #daily #finance")


def test_a_run_whose_definition_is_gone_is_shown_all_the_same(place, capsys):
    main(["run", "about", "--run-id", "one"])
    for path in (place.root / ".orchestrator" / "definitions").iterdir():
        path.unlink()
    capsys.readouterr()
    assert main(["status", "one"]) == 0
    assert capsys.readouterr().out.splitlines()[-3:-1] == ["owner: data-team", "tags: daily, finance"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param([], {"good", "bad", "plain"}, id="all"),
        pytest.param(["--dag", "about"], {"good"}, id="of a DAG"),
        pytest.param(["--status", "Failed"], {"bad"}, id="of a status"),
        pytest.param(["--status", "Failed", "--status", "Completed"], {"good", "bad", "plain"}, id="of any status"),
        pytest.param(["--tag", "daily"], {"good", "bad"}, id="of a tag"),
        pytest.param(["--tag", "daily", "--tag", "finance"], {"good"}, id="of all tags"),
        pytest.param(["--tag", "daily", "--status", "Failed", "--dag", "broken"], {"bad"}, id="of all of it"),
    ],
)
def test_runs_are_found_by_dag_status_and_tags(place, capsys, options, expected):
    folder = place.dag("broken", {"A": place.task("boom")})
    definition = json.loads((folder / "dag.json").read_text())
    (folder / "dag.json").write_text(json.dumps({**definition, "tags": ["daily"]}))
    place.dag("plain", {"A": place.task("echo")})
    for dag, run_id in (("about", "good"), ("broken", "bad"), ("plain", "plain")):
        main(["run", dag, "--run-id", run_id])
    capsys.readouterr()
    assert main(["runs", "--json", *options]) == 0
    assert {run["run_id"] for run in json.loads(capsys.readouterr().out)} == expected


def test_that_there_are_none_is_said_with_what_was_asked_for(place, capsys):
    main(["run", "about"])
    capsys.readouterr()
    assert main(["runs", "--dag", "x", "--status", "Failed", "--tag", "y"]) == 0
    assert capsys.readouterr().err == "no runs of x that are Failed tagged y in file://.orchestrator\n"


# -- the schema of the input -----------------------------------------------------------------------------


def test_an_input_that_breaks_the_schema_is_2_with_every_problem_and_makes_no_run(place, capsys):
    assert main(["run", "input_schema", "--input", "limit=many"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "orchestrator: input: 'day' is a required property",
        "orchestrator: input.limit: 'many' is not of type 'integer'",
    ]
    assert "input: 'day' is a required property\ninput.limit: 'many' is not of type 'integer'\n" in PAGE
    left = {path.name for path in (place.root / ".orchestrator").rglob("*") if path.is_file()}
    assert {name for name in left if name.endswith(".json")} == set()


def test_defaults_are_filled_in(place):
    assert main(["run", "input_schema", "--input", "day=2026-01-31", "--run-id", "one"]) == 0
    document = place.document("one")
    assert document["$run"]["input"] == {"day": "2026-01-31", "limit": 100}
    assert document["Load"]["result"] == {"day": "2026-01-31", "limit": 100}


def test_a_start_delivered_again_is_not_judged_again():
    world = World({**chain("A"), "input_schema": {"required": ["day"]}})
    run_id = world.start(input={"day": 1})
    world.catalog.definitions["dag"]["input_schema"] = {"required": ["month"]}  # another version is deployed
    again = world.executor.execute({**START, "input": {"day": 1}}, message_id="m1", publish_time=world.clock.now())
    assert (again.run_id, again.verdict) == (run_id, "unchanged")


def test_a_start_that_is_refused_leaves_nothing_in_the_bucket():
    world = World({**chain("A"), "input_schema": {"required": ["day"]}})
    with pytest.raises(InputRejected) as refused:
        world.start()
    assert refused.value.problems == ("input: 'day' is a required property",)
    assert refused.value.retry is False
    assert list(world.store.list("")) == []


def test_the_deployed_function_keeps_a_refused_start_as_a_dead_letter(place, monkeypatch):
    from orchestrator.runtime import gcp
    from tests.support.project import delivery

    monkeypatch.setenv("DAG_DEFINITIONS", ".")
    monkeypatch.setenv("STATUS_BUCKET", "file://deployed")
    monkeypatch.delenv("EVENTS_TOPIC", raising=False)
    monkeypatch.setattr(gcp, "_instance", gcp.Instance())
    message = {**START, "dag": "input_schema", "input": {"limit": 0, "more": 1}}
    attributes, data = delivery(message)
    try:
        assert gcp.handle(data, event_id=attributes["id"], event_time=attributes.get("time")) is None
    finally:
        gcp.executor().close()
    (letter,) = (place.root / "deployed" / "dead_letters").iterdir()
    kept = json.loads(letter.read_text())
    assert kept["error_type"] == "InputRejected"
    assert len(kept["error"].splitlines()) == 3
    assert kept["event"] == message


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string"}, 'input_schema.type: is "string"; a run\'s input is an object: write "object"'),
        ({"$ref": "#"}, "input_schema: refers to itself without end"),
        ({"properties": {"a": {"$ref": "https://a.b/c"}}}, '"https://a.b/c" leads nowhere'),
        ({"properties": {"a": {"$ref": "#/$defs/a"}}}, '"#/$defs/a" leads nowhere'),
        ({"$id": "https://a.b/c"}, "cannot stand here"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "is another dialect"),
        ({"properties": {"a": {"type": "strin"}}}, "input_schema.properties.a.type: 'strin' is not valid"),
        ({"properties": {"a": {"pattern": "("}}}, "input_schema.properties.a.pattern: '(' is not a 'regex'"),
        (
            {"properties": {"a": {"type": "string", "default": 3}}},
            "input_schema.properties.a.default: 3 is not of type",
        ),
        ({"required": "day"}, "input_schema.required: 'day' is not of type 'array'"),
    ],
)
def test_a_schema_that_is_none_is_a_problem_of_the_definition(schema, expected):
    (problem,) = problems({**chain("A"), "input_schema": schema})
    assert expected in problem


def nested(levels: int, key: str) -> dict:
    value: dict = {}
    for _ in range(levels - 1):
        value = {key: value}
    return value


def test_the_limits_are_those_that_are_documented():
    deep = {**chain("A"), "input_schema": nested(MAX_LEVELS, "not")}
    assert problems(deep) == []
    deep["input_schema"] = nested(MAX_LEVELS + 1, "not")
    assert problems(deep) == ["input_schema: is nested too deeply; allowed: 30 levels"]
    with pytest.raises(InputRejected) as refused:
        filled_in(
            {"additionalProperties": False, "patternProperties": {"^x": {"type": "string"}}},
            {f"x{number}": number for number in range(MAX_PROBLEMS + 5)},
        )
    assert refused.value.problems[MAX_PROBLEMS:] == ("input: has more problems; the first 100 are told",)
    endless = {"$defs": {"a": {"$ref": "#/$defs/a"}}, "properties": {"x": {"$ref": "#/$defs/a"}}}
    assert problems({**chain("A"), "input_schema": endless}) == []
    with pytest.raises(InputRejected, match="input: is nested too deeply to be judged by its input_schema"):
        filled_in(endless, {"x": 1})


@pytest.mark.parametrize(
    ("text", "format", "is_valid"),
    [
        ("2026-01-31", "date", True),
        ("2026-02-30", "date", False),
        ("20260131", "date", False),
        ("2026-01-31T10:00:00Z", "date-time", True),
        ("2026-01-31T10:00:00", "date-time", False),
        ("6f1c1f0e-8a3e-4f0e-9b53-0d7f0a3a6c1d", "uuid", True),
        ("no", "uuid", False),
        ("no", "email", True),
    ],
)
def test_formats(text, format, is_valid):
    with nullcontext() if is_valid else pytest.raises(InputRejected, match=f"input.x: '{text}' is not a '{format}'"):
        filled_in({"properties": {"x": {"format": format}}}, {"x": text})


def test_an_executor_of_your_own_raises_it_too():
    with DAGExecutor(EXAMPLES["input_schema"], "memory://") as executor, pytest.raises(InputRejected):
        executor.start(input={"day": "31.1.2026"})


# -- a drawing of a run ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv",
    [
        pytest.param(["one"], id="where no file is called so"),
        pytest.param(["about", "--bucket", "file://.orchestrator"], id="a bucket is named"),
        pytest.param(["--run", "one"], id="it is said to be a run"),
    ],
)
def test_a_run_is_drawn_with_the_status_of_its_steps(place, capsys, argv):
    assert main(["run", "about", "--run-id", "one"]) == 0
    assert main(["run", "about", "--run-id", "about"]) == 0
    (place.root / "about" / "dag.json").write_text("{}")  # the run's own definition counts
    capsys.readouterr()
    assert main(["graph", *argv]) == 0
    drawn = capsys.readouterr().out
    assert '    n0["Count<br/>Function builtins:dict<br/>Completed"]\n' in drawn
    assert main(["graph", *argv, "--format", "dot"]) == 0
    assert "Completed" in capsys.readouterr().out


def test_a_definition_is_drawn_as_ever(place, capsys):
    assert main(["graph", "about"]) == 0
    assert capsys.readouterr().out == 'flowchart TD\n    n0["Count<br/>Function builtins:dict"]\n'


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["nowhere"], "nowhere: there is no such file or folder"),
        (["--run", "nowhere"], "run nowhere: there is no such run in file://.orchestrator"),
        ([], "graph: needs a PATH or a RUN_ID"),
        (["about", "--run", "one"], "graph: needs a PATH or a RUN_ID"),
    ],
)
def test_what_is_not_there_cannot_be_drawn(place, capsys, argv, said):
    (place.root / ".orchestrator").mkdir(exist_ok=True)
    assert main(["graph", *argv]) == 2
    assert said in capsys.readouterr().err
