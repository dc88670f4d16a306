"""What crosses the socket arrives as it was sent."""

from __future__ import annotations

import pytest

from worker_image.checkpoint.source import LoadFormat
from worker_image.engine.messages import (
    Add,
    Admitted,
    Cancel,
    Device,
    Ended,
    EngineLoad,
    EngineSettings,
    Failed,
    Finish,
    FrameBuffer,
    Logprobs,
    Message,
    Progress,
    Ready,
    Sampling,
    Start,
    StepDone,
    TokenOut,
    encode,
)
from worker_image.engine.scheduler.settings import Batching, Packing, PolicyName, Scheduling
from worker_image.engine.standing import Standing

SETTINGS = EngineSettings(
    "m.gguf",
    2,
    32,
    256,
    16,
    None,
    None,
    device=Device.CUDA,
    load_format=LoadFormat.DUMMY,
    deterministic=True,
    scheduling=Scheduling(PolicyName.EDF, Batching.STATIC, Packing.BUCKETS, max_batch=4),
)
SAMPLING = Sampling(9, stop_ids=(1, 2), logit_bias=((3, -1.5),), n=2, grammar="{}", min_tokens=4, seed=-5)
STEP = StepDone(
    EngineLoad(steps=3, kv_waste=0.25, preemptions_by_class=[1, 2, 3, 4]),
    ids=[4, 9],
    new_tokens=[100, 200],
    logprobs=[(1, Logprobs(-0.5, [(200, -0.5), (1, -2.0)]))],
    ended=[Ended(9, Finish.STOP), Ended(5, Finish.ERROR, "no room")],
    admitted=[Admitted(4, 0.125, 32)],
)


@pytest.mark.parametrize(
    "message",
    [
        Start(SETTINGS),
        Add(
            4, [1, 2, 3], SAMPLING, n_generated=2, cache_salt="acme", standing=Standing(1, "acme", 2.0, deadline_s=3.5)
        ),
        Cancel(4),
        Progress("weights", 1, 2),
        Ready(4096, 100_000, 1.5),
        Failed("no."),
        STEP,
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_message_survives_the_socket_in_any_pieces(message: Message) -> None:
    frame, buffer = encode(message) * 2, FrameBuffer()
    arrived = [each for i in range(0, len(frame), 7) for each in buffer.feed(frame[i : i + 7])]
    assert arrived == [message, message]


def test_a_step_reads_row_by_row() -> None:
    assert STEP.tokens == [TokenOut(4, 100), TokenOut(9, 200, Finish.STOP, STEP.logprobs[0][1])]


def test_of_two_tokens_of_a_choice_in_one_message_the_last_is_its_end_and_each_has_its_own_log_probability() -> None:
    first, second = Logprobs(-1.0), Logprobs(-2.0)
    step = StepDone(EngineLoad(), [7, 7], [1, 2], [(0, first), (1, second)], [Ended(7, Finish.STOP)])
    assert step.tokens == [TokenOut(7, 1, None, first), TokenOut(7, 2, Finish.STOP, second)]
