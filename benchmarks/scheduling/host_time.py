"""What scheduling a step of 256 decoding sequences costs in CPU time, under each policy. No device."""

from __future__ import annotations

import time

from worker_image.engine.batch import Sampled
from worker_image.engine.kv_blocks import KvBlocks
from worker_image.engine.messages import Sampling
from worker_image.engine.prefix_cache import LeastRecentlyUsed
from worker_image.engine.scheduler.core import Limits, Outcome, Scheduler
from worker_image.engine.scheduler.settings import PolicyName, Scheduling
from worker_image.engine.sequence import Sequence
from worker_image.engine.standing import Standing

N_SEQUENCES = 256
N_STEPS = 200
N_ROUNDS = 7
N_WAITING = 64


def host_time_ms(policy: PolicyName, *, n_waiting: int = 0) -> float:
    """Of `schedule` and `commit` of one step: the fastest round.

    n_waiting: requests for whom there is no place.
    """
    scheduler = Scheduler(
        Limits(N_SEQUENCES, 8192, 16, 4096), KvBlocks(60_000, 16, b"k", LeastRecentlyUsed()), Scheduling(policy)
    )
    for i in range(N_SEQUENCES + n_waiting):
        # Those who wait are of the worst class: nobody gives way to them.
        standing = Standing(priority=1 + 2 * (i >= N_SEQUENCES), tenant=f"t{i % 10}")
        prompt = [i, *range(100)]
        scheduler.add(Sequence(i, prompt, Sampling(3000), 3101, 101, standing=standing))
    now = 0.0
    for _ in range(10):
        now = _step(scheduler, now)
    rounds = []
    for _ in range(N_ROUNDS):
        started_s = time.process_time()
        for _ in range(N_STEPS):
            now = _step(scheduler, now)
        rounds.append((time.process_time() - started_s) / N_STEPS)
    assert len(scheduler.running) == N_SEQUENCES
    return 1e3 * min(rounds)


def _step(scheduler: Scheduler, now: float) -> float:
    batch = scheduler.schedule(now)
    assert batch is not None
    scheduler.commit(batch, Sampled([5] * len(batch.sampling)), Outcome())
    return now + 0.02
