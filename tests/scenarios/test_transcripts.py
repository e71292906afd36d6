"""What the engine does in a few rich stories, to the letter: see `tests/support/transcript.py`.

The tables elsewhere say what matters of each rule; these hold all of the words, times and fields beside it.
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestrator.engine.pruning import Pruner
from orchestrator.model.commands import Outcome
from orchestrator.model.errors import BrokerUnavailable, LaunchRefused, LaunchUncertain, NotSent, StoreUnavailable
from orchestrator.model.messages import (
    cancel_message,
    heartbeat_message,
    pause_message,
    redrive_message,
    reminder_message,
    resume_message,
    tick_message,
)
from orchestrator.model.policy import Secret
from orchestrator.testing import Simulation, fails, in_turn, returns
from tests.support.story import FAILED, Story, call, job, query
from tests.support.transcript import Transcript
from tests.support.world import World, chain, completion, dag, parallel, task


def test_a_tour_of_the_language():
    story = Story(
        "tour",
        {
            "start": "A", "owner": "me@example.com", "tags": ["t", "u"], "priority": 7,
            "timeout": "2h", "deadline": "1h",
            "result": {"all": "${steps.Each.result}"},
            "notify": [{"on": ["started", "completed", "late"], "topic": "projects/my-project/topics/alerts"}],
            "steps": {
                "A": task("Fork", parameters={"day": "${run.input.day}", "n": 1, "v": "${var.V}"}),
                "Fork": parallel(
                    {"start": "L", "steps": {
                        "L": job("Choose"),
                        "Choose": {"type": "Condition", "default": "Other", "choices": [
                            {"when": "${steps.L.result.from == 'X'}", "next": "Other"},
                            {"when": "${steps.A.result.from == 'A'}", "next": "Soon"}]},
                        "Other": task(),
                        "Soon": {"type": "Wait", "for": "90s", "next": "Then"},
                        "Then": {"type": "Wait", "until": "${run.input.at}"}}},
                    dag(R=query("Say"), Say={"type": "Pass", "result": {"r": "${steps.R.result}"}}),
                    next="Each"),
                "Each": {"type": "Map", "items": "${run.input.list}", "max_concurrency": 2, "next": "Sync",
                         "iterator": dag(Do=task("Note", parameters={"i": "${item}"}),
                                         Note={"type": "Pass", "result": "${steps.Do.result.from}"})},
                "Sync": call("Bad"),
                "Bad": call(target="bad", retry={"max_attempts": 2, "delay": "10s"},
                            on_error=[{"errors": ["Own.Error"], "next": "Mend"}]),
                "Mend": {"type": "Pass", "result": "${error.type}: ${error.message} at ${error.node}"},
            },
            "finally": dag(Tidy=task(parameters={"was": "${run.status}"})),
        },
        parts={"variables": {"V": "of the environment", "W": "not asked for"}},
        trace_key=Secret(b"k" * 32),
    )  # fmt: skip
    story.start(input={"day": "monday", "at": "2026-01-01T12:30:00Z", "list": ["a", "b", "c"]})
    story.end("A", after_s=3)
    story.end("A", after_s=3)
    story.end("L")
    story.tick(60)
    story.send("question", reminder_message(story.run(), "R", 1, "question", story.world.clock.now()), after_s=0)
    story.end("R", on=1)
    story.tick(120)
    story.tick(3000)
    for item in (1, 0, 2):
        story.end(f"Do[{item}]")
    story.tick(30)
    story.end("Tidy", after_s=100)
    story.tick(4000)
    story.start()
    story.close()


BAD_STEPS = {
    "a list of items that is none": {"type": "Map", "items": "${run.input.text}", "iterator": chain("X")},
    "items that are not there": {"type": "Map", "items": "${run.input.nope}", "iterator": chain("X")},
    "too many items": {"type": "Map", "items": "${run.input.list}", "iterator": chain("X")},
    "no items": {"type": "Map", "items": "${run.input.none}", "iterator": chain("X")},
    "no choice": {"type": "Condition", "choices": [{"when": "${1 > 2}", "next": "Z"}]},
    "a choice that cannot be told": {
        "type": "Condition", "choices": [{"when": "${run.input.nope > 2}", "next": "Z"}], "default": "Z"},
    "a time that is none": {"type": "Wait", "until": "${run.input.text}"},
    "a time that is a number": {"type": "Wait", "until": "${run.input.number}"},
    "a time that is not there": {"type": "Wait", "until": "${run.input.nope}"},
    "a time that is too far off": {"type": "Wait", "until": "2028-01-01T00:00:00Z"},
    "a time that is past": {"type": "Wait", "until": "2020-01-01T00:00:00Z"},
    "a time that is now": {"type": "Wait", "until": "2026-01-01T12:00:00Z"},
    "a result that cannot be told": {"type": "Pass", "result": "${run.input.nope}"},
    "an end": {"type": "End"},
    "an end that fails": {"type": "End", "status": "Failed"},
    "an end that fails in its own words": {
        "type": "End", "status": "Failed", "error": {"type": "My.Error", "message": "see ${run.input.text}"}},
    "an end that fails in words alone": {"type": "End", "status": "Failed", "error": {"message": "so"}},
    "an end whose words cannot be told": {
        "type": "End", "status": "Failed", "error": {"message": "see ${run.input.nope}"}},
    "parameters that cannot be told": task(parameters={"a": "${run.input.nope}"}),
    "a pool that is not there": task(pool="nobody"),
    "a target that is not there": {"type": "Task", "target_type": "Dag", "target_name": "kid"},
}  # fmt: skip


@pytest.mark.parametrize("pools", [{}, {"one": 1, "two": 2}], ids=["without pools", "with pools"])
def test_steps_that_cannot_start(pools):
    story = Story(f"bad steps {len(pools)}", dag(A=task()), max_items=3, pools=pools)
    given = {"text": "some text", "number": 12, "list": [1, 2, 3, 4], "none": []}
    for number, (words, step) in enumerate(BAD_STEPS.items()):
        story.told.say(f"\n=== {words}")
        targets = {name: target for name, target in story.world.targets.items() if name != "Dag"}
        world = World({}, targets=targets, max_items=3, pools=pools)
        world.catalog = type(world.catalog).of(
            {"start": "A", "steps": {"A": step, **({"Z": {"type": "Pass", "result": 1}} if "choices" in step else {})}}
        )
        told = story.told
        told.watch_store(world.store)
        instance = world.instance()
        with told.step("start"):
            event = {"resource": {"type": "start"}, "input": given}
            told.say(repr(instance.execute(event, message_id=f"m{number}", publish_time=world.clock.now())))
        instance.close()
    story.close()


FAMILY = {
    "steps": {
        "Init": task(),
        "Left": task(depends_on=["Init"], retry={"errors": ["Other.*"]}),
        "Right": job(depends_on=["Init"], on_error=[{"errors": ["Own.*"], "next": "Mend"}]),
        "Mend": task(),
        "Both": task(depends_on=["Left", "Right"]),
        "Alarm": task(depends_on=["Left", "Both"], trigger="one_failed"),
        "Always": {
            **parallel(chain("P"), chain("Q")), "depends_on": ["Left", "Right"], "trigger": "all_done"},
        "Behind": task(depends_on=["Both", "Always"]),
    },
}  # fmt: skip


@pytest.mark.parametrize("failing", [(), ("Left",), ("Right",), ("Left", "Right"), ("P",), ("Init",), ("Both", "Q")])
def test_steps_that_depend_on_others(failing):
    story = Story(f"dependencies {' '.join(failing) or 'none failing'}", FAMILY)
    story.start()
    done: set[str] = set()
    while waiting := sorted({launch.launch_id: launch for launch in story.launches if launch.launch_id not in done}):
        launch_id = waiting[-1] if len(done) % 2 else waiting[0]
        done.add(launch_id)
        name = launch_id.split("/")[1]
        story.end(name, FAILED if name in failing else None)
    story.tick()
    story.send("redrive", redrive_message(story.run()), after_s=10)
    for launch in [each for each in story.launches if each.launch_id not in done]:
        story.end(launch.node_name)
    story.close()


def test_pause_and_resume():
    story = Story(
        "pause",
        dag(A=task("P"), P=parallel(chain("B", "C"), dag(D=job("E", timeout="5m"), E=job()),
            dag(W={"type": "Wait", "for": "2m", "next": "X"}, X=task()),
            dag(R=task(retry={"max_attempts": 3, "delay": "30s", "backoff": 2})))),
    )  # fmt: skip
    story.able.failing = []
    story.start()
    story.end("A")
    story.send("pause", pause_message(story.run()))
    story.send("pause again", pause_message(story.run()), after_s=5)
    story.end("B")
    story.end("R", FAILED)
    story.end("D")
    story.tick(200)
    story.send("resume", resume_message(story.run()), after_s=5)
    story.send("resume again", resume_message(story.run()), after_s=5)
    story.able.failing = [LaunchUncertain("503")] * 3
    story.end("R", FAILED)
    story.send("pause", pause_message(story.run()))
    story.tick(100)
    story.send("resume", resume_message(story.run()), after_s=1)
    story.tick(100)
    for name in ("C", "E", "X", "R"):
        story.end(name, FAILED if name == "R" else None)
    story.tick(400)
    story.end("R")
    story.send("pause what has ended", pause_message(story.run()))
    story.close()


def test_cancels():
    story = Story(
        "cancel",
        {**dag(A=task("P"), P=parallel(chain("B", "C"), dag(D=job()), dag(Late=task()), dag(Q=query()),
               dag(W={"type": "Wait", "for": "2m"}), dag(T=task(timeout="3m")))),
         "finally": chain("Tidy", "Up"),
         "notify": [{"on": ["cancelled"], "topic": "projects/my-project/topics/alerts"}]},
    )  # fmt: skip
    story.start()
    story.end("A")
    story.able.failing = [LaunchUncertain("429"), RuntimeError("odd")]
    story.notifier.failing = [NotSent("503", retry=True), NotSent("400"), ValueError("odd")]
    story.send("cancel", cancel_message(story.run(), "the wrong day"), after_s=5)
    story.send("cancel again", cancel_message(story.run(), "another reason"), after_s=5)
    story.tick(5)
    story.tick(100, on=1)
    story.end("B")
    story.tick(200)
    story.end("Tidy")
    story.end("Up", FAILED)
    for _ in range(4):
        story.tick(400)
    story.send("cancel what has ended", cancel_message(story.run()))
    story.send("cancel what is not there", cancel_message("run_1_nowhere"))
    story.close()


def test_launches_that_fail():
    story = Story(
        "launches",
        dag(P=parallel(
            dag(A=task(retry=[{"errors": ["Launch.Busy"], "max_attempts": 2, "delay": "10s", "jitter": 0.5},
                              {"errors": ["*"], "max_attempts": 3, "delay": "1s", "max_delay": "20s"}])),
            dag(J=job(target_type="CloudRunJob", timeout="10m", heartbeat="2m",
                      retry={"errors": ["Task.Timeout", "Task.Heartbeat"],
                                                            "max_attempts": 3, "delay": "5s"})),
            dag(K=job()),
            dag(N=job()),
            dag(Q=query(timeout="1h")),
            dag(S=call(timeout="2m")),
        )),
        max_takeovers=2, max_losses=1,
    )  # fmt: skip
    story.plain.failing = [LaunchRefused("busy", error_type="Launch.Busy")]
    story.able.failing = [LaunchUncertain("503")]
    story.asking.failing = [RuntimeError("odd")] + [LaunchUncertain("503")] * 5
    story.slow.failing = [LaunchUncertain("gone")] * 2
    story.start()
    story.tick(12)
    story.ask("K", Outcome.lost("its host is gone"))
    story.ask("K", Outcome.lost("its host is gone again"))
    for _ in range(3):
        story.tick(75)
    story.end("A", FAILED)
    story.tick(75, on=1)
    launch = story.last("J")
    story.send("beat", heartbeat_message(launch.launch_id, launch.nonce), after_s=50)
    story.send("forged beat", heartbeat_message(launch.launch_id, "f" * 32), after_s=50)
    story.send("beat", heartbeat_message(launch.launch_id, launch.nonce), after_s=50)
    story.tick(200)
    story.tick(200)
    story.ask("N", Outcome.cancelled("by somebody"))
    story.tick(600)
    story.end("S")
    story.tick(600)
    story.end("J")
    story.close()


def test_events_that_are_forged_late_or_about_nothing():
    story = Story("events", dag(P=parallel(dag(A=task("B"), B=task()), dag(J=job()), dag(Q=query()))))
    story.start()
    run_id = story.run()
    story.end("A", nonce="0" * 32)
    story.send("an end of J that its target does not know of", completion(story.last("J")))
    story.send("a question that is not due", reminder_message(run_id, "Q", 1, "question", story.world.clock.now()))
    story.send("a question", reminder_message(run_id, "Q", 1, "question", story.world.clock.now()), after_s=0)
    due = story.world.state(run_id).nodes["Q"].due
    for kind, at in due.items():
        story.world.clock.forward_to(max(at, story.world.clock.now()))
        story.send(f"due: {kind}", reminder_message(run_id, "Q", 1, kind, at))
        story.send(f"due again: {kind}", reminder_message(run_id, "Q", 1, kind, at))
    story.send("how is it", reminder_message(run_id, "J", 1))
    story.send("how is what is no node", reminder_message(run_id, "Nope", 1))
    story.send("how is another attempt", reminder_message(run_id, "J", 2))
    story.send("nothing of ours", {"resource": {"type": "cloud_run_revision"}, "logName": "x"})
    story.send("an odd start", {"resource": {"type": "start"}, "dag": "nope"})
    story.send("an odd input", {"resource": {"type": "start"}, "input": 7})
    story.send("a redrive of what runs", redrive_message(run_id))
    story.send("a redrive of nothing", redrive_message("run_1_nowhere"))
    story.send("a resume of nothing", resume_message("run_1_nowhere"))
    story.send("a tick", tick_message())
    story.world.store.put("open/run_1_orphan", b'{"at":"2026-01-01T11:00:00Z"}', expect=None)
    story.world.store.put("runs/run_1_spoilt.json", b"{", expect=None)
    story.world.store.put("open/run_1_spoilt", b'{"at":"2026-01-01T11:00:00Z"}', expect=None)
    story.tick()
    story.tick(60)
    story.tick(700)
    story.tick(90_000)
    story.close()


def test_what_shares_a_limit():
    definition = {
        **dag(P=parallel(*(dag(**{f"T{n}": task(pool="api", retry={"max_attempts": 2, "delay": "9s"})})
                             for n in range(3)))),
        "max_active_runs": 1,
    }  # fmt: skip
    story = Story("slots", definition, pools={"api": 2})
    story.start("m1")
    story.world.clock.forward(1)
    story.start("m2", priority=5)
    story.world.clock.forward(1)
    story.start("m3")
    first = story.run(0)
    runs = [story.run(number) for number in range(3)]
    story.send("pause one that waits", pause_message(runs[2]), after_s=1)
    story.end("T0", FAILED)
    story.tick(10)
    story.end("T1")
    story.send("cancel the first", cancel_message(first), after_s=1)
    for event, _ in tuple(story.world.broker.published):
        story.send("what was published", event)
    story.tick(10)
    for name in ("T0", "T1", "T2"):
        for launch in [each for each in story.launches if each.node_name == name]:
            story.send(f"end of {launch.launch_id.partition('/')[2]}", completion(launch))
    story.tick(100)
    story.send("resume", resume_message(runs[2]))
    story.tick(100, on=1)
    story.send("redrive the first", redrive_message(first))
    with story.told.step("leave queues"):
        for run_id in runs:
            story.world.executor.leave_queues(run_id)
    story.tick(100)
    for launch in story.launches[4:]:
        story.send(f"end of {launch.launch_id.partition('/')[2]}", completion(launch))
    story.tick(100)
    story.tick(100)
    story.close()


def test_redrives():
    story = Story(
        "redrive",
        {**dag(A=task("P", parameters={"n": 1}), P=parallel(chain("B", "C"), dag(D=task("E"), E=task()), next="M"),
               M={"type": "Map", "items": [1, 2, 3], "iterator": chain("X", "Y"), "tolerated_failures": 0,
                  "max_concurrency": 2, "next": "Z"},
               Z=task()),
         "finally": chain("Tidy"), "result": {"z": "${steps.Z.result}"}},
    )  # fmt: skip

    def all_end(*failing):
        seen = len(story.launches)
        waiting = [launch for launch in story.launches if launch.launch_id not in ended]
        for launch in waiting:
            ended.add(launch.launch_id)
            outcome = FAILED if launch.node_name in failing else Outcome.completed({"from": launch.node_name})
            story.send(f"end of {launch.node_name}", completion(launch, outcome), after_s=1)
        return len(story.launches) > seen

    ended: set[str] = set()
    story.start()
    while all_end("C"):
        pass
    story.tick()
    run_id = story.run()
    for failing in (("X[1]",), ("Y[1]", "Y[0]"), ("Tidy",), ()):
        story.send("redrive", redrive_message(run_id), after_s=60)
        while all_end(*failing):
            pass
        story.tick(60)
    story.send("redrive of what has completed", redrive_message(run_id), after_s=60)
    for start_from in ("D", "M", "X[2]", "Nope", "Tidy"):
        story.send(f"redrive from {start_from}", redrive_message(run_id, start_from), after_s=60)
        while all_end():
            pass
        story.tick(60)
    story.send("a redrive of a number that is over", redrive_message(run_id, None, 2), after_s=60)
    story.close()


def test_a_failure_that_stops_the_others():
    branches = [dag(A=task()), chain("B", "C"), dag(J=job()),
                dag(W={"type": "Wait", "for": "1h"}),
                dag(M={"type": "Map", "items": [1, 2], "iterator": chain("I")}), dag(Late=task())]  # fmt: skip
    story = Story("stop", dag(P={**parallel(*branches), "on_failure": "stop", "next": "Z"}, Z=task()))
    story.start()
    story.end("A", FAILED)
    story.end("B")
    story.end("I[0]")
    story.end("I[1]", FAILED)
    story.tick(60)
    story.send("redrive", redrive_message(story.run()), after_s=60)
    story.tick(60)
    story.close()


def test_maps_that_tolerate_failures():
    story = Story("map", dag(M={
        "type": "Map", "items": "${run.input.list}", "iterator": chain("I", "K"), "tolerated_failures": 2,
        "max_concurrency": 3, "on_failure": "stop"}))  # fmt: skip
    story.start(input={"list": [{"n": n} for n in range(8)]})
    for name in ("I[2]", "I[0]", "I[1]", "K[1]", "I[3]"):
        story.end(name, FAILED if name in ("I[0]", "K[1]") else None)
    story.send("pause", pause_message(story.run()))
    story.end("I[4]", FAILED)
    story.end("K[2]")
    story.send("resume", resume_message(story.run()), after_s=2)
    story.tick(60)
    story.send("redrive", redrive_message(story.run()), after_s=60)
    story.tick(60)
    story.close()


def test_large_results_and_lists():
    story = Story("large", {**dag(
        A=task("B"), B={"type": "Pass", "result": "${steps.A.result}", "next": "M"},
        M={"type": "Map", "items": "${steps.A.result.list}", "iterator": chain("I"), "max_concurrency": 4}),
        "result": "${steps.B.result.text}"})  # fmt: skip
    story.start()
    story.end("A", Outcome.completed({"text": "x" * 70_000, "list": ["y" * 20_000] * 4}))
    for item in range(4):
        story.end(f"I[{item}]", Outcome.completed("z" * 66_000) if item else None)
    with story.told.step("what is brought back"):
        state = story.world.state(story.run())
        for name in ("A", "B", "M", "I[1]"):
            story.told.say(f"{name}: {len(str(story.world.executor.result_of(state, name)))}")
        story.told.say(str(len(str(story.world.executor.result_of_run(state)))))
        story.world.store.delete(state.nodes["B"].stored_result.object)
        story.world.executor.result_of(state, "B")
    story.close()


def test_a_store_and_a_broker_that_fail():
    story = Story("faults", {**chain("A", "B"), "deadline": "1m", "timeout": "10m"})
    put, publish = story.world.store.put, story.world.broker.publish
    failing: list[str] = []

    def failing_put(key, data, *, expect):
        how = failing.pop(0) if failing and key.startswith("runs/") else ""
        if how == "before":
            raise StoreUnavailable(f"{key}: 503")
        version = put(key, data, expect=expect)
        if how == "after":
            raise StoreUnavailable(f"{key}: 503, though written")
        return version

    def failing_publish(event, *, delay_s=0.0):
        if failing[:1] == ["publish"]:
            failing.pop()
            raise BrokerUnavailable("503")
        return publish(event, delay_s=delay_s)

    story.world.store.put, story.world.broker.publish = failing_put, failing_publish
    failing[:] = ["before", "after"]
    story.start()
    failing[:] = ["before"] * 5
    story.end("A")
    failing[:] = ["after", "before"]
    story.end("A", on=1)
    story.tick(120)
    story.tick(600)
    story.end("B")
    story.tick()
    failing[:] = ["publish"]
    later = {"resource": {"type": "later"}, "at": "2026-01-01T13:00:00Z", "event": tick_message()}
    story.send("later", later)
    story.send("later", later)
    story.close()


def test_schedules_and_triggers():
    story = Story("schedules", {**chain("A"), "schedule": "*/30 * * * *", "missed": "all"})
    story.world.instances = [story.world.instance(start_missed=story.world.broker.publish) for _ in range(2)]
    story.tick()
    story.tick(4000)
    story.tick(60)
    story.tick(60, on=1)
    story.world.store.put("schedules/dag.json", b"{", expect=story.world.store.get("schedules/dag.json")[1])
    story.tick(3600)
    topic = "projects/my-project/topics/orders"
    triggered = {
        **chain("A"),
        "triggers": [
            {
                "object": {"bucket": "landing", "prefix": "in/"},
                "when": "${event.size > 10}",
                "input": {"u": "${event.uri}"},
            },
            {"topic": topic, "when": "${event.data.kind == 'order'}", "input": {"d": "${event.data.day}"}},
            {"topic": topic},
        ],
    }
    story.world.catalog = type(story.world.catalog).of(triggered)
    story.world.instances = [story.world.instance()]
    told = {
        "resource": {"type": "object"},
        "bucket": "landing",
        "name": "in/a",
        "size": "12",
        "generation": "1767268800123456",
    }
    story.send("an object", told)
    story.send("the same object", told)
    story.send("a small object", {**told, "size": "9", "generation": "1767268800123457"})
    story.send("an object elsewhere", {**told, "name": "out/a"})
    message = {"resource": {"type": "message"}, "topic": "projects/my-project/topics/orders", "attributes": {"a": "b"}}
    for data in ({"kind": "order", "day": 7}, {"kind": "order"}, {"kind": "x"}, "text", None, {}):
        story.send(f"a message: {data}", {**message, "data": data})
    story.close()


def test_children_and_parts():
    kid = {"type": "Task", "target_type": "Dag", "target_name": "kid"}
    world = Simulation(
        {
            "parent": {"start": "K", "priority": 3, "steps": {
                "K": {**kid, "parameters": {"day": "${run.input.day}"}, "next": "Many",
                      "retry": {"max_attempts": 2, "delay": "1m"}},
                "Many": {"type": "Map", "items": "${run.input.list}", "max_concurrency": 120, "tolerated_failures": 3,
                         "iterator": dag(I={"type": "Task", "target_type": "Dataflow", "target_name": "i",
                                            "parameters": {"i": "${item}", "k": "${steps.K.result}"}})}}},
            "kid": {**dag(W={"type": "Task", "target_type": "Dataflow", "target_name": "w",
                             "parameters": {"day": "${run.input.day}"}}), "result": {"w": "${steps.W.result}"}},
        },
        targets={"W": in_turn(fails("Own.Error"), returns(7)), "I[3]": fails("Own.Error"), "i": returns({"ok": True})},
    )  # fmt: skip
    told = Transcript("children")
    told.watch_store(world.store)
    with told.step("start"):
        run_id = world.start({"day": "monday", "list": list(range(130))}, dag="parent")
    for _ in range(6):
        with told.step("a minute later"):
            world.forward("1m")
    with told.step("redrive"):
        world.send(redrive_message(run_id, "Many"))
        world.forward("5m")
    told.check()


def test_pruning():
    story = Story("prune", chain("A"))
    for number in range(3):
        story.start(f"m{number}")
        story.end("A")
        story.world.clock.forward(86400)
    story.start("m9")
    story.tick()
    for days in (1, 40, 1, 10):
        story.world.clock.forward(days * 86400)
        with story.told.step(f"prune, {days} d later"):
            now = story.world.clock.now()
            pruner = Pruner(story.world.store, now, 30 * 86400.0, lambda run: True, is_all=True)
            story.told.say(repr(pruner.prune()))
    story.start("m0")
    story.tick(timedelta(days=1).total_seconds())
    story.close()
