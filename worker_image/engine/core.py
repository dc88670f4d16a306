"""The engine's step, schedule → launch → commit, on one screen. No socket, no process, no torch: those are elsewhere.

A runner that computes by itself gets its next step before the last one is committed, so it never waits for Python.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from worker_image.engine.batch import Batch, Sampled
from worker_image.engine.compiling import Compiling
from worker_image.engine.grammar import Grammars, Matcher
from worker_image.engine.messages import Add, Admitted, Ended, EngineLoad, Expect, Finish, Ready, StepDone, StepKind
from worker_image.engine.noise import MASK_64
from worker_image.engine.pace import ANNOUNCED_FROM_S, WARM_UP_S, Pace
from worker_image.engine.runner import InFlight, Runner
from worker_image.engine.scheduler.core import Outcome, Scheduler
from worker_image.engine.sequence import Sequence

log = logging.getLogger(__name__)

SEED_BITS: Final = 64
IDLE_WAIT_S: Final = 0.01
"""How long one `step` waits for a grammar, or for a batch, where there is nothing else to do."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Time as the engine sees it: when requests come, how long they wait. What steps cost is measured apart."""

    now: Callable[[], float]
    sleep: Callable[[float], None]


CLOCK: Final = Clock(time.monotonic, time.sleep)


@dataclass(frozen=True, slots=True)
class _NotLaunched:
    """A step whose launch failed: it fails when its turn comes."""

    error: Exception

    def wait(self) -> Sampled:
        raise self.error


@dataclass(slots=True)
class _Report:
    """What one call of `step` has to say."""

    outcome: Outcome = field(default_factory=Outcome)
    admitted: list[Admitted] = field(default_factory=list)
    waited_s: float = 0.0


