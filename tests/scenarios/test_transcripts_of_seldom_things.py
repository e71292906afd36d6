"""What hardly ever happens, to the letter: see `tests/support/transcript.py`."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from orchestrator.engine.pausing import paused, resumed
from orchestrator.engine.wanted import wanted
from orchestrator.model.commands import Outcome
from orchestrator.model.dag import DAG
from orchestrator.model.enums import RunStatus
from orchestrator.model.errors import LaunchUncertain, NotSent, NotYet, StoreUnavailable
from orchestrator.model.facts import AttemptEnded, PauseEnded, RedriveRequested, TimeCame
from orchestrator.model.messages import cancel_message, pause_message, redrive_message, resume_message
from tests.support.families import LONG, family
from tests.support.story import FAILED, Confirming, Sleeping, Story, call, job
from tests.support.transcript import Transcript
from tests.support.world import T0, World, chain, completion, dag, parallel, task


def test_launches_that_are_taken_back_or_cannot_be():
    story = Story("withdrawals", dag(P=parallel(dag(A=task()), dag(LateB=task()), dag(C=task()), dag(J=job()))))
    story.start()
    story.plain.failing = [LaunchUncertain("not now")]
    story.able.failing = [LaunchUncertain("not now"), ValueError("odd")]
    story.send("cancel", cancel_message(story.run()))
    story.plain.failing = [ValueError("odd")]
    story.tick(61)
    story.tick(61)
    for name in ("A", "C"):
        story.end(name, FAILED if name == "C" else None)
    story.tick(61)
    story.close()


def test_events_that_their_target_is_asked_about():
    target = Confirming()
    world = World(dag(P=parallel(dag(A=task()), dag(B=task()), dag(C=task()))), target=target)
    told = Transcript("confirmed")
    told.watch_store(world.store)
    told.watch("published", world.broker.published)
    with told.step("start"):
        world.start()
    for name, answers in (
        ("A", [LaunchUncertain("503"), NotYet("at work"), Outcome.completed("as it knows")]),
        ("B", [Outcome.failed("Own.Error", "as it knows")]),
        ("C", [None, Outcome.completed(1)]),
    ):
        launch = target.of(name)[-1]
        target.answers = answers
        for nonce in (None, "f" * 32, None, None):
            with told.step(f"end of {name}, nonce {nonce}"):
                event = completion(launch, Outcome.completed("as told"), nonce=nonce)
                told.say(repr(world.executor.execute(event, message_id="e", publish_time=world.clock.now())))
    told.check()


def test_notifications_that_nobody_takes():
    alerts = {"on": ["started", "failed"], "topic": "projects/my-project/topics/alerts"}
    hook = {"on": ["failed"], "url": "https://hooks.example.com/runs"}
    story = Story("notifications", {**chain("A"), "notify": [alerts, hook]}, max_notification_tries=3)
    story.notifier.failing = [NotSent("503", retry=True)] * 2
    story.start()
    story.tick(61)
    story.tick(61)
    story.notifier.failing = [NotSent("503", retry=True)] * 20
    story.end("A", FAILED)
    for seconds in (61, 61, 300, 900, 4000, 4000):
        story.tick(seconds)
    story.close()


def test_what_comes_of_launches_and_cannot_be_saved():
    story = Story("unsaved", dag(P=parallel(dag(A=task()), dag(S=call()), next="Z"), Z=task()))
    put, failing = story.world.store.put, []

    def failing_put(key, data, *, expect):
        if key.startswith("runs/") and failing:
            failing.pop()
            raise StoreUnavailable("503")
        return put(key, data, expect=expect)

    story.world.store.put = failing_put
    story.slow.after_launch = lambda launch: failing.extend(range(5))
    story.start()
    story.slow.after_launch = lambda launch: None
    story.tick(61)
    story.tick(61)
    story.end("A")
    story.close()


def test_queues_that_are_written_once_a_second():
    story = Story(
        "paced slots", {**dag(A=task(pool="api")), "max_active_runs": 1}, pools={"api": 1}, save_interval_s=1.0
    )
    sleeping = Sleeping(story)
    story.world.instances = [story.world.instance(sleep=sleeping) for _ in range(2)]
    story.told.watch("slept", sleeping.slept)
    for number in range(4):
        story.start(f"m{number}")
    story.go_on()
    story.tick(30)
    story.go_on()
    story.tick(30, on=1)
    story.say_runs()
    story.close()


def test_a_child_whose_parameters_are_too_deep_and_one_that_starts_itself():
    story = family("deep")
    deep: object = 1
    for _ in range(110):
        deep = [deep]
    story.start("m1", dag="parent", input={"day": deep})
    story.go_on(most=3)
    story.start("m2", dag="self")
    story.go_on(most=40)
    story.say_runs()
    story.close()


def test_parts_of_a_map_that_mends_what_failed():
    long = {
        **LONG,
        "iterator": dag(I=task(parameters={"e": "${error.type}", "i": "${item}", "w": "${steps.W.result.n}"})),
    }
    story = Story("mending parts", dag(
        W={"type": "Pass", "result": {"n": 5}, "next": "A"},
        A=task(on_error=[{"next": "M"}]), M={**long, "next": "Z"}, Z={"type": "Pass", "result": "${steps.M.result}"}),
        inline_items=1, part_items=2)  # fmt: skip
    story.start(input={"list": [1, 2, 3]})
    story.go_on("A", "I[1]")
    story.send("redrive", redrive_message(story.parent), after_s=10)
    story.go_on()
    story.say_runs()
    story.close()


def test_a_list_that_fails_while_a_few_items_run_at_once():
    story = Story("few at once", dag(M={"type": "Map", "items": list(range(6)), "iterator": dag(I=task(), ),
                                        "max_concurrency": 2, "tolerated_failures": 1}))  # fmt: skip
    story.start()
    story.go_on("I[1]", "I[2]")
    for failing in (("I[2]", "I[1]"), ("I[5]",), ()):
        story.send("redrive", redrive_message(story.run()), after_s=10)
        story.send("pause", pause_message(story.run()), after_s=1)
        story.tick(5)
        story.send("resume", resume_message(story.run()), after_s=1)
        story.go_on(*failing)
    story.say_runs()
    story.close()


@pytest.mark.parametrize("steps", ["chain", "depends_on"])
def test_instances_of_a_graph_that_is_cancelled_between(steps):
    inner = chain("A", "B") if steps == "chain" else {"steps": {"A": task(), "B": task(depends_on=["A"])}}
    story = Story(
        f"cancelled between {steps}", {**inner, "finally": {"steps": {"F": task(), "G": task(depends_on=["F"])}}}
    )
    story.start()
    story.send("pause", pause_message(story.run()))
    story.end("A")
    story.send("cancel", cancel_message(story.run()), after_s=1)
    story.go_on("F")
    story.tick(5)
    story.send("redrive", redrive_message(story.run()), after_s=1)
    story.go_on("G")
    story.send("redrive", redrive_message(story.run()), after_s=1)
    story.go_on()
    story.say_runs()
    story.close()


# -- two tables ---------------------------------------------------------------------------------------------


LATER = T0 + timedelta(seconds=1)


@pytest.mark.parametrize(
    ("steered_s", "status", "at_s", "pauses", "resumes"),
    [
        (None, "Running", 0, True, True),
        (5, "Running", 4, False, False),
        (5, "Running", 5, True, False),
        (5, "Running", 6, True, True),
        (5, "Paused", 4, False, False),
        (5, "Paused", 5, False, True),
        (5, "Paused", 6, True, True),
        (5, "Queued", 5, True, False),
        (5, "Completed", 5, False, False),
        (5, "Completed", 6, False, True),
    ],
)
def test_which_request_to_pause_or_resume_is_news(steered_s, status, at_s, pauses, resumes):
    world = World(chain("A"))
    steered_at = None if steered_s is None else T0 + timedelta(seconds=steered_s)
    run = replace(world.state(world.start()).run, steered_at=steered_at, status=RunStatus(status))
    at = T0 + timedelta(seconds=at_s)
    assert (paused(run, at) is not run, resumed(run, at) is not run) == (pauses, resumes)
    if pauses:
        assert (paused(run, at).status, paused(run, at).steered_at) == ("Paused", at)
    if resumes:
        after = "Completed" if status == "Completed" else "Running"
        assert (resumed(run, at).status, resumed(run, at).is_resuming) == (after, status == "Paused")


ASKING = {
    **dag(
        A=task("P"),
        P=parallel(dag(B=task("C"), C={"type": "Pass", "result": "${steps.A.result}"}),
                   dag(W={"type": "Wait", "for": "1m", "next": "V"}, V={"type": "Pass", "result": "${steps.W.result}"}),
                   dag(U={"type": "Wait", "until": "${steps.A.result.t}"}), next="M"),
        M={"type": "Map", "items": "${steps.A.result.list}", "next": "D",
           "iterator": dag(I=task("J", parameters={"i": "${item}"}),
                           J={"type": "Pass", "result": ["${steps.I.result}", "${steps.B.result}"]})},
        D={"type": "Condition", "choices": [{"when": "${steps.M.result == 1}", "next": "E"}], "default": "F"},
        E=task(parameters={"e": "${steps.C.result}"}, on_error=[{"next": "F"}]),
        F={"type": "Pass", "result": "${steps.E.result}"}),
    "finally": chain("Tidy"), "result": {"r": "${steps.F.result}"},
}  # fmt: skip
ASKING["finally"]["steps"]["Tidy"]["parameters"] = {"t": "${steps.D.result}"}
DEPENDING = {"steps": {
    "A": task(), "B": task(depends_on=["A"], parameters={"a": "${steps.A.result}"}),
    "C": task(depends_on=["A"]), "D": task(depends_on=["B", "C"], parameters={"b": "${steps.B.result}"}),
    "P": {**parallel(dag(Q={"type": "Pass", "result": "${steps.C.result}"})), "depends_on": ["C"]}},
    "result": "${steps.D.result}"}  # fmt: skip


def test_which_results_a_decision_may_ask_for():
    told = Transcript("wanted")
    for words, definition in (("ways", ASKING), ("dependencies", DEPENDING)):
        world, graph = World(definition), DAG(definition)
        run_id = world.start()
        done: set[str] = set()
        for _ in range(12):
            state = world.state(run_id)
            told.say(f"\n=== {words}: " + " ".join(f"{name}:{node.status[0]}" for name, node in state.nodes.items()))
            running = [name for name, node in state.nodes.items() if node.status == "Running"]
            for name in (*running, "Nope"):
                facts = [AttemptEnded(name, 1, Outcome.completed(1))]
                told.say(f"{name} ends: {wanted(graph, state, facts)}")
                told.say(f"{name} ends, and a pause: {wanted(graph, state, [*facts, PauseEnded()])}")
            ends = [AttemptEnded(name, 1, FAILED) for name in running]
            told.say(f"all end: {wanted(graph, state, ends)}")
            told.say(f"redriven: {wanted(graph, state, [RedriveRequested(LATER, None, 'A')])}")
            for name in running:
                if (at := state.nodes[name].due.get("wait")) is not None:
                    told.say(f"time of {name}: {wanted(graph, state, [TimeCame(name, 1, 'wait', at, False)])}")
            waiting = [launch for launch in world.target.calls if launch.launch_id not in done]
            if waiting:
                done.add(waiting[0].launch_id)
                result = {"list": [1, 2], "t": "2026-01-01T12:00:00Z"}
                world.executor.execute(completion(waiting[0], Outcome.completed(result)), message_id="e")
            else:
                world.clock.forward(60)
                world.executor.tick()
    told.check()
