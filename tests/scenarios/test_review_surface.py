"""Promises that a review of the surface found broken: views cannot be changed, records' keys, ctrl-C sent twice."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator import DAG, DAGBuilder
from tests.support.world import World, chain, dag, parallel, task

DEFINITION = dag(A=task("P", parameters={"x": 1}), P=parallel(chain("L"), chain("R"), next="Z"), Z=task())


@pytest.fixture
def built() -> DAG:
    return DAGBuilder(DEFINITION).build_dag()


@pytest.mark.parametrize("name", ["node_name", "node_type", "next", "is_end", "parent_dag", "status", "target_name"])
def test_an_attribute_of_a_node_can_be_neither_set_nor_deleted(built, name):
    node = built.start_node
    before = getattr(node, name)
    with pytest.raises(AttributeError, match=name):
        setattr(node, name, "other")
    with pytest.raises(AttributeError, match=name):
        delattr(node, name)
    assert getattr(node, name) == before


@pytest.mark.parametrize(
    "name", ["start_node", "parent_node", "nodes", "tasks", "all_nodes", "all_tasks", "by_name", "definition"]
)
def test_an_attribute_of_a_dag_can_be_neither_set_nor_deleted(built, name):
    with pytest.raises(AttributeError, match=name):  # also before it was asked for: some are made then
        setattr(built, name, ())
    before = getattr(built, name)
    with pytest.raises(AttributeError, match=name):
        setattr(built, name, ())
    with pytest.raises(AttributeError, match=name):
        delattr(built, name)
    assert getattr(built, name) is before


def test_the_branches_of_a_parallel_stay_what_they_are(built):
    with pytest.raises(AttributeError, match=r"Parallel\.branches: is set once"):
        built.by_name["P"].branches = ()


def test_an_execution_record_has_the_keys_of_the_classic_one():
    world = World(chain("A"))
    world.start()
    (key,) = world.store.list("executions/")
    classic = {"execution_id", "task_name", "node_name", "succeeded", "response", "run_id"}
    added = {"attempt", "launch_id", "target_type", "launched_at"}
    assert set(json.loads(world.store.get(key)[0])) == classic | added


@pytest.mark.parametrize("pause_s", [0.0, 0.001, 0.005, 0.02])
def test_ctrl_c_that_comes_twice_at_once_still_says_how_to_finish(tmp_path: Path, pause_s: float):
    """A terminal signals the whole group and a wrapper (timeout, a container's init) passes it on: one ctrl-C, two."""
    (tmp_path / "dag.json").write_text(json.dumps(dag(A=task(function="slow_step:wait"))))
    (tmp_path / "slow_step.py").write_text(
        "import pathlib, time\ndef wait():\n    pathlib.Path('begun').touch()\n    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "run", ".", "--run-id", "mine"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH")]))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline_s = time.monotonic() + 30
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    time.sleep(pause_s)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert "interrupted; finish it with: orchestrator run . --resume mine" in output
    assert process.returncode == 130
