"""Child runs, parts of Maps, and what else is seldom, to the letter: see `tests/support/transcript.py`."""

from __future__ import annotations

import msgspec
import pytest

from orchestrator.engine.catalog import Catalog
from orchestrator.engine.pruning import Pruner
from orchestrator.engine.schedules import Schedules
from orchestrator.model.commands import Outcome
from orchestrator.model.errors import BrokerUnavailable, LaunchRefused, LaunchUncertain, UnknownDag
from orchestrator.model.messages import (
    cancel_message,
    heartbeat_message,
    pause_message,
    redrive_message,
    reminder_message,
    resume_message,
    start_message,
)
from orchestrator.ports import HeldSecrets
from orchestrator.runtime.story import log_saved
from tests.support.families import LONG, family
from tests.support.story import FAILED, Sleeping, Story, call, job, query
from tests.support.world import chain, completion, dag, parallel, task

DAY = 86400.0


def test_children():
    story = family("children fail and go on")
    story.start(dag="parent", input={"day": "monday"})
    story.go_on("X")
    story.tick(20)
    story.go_on("Y")
    story.tick(20)
    parent = story.parent
    story.send("redrive", redrive_message(parent), after_s=60)
    story.go_on()
    story.tick(20)
    story.go_on()
    story.send("redrive", redrive_message(parent, "A"), after_s=60)
    story.go_on()
    story.say_runs()
    story.close()


def test_children_that_are_cancelled_paused_or_lost():
    story = family("children cancelled")
    story.start(dag="parent", input={"day": "monday"})
    story.deliver()
    parent = story.parent
    child = next(run for run in map(story.run, range(2)) if run != parent)
    story.send("pause the child", pause_message(child))
    story.send("cancel", cancel_message(parent, "enough"), after_s=5)
    story.deliver()
    story.tick(70)
    story.deliver()
    story.tick(70)
    story.deliver()
    story.send("redrive", redrive_message(parent), after_s=60)
    story.tick(5)
    story.go_on()
    story.tick(5)
    story.say_runs()
    for name in ("lost", "wrong", "self"):
        story.start(f"m-{name}", dag=name)
        story.go_on(most=8)
    story.tick(70)
    story.start("m-map", dag="map")
    story.go_on("Y")
    story.tick(5)
    story.say_runs()
    story.close()


def long_story(name, words="", **keys):
    last = task(parameters={"m": "${steps.M.result}"})
    story = Story(name, dag(K=task("M"), M={**LONG, **keys, "next": "Z"}, Z=last),
                  inline_items=3, part_items=2)  # fmt: skip
    story.start(input={"list": list(range(7)), "r": 5, "long": words, "unused": 1})
    return story


@pytest.mark.parametrize("failing", [(), ("I[3]",), ("I[3]", "I[4]", "I[0]")], ids=["none", "one", "three"])
def test_parts(failing):
    story = long_story(f"parts {len(failing)}", "w" * (800 if failing else 10), tolerated_failures=2)
    story.go_on(*failing)
    story.say_runs()
    parent = story.parent
    story.send("redrive", redrive_message(parent), after_s=60)
    story.go_on("I[4]")
    story.tick(60)
    for start_from in ("M[1]", "M"):
        story.send(f"redrive from {start_from}", redrive_message(parent, start_from), after_s=60)
        story.go_on()
    story.say_runs()
    story.tick(60)
    story.close()


def test_parts_that_are_stopped():
    story = long_story("parts stopped", on_failure="stop", tolerated_failures=0, max_concurrency=2)
    for _ in range(3):
        story.go_on("I[1]", most=1)
    parent = story.parent
    story.send("pause", pause_message(parent))
    story.tick(100)
    story.send("resume", resume_message(parent))
    story.go_on("I[1]")
    story.tick(60)
    story.say_runs()
    story.send("redrive", redrive_message(parent), after_s=60)
    story.go_on(most=1)
    story.send("cancel", cancel_message(parent), after_s=60)
    story.go_on()
    story.tick(60)
    story.go_on()
    story.say_runs()
    story.close()


