"""Random lives of an engine on a fake device: arrivals, cancels, choices, shared prefixes, preemptions, failures."""

from __future__ import annotations

from typing import ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.worker_image.engine.fake_engine import MODEL_LEN, STOP, Fake, expected, expected_finish
from worker_image.engine.host_blocks import HostBlocks, SwapCosts
from worker_image.engine.messages import Add, Finish, Sampling, StepDone
from worker_image.engine.scheduler.settings import DEFAULT, Batching, Packing, PolicyName, Scheduling
from worker_image.engine.standing import Standing

MOST_STEPS_WITHOUT_PROGRESS = 3
"""One that waits for room from a step in flight, one for its own token, one to be admitted."""


def standings() -> st.SearchStrategy[Standing]:
    return st.builds(
        Standing, priority=st.integers(0, 3), tenant=st.sampled_from(["", "acme", "umbrella"]),
        weight=st.sampled_from([0.5, 1.0, 3.0]), deadline_s=st.sampled_from([None, 0.001, 1.0, 1000.0]),
        ttft_target_s=st.sampled_from([None, 0.001, 5.0]),
    )  # fmt: skip


class EngineMachine(RuleBasedStateMachine):
    schedulings: ClassVar = st.just(DEFAULT)
    hosts: ClassVar = st.none()

    @initialize(
        n_blocks=st.integers(10, 30), max_num_seqs=st.integers(1, 6), step_tokens=st.integers(7, 24),
        depth=st.integers(0, 2), data=st.data(),
    )  # fmt: skip
    def start(self, n_blocks: int, max_num_seqs: int, step_tokens: int, depth: int, data: st.DataObject) -> None:
        self.fake = Fake.build(
            n_blocks=n_blocks, max_num_seqs=max_num_seqs, step_tokens=step_tokens, depth=depth,
            scheduling=data.draw(self.schedulings), host=data.draw(self.hosts),
        )  # fmt: skip
        self.expected: dict[int, list[int]] = {}
        self.answers: dict[int, list[int]] = {}
        self.alive: set[int] = set()
        self.next_id = 0
        self.prompt: list[int] = []
        self.stuck_for = 0

    @rule(
        tail=st.lists(st.integers(0, 2), min_size=1, max_size=MODEL_LEN // 2), n_shared=st.integers(0, 16),
        max_tokens=st.integers(1, MODEL_LEN), n=st.integers(1, 3), penalty=st.sampled_from([0.0, 0.0, 1.0]),
        salt=st.sampled_from(["", "", "acme"]), again=st.booleans(), standing=standings(),
    )  # fmt: skip
    def arrive(
        self, tail: list[int], n_shared: int, max_tokens: int, n: int, penalty: float, salt: str, again: bool,
        standing: Standing,
    ) -> None:  # fmt: skip
        sampling = Sampling(max_tokens, presence_penalty=penalty, seed=len(tail), stop_ids=(STOP,), n=n)
        self.prompt = self.prompt if again and self.prompt else [1] * n_shared + tail
        request = Add(self.next_id, list(self.prompt), sampling, cache_salt=salt, standing=standing)
        self.fake.engine.add(request)
        self.expected |= expected(request)
        self.alive |= set(range(self.next_id, self.next_id + n))
        self.next_id += n

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        request_id = data.draw(st.sampled_from(sorted(self.alive)))
        self.fake.engine.cancel(request_id)
        self.fake.engine.cancel(request_id)
        self.alive.remove(request_id)

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), at_launch=st.booleans())
    def fail(self, data: st.DataObject, at_launch: bool) -> None:
        """One request fails whatever step it is in, for two steps of all: those it ruins once must go on."""
        request_id = data.draw(st.sampled_from(sorted(self.alive)))
        runner = self.fake.runner
        poisoned = runner.unlaunchable if at_launch else runner.poison
        poisoned.add(request_id)
        self.run()
        self.run()
        poisoned.remove(request_id)

    @rule()
    def run(self) -> None:
        runner, oldest = self.fake.runner, min(self.alive, default=None)
        before, recovered = self.progress(oldest), runner.recovered
        done = self.fake.engine.step()
        self.take(done)
        healthy = runner.recovered == recovered and not any(s.alone for s in self.fake.scheduler._alive.values())
        self.look_at(oldest, before, healthy)

    def look_at(self, oldest: int | None, before: tuple[int, int] | None, healthy: bool) -> None:
        moved = oldest not in self.alive or self.progress(oldest) != before
        self.stuck_for = 0 if moved or not healthy else self.stuck_for + 1
        assert self.stuck_for <= MOST_STEPS_WITHOUT_PROGRESS, "the oldest request moves"

    def take(self, done: StepDone) -> None:
        for request_id, token in zip(done.ids, done.new_tokens, strict=True):
            assert request_id in self.alive, "nothing comes after an end or a cancel"
            self.answers.setdefault(request_id, []).append(token)
        for end in done.ended:
            self.alive.remove(end.request_id)
            if end.finish is Finish.ERROR:
                assert end.message == "the engine failed twice to compute this request: " + (
                    "out of memory at launch" if "launch" in (end.message or "") else "out of memory"
                )
            else:
                assert self.answers[end.request_id] == self.expected[end.request_id]
                assert end.finish is expected_finish(self.expected[end.request_id])

    def progress(self, request_id: int | None) -> tuple[int, int] | None:
        sequence = None if request_id is None else self.fake.scheduler._alive.get(request_id)
        return None if sequence is None else (len(sequence.tokens), sequence.computed)

    @invariant()
    def no_block_or_row_is_lost_or_doubly_owned(self) -> None:
        self.fake.scheduler.check()

    @invariant()
    def everybody_is_in_one_place_and_in_order(self) -> None:
        scheduler = self.fake.scheduler
        order = [s.request_id for s in (*scheduler.running, *scheduler.waiting)]
        assert order == sorted(self.alive), "first come, first served"

    @invariant()
    def answers_so_far_are_those_of_a_sequential_run(self) -> None:
        for request_id, tokens in self.answers.items():
            assert tokens == self.expected[request_id][: len(tokens)]

    def teardown(self) -> None:
        steps = 0
        while self.fake.engine.has_work:
            self.take(self.fake.engine.step())
            steps += 1
            assert steps < 5000, "every request ends"
        assert not self.alive
        self.fake.scheduler.check()
        assert self.fake.scheduler.kv.pool.usage == 0


