"""`python -m benchmarks.worker_streams.engine FD STEP_MS STEPS REPORT`: an engine that computes nothing.

It speaks the real messages over the real channel: once every stream is there it gives each a token per step, and
writes down how long each step's message took to be sent. The time it waits for the server is what a real engine
would lose.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from pathlib import Path
from typing import Final

from worker_image.engine.messages import Add, Admitted, Cancel, Ended, EngineLoad, Finish, Message, Ready, StepDone
from worker_image.engine.process import Channel, ServerGone

N_TOKENS: Final = 32000


def run(channel: Channel, step_s: float, n_steps: int, n_streams: int) -> list[float]:
    """Seconds that each step's message took."""
    adds: list[int] = []
    messages: list[Message] = []
    while not messages:
        messages = channel.receive(wait=True)
    channel.send(Ready(8192, 1 << 20, 0.0))
    while True:
        for message in messages:
            if isinstance(message, Add):
                adds.append(message.request_id)
                channel.send(StepDone(EngineLoad(), admitted=[Admitted(message.request_id, 0.0, 0)]))
        if len(adds) == n_streams:
            break
        messages = channel.receive(wait=True)
    sent_s = []
    due = time.monotonic()
    for step in range(n_steps):
        due = max(due + step_s, time.monotonic())
        time.sleep(max(due - time.monotonic(), 0.0))
        sent_s.append(_step(channel, adds, step, last=step == n_steps - 1))
        for message in channel.receive(wait=False):
            assert not isinstance(message, Cancel), "a client left amid its stream"
    return sent_s


def _step(channel: Channel, ids: list[int], step: int, *, last: bool) -> float:
    tokens = [(37 * step + 11 * i) % N_TOKENS for i in ids]
    ended = [Ended(i, Finish.LENGTH) for i in ids] if last else []
    message = StepDone(EngineLoad(steps=step, running=len(ids)), list(ids), tokens, ended=ended)
    began_at = time.monotonic()
    channel.send(message)
    return time.monotonic() - began_at


def main() -> None:
    descriptor, step_ms, n_steps, n_streams, report = sys.argv[1:]
    channel = Channel(socket.socket(fileno=int(descriptor)))
    sent_s = run(channel, float(step_ms) / 1e3, int(n_steps), int(n_streams))
    Path(report).write_text(json.dumps(sent_s))
    try:
        while True:
            channel.receive(wait=True)
    except ServerGone:
        return


if __name__ == "__main__":
    main()
