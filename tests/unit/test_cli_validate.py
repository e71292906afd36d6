"""orchestrator validate, schema and graph: what people see before anything runs."""

import json

import pytest

from orchestrator.cli.main import main
from orchestrator.model.dag import DAG
from orchestrator.model.graph import dot, mermaid
from orchestrator.model.schema import schema

TASK = {"type": "Task", "target_type": "CloudFunction", "target_name": "greet"}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder, steps, start="A", name="dag.json"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps({"start": start, "steps": steps}))


def test_valid_definitions_get_a_line_each(here, capsys):
    write(here / "dags" / "one", {"A": TASK})
    inner = [{"start": f"B{n}", "steps": {f"B{n}": TASK}} for n in range(2)]
    write(here / "dags" / "two", {"A": {**TASK, "next": "P"}, "P": {"type": "Parallel", "branches": inner}})
    (here / "dags" / "no_dag").mkdir()
    assert main(["validate", "dags"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == ["one: ok, 1 task", "two: ok, 3 tasks, 1 parallel"]
    assert said.err == ""


def test_all_problems_of_all_are_told_each_with_its_file(here, capsys):
    write(here / "dags" / "bad", {"A": {**TASK, "next": "Ende"}, "End": TASK})
    (here / "dags" / "broken").mkdir()
    (here / "dags" / "broken" / "dag.json").write_text("{")
    write(here / "dags" / "good", {"A": TASK})
    assert main(["validate", "dags", "nowhere", "dags/good/dag.json"]) == 2
    said = capsys.readouterr()
    assert said.out.splitlines() == ["good: ok, 1 task", "good: ok, 1 task"]
    assert said.err.splitlines()[0].startswith('dags/bad/dag.json: steps.A.next: no step named "Ende"')
    assert any(line.startswith("dags/broken/dag.json:1:2: is no JSON") for line in said.err.splitlines())
    assert said.err.splitlines()[-1] == "nowhere: there is no such file or folder"


def test_a_folder_without_any_definition_is_2(here, capsys):
    (here / "empty").mkdir()
    assert main(["validate", "empty"]) == 2
    assert capsys.readouterr().err == "empty: has no dag.json or dag.yaml\n"


def test_sources_that_are_missing_are_warnings(here, capsys):
    flow = {"type": "Task", "target_type": "Dataflow", "target_name": "count"}
    write(here / "d", {"A": {**TASK, "next": "B"}, "B": {**TASK, "next": "C"}, "C": flow})
    (here / "d" / "functions" / "great").mkdir(parents=True)
    (here / "d" / "functions" / "great" / "main.py").touch()
    assert main(["validate", "d"]) == 0
    said = capsys.readouterr()
    assert said.out == "d: ok, 3 tasks\n"
    assert said.err.splitlines() == [
        "d/dag.json: will not run locally: steps A, B: d/functions/greet/main.py: there is no such file; "
        'did you mean "great"?',
        "d/dag.json: will not run locally: step C: d/pipelines/count.py: there is no such file; "
        "pipelines that exist: none",
    ]


def test_a_definition_without_sources_of_its_own_is_meant_for_the_cloud(here, capsys):
    write(here / "d", {"A": TASK})
    assert main(["validate", "d"]) == 0
    assert capsys.readouterr().err == ""


def test_the_schema_is_one_json_document(capsys):
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == schema()


def test_graph_draws_what_was_asked_for(here, capsys):
    write(here / "d", {"A": TASK})
    dag = DAG({"start": "A", "steps": {"A": TASK}})
    assert main(["graph", "d"]) == 0
    assert capsys.readouterr().out == mermaid(dag)
    assert main(["graph", "d/dag.json", "--format", "dot"]) == 0
    assert capsys.readouterr().out == dot(dag)


def test_graph_of_a_definition_that_breaks_rules_is_2(here, capsys):
    write(here / "d", {"A": {"type": "Tsak"}})
    assert main(["graph", "d"]) == 2
    assert "orchestrator: d/dag.json: steps.A" in capsys.readouterr().err


def test_one_dag_is_asked_for_and_a_folder_of_several_given(here, capsys):
    write(here / "dags" / "a", {"A": TASK})
    write(here / "dags" / "b", {"A": TASK})
    assert main(["graph", "dags"]) == 2
    assert capsys.readouterr().err == "orchestrator: dags: holds several DAGs; name one of dags/a, dags/b\n"
