"""Which forward pass serves which architecture. The name is the checkpoint's (`general.architecture`)."""

from __future__ import annotations

from worker_image.checkpoint.gguf import GgufFile
from worker_image.checkpoint.quant import TensorReader
from worker_image.errors import CheckpointError
from worker_image.models.llama import LlamaConfig, LlamaModel, OnProgress, check_tensors

ARCHITECTURES = ("llama",)


def load_model(reader: TensorReader, on_progress: OnProgress) -> LlamaModel:
    """Raises CheckpointError where no forward pass here can serve this file."""
    _require_known(reader.file)
    config = LlamaConfig.from_gguf(reader.file)
    check_tensors(reader.file, config)
    return LlamaModel(reader, config, on_progress)


def _require_known(file: GgufFile) -> None:
    name = file.text("general.architecture")
    if name not in ARCHITECTURES:
        raise CheckpointError(
            f"{file.path}: architecture '{name}' is not supported; this worker has {', '.join(ARCHITECTURES)}."
        )
