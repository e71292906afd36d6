"""A call of a Cloud Function, as it looks on the wire and in the cloud's logs."""

from dataclasses import dataclass
from datetime import datetime

import msgspec

from orchestrator.model.commands import Json, Launch, Outcome
from orchestrator.model.ids import execution_id_of, span_of
from orchestrator.model.messages import launch_query
from orchestrator.targets.twins import digest_of, timestamp

_USER_AGENT = "Google-Cloud-Tasks"


@dataclass(frozen=True, slots=True)
class Call:
    """The request, as it is in the cloud, and the names that its log entry needs."""

    project: str
    region: str
    function_name: str
    execution_id: str
    trace_id: str
    span_id: str
    path: str
    body: bytes

    @classmethod
    def of(cls, launch: Launch, project: str, region: str) -> "Call":
        return cls(
            project=project,
            region=region,
            function_name=launch.target_name,
            execution_id=execution_id_of(launch.key),
            trace_id=launch.trace_id,
            span_id=span_of(launch.key),
            path=f"/?{launch_query(launch.launch_id, launch.nonce)}",
            body=msgspec.json.encode(launch.parameters),
        )

    @property
    def url(self) -> str:
        return f"https://{self.region}-{self.project}.cloudfunctions.net/{self.function_name}{self.path[1:]}"

    @property
    def headers(self) -> dict[str, str]:
        return {
            "Content-Type": "application/json",
            "User-Agent": _USER_AGENT,
            "traceparent": f"00-{self.trace_id}-{self.span_id}-01",
            "Function-Execution-Id": self.execution_id,
        }


@dataclass(frozen=True, slots=True)
class End:
    """How a call ended. `word` is what the platform calls an end that was no answer."""

    status: int
    outcome: Outcome
    word: str = ""
    response_size: int = 0


def gen1_entry(call: Call, end: End, started_at: datetime, took_s: float, ended_at: datetime) -> dict[str, Json]:
    """The last line of a 1st gen function's log."""
    status = f"status: '{end.word}'" if end.word else f"status code: {end.status}"
    return {
        "insertId": f"000000-{digest_of(call.execution_id, timestamp(started_at))[:32]}",
        "labels": {"execution_id": call.execution_id},
        "logName": f"projects/{call.project}/logs/cloudfunctions.googleapis.com%2Fcloud-functions",
        "resource": {
            "type": "cloud_function",
            "labels": {
                "function_name": call.function_name,
                "project_id": call.project,
                "region": call.region,
            },
        },
        "severity": "DEBUG",
        "textPayload": f"Function execution took {took_s * 1000:.0f} ms, finished with {status}",
        "timestamp": timestamp(ended_at),
        "receiveTimestamp": timestamp(ended_at),
        "trace": f"projects/{call.project}/traces/{call.trace_id}",
    }


def gen2_entry(call: Call, end: End, started_at: datetime, took_s: float, ended_at: datetime) -> dict[str, Json]:
    """The request log entry of a 2nd gen function; its `timestamp` is when the request began."""
    service = call.function_name.lower().replace("_", "-")
    return {
        "insertId": digest_of(call.execution_id, timestamp(started_at))[:20],
        "httpRequest": {
            "requestMethod": "POST",
            "requestUrl": call.url,
            "requestSize": str(len(call.body)),
            "status": end.status,
            "responseSize": str(end.response_size),
            "userAgent": _USER_AGENT,
            "remoteIp": "127.0.0.1",
            "serverIp": "127.0.0.1",
            "latency": f"{took_s:.6f}s",
            "protocol": "HTTP/1.1",
        },
        "resource": {
            "type": "cloud_run_revision",
            "labels": {
                "project_id": call.project,
                "location": call.region,
                "service_name": service,
                "configuration_name": service,
                "revision_name": f"{service}-00001-loc",
            },
        },
        "labels": {
            "goog-managed-by": "cloudfunctions",
            "goog-drz-cloudfunctions-id": call.function_name,
            "goog-drz-cloudfunctions-location": call.region,
            "instanceId": digest_of("instance", service),
        },
        "logName": f"projects/{call.project}/logs/run.googleapis.com%2Frequests",
        "severity": "ERROR" if end.status >= 500 else "WARNING" if end.status >= 400 else "INFO",
        "timestamp": timestamp(started_at),
        "receiveTimestamp": timestamp(ended_at),
        "trace": f"projects/{call.project}/traces/{call.trace_id}",
        "spanId": call.span_id,
        "traceSampled": True,
    }
