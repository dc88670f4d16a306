"""OpenTelemetry spans of a request, from the edge to the engine's steps. The gateway alone writes and exports them.

Workers have no way out of their network, so they tell their part, in the form of a `Server-Timing` header, with the
answer. A request that is not sampled costs one look at its `traceparent`; nothing of a prompt, an answer or a key is
ever in a span.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

from opentelemetry import trace as api
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

QUEUE_SPANS = 8192
"""Spans that wait for the collector; more are dropped, and the exporter's own log says so."""
_TRACEPARENT = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_ENTRY = re.compile(r"\s*([a-z_]{1,32})\s*;\s*dur=([0-9]{1,12}(?:\.[0-9]{1,6})?)(?:\s*;\s*desc=\"?([0-9]{1,18})\"?)?")
_PHASES = ("queue", "prefill", "decode")
Attributes = Mapping[str, str | int | float | bool]


@dataclass(frozen=True, slots=True)
class Phase:
    """One part of a worker's time, as its answer tells it."""

    name: str
    duration_s: float
    count: int | None = None
    """Engine steps of a decode, tokens of a prefill."""


def phases_in(server_timing: str) -> list[Phase]:
    """The phases that a worker's `Server-Timing` value tells, in the order of time; what cannot be read is left out."""
    found = {}
    for entry in server_timing[:1024].split(","):
        match = _ENTRY.fullmatch(entry)
        if match and match[1] in _PHASES:
            found[match[1]] = Phase(match[1], float(match[2]) / 1e3, int(match[3]) if match[3] else None)
    return [found[name] for name in _PHASES if name in found]


def parent_of(traceparent: bytes | None, tracestate: bytes | None) -> SpanContext | None:
    """The caller's span; None where the header is absent or not as the W3C has it."""
    match = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    if match is None:
        return None
    trace_id, span_id = int(match[1], 16), int(match[2], 16)
    if trace_id == 0 or span_id == 0:
        return None
    state = TraceState.from_header([tracestate.decode("latin-1")]) if tracestate else TraceState()
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(int(match[3], 16)), trace_state=state)


class Tracing:
    """Decides once at the edge whether a request is traced, as its caller asked or else by chance."""

    def __init__(self, exporter: SpanExporter, share: float, rng: random.Random, resource: Attributes) -> None:
        """`share` of the requests without a `traceparent` is traced; those with one as its flag says."""
        self._share = share
        self._rng = rng
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,  # what is not sampled never gets here
            resource=Resource({SERVICE_NAME: "foretide-gateway", **resource}),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=QUEUE_SPANS))
        self._tracer = self._provider.get_tracer("foretide.gateway")

    def begin(self, name: str, traceparent: bytes | None, tracestate: bytes | None) -> Trace | None:
        """None: not sampled."""
        parent = parent_of(traceparent, tracestate)
        if parent is None:
            if self._rng.random() >= self._share:
                return None
        elif not parent.trace_flags.sampled:
            return None
        context = api.set_span_in_context(api.NonRecordingSpan(parent)) if parent else None
        return Trace(self._tracer, self._tracer.start_span(name, context, SpanKind.SERVER))

    def close(self) -> None:
        """Exports what waits, for a few seconds at most; blocks, so call it off the loop."""
        self._provider.force_flush(3000)
        self._provider.shutdown()


class Trace:
    """The spans of one sampled request: one for all of it, and one below for each attempt on a worker."""

    __slots__ = ("_context", "_span", "_tracer")

    def __init__(self, tracer: api.Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self._context = api.set_span_in_context(span)

    @property
    def trace_id(self) -> str:
        """For log lines."""
        return f"{self._span.get_span_context().trace_id:032x}"

    def waited(self, name: str, duration_s: float) -> None:
        """A wait that has just ended: for its turn, or for a worker to become ready."""
        now_ns = time.time_ns()
        self._tracer.start_span(name, self._context, start_time=now_ns - int(duration_s * 1e9)).end(now_ns)

    def attempt(self, attributes: Attributes) -> AttemptSpan:
        """An attempt on a worker begins."""
        return AttemptSpan(self._tracer, self._tracer.start_span("attempt", self._context, SpanKind.CLIENT, attributes))

    def end(self, code: int, attributes: Attributes) -> None:
        """The request is over."""
        self._span.set_attributes({"http.response.status_code": code, **attributes})
        if code >= 500:
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


class AttemptSpan:
    """The span of one attempt, and those of the worker's phases below it."""

    __slots__ = ("_span", "_tracer", "headers")

    def __init__(self, tracer: api.Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self.headers = rendered(span.get_span_context())
        """Rendered, for the worker: by them it knows that it is traced."""

    def end(self, failure: str | None, server_timing: str = "") -> None:
        """The phases that the worker told of end with the attempt."""
        now_ns = time.time_ns()
        phases = phases_in(server_timing)
        start_ns = now_ns - int(sum(phase.duration_s for phase in phases) * 1e9)
        context = api.set_span_in_context(self._span)
        for phase in phases:
            end_ns = start_ns + int(phase.duration_s * 1e9)
            counted = None if phase.count is None else {_COUNTED[phase.name]: phase.count}
            self._tracer.start_span(phase.name, context, attributes=counted, start_time=start_ns).end(end_ns)
            start_ns = end_ns
        if failure is not None:
            self._span.set_attribute("error.type", failure)
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end(now_ns)


_COUNTED = {
    "queue": "foretide.engine.waiting",
    "prefill": "foretide.prefill.tokens",
    "decode": "foretide.engine.steps",
}


def rendered(context: SpanContext) -> bytes:
    """`traceparent` and, where there is one, `tracestate`, as header lines."""
    line = b"traceparent: 00-%032x-%016x-%02x\r\n" % (context.trace_id, context.span_id, context.trace_flags)
    state = context.trace_state.to_header()
    return line + b"tracestate: %b\r\n" % state.encode("latin-1") if state else line


def otlp(endpoint: str) -> SpanExporter:
    """To a collector's base URL, such as `http://collector.monitoring:4318`, by OTLP over HTTP."""
    return OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=5.0)
