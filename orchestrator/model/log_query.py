"""The log entries of a run: which filters of Cloud Logging find them, and what an entry says. Pure.

what                                  is found by
the orchestrator's own lines          the labels that they bear: run_id, node, attempt
a function's request (2nd gen)        the launch id in its URL, its trace
what a function printed               the trace of its call, its execution id
a job's entries                       its name or id, see `console.ROWS`
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import parse_qs, quote_plus, urlsplit

import msgspec

from orchestrator.model.commands import Json
from orchestrator.model.console import execution_filter, in_filter, rfc3339
from orchestrator.model.enums import NodeTypes, TargetTypes
from orchestrator.model.ids import execution_id_of, key_of, launch_id_of, parse_launch_id, step_of
from orchestrator.model.messages import LAUNCH_PARAMETER
from orchestrator.model.node_state import NodeState
from orchestrator.model.run_state import RunState

CLAUSES_IN_A_FILTER = 60
"""A filter has at most 20,000 characters, and an attempt's part of one up to 250."""
TRACES_IN_A_FILTER = 100

_TRACE = re.compile(r"(?:projects/[^/]+/traces/)?([0-9a-f]{32})")
_CALL_ID = re.compile(r"[a-z][a-z0-9-]{0,62}/([0-9a-f]{32})")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a Task, as far as log entries lead to it. `trace_id` is None where it is not known any more."""

    node: NodeState
    number: int
    launch_id: str
    is_current: bool
    trace_id: str | None

    @property
    def key(self) -> str:
        """The name under which the target's service knows the launch."""
        return key_of(self.launch_id)


@dataclass(frozen=True, slots=True)
class Said:
    """One line of a log.

    Attributes:
        at: when, aware; None where the log does not tell.
        severity: as Cloud Logging has them: DEFAULT, DEBUG, INFO, NOTICE, WARNING, ERROR, CRITICAL, ALERT, EMERGENCY.
        node, attempt: whose it is; None where it is the run's, or where that cannot be told.
        text: what it says, perhaps on several lines.
        entry_id: distinct for distinct entries; an entry may be found twice.
        trace_id: of the call that it belongs to.
    """

    at: datetime | None
    severity: str
    node: str | None
    attempt: int | None
    text: str
    entry_id: str = ""
    trace_id: str | None = None


def attempts_of(state: RunState, node_name: str | None = None, attempt: int | None = None) -> list[Attempt]:
    """Return the attempts of a run, of one of its nodes (`Load`: of all items; `Load[7]`), or that one."""
    found = []
    for node in state.nodes.values():
        if node.node_type is not NodeTypes.TASK or node_name not in (None, node.node_name, step_of(node.node_name)):
            continue
        for number in range(1, node.attempt + 1):
            if attempt in (None, number):
                launch_id = launch_id_of(state.run.run_id, node.node_name, number)
                is_current = number == node.attempt
                trace_id = _trace_of(node, launch_id) if is_current else None
                found.append(Attempt(node, number, launch_id, is_current, trace_id))
    return found


def filters(
    run_id: str,
    attempts: Sequence[Attempt],
    since: datetime,
    *,
    node_name: str | None = None,
    attempt: int | None = None,
) -> Iterator[str]:
    """Yield the filters that find the entries of these attempts and, of the run, the orchestrator's own.

    Args:
        since: entries from then on (aware).
        node_name, attempt: what the attempts are narrowed to, if they are.
    """
    own = [f'labels.run_id="{run_id}"']
    are_items = node_name is not None and any(each.node.node_name != node_name for each in attempts)
    if node_name is not None:
        own.append(f'labels.node:"{node_name}["' if are_items else f'labels.node="{node_name}"')
    if attempt is not None:
        own.append(f'labels.attempt="{attempt}"')
    clauses = [" AND ".join(own)]
    if any(each.node.target_type == TargetTypes.CLOUD_FUNCTION for each in attempts):
        in_url = _in_url(run_id, node_name, attempt, are_items=are_items)
        clauses.append(f'httpRequest.requestUrl:"{in_url}"')
    for each in attempts:
        clause = execution_filter(each.node, each.launch_id, is_current=each.is_current)
        clauses += [clause] if clause is not None else []
    for start in range(0, len(clauses), CLAUSES_IN_A_FILTER):
        yield _since(since, " OR ".join(f"({clause})" for clause in clauses[start : start + CLAUSES_IN_A_FILTER]))


def trace_filters(trace_ids: Iterable[str], projects: Sequence[str], since: datetime) -> Iterator[str]:
    """Yield the filters that find all entries of these traces."""
    wanted = list(dict.fromkeys(trace_ids))
    for start in range(0, len(wanted), TRACES_IN_A_FILTER):
        part = wanted[start : start + TRACES_IN_A_FILTER]
        names = [*part, *(f"projects/{project}/traces/{trace}" for project in projects for trace in part)]
        yield _since(since, "trace=(" + " OR ".join(f'"{name}"' for name in names) + ")")


def run_filter(run_id: str) -> str:
    """Return the short filter for a person: the orchestrator's lines of a run, and the calls that it made.

    It has no percent sign in it, which an address that is decoded twice would lose.
    """
    return f'labels.run_id="{run_id}" OR httpRequest.requestUrl:"{LAUNCH_PARAMETER}={run_id}"'


