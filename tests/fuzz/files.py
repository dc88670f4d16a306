"""Files that strangers made, as bytes: checkpoints, tokenizers, chat templates, traces, and the gateway's own file."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

import orjson

from cli.errors import CliError
from cli.trace_files import read_trace
from forecasting.errors import ForecastingError
from forecasting.simulator.servegen import read_clients
from gateway.errors import SettingsError
from gateway.static import load as load_static
from worker_image.checkpoint.gguf import GgufFile
from worker_image.checkpoint.gguf_checkpoint import GgufCheckpoint
from worker_image.checkpoint.hf_config import read_hf_config
from worker_image.checkpoint.hf_tokenizer import load_hf_vocabulary
from worker_image.checkpoint.safetensors_file import SafetensorsFile
from worker_image.checkpoint.tokenizer import load_vocabulary
from worker_image.errors import CheckpointError, RequestError
from worker_image.models.tensors import expected_tensors
from worker_image.text.chat_template import ChatTemplate

MESSAGES: Final[tuple[dict[str, Any], ...]] = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]},
    {"role": "tool", "content": "42"},
)


@cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="fuzz-")


def folder() -> Path:
    """One for the whole process, removed with it."""
    return Path(_temporary().name)


def written(name: str, data: bytes) -> Path:
    path = folder() / name
    path.write_bytes(data)
    return path


def gguf(data: bytes) -> None:
    path = written("model.gguf", data)
    with suppress(CheckpointError):
        load_vocabulary(GgufFile(path))
    with suppress(CheckpointError):
        checkpoint = GgufCheckpoint(path)
        for name in expected_tensors(checkpoint.config):
            checkpoint.read(name)


def safetensors(data: bytes) -> None:
    with suppress(CheckpointError):
        file = SafetensorsFile(written("model.safetensors", data))
        for name in file.tensors:
            with suppress(CheckpointError):
                file.read(name)


def hf_config(data: bytes) -> None:
    with suppress(CheckpointError):
        expected_tensors(read_hf_config(written("config.json", data)))


def hf_tokenizer(data: bytes) -> None:
    """tokenizer.json, and what follows a line of dashes is tokenizer_config.json."""
    tokenizer, _, settings = data.partition(b"\n---\n")
    written("tokenizer.json", tokenizer)
    written("tokenizer_config.json", settings or b"{}")
    with suppress(CheckpointError):
        vocabulary = load_hf_vocabulary(folder(), 300)
        vocabulary.encode("Hello <s> Wörld", add_bos=True)


def chat_template(data: bytes) -> None:
    with suppress(CheckpointError, RequestError):
        template = ChatTemplate(data.decode("utf-8", "replace"), bos_token="<s>", eos_token="</s>")
        template.render(MESSAGES, {"tools": [{"type": "function"}], "enable_thinking": False}, 1_700_000_000)


def trace(data: bytes) -> None:
    for name in ("trace.csv", "trace.tar", "trace.csv.gz"):
        with suppress(CliError):
            read_trace(written(name, data))


def servegen(data: bytes) -> None:
    with suppress(ForecastingError):
        read_clients({"a-trace.csv": data.decode("utf-8", "replace").splitlines()})


def static_catalog(data: bytes) -> None:
    with suppress(SettingsError):
        load_static(written("static.yaml", data))


def seeds_of_hf_config() -> bytes:
    return orjson.dumps(
        {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 96,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 300,
            "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
            "rope_scaling": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 128},
        }
    )  # fmt: skip