NESTED = dag(
    Outer={"type": "Map", "items": ["a", "b"], "next": "End", "iterator": {"steps": {
        "S": task(parameters={"i": "${item}"}),
        "P": {**parallel(chain("U"), dag(V=task(parameters={"s": "${steps.S.result}"}))), "depends_on": ["S"]},
        "Inner": {"type": "Map", "items": [1, 2], "depends_on": ["S"], "tolerated_failures": 1, "max_concurrency": 1,
                  "iterator": dag(W=task(parameters={"w": "${item}", "s": "${steps.S.result.from}"}))},
        "After": task(depends_on=["P", "Inner"]),
        "Or": task(depends_on=["P", "Inner"], trigger="one_failed"),
    }}},
    End=task(),
)  # fmt: skip


@pytest.mark.parametrize("failing", [(), ("U[0]", "W[1][0]"), ("W[0][0]", "W[0][1]"), ("S[1]",)])
def test_nested_maps(failing):
    story = Story(f"nested {' '.join(failing).replace('[', '(').replace(']', ')') or 'none'}", NESTED)
    story.start()
    story.go_on(*failing)
    story.send("redrive", redrive_message(story.run()), after_s=60)
    story.go_on()
    for start_from in ("Inner[1]", "V[0]"):
        story.send(f"redrive from {start_from}", redrive_message(story.run(), start_from), after_s=60)
        story.go_on()
    story.say_runs()
    story.close()


def test_secrets_late_launches_and_reminders_that_cannot_be_sent():
    secret = task(parameters={"token": "Bearer ${secret.TOKEN}"})
    story = Story(
        "secrets",
        dag(P=parallel(dag(A=secret), dag(B={**secret, "retry": {"max_attempts": 2, "delay": "1s"}}),
                       dag(C=task(parameters={"no": "${secret.NONE}"})), dag(D=job(timeout="1h")))),
        parts={"secrets": HeldSecrets({"TOKEN": "hidden-text"}), "on_saved": log_saved},
    )  # fmt: skip
    publish = story.world.broker.publish

    def failing_publish(event, *, delay_s=0.0):
        if event.get("kind") == "timeout":
            raise BrokerUnavailable("503")
        return publish(event, delay_s=delay_s)

    story.world.broker.publish = failing_publish
    story.plain.failing = [RuntimeError("saw hidden-text"), LaunchUncertain("not with hidden-text")]
    story.plain.before_launch = lambda launch: story.told.say(f"{launch.node_name} has {dict(launch.parameters)}")
    story.start()
    story.tick(70)
    story.plain.failing = [LaunchRefused("no hidden-text for you", error_type="Launch.No")]
    story.end("A", Outcome.failed("Own.Error", "said hidden-text"))
    story.tick(70)
    story.able.after_launch = lambda launch: story.world.clock.forward(200)
    story.tick(70)
    for name in ("B", "D"):
        story.end(name)
    story.close()


def test_launches_that_are_late():
    story = Story("late", dag(P=parallel(dag(A=job()), dag(B=job()), dag(C=task()), next="Z"), Z=task()))
    story.able.before_launch = lambda launch: story.world.clock.forward(50)

    def cancelled_meanwhile(launch):
        if launch.node_name == "B":
            story.world.clock.forward(100)
            story.world.instances[1].execute(cancel_message(launch.run_id, "meanwhile"), message_id="c")

    story.able.after_launch = cancelled_meanwhile
    story.start()
    story.tick(10)
    story.tick(100)
    story.tick(100)
    story.close()


def test_calls_that_take_long():
    story = Story("calls", {
        **dag(P=parallel(*(dag(**{f"S{n}": call(target="bad" if n == 2 else "f", retry={"max_attempts": 2})})
                           for n in range(3)), dag(T=task()), dag(J=job()))),
        "notify": [{"on": ["started", "failed"], "topic": "projects/my-project/topics/alerts"}]})  # fmt: skip
    message = start_message("dag")
    with_threads = {"resource": message["resource"], "input": {}}
    story.world.executor.execute(with_threads, message_id="m1", publish_time=story.world.clock.now())
    for name in ("T", "J"):
        launch = story.last(name)
        story.able.outcomes[f"x-{launch.key}"] = Outcome.completed(1)
        story.world.executor.execute(completion(launch), message_id=name)
    for _ in range(3):
        story.world.clock.forward(30)
        story.world.executor.tick()
    story.say_runs()
    story.told.say(str(sorted(each.payload["event"] for each in story.notifier.sent)))
    story.told.say(str(sorted(launch.launch_id.partition("/")[2] for launch in story.launches)))
    state = story.world.state(story.run())
    story.told.say(str({name: (node.attempt, str(node.error)) for name, node in state.nodes.items()}))
    del story.told._lists[:], story.told._stores[:]
    story.close()


