"""A step's tokens on their way back: copied into pinned memory behind the step, read once its event has passed."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from worker_image.engine.batch import Sampled
from worker_image.engine.messages import Logprobs
from worker_image.engine.sequence import Sequence


@dataclass(frozen=True)
class Scores:
    """Log probabilities of the rows that ask for any, in pinned memory."""

    asked: dict[int, int]
    """Index of the sample → how many of the likeliest."""
    chosen: torch.Tensor
    """(len(asked),) float32."""
    values: torch.Tensor
    """(len(asked), most) float32, falling."""
    ids: torch.Tensor
    """(len(asked), most) int64."""

    def logprobs(self) -> dict[int, Logprobs]:
        columns = (self.asked.items(), self.chosen.tolist(), self.ids.tolist(), self.values.tolist())
        return {
            i: Logprobs(chosen, list(zip(ids[:n], values[:n], strict=True)))
            for (i, n), chosen, ids, values in zip(*columns, strict=True)
        }


@dataclass(frozen=True)
class Flight:
    """A launched step, `InFlight` of the runner's seam. The buffers are its own until it has been waited for."""

    done: torch.cuda.Event | None
    """None on a device that computes at once."""
    tokens: torch.Tensor
    """(samples,) int64, pinned."""
    scores: Scores | None

    def wait(self) -> Sampled:
        """Raises RuntimeError where the step failed."""
        if self.done is not None:
            self.done.synchronize()
        tokens: list[int] = self.tokens.tolist()
        return Sampled(tokens) if self.scores is None else Sampled(tokens, self.scores.logprobs())


class ResultBuffers:
    """Pinned memory for as many steps as may be under way, and one that is being read."""

    def __init__(self, max_samples: int, device: torch.device, n_buffers: int) -> None:
        self._pinned = device.type == "cuda"
        self._tokens = [self._empty((max_samples,), torch.int64) for _ in range(n_buffers)]
        self._turn = 0

    def _empty(self, size: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(size, dtype=dtype, pin_memory=self._pinned)

    def fetch(self, n: int, tokens: torch.Tensor, logits: torch.Tensor, asked: dict[int, int]) -> Flight:
        """Enqueues the copies of a step whose sampling is enqueued.

        tokens: (n or more,) int64, logits: (n or more, vocab) as the model gave them; asked: see `logprobs_asked`.
        """
        self._turn = (self._turn + 1) % len(self._tokens)
        target = self._tokens[self._turn][:n]
        target.copy_(tokens[:n], non_blocking=True)
        scores = self._scores(asked, tokens, logits) if asked else None
        event = torch.cuda.Event() if self._pinned else None  # type: ignore[no-untyped-call]
        if event is not None:
            event.record()
        return Flight(event, target, scores)

    def _scores(self, asked: dict[int, int], tokens: torch.Tensor, logits: torch.Tensor) -> Scores:
        rows = torch.tensor(list(asked)).to(logits.device, non_blocking=True)
        scores = torch.log_softmax(logits.index_select(0, rows).float(), dim=-1)
        chosen = scores.gather(1, tokens.index_select(0, rows)[:, None])[:, 0]
        likeliest = scores.topk(max(asked.values()))
        return Scores(asked, self._fetched(chosen), self._fetched(likeliest.values), self._fetched(likeliest.indices))

    def _fetched(self, tensor: torch.Tensor) -> torch.Tensor:
        return self._empty(tuple(tensor.shape), tensor.dtype).copy_(tensor, non_blocking=True)


def logprobs_asked(sequences: tuple[Sequence, ...]) -> dict[int, int]:
    """Index → how many of the likeliest, for the sequences that want log probabilities."""
    wanted = ((i, sequence.sampling.top_logprobs) for i, sequence in enumerate(sequences))
    return {i: n for i, n in wanted if n is not None}
