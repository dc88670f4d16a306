"""The command line of every subcommand, as frozen settings. Wrong values fail here, at start, with a sentence."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeVar

from crds.contract import WORKER_ADMIN_PORT, WORKER_HTTP_PORT, WORKER_SLOTS_CPU, WORKER_SLOTS_GPU
from worker_image.checkpoint.source import LoadFormat
from worker_image.engine.messages import Device, EngineSettings
from worker_image.engine.scheduler.settings import DEFAULT, Batching, Packing, PolicyName, Scheduling
from worker_image.errors import SettingsError

NVIDIA_DRIVER: Final = Path("/dev/nvidiactl")


@dataclass(frozen=True)
class DeviceDefaults:
    """How much a device takes at once: as much as keeps it busy, and no more than keeps a step short."""

    max_num_seqs: int
    step_tokens: int


DEFAULTS: Final = {
    Device.CPU: DeviceDefaults(WORKER_SLOTS_CPU, 256),
    Device.CUDA: DeviceDefaults(WORKER_SLOTS_GPU, 8192),
}


@dataclass(frozen=True)
class ModelSettings:
    """What `serve`, `bench` and `chat` share: which checkpoint, and how the engine runs it."""

    path: Path
    digest: str | None
    n_threads: int
    max_num_seqs: int
    step_tokens: int
    block_tokens: int
    max_model_len: int | None
    kv_cache_bytes: int | None
    load_format: LoadFormat = LoadFormat.AUTO
    device: Device = Device.CPU
    gpu_memory_utilization: float = 0.9
    gpu_memory_bytes: int | None = None
    deterministic: bool = False
    scheduling: Scheduling = DEFAULT
    swap_bytes: int = 0

    def engine(self, checkpoint: Path) -> EngineSettings:
        return EngineSettings(
            model_path=str(checkpoint),
            n_threads=self.n_threads,
            max_num_seqs=self.max_num_seqs,
            step_tokens=self.step_tokens,
            block_tokens=self.block_tokens,
            max_model_len=self.max_model_len,
            kv_cache_bytes=self.kv_cache_bytes,
            load_format=self.load_format,
            device=self.device,
            gpu_memory_utilization=self.gpu_memory_utilization,
            gpu_memory_bytes=self.gpu_memory_bytes,
            deterministic=self.deterministic,
            scheduling=self.scheduling,
            swap_bytes=self.swap_bytes,
        )


@dataclass(frozen=True)
class ServeSettings:
    model: ModelSettings
    names: tuple[str, ...]
    host: str
    port: int
    admin_port: int
    prefix_caching: bool
    """Whether requests share cached prefixes at all."""
    grammar_timeout_s: float
    stall_limit_s: float
    drain_timeout_s: float
    drain_notice_s: float
    scratch: Path | None
    """A folder that is this worker's alone, watched where it is told."""
    scratch_bytes: int


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, help="a GGUF file, a directory that holds one, or a Hugging Face one")
    parser.add_argument(
        "--load-format", type=_one_of(LoadFormat), default=LoadFormat.AUTO, metavar="{auto,dummy}",
        help="dummy: random weights for the shape in config.json (default: auto)",
    )  # fmt: skip
    parser.add_argument(
        "--device", type=_device, default=present_device(), metavar="{auto,cpu,cuda}",
        help="what to run on (default: auto, here %(default)s)",
    )  # fmt: skip
    parser.add_argument("--digest", help="sha256:<hex> that the file must have")
    parser.add_argument("--threads", type=_positive, default=usable_cpus(), help="CPU threads (default: %(default)s)")
    parser.add_argument("--max-model-len", type=_positive, help="longest prompt plus answer (default: the model's)")
    cpu, cuda = DEFAULTS[Device.CPU], DEFAULTS[Device.CUDA]
    parser.add_argument(
        "--max-num-seqs", type=_positive,
        help=f"most requests at once (default: {cpu.max_num_seqs}, on a GPU {cuda.max_num_seqs})",
    )  # fmt: skip
    parser.add_argument(
        "--max-num-batched-tokens", type=_positive,
        help=f"tokens a step (default: {cpu.step_tokens}, on a GPU {cuda.step_tokens})",
    )  # fmt: skip
    parser.add_argument("--block-size", type=_positive, default=16, help="tokens a KV block (default: 16)")
    parser.add_argument("--kv-cache-bytes", type=_positive, help="size of the KV cache (default: half the free memory)")
    parser.add_argument(
        "--kv-swap-bytes", type=_bytes, default=0,
        help="host memory for the cache of requests that give way (default: 0, computed again)",
    )  # fmt: skip
    parser.add_argument(
        "--gpu-memory-utilization", type=_share, default=0.9,
        help="share of the GPU's memory for all of it, unless --kv-cache-bytes is set (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--gpu-memory-bytes", type=_positive,
        help="on a GPU that others use, too: the most that this worker takes, in the place of a share of the whole",
    )  # fmt: skip
    parser.add_argument(
        "--deterministic", action="store_true", help="on a GPU: the same bits for a request whatever shares its batch"
    )
    _add_scheduling_arguments(parser)
    parser.add_argument("--log-format", choices=("text", "json"), default="text", help="of the log (default: text)")


