"""A folder of tiny workloads in the rule files' format, so that the harness itself is tested in seconds on a CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from benchmarks.engine.workloads import FILES

MODEL: Final = "tiny-shape"
CONFIG: Final = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 320,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "attention_bias": False,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "torch_dtype": "float32",
}


def write_rules(folder: Path) -> Path:
    """Writes the rule files and the tiny shape into `folder`, and returns it."""
    common: dict[str, Any] = {"model": MODEL, "token_mod": 300, "temperature": 0.0}
    lengths = {"prompt_lens": [5, 17, 33, 2], "output_lens": [4, 3, 8, 5]}
    rules: dict[str, dict[str, Any]] = {
        "w1": common | lengths | {"seed": 100, "temperature": 0.6},
        "w2": common | lengths | {"seed": 200},
        "w3": common | {"seed": 300, "prompt_len": 24, "output_len": 6, "batches": [1, 2]},
        "w4": common | {"seed": 400, "arrivals_s": {"50": [0.01, 0.02, 0.05], "100": [0.005, 0.01, 0.02, 0.03]}},
        "w5": common
        | {"seed": 500, "requests": 4, "prefix_len": 32, "unique_len": 5, "output_len": 3, "prefix_request": 1000},
    }
    for key, rule in rules.items():
        (folder / FILES[key]).write_text(json.dumps(rule), encoding="utf-8")
    shape = folder / "models" / MODEL
    shape.mkdir(parents=True)
    (shape / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    return folder
