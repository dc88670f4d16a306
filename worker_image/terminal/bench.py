"""`bench`: how fast this machine answers with this model, all requests at once, random prompts; and its profile."""

from __future__ import annotations

import asyncio
import json
import random
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from worker_image.engine.client import EngineClient
from worker_image.engine.messages import Device, Sampling
from worker_image.errors import SettingsError
from worker_image.loading import shape_of
from worker_image.profile import Profile, measure_profile
from worker_image.settings import ModelSettings
from worker_image.terminal.session import loaded_engine


@dataclass(frozen=True)
class Timing:
    """Of one request, from its submission."""

    first_token_s: float
    last_token_s: float


async def bench(
    settings: ModelSettings, n_requests: int, n_prompt: int, n_output: int, profile: Path | None = None
) -> int:
    """Prints the figures; writes the profile, if asked, as `foretide simulate --profile` reads it.

    Raises SettingsError where a request would not fit the model's context.
    """
    async with loaded_engine(settings) as (loaded, engine):
        if n_prompt + n_output > loaded.engine.max_model_len:
            raise SettingsError(
                f"--prompt-tokens {n_prompt} and --output-tokens {n_output} exceed the context of "
                f"{loaded.engine.max_model_len} tokens. Lower one of them."
            )
        draw = random.Random(0)
        n_vocabulary = len(loaded.text.vocabulary.tokens)
        prompts = [[draw.randrange(n_vocabulary) for _ in range(n_prompt)] for _ in range(n_requests)]
        await _ask(engine, prompts[0][:8], 2)
        started_at = time.monotonic()
        timings = await asyncio.gather(*(_ask(engine, prompt, n_output) for prompt in prompts))
        print(_report(timings, time.monotonic() - started_at, n_prompt, n_output))
        if profile is not None:
            measured = await measure_profile(engine, shape_of(settings, loaded), lambda: True)
            await asyncio.to_thread(profile.write_text, _profile_file(settings, measured), encoding="utf-8")
            print(f"  profile           {profile}")
    return 0


def _profile_file(settings: ModelSettings, measured: Profile) -> str:
    cpu = settings.device is Device.CPU
    facts = {"model": settings.path.stem, "accelerator": f"cpu {settings.n_threads}" if cpu else "gpu 1", "gpus": 1}
    return json.dumps(facts | measured.plain(), indent=2) + "\n"


async def _ask(engine: EngineClient, prompt: list[int], n_output: int) -> Timing:
    started_at, first_at = time.monotonic(), None
    async with engine.submit(prompt, Sampling(n_output, temperature=0.0)) as stream:
        async for _ in stream:
            first_at = first_at or time.monotonic()
    assert first_at is not None, "a stream ends with a token"
    return Timing(first_at - started_at, time.monotonic() - started_at)


def _report(timings: list[Timing], total_s: float, n_prompt: int, n_output: int) -> str:
    per_token_s = [(t.last_token_s - t.first_token_s) / max(n_output - 1, 1) for t in timings]
    return (
        f"{len(timings)} requests at once, {n_prompt} prompt and {n_output} output tokens each\n"
        f"  output tokens/s   {len(timings) * n_output / total_s:10.1f}\n"
        f"  TTFT, median      {median(t.first_token_s for t in timings) * 1e3:10.0f} ms\n"
        f"  TPOT, median      {median(per_token_s) * 1e3:10.1f} ms"
    )
