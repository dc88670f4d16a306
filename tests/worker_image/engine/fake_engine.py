"""An engine on the fake device, and what it must answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.worker_image.engine.fake_runner import FakeRunner, sequential
from worker_image.engine.core import Clock, Engine
from worker_image.engine.grammar import Grammars
from worker_image.engine.host_blocks import HostBlocks
from worker_image.engine.kv_blocks import KvBlocks
from worker_image.engine.messages import Add, Ended, Finish, Ready, StepDone
from worker_image.engine.prefix_cache import LeastRecentlyUsed
from worker_image.engine.scheduler.core import Limits, Scheduler
from worker_image.engine.scheduler.settings import DEFAULT, Scheduling

BLOCK_TOKENS = 4
MODEL_LEN = 40
STOP = 7


def no_grammars() -> Grammars:
    raise AssertionError("no request here has a grammar")


def ticking(tick_s: float = 0.001) -> Clock:
    """Goes on by a tick at every look, and by as much as is slept."""
    at = 0.0

    def sleep(seconds: float) -> None:
        nonlocal at
        at += seconds

    def now() -> float:
        sleep(tick_s)
        return at

    return Clock(now, sleep)


@dataclass
class Fake:
    """The parts of one engine, for tests that look inside."""

    engine: Engine
    scheduler: Scheduler
    runner: FakeRunner
    answers: dict[int, list[int]] = field(default_factory=dict)
    ends: dict[int, Ended] = field(default_factory=dict)

    @classmethod
    def build(
        cls, *, n_blocks: int = 40, max_num_seqs: int = 4, step_tokens: int = 16, depth: int = 1,
        block_tokens: int = BLOCK_TOKENS, model_len: int = MODEL_LEN, scheduling: Scheduling = DEFAULT,
        host: HostBlocks | None = None,
    ) -> Fake:  # fmt: skip
        limits = Limits(max_num_seqs, step_tokens, block_tokens, model_len)
        scheduler = Scheduler(
            limits, KvBlocks(n_blocks, block_tokens, b"secret", LeastRecentlyUsed()), scheduling, host
        )
        runner = FakeRunner(depth, block_tokens, step_tokens)
        return cls(Engine(runner, scheduler, Ready(model_len, 0, 0.0), no_grammars, ticking()), scheduler, runner)

    def step(self) -> StepDone:
        done = self.engine.step()
        self.scheduler.check()
        for i, token in zip(done.ids, done.new_tokens, strict=True):
            self.answers.setdefault(i, []).append(token)
        self.ends |= {end.request_id: end for end in done.ended}
        return done

    def run(self, *, most: int = 5000) -> tuple[dict[int, list[int]], dict[int, Ended]]:
        """To the end of all work: tokens and ends by request id, of all steps so far."""
        while self.engine.has_work:
            assert (most := most - 1), "the engine does not come to an end"
            self.step()
        return self.answers, self.ends


def expected(request: Add) -> dict[int, list[int]]:
    """Tokens of each choice, by id."""
    sampling = request.sampling
    assert sampling.seed is not None
    limit = min(len(request.prompt) - request.n_generated + sampling.max_tokens, MODEL_LEN)
    return {
        request.request_id + i: sequential(request.prompt, limit, sampling.seed + i, sampling.stop_ids)
        for i in range(sampling.n)
    }


def expected_finish(tokens: list[int]) -> Finish:
    return Finish.STOP if tokens[-1] == STOP else Finish.LENGTH
