"""All that can be done with runs, mixed: whatever a definition says, they end, do nothing twice and leave nothing out.

Definitions of the whole grammar, with steps that are child runs and Maps that run as parts, whose Tasks share pools;
several runs of one at once, that are paused, resumed, cancelled and redriven; with events lost and doubled.
"""

import logging
import os
from contextlib import suppress
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.engine.pruning import Pruner
from orchestrator.model.dag_builder import DAGBuilder
from orchestrator.model.definition import problems
from orchestrator.model.enums import NodeTypes, RunStatus, TargetTypes, TaskStatus
from orchestrator.model.errors import LaunchRefused
from orchestrator.model.ids import step_of
from orchestrator.model.messages import cancel_message, pause_message, redrive_message, resume_message
from orchestrator.model.policy import Policy
from orchestrator.model.run_state import RunState, child_of
from orchestrator.model.slots import decode
from orchestrator.testing import Faults, Simulation, WaitsForEver
from orchestrator.testing.fake_target import FakeTarget
from tests.simulation.test_any_definition import delays
from tests.simulation.test_any_family import KEPT, tasks_in
from tests.simulation.test_any_redrive import (
    at_first_try,
    check_that_nothing_is_repeated,
    depends_on_times,
    healing,
    is_among,
    is_only_its_result,
    may_run_again,
    names_in,
    steps_in,
)
from tests.strategies import POOLS, SECRETS, VARIABLES, any_definitions, inputs

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "40"))
ROUNDS = 3

fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
between = st.sampled_from(["0s", "1s", "2s", "45s", "7m", "3h"])


@pytest.fixture
def in_parts(monkeypatch):
    """Maps of two items and more run as parts, of one or two items each."""
    small = partial(Policy, inline_items=1, part_items=2)
    monkeypatch.setattr("orchestrator.testing.simulation.Policy", small)


class Doubled(list):
    """Launch ids that were launched though an execution of theirs had been started, or they had been refused."""

    def __init__(self):
        self.answered = set()

    def begin(self):
        """Begin with another world."""
        self.clear()
        self.answered.clear()


@pytest.fixture
def doubled(monkeypatch):
    found, launch = Doubled(), FakeTarget.launch

    def noted(self, each):
        if each.launch_id in found.answered or self.find(each) is not None:
            found.append(each.launch_id)
        try:
            execution = launch(self, each)
        except LaunchRefused:
            found.answered.add(each.launch_id)
            raise
        found.answered.add(each.launch_id)
        return execution

    monkeypatch.setattr(FakeTarget, "launch", noted)
    return found


@st.composite
def families(draw):
    """A definition, some of whose Tasks may be runs of `kid`; and `kid`, whose steps have names of their own."""
    parent = draw(any_definitions(most=3))
    kid = draw(any_definitions(max_depth=1, max_steps=3, most=2))
    tasks = list(tasks_in(parent))
    for index in draw(st.sets(st.sampled_from(range(len(tasks))), max_size=2)) if tasks else ():
        kept = {key: tasks[index][key] for key in KEPT if key in tasks[index]}
        tasks[index].clear()
        tasks[index].update({**kept, "target_type": "Dag", "target_name": "kid"})
    assert problems(parent) == problems(kid) == []
    return {"parent": parent, "kid": kid}


