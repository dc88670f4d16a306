"""What one that gives way leaves in host memory comes back as it was, where that is worth it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.worker_image.engine.fake_engine import Fake, expected
from tests.worker_image.engine.test_preemption import an_add
from worker_image.engine.host_blocks import HostBlocks, SwapCosts
from worker_image.engine.host_cache import STAGED, HostCache
from worker_image.engine.messages import Add
from worker_image.engine.scheduler.settings import PolicyName, Scheduling
from worker_image.engine.swapping import CARD_COPY_BYTES_PER_S, CARD_FLOPS, Rates, swap_costs
from worker_image.models.config import ModelConfig, RopeConfig

CHEAP = SwapCosts(recompute_s=1.0, copy_s=0.1, fixed_s=0.0)
DEAR = SwapCosts(recompute_s=1.0, copy_s=2.0, fixed_s=0.0)


def low(request_id: int) -> Add:
    return an_add(request_id, 3, n_prompt=14, max_tokens=20)


def a_full_engine(host: HostBlocks, *, depth: int = 1, n_blocks: int = 12) -> Fake:
    """Two requests of the lowest class that have most of the cache, after some steps."""
    scheduling = Scheduling(PolicyName.PRIORITY)
    fake = Fake.build(n_blocks=n_blocks, step_tokens=40, depth=depth, scheduling=scheduling, host=host)
    for i in range(2):
        fake.engine.add(low(i))
    for _ in range(6):
        fake.step()
    return fake


@pytest.mark.parametrize("depth", [0, 1])
def test_what_was_saved_is_read_back_and_only_one_token_is_computed_again(depth: int) -> None:
    fake = a_full_engine(HostBlocks(20, CHEAP), depth=depth)
    # It takes the cache's last blocks, so that nothing of the victim's prefix survives there.
    urgent = an_add(2, 0, n_prompt=36, max_tokens=3)
    fake.engine.add(urgent)
    answers, _ = fake.run()
    load = fake.engine.load
    assert load.preemptions_by_class[3] >= 2
    assert load.restored_tokens > 20
    batches = fake.runner.batches
    assert sum(len(batch.saves) for batch in batches) >= sum(len(batch.restores) for batch in batches) > 0
    back = [chunk.length for batch in batches if batch.restores for chunk in batch.prefills]
    assert back
    assert set(back) == {1}
    assert answers == expected(urgent) | expected(low(0)) | expected(low(1))


@pytest.mark.parametrize("host", [HostBlocks(20, DEAR), HostBlocks(2, CHEAP)], ids=["not worth it", "no room"])
def test_what_is_not_saved_is_computed_again(host: HostBlocks) -> None:
    fake = a_full_engine(host)
    fake.engine.add(an_add(2, 0, n_prompt=36, max_tokens=3))
    answers, _ = fake.run()
    assert fake.engine.load.restored_tokens == 0
    assert not any(batch.saves for batch in fake.runner.batches)
    assert answers[0] == expected(low(0))[0]


def test_one_that_is_cancelled_while_it_waits_gives_its_host_memory_back() -> None:
    host = HostBlocks(20, CHEAP)
    fake = a_full_engine(host)
    fake.engine.add(an_add(2, 0, n_prompt=36, max_tokens=9))
    for _ in range(4):
        fake.step()
    for i in range(2):
        fake.engine.cancel(i)
    fake.run()
    host.check([])


def test_after_a_failed_step_nothing_that_was_saved_is_trusted() -> None:
    host = HostBlocks(20, CHEAP)
    fake = a_full_engine(host, depth=0)
    urgent = an_add(2, 0, n_prompt=36, max_tokens=9)
    fake.engine.add(urgent)
    fake.step()
    assert any(sequence.saved for sequence in fake.scheduler.waiting)
    fake.runner.poison.add(2)
    fake.step()
    fake.runner.poison.clear()
    assert not any(sequence.saved for sequence in fake.scheduler.waiting)
    host.check([])
    answers, _ = fake.run()
    assert answers[0] == expected(low(0))[0]


def test_short_sequences_are_not_worth_a_swap_and_long_ones_are() -> None:
    llama_8b = ModelConfig(
        architecture="llama", n_layers=32, hidden=4096, ffn=14336, n_q_heads=32, n_kv_heads=8, head_dim=128,
        vocab=128256, context=8192, norm_eps=1e-5, rope=RopeConfig(5e5),
    )  # fmt: skip
    costs = swap_costs(llama_8b, 131_072, Rates(CARD_FLOPS, CARD_COPY_BYTES_PER_S))
    assert costs.recompute_s == pytest.approx(35e-6, rel=0.05)
    assert costs.copy_s == pytest.approx(13e-6, rel=0.05)
    assert not costs.worth_it(50)
    assert costs.worth_it(500)


@given(
    pairs=st.permutations(range(40)).flatmap(lambda blocks: st.integers(1, 40).map(lambda n: blocks[:n])),
    dim=st.integers(0, 2),
)
def test_blocks_come_back_as_they_were_wherever_they_go(pairs: list[int], dim: int) -> None:
    assert STAGED < 40, "some of these take more than one stage"
    pool = torch.randn(40, 3, 2).movedim(0, dim)
    before, slots = pool.clone(), list(range(len(pairs)))
    cache = HostCache((pool,), dim, 40)
    cache.save(list(zip(pairs, slots, strict=True)))
    pool.zero_()
    cache.restore([(slot, 39 - block) for slot, block in zip(slots, pairs, strict=True)])
    after = pool.movedim(dim, 0)
    for block in range(40):
        there = before.movedim(dim, 0)[39 - block] if 39 - block in pairs else torch.zeros(3, 2)
        assert torch.equal(after[block], there)