def test_attempts_whose_time_comes_before_they_are_bound():
    story = Story(
        "unbound",
        dag(P=parallel(
            dag(A=job(timeout="30s")), dag(B=job(target_type="CloudRunJob", heartbeat="20s", timeout="2m")),
            dag(C=task(timeout="30s")), dag(D=query(timeout="3m")))),
    )  # fmt: skip
    story.able.failing = [LaunchUncertain("503")] * 8
    story.plain.failing = [LaunchUncertain("503")] * 3
    story.asking.failing = [LaunchUncertain("503")] * 2
    story.start()
    run_id = story.run()

    def all_due(words):
        for name, node in story.world.state(run_id).nodes.items():
            for kind, at in node.due.items():
                story.send(f"{words}: {kind} of {name}", reminder_message(run_id, name, node.attempt, kind, at))

    story.world.clock.forward(31)
    all_due("due")
    story.tick(5)
    story.send("pause", pause_message(run_id), after_s=1)
    story.world.clock.forward(400)
    all_due("due while paused")
    story.tick(5)
    story.send("resume", resume_message(run_id), after_s=1)
    story.tick(70)
    all_due("due after a takeover")
    story.tick(70)
    story.send("cancel", cancel_message(run_id), after_s=1)
    story.tick(70)
    story.world.clock.forward(400)
    all_due("due when cancelled")
    for _ in range(6):
        story.tick(120)
    story.close()


@pytest.mark.parametrize("interval_s", [0.0, 1.0])
def test_two_instances_that_race(interval_s):
    branches = (dag(**{f"T{n}": task()}) for n in range(5))
    story = Story(f"races {interval_s:g}", dag(P=parallel(*branches, next="Z"), Z=task()),
                  save_interval_s=interval_s)  # fmt: skip
    sleeping = Sleeping(story)
    lost = []

    class Observer:
        def lost(self, run_id):
            lost.append(run_id)

        def launched(self, launch, result, took_s, since_claim_s):
            lost.append((launch.node_name, result, took_s, since_claim_s))
            if launch.node_name == "Z":
                raise ValueError("an odd observer")

    story.world.instances = [story.world.instance(sleep=sleeping, observer=Observer()) for _ in range(2)]
    story.told.watch("slept", sleeping.slept)
    story.told.watch("observed", lost)
    story.start()
    put, interfering, nested = story.world.store.put, [], []

    def racing(key, data, *, expect):
        if key.startswith("runs/") and interfering and not nested:
            nested.append(key)
            interfering.pop(0)()
            nested.clear()
        return put(key, data, expect=expect)

    story.world.store.put = racing

    def other(name):
        return lambda: story.world.instances[1].execute(completion(story.last(name)), message_id=f"other {name}")

    interfering[:] = [other("T1"), other("T2"), lambda: None, other("T1")]
    story.end("T0", after_s=0)
    story.end("T0")
    interfering[:] = [other("T4")]
    story.end("T3")
    story.end("T3", on=1)
    with story.told.step("delivered without waiting"):
        for name in ("Z", "Nope"):
            launch = story.last("Z")
            event = completion(launch) if name == "Z" else {"resource": {"type": "start"}, "dag": "nope"}
            story.world.executor.deliver(
                event, lambda handled, error: story.told.say(f"{handled!r} {error!r}"), message_id=name)  # fmt: skip
        story.world.executor.deliver({"resource": {"type": "nothing"}}, lambda *done: story.told.say(repr(done)))
    story.close()


def test_definitions_that_change_or_are_gone():
    story = Story("definitions", chain("A", "B", "C"))
    story.start()
    key = next(iter(story.world.store.list("definitions/")))
    story.world.catalog = Catalog.of(chain("A", "Other"))
    story.world.instances = [story.world.instance() for _ in range(2)]
    story.end("A")
    held = story.world.store.get(key)[0]
    story.world.store.delete(key)
    story.world.instances = [story.world.instance() for _ in range(2)]
    story.end("B")
    thrown = msgspec.json.encode({"at": story.world.clock.now(), "definition": msgspec.Raw(held)})
    story.world.store.put(f"pruned/{key}", thrown, expect=None)
    story.end("B")
    story.world.store.delete(key)
    story.world.store.put(key, b'{"start": "Nope", "steps": {}}', expect=None)
    story.world.instances = [story.world.instance() for _ in range(2)]
    story.end("C")
    story.world.store.delete(key)
    story.world.store.put(key, msgspec.json.encode(chain("A", "B", "C", "D")), expect=None)
    story.world.instances = [story.world.instance() for _ in range(2)]
    story.end("C")
    story.tick(100)
    story.start("m2")
    story.start("m2")
    story.start("m3", run_id="mine")
    story.start("m3", run_id="mine")
    story.start("m4", run_id="mine")
    story.close()


