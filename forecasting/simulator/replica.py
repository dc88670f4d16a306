"""One replica, iteration by iteration: chunked prefill, continuous batching, KV admission, preemption by recompute.

Exact: iterations without prefill are jumped over only as long as nothing but their length changes, and that length is
summed in closed form. Knows no other replica and no clock but its own.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass

from forecasting.profile import Profile

FOREVER = math.inf


@dataclass(slots=True)
class Sequence:
    """A request on its way. `prefill_tokens`: to compute before it decodes (more after a preemption)."""

    index: int
    prefill_tokens: int
    decode_iterations: int
    resident_tokens: int = 0
    order: int = 0
    first_token_known: bool = False


@dataclass(slots=True)
class _InFlight:
    """The iteration that runs now; its effects come at its end."""

    end_s: float
    decoding: int
    prefilled: list[Sequence]


class Replica:
    """The engine of one replica. `first_s` and `done_s` are shared by a fleet and filled by request index."""

    __slots__ = (
        "_admitted",
        "_decoding",
        "_first_s",
        "_in_flight",
        "_partial",
        "_partial_left",
        "_profile",
        "_waiting",
        "clock_s",
        "done_s",
        "finished",
        "iterations",
        "kv_tokens",
        "output_tokens",
        "outstanding",
        "preemptions",
    )

    def __init__(self, profile: Profile, first_s: list[float], done_s: list[float]) -> None:
        self._profile = profile
        self._first_s = first_s
        self.done_s = done_s
        self._waiting: deque[Sequence] = deque()
        self._decoding: list[tuple[int, int, Sequence]] = []  # heap of (last iteration, order, sequence)
        self._partial: Sequence | None = None
        self._partial_left = 0
        self._in_flight: _InFlight | None = None
        self._admitted = 0
        self.clock_s = 0.0
        self.iterations = 0
        self.kv_tokens = 0
        self.output_tokens = 0
        self.preemptions = 0
        self.outstanding = 0
        self.finished: list[int] = []  # indices of requests that ended since the fleet last looked

    # --- what a scrape sees -------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        in_flight = len(self._in_flight.prefilled) if self._in_flight else 0
        return len(self._decoding) + in_flight + (self._partial is not None)

    @property
    def is_idle(self) -> bool:
        return not (self._in_flight or self._decoding or self._waiting or self._partial)

    # --- work ---------------------------------------------------------------------------------------------------------

    def add(self, index: int, input_tokens: int, output_tokens: int, now_s: float) -> None:
        """A request comes at `now_s`; the replica must have been advanced to it."""
        if self.is_idle:
            self.clock_s = now_s
        self._waiting.append(Sequence(index, input_tokens, output_tokens - 1))
        self.outstanding += 1

    def abandon(self) -> list[int]:
        """The indices of all requests that have not ended, in order of arrival; the replica is empty after."""
        left = [entry[2] for entry in self._decoding] + list(self._waiting)
        left += self._in_flight.prefilled if self._in_flight else []
        left += [self._partial] if self._partial else []
        self._decoding, self._partial, self._in_flight = [], None, None
        self._waiting.clear()
        self.kv_tokens = self.outstanding = 0
        return sorted(each.index for each in left)

    def next_end_s(self) -> float:
        """No request can end before this time."""
        if self._in_flight is not None:
            if self._in_flight.prefilled or self._waiting or self._partial or not self._decoding:
                return self._in_flight.end_s
            left = self._decoding[0][0] - self.iterations - 1
            return self._in_flight.end_s + left * self._profile.alpha_s
        return FOREVER if self.is_idle else self.clock_s

    def advance(self, until_s: float) -> None:
        """Everything that ends at or before `until_s` has happened; an iteration that ends later is in flight."""
        while True:
            if self._in_flight is not None:
                if self._in_flight.end_s > until_s:
                    return
                self._end_iteration(self._in_flight)
            if not (self._decoding or self._waiting or self._partial):
                return
            if self.clock_s >= until_s:
                return
            if self._partial is None and not self._can_admit() and self._decoding:
                self._make_room()
                if self._jump(until_s):
                    continue
            self._begin_iteration()

    def _can_admit(self) -> bool:
        profile = self._profile
        return bool(
            self._waiting
            and len(self._decoding) < profile.max_sequences
            and self.kv_tokens + len(self._decoding) + self._waiting[0].prefill_tokens <= profile.kv_tokens
        )

    def _make_room(self) -> None:
        """Preempt the youngest sequences until every other one has room for its next token."""
        while self.kv_tokens + len(self._decoding) > self._profile.kv_tokens and len(self._decoding) > 1:
            at = max(range(len(self._decoding)), key=lambda each: self._decoding[each][1])
            last, _, victim = self._decoding.pop(at)
            heapq.heapify(self._decoding)
            left = last - self.iterations
            made = victim.decode_iterations - left
            self.kv_tokens -= victim.resident_tokens + made
            # Recomputing its prompt and what it made gives the next token too.
            self._waiting.appendleft(
                Sequence(victim.index, victim.resident_tokens + made, left - 1, first_token_known=True)
            )
            self.preemptions += 1

    def _jump(self, until_s: float) -> bool:
        """Run as many decode-only iterations as end by `until_s` and before a sequence ends; False when none does."""
        profile, decoding = self._profile, len(self._decoding)
        room = (profile.kv_tokens - self.kv_tokens) // decoding
        most = min(self._decoding[0][0] - self.iterations, max(room, 1))
        memory = profile.alpha_s + profile.gamma_s * self.kv_tokens
        arithmetic = profile.delta_s * decoding
        # KV only grows, so once memory is the limit it stays so; before, one iteration at a time until it is.
        grows = profile.gamma_s * decoding if memory >= arithmetic else 0.0
        if grows == 0.0 and profile.gamma_s > 0:
            until_memory = math.ceil((arithmetic - memory) / (profile.gamma_s * decoding))
            most = min(most, max(until_memory, 1))
        first = max(memory, arithmetic) + profile.beta_s * decoding
        steps = min(_steps_within(until_s - self.clock_s, first, grows), most)
        if steps < 1:
            return False
        self.clock_s += steps * first + grows * steps * (steps - 1) / 2
        self._decoded(steps)
        return True

    def _begin_iteration(self) -> None:
        self._make_room()
        profile, decoding = self._profile, len(self._decoding)
        budget = profile.chunk_tokens - decoding
        prefilled: list[Sequence] = []
        used = admitted = 0
        while budget > used:
            if self._partial is None:
                # Those that finish their prefill in this iteration decode from the next one on: they count already.
                fits = len(self._decoding) + len(prefilled) < profile.max_sequences
                if not (fits and self._can_admit()):
                    break
                self._admit(self._waiting.popleft())
                admitted += 1
            part = min(self._partial_left, budget - used)
            used += part
            self._partial_left -= part
            if self._partial_left == 0 and self._partial is not None:
                prefilled.append(self._partial)
                self._partial = None
        length_s = profile.iteration_s(decoding, used, self.kv_tokens, admitted)
        self._in_flight = _InFlight(self.clock_s + length_s, decoding, prefilled)

    def _admit(self, sequence: Sequence) -> None:
        sequence.resident_tokens = sequence.prefill_tokens
        self.kv_tokens += sequence.prefill_tokens
        self._admitted += 1
        sequence.order = self._admitted
        self._partial, self._partial_left = sequence, sequence.prefill_tokens

    def _end_iteration(self, ended: _InFlight) -> None:
        self._in_flight = None
        self.clock_s = ended.end_s
        if ended.decoding:
            self._decoded(1)
        else:
            self.iterations += 1
        for sequence in ended.prefilled:
            self.output_tokens += 1
            if not sequence.first_token_known:
                self._first_s[sequence.index] = ended.end_s
            if sequence.decode_iterations == 0:
                self._end(sequence)
            else:
                last = self.iterations + sequence.decode_iterations
                heapq.heappush(self._decoding, (last, sequence.order, sequence))

    def _decoded(self, steps: int) -> None:
        decoding = self._decoding
        self.iterations += steps
        self.kv_tokens += steps * len(decoding)
        self.output_tokens += steps * len(decoding)
        while decoding and decoding[0][0] == self.iterations:
            self._end(heapq.heappop(decoding)[2])

    def _end(self, sequence: Sequence) -> None:
        self.kv_tokens -= sequence.resident_tokens + sequence.decode_iterations
        self.done_s[sequence.index] = self.clock_s
        self.outstanding -= 1
        self.finished.append(sequence.index)


def _steps_within(span_s: float, first_s: float, grows_s: float) -> int:
    """How many iterations of `first_s`, each `grows_s` longer than the one before, end within `span_s`."""
    if grows_s == 0.0:
        return int(span_s / first_s)
    # steps·first + grows·steps·(steps−1)/2 = span
    half = first_s - grows_s / 2
    return int((math.sqrt(half * half + 2 * grows_s * span_s) - half) / grows_s)
