"""Telemetry: a trace a run, a span an attempt, and metrics, by OpenTelemetry; off unless OTEL_* variables ask for it.

Nothing lives as long as a run does, so a span is made when what it tells of has ended, by the instance whose save ended
it. Its ids are derived: the trace's from the run id, an attempt's from its launch id. So what many instances tell of
one run is one trace, and what is told twice is the same span. `runtime/otel.py` makes what this is made of.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from hashlib import sha256
from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from orchestrator.engine.saved import Saved
from orchestrator.model.commands import Failure, Launch
from orchestrator.model.enums import NodeTypes, RunStatus, TargetTypes, TaskStatus
from orchestrator.model.ids import key_of, launch_id_of, span_of
from orchestrator.model.node_state import NodeState
from orchestrator.model.run_state import RunInfo, RunState

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Link
    from opentelemetry.util.types import AttributeValue

log = logging.getLogger("orchestrator")

SCOPE = "orchestrator"

_METRICS_EVERY_S = 15.0
_SLOW_FLUSH_S, _FLUSH_PAUSE_S = 2.0, 60.0
EXPORT_LIMIT_S = 5.0
"""How long one export may take, where OTEL_EXPORTER_OTLP_TIMEOUT says nothing, and how long all are waited for."""


def trace_id_of(run_id: str) -> int:
    """Return the id of a run's trace, 128 bits, the same wherever it is asked for."""
    return int.from_bytes(sha256(f"trace\n{run_id}".encode()).digest()[:16]) or 1


def run_span_of(run: RunInfo) -> int:
    """Return the id of the span that tells of a run up to its end; what a redrive adds is a span of its own."""
    return span_id_of(f"{run.run_id}.{run.redrives}" if run.redrives else run.run_id)


def span_id_of(name: str) -> int:
    """Return the id of a span, 64 bits: of a run's by its run id, of an attempt's by its launch id."""
    return int.from_bytes(sha256(f"attempt\n{name}".encode()).digest()[:8]) or 1


class Ids(Protocol):
    """What the next trace and the next span of this thread are called."""

    trace_id: int
    span_id: int


