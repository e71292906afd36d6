"""Drawings of DAGs: read as people do, and again by a small reader of each language."""

import json
import re
import shutil
import subprocess
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.model.commands import Failure, Outcome
from orchestrator.model.dag import DAG
from orchestrator.model.enums import NodeTypes, RunStatus, TaskStatus
from orchestrator.model.graph import FORMATS, _dot_text, _mermaid_text, dot, mermaid
from orchestrator.model.node_state import NodeState
from orchestrator.model.run_state import RunInfo, RunState
from orchestrator.runtime.catalog import read_definition
from tests.support.world import World, chain, dag, parallel
from tests.support.world import task as step

ROOT = Path(__file__).resolve().parents[2]


def task(following=None, name="f"):
    step = {"type": "Task", "target_type": "CloudFunction", "target_name": name}
    return {**step, "next": following} if following else step


DIAMOND = DAG(
    {
        "start": "Init",
        "steps": {
            "Init": task("Both"),
            "Both": {
                "type": "Parallel",
                "branches": [
                    {"start": "Left", "steps": {"Left": task("Deep"), "Deep": {"type": "Parallel", "branches": [
                        {"start": "end", "steps": {"end": task()}}]}}},
                    {"start": "Right", "steps": {"Right": task()}},
                ],
                "next": "Last",
            },
            "Last": task(name="orch-test.1"),
        },
    }
)  # fmt: skip


def test_mermaid():
    assert mermaid(DIAMOND) == (
        "flowchart TD\n"
        '    n0["Init<br/>CloudFunction f"]\n'
        '    subgraph n1["Both"]\n'
        '        n2["Left<br/>CloudFunction f"]\n'
        '        subgraph n3["Deep"]\n'
        '            n4["end<br/>CloudFunction f"]\n'
        "        end\n"
        "        n2 --> n3\n"
        '        n5["Right<br/>CloudFunction f"]\n'
        "    end\n"
        '    n6["Last<br/>CloudFunction orch-test.1"]\n'
        "    n0 --> n1\n"
        "    n1 --> n6\n"
    )


def test_dot():
    assert dot(DIAMOND) == (
        "digraph {\n"
        "    node [shape=box, style=rounded];\n"
        '    graph [style="rounded,dashed"];\n'
        '    n0 [label="Init\\nCloudFunction f"];\n'
        "    subgraph cluster_n1 {\n"
        '        label="Both";\n'
        "        n1_fork [shape=point];\n"
        "        n1_join [shape=point];\n"
        '        n2 [label="Left\\nCloudFunction f"];\n'
        "        subgraph cluster_n3 {\n"
        '            label="Deep";\n'
        "            n3_fork [shape=point];\n"
        "            n3_join [shape=point];\n"
        '            n4 [label="end\\nCloudFunction f"];\n'
        "            n3_fork -> n4;\n"
        "            n4 -> n3_join;\n"
        "        }\n"
        "        n2 -> n3_fork;\n"
        "        n1_fork -> n2;\n"
        "        n3_join -> n1_join;\n"
        '        n5 [label="Right\\nCloudFunction f"];\n'
        "        n1_fork -> n5;\n"
        "        n5 -> n1_join;\n"
        "    }\n"
        '    n6 [label="Last\\nCloudFunction orch-test.1"];\n'
        "    n0 -> n1_fork;\n"
        "    n1_join -> n6;\n"
        "}\n"
    )


DEPENDENT = DAG(
    {
        "steps": {
            "A": task(),
            "B": task(),
            "P": {"type": "Parallel", "depends_on": ["A", "B"], "branches": [
                {"steps": {"L": task(), "M": task(), "N": {**task(), "depends_on": ["L", "M"]}}}]},
            "Alert": {**task(), "depends_on": ["A", "P"], "trigger": "one_failed"},
        },
    }
)  # fmt: skip


def test_dependencies_are_drawn_as_ways_are_and_triggers_said():
    assert [each.strip() for each in mermaid(DEPENDENT).splitlines() if ">" in each and "[" not in each] == [
        "n3 --> n5",
        "n4 --> n5",
        "n0 --> n2",
        "n1 --> n2",
        'n0 -. "one_failed" .-> n6',
        'n2 -. "one_failed" .-> n6',
    ]
    assert [each.strip() for each in dot(DEPENDENT).splitlines() if "->" in each] == [
        "n3 -> n5;",
        "n4 -> n5;",
        "n2_fork -> n3;",
        "n2_fork -> n4;",
        "n5 -> n2_join;",
        "n0 -> n2_fork;",
        "n1 -> n2_fork;",
        'n0 -> n6 [label="one_failed", style=dashed];',
        'n2_join -> n6 [label="one_failed", style=dashed];',
    ]


