"""A redriven run repeats nothing that succeeded and skips nothing that did not, whatever a definition says.

Of each redrive: what had completed before it is neither launched again nor changed, but for what runs again by the
rules (a `finally`, what is behind the chosen step, what an error led to). Of the last: the run's document is that of a
run in which every step ended at its first launch as it ended here at last, up to attempts and times.
"""

import re

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.model.commands import Outcome
from orchestrator.model.dag_builder import DAGBuilder
from orchestrator.model.enums import OutcomeKind, RunStatus, TaskStatus
from orchestrator.model.ids import instance_of, step_of
from orchestrator.model.messages import redrive_message
from orchestrator.testing import Faults, Simulation, in_turn, returns
from orchestrator.testing.behaviours import Behaviour
from tests.simulation.test_any_definition import behaviours, delays, fuzzed
from tests.strategies import SECRETS, VARIABLES, any_definitions, inputs, json_values

OF_TIMES = (
    "started_at",
    "ended_at",
    "claim",
    "due",
    "attempt",
    "failures",
    "losses",
    "execution_id",
    "stored_result",
    "goes_on",
)
OF_REDRIVES = (
    *("redrives", "redriven_at", "steered_at", "cancel_reason", "owed_notifications", "lost_notifications"),
    *("queued_at", "slot", "deadline_at", "is_late"),
)
ROUNDS = 3


@st.composite
def healing(draw, *, can_hang: bool):
    """What a step's launches do that may fail for a while; then it completes, and goes on to."""
    first = [draw(behaviours(can_hang=can_hang)) for _ in range(draw(st.integers(0, 2)))]
    return in_turn(*first, returns(draw(json_values | st.just({"rows": 3}) | st.booleans())))


@fuzzed
@given(any_definitions(most=3), st.data())
def test_a_redriven_run_repeats_nothing_that_succeeded_and_ends_as_if_all_had_come_at_the_first_try(definition, data):
    definition.pop("timeout", None)  # when it strikes is a matter of when, which is not compared
    tasks = DAGBuilder(definition).build_dag().all_tasks
    targets = {task.node_name: data.draw(healing(can_hang=task.timeout_s is not None)) for task in tasks}
    share = st.sampled_from([0.0, 0.0, 0.5])
    faults = Faults(data.draw(share), data.draw(share), data.draw(share), data.draw(delays))
    world = Simulation(
        definition,
        targets=targets,
        seed=data.draw(st.integers(0, 2**16), label="seed"),
        faults=faults,
        instances=data.draw(st.integers(1, 3), label="instances"),
        variables=VARIABLES,
        secrets=SECRETS,
    )
    given_input = data.draw(inputs, label="input")
    run_id = world.start(given_input)
    is_cancelled = False
    for number in range(1, ROUNDS + 1):
        if number < ROUNDS and data.draw(st.integers(0, 3), label="cancel it") == 0:
            world.cancel(run_id, after=data.draw(delays, label="cancel after"))
        run = world.finish(run_id, within="5000d")
        is_cancelled = run.status is RunStatus.CANCELLED
        came_by = [name for name, node in run.state.nodes.items() if node.status not in ("New", "Skipped")]
        chosen = data.draw(st.none() | st.none() | st.sampled_from(came_by), label="from")
        if number == ROUNDS and not is_cancelled:
            break
        if chosen is None and (run.status is RunStatus.COMPLETED or is_only_its_result(run)):
            continue
        world.redrive(run_id, chosen)
        again = redrive_message(run_id, chosen, number=run.state.run.redrives + 1)
        for _ in range(data.draw(st.integers(0, 2), label="delivered again")):
            world.send(again, after=data.draw(delays, label="again after"))
        after = world.finish(run_id, within="5000d")
        check_that_nothing_is_repeated(definition, run, after, chosen)
        is_cancelled = after.status is RunStatus.CANCELLED
    world.forward("100d")
    run = world.run(run_id)
    assert world.dead_letters == world.problems == []
    assert list(world.store.list("open/")) == []
    assert [name for name, node in run.state.nodes.items() if not node.status.is_final] == []
    assert len({launch.launch_id for launch in run.all_launches}) == len(run.all_launches)
    _, once = at_first_try(definition, run, given_input)
    if run.status is not RunStatus.CANCELLED and not depends_on_times(run) and not depends_on_times(once):
        ended, expected = plain(run), plain(once)
        # What is left of a longer list, that a Map had at first, is Skipped.
        left = {name for name in ended.keys() - expected.keys() if ended[name]["status"] == "Skipped"}
        assert ended.keys() - left == expected.keys()
        assert {name: entry for name, entry in ended.items() if name not in left and entry != expected[name]} == {}


def is_only_its_result(run):
    """Whether all steps have completed, and the run's `result` could not be made."""
    return run.error is not None and run.error.error_type == "Run.BadResult"


def check_that_nothing_is_repeated(definition, before, after, chosen):
    again = may_run_again(definition, before, chosen)
    for name, node in before.state.nodes.items():
        if node.status is TaskStatus.COMPLETED and not is_among(again, name):
            assert len(after.launches(name)) == len(before.launches(name)), f"{name} had completed"
            if node.node_type not in ("Parallel", "Map", "Item"):
                assert after.node(name) == node, f"{name} had completed"


