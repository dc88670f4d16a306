"""What is replayed: a trace, thinned to a mean fleet, cut into the past, the tuning days and the test days.

Rebuilding two weeks of arrivals takes a while, so the counts of each second are kept in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cli.trace_files import read_trace
from e2e.cluster.paths import cache_dir
from forecasting.capacity import capacity_of
from forecasting.profile import Profile
from forecasting.simulator.arrivals import Lengths, SecondArrivals, lengths_of, per_second
from forecasting.simulator.autoscalers.common import Sizing
from forecasting.simulator.requests import Ints, Requests
from forecasting.simulator.servegen import Clients, arrival_times, requests_of, seconds_of
from forecasting.simulator.world import Slo

DAY_S = 86_400


@dataclass(frozen=True, slots=True, eq=False)
class Lent:
    """Lengths for traces that have none of their own."""

    inputs: Ints
    outputs: Ints
    lengths: Lengths


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """A trace at one fleet size. Times in seconds from its start; `make(seed)` gives all of its arrivals."""

    name: str
    tune: tuple[int, int]
    test: tuple[int, int]
    make: Callable[[int], SecondArrivals]
    sample: Callable[[int], Requests]
    """Single requests of so many seconds of the test days."""


def sizing_of(profile: Profile, lengths: Lengths, slo: Slo) -> Sizing:
    """What all autoscalers are told about one replica."""
    one = capacity_of(profile, lengths, slo)
    return Sizing(
        one.requests_per_s,
        one.work_per_s,
        one.input_weight,
        one.running,
        one.kv_use,
        lengths.mean_input,
        lengths.decode + 1,
    )


def lent_by(requests: Requests) -> Lent:
    """The lengths of a trace of single requests."""
    inputs, outputs = requests.input_tokens.astype(np.float64), requests.output_tokens.astype(np.float64)
    return Lent(requests.input_tokens, requests.output_tokens, lengths_of(inputs, outputs))


def servegen(
    name: str,
    clients: Clients,
    lent: Lent,
    fleet: float,
    sizing: Sizing,
    tune: tuple[int, int] = (0, 7),
    tested: tuple[int, int] = (7, 14),
) -> Workload:
    """Two weeks: tuning and test days as given (from 0, end excluded); of a shorter trace the two halves."""
    days = clients.windows * 600 // DAY_S
    whole_s = clients.windows * 600
    share = min(fleet * sizing.requests_per_s / float(clients.rate.sum(axis=0).mean()), 1.0)
    test = (tested[0] * DAY_S, min(tested[1] * DAY_S, whole_s)) if days > 7 else (whole_s // 2, whole_s)
    tuned = (tune[0] * DAY_S, tune[1] * DAY_S) if days > 7 else (0, whole_s // 2)

    def make(seed: int) -> SecondArrivals:
        key = hashlib.sha256(clients.rate.tobytes() + f"{share:.9f} {seed}".encode()).hexdigest()[:16]
        return _kept(key, lent.lengths, lambda: seconds_of(clients, share, lent.inputs, lent.lengths, seed))

    def sample(span_s: int) -> Requests:
        first = (test[0] + DAY_S // 2) // 600 if test[1] - test[0] > DAY_S else test[0] // 600
        times = arrival_times(clients.between(first, first + span_s // 600), share, 0)
        return requests_of(times, lent.inputs, lent.outputs, float(span_s), 0)

    return Workload(f"{name}, mean fleet of {fleet:g}", tuned, test, make, sample)


def single_requests(name: str, requests: Requests, fleet: float | None, sizing: Sizing) -> Workload:
    """A trace of single requests: tuned on its first half, tested on the second."""
    rate = len(requests) / requests.duration_s
    share = 1.0 if fleet is None else min(fleet * sizing.requests_per_s / rate, 1.0)
    whole_s = int(requests.duration_s) // 60 * 60
    half_s = whole_s // 120 * 60

    def make(seed: int) -> SecondArrivals:
        return per_second(requests.thinned(share, seed)).between(0, whole_s)

    def sample(span_s: int) -> Requests:
        return requests.thinned(share, 0).between(half_s, min(half_s + span_s, whole_s))

    return Workload(name, (0, half_s), (half_s, whole_s), make, sample)


def from_file(
    path: Path, lent: Lent | None, fleet: float, sizing: Sizing | None, profile: Profile, slo: Slo
) -> Workload:
    """Any trace that the command reads too."""
    found = read_trace(path)
    name = path.name.split(".")[0]
    if isinstance(found, Clients):
        if lent is None or sizing is None:
            raise FileNotFoundError(f"{path} has no lengths: the Azure conversation trace is needed for them.")
        return servegen(name, found, lent, fleet, sizing)
    own = sizing_of(profile, lent_by(found).lengths, slo)
    return single_requests(name, found, fleet, own)


def _kept(key: str, lengths: Lengths, make: Callable[[], SecondArrivals]) -> SecondArrivals:
    path = cache_folder() / f"{key}.npz"
    if not path.exists():
        made = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.npz")
        np.savez(partial, counts=made.counts.astype(np.int32), inputs=made.inputs.astype(np.int32))
        partial.replace(path)
    with np.load(path) as kept:
        return SecondArrivals(kept["counts"].astype(np.float64), kept["inputs"].astype(np.float64), lengths)


def cache_folder() -> Path:
    """Where arrivals and finished cells lie, so that an interrupted run goes on."""
    return cache_dir() / "bench-autoscaling"
