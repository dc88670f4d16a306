"""`python -m benchmarks.engine.peer CONFIG_FOLDER WORKLOADS BATCH…`: `transformers` on the same shape and requests.

Prints one line of JSON per batch. Weights are small random numbers made on the device; a process of its own.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from benchmarks.engine.stages import WARM_REPEAT, WARM_TOKENS, shortened
from benchmarks.engine.workloads import Rules, Workload

NO_TOKEN: Final = 10**9
"""An end-of-sequence id that no model has, so that every answer has its full length."""
WEIGHT_SCALE: Final = 0.02


def build(folder: Path, device: str) -> Any:
    """The shape of `config.json` with random weights in the checkpoint's dtype."""
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config, dtype=config.dtype, attn_implementation="sdpa"
        )
    with torch.device(device):
        rope = type(model.model.rotary_emb)(config=config)
    model = model.to_empty(device=device)
    # The rotary table is a buffer that is in no checkpoint: computed, not drawn.
    model.model.rotary_emb = rope
    with torch.inference_mode():
        for parameter in model.parameters():
            parameter.normal_(0.0, WEIGHT_SCALE)
    model.tie_weights()
    return model.eval()


def generate(model: Any, workload: Workload, device: str) -> dict[str, float]:
    """All requests have one length of prompt and one of output, so nothing is padded."""
    ids = torch.tensor([request.prompt for request in workload.requests], device=device)
    output_tokens = workload.requests[0].output_tokens
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=output_tokens, do_sample=False, eos_token_id=NO_TOKEN, pad_token_id=0
    )
    marks: list[float] = []

    def mark(tokens: torch.Tensor, _: Any, **__: Any) -> torch.Tensor:
        # The token is on the host only once the device is done, which is what a client would wait for.
        tokens[:, -1].tolist()
        marks.append(time.perf_counter())
        return torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)

    started_at = time.perf_counter()
    with torch.inference_mode():
        model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config, stopping_criteria=[mark])
    seconds = time.perf_counter() - started_at
    return {
        "seconds": seconds,
        "output_tokens_per_s": workload.output_tokens / seconds,
        "ttft_ms": (marks[0] - started_at) * 1e3,
        "tpot_ms": (marks[-1] - marks[0]) / max(len(marks) - 1, 1) * 1e3,
    }


def main(arguments: list[str]) -> int:
    folder, rules = Path(arguments[0]), Rules(Path(arguments[1]))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = build(folder, device)
    generate(model, shortened(rules.latency(WARM_REPEAT, 1), WARM_TOKENS), device)
    for batch in map(int, arguments[2:]):
        workload = rules.latency(0, batch)
        print(json.dumps({"workload": workload.name} | generate(model, workload, device)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