@fuzzed
@given(families(), st.data())
def test_runs_that_are_steered_cancelled_and_redriven_end_and_do_everything_once(
    in_parts, doubled, caplog, family, data
):
    caplog.clear()
    doubled.begin()
    mixture = Mixture(family, data)
    run_id = mixture.start()
    for _ in range(data.draw(st.integers(0, 2), label="others")):
        mixture.start()
    chosen = None
    for number in range(1, ROUNDS + 1):
        if number < ROUNDS:
            mixture.steer()
        before = mixture.finish(run_id)
        if number == ROUNDS and before.status is not RunStatus.CANCELLED:
            break
        if data.draw(st.booleans(), label="let it all end"):
            mixture.let_all_end()
            if data.draw(st.booleans(), label="prune the others"):
                mixture.prune(lambda run: run.run_id != run_id)
        came_by = [name for name, node in before.state.nodes.items() if node.status not in ("New", "Skipped")]
        chosen = data.draw(st.none() | st.none() | st.sampled_from(came_by), label="from")
        before = mixture.world.run(run_id)
        if chosen is None and (before.status is RunStatus.COMPLETED or is_only_its_result(before)):
            continue
        mixture.redrive(before, chosen)
    mixture.finish(run_id)
    mixture.let_all_end()

    world = mixture.world
    for each in world.runs:
        assert each.status.is_final, each.run_id
        assert {name for name, node in each.state.nodes.items() if not node.status.is_final} == set()
        assert (each.state.run.held, each.state.run.is_resuming, each.state.run.slot) == ((), False, None)
    assert doubled == []
    assert world.dead_letters == world.problems == []
    assert list(world.store.list("open/")) == []
    left = [decode(world.store.get(key)[0], key) for key in world.store.list("slots/")]
    assert [place for slots in left for place in slots.held + slots.waiting] == []
    assert [
        record.getMessage() for record in caplog.records if record.exc_info or record.levelno > logging.WARNING
    ] == []
    mixture.check_the_end(run_id)
    mixture.check_that_pruning_leaves_nothing()


class Mixture:
    """A world in which anything is done with runs of a family of definitions."""

    def __init__(self, family, data):
        self.family, self.data, self._messages = family, data, 0
        parent, kid = (DAGBuilder(family[name]).build_dag().all_tasks for name in ("parent", "kid"))
        own = [task for task in parent if task.target_name != "kid"]
        runs = {task.node_name for task in parent} - {task.node_name for task in own}
        tasks = own + [task for task in kid if task.node_name not in {each.node_name for each in own} | runs]
        targets = {
            task.node_name: data.draw(healing(can_hang=task.timeout_s is not None), label=task.node_name)
            for task in tasks
        }
        types = st.sets(st.sampled_from([each.value for each in TargetTypes if each != TargetTypes.DAG]), max_size=3)
        share = st.sampled_from([0.0, 0.0, 0.3])
        self.world = Simulation(
            family,
            targets=targets,
            seed=data.draw(st.integers(0, 2**16), label="seed"),
            faults=Faults(data.draw(share), data.draw(share), data.draw(share), data.draw(delays)),
            instances=data.draw(st.integers(1, 3), label="instances"),
            cannot_be_cancelled=data.draw(types, label="cannot be cancelled"),
            variables=VARIABLES,
            secrets=SECRETS,
            pools=POOLS,
        )
        self.input = data.draw(inputs, label="input")

    def start(self):
        return self.world.start(self.input, dag="parent", priority=self.data.draw(st.none() | st.integers(-1, 1)))

    def send(self, message):
        """Deliver a message for sure, as what a person asks for is until it is acknowledged."""
        self._messages += 1
        self.world._execute(message, f"steering-{self._messages}", self.world.clock.now())

    def steer(self):
        """Pause, resume and cancel runs, mostly those that nobody has launched."""
        for word in self.data.draw(st.lists(st.sampled_from(["pause", "pause", "resume", "cancel"]), max_size=3)):
            self.world.forward(self.data.draw(between, label="between"))
            runs = [each.run_id for each in self.world.runs]
            roots = [each.run_id for each in self.world.runs if each.state.run.parent is None]
            of = self.data.draw(st.sampled_from(roots) | st.sampled_from(runs), label=word)
            self.send({"pause": pause_message, "resume": resume_message, "cancel": cancel_message}[word](of))

    def finish(self, run_id):
        """Let a run come to its end, and resume whatever it waits for."""
        for _ in range(50):
            with suppress(WaitsForEver):
                return self.world.finish(run_id, within="5000d")
            paused = [each.run_id for each in self.world.runs if each.status is RunStatus.PAUSED]
            if not paused:
                break
            self.world.forward("1s")
            for each in paused:
                self.send(resume_message(each))
        return self.world.finish(run_id, within="5000d")

    def let_all_end(self):
        for each in self.world.runs:
            if not each.status.is_final:
                self.finish(each.run_id)
        self.world.forward("100d")  # late events, late Ticks

    def redrive(self, before, chosen):
        world = self.world
        was, number = Whole(world.runs, before.run_id, self.family["parent"]), before.state.run.redrives + 1
        world.redrive(before.run_id, chosen)
        for _ in range(self.data.draw(st.integers(0, 2), label="delivered again")):
            world.send(redrive_message(before.run_id, chosen, number=number), after=self.data.draw(delays))
        if self.data.draw(st.booleans(), label="steer what was redriven"):
            self.steer()
        self.finish(before.run_id)
        self.check(was, Whole(world.runs, before.run_id, self.family["parent"]), chosen)

    def check(self, before, after, chosen):
        """Nothing that had completed has run again, in child runs that went on neither."""
        if not before.is_settled:
            return
        check_that_nothing_is_repeated(before.definition, before, after, chosen)
        again = may_run_again(before.definition, before, chosen)
        for name, node in before.state.nodes.items():
            child = before.kids.get(name)
            if child is None or is_among(again, name) or name == chosen:
                continue
            assert node.status is not TaskStatus.COMPLETED or after.kids.get(name) == child
            if after.kids.get(name) == child:
                self.check(before.of_kid(child, self.family["kid"]), after.of_kid(child, self.family["kid"]), None)

    def prune(self, is_meant):
        told = Pruner(self.world.store, self.world.clock.now(), 86400.0, is_meant, is_all=True).prune()
        assert told.problems == []
        return told

    def check_that_pruning_leaves_nothing(self):
        """Once all runs are pruned nothing of them is left, but for what says that they were."""
        store = self.world.store
        assert self.prune(lambda _: True).kept == 0
        left = [key for key in store.list("") if not key.startswith(("pruned/", "slots/"))]
        assert left == []

    def check_the_end(self, run_id):
        """It is that of a run in which every step ended at its first launch as it ended here at last."""
        parent = self.family["parent"]
        run = Whole(self.world.runs, run_id, parent)
        if run.status is RunStatus.CANCELLED or depends_on_times(run) or "timeout" in parent:
            return
        world, once = at_first_try(parent, run, self.input)
        once = Whole(world.runs, once.run_id, parent)
        if depends_on_times(once):
            return
        assert (run.status, run.error and run.error.error_type) == (once.status, once.error and once.error.error_type)
        ended, expected = run.plain(), once.plain()
        left = {name for name in ended.keys() - expected.keys() if ended[name][0] == "Skipped"}
        assert ended.keys() - left == expected.keys()
        assert {name: entry for name, entry in ended.items() if name not in left and entry != expected[name]} == {}