def is_among(again, name):
    """Whether a node is one of those that may run again."""
    return any(step_of(name) in steps and instance_of(name).startswith(instance) for steps, instance in again)


def may_run_again(definition, before, chosen):
    """What a redrive may run again of a run that has ended so: pairs as those of `beyond`."""
    again = [] if ended_in_finally(definition, before) else [(set(names_in(definition.get("finally"))), "")]
    for name, node in before.state.nodes.items():
        if name == chosen or (node.node_type == "End" and node.status is TaskStatus.FAILED and node.caught):
            again += beyond(definition, chosen if name == chosen else node.caught, is_itself_again=True)
        elif node.status in (TaskStatus.FAILED, TaskStatus.CANCELLED) and not is_handled(definition, before, node):
            again += beyond(definition, name, is_itself_again=False)  # what ran because it had not completed
    return again


def is_handled(definition, run, node):
    """Whether an error of this step has led on to another one by a route."""
    steps = {name: step for body in (definition, definition.get("finally")) for name, step in steps_in(body)}
    routes, instance = steps[step_of(node.node_name)].get("on_error", ()), instance_of(node.node_name)
    found = (run.state.nodes.get(route["next"] + instance) for route in routes)
    return any(other is not None and other.caught == node.node_name for other in found)


def steps_in(body):
    """All steps of a body and of the bodies in it, with their names."""
    for name, step in (body or {"steps": {}})["steps"].items():
        yield name, step
        for inner in bodies_in(step):
            yield from steps_in(inner)


def bodies_in(step):
    """The branches of a Parallel, the iterator of a Map."""
    yield from step.get("branches", ())
    if "iterator" in step:
        yield step["iterator"]


def names_in(body):
    """The names of all steps of a body and of the bodies in it."""
    return (name for name, _ in steps_in(body))


def ended_in_finally(definition, run):
    """Whether the steps before the `finally` had completed, and it had not."""
    return "finally" in definition and run.status is RunStatus.FAILED and is_in(run.error, definition["finally"])


def is_in(error, body):
    return error is not None and error.node is not None and step_of(error.node) in set(names_in(body))


def beyond(definition, entry, *, is_itself_again):
    """What may run again with a node: pairs of steps, and how their entries' names go on behind the step.

    Those in it, and those that ways lead to from it or from what holds it, or that depend on them.
    """
    first, brackets = step_of(entry), re.findall(r"\[\d+\]", instance_of(entry))

    def search(body, holders, depth):
        for name, step in body["steps"].items():
            if name == first:
                yield [*holders, (body, name, depth)]
            for inner in bodies_in(step):
                yield from search(inner, [*holders, (body, name, depth)], depth + ("iterator" in step))

    found = []
    for whole in (definition, *([definition["finally"]] if "finally" in definition else [])):
        for place in search(whole, [], 0):
            for body, name, depth in place:
                waiting, seen = [name], {name} if name == first and is_itself_again else set()
                while waiting:
                    each = waiting.pop()
                    following = {other for other in body["steps"] if leads(body["steps"], each, other)} - seen
                    seen |= following
                    waiting += following
                steps = {inner for each in seen for b in bodies_in(body["steps"][each]) for inner in names_in(b)}
                found.append((seen | steps, "".join(brackets[:depth])))
    if first not in set(names_in(definition.get("finally"))):
        found.append((set(names_in(definition.get("finally"))), ""))
    return found


def leads(steps, name, other):
    """Whether a way leads from a step to another one, or that depends on it."""
    return name in steps[other].get("depends_on", ()) or other in strings({**steps[name], "depends_on": None})


def strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            if key not in ("branches", "iterator"):
                yield from strings(inner)


def depends_on_times(run):
    """Whether something was stopped or out of time: what, depends on when; so does how far a Map comes that fails."""
    nodes = run.state.nodes.values()
    errors = [node.error.error_type for node in nodes if node.error is not None]
    is_cut = any(node.node_type == "Map" and node.status not in ("Completed", "Skipped") for node in nodes)
    return is_cut or any(each in ("Parallel.Stopped", "Run.Cancelled", "Wait.BadTime") for each in errors)


def at_first_try(definition, run, given_input):
    """Run the definition once, each step ending at its first launch as it ended here at last in `run`; and where."""
    targets = {}
    for name, node in run.state.nodes.items():
        if node.node_type != "Task":
            continue
        if node.status is TaskStatus.COMPLETED:
            targets[name] = returns(run.result(name)).after("0s")
        elif node.status in (TaskStatus.FAILED, TaskStatus.CANCELLED):
            kind = OutcomeKind(node.status.value)
            told = Outcome(kind, None, node.error)
            targets[name] = Behaviour(work=lambda _, told=told: told, takes_s=0.0)
    dag = run.state.run.dag
    world = Simulation({dag: definition}, targets=targets, variables=VARIABLES, secrets=SECRETS)
    return world, world.finish(world.start(given_input, dag=dag), within="5000d")


def plain(run):
    """A run's document without times and what depends on them; with all results."""
    document = run.document
    for name, entry in document.items():
        for key in (*OF_REDRIVES, *OF_TIMES) if name == "$run" else OF_TIMES:
            entry.pop(key, None)
        if name != "$run":
            entry["result"] = run.all_results[name]
    return document
