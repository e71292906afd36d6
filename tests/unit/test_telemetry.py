"""Traces and metrics: a trace a run, a span an attempt, whoever saved what; and nothing unless it is asked for."""

import json
import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from threading import Barrier

import pytest
from msgspec.structs import replace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode

from orchestrator.engine.saved import Saved
from orchestrator.model.commands import Launch, Outcome
from orchestrator.model.errors import LaunchRefused, LaunchUncertain, StoreUnavailable, VersionConflict
from orchestrator.model.ids import span_of
from orchestrator.model.messages import cancel_message, redrive_message
from orchestrator.model.run_state import ParentRun, RunState
from orchestrator.runtime import telemetry
from orchestrator.runtime.otel import DerivedIds, configured, is_wanted
from orchestrator.runtime.telemetry import Telemetry, span_id_of, trace_id_of
from orchestrator.stores.memory import MemoryStore
from tests.support.collector import Collector
from tests.support.command_line import Place
from tests.support.world import T0, NotedTarget, World, chain, completion, dag, parallel, task

FORK = dag(Init=task("Fork"), Fork=parallel(chain("Left"), chain("Right"), next="Join"), Join=task())


class Seen:
    """Telemetry whose spans and figures stay in this process."""

    def __init__(self, world: World, sampler=None) -> None:
        self.spans_out, self.reader, ids = InMemorySpanExporter(), InMemoryMetricReader(), DerivedIds()
        tracers = TracerProvider(id_generator=ids.generator(), sampler=sampler)
        tracers.add_span_processor(SimpleSpanProcessor(self.spans_out))
        meters = MeterProvider([self.reader])
        self.telemetry = Telemetry(tracers, ids, meters, world.clock.now, world.policy.lease)

    @property
    def spans(self):
        return self.spans_out.get_finished_spans()

    def named(self, name):
        return [span for span in self.spans if span.name == name]

    def figures(self, name) -> dict:
        """Attributes -> sum, or (count, sum) of a histogram."""
        found = {}
        data = self.reader.get_metrics_data()
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points if metric.name == name else ():
                        value = point.value if hasattr(point, "value") else (point.count, point.sum)
                        found[tuple(sorted(point.attributes.items()))] = value
        return found


def watched(definition, **options):
    """A world of which each instance is watched by the same telemetry."""
    sampler = options.pop("sampler", None)
    count = options.pop("instances", 1)
    world = World(definition, instances=0, **options)
    seen = Seen(world, sampler)
    world.instances = [world.instance(observer=seen.telemetry, on_saved=seen.telemetry.saved) for _ in range(count)]
    return world, seen


def test_a_run_is_one_trace_with_a_span_for_each_attempt_whichever_instance_saved_it():
    world, seen = watched(FORK, instances=3)
    run_id = world.start()
    for number, name in enumerate(("Init", "Left", "Right", "Join")):
        world.clock.forward(10)
        world.end(name, times=2, on=number % 3)
    assert sorted(span.name for span in seen.spans) == ["Init", "Join", "Left", "Right", "dag"]
    assert {span.context.trace_id for span in seen.spans} == {trace_id_of(run_id)}
    (run,) = seen.named("dag")
    assert (run.parent, run.kind, run.context.span_id) == (None, SpanKind.INTERNAL, span_id_of(run_id))
    for span in seen.spans:
        if span is not run:
            assert span.parent.span_id == run.context.span_id
            assert span.context.span_id == span_id_of(f"{run_id}/{span.name}/1")


def test_a_span_begins_and_ends_when_its_attempt_did_and_says_what_it_was():
    world, seen = watched(chain("A"))
    run_id = world.start(input={})
    world.clock.forward(42)
    world.end("A")
    (span,) = seen.named("A")
    assert (span.start_time, span.end_time) == (int(T0.timestamp()) * 10**9, (int(T0.timestamp()) + 42) * 10**9)
    assert dict(span.attributes) == {
        "orchestrator.run_id": run_id,
        "orchestrator.dag": "dag",
        "orchestrator.node": "A",
        "orchestrator.attempt": 1,
        "orchestrator.target_type": "Function",
        "orchestrator.target_name": "f",
        "orchestrator.outcome": "Completed",
        "orchestrator.execution_id": f"x-{world.target.calls[0].key}",
    }
    assert span.status.status_code is StatusCode.UNSET
    (run,) = seen.named("dag")
    assert run.attributes["orchestrator.status"] == "Completed"
    assert (run.start_time, run.end_time) == (span.start_time, span.end_time)


