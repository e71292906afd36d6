"""The evaluator that our log filters are tested with is itself right about the language."""

import pytest

from tests.support.logging_query import QueryError, compile_query, matches

ENTRY = {
    "logName": "projects/my-project/logs/run.googleapis.com%2Frequests",
    "severity": "INFO",
    "resource": {"type": "cloud_run_revision", "labels": {"service_name": "load"}},
    "labels": {"dataflow.googleapis.com/job_name": "orch-a"},
    "httpRequest": {"requestUrl": "https://load.a.run.app/?orchestrator_launch=r%2FA%2F1", "status": 200},
    "textPayload": "Worker pool stopped.",
    "timestamp": "2026-01-02T00:00:00.123456789Z",
    "jsonPayload": {"state": "DONE", "steps": [{"name": "a"}, {"name": "b"}], "ok": True},
}
YES, NO = 'severity="INFO"', 'severity="DEBUG"'


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param('severity="INFO"', True, id="equal"),
        pytest.param('severity="info"', True, id="comparisons ignore case"),
        pytest.param("severity=INFO", True, id="a bare word is a value"),
        pytest.param('severity="INF"', False, id="equal is the whole of it"),
        pytest.param('severity!="DEBUG"', True, id="unequal"),
        pytest.param('textPayload:"pool"', True, id="has"),
        pytest.param('textPayload:"POOL"', True, id="has ignores case too"),
        pytest.param('textPayload=~"pool"', True, id="a regular expression is found anywhere"),
        pytest.param('textPayload=~"POOL"', False, id="a regular expression does not ignore case"),
        pytest.param('textPayload=~"^pool"', False, id="an anchor holds it"),
        pytest.param(r'textPayload=~"stopped\\.$"', True, id="a backslash is written twice"),
        pytest.param('textPayload!~"started"', True, id="no match"),
        pytest.param('httpRequest.status="200"', True, id="a number as text"),
        pytest.param("httpRequest.status=200", True, id="a number"),
        pytest.param("jsonPayload.ok=true", True, id="a truth value"),
        pytest.param('resource.labels.service_name="load"', True, id="a path"),
        pytest.param('labels."dataflow.googleapis.com/job_name"=~"^orch-"', True, id="a quoted segment"),
        pytest.param('jsonPayload.steps.name="b"', True, id="one of a list is enough"),
        pytest.param('log_id("run.googleapis.com/requests")', True, id="a log's id is not escaped"),
        pytest.param('log_id("googleapis.com/requests")', False, id="a log's id is the whole of it"),
        pytest.param('resource.labels.service_name=("x" OR "load")', True, id="several values"),
        pytest.param('resource.labels.service_name=("x" OR "y")', False, id="none of several values"),
        pytest.param('resource.labels.service_name=(NOT "x" AND NOT "y")', True, id="not one of several"),
        pytest.param(f"{YES} {NO}", False, id="AND need not be written"),
        pytest.param(f"{YES}\n{YES}", True, id="nor on two lines"),
        pytest.param(f"{YES} AND NOT {NO}", True, id="NOT"),
        pytest.param(f"NOT {NO} OR {NO}", True, id="NOT binds closer than OR"),
        pytest.param(f"{YES} OR {YES} AND {NO}", False, id="OR binds closer than AND"),
        pytest.param(f"{YES} OR ({YES} AND {NO})", True, id="parentheses bind closest"),
        pytest.param(f"{YES} -- {NO}\n{YES}", True, id="a comment"),
        pytest.param('labels.absent="x"', False, id="a missing label equals nothing"),
        pytest.param('labels.absent!="x"', False, id="and is unequal to nothing"),
        pytest.param('NOT labels.absent="x"', True, id="but NOT of that is true"),
        pytest.param('protoPayload.methodName!="x"', False, id="a missing payload likewise"),
        pytest.param('trace=""', True, id="a missing field of every entry stands at its default"),
        pytest.param('httpRequest.remoteIp!="1.2.3.4"', True, id="and is unequal to others"),
        pytest.param('timestamp>="2026-01-02T00:00:00.123456Z"', True, id="not before"),
        pytest.param('timestamp>"2026-01-02T00:00:00.123456Z"', False, id="after"),
        pytest.param('timestamp<"2026-01-02T01:00:00+02:00"', False, id="times have zones"),
        pytest.param('receiveTimestamp>="2026-01-01T00:00:00Z"', False, id="a missing time is no time"),
    ],
)
def test_a_query(query, expected):
    assert matches(query, ENTRY) is expected


@pytest.mark.parametrize(
    "query",
    [
        pytest.param("", id="nothing"),
        pytest.param(f"({YES}", id="not closed"),
        pytest.param(f"{YES})", id="closed too often"),
        pytest.param(f"AND {YES}", id="AND of nothing"),
        pytest.param(f"{YES} OR", id="OR of nothing"),
        pytest.param('severity>="INFO"', id="an order"),
        pytest.param('"pool"', id="a search of all fields"),
        pytest.param("sample(insertId, 0.1)", id="another function"),
        pytest.param("severity=", id="no value"),
        pytest.param('severity="INFO', id="an open string"),
        pytest.param(f"-{YES}", id="minus as NOT"),
        pytest.param(YES + " " * 20_000, id="longer than Google takes"),
    ],
)
def test_what_is_not_known_is_refused(query):
    with pytest.raises(QueryError):
        compile_query(query)
