"""A log line of ours is one JSON object that Cloud Logging takes apart."""

import io
import json
import logging

from orchestrator.runtime.logs import JsonFormatter, configure


def line(**extra: object) -> dict:
    record = logging.makeLogRecord({"name": "orchestrator", "levelname": "INFO", "msg": "launched %s", "args": ("A",)})
    for name, value in extra.items():
        setattr(record, name, value)
    return json.loads(JsonFormatter("p").format(record))


def test_a_record_bears_the_labels_and_the_trace_of_its_run():
    assert line(run_id="run_1_x", node="A", attempt=2, event_id="17", trace="0" * 32) == {
        "severity": "INFO",
        "message": "launched A",
        "logger": "orchestrator",
        "logging.googleapis.com/labels": {"run_id": "run_1_x", "node": "A", "attempt": "2", "event_id": "17"},
        "logging.googleapis.com/trace": f"projects/p/traces/{'0' * 32}",
    }


def test_a_record_without_a_run_has_neither_and_line_breaks_stay_inside_of_the_json():
    record = logging.makeLogRecord({"name": "o", "levelname": "ERROR", "msg": "two\nlines"})
    shown = JsonFormatter().format(record)
    assert "\n" not in shown
    assert json.loads(shown) == {"severity": "ERROR", "message": "two\nlines", "logger": "o"}


def test_an_exception_is_told_with_its_stack():
    try:
        raise ValueError("wrong")
    except ValueError as exc:
        record = logging.makeLogRecord(
            {"name": "o", "levelname": "ERROR", "msg": "failed", "exc_info": (type(exc), exc, exc.__traceback__)}
        )
    assert json.loads(JsonFormatter().format(record))["stack_trace"].endswith("ValueError: wrong")


def test_configuring_twice_writes_each_line_once():
    log = logging.getLogger("orchestrator")
    before, level, propagate = list(log.handlers), log.level, log.propagate
    stream = io.StringIO()
    try:
        log.handlers = []
        configure(stream, None)
        configure(stream, None)
        log.info("once")
        assert len(stream.getvalue().splitlines()) == 1
    finally:
        log.handlers, log.level, log.propagate = before, level, propagate