@pytest.mark.parametrize("name", ["wordcount", "sample"])
@pytest.mark.parametrize("draw", FORMATS.values(), ids=FORMATS)
def test_every_step_of_a_sample_is_drawn_once_and_every_brace_closed(name, draw):
    sample = DAG(json.loads((ROOT / "dag_definitions" / name / "dag.json").read_text()))
    text = draw(sample, None)
    assert draw(sample, None) == text
    for node in sample.all_nodes:
        assert len(re.findall(rf'"{node.node_name}(?:"|<br/>|\\n)', text)) == 1
    assert text.count("{") == text.count("}")
    assert len(re.findall(r"^ *subgraph", text, re.M)) == len(re.findall(r"^ *(?:end|})$", text, re.M)) - (draw is dot)


def a_run():
    """A run in which one step has failed, one is done, and one runs; with its DAG."""
    definition = dag(
        Init=step("Both"),
        Both=parallel(chain("Left", "After"), chain("Right"), next="Choose"),
        Choose={"type": "Condition", "choices": [{"when": "${run.input.ok}", "next": "Last"}], "default": "Last"},
        Last=step(),
    )
    world = World(definition)
    run_id = world.start(run_id="r1", input={"ok": True})
    world.end("Init")
    world.end("Left", Outcome.failed("Task.Failed", "x"))
    return world.catalog.find(None)[2], world.state(run_id)


def test_mermaid_of_a_run_says_and_shows_how_each_step_is():
    found, state = a_run()
    plain = mermaid(found).splitlines()
    drawn = mermaid(found, state).splitlines()
    assert drawn[:3] == ["---", 'title: "dag r1: Running"', "---"]
    assert '    n0["Init<br/>Function f<br/>Completed"]' in drawn
    assert '    subgraph n1["Both - Running"]' in drawn
    assert '        n2["Left<br/>Function f<br/>Failed: Task.Failed"]' in drawn
    assert drawn[3 + len(plain) :] == [
        "    classDef New fill:#ffffff,stroke:#9e9e9e,color:#000000",
        "    class n3,n5,n6 New",
        "    style n1 fill:none,stroke:#1565c0,stroke-width:2px",
        "    classDef Running fill:#d6eaff,stroke:#1565c0,color:#000000",
        "    class n4 Running",
        "    classDef Completed fill:#d9f2dc,stroke:#2e7d32,color:#000000",
        "    class n0 Completed",
        "    classDef Failed fill:#ffd9d6,stroke:#c62828,color:#000000",
        "    class n2 Failed",
    ]


def test_dot_of_a_run_says_and_shows_how_each_step_is():
    found, state = a_run()
    drawn = dot(found, state)
    assert '    label="dag r1: Running"; labelloc=t;\n' in drawn
    failed = 'style="rounded,filled", fillcolor="#ffd9d6", color="#c62828"'
    assert f'n2 [label="Left\\nFunction f\\nFailed: Task.Failed", {failed}];\n' in drawn
    assert '        label="Both\\nRunning";\n        color="#1565c0"; penwidth=2;\n' in drawn
    assert drawn.count("->") == dot(found).count("->")


DEFINITIONS = sorted([*ROOT.glob("dag_definitions/*/dag.json"), *ROOT.glob("tests/definitions/valid/*.json")])


def a_run_of(dag_, name):
    """A run whose steps are in all statuses, and have failed with words that mean something to a drawing."""
    statuses = cycle(TaskStatus)
    nodes = {
        node.node_name: NodeState(
            node_name=node.node_name,
            node_type=NodeTypes.TASK,
            status=(status := next(statuses)),
            attempt=2,
            error=Failure('A"b\\{}<b>|', "") if status is TaskStatus.FAILED else None,
        )
        for node in dag_.all_nodes
    }
    run = RunInfo(
        format=1,
        run_id="r1",
        dag=name,
        definition="sha256:0",
        status=RunStatus.RUNNING,
        input={},
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    return RunState(run, nodes)


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
@pytest.mark.parametrize("path", DEFINITIONS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_graphviz_reads_every_drawing(path):
    drawn = DAG(read_definition(path))
    text = dot(drawn, None) + dot(drawn, a_run_of(drawn, path.parent.name))
    read = subprocess.run(["dot", "-Tplain"], input=text, capture_output=True, text=True, check=True)
    assert read.stderr == ""
    assert read.stdout.count("\nnode ") >= 2 * len(drawn.all_nodes)


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
def test_graphviz_draws_a_run():
    done = subprocess.run(["dot", "-Tsvg"], input=dot(*a_run()), capture_output=True, text=True, check=True)
    assert done.stderr == ""
    for text in ("dag r1: Running", "Failed: Task.Failed", "Completed"):
        assert text in done.stdout


def test_whatever_is_in_a_mermaid_label_stays_in_it():
    assert _mermaid_text('a"]; <b>&#') == "a#34;#93;#59; #60;b#62;#38;#35;"


@given(st.text())
def test_whatever_is_in_a_dot_label_stays_in_it(text):
    label = f'"{_dot_text(text)}"'
    assert re.fullmatch(r'"(?:[^"\\\n]|\\["\\])*"', label)


@given(st.text())
def test_a_mermaid_label_has_neither_quotes_nor_tags(text):
    assert not set(_mermaid_text(text)) & set('"<>&[]{}|`\n')
