"""SLA: how important requests are and what their latency should be."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Final

from pydantic import Field

from crds.conditions import Condition
from crds.fields import Duration, ListMap, LongDuration, Part, Rule


class Priority(StrEnum):
    """Class of a request, by the time to its first token: P0 < 100 ms, P1 < 1 s, P2 < 10 s, P3 best effort."""

    P0 = "P0"
    P1 = "P1"
    P2 = "P2"
    P3 = "P3"


FIRST_TOKEN: Final = {Priority.P0: "100ms", Priority.P1: "1s", Priority.P2: "10s"}
"""Within which a class means it to come; the next class is for what may come later."""


class Targets(Part):
    """Latency targets; at least one."""

    rules: ClassVar = (
        Rule("has(self.ttft) || has(self.tpot) || has(self.e2e)", "set at least one of ttft, tpot and e2e"),
        Rule(
            "!has(self.ttft) || !has(self.e2e) || duration(self.ttft) <= duration(self.e2e)",
            "ttft must not be longer than e2e: the first token comes before the last",
        ),
    )
    ttft: Annotated[Duration | None, Field(description="Time to first token, for example 500ms.")] = None
    tpot: Annotated[Duration | None, Field(description="Time per output token after the first, for example 50ms.")] = (
        None
    )
    e2e: Annotated[Duration | None, Field(description="Time to the last token, for example 30s.")] = None
    percentile: Annotated[
        int, Field(description="Share of requests, in percent, that must meet the targets.", ge=50, le=99)
    ] = 99


def _ttft_rule(priority: str, bound: str, lower: str) -> Rule:
    return Rule(
        f"self.priority != '{priority}' || !has(self.targets) || !has(self.targets.ttft) "
        f"|| duration(self.targets.ttft) <= duration('{bound}')",
        f"{priority} means a first token within {bound}: lower targets.ttft or choose {lower}",
    )


class SLASpec(Part):
    """Importance and targets."""

    rules: ClassVar = (
        *(_ttft_rule(*row) for row in zip(FIRST_TOKEN, FIRST_TOKEN.values(), list(Priority)[1:], strict=True)),
        Rule(
            "has(self.availability) == has(self.window)",
            "availability and window come together: the error budget is (1 - availability) of the window",
        ),
    )
    priority: Annotated[
        Priority,
        Field(
            description="Class of the requests: P0 < 100 ms to the first token, P1 < 1 s, P2 < 10 s, P3 best effort."
        ),
    ]
    targets: Annotated[Targets | None, Field(description="Latency targets that the gateway measures.")] = None
    availability: Annotated[
        str | None,
        Field(
            description='Share of requests that must succeed, for example "99.9%".',
            pattern=r"^[0-9]{1,2}(\.[0-9]{1,4})?%$",
            max_length=8,
        ),
    ] = None
    window: Annotated[
        LongDuration | None, Field(description="Time over which availability is counted, for example 28d.")
    ] = None


class SLAStatus(Part):
    """What follows from the spec, and who relies on it."""

    observed_generation: Annotated[int | None, Field(description="metadata.generation that this status speaks of.")] = (
        None
    )
    conditions: Annotated[
        list[Condition] | None,
        ListMap(("type",)),
        Field(description="Ready and, while it applies, Stalled.", max_length=16),
    ] = None
    error_budget: Annotated[
        str | None,
        Field(description="Full outage that the availability allows in a window, for example 40m19s.", max_length=32),
    ] = None
    used_by: Annotated[
        list[str] | None, Field(description="InferenceServices that name this SLA.", max_length=1000)
    ] = None
    services: Annotated[int | None, Field(description="Number of InferenceServices that name this SLA.", ge=0)] = None
