"""The engine's step, schedule → run → commit, on one screen. No socket, no process: those are in `process`."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from worker_image.checkpoint.base import Checkpoint
from worker_image.engine.block_pool import BlockPool
from worker_image.engine.memory import free_memory_bytes, plan_kv
from worker_image.engine.messages import Add, EngineLoad, EngineSettings, Progress, Ready, StepDone, TokenOut
from worker_image.engine.runner import Runner
from worker_image.engine.sampler import Sampler
from worker_image.engine.scheduler import Limits, Scheduler, Sequence
from worker_image.models.assembly import load_model
from worker_image.models.kv_cache import KvCache
from worker_image.models.reference_ops import ReferenceOps


class Engine:
    """A loaded model with its scheduler. One thread calls it."""

    def __init__(
        self, checkpoint: Checkpoint, settings: EngineSettings, on_progress: Callable[[Progress], None]
    ) -> None:
        """Loads the model. Raises CheckpointError or SettingsError."""
        started_at = time.monotonic()
        torch.set_num_threads(settings.n_threads)
        model = load_model(
            checkpoint, ReferenceOps(), lambda done, total: on_progress(Progress("weights", done, total))
        )
        shape = model.config.kv_shape
        plan = plan_kv(settings, model.config.context, shape.bytes_per_token, free_memory_bytes())
        limits = Limits(settings.max_num_seqs, settings.step_tokens, settings.block_tokens, plan.max_model_len)
        self._scheduler = Scheduler(limits, BlockPool(plan.n_blocks))
        self._runner = Runner(model, KvCache(shape, plan.n_blocks, settings.block_tokens))
        self._sampler = Sampler()
        kv_tokens = plan.n_blocks * settings.block_tokens
        self.ready = Ready(plan.max_model_len, kv_tokens, time.monotonic() - started_at)

    @property
    def has_work(self) -> bool:
        return self._scheduler.has_work

    @property
    def load(self) -> EngineLoad:
        return self._scheduler.load()

    def add(self, request: Add) -> None:
        self._scheduler.add(Sequence(request.request_id, request.prompt, request.sampling))

    def cancel(self, request_id: int) -> None:
        self._scheduler.cancel(request_id)
        self._sampler.forget(request_id)

    @torch.inference_mode()
    def step(self) -> StepDone:
        batch = self._scheduler.schedule()
        logits = self._runner.run(batch)
        sampled = self._sampler.sample(logits, [chunk.sequence for chunk in batch.sampling_chunks])
        results = self._scheduler.commit(batch, [choice.token for choice in sampled])
        tokens = [
            TokenOut(sequence.request_id, choice.token, finish, choice.logprobs)
            for (sequence, finish), choice in zip(results, sampled, strict=True)
        ]
        for token in tokens:
            if token.finish is not None:
                self._sampler.forget(token.request_id)
        return StepDone(self._scheduler.load(), tokens)
