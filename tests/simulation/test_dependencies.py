"""Graphs in which steps depend on others, against a plain model of what that means.

The model knows nothing of events: it goes over the steps until nothing changes. The engine gets its completions in any
order, twice, late, by several instances and Ticks; it ends with the same statuses, and has launched each step once and
after all that it depends on.
"""

from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.model.definition import problems
from orchestrator.model.enums import RunStatus, TaskStatus
from orchestrator.model.messages import cancel_message
from tests.strategies import dependent_definitions
from tests.support.world import World, completion, outcome_of, plain

thorough = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


# -- the model -------------------------------------------------------------------------------------------


def waits_for(steps: dict, name: str) -> list[str]:
    """What a step depends on, else the steps that name it as what follows."""
    return steps[name].get("depends_on") or [other for other in steps if name in followers(steps[other])]


def followers(step: dict) -> set[str]:
    routes = [*step.get("choices", ()), *step.get("on_error", ())]
    return {step.get("next"), step.get("default"), *(each["next"] for each in routes)} - {None}


def led_to(step: dict, status: str) -> str | None:
    """Where a step that ended so leads to."""
    if status == "Failed":
        return next((each["next"] for each in step.get("on_error", ())), None)
    if status == "Skipped":
        return None
    chosen = next((each["next"] for each in step.get("choices", ()) if each["when"] == "${true}"), None)
    return chosen or step.get("default") or step.get("next")


def statuses_of(body: dict, failing: frozenset[str]) -> tuple[dict[str, str], bool]:
    """Return how all steps of a body end if it runs, and whether it fails."""
    steps, found, inner = body["steps"], {}, {}
    while len(found) < len(steps):
        ready = [name for name in steps if name not in found and all(x in found for x in waits_for(steps, name))]
        assert ready, "it would never end"
        for name in ready:
            found[name] = status_of(name, steps, found, failing, inner)
    fails = any(status == "Failed" and led_to(steps[name], status) is None for name, status in found.items())
    return {**inner, **found}, fails


def status_of(name: str, steps: dict, found: dict[str, str], failing: frozenset[str], inner: dict[str, str]) -> str:
    step, awaited = steps[name], [found[other] for other in waits_for(steps, name)]
    if "depends_on" in step:
        match step.get("trigger", "all_completed"):
            case "all_completed":
                starts = set(awaited) == {"Completed"}
            case "all_done":
                starts = True
            case "one_failed":
                starts = "Failed" in awaited
    else:
        others = waits_for(steps, name)
        starts = not others or any(led_to(steps[other], found[other]) == name for other in others)
    fails = name in failing
    for branch in step.get("branches", ()):
        within, branch_fails = statuses_of(branch, failing)
        inner.update(within if starts else dict.fromkeys(within, "Skipped"))
        fails = fails or branch_fails
    return "Skipped" if not starts else "Failed" if fails else "Completed"


# -- the engine ------------------------------------------------------------------------------------------


def bodies_of(definition: dict) -> list[dict]:
    found, waiting = [], [definition, *([definition["finally"]] if "finally" in definition else [])]
    while waiting:
        body = waiting.pop()
        found.append(body)
        waiting += [branch for step in body["steps"].values() for branch in step.get("branches", ())]
    return found


@thorough
@given(dependent_definitions())
def test_what_is_drawn_is_valid(definition):
    assert problems(definition) == []