def test_a_failed_attempt_is_an_error_with_its_type_and_so_is_its_run():
    world, seen = watched(chain("A", "B"))
    world.start()
    world.end("A", Outcome.failed("Task.Failed", "no such day"))
    assert [span.name for span in seen.spans] == ["A", "dag"], "what was never begun has no span"
    for span in seen.spans:
        assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "Task.Failed: no such day")
        assert span.attributes["error.type"] == "Task.Failed"


def test_what_a_redrive_adds_is_a_span_of_its_own_in_the_trace_of_the_run():
    world, seen = watched(chain("A", "B"))
    run_id = world.start()
    world.end("A")
    world.end("B", Outcome.failed("Task.Failed", "x"))
    world.clock.forward(3600)
    world.executor.execute(redrive_message(run_id), publish_time=world.clock.now())
    world.clock.forward(5)
    world.end("B")
    assert [span.name for span in seen.spans] == ["A", "B", "dag", "B", "dag"]
    assert {span.context.trace_id for span in seen.spans} == {trace_id_of(run_id)}
    assert len({span.context.span_id for span in seen.spans}) == 5
    first, again = seen.named("dag")
    assert (again.parent.span_id, again.attributes["orchestrator.redrive"]) == (first.context.span_id, 1)
    assert again.end_time - again.start_time == 5 * 10**9
    assert seen.named("B")[1].parent.span_id == again.context.span_id


def test_the_span_of_a_child_run_names_the_attempt_that_it_is_of():
    world, seen = watched(chain("A"))
    run_id = world.start()
    world.end("A")
    ended = world.state(run_id)
    child = replace(ended.run, parent=ParentRun("mine", "Load", 2))
    seen.telemetry.saved(Saved(None, RunState(child, ended.nodes)))
    assert [span.attributes.get("orchestrator.parent") for span in seen.named("dag")] == [None, "mine/Load/2"]


def test_a_cancelled_run_is_no_error():
    world, seen = watched(chain("A"), target=NotedTarget(has_outcome=True, can_cancel=True))
    run_id = world.start()
    world.executor.execute(cancel_message(run_id, "why"))
    assert [span.attributes.get("orchestrator.outcome") for span in seen.named("A")] == ["Cancelled"]
    assert {span.status.status_code for span in seen.spans} == {StatusCode.UNSET}


def test_an_attempt_that_was_lost_is_a_span_of_its_own_and_the_next_one_begins_after_it():
    target = NotedTarget(has_outcome=True)
    world, seen = watched(chain("A"), target=target)
    run_id = world.start()
    world.clock.forward(10)
    target.outcomes[f"x-{target.calls[0].key}"] = Outcome.lost("its host is gone")
    world.end("A")
    world.clock.forward(5)
    target.outcomes[f"x-{target.calls[1].key}"] = Outcome.completed()
    world.end("A")
    first, second = seen.named("A")
    assert [span.attributes["orchestrator.outcome"] for span in (first, second)] == ["Lost", "Completed"]
    assert [span.attributes["orchestrator.attempt"] for span in (first, second)] == [1, 2]
    assert first.context.span_id != second.context.span_id == span_id_of(f"{run_id}/A/2")
    assert first.end_time == second.start_time
    assert second.end_time - second.start_time == 5 * 10**9


def test_an_attempt_that_begins_and_ends_in_one_save_has_a_span():
    world, seen = watched(dag(A=task(parameters={"x": "${run.input.missing}"})))
    world.start()
    (span,) = seen.named("A")
    assert span.attributes["error.type"] == "Task.BadParameters"
    assert span.start_time == span.end_time


def test_a_call_of_a_function_is_linked_to_the_trace_that_it_carried():
    step = {"type": "Task", "target_type": "CloudFunction", "target_name": "f"}
    world, seen = watched({"start": "A", "steps": {"A": step}})
    world.start()
    launch = world.target.calls[0]
    world.end("A")
    (span,) = seen.named("A")
    (link,) = span.links
    assert f"{link.context.trace_id:032x}" == launch.trace_id
    assert f"{link.context.span_id:016x}" == span_of(launch.key)
    assert span.kind is SpanKind.CLIENT


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_of_a_run_either_all_spans_are_taken_or_none_whoever_makes_them(share):
    world, seen = watched(FORK, instances=3, sampler=ParentBased(TraceIdRatioBased(share)))
    for number in range(12):
        run_id = world.start(f"m{number}")
        for on, name in enumerate(("Init", "Left", "Right", "Join")):
            launch = next(x for x in world.target.of(name) if x.run_id == run_id)
            world.instances[on % 3].execute(completion(launch))
    counts = Counter(span.context.trace_id for span in seen.spans)
    assert set(counts.values()) <= {5}
    if share in (0.0, 1.0):
        assert len(counts) == 12 * share
    else:
        assert 0 < len(counts) < 12


