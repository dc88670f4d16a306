"""ServeGen's client windows back into requests: each client's count and burstiness per 600 s, as published.

A window of a client says how many requests it sent a second and how its gaps were spread (Gamma or Weibull with a shape
and a scale). Its requests are placed anew: exactly the published count, gaps from the published distribution, scaled to
fill the window. All-zero windows of a whole model are gaps in the collection, not zero load: they take the mean of the
windows around them. Lengths come from elsewhere (`Lengths` of a trace that has them).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from forecasting.simulator.arrivals import Lengths, SecondArrivals
from forecasting.simulator.requests import Floats, Ints, Requests
from forecasting.simulator.traces import TraceInvalid

WINDOW_S = 600
MOST_WINDOWS = 366 * 86_400 // WINDOW_S
"""A year."""
MOST_PER_S = 1e5
"""Of one client."""


@dataclass(frozen=True, slots=True, eq=False)
class Clients:
    """rate: (clients, windows) requests/s; shape: (clients, windows) of the gaps; weibull: which of the two."""

    rate: Floats
    shape: Floats
    weibull: np.ndarray[tuple[int, int], np.dtype[np.bool_]]

    @property
    def windows(self) -> int:
        return int(self.rate.shape[1])

    def between(self, first: int, last: int) -> Clients:
        return Clients(self.rate[:, first:last], self.shape[:, first:last], self.weibull[:, first:last])


def read_clients(files: Mapping[str, Iterable[str]]) -> Clients:
    """The windows of all clients of one model; `files` are the lines of each client's file by its name.

    Raises:
        TraceInvalid: a row is not `start_s,rate,cv,Gamma|Weibull,shape,scale`; says file and line.
    """
    rows = [_read_client(name, lines) for name, lines in sorted(files.items())]
    if not rows:
        raise TraceInvalid("ServeGen: no client file was given.")
    windows = max((max(client) for client in rows if client), default=-1) + 1
    if not windows:
        raise TraceInvalid("ServeGen: no client file holds a window.")
    rate, shape = np.zeros((len(rows), windows)), np.ones((len(rows), windows))
    weibull = np.zeros((len(rows), windows), dtype=np.bool_)
    for at, client in enumerate(rows):
        for window, (per_s, gap_shape, is_weibull) in client.items():
            rate[at, window], shape[at, window], weibull[at, window] = per_s, gap_shape, is_weibull
    return _without_gaps(Clients(rate, shape, weibull))


def _read_client(name: str, lines: Iterable[str]) -> dict[int, tuple[float, float, bool]]:
    found: dict[int, tuple[float, float, bool]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            start, rate, _, pattern, shape, _ = line.strip().split(",")
            window, per_s = float(start) / WINDOW_S, float(rate)
            if pattern not in ("Gamma", "Weibull", "") or not 0 <= per_s <= MOST_PER_S:
                raise ValueError
            if not 0 <= window < MOST_WINDOWS or window != int(window) or int(window) in found:
                raise ValueError
            if pattern and per_s > 0:
                if not math.isfinite(float(shape)):
                    raise ValueError
                found[int(window)] = per_s, max(float(shape), 1e-3), pattern == "Weibull"
            else:
                found[int(window)] = per_s, 1.0, False
        except ValueError as error:
            raise TraceInvalid(
                f"{name}, line {number}: {line.strip()[:80]!r}; start_s (a multiple of {WINDOW_S}, within a year), rate"
                f" (at most {MOST_PER_S:g} a second), cv, Gamma or Weibull, shape and scale are needed."
            ) from error
    return found


def _without_gaps(clients: Clients) -> Clients:
    """Windows in which nobody sent anything get each client's mean of the nearest windows with load."""
    total = clients.rate.sum(axis=0)
    known = np.flatnonzero(total > 0)
    for window in np.flatnonzero(total == 0):
        around = [known[known < window][-1:], known[known > window][:1]]
        near = np.concatenate(around)
        if len(near):
            clients.rate[:, window] = clients.rate[:, near].mean(axis=1)
            clients.shape[:, window] = clients.shape[:, near[0]]
            clients.weibull[:, window] = clients.weibull[:, near[0]]
    return clients


def arrival_times(clients: Clients, share: float, seed: int) -> Floats:
    """Seconds at which requests come, sorted; each is kept with probability `share` (Bernoulli)."""
    parts = [_window_times(clients, window, share, seed) for window in range(clients.windows)]
    return np.concatenate(parts) if parts else np.zeros(0)


def _window_times(clients: Clients, window: int, share: float, seed: int) -> Floats:
    random = np.random.default_rng((seed, window, 0x5E97))
    times = [np.zeros(0)]
    for client in np.flatnonzero(clients.rate[:, window] > 0):
        expected = clients.rate[client, window] * WINDOW_S
        count = int(expected) + int(random.random() < expected - int(expected))
        kept = np.flatnonzero(random.random(count) < share)
        if len(kept):
            shape, weibull = float(clients.shape[client, window]), bool(clients.weibull[client, window])
            times.append(_spread(random, kept, count, shape, weibull))
    return np.sort(np.concatenate(times)) + window * WINDOW_S


def _spread(random: np.random.Generator, kept: Ints, count: int, shape: float, weibull: bool) -> Floats:
    """Times in the window of the requests `kept` out of `count` whose gaps have this shape."""
    if weibull:
        ends = np.cumsum(random.weibull(shape, count + 1))
        return np.asarray(ends[kept] / ends[-1] * WINDOW_S, dtype=np.float64)
    # A sum of Gamma gaps is a Gamma gap: only the kept requests need to be drawn.
    between = np.diff(np.concatenate([[-1], kept, [count]]))
    ends = np.cumsum(random.gamma(shape * between))
    whole = ends[-1]
    return np.asarray(ends[:-1] / whole * WINDOW_S if whole > 0 else np.zeros(len(kept)), dtype=np.float64)


def requests_of(times: Floats, inputs: Ints, outputs: Ints, duration_s: float, seed: int) -> Requests:
    """Requests at these times, each with the lengths of a random request of another trace."""
    which = np.random.default_rng((seed, 0x1E45)).integers(0, len(inputs), len(times))
    return Requests(np.minimum(times, duration_s), inputs[which], outputs[which], duration_s)


def seconds_of(clients: Clients, share: float, inputs: Ints, lengths: Lengths, seed: int) -> SecondArrivals:
    """The same, counted by the second, window by window: two weeks of a large service fit into memory."""
    counts, tokens = [], []
    for window in range(clients.windows):
        times = _window_times(clients, window, share, seed) - window * WINDOW_S
        drawn = inputs[np.random.default_rng((seed, window, 0x1E45)).integers(0, len(inputs), len(times))]
        at = np.minimum(times.astype(np.int64), WINDOW_S - 1)
        counts.append(np.bincount(at, minlength=WINDOW_S).astype(np.float64))
        tokens.append(np.bincount(at, weights=drawn, minlength=WINDOW_S).astype(np.float64))
    return SecondArrivals(np.concatenate(counts), np.concatenate(tokens), lengths)
