"""Beyond the limits of starts, runs, commands and settings."""

import json
import os
from functools import cache
from unittest.mock import patch

import pytest

from orchestrator import DAGExecutor
from orchestrator.model.commands import Failure
from orchestrator.model.errors import EventError, InputRejected, OrchestratorError
from orchestrator.model.messages import callback_message, start_message
from orchestrator.model.policy import Policy
from orchestrator.model.pubsub import decode
from orchestrator.testing import OutOfTime, SimulationError, WaitsForEver, never_ends, really, simulate
from tests.support.limits import ELSEWHERE, OTHERS, Bench, Row, beyond, ending
from tests.support.limits_of_definitions import calling, nested, passing
from tests.support.world import World, chain, dag, parallel, task


def left(bench: Bench, definition: dict) -> str:
    """A run in a directory that nobody runs any more; return its id."""
    with DAGExecutor(definition, f"file://{bench.root / '.orchestrator'}") as executor:
        return executor.start()


@cache
def echo() -> dict:
    return passing("${run.input.x}")


def sent(**start: object) -> str:
    """What becomes of a start message that is wrong, in front of the real engine."""
    message = {"resource": {"type": "start"}, "input": {"x": 1}, **start}
    with DAGExecutor(echo(), "memory://") as executor:
        try:
            executor.execute(data=message)
        except OrchestratorError as exc:
            return str(exc)
    return ""


# ---- docs/language/starting.md ---------------------------------------------------------------------------


@beyond("docs/language/starting.md", "`run_id`")
def _(bench: Bench, row: Row) -> str:
    assert sent(run_id="a" * row.most) == ""
    said = sent(run_id="a" * (row.most + 1))
    return said + bench.command("run", bench.write(echo()), "--run-id", "a" * (row.most + 1), ends=2)


@beyond("docs/language/starting.md", "`dag`")
def _(bench: Bench, row: Row) -> str:
    assert "there is no dag" in sent(dag="a" * row.most)
    return sent(dag="a" * (row.most + 1))


@beyond("docs/language/starting.md", "`input`")
def _(bench: Bench, row: Row) -> str:
    assert sent(input={"x": nested(row.most - 1)}) == ""
    (bench.root / "deep.json").write_text(json.dumps({"x": nested(row.most)}))
    said = bench.command("run", bench.write(echo()), "--input", "deep.json", ends=2)
    assert not row.lacks(said)
    return sent(input={"x": nested(row.most)})


@beyond("docs/language/starting.md", "`scheduled_for`: the years")
def _(bench: Bench, row: Row) -> str:
    first, last = row.numbers
    assert sent(scheduled_for=f"{first}-01-01T00:00:00Z") == sent(scheduled_for=f"{last}-12-31T23:59:59Z") == ""
    assert f"is '{first - 1}-12-31T23:59:59Z'" in sent(scheduled_for=f"{first - 1}-12-31T23:59:59Z")
    return sent(scheduled_for=f"{last + 1}-01-01T00:00:00Z")


@beyond("docs/language/starting.md", "`scheduled_for`: whole seconds")
def _(bench: Bench, row: Row) -> str:
    return sent(scheduled_for="2026-01-01T00:00:00.5Z")


@beyond("docs/language/starting.md", "a message of 10,000,000 bytes")
def _(bench: Bench, row: Row) -> str:
    from base64 import b64encode

    def pushed(size: int) -> dict:
        empty = len(json.dumps(start_message(input={"x": ""})))
        content = json.dumps(start_message(input={"x": "x" * (size - empty)})).encode()
        assert len(content) == size
        return {"message": {"data": b64encode(content).decode(), "messageId": "1"}}

    decode(pushed(row.most))
    with pytest.raises(EventError) as refused:
        decode(pushed(row.most + 1))
    return str(refused.value)


def every_minute() -> dict:
    return {**chain("A"), "schedule": "* * * * *"}


@beyond("docs/language/starting.md", "`--next`")
def _(bench: Bench, row: Row) -> str:
    folder = bench.write(every_minute())
    bench.command("schedule", folder, "--next", row.most, ends=0)
    return bench.command("schedule", folder, "--next", str(row.most + 1), ends=2)


def backfill(bench: Bench, *options: str, ends: int) -> str:
    return bench.command("backfill", bench.write(every_minute()), "--dry-run", *options, ends=ends)