class Whole:
    """A run with the runs of the parts of its Maps as one: as if its Maps had not run as parts."""

    def __init__(self, runs, run_id, definition):
        self.definition = definition
        self._runs = {each.run_id: each for each in runs}
        root = self._runs[run_id]
        self.run_id, self.status, self.error = run_id, root.status, root.error
        self.state, self._results, self.kids = RunState(root.state.run, {}), {}, {}
        self.is_settled = True
        # Also of parts that were begun anew since.
        launches = [launch for each in self._runs.values() if self._is_of(each) for launch in each.all_launches]
        self.all_launches = [launch for launch in launches if "part" not in launch.step]
        self._bodies = {
            name: step["iterator"]
            for body in (definition, definition.get("finally"))
            for name, step in steps_in(body)
            if "iterator" in step
        }
        self._take(root, None)

    def _take(self, run, inside):
        self.is_settled = self.is_settled and run.status.is_final
        for name, node in run.state.nodes.items():
            if inside is not None and step_of(name) not in inside and node.node_type is not NodeTypes.ITEM:
                continue
            child = child_of(run.run_id, node)
            if node.node_type is NodeTypes.PART:
                if child in self._runs:
                    self._take(self._runs[child], set(names_in(self._bodies[step_of(name)])))
                continue
            self.state.nodes[name], self._results[name] = node, run.all_results[name]
            if child in self._runs:
                self.kids[name] = child

    def _is_of(self, run):
        """Whether a run is of a part of it, at any depth."""
        while run.state.run.part_of is not None:
            run = self._runs[run.state.run.parent.run_id]
        return run.run_id == self.run_id

    def of_kid(self, run_id, definition):
        return Whole([*self._runs.values()], run_id, definition)

    def launches(self, name):
        return [launch for launch in self.all_launches if launch.node_name == name]

    def node(self, name):
        return self.state.nodes[name]

    def result(self, name):
        return self._results[name]

    def plain(self):
        return {
            name: (node.status, self._results[name], node.error and node.error.error_type)
            for name, node in self.state.nodes.items()
        }