@thorough
@given(st.data())
def test_any_order_of_delivery_ends_as_the_model_says_and_launches_each_step_once_after_what_it_depends_on(data):
    definition = data.draw(dependent_definitions())
    bodies = bodies_of(definition)
    tasks = [name for body in bodies for name, step in body["steps"].items() if step["type"] == "Task"]
    failing = frozenset(data.draw(st.sets(st.sampled_from(tasks), max_size=3))) if tasks else frozenset()
    expected, fails = statuses_of(definition, failing)
    last, last_fails = statuses_of(definition["finally"], failing) if "finally" in definition else ({}, False)

    world = World(definition, instances=data.draw(st.integers(1, 3)))
    run_id = world.start()
    delivered: set[str] = set()
    check(world, run_id, bodies)
    while not world.state(run_id).run.status.is_final:
        launches = list(world.target.calls)
        fresh = [launch for launch in launches if launch.launch_id not in delivered]
        if not fresh and world.state(run_id).run.status is RunStatus.PAUSED:
            steer(world, run_id, "resume")
            continue
        assert fresh, "the run is open and nothing is left to come"
        if data.draw(st.integers(0, 7), label="steer") == 7:
            steer(world, run_id, data.draw(st.sampled_from(["pause", "pause", "resume"])))
        if data.draw(st.integers(0, 5), label="tick") == 5:
            world.clock.forward(data.draw(st.sampled_from([0, 1, 30])))
            data.draw(st.sampled_from(world.instances)).tick()
        launch = data.draw(st.sampled_from(launches if data.draw(st.integers(0, 2)) == 2 else fresh), label="deliver")
        for _ in range(data.draw(st.sampled_from([1, 1, 2]), label="times")):
            data.draw(st.sampled_from(world.instances), label="instance").execute(
                completion(launch, outcome_of(launch, failing)), message_id=launch.key
            )
        delivered.add(launch.launch_id)
        check(world, run_id, bodies)

    state = world.state(run_id)
    assert {name: node.status.value for name, node in state.nodes.items()} == {**expected, **last}
    assert state.run.status.value == ("Failed" if fails or last_fails else "Completed")
    if all(step.get("trigger") != "one_failed" for body in bodies for step in body["steps"].values()):
        in_order = World(definition)
        got = plain(state)
        got["$run"].pop("steered_at", None)
        assert got == plain(in_order.run_all(in_order.start(), failing))


@thorough
@given(st.data())
def test_a_cancelled_run_launches_nothing_more_and_ends_with_all_its_steps(data):
    definition = data.draw(dependent_definitions())
    world = World(definition)
    run_id = world.start()
    for _ in range(data.draw(st.integers(0, 6), label="ends before it")):
        launches = world.target.calls
        if launches:
            launch = data.draw(st.sampled_from(launches))
            failing = frozenset({launch.node_name} if data.draw(st.booleans(), label="it fails") else ())
            world.executor.execute(completion(launch, outcome_of(launch, failing)), message_id=launch.key)
        if data.draw(st.integers(0, 3), label="pause") == 3:
            steer(world, run_id, "pause")
    before, has_ended = list(world.target.calls), world.state(run_id).run.status.is_final
    world.executor.execute(cancel_message(run_id, "why"), publish_time=world.clock.now())
    last = {name for body in bodies_of({"steps": {}, **definition.get("finally", {})}) for name in body["steps"]}
    if world.state(run_id).run.status is RunStatus.PAUSED:
        assert world.state(run_id).run.ending is not None, "a cancel lets all go on but the finally"
        steer(world, run_id, "resume")
    for launch in world.target.calls:  # grows: a finally runs all the same
        world.executor.execute(completion(launch), message_id=launch.key)
    state = world.state(run_id)
    assert {launch.node_name for launch in world.target.calls[len(before) :]} <= last
    assert state.run.status.is_final
    assert state.run.held == ()
    assert [name for name, node in state.nodes.items() if not node.status.is_final] == []
    if not has_ended and state.run.status is RunStatus.COMPLETED:
        left_out = {name for name, node in state.nodes.items() if node.status is TaskStatus.CANCELLED}
        assert left_out == set()


def steer(world: World, run_id: str, word: str) -> None:
    world.clock.forward(1)
    world.executor.execute({"resource": {"type": word}, "run_id": run_id}, publish_time=world.clock.now())


def check(world: World, run_id: str, bodies: list[dict]) -> None:
    """What must hold after every step."""
    state = world.state(run_id)
    assert all(times == 1 for times in Counter(world.target.nodes).values())
    for body in bodies:
        for name, step in body["steps"].items():
            node = state.nodes[name]
            awaited = [state.nodes[other].status for other in waits_for(body["steps"], name)]
            if node.started_at is None or not awaited:
                continue
            match step.get("trigger"):
                case "one_failed":
                    assert TaskStatus.FAILED in awaited, f"{name} was started before anything failed"
                case "all_completed":
                    assert set(awaited) == {TaskStatus.COMPLETED}, f"{name} was started before all have completed"
                case _:
                    assert all(status.is_final for status in awaited), f"{name} was started before all have ended"
    running = [name for name, node in state.nodes.items() if node.status is TaskStatus.RUNNING]
    is_waiting = state.run.status is RunStatus.PAUSED and state.run.held
    assert state.run.status.is_final == (not running and not is_waiting)
