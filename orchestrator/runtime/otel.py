"""OpenTelemetry's providers, as the standard OTEL_* variables ask for them; imported only where they do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from threading import local
from typing import TYPE_CHECKING

from orchestrator.runtime.telemetry import EXPORT_LIMIT_S, SCOPE, Telemetry

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.id_generator import IdGenerator

log = logging.getLogger("orchestrator")

_SIGNALS = ("TRACES", "METRICS")
_EXPORTERS = ("otlp", "console", "none")
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_{}_ENDPOINT")


class DerivedIds:
    """An IdGenerator that hands out the ids that it was told to, thread by thread."""

    def __init__(self) -> None:
        self._next = local()

    @property
    def trace_id(self) -> int:
        """What the next trace of this thread is called."""
        return int(getattr(self._next, "trace_id", 1))

    @trace_id.setter
    def trace_id(self, value: int) -> None:
        self._next.trace_id = value

    @property
    def span_id(self) -> int:
        """What the next span of this thread is called."""
        return int(getattr(self._next, "span_id", 1))

    @span_id.setter
    def span_id(self, value: int) -> None:
        self._next.span_id = value

    def generator(self) -> IdGenerator:
        """Itself, as the SDK wants one."""
        from opentelemetry.sdk.trace.id_generator import IdGenerator

        ids = self

        class Generator(IdGenerator):
            def generate_span_id(self) -> int:
                return ids.span_id

            def generate_trace_id(self) -> int:
                return ids.trace_id

        return Generator()


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Whether the standard variables ask for traces or metrics.

    Source: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
    """
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    return any(_exporter(signal, environment) != "none" for signal in _SIGNALS)


def configured(environment: Mapping[str, str], now: Callable[[], datetime]) -> Telemetry | None:
    """Return the telemetry that the variables ask for, None where they ask for none or it is not installed."""
    for name in _unknown(environment):
        log.warning(
            '%s: "%s" is no exporter that is known here; allowed are otlp, console, none', name, environment[name]
        )
    if not is_wanted(environment):
        return None
    traces, metrics = _exporter("TRACES", environment), _exporter("METRICS", environment)
    limit_s = None if environment.get("OTEL_EXPORTER_OTLP_TIMEOUT") else EXPORT_LIMIT_S
    try:
        tracers, ids, meters = _providers(traces, metrics, limit_s)
    except ImportError as exc:
        log.warning("OTEL_* variables ask for telemetry: %s; pip install 'orchestrator[otel]'", exc)
        return None
    return Telemetry(tracers, ids, meters, now)


@lru_cache(maxsize=1)
def _providers(traces: str, metrics: str, limit_s: float | None) -> tuple[TracerProvider, DerivedIds, MeterProvider]:
    """Build them, once a process: each has threads of its own, and exports at the process's end."""
    from uuid import uuid4

    exporters = logging.getLogger("opentelemetry.exporter")
    if exporters.level == logging.NOTSET:
        exporters.setLevel(logging.ERROR)  # that it tries again is no news, that it gave up is
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import (
        ConsoleMetricExporter,
        MetricExporter,
        MetricReader,
        PeriodicExportingMetricReader,
    )
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

    resource = Resource.create({"service.instance.id": uuid4().hex})
    if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": SCOPE}))
    ids = DerivedIds()
    tracers = TracerProvider(resource=resource, id_generator=ids.generator())
    if traces != "none":
        spans: SpanExporter = ConsoleSpanExporter()
        if traces != "console":
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            spans = OTLPSpanExporter(timeout=limit_s)
        tracers.add_span_processor(BatchSpanProcessor(spans))
    readers: list[MetricReader] = []
    if metrics != "none":
        figures: MetricExporter = ConsoleMetricExporter()
        if metrics != "console":
            from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

            figures = OTLPMetricExporter(timeout=limit_s)
        readers.append(PeriodicExportingMetricReader(figures))
    return tracers, ids, MeterProvider(readers, resource=resource)


def _unknown(environment: Mapping[str, str]) -> list[str]:
    """The variables that name an exporter that there is not."""
    names = [f"OTEL_{signal}_EXPORTER" for signal in _SIGNALS]
    return [name for name in names if environment.get(name, "").strip().lower() not in ("", *_EXPORTERS)]


def _exporter(signal: str, environment: Mapping[str, str]) -> str:
    """otlp, console or none: what is named, none where that is unknown, else otlp where an endpoint is."""
    named = environment.get(f"OTEL_{signal}_EXPORTER", "").strip().lower()
    if named:
        return named if named in _EXPORTERS else "none"
    return "otlp" if any(environment.get(name.format(signal)) for name in _ENDPOINTS) else "none"