def _add_scheduling_arguments(parser: argparse.ArgumentParser) -> None:
    for flag, kind, default, text in (
        ("--scheduling-policy", PolicyName, DEFAULT.policy, "who comes first"),
        ("--batching", Batching, DEFAULT.batching, "when those who wait may join those who run"),
        ("--packing", Packing, DEFAULT.packing, "which of those who wait make up a batch"),
    ):
        names = ",".join(kind)
        parser.add_argument(
            flag, type=_one_of(kind), default=default, metavar=f"{{{names}}}", help=f"{text} (default: %(default)s)"
        )
    parser.add_argument(
        "--min-batch", type=_positive, default=DEFAULT.min_batch, help="fewer begin no batch (default: %(default)s)"
    )
    parser.add_argument("--max-batch", type=_positive, help="most that run at once (default: --max-num-seqs)")
    parser.add_argument(
        "--batch-base", type=_positive, default=DEFAULT.batch_base,
        help="adaptive: a group's size where nothing runs (default: %(default)s)",
    )  # fmt: skip
    for flag, seconds, text in (
        ("--min-wait-s", DEFAULT.min_wait_s, "no batch begins before its first request has waited so long"),
        ("--max-wait-s", DEFAULT.max_wait_s, "a batch begins when its first request has waited so long"),
        ("--ageing-s", DEFAULT.ageing_s, "after this wait a request counts as one of the next better class"),
    ):
        parser.add_argument(flag, type=_seconds, default=seconds, help=f"{text} (default: %(default)s)")


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument("--served-model-name", action="append", help="name in the API; repeat for more than one")
    parser.add_argument(
        "--no-prefix-caching", dest="prefix_caching", action="store_false",
        help="no request is answered from what another has left in the KV cache",
    )  # fmt: skip
    parser.add_argument(
        "--grammar-timeout-s", type=_seconds, default=5.0, help="a schema that compiles longer is refused (default: 5)"
    )
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=WORKER_HTTP_PORT, help="OpenAI API (default: %(default)s)")
    parser.add_argument("--admin-port", type=_port, default=WORKER_ADMIN_PORT, help="health and metrics (%(default)s)")
    parser.add_argument(
        "--stall-limit-s",
        type=_seconds,
        default=4.0,
        help="liveness fails after this without progress, and thrice what was announced (default: 4)",
    )
    parser.add_argument(
        "--drain-timeout-s", type=_seconds, default=600.0, help="open requests are cut after this (default: 600)"
    )
    parser.add_argument(
        "--drain-notice-s", type=_seconds, default=1.0, help="least time of answering 503 before exit (default: 1)"
    )
    parser.add_argument(
        "--scratch", type=Path, metavar="FOLDER",
        help="this worker's alone: with more in it than --scratch-bytes the worker drains, ends and empties it",
    )  # fmt: skip
    parser.add_argument(
        "--scratch-bytes", type=_positive, default=1 << 30, help="most that --scratch may hold (default: 1 GiB)"
    )


def add_bench_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument("--requests", type=_positive, default=8, help="requests at once (default: 8)")
    parser.add_argument("--prompt-tokens", type=_positive, default=128, help="tokens of each prompt (default: 128)")
    parser.add_argument("--output-tokens", type=_positive, default=64, help="tokens of each answer (default: 64)")
    parser.add_argument("--profile", type=Path, help="also measure a profile for `foretide simulate`, into this file")