@beyond("docs/language/starting.md", "10,000 times")
def _(bench: Bench, row: Row) -> str:
    days, minutes = divmod(row.most, 24 * 60)
    end = f"2026-01-{days + 1:02}T{minutes // 60:02}:{minutes % 60:02}"
    backfill(bench, "--from", "2026-01-01", "--to", f"{end}:00Z", ends=0)
    return backfill(bench, "--from", "2026-01-01", "--to", f"{end}:01Z", ends=2)


@beyond("docs/language/starting.md", "`--every`: whole seconds")
def _(bench: Bench, row: Row) -> str:
    return backfill(bench, "--from", "2026-01-01", "--to", "2026-01-02", "--every", "1.5s", ends=2)


@beyond("docs/language/starting.md", "`--every`: 36,500 days")
def _(bench: Bench, row: Row) -> str:
    options = ("--from", "2026-01-01", "--to", "2026-01-02", "--every")
    backfill(bench, *options, f"{row.most}d", ends=0)
    return backfill(bench, *options, f"{row.most + 1}d", ends=2)


@beyond("docs/language/starting.md", "`--from`, `--to`")
def _(bench: Bench, row: Row) -> str:
    first, last = row.numbers
    beyond_it = backfill(bench, "--from", "2026-01-01", "--to", f"{last + 1}-01-01", ends=2)
    assert f'--to "{last + 1}-01-01" is out of range' in beyond_it
    return backfill(bench, "--from", f"{first - 1}-12-31", "--to", "2026-01-01", ends=2)