class FaultyStore(MemoryStore):
    """Answers the next writes of a run with an error, before or after having written it."""

    def __init__(self):
        super().__init__()
        self.faults = []

    def put(self, key, data, *, expect):
        if not key.startswith("runs/") or not self.faults:
            return super().put(key, data, expect=expect)
        is_written, error = self.faults.pop(0)
        if is_written:
            super().put(key, data, expect=expect)
        raise error


@pytest.mark.parametrize("is_written", [True, False], ids=["after it was written", "before"])
@pytest.mark.parametrize("error", [StoreUnavailable("503"), VersionConflict("412")], ids=["503", "412"])
def test_a_save_that_is_answered_by_an_error_is_told_of_once(is_written, error):
    world, seen = watched(chain("A", "B"), store=FaultyStore())
    world.start()
    world.store.faults = [(is_written, error)]
    world.end("A")
    world.store.faults = [(is_written, error)]
    world.end("B")
    assert [span.name for span in seen.spans] == ["A", "B", "dag"]


def test_what_happens_is_counted():
    target = NotedTarget(has_outcome=False)
    world, seen = watched(chain("A", "B"), target=target)
    world.start("m1")
    world.clock.forward(3)
    world.end("A")
    world.end("B")
    refusals = iter([LaunchUncertain("503"), LaunchRefused("403")])

    def refuse(launch: Launch) -> None:
        error = next(refusals, None)
        if error is not None:
            raise error

    target.before_launch = refuse
    world.start("m2")
    world.start("m3")
    kind = (("target_type", "Function"),)
    assert seen.figures("orchestrator.runs") == {
        (("dag", "dag"), ("status", "Completed")): 1,
        (("dag", "dag"), ("status", "Failed")): 1,
    }
    done, failed = seen.figures("orchestrator.attempts").items()
    assert (dict(done[0])["outcome"], done[1]) == ("Completed", 2)
    assert (dict(failed[0])["error_type"], failed[1]) == ("Launch.Refused", 1)
    assert seen.figures("orchestrator.run.duration")[(("dag", "dag"), ("status", "Completed"))] == (1, 3.0)
    assert {dict(key)["result"]: count for key, (count, _) in seen.figures("orchestrator.launch.duration").items()} == {
        "launched": 2,
        "uncertain": 1,
        "refused": 1,
    }
    assert seen.figures("orchestrator.handover.duration")[kind] == (2, 0.0)
    assert seen.figures("orchestrator.saves") == {(("result", "written"),): 6}


def test_a_lost_race_is_counted_as_a_conflict():
    world, seen = watched(chain("A", "B"), instances=2)
    world.start()
    launch = world.target.calls[0]
    world.instances[1].execute(cancel_message(launch.run_id))  # the first instance's copy is stale now
    world.end("A")
    assert seen.figures("orchestrator.saves")[(("result", "conflict"),)] == 1


def test_the_time_between_a_decision_and_its_launch_is_measured():
    target = NotedTarget()
    world, seen = watched(chain("A"), target=target)
    target.before_launch = lambda launch: world.clock.forward(2)
    world.start()
    assert seen.figures("orchestrator.handover.duration") == {(("target_type", "Function"),): (1, 2.0)}
    launched = (("result", "launched"), ("target_type", "Function"))
    assert seen.figures("orchestrator.launch.duration") == {launched: (1, 2.0)}


def test_an_observer_that_raises_harms_no_run(caplog):
    class Broken:
        def __getattr__(self, name):
            raise RuntimeError("no telemetry today")

    world = World(chain("A", "B"), instances=0)
    world.instances = [world.instance(observer=Broken(), on_saved=lambda saved: Broken().saved(saved))]
    assert world.run_all(world.start()).run.status == "Completed"
    assert "an observer failed; the run goes on" in caplog.text


# -- when, and where to ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://collector:4318/v1/metrics"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "zipkin"}, True),
    ],
)
def test_it_is_off_unless_the_standard_variables_ask_for_it(environment, wanted):
    assert is_wanted(environment) is wanted


def test_an_exporter_that_there_is_not_is_named(caplog):
    assert configured({"OTEL_TRACES_EXPORTER": "zipkin", "OTEL_METRICS_EXPORTER": "none"}, lambda: T0) is None
    assert caplog.messages == [
        'OTEL_TRACES_EXPORTER: "zipkin" is no exporter that is known here; allowed are otlp, console, none'
    ]