class Engine:
    """A runner with its scheduler. One thread calls it."""

    def __init__(
        self, runner: Runner, scheduler: Scheduler, ready: Ready, grammars: Callable[[], Grammars], clock: Clock = CLOCK
    ) -> None:
        """grammars: called in another thread at the first request that has one."""
        self.ready = ready
        self._runner = runner
        self._scheduler = scheduler
        self._clock = clock
        self._compiling = Compiling(grammars)
        self._cancelled: set[int] = set()
        """Of those that are compiling."""
        self._flights: deque[tuple[Batch, InFlight]] = deque()
        self._refused: list[Ended] = []
        self._steps = self._prefill_tokens = self._decode_tokens = self._failed_steps = 0
        self._step_s = self._host_s = 0.0
        self._pace = Pace()
        self._announce: Callable[[Expect], None] = lambda expect: None
        self._prepared = False

    @property
    def has_work(self) -> bool:
        return bool(self._scheduler.has_work or self._flights or self._refused or self._compiling)

    def prepare(self) -> bool:
        """For when there is no work: makes later steps faster; False where nothing is left to do."""
        if self._prepared:
            return self._runner.prepare()
        # The first may compile kernels; those after it take some tens of milliseconds.
        self._announce(Expect(StepKind.CAPTURE, WARM_UP_S))
        more = self._runner.prepare()
        self._announce(Expect(StepKind.CAPTURE, 0.0))
        self._prepared = True
        return more

    def on_long_step(self, announce: Callable[[Expect], None]) -> None:
        """From now on, `announce` is told before whatever may take long."""
        self._announce = announce

    def add(self, request: Add) -> None:
        assert request.n_generated == 0 or request.sampling.n == 1, "choices go on elsewhere one by one"
        if request.sampling.grammar is None:
            self._enter(request, None, None)
        else:
            self._compiling.submit(request)

    def _enter(self, request: Add, matcher: Matcher | None, error: str | None) -> None:
        """A sequence for each choice, unless it was cancelled meanwhile or can never run: `error` says why."""
        finish = Finish.REFUSED if matcher is not None and matcher.failure else Finish.ERROR
        seed = secrets.randbits(SEED_BITS) if request.sampling.seed is None else request.sampling.seed
        parent: Sequence | None = None
        for index in range(request.sampling.n):
            sequence = self._sequence(request, index, (seed + index) & MASK_64, matcher and matcher.fork())
            if not sequence.tokens:
                error = "the prompt is empty."
            elif len(sequence.tokens) >= sequence.limit:
                error = f"the request has {len(sequence.tokens)} tokens already; it may have {sequence.limit}."
            if error is not None:
                self._refused.append(Ended(sequence.request_id, finish, error))
            elif sequence.request_id not in self._cancelled:
                sequence.parent, parent = parent, parent or sequence
                self._scheduler.add(sequence)

    def _sequence(self, request: Add, index: int, seed: int, matcher: Matcher | None) -> Sequence:
        n_prompt = len(request.prompt) - request.n_generated
        return Sequence(
            request.request_id + index, list(request.prompt), request.sampling, n_prompt=n_prompt, seed=seed,
            limit=min(n_prompt + request.sampling.max_tokens, self._scheduler.limits.max_model_len),
            salt=request.cache_salt.encode(), standing=request.standing, matcher=matcher,
            arrived_at=self._clock.now(),
        )  # fmt: skip

    def cancel(self, request_id: int) -> None:
        if not self._scheduler.cancel(request_id) and self._compiling:
            self._cancelled.add(request_id)
            self._compiling.drop(self._cancelled)

    def step(self) -> StepDone:
        """Launches the next step, if there is one, and commits those that the runner may not keep in flight."""
        now, started_at, report = self._clock.now(), time.monotonic(), _Report()
        if self._compiling:
            self._take_compiled()
        batch = self._scheduler.schedule(now)
        if batch is None and not self._flights and (opens_in_s := self._scheduler.opens_in_s(now)):
            # A batch is being waited for; more of it may come at any time.
            self._clock.sleep(min(opens_in_s, IDLE_WAIT_S))
        # Without a batch, whoever is left waits for a step in flight.
        n_keep = len(self._flights) - 1 if batch is None else self._launch(batch, report, now)
        while len(self._flights) > max(n_keep, 0):
            self._land(report, started_at)
        self._step_s = time.monotonic() - started_at
        self._host_s = self._step_s - report.waited_s
        return self._done(report)

    def _take_compiled(self) -> None:
        idle = not self._scheduler.has_work and not self._flights
        for compiled in self._compiling.done(IDLE_WAIT_S if idle else 0.0):
            self._enter(*compiled)
        if not self._compiling:
            self._cancelled.clear()

    def _launch(self, batch: Batch, report: _Report, now: float) -> int:
        """Returns how many steps may stay in flight."""
        for sequence in batch.joined:
            if not sequence.admitted:
                sequence.admitted = True
                admitted = Admitted(sequence.request_id, now - sequence.arrived_at, sequence.n_cached)
                report.admitted.append(admitted)
        self._decode_tokens += len(batch.decodes)
        n_prefill = batch.n_tokens - len(batch.decodes)
        self._prefill_tokens += n_prefill
        if (expect := self._pace.expected(n_prefill, len(batch.decodes))).expected_s >= ANNOUNCED_FROM_S:
            self._announce(expect)
        try:
            self._flights.append((batch, self._runner.launch(batch)))
        except AssertionError:
            raise  # What the engine takes for certain is not so: no answer of it could be trusted.
        except Exception as error:  # noqa: BLE001 - whatever it is, the others of the step go on
            self._flights.append((batch, _NotLaunched(error)))
            return 0
        return self._runner.depth

    def _land(self, report: _Report, began_at: float) -> None:
        """Commits the oldest step in flight, or undoes all of them where it failed."""
        batch, flight = self._flights.popleft()
        started_at = time.monotonic()
        try:
            sampled = flight.wait()
        except AssertionError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the others of the step go on
            self._undo(batch, error, report.outcome)
            return
        landed_at = time.monotonic()
        report.waited_s += landed_at - started_at
        n_decodes = len(batch.decodes)
        self._pace.took(batch.n_tokens - n_decodes, n_decodes, landed_at - began_at)
        self._steps += 1
        self._scheduler.commit(batch, sampled, report.outcome)

    def _undo(self, failed: Batch, error: Exception, outcome: Outcome) -> None:
        reason = str(error).partition("\n")[0]
        # Anything but a RuntimeError is a defect of ours, of which the place is wanted.
        trace = None if isinstance(error, RuntimeError) else error
        log.warning("step %d with %d tokens failed: %s", failed.step, failed.n_tokens, reason, exc_info=trace)
        self._failed_steps += 1
        dropped = [batch for batch, _ in self._flights]
        for _, flight in self._flights:
            # They started from what the failed one left, so whatever they say is of no use.
            with contextlib.suppress(Exception):
                flight.wait()
        self._flights.clear()
        self._scheduler.fail(failed, dropped, f"the engine failed twice to compute this request: {reason}", outcome)
        self._runner.recover()

    def _done(self, report: _Report) -> StepDone:
        outcome, refused = report.outcome, self._refused
        self._refused = []
        ended = [Ended(sequence.request_id, finish, message) for sequence, finish, message in outcome.ended]
        return StepDone(self.load, outcome.ids, outcome.tokens, outcome.logprobs, [*ended, *refused], report.admitted)

    @property
    def load(self) -> EngineLoad:
        scheduler = self._scheduler
        oldest = scheduler.waiting.oldest()
        return EngineLoad(
            steps=self._steps,
            running=len(scheduler.running),
            waiting=len(scheduler.waiting) + len(self._compiling),
            kv_usage=scheduler.kv.pool.usage,
            preemptions=sum(scheduler.n_preemptions),
            preemptions_by_class=list(scheduler.n_preemptions),
            kv_waste=scheduler.kv_waste,
            prefix_queried_tokens=scheduler.kv.queried_tokens,
            prefix_hit_tokens=scheduler.kv.hit_tokens,
            prefill_tokens=self._prefill_tokens,
            decode_tokens=self._decode_tokens,
            restored_tokens=scheduler.restored_tokens,
            failed_steps=self._failed_steps,
            oldest_waiting_s=0.0 if oldest is None else self._clock.now() - oldest.arrived_at,
            step_s=self._step_s,
            host_s=self._host_s,
        )
