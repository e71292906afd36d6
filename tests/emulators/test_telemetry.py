"""A run in the emulated cloud is one trace, though several instances tell of it, each when it has handled an event."""

from orchestrator.runtime.telemetry import trace_id_of
from tests.support.cloud import Cloud
from tests.support.collector import Collector
from tests.support.command_line import until
from tests.support.pubsub_emulator import pubsub_emulator_host  # noqa: F401 - the fixture


def test_several_instances_tell_of_one_trace(pubsub_emulator, tmp_path):
    with Collector() as collector:
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_METRICS_EXPORTER": "none"}
        with Cloud(pubsub_emulator, tmp_path, instances=3, settings=settings) as cloud:
            for number in range(4):
                cloud.publish({"resource": {"type": "start"}, "dag": "sample", "run_id": f"run-{number}"})
            for number in range(4):
                assert cloud.wait(f"run-{number}")["$run"]["status"] == "Completed"
            until(lambda: len(collector.spans()) >= 4 * 8)  # while the instances live: they flush by themselves
    names = {"Init", "Step1", "Step2", "Branch1", "Branch2", "Int", "End", "sample"}
    for number in range(4):
        trace_id = trace_id_of(f"run-{number}").to_bytes(16)
        spans = [span for span, _ in collector.spans() if span.trace_id == trace_id]
        assert sorted(span.name for span in spans) == sorted(names)
        run = next(span for span in spans if span.name == "sample")
        assert {span.parent_span_id for span in spans if span is not run} == {run.span_id}
    told_by = {
        each.value.string_value for _, of in collector.spans() for each in of.attributes if "instance" in each.key
    }
    assert len(told_by) > 1
