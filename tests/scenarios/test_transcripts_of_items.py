"""Items in items, parts in items, and runs that share a bucket with slow saves, to the letter."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import groupby

from orchestrator.engine.wanted import wanted
from orchestrator.model.commands import Outcome
from orchestrator.model.dag import DAG
from orchestrator.model.errors import StoreUnavailable, VersionConflict
from orchestrator.model.facts import AttemptEnded, PauseEnded, RedriveRequested, TimeCame
from orchestrator.model.messages import cancel_message, pause_message, redrive_message, resume_message
from orchestrator.stores.memory import MemoryStore
from tests.support.story import FAILED, Story, job
from tests.support.transcript import Transcript
from tests.support.world import T0, World, chain, completion, dag, parallel, task

INNER = {
    "type": "Map",
    "items": "${steps.T.result.list}",
    "max_concurrency": 1,
    "iterator": dag(
        W=task("X", parameters={"w": "${item}", "t": "${steps.T.result}", "s": "${steps.S.result}"}),
        X={"type": "Pass", "result": {"w": "${steps.W.result}", "i": "${index}"}},
    ),
    "next": "Y",
}
DEEP = {
    **dag(
        S=task("O"),
        O={"type": "Map", "items": "${steps.S.result.list}", "max_concurrency": 2, "next": "C", "tolerated_failures": 2,
           "iterator": dag(
               T=task("P", parameters={"i": "${item}"}),
               P=parallel(dag(U=task(parameters={"u": "${steps.T.result.t}"})),
                          dag(V={"type": "Wait", "for": "1m", "next": "Q"},
                              Q=task(parameters={"s": "${steps.S.result.t}", "i": "${item}"})), next="N"),
               N=INNER,
               Y={"type": "Pass", "result": {"n": "${steps.N.result}", "q": "${steps.Q.result}"}})},
        C={"type": "Condition", "choices": [{"when": "${size(steps.O.result) > 1}", "next": "R"}], "default": "G"},
        R=parallel(dag(K=task(parameters={"o": "${steps.O.result}"})),
                   dag(L={"type": "Pass", "result": "${steps.S.result}"}), next="G"),
        G=task(parameters={"k": "${steps.K.result}"}),
    ),
    "finally": dag(F=task("E", parameters={"o": "${steps.O.result}", "why": "${error.message}"}), E=task()),
    "result": {"g": "${steps.G.result}", "s": "${steps.S.result}"},
}  # fmt: skip


def say_wanted(told, words, definition, *, most, pick=0, **policy):
    """Say at each state of a run what the decisions may ask for that could be made on it."""
    world, graph = World(definition, **policy), DAG(definition)
    run_id = world.start()
    done: set[str] = set()
    for _ in range(most):
        state = world.state(run_id)
        shown = " ".join(f"{name}:{node.status[0]}" for name, node in state.nodes.items() if node.status != "New")
        told.say(f"\n=== {words}: {shown}")
        running = [name for name, node in state.nodes.items() if node.status == "Running"]
        for name in running:
            told.say(f"{name} ends: {wanted(graph, state, [AttemptEnded(name, 1, Outcome.completed(1))])}")
        ends = [AttemptEnded(name, 1, FAILED) for name in running]
        told.say(f"all end: {wanted(graph, state, ends)}")
        told.say(f"all end, and a pause: {wanted(graph, state, [*ends, PauseEnded()])}")
        told.say(f"redriven: {wanted(graph, state, [RedriveRequested(T0, None, 'S')])}")
        for name in running:
            if (at := state.nodes[name].due.get("wait")) is not None:
                told.say(f"time of {name}: {wanted(graph, state, [TimeCame(name, 1, 'wait', at, False)])}")
        waiting = [launch for launch in world.target.calls if launch.launch_id not in done]
        if waiting:
            launch = waiting[pick % len(waiting)]
            done.add(launch.launch_id)
            result = Outcome.completed({"list": [1, 2, 3], "t": "x"})
            world.executor.execute(completion(launch, result), message_id="e")
        else:
            world.clock.forward(60)
            world.executor.tick()
        if state.run.status.is_final:
            break


def test_which_results_decisions_in_items_may_ask_for():
    told = Transcript("wanted in items")
    say_wanted(told, "first", DEEP, most=14)
    say_wanted(told, "last", DEEP, most=40, pick=-1)
    parts = dag(S=task("O"), O={"type": "Map", "items": "${steps.S.result.list}", "next": "G", "iterator": chain("T")},
                G=task(parameters={"o": "${steps.O.result}"}))  # fmt: skip
    say_wanted(told, "parts", parts, most=4, inline_items=1, part_items=2)
    told.check()


PARTS_IN_ITEMS = dag(
    S=task("A", parameters={"day": "${run.input.day}"}),
    A=task(on_error=[{"next": "O"}]),
    O={"type": "Map", "items": "${run.input.outer}", "tolerated_failures": 1, "next": "Z", "iterator": dag(
        T=task("M", parameters={"o": "${item}"}),
        M={"type": "Map", "items": "${run.input.list}", "tolerated_failures": 1, "next": "V", "max_concurrency": 100,
           "iterator": dag(I=task("J", parameters={
               "i": "${item}", "n": "${index}", "t": "${steps.T.result}", "s": "${steps.S.result}",
               "why": "${error.node}", "day": "${run.input.day}", "id": "${run.run_id}"}),
               J={"type": "Pass", "result": "${steps.I.result.from}"})},
        V={"type": "Pass", "result": "${steps.M.result}"})},
    Z={"type": "Pass", "result": "${steps.O.result}"},
)  # fmt: skip


def test_parts_in_items():
    story = Story("parts in items", PARTS_IN_ITEMS, inline_items=2, part_items=2)
    story.start(input={"outer": ["a", "b"], "list": [1, 2, 3], "day": "monday"}, priority=3)
    story.go_on("A", "I[1]", "I[2]")
    parent = story.parent
    story.send("redrive", redrive_message(parent), after_s=60)
    story.go_on("I[2]")
    for start_from in ("M[1][0]", "M[0]", "O[1]"):
        story.send(f"redrive from {start_from}", redrive_message(parent, start_from), after_s=60)
        story.go_on(most=1)
    story.send("pause", pause_message(parent), after_s=1)
    story.go_on(most=2)
    story.tick(70)
    story.send("resume", resume_message(parent), after_s=1)
    story.go_on()
    story.tick(70)
    story.say_runs()
    story.close()


# -- a bucket in which each write takes its time ------------------------------------------------------------


class Timed(MemoryStore):
    """Notes which instance reads and writes run documents when; answers as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[str] = []
        self.who, self.clock = "", None
        self.answers: list = []

    def note(self, words):
        if self.clock is not None:
            self.noted.append(f"{(self.clock.now() - T0).total_seconds():.3f} {self.who} {words}")

    def get(self, key):
        if key.startswith("runs/"):
            self.note("reads")
        return super().get(key)

    def put(self, key, data, *, expect):
        if not key.startswith("runs/"):
            return super().put(key, data, expect=expect)
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            self.note(f"is answered {type(answer).__name__}")
            raise answer
        try:
            version = super().put(key, data, expect=expect)
        except VersionConflict:
            self.note("is too late to write")
            raise
        self.note("writes")
        return version

    change = None


