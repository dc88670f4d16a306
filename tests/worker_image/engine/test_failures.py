"""A step that fails costs one request, or none; never the engine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.worker_image.engine.fake_engine import Fake, expected
from tests.worker_image.engine.test_scheduling import an_add
from worker_image.engine.messages import Add, Ended, Finish

REASON = "the engine failed twice to compute this request: out of memory"


def some_requests() -> list[Add]:
    return [an_add(i, 5 + i, 8, first=i) for i in range(4)]


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("after_steps", [0, 3])
def test_only_the_request_that_cannot_be_computed_ends(depth: int, after_steps: int) -> None:
    fake = Fake.build(depth=depth)
    for request in some_requests():
        fake.engine.add(request)
    for _ in range(after_steps):
        fake.step()
    fake.runner.poison.add(2)
    answers, ends = fake.run()
    assert ends[2] == Ended(2, Finish.ERROR, REASON)
    for i in (0, 1, 3):
        assert answers[i] == expected(some_requests()[i])[i]
    assert fake.engine.load.failed_steps == fake.runner.recovered == 2
    assert fake.engine.load.kv_usage == 0


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("fails_with", [ValueError, MemoryError])
def test_a_defect_costs_no_more_than_the_request_that_meets_it(depth: int, fails_with: type[Exception]) -> None:
    fake = Fake.build(depth=depth)
    fake.runner.fails_with = fails_with
    for request in some_requests():
        fake.engine.add(request)
    fake.runner.poison.add(2)
    fake.runner.unlaunchable.add(1)
    answers, ends = fake.run()
    assert ends[1] == Ended(1, Finish.ERROR, f"{REASON} at launch")
    assert ends[2] == Ended(2, Finish.ERROR, REASON)
    for i in (0, 3):
        assert answers[i] == expected(some_requests()[i])[i]


def test_an_engine_that_contradicts_itself_ends() -> None:
    fake = Fake.build(depth=0)
    fake.runner.fails_with = AssertionError
    fake.engine.add(an_add(0, 3, 3))
    fake.runner.unlaunchable.add(0)
    with pytest.raises(AssertionError, match="at launch"):
        fake.step()
    fake = Fake.build(depth=0)
    fake.runner.fails_with = AssertionError
    fake.engine.add(an_add(0, 3, 3))
    fake.runner.poison.add(0)
    with pytest.raises(AssertionError, match="out of memory"):
        fake.step()


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_failure_that_does_not_come_again_ends_nobody(depth: int) -> None:
    fake = Fake.build(depth=depth)
    for request in some_requests():
        fake.engine.add(request)
    fake.runner.unlaunchable.add(1)
    fake.step()
    fake.runner.unlaunchable.clear()
    answers, ends = fake.run()
    assert answers == {i: expected(request)[i] for i, request in enumerate(some_requests())}
    assert all(end.finish is Finish.LENGTH for end in ends.values())


def test_a_failed_launch_costs_nobody_a_token_of_the_steps_in_flight() -> None:
    fake = Fake.build(depth=2)
    for request in some_requests()[:2]:
        fake.engine.add(replace(request, sampling=replace(request.sampling, max_tokens=3 + request.request_id)))
    steps = [fake.step() for _ in range(3)]
    fake.runner.unlaunchable.add(1)
    steps.append(fake.step())
    fake.runner.unlaunchable.clear()
    assert any(len(step.ids) > len(set(step.ids)) for step in steps), "two steps came in one message"
    while fake.engine.has_work:
        steps.append(fake.step())
    for i, answer in fake.answers.items():
        rows = [row for step in steps for row in step.tokens if row.request_id == i]
        assert [row.token for row in rows] == answer
        assert [row.finish is not None for row in rows] == [False] * (len(rows) - 1) + [True]


def test_suspects_run_in_steps_of_their_own_until_each_has_a_token() -> None:
    fake = Fake.build(depth=0)
    for request in some_requests()[:3]:
        fake.engine.add(request)
    fake.runner.poison.add(1)
    fake.step()
    fake.runner.poison.clear()
    n_before = len(fake.runner.batches)
    fake.run()
    after = [[s.request_id for s in b.sampling] for b in fake.runner.batches[n_before:]]
    assert [next(batch for batch in after if i in batch) for i in range(3)] == [[0], [1], [2]]
    assert [0, 1, 2] in after


def test_a_device_that_cannot_go_on_ends_the_engine() -> None:
    fake = Fake.build(depth=0)
    fake.engine.add(an_add(0, 3, 3))
    fake.runner.poison.add(0)

    def recover() -> None:
        raise RuntimeError("the device is lost")

    fake.runner.recover = recover  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="the device is lost"):
        fake.step()