class Telemetry:
    """Makes spans and counts: an Observer that is also told of every save.

    Args:
        tracers: makes the spans; its ids come from `ids`.
        ids: the generator of `tracers`, which hands out what it is told to.
        meters: makes the instruments.
        now: the time, aware.
        lease: target key -> how long a claim lasts, which tells when an attempt was claimed.
    """

    def __init__(
        self,
        tracers: TracerProvider,
        ids: Ids,
        meters: MeterProvider,
        now: Callable[[], datetime],
        lease: Callable[[str], timedelta] = lambda _: timedelta(0),
    ) -> None:
        self._tracers, self._ids, self._meters, self._now = tracers, ids, meters, now
        self.lease = lease
        self._tracer = tracers.get_tracer(SCOPE)
        meter = meters.get_meter(SCOPE)
        self._runs = meter.create_counter("orchestrator.runs", "{run}", "Runs that ended.")
        self._run_s = meter.create_histogram("orchestrator.run.duration", "s", "How long runs took.")
        self._attempts = meter.create_counter("orchestrator.attempts", "{attempt}", "Attempts that ended.")
        self._attempt_s = meter.create_histogram("orchestrator.attempt.duration", "s", "How long attempts took.")
        self._launch_s = meter.create_histogram("orchestrator.launch.duration", "s", "How long launch calls took.")
        self._handover_s = meter.create_histogram(
            "orchestrator.handover.duration", "s", "From the decision that an attempt follows to its launch."
        )
        self._saves = meter.create_counter("orchestrator.saves", "{save}", "Saves of runs, by what came of them.")
        self._is_dirty = False
        self._metrics_at_s = self._flush_from_s = monotonic()

    # -- the observer -------------------------------------------------------------------------------

    def saved(self, saved: Saved) -> None:
        """Make the spans of what this save ended."""
        self._saves.add(1, {"result": "written"})
        for was, node in saved.changed():
            self._node(was, node, saved.after)
        if saved.has_ended:
            self._run(saved.after)

    def lost(self, run_id: str) -> None:  # noqa: ARG002 - the port's
        """Count it."""
        self._saves.add(1, {"result": "conflict"})

    def launched(self, launch: Launch, result: str, took_s: float, since_claim_s: float | None) -> None:
        """Count it."""
        told = {"target_type": launch.target_type, "result": result}
        self._launch_s.record(took_s, told)
        if since_claim_s is not None and result == "launched":
            self._handover_s.record(since_claim_s, {"target_type": launch.target_type})

    # -- spans --------------------------------------------------------------------------------------

    def _node(self, was: NodeState | None, node: NodeState, state: RunState) -> None:
        """Tell of the attempts of a node that a save ended: the one that ran, or one that it began and ended."""
        if node.node_type is not NodeTypes.TASK:
            return
        waited = was is not None and (was.retry_at is not None or was.waits_for_slot)
        ran = was is not None and was.status is TaskStatus.RUNNING and was.attempt > 0 and not waited
        if was is not None and ran and (node.attempt != was.attempt or node.status.is_final):
            self._attempt(was, node, state)
        begun = was.attempt if was is not None else 0
        if waited and node.status is not TaskStatus.CANCELLED:
            begun -= 1  # it was waited for; who cancels that has nothing to tell of
        if node.status.is_final and node.attempt > begun:
            self._attempt(node, node, state)

    def _attempt(self, ran: NodeState, node: NodeState, state: RunState) -> None:
        """Tell of one attempt: `ran` as it was while it ran, `node` as it is now."""
        from opentelemetry.trace import SpanKind

        is_last = node.attempt == ran.attempt
        is_retried = node.failures > ran.failures
        outcome = str(node.status) if is_last else "Failed" if is_retried else "Lost"
        error = node.error if is_last or is_retried else None
        target_type = node.target_type or ""
        launch_id = launch_id_of(state.run.run_id, node.node_name, ran.attempt)
        ended_at = (node.ended_at if is_last else None) or self._now()
        started_at = min(self._began(ran), ended_at)
        attributes: dict[str, AttributeValue] = {
            "orchestrator.run_id": state.run.run_id,
            "orchestrator.dag": state.run.dag,
            "orchestrator.node": node.node_name,
            "orchestrator.attempt": ran.attempt,
            "orchestrator.target_type": target_type,
            "orchestrator.target_name": node.target_name or "",
            "orchestrator.outcome": outcome,
        }
        execution_id = (node.execution_id if is_last else None) or ran.execution_id
        if execution_id is not None:
            attributes["orchestrator.execution_id"] = execution_id
        self._span(
            node.node_name,
            span_id_of(launch_id),
            self._below(state, run_span_of(state.run)),
            SpanKind.INTERNAL if target_type == TargetTypes.FUNCTION else SpanKind.CLIENT,
            attributes,
            (started_at, ended_at),
            error if outcome == TaskStatus.FAILED else None,
            failed=outcome in (TaskStatus.FAILED, "Lost"),
            links=_links(ran, launch_id),
        )
        told: dict[str, AttributeValue] = {"dag": state.run.dag, "target_type": target_type, "outcome": outcome}
        if error is not None:
            told["error_type"] = error.error_type
        self._attempts.add(1, told)
        self._attempt_s.record((ended_at - started_at).total_seconds(), told)

    def _run(self, state: RunState) -> None:
        from opentelemetry.trace import SpanKind

        run = state.run
        ended_at = run.ended_at or self._now()
        attributes: dict[str, AttributeValue] = {
            "orchestrator.run_id": run.run_id,
            "orchestrator.dag": run.dag,
            "orchestrator.definition": run.definition,
            "orchestrator.status": str(run.status),
        }
        if run.parent is not None:
            attributes["orchestrator.parent"] = launch_id_of(run.parent.run_id, run.parent.node, run.parent.attempt)
        began_at = run.started_at
        if run.redriven_at is not None:
            began_at = min(run.redriven_at, ended_at)
            attributes["orchestrator.redrive"] = run.redrives
        self._ids.trace_id = trace_id_of(run.run_id)
        self._span(
            run.dag,
            run_span_of(run),
            None if not run.redrives else self._below(state, span_id_of(run.run_id)),
            SpanKind.INTERNAL,
            attributes,
            (began_at, ended_at),
            run.error if run.status is RunStatus.FAILED else None,
            failed=run.status is RunStatus.FAILED,
        )
        told = {"dag": run.dag, "status": str(run.status)}
        self._runs.add(1, told)
        self._run_s.record((ended_at - began_at).total_seconds(), told)

    def _span(
        self,
        name: str,
        span_id: int,
        context: Context | None,
        kind: object,
        attributes: Mapping[str, AttributeValue],
        times: tuple[datetime, datetime],
        error: Failure | None,
        *,
        failed: bool,
        links: tuple[Link, ...] = (),
    ) -> None:
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind, Status, StatusCode

        self._ids.span_id = span_id
        span = self._tracer.start_span(
            name,
            context if context is not None else Context(),
            kind if isinstance(kind, SpanKind) else SpanKind.INTERNAL,
            attributes,
            links,
            _ns(times[0]),
        )
        if error is not None:
            span.set_attribute("error.type", error.error_type)
        if failed:
            span.set_status(Status(StatusCode.ERROR, f"{error.error_type}: {error.message}" if error else None))
        span.end(_ns(times[1]))
        self._is_dirty = True

    def _below(self, state: RunState, span_id: int) -> Context:
        """The context of a span of the run's own, which somebody makes when the run ends."""
        from opentelemetry.context import Context
        from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

        flags = TraceFlags(TraceFlags.SAMPLED if self._is_sampled(state) else TraceFlags.DEFAULT)
        parent = SpanContext(trace_id_of(state.run.run_id), span_id, is_remote=True, trace_flags=flags)
        return set_span_in_context(NonRecordingSpan(parent), Context())

    def _is_sampled(self, state: RunState) -> bool:
        """Whether the run's own span is taken: then its attempts' are, too, whoever makes them."""
        trace_id = trace_id_of(state.run.run_id)
        decision = self._tracers.sampler.should_sample(None, trace_id, state.run.dag).decision
        return bool(decision.is_sampled())  # type: ignore[no-untyped-call]

    def _began(self, node: NodeState) -> datetime:
        """When a running attempt was claimed: its node's start, or for one that had to wait by its lease."""
        if (node.attempt > 1 or node.slot is not None) and node.claim is not None and not node.claim.takeovers:
            return node.claim.lease_end - self.lease(node.target_key)
        return node.started_at or node.ended_at or self._now()

    # -- export -------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Export what waits: for instances that may be frozen as soon as an event is handled. Others need not.

        Where that takes long it is not done again for a while, so that a collector that is down holds up nothing.
        """
        from opentelemetry.sdk.metrics import MeterProvider as Meters

        begun_s = monotonic()
        if begun_s < self._flush_from_s:
            return
        wanted: list[Callable[[int], object]] = []
        if self._is_dirty:
            self._is_dirty = False
            wanted.append(self._tracers.force_flush)
        if begun_s - self._metrics_at_s >= _METRICS_EVERY_S and isinstance(self._meters, Meters):
            self._metrics_at_s = begun_s
            wanted.append(self._meters.force_flush)
        # Side by side, so that a collector that is down costs one limit and not one for each. The SDK itself keeps to
        # no limit here: who is late goes on by itself.
        exports = [Thread(target=_exported, args=(each,), daemon=True) for each in wanted]
        for export in exports:
            export.start()
        for export in exports:
            export.join(max(0.0, begun_s + EXPORT_LIMIT_S - monotonic()))
        if monotonic() - begun_s > _SLOW_FLUSH_S:
            self._flush_from_s = monotonic() + _FLUSH_PAUSE_S


def _exported(force_flush: Callable[[int], object]) -> None:
    try:
        force_flush(int(EXPORT_LIMIT_S * 1000))
    except Exception as exc:
        log.warning("telemetry cannot be exported: %s", exc)


def _links(ran: NodeState, launch_id: str) -> tuple[Link, ...]:
    """The trace that the attempt's call carried, which the function's own spans and log entries are in."""
    from opentelemetry.trace import Link, SpanContext, TraceFlags

    if ran.target_type != TargetTypes.CLOUD_FUNCTION or ran.claim is None:
        return ()
    trace_id, span_id = int(ran.claim.trace_of(launch_id), 16), int(span_of(key_of(launch_id)), 16)
    return (Link(SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))),)


def _ns(at: datetime) -> int:
    """Nanoseconds since 1970, without the rounding that a float would bring."""
    whole, part = divmod(at - datetime.fromtimestamp(0, at.tzinfo), timedelta(seconds=1))
    return whole * 10**9 + part.microseconds * 1000