class Slow:
    """Two or three instances that save one run, one thread of them at a time, in virtual time."""

    def __init__(self, width, *, crowd=4, count=2, target=None, **policy):
        branches = (dag(**{f"B{n}": job() if target else task()}) for n in range(width))
        self.store = Timed()
        options = {"save_interval_s": 1.0, "crowd": crowd, **policy, **({"target": target} if target else {})}
        self.world = World(dag(P=parallel(*branches, next="Z"), Z=task()), store=self.store, **options)
        self.store.clock = self.world.clock
        self.meanwhile: list = []
        self.is_elsewhere = False
        self.instances = [self.world.instance(sleep=self.sleeper(f"i{n}")) for n in range(count)]
        self.store.who = "i0"
        self.run_id = (
            self.instances[0]
            .execute({"resource": {"type": "start"}}, message_id="m1", publish_time=self.world.clock.now())
            .run_id
        )

    def sleeper(self, name):
        def sleep(seconds):
            self.store.note(f"sleeps {seconds:.3f}")
            self.world.clock.forward(seconds)
            if self.meanwhile and not self.is_elsewhere:
                self.is_elsewhere = True
                self.meanwhile.pop(0)()
                self.is_elsewhere = False

        return sleep

    @contextmanager
    def by(self, on):
        """Note what happens inside as of this instance."""
        before, self.store.who = self.store.who, f"i{on}"
        yield self.instances[on]
        self.store.who = before

    def end(self, name, on=0, outcome=None):
        with self.by(on) as instance:
            self.store.note(f"is told that {name} has ended")
            try:
                handled = instance.execute(completion(self.world.target.of(name)[-1], outcome), message_id=name)
                words = f"has handled it: {handled.verdict}, {handled.absorbed}, {len(handled.launches)} launched"
            except (StoreUnavailable, VersionConflict) as exc:
                words = f"gives it back: {type(exc).__name__}"
            self.store.note(words)

    def deliver(self, name, on=0):
        with self.by(on) as instance:
            self.store.note(f"is handed the end of {name}")
            instance.deliver(
                completion(self.world.target.of(name)[-1]),
                lambda handled, error: self.store.note(f"of {name}: {repr(error) if error else handled.verdict}"),
                message_id=name,
            )

    def say(self, told, words):
        told.say(f"\n=== {words}")
        for is_asked, lines in groupby(self.store.noted, key=lambda line: " asks for " in line):
            for line in sorted(lines) if is_asked else lines:  # they are asked side by side
                told.say(line)
        self.store.noted.clear()
        statuses = [node.status.value for node in self.world.state(self.run_id).nodes.values()]
        self.store.noted.clear()
        told.say(f"{statuses.count('Completed')} of {len(statuses)} have completed")


