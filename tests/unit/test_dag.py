"""The class contract of DAG, Node and their builder, as users know it."""

import msgspec
import pytest

from orchestrator import DAG, DAGBuilder, ExecutionStatus, NodeFactory, NodeTypes, OrchestrationStatus, Parallel, Task
from orchestrator.model.enums import DataflowTemplateType, TargetTypes, TaskStatus
from orchestrator.model.errors import DefinitionError, InputError
from tests.support.world import World, chain, dag, parallel, task

DEFINITION = dag(
    A=task("P", target="same", parameters={"x": "${run.input.x}"}),
    P=parallel(chain("L1", "L2"), dag(Q=parallel(chain("M"), chain("N"), next="R"), R=task()), next="Z"),
    Z={
        "type": "Task",
        "target_type": "Dataflow",
        "target_name": "job",
        "container_gcs_path": "gs://templates/t.json",
        "end": True,
    },
)


@pytest.fixture
def built() -> DAG:
    return DAGBuilder(DEFINITION).build_dag()


def names(nodes) -> list[str]:
    return [node.node_name for node in nodes]


def test_a_dag_knows_its_own_nodes_and_all_of_them_in_definition_order(built):
    assert built.start_node.node_name == "A"
    assert built.parent_node is None
    assert names(built.nodes) == ["A", "P", "Z"]
    assert names(built.tasks) == ["A", "Z"]
    assert names(built.all_nodes) == ["A", "P", "L1", "L2", "Q", "M", "N", "R", "Z"]
    assert names(built.all_tasks) == ["A", "L1", "L2", "M", "N", "R", "Z"]


def test_a_branch_is_a_dag_whose_parent_node_is_its_parallel(built):
    outer = built.by_name["P"]
    inner = built.by_name["Q"]
    assert isinstance(outer, Parallel)
    assert [names(branch.nodes) for branch in outer.branches] == [["L1", "L2"], ["Q", "R"]]
    assert inner.parent_dag.parent_node is outer
    assert built.by_name["M"].parent_dag.parent_node is inner


def test_a_task_and_its_attributes(built):
    first, last = built.by_name["A"], built.by_name["Z"]
    assert isinstance(first, Task)
    assert (first.node_type, first.next, first.is_end, first.parent_dag) == (NodeTypes.TASK, "P", False, built)
    assert (first.target_name, first.function, first.parameters) == ("same", "m:f", {"x": "${run.input.x}"})
    assert (last.target_type, last.is_end, last.template_type) == (
        TargetTypes.DATAFLOW,
        True,
        DataflowTemplateType.FLEX,
    )
    assert {task.status for task in built.all_tasks} == {TaskStatus.NEW}


def test_executing_a_node_only_says_what_starts_it(built):
    assert names(built.init()) == ["A"]
    assert names(built.by_name["P"].execute()) == ["L1", "M", "N"]
    (launch,) = built.by_name["Z"].execute()
    assert (launch.target_type, launch.target_name) == ("Dataflow", "job")
    assert launch.step == {"container_gcs_path": "gs://templates/t.json"}
    assert built.by_name["P"].status is TaskStatus.NEW


def test_a_node_is_found_by_its_name_else_by_a_target_that_it_alone_has(built):
    assert built.get_node_with_task("L1").node_name == "L1"
    assert built.get_node_with_task("job").node_name == "Z"
    with pytest.raises(InputError, match='"f" is ambiguous: the target of L1, L2, M, N, R'):
        built.get_node_with_task("f")
    with pytest.raises(InputError, match='no step and no target is called "jobs"; did you mean "job"'):
        built.get_node_with_task("jobs")


def test_the_factory_makes_the_node_of_a_steps_type(built):
    node = NodeFactory.create_node({"node_name": "New", **task()}, built)
    assert isinstance(node, Task)
    assert node.node_name == "New"


def test_a_wrong_definition_is_refused_with_all_its_problems():
    with pytest.raises(DefinitionError) as wrong:
        DAGBuilder({"start": "B", "steps": {"A": {"type": "Taks"}}}).build_dag()
    assert len(wrong.value.problems) == 2


def test_a_dag_built_for_a_run_shows_the_runs_statuses_and_executions():
    world = World(DEFINITION)
    run_id = world.start(input={"x": 1})
    world.end("A")
    seen = DAGBuilder(DEFINITION, ExecutionStatus(world.store), OrchestrationStatus(world.store, run_id)).build_dag()
    assert seen.by_name["A"].status is TaskStatus.COMPLETED
    assert seen.by_name["M"].status is TaskStatus.RUNNING
    assert seen.by_name["Z"].status is TaskStatus.NEW
    record = seen.by_name["A"].execution
    assert record is not None
    assert (record.node_name, record.task_name, record.succeeded, record.run_id) == ("A", "same", True, run_id)
    assert msgspec.to_builtins(record).keys() >= {"execution_id", "attempt", "launch_id", "target_type", "launched_at"}


def test_only_a_dataflow_step_has_a_kind_of_dataflow_template():
    step = {"type": "Task", "target_type": "VertexPipeline", "target_name": "train", "pipeline_root": "gs://b1/x"}
    path = "https://europe-west1-kfp.pkg.dev/p/pipelines/train/v1"
    (task,) = DAG({"start": "A", "steps": {"A": {**step, "template_path": path}}}).all_tasks
    assert task.template_type is None


def waiting(*depends_on, **more):
    return {**task(), "depends_on": list(depends_on), **more}


def test_without_a_start_it_starts_with_all_that_wait_for_nothing():
    built = DAG({"steps": {"C": waiting("A", "B"), "A": {**task(), "next": "D"}, "D": task(), "B": task()}})
    assert names(built.init()) == ["A", "B"]
    assert [node.node_name for node in built.start_nodes] == ["A", "B"]
    assert built.start_node is built.by_name["A"]
    assert [node.node_name for node in built.ordered()] == ["A", "D", "B", "C"]
    assert {node.node_name: node.is_end for node in built.nodes} == {"C": True, "A": False, "D": True, "B": False}


def test_it_knows_what_waits_for_what():
    steps = {"A": {**task(), "next": "D"}, "B": task(), "C": waiting("B", "A", trigger="all_done"), "D": task()}
    built = DAG({"steps": steps})
    assert built.dependencies.followers == {"A": ("C", "D"), "B": ("C",), "C": (), "D": ()}
    assert built.dependencies.awaited == {"C": {"A", "B"}, "D": {"A"}}
    assert (built.by_name["C"].depends_on, built.by_name["C"].trigger) == (("B", "A"), "all_done")
    assert DAG({"start": "A", "steps": {"A": task()}}).dependencies is None


def test_a_launch_tells_its_target_nothing_of_what_it_depended_on():
    (launch,) = DAG({"steps": {"A": task(), "B": waiting("A", trigger="all_done")}}).by_name["B"].execute()
    assert launch.step == {"function": "m:f"}
