"""CapacityForecast: what the operator expects of one InferenceService, and how many workers that will take.

Written by the operator only; people and dashboards read it. Numbers that are no integers are decimal strings, as the
Kubernetes API conventions ask for.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from crds.conditions import Condition
from crds.fields import ListMap, ObjectName, Part

Rate = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,12}(\.[0-9]{1,3})?$", max_length=16)]
"""Tokens each second, as a decimal number: `12.5`."""
Percent = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,3}(\.[0-9]{1,2})?%$", max_length=8)]


class CapacityForecastSpec(Part):
    """Of what."""

    service: Annotated[ObjectName, Field(description="Name of the InferenceService, in the same namespace.")]


class Horizon(Part):
    """The load at one distance, as quantiles, and what it takes."""

    ahead: Annotated[str, Field(description="Distance from `updated`, for example 30m.", max_length=8)]
    p50: Annotated[Rate, Field(description="As likely above as below, in tokens each second.")]
    p80: Annotated[Rate, Field(description="Exceeded one time in five.")]
    p95: Annotated[Rate, Field(description="Exceeded one time in twenty.")]
    p99: Annotated[Rate, Field(description="Exceeded one time in a hundred.")]
    replicas: Annotated[int | None, Field(description="Workers that p95 takes, within min and max.", ge=0)] = None


class Coverage(Part):
    """How often the truth lay within an interval."""

    level: Annotated[Percent, Field(description="How often it should: 80%, 95% or 99%.")]
    achieved: Annotated[Percent, Field(description="How often it did, lately.")]
    samples: Annotated[int, Field(description="Forecasts that have met their truth and are counted.", ge=0)]


class CostPlan(Part):
    """The mix of capacity for the planned workers with the least cost."""

    reserved: Annotated[int, Field(description="Workers on reserved capacity.", ge=0)]
    on_demand: Annotated[int, Field(description="Most workers on on-demand capacity.", ge=0)]
    spot: Annotated[
        int, Field(description="Most workers on spot capacity; what interruptions cost is in the price.", ge=0)
    ]
    per_hour: Annotated[
        str,
        Field(
            description="Cost of an hour, in the unit of the prices.",
            pattern=r"^[0-9]{1,12}(\.[0-9]{1,4})?$",
            max_length=20,
        ),
    ]
    message: Annotated[str, Field(description="Why this mix, as arithmetic.", max_length=1024)]


class CapacityForecastStatus(Part):
    """What is expected, and how well that went until now."""

    observed_generation: Annotated[int | None, Field(description="metadata.generation that this status speaks of.")] = (
        None
    )
    conditions: Annotated[
        list[Condition] | None,
        ListMap(("type",)),
        Field(
            description="Ready: there is a forecast that scaling may rely on. While not, Reconciling, or Stalled "
            "where a person has to act.",
            max_length=16,
        ),
    ] = None
    updated: Annotated[
        str | None, Field(description="When it was made (RFC 3339).", json_schema_extra={"format": "date-time"})
    ] = None
    source: Annotated[
        str | None, Field(description="Where its history is from: Prometheus or Store.", max_length=32)
    ] = None
    history: Annotated[
        str | None,
        Field(description="How much history, in which steps, and how much of it is missing.", max_length=128),
    ] = None
    forecaster: Annotated[str | None, Field(description="What made it.", max_length=128)] = None
    load: Annotated[Rate | None, Field(description="Last measured load, in tokens each second.")] = None
    lead_time: Annotated[
        str | None, Field(description="How long a new worker takes: the distance that scaling looks at.", max_length=16)
    ] = None
    capacity: Annotated[
        Rate | None, Field(description="Work that one worker carries, said or learned, in tokens each second.")
    ] = None
    capacity_reason: Annotated[
        str | None, Field(description="Where that number is from, as arithmetic.", max_length=512)
    ] = None
    replicas: Annotated[int | None, Field(description="Workers wanted now.", ge=0)] = None
    planned_replicas: Annotated[
        int | None,
        Field(description="Workers that the forecast takes at the lead time, within quota and pools.", ge=0),
    ] = None
    wanted_replicas: Annotated[
        int | None, Field(description="The same whatever GPU pools have: what pools are asked for.", ge=0)
    ] = None
    limited_by: Annotated[
        str | None,
        Field(description="Whose limit is below the plan or the peak, and how many workers it leaves.", max_length=512),
    ] = None
    peak: Annotated[
        str | None, Field(description="Most workers within sight and when, for people: 8 in 45m.", max_length=32)
    ] = None
    provision: Annotated[
        int | None,
        Field(
            description="Workers to have accelerators for: the highest load of history and forecast, half as much "
            "again, and one in reserve; not bounded by max.",
            ge=0,
        ),
    ] = None
    horizons: Annotated[
        list[Horizon] | None,
        ListMap(("ahead",)),
        Field(description="The load at some distances.", max_length=32),
    ] = None
    coverage: Annotated[
        list[Coverage] | None,
        ListMap(("level",)),
        Field(description="How often the truth lay within each interval.", max_length=8),
    ] = None
    coverage_text: Annotated[
        str | None, Field(description="Coverage of the 95 % interval, for people.", max_length=32)
    ] = None
    cost: Annotated[CostPlan | None, Field(description="Cheapest mix of capacity for the peak.")] = None