class Meeting(SpanExporter):
    """Exporters of spans and of figures, each of which is done only when the other has begun."""

    def __init__(self):
        self.both, self.ended = Barrier(2), []

    def export(self, spans):
        self.both.wait(timeout=60)
        self.ended.append("spans")
        return SpanExportResult.SUCCESS

    def force_flush(self, timeout_millis=30_000):
        return True

    def figures(self):
        outer = self

        class Figures(MetricExporter):
            def export(self, metrics_data, timeout_millis=10_000, **more):
                outer.both.wait(timeout=60)
                outer.ended.append("figures")
                return MetricExportResult.SUCCESS

            def force_flush(self, timeout_millis=10_000):
                return True

            def shutdown(self, timeout_millis=30_000, **more):
                pass

        return Figures()


@pytest.fixture
def flushing(monkeypatch):
    """Telemetry with something of both kinds to export, by exporters that wait for each other."""
    monkeypatch.setattr(telemetry, "_METRICS_EVERY_S", 0.0)
    meeting, ids = Meeting(), DerivedIds()
    tracers = TracerProvider(id_generator=ids.generator())
    tracers.add_span_processor(BatchSpanProcessor(meeting, schedule_delay_millis=3_600_000))
    reader = PeriodicExportingMetricReader(meeting.figures(), export_interval_millis=math.inf)
    found = Telemetry(tracers, ids, MeterProvider([reader]), lambda: T0)
    world = World(chain("A"), instances=0)
    world.instances = [world.instance(observer=found, on_saved=found.saved)]
    world.run_all(world.start())
    yield found, meeting
    meeting.both.abort()


def test_spans_and_figures_are_exported_side_by_side(flushing):
    found, meeting = flushing
    found.flush()
    assert sorted(meeting.ended) == ["figures", "spans"]


def test_a_flush_ends_at_its_limit_though_an_export_does_not(flushing, monkeypatch):
    found, meeting = flushing
    meeting.both = Barrier(3)  # nobody comes third
    monkeypatch.setattr(telemetry, "EXPORT_LIMIT_S", 0.01)
    found.flush()
    assert meeting.ended == []


def test_what_is_not_installed_is_said_and_the_run_goes_on(caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    assert configured({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, lambda: T0) is None
    assert "pip install 'orchestrator[otel]'" in caplog.text


def environment(**more):
    return {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")} | more


def test_nothing_of_it_is_imported_where_it_is_off():
    code = (
        "import sys; from orchestrator import DAGExecutor;"
        "from tests.support.world import chain; executor = DAGExecutor(chain('A'), 'memory://'); executor.close();"
        "print([name for name in sys.modules if 'opentelemetry' in name or 'telemetry' in name])"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment(OTEL_SERVICE_NAME=""), capture_output=True, text=True
    )
    shown = json.loads(done.stdout.replace("'", '"'))
    assert [name for name in shown if name.startswith("opentelemetry")] == []


def test_a_run_on_this_machine_arrives_at_a_collector(tmp_path):
    place = Place(tmp_path)
    place.dag("two", {"A": place.task("echo", "B"), "B": place.task("boom")})
    with Collector() as collector:
        process = place.start(
            "run", "two", "--run-id", "mine", env=environment(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
        )
        _, err = process.communicate(timeout=60)
        assert process.returncode == 1
        assert err == ""
    spans = {span.name: span for span, _ in collector.spans()}
    assert set(spans) == {"A", "B", "two"}
    assert {span.trace_id for span in spans.values()} == {trace_id_of("mine").to_bytes(16)}
    assert spans["A"].parent_span_id == spans["B"].parent_span_id == spans["two"].span_id
    assert spans["B"].status.message == "Task.Failed: ValueError: boom"
    resource = {each.key: each.value.string_value for each in collector.spans()[0][1].attributes}
    assert resource["service.name"] == "orchestrator"
    assert resource["service.instance.id"]
    assert collector.metrics() >= {"orchestrator.runs", "orchestrator.attempts", "orchestrator.saves"}


def test_a_collector_that_is_down_fails_no_run(tmp_path):
    place = Place(tmp_path)
    place.dag("one", {"A": place.task("echo")})
    process = place.start(
        "run",
        "one",
        env=environment(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1", OTEL_EXPORTER_OTLP_TIMEOUT="1"),
    )
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Completed in" in out