class Reader:
    """Reads log entries as lines of a run, and remembers which calls' traces they showed.

    Attributes:
        traces: trace id -> the attempt whose call it is of.
    """

    def __init__(self, state: RunState, attempts: Iterable[Attempt]) -> None:
        self._run_id = state.run.run_id
        self._attempts = {each.launch_id: each for each in attempts}
        self._ids: dict[str, Attempt] = {}
        self.traces: dict[str, Attempt] = {}
        for each in self._attempts.values():
            self._ids[each.key] = self._ids[execution_id_of(each.key)] = each
            if each.is_current and each.node.execution_id:
                self._ids[each.node.execution_id.rpartition("/")[2]] = each
            if each.trace_id is not None:
                self.traces[each.trace_id] = each

    def line(self, entry: Mapping[str, Json]) -> Said:
        """Return what an entry says, and whose it is."""
        found = _TRACE.fullmatch(_text(entry.get("trace")))
        trace_id = found[1] if found else None
        labels = _object(entry.get("labels"))
        launched = self._launched(entry) or self._labelled(labels)
        if launched is not None and trace_id is not None:
            self.traces[trace_id] = launched
        mine = launched or (self.traces.get(trace_id) if trace_id else None) or self._by_id(entry, labels)
        node, number = (mine.node.node_name, mine.number) if mine else (None, None)
        if labels.get("run_id") == self._run_id:
            node = _text(labels.get("node")) or node
            number = int(_text(labels.get("attempt"))) if _text(labels.get("attempt")).isdigit() else number
        return Said(
            _time(_text(entry.get("timestamp")) or _text(entry.get("receiveTimestamp"))),
            _text(entry.get("severity")) or "DEFAULT",
            node,
            number,
            text_of(entry).removeprefix(f"{node}: "),  # the orchestrator's own lines begin with it
            f"{_text(entry.get('logName'))} {_text(entry.get('timestamp'))} {_text(entry.get('insertId'))}",
            trace_id,
        )

    def _launched(self, entry: Mapping[str, Json]) -> Attempt | None:
        """The attempt whose launch id stands in the URL of a request."""
        url = _text(_object(entry.get("httpRequest")).get("requestUrl"))
        given = parse_qs(urlsplit(url).query).get(LAUNCH_PARAMETER, [""])[0] if url else ""
        return self._attempts.get(given) if parse_launch_id(given) else None

    def _labelled(self, labels: Mapping[str, Json]) -> Attempt | None:
        """The attempt that a line of the orchestrator's own is about; such a line is under the trace of its call."""
        if labels.get("run_id") != self._run_id:
            return None
        return self._attempts.get(f"{self._run_id}/{_text(labels.get('node'))}/{_text(labels.get('attempt'))}")

    def _by_id(self, entry: Mapping[str, Json], labels: Mapping[str, Json]) -> Attempt | None:
        resource = _object(_object(entry.get("resource")).get("labels"))
        named = _text(_object(entry.get("protoPayload")).get("resourceName"))
        for value in (*labels.values(), *resource.values(), named):
            word = _text(value).rpartition("/")[2]
            mine = self._ids.get(word) or self._ids.get(word[: _key_length(word)])
            if mine is not None:
                return mine
        return None


def text_of(entry: Mapping[str, Json]) -> str:
    """Return what an entry says, without what only machines read; a request without its URL, which bears a secret."""
    if "textPayload" in entry:
        return _text(entry["textPayload"]).rstrip("\n")
    payload = _object(entry.get("jsonPayload"))
    if payload:
        message = payload.get("message")
        stack = _text(payload.get("stack_trace"))
        words = message if isinstance(message, str) else msgspec.json.encode(payload).decode()
        return f"{words}\n{stack}".rstrip("\n") if stack else words.rstrip("\n")
    audit = _object(entry.get("protoPayload"))
    if audit:
        words = _text(_object(audit.get("status")).get("message"))
        return ": ".join(part for part in (_text(audit.get("methodName")), words) if part)
    request = _object(entry.get("httpRequest"))
    if request:
        labels = _object(_object(entry.get("resource")).get("labels"))
        service = _text(labels.get("service_name")) or _text(labels.get("function_name"))
        latency = _text(request.get("latency"))
        took = f" in {float(latency[:-1]):.3f} s" if re.fullmatch(r"[0-9]+(\.[0-9]+)?s", latency) else ""
        return f"{_text(request.get('requestMethod')) or 'request'} {service}: {request.get('status', '?')}{took}"
    return ""


def _since(since: datetime, wanted: str) -> str:
    return f'timestamp>="{rfc3339(since)}" AND ({wanted})'


def _in_url(run_id: str, node_name: str | None, attempt: int | None, *, are_items: bool = False) -> str:
    """What the URL of such a call has in it."""
    if are_items:
        return in_filter(f"{LAUNCH_PARAMETER}={quote_plus(f'{run_id}/{node_name}[')}")
    path = f"{run_id}/" + (f"{node_name}/" if node_name is not None else "")
    end = f"{attempt}&" if node_name is not None and attempt is not None else ""
    return in_filter(f"{LAUNCH_PARAMETER}={quote_plus(path)}{end}")


def _trace_of(node: NodeState, launch_id: str) -> str | None:
    if node.target_type != TargetTypes.CLOUD_FUNCTION:
        return None
    if node.claim is not None:
        return node.claim.trace_of(launch_id)
    found = _CALL_ID.fullmatch(node.execution_id or "")
    return found[1] if found else None


def _key_length(word: str) -> int:
    """How long the key is that a word begins with: a Batch job's uid is its id and more."""
    found = re.match(r"orch-[a-z0-9-]*-[0-9]+-[0-9a-f]{24}", word)
    return found.end() if found else 0


def _text(value: Json) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


def _object(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else {}


def _time(text: str) -> datetime | None:
    """An RFC 3339 time; of nanoseconds the first six digits."""
    try:
        at = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
    except ValueError:
        return None
    return at if at.tzinfo is not None else None
