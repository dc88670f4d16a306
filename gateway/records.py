"""What the access log and the span of a request say of it. Never a key, a prompt or an answer."""

from __future__ import annotations

import time
from typing import Any

from crds.log_lines import moment
from gateway.admission.door import Grant
from gateway.flight import Flight
from gateway.http1.messages import Request


def record_of(flight: Flight, duration_s: float) -> dict[str, Any]:
    """The line of a request that a service took."""
    backend = flight.backend
    return {
        "time": moment(time.time()),
        "request_id": flight.request_id.decode(),
        "trace_id": flight.trace.trace_id if flight.trace else None,
        "tenant": flight.tenant,
        "namespace": flight.state.service.key.namespace,
        "service": flight.state.service.key.name,
        "path": flight.path.decode(),
        "endpoint": backend.endpoint.where if backend else None,
        "revision": backend.endpoint.revision if backend else None,
        "code": flight.status,
        "bytes": flight.bytes_out,
        "stream": flight.stream,
        "ttft_s": flight.ttft_s,
        "duration_s": round(duration_s, 6),
        "retries": flight.retries,
        "decision": flight.decision,
        "fallback": flight.notes != b"",
        "moves": flight.moving.moves if flight.moving else 0,
        "gap_s": round(flight.moving.gap_s, 6) if flight.moving else 0.0,
        "failure": flight.failure.value if flight.failure else None,
    }


def record_of_unforwarded(
    request: Request, request_id: bytes, tenant: str, code: int, size: int, started_s: float
) -> dict[str, Any]:
    """The line of one that was answered here."""
    return {
        "time": moment(time.time()),
        "request_id": request_id.decode(),
        "tenant": tenant,
        "path": request.target.partition(b"?")[0][:200].decode("latin-1"),
        "code": code,
        "bytes": size,
        "duration_s": round(time.perf_counter() - started_s, 6),
    }


def spoken_of(flight: Flight, grant: Grant | None) -> dict[str, str | int | float]:
    """What the span of a request says beside its times."""
    key = flight.state.service.key
    said: dict[str, str | int | float] = {
        "foretide.request_id": flight.request_id.decode(),
        "foretide.tenant": flight.tenant,
        "foretide.service": str(key),
        "gen_ai.request.model": key.name,
        "foretide.retries": flight.retries,
        "http.request.method": "POST",
        "url.path": flight.path.decode("latin-1"),
    }
    if grant is not None:
        said["foretide.class"] = grant.priority.name
    if flight.ttft_s is not None:
        said["foretide.ttft_s"] = flight.ttft_s
    if flight.usage is not None:
        said["gen_ai.usage.input_tokens"] = flight.usage.prompt
        said["gen_ai.usage.output_tokens"] = flight.usage.completion
    return said
