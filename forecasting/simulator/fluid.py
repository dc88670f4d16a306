"""One second of many fleets at once, as a fluid: no single requests, only how much work is where.

Every field is an array with one entry a run, so that a thousand runs cost little more than one. All replicas of a fleet
are alike, which a router to the least loaded makes nearly true. `benchmarks.autoscaling` and the tests hold it against
the exact simulation; where they differ by more than 2 %, the exact one is right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from forecasting.profile import Profile
from forecasting.simulator.arrivals import Lengths
from forecasting.simulator.requests import Floats

# A share of one replica's room is the least that a fleet without replicas is divided by.
NO_REPLICA = 1e-9


@dataclass(slots=True, eq=False)
class Pools:
    """What is where, over a whole fleet; (runs,) each.

    queued_requests, queued_tokens: not prefilled. early, late: decoding sequences in the first and second half of their
    answers. token_s: seconds a token lately took. biased_s: the length of the iteration that an arrival falls into.
    """

    queued_requests: Floats
    queued_tokens: Floats
    early: Floats
    late: Floats
    token_s: Floats
    biased_s: Floats

    @classmethod
    def empty(cls, runs: int, profile: Profile) -> Pools:
        zeros = [np.zeros(runs) for _ in range(4)]
        return cls(
            zeros[0], zeros[1], zeros[2], zeros[3], np.full(runs, profile.alpha_s), np.full(runs, profile.alpha_s)
        )


@dataclass(slots=True, eq=False)
class Second:
    """What one second did; (runs,) each.

    wait_s: from arrival to the start of the own prefill. prefill_token_s: seconds of prefill a prompt token. token_s,
    token_sd_s: mean and deviation of an iteration as a decoding sequence meets it. started, finished: requests.
    produced: output tokens.
    """

    wait_s: Floats
    prefill_token_s: Floats
    token_s: Floats
    token_sd_s: Floats
    started: Floats
    finished: Floats
    produced: Floats


def step(pools: Pools, ready: Floats, came: Floats, tokens: Floats, profile: Profile, lengths: Lengths) -> Second:
    """Move `pools` on by one second in which `came` requests with `tokens` prompt tokens arrive.

    ready: (runs,) replicas that serve. Source of the iteration's length: `Profile`.
    """
    replicas = np.maximum(ready, NO_REPLICA)
    serves = ready > 0
    queued_requests = pools.queued_requests + came
    queued_tokens = pools.queued_tokens + tokens
    prompt = queued_tokens / np.maximum(queued_requests, 1e-9)
    prompt = np.where(queued_requests > 1e-9, prompt, lengths.mean_input)
    decoding = np.minimum((pools.early + pools.late) / replicas, profile.max_sequences)
    memory = np.minimum(decoding * lengths.resident, profile.kv_tokens) * profile.gamma_s + profile.alpha_s
    decode_s = np.maximum(memory, profile.delta_s * decoding) + profile.beta_s * decoding
    # Prompts that come during one iteration are prefilled together in the next, those that wait at once.
    meanwhile = np.maximum(came / replicas * pools.biased_s, 1e-6)
    together = prompt * meanwhile / -np.expm1(-meanwhile) + pools.queued_tokens / replicas
    # Batches vary and the part over the chunk is left for the next one: the mean chunk bends below both (measured on
    # the exact simulation: within 5 % from half to full load).
    chunk = 1 / np.hypot(1 / np.maximum(together, 1.0), 1 / (profile.chunk_tokens - decoding))
    mixed_s = np.maximum(memory, profile.delta_s * (chunk + decoding)) + profile.beta_s * decoding
    mixed_s += profile.request_s * chunk / prompt
    prefill_token_s = mixed_s / chunk
    wanted = queued_tokens / replicas
    # Only so many sequences fit, whatever the time allows; half of those that decode make room within the second.
    room = np.minimum(profile.max_sequences, profile.kv_tokens / lengths.resident) - decoding / 2
    most = np.minimum(1.0 / prefill_token_s, np.maximum(room, 1.0) * prompt)
    done = np.where(serves, np.minimum(wanted, most), 0.0)
    mixed = done / chunk
    busy = done * prefill_token_s
    iterations = mixed + np.maximum(1 - busy, 0.0) / decode_s
    return _moved(
        pools, replicas, serves, queued_requests, queued_tokens, prompt, done, mixed, mixed_s, decode_s, iterations,
        prefill_token_s, most, lengths,
    )  # fmt: skip


def _moved(
    pools: Pools,
    replicas: Floats,
    serves: np.ndarray[tuple[int], np.dtype[np.bool_]],
    queued_requests: Floats,
    queued_tokens: Floats,
    prompt: Floats,
    done: Floats,
    mixed: Floats,
    mixed_s: Floats,
    decode_s: Floats,
    iterations: Floats,
    prefill_token_s: Floats,
    most: Floats,
    lengths: Lengths,
) -> Second:
    wait_s = np.where(serves, pools.queued_tokens / (replicas * most), np.inf)
    started = done * replicas / prompt
    before = pools.early + pools.late
    # Each half of an answer empties at a steady rate; what enters during the second empties for its part of it.
    rate = np.maximum(np.where(serves, 2 * iterations / max(lengths.decode, 1.0), 0.0), 1e-9)
    stays = np.exp(-rate)
    entered_stays = -np.expm1(-rate) / rate
    half = pools.early * (1 - stays) + started * (1 - entered_stays)
    finished = pools.late * (1 - stays) + half * (1 - entered_stays)
    pools.queued_requests = np.maximum(queued_requests - started, 0.0)
    pools.queued_tokens = np.maximum(queued_tokens - done * replicas, 0.0)
    pools.early = pools.early + started - half
    pools.late = pools.late + half - finished
    now_s = 1.0 / np.maximum(iterations, 1e-9)
    pools.token_s = np.where(serves, pools.token_s + (np.minimum(now_s, 1.0) - pools.token_s) * 0.3, pools.token_s)
    share_mixed = mixed / np.maximum(iterations, 1e-9)
    spread_s = np.sqrt(share_mixed * (1 - np.minimum(share_mixed, 1.0))) * np.abs(mixed_s - decode_s)
    share_mixed = np.minimum(share_mixed, 1.0)
    mean_s = share_mixed * mixed_s + (1 - share_mixed) * decode_s
    pools.biased_s = (share_mixed * mixed_s**2 + (1 - share_mixed) * decode_s**2) / mean_s
    return Second(
        wait_s, prefill_token_s, pools.token_s, spread_s, started, finished,
        np.minimum(iterations * before, np.maximum(before, 0) * 1e9) + started,
    )  # fmt: skip