class AnyPolicyMachine(EngineMachine):
    """The same under every policy and every way to make batches: whoever comes first, nobody's answer changes."""

    schedulings: ClassVar = st.builds(
        Scheduling, policy=st.sampled_from(PolicyName), batching=st.sampled_from(Batching),
        packing=st.sampled_from(Packing), min_batch=st.integers(1, 3), max_batch=st.none() | st.integers(3, 5),
        batch_base=st.integers(1, 6), max_wait_s=st.sampled_from([0.0, 0.002]),
        ageing_s=st.sampled_from([0.0, 0.001, 20.0]),
    )  # fmt: skip
    hosts: ClassVar = st.none() | st.builds(
        HostBlocks, st.integers(0, 20), st.builds(SwapCosts, st.just(1.0), st.just(0.5), st.sampled_from([0.0, 3.0]))
    )

    def look_at(self, oldest: int | None, before: tuple[int, int] | None, healthy: bool) -> None:
        """Others may come first; that everybody's turn comes is shown in `test_starvation`."""

    @invariant()
    def everybody_is_in_one_place_and_in_order(self) -> None:
        scheduler = self.fake.scheduler
        assert sorted(s.request_id for s in (*scheduler.running, *scheduler.waiting)) == sorted(self.alive)


EngineMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestEngineMachine = EngineMachine.TestCase
AnyPolicyMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAnyPolicyMachine = AnyPolicyMachine.TestCase
