"""Whether an answer came as its SLA wants it: what goodput counts. Pure; never decides what becomes of a request."""

from __future__ import annotations

from gateway.catalog import Service


def in_time(service: Service, ttft_s: float | None, duration_s: float, output_tokens: int) -> bool:
    """All targets of the SLA that the gateway can tell are met; without an SLA nothing is late.

    `ttft_s` is None for an answer in one piece, of which TTFT and TPOT cannot be seen: only its end is judged.
    """
    if service.e2e_target_s is not None and duration_s > service.e2e_target_s:
        return False
    if ttft_s is None:
        return True
    if service.ttft_target_s is not None and ttft_s > service.ttft_target_s:
        return False
    tpot_s = (duration_s - ttft_s) / max(output_tokens - 1, 1)
    return service.tpot_target_s is None or tpot_s <= service.tpot_target_s
