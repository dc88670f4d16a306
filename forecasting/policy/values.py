"""What the scaling policy is told and what it answers: plain frozen values.

Every field is a number, a text or a tuple of those, so that a decision and all that it was made from fits one line of
JSON and can be decided again. Holds no arithmetic but unit conversions, and never reads a clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from forecasting.errors import BadSetting, ForecastingError


class RecordInvalid(ForecastingError):
    """A recorded decision that cannot be read back."""


class Policy(StrEnum):
    """Who has a say in the number of replicas."""

    REACTIVE = "reactive"  # measured load only
    PREDICTIVE = "predictive"  # measured load and the forecast, whichever wants more
    ADVISORY = "advisory"  # says what predictive would do; changes nothing inside the bounds


class Direction(StrEnum):
    """Where the number of replicas goes."""

    UP = "up"
    DOWN = "down"
    HOLD = "hold"


class Reason(StrEnum):
    """Why, in one word that fits a condition or an Event."""

    FORECAST = "Forecast"
    WORK = "WorkRate"
    CONCURRENCY = "Concurrency"
    KV_CACHE = "KVCache"
    IDLE = "Idle"
    BOUNDS = "Bounds"
    STALE = "MetricsStale"
    STABILISING = "Stabilising"
    COOLING_DOWN = "CoolingDown"
    ADVISORY = "Advisory"


@dataclass(frozen=True, slots=True)
class Bounds:
    """Fewest and most replicas. `limited_by` names what lowered the upper one, such as "tenant 'acme': quota 8"."""

    min_replicas: int
    max_replicas: int
    limited_by: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.min_replicas <= self.max_replicas:
            raise BadSetting(
                f"Bounds: min_replicas is {self.min_replicas} and max_replicas is {self.max_replicas};"
                " 0 <= min_replicas <= max_replicas is needed. Lower min or raise max."
            )


@dataclass(frozen=True, slots=True)
class Load:
    """What was measured over all replicas, `age_s` seconds ago.

    Rates count requests and input tokens as whoever measured does (of the operator's workers those that ended), and
    output tokens as they are produced; `kv_use` is the mean share 0..1 of the KV cache over the ready replicas.
    """

    requests_per_s: float
    input_tokens_per_s: float
    output_tokens_per_s: float
    running: float
    waiting: float
    kv_use: float
    age_s: float

    @property
    def is_sound(self) -> bool:
        """Every number is finite and none is negative."""
        return all(
            math.isfinite(value) and value >= 0
            for value in (
                self.requests_per_s,
                self.input_tokens_per_s,
                self.output_tokens_per_s,
                self.running,
                self.waiting,
                self.kv_use,
                self.age_s,
            )
        )

    @property
    def is_idle(self) -> bool:
        """Nothing arrives, runs or waits."""
        return self.requests_per_s == 0 and self.running == 0 and self.waiting == 0


@dataclass(frozen=True, slots=True)
class LoadForecast:
    """Quantiles of the work rate (weighted tokens/s, as `Capacity.work_of` counts them) for steps ahead.

    `values[i][j]` is the quantile `levels[j]` of the mean work rate over the `step_s` seconds that begin at
    `issued_s + i·step_s`. `calibrated` says whether its intervals have lately held what they promise. `plausible_max`
    is the most that the history makes believable; without it ten times the present scale is.
    """

    issued_s: float
    step_s: float
    levels: tuple[float, ...]
    values: tuple[tuple[float, ...], ...]
    calibrated: bool = True
    plausible_max: float | None = None

    def __post_init__(self) -> None:
        if self.step_s <= 0 or not self.levels or list(self.levels) != sorted(set(self.levels)):
            raise BadSetting(
                f"LoadForecast: step_s is {self.step_s} and levels are {self.levels};"
                " a positive step and rising levels are needed."
            )
        if any(len(row) != len(self.levels) for row in self.values):
            raise BadSetting(f"LoadForecast: every step needs {len(self.levels)} quantiles, one a level.")


KV_USE: Final = 0.8
"""Share of the KV cache above which requests are likely to be sent back to waiting."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one replica carries while it holds its latency targets.

    `work_per_s`: weighted tokens/s; `input_weight` and `output_weight` turn tokens into work; `running`: requests it
    may hold at once (running and waiting); `kv_use`: the share of its KV cache that may be in use; `because`: where
    the work rate is from, for messages.
    """

    work_per_s: float
    running: float
    kv_use: float = KV_USE
    input_weight: float = 1.0
    output_weight: float = 1.0
    because: str = ""

    def __post_init__(self) -> None:
        if not (self.work_per_s > 0 and self.running > 0 and self.kv_use > 0):
            raise BadSetting(
                f"Capacity: work_per_s is {self.work_per_s}, running is {self.running} and kv_use is {self.kv_use};"
                " all must be above 0. Measure the model's profile again."
            )

    def work_of(self, load: Load) -> float:
        """Weighted tokens/s of a measured load."""
        return self.input_weight * load.input_tokens_per_s + self.output_weight * load.output_tokens_per_s


@lru_cache(maxsize=256)
def zone_of(name: str) -> ZoneInfo:
    """A time zone by its name in the tz database.

    Raises:
        BadSetting: there is none of that name.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise BadSetting(f"Window: zone {name!r} is unknown; use a name such as 'UTC' or 'Europe/Paris'.") from error


@dataclass(frozen=True, slots=True)
class Window:
    """Other bounds on some weekdays (0 is Monday) from `start_minute` to `end_minute` of the day in `zone`.

    A window whose end is not after its start goes on past midnight and belongs to the day on which it starts.
    """

    days: tuple[int, ...]
    start_minute: int
    end_minute: int
    min_replicas: int
    max_replicas: int
    zone: str = "UTC"

    def __post_init__(self) -> None:
        if not (0 <= self.start_minute < 1440 and 0 <= self.end_minute <= 1440):
            raise BadSetting(f"Window: {self.start_minute}..{self.end_minute} is not within the 1440 minutes of a day.")
        if not all(0 <= day <= 6 for day in self.days):
            raise BadSetting(f"Window: days are {self.days}; 0 (Monday) to 6 (Sunday) are allowed.")
        if not 0 <= self.min_replicas <= self.max_replicas:
            raise BadSetting(f"Window: min_replicas {self.min_replicas} is above max_replicas {self.max_replicas}.")
        zone_of(self.zone)


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """How careful the policy is.

    quantile: level of the forecast that capacity is bought for. horizon_s: how long past the lead time a decision must
    hold. headroom: factor on every work rate. hysteresis: replicas go down only when the load would fit with this share
    to spare. A step up is at most the larger of up_replicas and up_share·current, a step down likewise.
    stabilisation_s: a step down goes no lower than any need of that long. cooldown_up_s and cooldown_down_s: time since
    the last change. stale_after_s: older load is missing load. idle_after_s: quiet time before the last replica goes.
    promised: share of requests that shall meet their targets; the quantile is then only where steering begins.
    """

    policy: Policy = Policy.PREDICTIVE
    quantile: float = 0.95
    horizon_s: float = 300.0
    headroom: float = 1.0
    hysteresis: float = 0.05
    up_replicas: int = 4
    up_share: float = 1.0
    down_replicas: int = 1
    down_share: float = 0.25
    stabilisation_s: float = 300.0
    cooldown_up_s: float = 0.0
    cooldown_down_s: float = 60.0
    stale_after_s: float = 90.0
    idle_after_s: float = 600.0
    windows: tuple[Window, ...] = ()
    promised: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.quantile < 1:
            raise BadSetting(f"PolicySettings: quantile is {self.quantile}; more than 0 and less than 1 is needed.")
        if self.promised is not None and not 0 < self.promised < 1:
            raise BadSetting(f"PolicySettings: promised is {self.promised}; more than 0 and less than 1 is needed.")
        if self.up_replicas < 1 or self.down_replicas < 1:
            raise BadSetting(
                f"PolicySettings: up_replicas is {self.up_replicas}, down_replicas {self.down_replicas};"
                " at least 1 each, or the number can never change."
            )
        if self.headroom <= 0 or self.hysteresis < 0:
            raise BadSetting(
                f"PolicySettings: headroom is {self.headroom}, hysteresis {self.hysteresis};"
                " headroom above 0 and hysteresis of at least 0 are needed."
            )


@dataclass(frozen=True, slots=True)
class Judged:
    """Counters, as of `at_s`: requests of which it is known whether they met their targets, and those that did."""

    at_s: float
    requests: float
    good: float


@dataclass(frozen=True, slots=True)
class Steering:
    """Where the quantile is (log-odds), the counters that it was last moved by, and the mean rate of requests over the
    last `seen_s`, of which the last day counts."""

    logit: float
    last: Judged
    usual_per_s: float | None = None
    seen_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Memory:
    """What one decision leaves for the next; an empty one (after a restart) only makes the next step down later.

    since_s: first decision remembered. needs: (time, replicas) of the stabilisation window, falling in replicas.
    changed_s: last change of the number. busy_s: last time that anything ran or may have, unseen. steering: of the
    quantile.
    """

    since_s: float | None = None
    needs: tuple[tuple[float, int], ...] = ()
    changed_s: float | None = None
    busy_s: float | None = None
    steering: Steering | None = None


@dataclass(frozen=True, slots=True)
class ScalingInput:
    """Everything one decision is made from. `current`: replicas asked for now; `ready`: those that serve.

    `lead_time_s`: the time from asking for a replica to its first answer (p95 as measured). `judged`: None where nobody
    counts which requests met their targets.
    """

    now_s: float
    bounds: Bounds
    current: int
    ready: int
    load: Load | None
    forecast: LoadForecast | None
    capacity: Capacity
    lead_time_s: float
    settings: PolicySettings
    memory: Memory
    judged: Judged | None = None


@dataclass(frozen=True, slots=True)
class ScalingDecision:
    """The number of replicas to ask for, and why.

    wanted: what the policy would ask for (differs from `replicas` in advisory mode only). message: the arithmetic.
    forecast_ignored: why the forecast had no say, None when it had or none was given. memory: for the next decision.
    """

    replicas: int
    wanted: int
    direction: Direction
    reason: Reason
    message: str
    forecast_ignored: str | None
    inputs: ScalingInput
    memory: Memory