@beyond("docs/language/starting.md", "the name of an object")
def _(bench: Bench, row: Row) -> str:
    event = {"resource": {"type": "object"}, "bucket": "b", "name": "ä" * (row.most // 2 + 1)}
    with DAGExecutor(echo(), "memory://") as executor, pytest.raises(EventError) as refused:
        executor.execute(data=event)
    return str(refused.value)


ELSEWHERE |= {
    ("docs/language/starting.md", "1,000 missed times"): (
        "tests/scenarios/test_missed_times.py::test_of_very_many_missed_times_the_last_thousand_get_their_runs"
    ),
    ("docs/language/starting.md", "100 late starts"): (
        "tests/scenarios/test_missed_times.py::test_many_missed_times_are_started_a_hundred_a_look"
    ),
    ("docs/language/starting.md", "the bucket of runs"): (
        "tests/terraform/test_definitions.py::test_what_is_the_orchestrators_own_starts_nothing"
    ),
    ("docs/language/starting.md", "a message of 10 MB"): (
        "tests/scenarios/test_triggers.py::test_data_that_is_nested_too_deeply_is_given_up"
    ),
    ("docs/language/starting.md", "a run that was [pruned]"): (
        "tests/scenarios/test_prune.py::test_a_scheduled_start_that_is_sent_again_does_not_start_a_pruned_run_anew"
    ),
}
OTHERS |= {
    ("docs/language/starting.md", "ten notifications"): "Cloud Storage's own",
    ("docs/language/starting.md", "a bucket of another project"): "IAM's own",
    ("docs/language/starting.md", "a message of attributes alone"): "functions-framework's own",
}

# ---- docs/language/queues.md -----------------------------------------------------------------------------


@beyond("docs/language/queues.md", "slots of a pool")
def _(bench: Bench, row: Row) -> str:
    with patch.dict(os.environ, {"POOLS": f"api={row.most}"}):
        bench.command("run", bench.write(passing(1)), ends=0)
    with patch.dict(os.environ, {"POOLS": f"api={row.most + 1}"}):
        return bench.command("run", bench.write(passing(1)), ends=2)


@beyond("docs/language/queues.md", "`priority` of a start")
def _(bench: Bench, row: Row) -> str:
    assert sent(priority=row.most) == sent(priority=row.numbers[0]) == ""
    assert sent(priority=row.numbers[0] - 1)
    return sent(priority=row.most + 1) + bench.command(
        "run", bench.write(passing(1)), "--priority", str(row.most + 1), ends=2
    )


ELSEWHERE |= {
    ("docs/language/queues.md", "5,000 that wait"): (
        "tests/scenarios/test_language_queues.py::"
        "test_those_who_wait_behind_the_last_place_are_let_in_as_those_before_them_are"
    ),
    ("docs/language/queues.md", "200 holders"): (
        "tests/unit/test_slot_keeper.py::test_a_tick_finds_out_about_so_many_holders_from_any_place_on"
    ),
}

# ---- docs/language/redrive.md ----------------------------------------------------------------------------


@beyond("docs/language/redrive.md", "the run has ended")
def _(bench: Bench, row: Row) -> str:
    waits = dag(A={"type": "Wait", "for": "1d"})
    run_id = left(bench, waits)
    return bench.command("redrive", run_id, bench.write(waits), ends=2)


@beyond("docs/language/redrive.md", "it did not complete")
def _(bench: Bench, row: Row) -> str:
    return bench.command("redrive", ending(bench, passing(1), 0), ends=2)


@beyond("docs/language/redrive.md", "the step is one that the run came by")
def _(bench: Bench, row: Row) -> str:
    ways = dag(
        A={"type": "Pass", "result": 1, "next": "C"},
        C={"type": "Condition", "choices": [{"when": "${run.run_id == ''}", "next": "Report"}], "default": "Other"},
        Report={"type": "Pass", "result": 1},
        Other={"type": "Pass", "result": 1},
    )
    return bench.command("redrive", ending(bench, ways, 0), "--from", "Report", ends=2)


@beyond("docs/language/redrive.md", "the run is not being pruned")
def _(bench: Bench, row: Row) -> str:
    run_id = ending(bench, calling(target_type="Function", function="builtins:divmod"), 1)
    file = bench.root / ".orchestrator" / "runs" / f"{run_id}.json"
    text = file.read_text()  # as prune leaves it that is killed
    file.write_text(text.replace('"status":"Failed"', '"status":"Failed","pruned_at":"2026-01-01T00:00:00Z"', 1))
    return bench.command("redrive", run_id, bench.root / "d", ends=2)


# ---- docs/language/runs.md -------------------------------------------------------------------------------


def judged(schema: dict, value: dict) -> str:
    with (
        DAGExecutor({**chain("A"), "input_schema": schema}, "memory://") as executor,
        pytest.raises(InputRejected) as refused,
    ):
        executor.start(input=value)
    return str(refused.value)


@beyond("docs/language/runs.md", "100 problems of one input")
def _(bench: Bench, row: Row) -> str:
    wrong = {"additionalProperties": {"type": "string"}}
    assert "more problems" not in judged(wrong, {f"x{number}": 1 for number in range(row.most)})
    return judged(wrong, {f"x{number}": 1 for number in range(row.most + 1)})


@beyond("docs/language/runs.md", "an input nested deeper")
def _(bench: Bench, row: Row) -> str:
    return judged({"$defs": {"a": {"$ref": "#/$defs/a"}}, "properties": {"x": {"$ref": "#/$defs/a"}}}, {"x": 1})


@beyond("docs/language/runs.md", "`--older-than` of an hour")
def _(bench: Bench, row: Row) -> str:
    ending(bench, passing(1), 0)
    bench.command("prune", "--older-than", "1h", ends=0)
    return bench.command("prune", "--older-than", "59.9m", ends=2)


@beyond("docs/language/runs.md", "`--older-than` of 36,500 days")
def _(bench: Bench, row: Row) -> str:
    ending(bench, passing(1), 0)
    bench.command("prune", "--older-than", f"{row.most}d", ends=0)
    return bench.command("prune", "--older-than", f"{row.most + 1}d", ends=2)


@beyond("docs/language/runs.md", "a run that has ended")
def _(bench: Bench, row: Row) -> str:
    return bench.command("pause", ending(bench, passing(1), 0), ends=2)


@beyond("docs/language/runs.md", "a run that is being cancelled")
def _(bench: Bench, row: Row) -> str:
    definition = {**dag(A={"type": "Wait", "for": "1d"}), "finally": dag(F={"type": "Wait", "for": "1d"})}
    run_id = left(bench, definition)
    bench.command("cancel", run_id, ends=0)
    return bench.command("pause", run_id, ends=2)


@beyond("docs/language/runs.md", "a host that is not in `NOTIFY_HOSTS`")
def _(bench: Bench, row: Row) -> str:
    told = {**passing(1), "notify": [{"on": ["completed"], "url": "https://elsewhere.example.com/"}]}
    run_id = ending(bench, told, 0)
    (lost,) = bench.place.document(run_id)["$run"]["lost_notifications"]
    return f"$run.lost_notifications NOTIFY_HOSTS: {lost['error']}"


ELSEWHERE |= {
    ("docs/language/runs.md", "a run's error of 2,000"): (
        "tests/scenarios/test_notifications.py::test_a_failed_run_tells_why"
    ),
    ("docs/language/runs.md", "ten tries"): (
        "tests/scenarios/test_notifications.py::"
        "test_what_is_not_accepted_is_tried_again_twice_as_late_each_time_and_given_up_at_last"
    ),
    ("docs/language/runs.md", "HTTP 410"): "tests/scenarios/test_notifications.py::test_what_a_receiver_answers",
    ("docs/language/runs.md", "a run document that cannot be read"): (
        "tests/scenarios/test_prune.py::test_where_a_run_cannot_be_read_every_definition_stays"
    ),
    ("docs/language/runs.md", "records under"): (
        "tests/scenarios/test_prune.py::test_an_old_run_goes_with_all_that_belongs_to_it"
    ),
}

# ---- docs/language/children.md, data.md, map.md ------------------------------------------------------------


@beyond("docs/language/children.md", "characters of a `--reason`")
def _(bench: Bench, row: Row) -> str:
    run_id = ending(bench, passing(1), 0)
    said = bench.command("cancel", run_id, "--reason", "x" * (row.most + 1), ends=2)
    assert f"cancel: --reason: has {row.most + 1} characters; allowed are {row.most}" in said
    return bench.command("approve", run_id, "A", "--reject", "--reason", "x" * (row.most + 1), ends=2)


ELSEWHERE |= {
    ("docs/language/children.md", "how long an answer is waited for"): (
        "tests/scenarios/test_callbacks.py::test_nobody_answers_for_ever"
    ),
    ("docs/language/map.md", "more failures than are tolerated"): (
        "tests/scenarios/test_map.py::test_failures_of_parts_that_ran_at_once_are_too_many_together"
    ),
    ("docs/language/map.md", "a stored result"): (
        "tests/scenarios/test_map.py::test_a_result_of_an_item_that_somebody_deleted_fails_the_map"
    ),
}
OTHERS |= {("docs/language/map.md", "the results of all items"): "the machine's"}


@beyond("docs/language/children.md", "characters of an answer's `error_type`")
def _(bench: Bench, row: Row) -> str:
    waits = dag(A={"type": "Task", "target_type": "Callback"})
    with DAGExecutor(waits, "memory://") as executor:
        run_id = executor.start()

        def answer(length: int) -> object:
            return executor.execute(data=callback_message(run_id, "A", 1, "forged", rejected=Failure("E" * length, "")))

        answer(row.most)
        with pytest.raises(EventError) as refused:
            answer(row.most + 1)
    return str(refused.value)


@beyond("docs/language/data.md", "500,000,000 values")
def _(bench: Bench, row: Row) -> str:
    assert Policy().max_decision_work == row.most
    one = "${run.input.list.exists(x, x < 0)}"
    both = parallel(*(dag(**{f"A{number}": task(parameters={"n": one})}) for number in range(2)))
    world = World(dag(P=both), max_decision_work=100_000)
    run = world.state(world.start(input={"list": list(range(1000))}))
    assert [run.nodes[name].status for name in ("A0", "A1")] == ["Running", "Failed"]
    return run.nodes["A1"].error.message.replace("100,000", f"{row.most:,}")


# ---- docs/language/testing.md ----------------------------------------------------------------------------


def never(**options: object) -> str:
    with pytest.raises((OutOfTime, WaitsForEver, SimulationError)) as caught:
        simulate(**options)
    return f"{type(caught.value).__name__}: {caught.value}"


@beyond("docs/language/testing.md", "400 days of virtual time")
def _(bench: Bench, row: Row) -> str:
    twice = dag(A={"type": "Wait", "for": "365d", "next": "B"}, B={"type": "Wait", "for": "365d"})
    short = dag(A={"type": "Wait", "for": f"{row.most - 365}d", "next": "B"}, B={"type": "Wait", "for": "364d"})
    assert simulate(short).status == "Completed"
    return never(definition=twice)


@beyond("docs/language/testing.md", "nothing due and nothing under way")
def _(bench: Bench, row: Row) -> str:
    return never(
        definition=dag(A={"type": "Task", "target_type": "Dataflow", "target_name": "x"}), targets={"A": never_ends()}
    )


@beyond("docs/language/testing.md", "200,000 events and Ticks")
def _(bench: Bench, row: Row) -> str:
    from orchestrator.testing import simulation

    assert row.most == simulation.MAX_STEPS
    with patch.object(simulation, "MAX_STEPS", 50):
        inner = dag(Do=task())
        said = never(definition=dag(M={"type": "Map", "items": [1] * 60, "iterator": inner}))
    return said.replace("50 events", f"{row.most:,} events")


@beyond("docs/language/testing.md", "`really()` for a step")
def _(bench: Bench, row: Row) -> str:
    definition = dag(A={"type": "Task", "target_type": "Dataflow", "target_name": "x"})
    return never(definition=definition, targets={"A": really()})


OTHERS |= {("docs/language/testing.md", "a Cloud Function is called in this process"): "what pip has installed"}