def test_saves_that_keep_their_pace():
    told = Transcript("paced saves")
    slow = Slow(3, crowd=32)
    slow.say(told, "three side by side: it starts")
    slow.end("B0")
    slow.say(told, "the first ends")
    slow.meanwhile = [lambda: slow.deliver("B2")]
    slow.end("B1")
    slow.say(told, "the second ends, and the third meanwhile")
    slow.end("Z")
    slow.say(told, "the last")

    slow = Slow(4, crowd=32)
    slow.store.noted.clear()
    slow.meanwhile = [lambda: slow.end("B1", on=1)]
    slow.end("B0")
    slow.say(told, "another instance saves while one gathers")
    slow.end("B0", on=1)
    slow.say(told, "what both know already")
    slow.store.answers = [VersionConflict("412")] * 5
    slow.end("B2")
    slow.say(told, "five lost races")
    slow.world.clock.forward(0.5)
    slow.store.answers = [StoreUnavailable("503")] * 3
    slow.end("B3", on=1)
    slow.say(told, "three faults")
    slow.store.answers = [StoreUnavailable("503")] * 5
    slow.end("Z")
    slow.say(told, "a store that stays away")
    slow.world.clock.forward(60)
    slow.end("Z")
    slow.say(told, "it is back")

    slow = Slow(8, count=3)
    slow.say(told, "a crowd: it starts")
    slow.end("B0")
    slow.say(told, "one of eight ends")
    slow.meanwhile = [lambda: slow.deliver("B2", on=1), lambda: slow.deliver("B3", on=1)]
    slow.end("B1", on=1)
    slow.say(told, "another one, elsewhere, and two more while it waits")
    slow.meanwhile = [lambda: slow.end("B5", on=2)]
    slow.end("B4")
    slow.say(told, "a third instance goes first")
    slow.store.answers = [VersionConflict("412")]
    slow.end("B6", on=1)
    slow.say(told, "it loses a race")
    slow.end("B7")
    slow.say(told, "the last of the crowd")
    slow.world.clock.forward(30)
    slow.end("Z", on=2)
    slow.say(told, "the last, long after")
    told.check()


def test_saves_of_a_run_that_is_cancelled_while_it_waits_for_its_turn():
    told = Transcript("paced cancel")
    slow = Slow(6, count=2)
    slow.end("B0")
    slow.say(told, "one of six ends")

    def cancel():
        with slow.by(1) as instance:
            slow.store.note("is told to cancel")
            message = cancel_message(slow.run_id, "why")
            instance.execute(message, message_id="c", publish_time=slow.world.clock.now())

    slow.meanwhile = [cancel]
    slow.end("B1")
    slow.say(told, "it is cancelled while the next one waits")
    for name in ("B2", "B3", "B4", "B5"):
        slow.end(name, on=1, outcome=FAILED)
    slow.say(told, "the others end")
    told.say(slow.world.state(slow.run_id).run.status.value)
    told.check()


def test_what_comes_while_a_save_waits_is_asked_while_it_waits():
    from tests.support.story import Target

    told = Transcript("asked while waiting")
    target = Target(has_outcome=True)
    slow = Slow(7, target=target, questions_at_once=2)
    ask = target.outcome
    target.outcome = lambda execution: (slow.store.note(f"asks for {execution.execution_id[:9]}"), ask(execution))[1]
    for name in ("B0", "B1", "B2", "B3", "B4", "B5"):
        target.outcomes[f"x-{target.of(name)[-1].key}"] = Outcome.completed(name)
    slow.store.noted.clear()
    slow.end("B0")
    slow.say(told, "one of seven ends")
    slow.meanwhile = [lambda: slow.deliver("B2"), lambda: None, lambda: slow.deliver("B3")]
    slow.end("B1")
    slow.say(told, "another one, and two more while it waits")

    def asked_meanwhile(execution):
        if execution.execution_id == f"x-{target.of('B4')[-1].key}":
            slow.deliver("B6")
        return ask(execution)

    target.outcome = asked_meanwhile
    slow.meanwhile = [lambda: slow.deliver("B5")]
    slow.end("B4")
    slow.say(told, "two more, and one while these are asked")
    for instance in slow.instances:
        instance.close()
    told.check()


def test_a_save_lets_others_go_first_so_often_and_no_more(monkeypatch):
    told = Transcript("paced turns")
    for most in (1, 2, 20):
        monkeypatch.setattr("orchestrator.engine.committing.MAX_TURNS", most)
        slow = Slow(9, count=3)
        slow.end("B0", on=1)
        slow.end("B1", on=2)
        slow.store.noted.clear()
        slow.meanwhile = [lambda name=f"B{n}", on=1 + n % 2, to=slow: to.end(name, on=on) for n in range(3, 7)]
        slow.end("B2")
        slow.say(told, f"at most {most}")
    told.check()
