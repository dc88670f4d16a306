"""How the number of workers is chosen: what a person says in `spec.scaling`, and what the operator answers."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from crds.fields import Duration, ListMap, ListSet, ObjectName, Part, Rule


class ScalingPolicy(StrEnum):
    """Reactive follows the load, predictive goes before it, advisory only says what predictive would do."""

    REACTIVE = "reactive"
    PREDICTIVE = "predictive"
    ADVISORY = "advisory"


class Weekday(StrEnum):
    MONDAY = "Mon"
    TUESDAY = "Tue"
    WEDNESDAY = "Wed"
    THURSDAY = "Thu"
    FRIDAY = "Fri"
    SATURDAY = "Sat"
    SUNDAY = "Sun"


CLOCK = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"

TimeZone = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$", max_length=64),
    # CEL also takes offsets (which the pattern refuses) and Local for zones; no other program knows them by name.
    Rule(
        "self != 'Local' && timestamp('2026-01-01T00:00:00Z').getHours(self) >= 0",
        "timeZone must be an IANA time zone name",
    ),
]
"""Name in the tz database: `Europe/Berlin`."""


class ScheduleWindow(Part):
    """A time of the week with limits of its own; the first window that is open wins."""

    rules: ClassVar = (
        Rule("has(self.min) || has(self.max)", "a window sets min, max or both"),
        Rule("!has(self.min) || !has(self.max) || self.min <= self.max", "min must not be greater than max"),
        Rule("self.start != self.end", "start and end must differ; a window that ends before it starts ends next day"),
    )
    name: Annotated[ObjectName, Field(description="Name of the window, as messages show it.")]
    days: Annotated[
        list[Weekday] | None,
        ListSet(),
        Field(description="Days on which it starts; every day when left out.", min_length=1, max_length=7),
    ] = None
    start: Annotated[str, Field(description="First minute, for example 08:00.", pattern=CLOCK, max_length=5)]
    end: Annotated[str, Field(description="First minute after it, for example 18:30.", pattern=CLOCK, max_length=5)]
    time_zone: Annotated[TimeZone, Field(description="IANA name of the time zone, for example Europe/Berlin.")] = "UTC"
    min: Annotated[int | None, Field(description="Fewest workers while it is open.", ge=0, le=1000)] = None
    max: Annotated[int | None, Field(description="Most workers while it is open.", ge=1, le=1000)] = None


class Scaling(Part):
    """The operator chooses the number of workers, within limits, from the load and its forecast."""

    rules: ClassVar = (
        Rule("self.min <= self.max", "min must not be greater than max"),
        Rule(
            "!has(self.schedule) || self.schedule.all(w, (!has(w.min) || w.min <= self.max) "
            "&& (!has(w.max) || w.max <= self.max))",
            "no window may go beyond max: raise max to the most workers of any time, and bound other times by windows",
        ),
    )
    policy: Annotated[
        ScalingPolicy,
        Field(
            description="reactive follows the load; predictive adds workers before a load that the forecast sees; "
            "advisory only writes into the status what predictive would do."
        ),
    ] = ScalingPolicy.REACTIVE
    min: Annotated[
        int, Field(description="Fewest workers; 0 lets the last one go after idlePeriod.", ge=0, le=1000)
    ] = 1
    max: Annotated[int, Field(description="Most workers.", ge=1, le=1000)]
    target_concurrency: Annotated[
        int, Field(description="Requests, running and waiting, that one worker should hold.", ge=1, le=4096)
    ] = 8
    tokens_per_second: Annotated[
        int | None,
        Field(
            description="Work that one worker carries within its SLA: output tokens plus a share of input tokens, each "
            "second. Learned from the load when left out.",
            ge=1,
            le=10_000_000,
        ),
    ] = None
    step_up: Annotated[
        int | None,
        Field(
            description="Most workers that one decision adds; as many as there are, at least 4, when left out.",
            ge=1,
            le=1000,
        ),
    ] = None
    step_down: Annotated[
        int | None,
        Field(description="Most workers that one decision takes away; half of them when left out.", ge=1, le=1000),
    ] = None
    scale_down_delay: Annotated[
        Duration, Field(description="How long the load must have been lower before workers are taken away.")
    ] = "5m"
    idle_period: Annotated[
        Duration, Field(description="With min 0: how long no request must have come before the last worker goes.")
    ] = "10m"
    schedule: Annotated[
        list[ScheduleWindow] | None,
        ListMap(("name",)),
        Field(description="Limits for times of the week, in order; min and max hold outside of them.", max_length=32),
    ] = None

    @property
    def fewest(self) -> int:
        """Fewest workers at any time of the week."""
        return min([self.min, *(window.min for window in self.schedule or () if window.min is not None)])


class LastDecision(Part):
    """The last time the number of workers changed, and why."""

    time: Annotated[str, Field(description="When (RFC 3339).", json_schema_extra={"format": "date-time"})]
    before: Annotated[int, Field(description="Workers wanted before.", ge=0)]
    after: Annotated[int, Field(description="Workers wanted since.", ge=0)]
    reason: Annotated[str, Field(description="Why, as one CamelCase word for machines.", max_length=64)]
    message: Annotated[str, Field(description="Why, as arithmetic for people.", max_length=1024)]


class RaisedFloor(Part):
    """More workers than the load asks for, because an alert does."""

    workers: Annotated[int, Field(description="Fewest workers.", ge=1)]
    until: Annotated[
        str, Field(description="Until then at most (RFC 3339).", json_schema_extra={"format": "date-time"})
    ]
    message: Annotated[str, Field(description="Which alert asks for it, and by which reaction.", max_length=1024)]


class ScalingStatus(Part):
    """What the operator makes of `spec.scaling`."""

    policy: Annotated[
        ScalingPolicy, Field(description="Policy that decides now: reactive while the forecast is not to be trusted.")
    ]
    advised_replicas: Annotated[
        int | None,
        Field(description="Workers that the policy calls for, whoever decides and whatever a quota leaves.", ge=0),
    ] = None
    wanted_replicas: Annotated[
        int | None,
        Field(
            description="Where GPU pools leave fewer: the workers that they are asked for, within the Tenant's quota.",
            ge=0,
        ),
    ] = None
    lead_time: Annotated[
        str | None, Field(description="How far ahead it looks: the time that a new worker takes.", max_length=16)
    ] = None
    floor: Annotated[RaisedFloor | None, Field(description="What an alert asks for, while it does.")] = None
    last_decision: Annotated[LastDecision | None, Field(description="Last change of the number of workers.")] = None