def test_starts_that_are_refused():
    properties = {"day": {"type": "string"}, "n": {"default": 3}}
    definition = {**chain("A"), "input_schema": {"type": "object", "required": ["day"], "properties": properties}}
    story = Story("starts", definition)
    for number, start in enumerate(
        [{"input": {"day": "x"}}, {"input": {}}, {"input": {"day": 1}}, {"dag": "other"}, {"run_id": "bad id"},
         {"input": {"day": "x"}, "run_id": "mine"}, {"input": {"day": "y"}, "run_id": "mine"},
         {"input": {"day": "x"}, "priority": 101}, {"input": {"day": "x"}, "scheduled_for": "2026-01-01T06:00:00Z"},
         {"input": {"day": "x"}, "scheduled_for": "2026-01-01T06:00:00Z"}, {"input": {"day": "x"}, "priority": -7}]
    ):  # fmt: skip
        story.send(f"start {number}", {"resource": {"type": "start"}, **start})
    story.close()


def test_runs_that_are_out_of_time_or_late():
    definition = {
        **dag(P=parallel(dag(A=task(timeout="20m")), dag(J=job()), dag(L=task()))),
        "timeout": "10m", "deadline": "1h", "finally": chain("Tidy"),
        "notify": [{"on": ["late", "failed"], "topic": "projects/my-project/topics/alerts"}],
    }  # fmt: skip
    story = Story("out of time", definition)
    story.send("start", {"resource": {"type": "start"}, "scheduled_for": "2026-01-01T11:30:00Z"})
    story.send("start of long ago", {"resource": {"type": "start"}, "scheduled_for": "2025-01-01T11:30:00Z"})
    story.tick(601)
    story.tick(60)
    story.end("J")
    story.tick(1100)
    story.tick(70)
    for launch in [each for each in story.launches if each.node_name == "L"]:
        story.send(f"end of {launch.launch_id}", completion(launch))
    story.end("Tidy", FAILED)
    story.tick(3600)
    for launch in story.launches:
        story.send(f"end of {launch.launch_id}", completion(launch))
    story.tick(3600)
    story.close()


def test_large_things_in_maps_and_children():
    story = Story("large in maps", {
        **dag(A=task("M"),
              M={"type": "Map", "items": "${steps.A.result.list}", "max_concurrency": 2, "next": "P",
                 "iterator": dag(I=task(parameters={"i": "${item.n}", "t": "${steps.A.result.t}"}, next="J"),
                                 J={"type": "Pass", "result": {"big": "${steps.I.result.big}", "n": "${item.n}"}})},
              P=parallel(dag(Q={"type": "Pass", "result": "${steps.M.result}"}), chain("R"), next="C"),
              C={"type": "Condition", "choices": [{"when": "${size(steps.Q.result) == 3}", "next": "W"}]},
              W={"type": "Wait", "for": "1m", "next": "Z"},
              Z={"type": "Pass", "result": "${steps.A.result.t}"}),
        "result": {"z": "${steps.Z.result}", "q": "${steps.Q.result}"},
    })  # fmt: skip
    story.start()
    large = {"list": [{"n": n, "text": "y" * 30_000} for n in range(3)], "t": "t" * 70_000}
    story.end("A", Outcome.completed(large))
    for item in range(3):
        story.end(f"I[{item}]", Outcome.completed({"big": "z" * 66_000}))
    stored = list(story.world.store.list("results/"))
    story.told.say(f"{len(stored)} objects")
    story.end("R")
    story.tick(70)
    state = story.world.state(story.run())
    with story.told.step("the run's result, which is then gone"):
        story.told.say(str(len(str(story.world.executor.result_of_run(state)))))
        story.world.store.delete(state.run.stored_result.object)
        story.world.executor.result_of_run(state)
    story.send("redrive", redrive_message(story.run(), "M"), after_s=60)
    for key in stored:
        story.world.store.delete(key)
    story.world.instances = [story.world.instance() for _ in range(2)]
    for item in range(3):
        story.end(f"I[{item}]", Outcome.completed({"big": "v" * 66_000}))
    story.close()


