"""What can be chosen about scheduling: the order of requests, how they are put into batches, how patient each is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

AGEING_S: Final = 20.0


class PolicyName(StrEnum):
    """Who comes first."""

    FCFS = "fcfs"
    PRIORITY = "priority"
    FAIR = "fair"
    EDF = "edf"
    FEEDBACK = "feedback"


class Batching(StrEnum):
    """When those who wait may join those who run."""

    CONTINUOUS = "continuous"
    ADAPTIVE = "adaptive"
    DYNAMIC = "dynamic"
    STATIC = "static"


class Packing(StrEnum):
    """Which of those who wait make up a batch."""

    ORDER = "order"
    FIRST_FIT = "first-fit"
    BUCKETS = "buckets"


@dataclass(frozen=True)
class Scheduling:
    """How an engine schedules. The default is what costs least: first come, first served, joined at once."""

    policy: PolicyName = PolicyName.FCFS
    batching: Batching = Batching.CONTINUOUS
    packing: Packing = Packing.ORDER
    min_batch: int = 1
    """Fewer than these begin no batch before `max_wait_s`."""
    max_batch: int | None = None
    """The most that run at once; None: as many as have a row."""
    batch_base: int = 8
    """Adaptive batching lets requests in by this many where nothing runs, and by fewer the fuller the engine is."""
    min_wait_s: float = 0.0
    """No batch begins before its first request has waited so long, in which others may come."""
    max_wait_s: float = 0.05
    """A request waits no longer than this for others to fill its batch."""
    ageing_s: float = AGEING_S
    """A request that has waited so long stands where one of the next better class stands that comes now."""

    @property
    def problem(self) -> str | None:
        """A sentence where settings contradict each other."""
        if self.max_batch is not None and self.max_batch < self.min_batch:
            return f"--max-batch is {self.max_batch}; it must be at least --min-batch, {self.min_batch}."
        if self.max_wait_s < self.min_wait_s:
            return f"--max-wait-s is {self.max_wait_s:g}; it must be at least --min-wait-s, {self.min_wait_s:g}."
        return None


DEFAULT: Final = Scheduling()