def model_settings(arguments: argparse.Namespace) -> ModelSettings:
    """Raises SettingsError."""
    defaults = DEFAULTS[arguments.device]
    step_tokens = arguments.max_num_batched_tokens or defaults.step_tokens
    max_num_seqs = arguments.max_num_seqs or defaults.max_num_seqs
    if step_tokens <= max_num_seqs:
        raise SettingsError(
            f"--max-num-batched-tokens is {step_tokens}; it must be more than --max-num-seqs, {max_num_seqs}, "
            "so that prompts move on beside running answers."
        )
    return ModelSettings(
        path=arguments.path,
        digest=arguments.digest,
        n_threads=arguments.threads,
        max_num_seqs=max_num_seqs,
        step_tokens=step_tokens,
        block_tokens=arguments.block_size,
        max_model_len=arguments.max_model_len,
        kv_cache_bytes=arguments.kv_cache_bytes,
        load_format=arguments.load_format,
        device=arguments.device,
        gpu_memory_utilization=arguments.gpu_memory_utilization,
        gpu_memory_bytes=arguments.gpu_memory_bytes,
        deterministic=arguments.deterministic,
        scheduling=_scheduling(arguments),
        swap_bytes=arguments.kv_swap_bytes,
    )


def _scheduling(arguments: argparse.Namespace) -> Scheduling:
    """Raises SettingsError."""
    scheduling = Scheduling(
        policy=arguments.scheduling_policy,
        batching=arguments.batching,
        packing=arguments.packing,
        min_batch=arguments.min_batch,
        max_batch=arguments.max_batch,
        batch_base=arguments.batch_base,
        min_wait_s=arguments.min_wait_s,
        max_wait_s=arguments.max_wait_s,
        ageing_s=arguments.ageing_s,
    )
    if scheduling.problem is not None:
        raise SettingsError(scheduling.problem)
    return scheduling


def serve_settings(arguments: argparse.Namespace) -> ServeSettings:
    """Raises SettingsError."""
    return ServeSettings(
        model=model_settings(arguments),
        names=tuple(arguments.served_model_name or [_name_of(arguments.path)]),
        host=arguments.host,
        port=arguments.port,
        admin_port=arguments.admin_port,
        prefix_caching=arguments.prefix_caching,
        grammar_timeout_s=arguments.grammar_timeout_s,
        stall_limit_s=arguments.stall_limit_s,
        drain_timeout_s=arguments.drain_timeout_s,
        drain_notice_s=arguments.drain_notice_s,
        scratch=arguments.scratch,
        scratch_bytes=arguments.scratch_bytes,
    )


def _name_of(path: Path) -> str:
    """A file's without its ending, a directory's as it is: what follows its last dot is mostly a version."""
    return Path(os.path.abspath(path)).name if path.is_dir() else path.stem


def present_device() -> Device:
    """A GPU where the machine has NVIDIA's driver."""
    return Device.CUDA if NVIDIA_DRIVER.exists() else Device.CPU


def usable_cpus() -> int:
    """CPUs this process may use: its affinity, and its container's quota rounded up."""
    cpus = len(os.sched_getaffinity(0))
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.exists() and (parts := quota.read_text().split())[0] != "max":
        cpus = min(cpus, -(-int(parts[0]) // int(parts[1])))
    return max(cpus, 1)


E = TypeVar("E", bound=StrEnum)


def _one_of(kind: type[E]) -> Callable[[str], E]:
    def parse(text: str) -> E:
        if text not in list(kind):
            raise argparse.ArgumentTypeError(f"'{text}' is not known; it may be {' or '.join(kind)}")
        return kind(text)

    return parse


def _device(text: str) -> Device:
    return present_device() if text == "auto" else _one_of(Device)(text)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no number") from None


def _positive(text: str) -> int:
    value = _whole(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{value} is not allowed; it must be 1 or more")
    return value


def _bytes(text: str) -> int:
    value = _whole(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is not allowed; it must be 0 or more")
    return value


def _seconds(text: str) -> float:
    value = _number(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{value:g} is no time; 0 seconds or more are allowed")
    return value


def _share(text: str) -> float:
    value = _number(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{value:g} is no share; more than 0 and at most 1 are allowed")
    return value


def _port(text: str) -> int:
    value = _whole(text)
    if not 0 <= value < 65536:
        raise argparse.ArgumentTypeError(f"{value} is no port; 0 to 65535 are allowed")
    return value