def test_results_that_are_in_the_way():
    story = Story("results in the way", chain("A", "B", "C"))
    story.start()
    for name, left in (("A", {"kind": "Completed", "result": "x" * 70_000, "at": "2026-01-01T12:00:00Z"}),
                       ("B", {"kind": "Failed", "at": "2026-01-01T12:00:00Z"}), ("C", None)):  # fmt: skip
        key = f"results/{story.last(name).key}.json"
        story.world.store.put(key, msgspec.json.encode(left) if left else b"{", expect=None)
        story.end(name, Outcome.completed("x" * 70_000))
    story.close()


def test_schedules_in_the_corners():
    definitions = {
        "hourly": {**chain("A"), "schedule": "0 * * * *", "missed": "last", "time_zone": "Europe/Berlin"},
        "all": {**chain("A"), "schedule": "*/5 * * * *", "missed": "all"},
        "skip": {**chain("A"), "schedule": "0 6 * * *"},
        "none": chain("A"),
    }
    story = Story("schedules in the corners", chain("A"))
    refused, started = [], []

    def start(message):
        started.append(f"{message['dag']} for {message['scheduled_for']}")
        if refused:
            raise refused.pop(0)

    schedules = Schedules(story.world.store, Catalog(definitions), story.world.clock, start)

    def look(words, act):
        with story.told.step(words):
            found = repr(act())
            story.told.say(found if len(found) < 1500 else f"{found[:500]} … {found[-500:]}")
            story.told.say(f"{len(started)} starts, from {started[:2]} to {started[-2:]}")
            started.clear()

    look("next", lambda: schedules.next_times(2))
    look("due", schedules.start_due)
    for hours in (1.02, 0.5, 30):
        story.world.clock.forward(hours * 3600)
        look(f"due, {hours} h later", schedules.start_due)
        look("made up", schedules.make_up)
    refused[:] = [UnknownDag("gone"), BrokerUnavailable("503")]
    story.world.clock.forward(2 * 3600)
    look("made up, one refused", schedules.make_up)
    look("made up again", schedules.make_up)
    story.world.clock.forward(20 * DAY)
    look("made up after weeks", schedules.make_up)
    definitions["all"]["schedule"] = "*/10 * * * *"
    schedules = Schedules(story.world.store, Catalog(definitions), story.world.clock, start)
    story.world.clock.forward(3600)
    look("another schedule", schedules.start_due)
    look("another schedule", schedules.start_due)
    key = "schedules/all.json"
    held, version = story.world.store.get(key)
    story.world.store.put(key, held.replace(b'"format":1', b'"format":2'), expect=version)
    story.world.clock.forward(3600)
    fresh = Schedules(story.world.store, Catalog(definitions), story.world.clock, start)
    look("a mark of a later version", fresh.start_due)
    version = story.world.store.get(key)[1]
    story.world.store.put(key, held.replace(b"*/10 * * * *", b"61 * * * *"), expect=version)
    look("a mark of no schedule", fresh.start_due)
    story.close()


@pytest.mark.parametrize("is_dry", [True, False])
def test_pruning_in_the_corners(is_dry):
    story = family(f"pruning {'dry' if is_dry else 'wet'}")
    story.start(dag="parent", input={"day": "monday"})
    story.go_on()
    story.start("m2", dag="map")
    story.go_on("X")
    for name in ("2025-12-01-aaaa.json", "2026-02-01-bbbb.json", "odd"):
        story.world.store.put(f"dead_letters/{name}", b"{}", expect=None)
    for launch in story.launches:
        story.world.store.put(f"results/{launch.key}.begun", b"{}", expect=None)
    story.world.store.put("executions/odd.json", b"{", expect=None)
    story.world.store.put("runs/odd..json", b"{", expect=None)
    story.world.store.put("definitions/abc.json", b"{}", expect=None)
    story.world.store.put("slots/pool/odd.json", b"{", expect=None)
    removed = []

    def prune(words, is_meant=lambda run: True, **options):
        with story.told.step(words):
            pruner = Pruner(story.world.store, story.world.clock.now(), 8 * DAY, is_meant, is_dry=is_dry,
                            remove_attempt=lambda key, dry: removed.append((key, dry)) or 1, **options)  # fmt: skip
            story.told.say(repr(pruner.prune()))

    story.world.clock.forward(10 * DAY)
    prune("only children", lambda run: run.parent is not None, is_all=False)
    prune("only parents", lambda run: run.dag == "parent", is_all=False)
    story.told.watch("removed", removed)
    prune("all", is_all=True)
    story.world.clock.forward(40 * DAY)
    story.start("m3", dag="parent", input={"day": "tuesday"})
    story.go_on()
    prune("later", is_all=True)
    story.world.store.put("runs/run_9_spoilt.json", b"{", expect=None)
    story.world.clock.forward(40 * DAY)
    prune("with one that cannot be read", is_all=True)
    story.close()


