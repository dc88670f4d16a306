import asyncio
import random

from hypothesis import given
from hypothesis import strategies as st

from controllers.runtime.interface import Key
from controllers.runtime.queue import QueueCore, ReconcileQueue

A, B = Key("InferenceService", "demo", "a"), Key("InferenceService", "demo", "b")


def core() -> QueueCore:
    return QueueCore(random.Random(1))


def take(queue: QueueCore, now_s: float = 0.0) -> Key | None:
    taken = queue.take(now_s)
    return taken.key if taken else None


def test_a_key_added_often_is_taken_once_and_the_longest_waiting_first() -> None:
    queue = core()
    for key in (A, B, A, A):
        queue.add(key, 0.0)
    assert [take(queue), take(queue), take(queue)] == [A, B, None]


def test_a_key_in_work_is_not_given_to_a_second_worker_but_looked_at_again_afterwards() -> None:
    queue = core()
    queue.add(A, 0.0)
    assert take(queue) == A
    queue.add(A, 1.0)
    assert take(queue, 1.0) is None
    queue.done(A, 2.0)
    assert take(queue, 2.0) == A
    queue.done(A, 3.0)
    assert take(queue, 3.0) is None


def test_a_delayed_key_comes_when_due_and_the_earliest_delay_wins() -> None:
    queue = core()
    queue.add_after(A, 10.0, 0.0)
    queue.add_after(A, 5.0, 0.0)
    queue.add_after(A, 20.0, 0.0)
    assert queue.next_due_s(0.0) == 5.0
    assert take(queue, 4.9) is None
    taken = queue.take(5.5)
    assert taken is not None
    assert (taken.key, taken.waited_s) == (A, 0.5)
    queue.done(A, 6.0)
    assert queue.next_due_s(6.0) is None


def test_a_key_added_at_once_forgets_its_delay() -> None:
    queue = core()
    queue.add_after(A, 10.0, 0.0)
    queue.add(A, 1.0)
    assert take(queue, 1.0) == A
    queue.done(A, 2.0)
    assert take(queue, 11.0) is None


def test_a_delay_asked_for_while_in_work_is_kept() -> None:
    queue = core()
    queue.add(A, 0.0)
    take(queue)
    queue.add_after(A, 3.0, 0.0)
    queue.done(A, 1.0)
    assert take(queue, 2.9) is None
    assert take(queue, 3.0) == A


def test_failures_wait_longer_each_time_up_to_a_minute_and_success_forgets_them() -> None:
    queue = core()
    now_s, delays = 0.0, []
    for _ in range(12):
        queue.add(A, now_s)
        assert take(queue, now_s) == A
        delays.append(queue.failed(A, now_s))
        now_s += 100.0
    assert 0.4 <= delays[0] <= 0.6
    assert delays[0] < delays[2] < delays[5]
    assert max(delays) <= 72.0
    queue.add(A, now_s)
    take(queue, now_s)
    queue.done(A, now_s)
    queue.add(A, now_s)
    take(queue, now_s)
    assert queue.failed(A, now_s) <= 0.6


def test_a_failed_key_that_was_marked_meanwhile_is_looked_at_without_waiting() -> None:
    queue = core()
    queue.add(A, 0.0)
    take(queue)
    queue.add(A, 0.5)
    queue.failed(A, 1.0)
    assert take(queue, 1.0) == A


@given(st.lists(st.tuples(st.sampled_from("adtfx"), st.sampled_from("abc"), st.floats(0, 5)), max_size=80))
def test_no_mark_is_ever_lost_and_no_key_is_worked_twice_at_once(steps: list[tuple[str, str, float]]) -> None:
    queue, now_s = core(), 0.0
    in_work: set[Key] = set()
    owed: set[Key] = set()
    for act, name, amount in steps:
        key = Key("InferenceService", "demo", name)
        now_s += amount
        if act == "a":
            queue.add(key, now_s)
            owed.add(key)
        elif act == "d":
            queue.add_after(key, amount, now_s)
            owed.add(key)
        elif act == "t":
            taken = take(queue, now_s)
            if taken is not None:
                assert taken not in in_work
                in_work.add(taken)
                owed.discard(taken)
        elif key in in_work:
            in_work.discard(key)
            if act == "f":
                queue.failed(key, now_s)
                owed.add(key)
            else:
                queue.done(key, now_s)
    for key in in_work:
        queue.done(key, now_s)
    later_s, seen = now_s + 1000.0, set()
    while (taken := take(queue, later_s)) is not None:
        seen.add(taken)
    assert owed <= seen


async def test_the_consumer_wakes_at_an_added_key_and_at_a_due_one() -> None:
    queue = ReconcileQueue()
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add_after(A, 0.05)
    assert (await asyncio.wait_for(waiting, 5)).key == A
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add(B)
    assert (await asyncio.wait_for(waiting, 5)).key == B
    longest = queue.longest_work_s()
    assert longest is not None
    assert longest[0] == A
