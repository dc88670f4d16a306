"""How the engine is set for each kind of stage, and the settings as a file for a process that starts from nothing."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

import orjson

from benchmarks.engine.stages import Kind
from benchmarks.engine.workloads import Rules
from worker_image.checkpoint.source import LoadFormat
from worker_image.engine.messages import Device, EngineSettings, Start, decode

MAX_MODEL_LEN = 4096
"""As the peer was set: the longest request of the workloads fits."""
LIMITS: Final = {
    Kind.NANO: (256, 16384),
    Kind.LARGE: (1024, 8192),
    Kind.ONLINE: (512, 1792),
    Kind.DETERMINISTIC: (1024, 8192),
}
"""Most requests at once, and most tokens a step."""


def engine_settings(rules: Rules, kind: Kind, *, quick: bool) -> EngineSettings:
    """`quick`: the tiny shape on a CPU."""
    max_num_seqs, step_tokens = LIMITS[kind]
    settings = EngineSettings(
        model_path=str(rules.model_folder(rules.model_of("w1" if kind is Kind.NANO else "w2"))),
        n_threads=8,
        max_num_seqs=max_num_seqs,
        step_tokens=step_tokens,
        block_tokens=16,
        max_model_len=MAX_MODEL_LEN,
        kv_cache_bytes=None,
        device=Device.CUDA,
        load_format=LoadFormat.DUMMY,
        gpu_memory_utilization=0.93,
        deterministic=kind is Kind.DETERMINISTIC,
    )
    if not quick:
        return settings
    return replace(
        settings, device=Device.CPU, n_threads=1, max_num_seqs=8, step_tokens=64, max_model_len=128,
        kv_cache_bytes=1 << 20, deterministic=False,
    )  # fmt: skip


def write(path: Path, settings: EngineSettings) -> Path:
    path.write_text(json.dumps(asdict(settings)), encoding="utf-8")
    return path


def read(path: Path) -> EngineSettings:
    start = decode(orjson.dumps(["Start", {"settings": orjson.loads(path.read_bytes())}]))
    assert isinstance(start, Start)
    return start.settings