def test_slots_in_the_corners():
    definition = {**dag(A=task("B", pool="api"), B=task(pool="api", retry={"max_attempts": 2, "delay": "5s"})),
                  "max_active_runs": 2, "finally": chain("Tidy")}  # fmt: skip
    story = Story("slots in the corners", definition, pools={"api": 1})
    for number in range(4):
        story.start(f"m{number}", priority=number)
        story.world.clock.forward(1)
    runs = [story.run(number) for number in range(4)]
    story.send("cancel one that waits", cancel_message(runs[3]))
    story.send("pause the first", pause_message(runs[0]))
    story.deliver()
    story.send("cancel what is paused", cancel_message(runs[1]), after_s=2)
    story.deliver()
    story.tick(20)
    story.deliver()
    story.send("resume the first", resume_message(runs[0]), after_s=2)
    story.go_on("B")
    story.tick(10)
    story.go_on("B")
    story.tick(10)
    story.go_on()
    story.say_runs()
    for run_id in runs:
        story.send("redrive", redrive_message(run_id), after_s=2)
    story.send("cancel one that waits again", cancel_message(runs[2]))
    story.go_on("A")
    story.tick(100)
    story.start("m9")
    gone = story.last("A").run_id
    story.world.store.delete(f"runs/{gone}.json")
    story.start("m10")
    story.start("m11")
    story.tick(100)
    story.deliver()
    key = "slots/pool/api.json"
    if story.world.store.get(key):
        story.world.store.put(key, b"{", expect=story.world.store.get(key)[1])
    story.tick(100, on=1)
    story.start("m12")
    story.deliver()
    story.tick(100)
    story.close()


def test_heartbeats_of_what_cannot_be_cancelled():
    beating = {"type": "Task", "target_type": "CloudFunction", "target_name": "f", "heartbeat": "1m", "timeout": "1h"}
    story = Story(
        "beats", dag(P=parallel(dag(A={**beating, "retry": {"max_attempts": 2, "delay": "1s"}}), dag(B=beating)))
    )
    story.start()
    for seconds in (10, 30, 45, 80):
        for name in "AB" if seconds < 80 else "B":
            launch = story.last(name)
            story.send(f"beat of {name}", heartbeat_message(launch.launch_id, launch.nonce), after_s=seconds)
        story.tick(5)
    story.tick(30)
    story.tick(200)
    story.tick(200)
    story.tick(4000)
    story.close()


def test_ways_that_errors_take():
    story = Story("ways", {
        **dag(
            P={
                **parallel(
                    dag(A=task(on_error=[{"errors": ["Own.*"], "next": "Mend"}, {"errors": ["*"], "next": "Give"}]),
                        Mend=task(parameters={"e": "${error.type}", "n": "${error.node}"}, on_error=[{"next": "Give"}]),
                        Give={"type": "End", "status": "Failed",
                              "error": {"type": "My.Error", "message": "gave up: ${error.type}"}}),
                    dag(B=job(on_error=[{"errors": ["Task.Cancelled"], "next": "C"}]),
                        C={"type": "Pass", "result": 1})),
                "on_error": [{"next": "After"}]},
            After={"type": "Pass", "result": "${error.message} by ${error.node}"}),
        "result": "${steps.After.result}"})  # fmt: skip
    story.start()
    story.end("A", FAILED)
    story.ask("B", Outcome.cancelled("by hand"))
    story.end("Mend", Outcome.failed("Other", "no"))
    story.send("redrive from A", redrive_message(story.run(), "A"), after_s=5)
    story.end("A")
    story.send("redrive from P", redrive_message(story.run(), "P"), after_s=5)
    story.go_on("A", "B")
    story.send("redrive", redrive_message(story.run()), after_s=5)
    story.go_on()
    story.say_runs()
    story.close()
