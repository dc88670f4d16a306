"""How much memory the KV cache may have: computed from the machine and the container's limit, never guessed."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

from worker_image.engine.messages import EngineSettings
from worker_image.errors import SettingsError
from worker_image.models.config import ModelConfig
from worker_image.models.tensors import expected_tensors

SHARE_OF_FREE_MEMORY = 0.5
"""The rest stays for activations, the server process and the page cache."""

CGROUPS = Path("/sys/fs/cgroup")
CGROUP_FILES = (
    ("memory.max", "memory.current", "memory.stat", ""),
    # Version 1, where no limit is a number larger than any machine.
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_"),
)
"""Limit, use and its parts, in bytes, as the container sees its own group; and what the parts' names begin with."""


@dataclass(frozen=True)
class KvPlan:
    n_blocks: int
    max_model_len: int


def free_memory_bytes(cgroups: Path = CGROUPS) -> int:
    """What this process may still allocate: the machine's available memory, or what its cgroup leaves if less.

    Pages of files count as a cgroup's use, and as free: the kernel gives them back. A container that has read its
    weights stands at its limit because of them.
    """
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) * 1024
    for limit, used, parts, prefix in CGROUP_FILES:
        if (cgroups / limit).exists() and (text := (cgroups / limit).read_text().strip()) != "max":
            in_use = int((cgroups / used).read_text()) - _pages_of_files(cgroups / parts, prefix)
            available = min(available, int(text) - in_use)
    return max(available, 0)


def _pages_of_files(parts: Path, prefix: str) -> int:
    if not parts.exists():
        return 0
    sizes = dict(line.split() for line in parts.read_text().splitlines())
    return sum(int(sizes.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))


def check_weights(config: ModelConfig, element_bytes: int, free_bytes: int) -> None:
    """Before the first is read. Raises SettingsError where the device has no room for them."""
    needed = element_bytes * sum(prod(shape) for shape in expected_tensors(config).values())
    if needed > free_bytes:
        raise SettingsError(
            f"the weights take {needed >> 20} MiB at {element_bytes} bytes an element; {free_bytes >> 20} MiB are free."
            " Raise the memory limit, or serve a smaller model."
        )


def plan_kv(settings: EngineSettings, model_context: int, bytes_per_token: int, free_bytes: int) -> KvPlan:
    """Blocks of the pool and the longest request it serves.

    Raises SettingsError where the two flags contradict each other, or the model's context is shorter than asked for.
    """
    wanted = settings.max_model_len
    if wanted is not None and wanted > model_context:
        raise SettingsError(
            f"--max-model-len is {wanted}; the model was trained for {model_context} tokens. Lower it to at most that."
        )
    longest = wanted or model_context
    budget = settings.kv_cache_bytes or int(free_bytes * SHARE_OF_FREE_MEMORY)
    block_bytes = bytes_per_token * settings.block_tokens
    useful = settings.max_num_seqs * -(-longest // settings.block_tokens)
    n_blocks = min(budget // block_bytes, useful)
    room = n_blocks * settings.block_tokens
    if n_blocks == 0 or (wanted is not None and room < wanted):
        raise SettingsError(
            f"the KV cache has {budget} bytes, room for {room} tokens at {bytes_per_token} bytes each; one request of "
            f"{longest} tokens must fit. Raise --kv-cache-bytes or the memory limit, or lower --max-model-len."
        )
    return KvPlan(n_blocks, min(longest, room))
