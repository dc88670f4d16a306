"""A Hugging Face directory as a `Checkpoint`: config.json and one or more safetensors files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from worker_image.checkpoint.base import Prefetcher, StoredTensor, check_shapes
from worker_image.checkpoint.hf_config import read_hf_config
from worker_image.checkpoint.json_fields import read_json
from worker_image.checkpoint.safetensors_file import SafetensorsFile
from worker_image.checkpoint.source import CONFIG_FILE
from worker_image.errors import CheckpointError
from worker_image.models.config import ModelConfig
from worker_image.models.tensors import OUTPUT, expected_tensors

INDEX_FILE: Final = "model.safetensors.index.json"
SINGLE_FILE: Final = "model.safetensors"
SHARD: Final = re.compile(r"-\d{5}-of-\d{5}\.safetensors$")
IGNORED: Final = re.compile(r"\.rotary_emb\.inv_freq$")
"""Tables that old Llama files carry; ours are computed."""
MAX_NAME_BYTES: Final = 255
"""Of a file, in every file system that matters."""
ELEMENTS_A_PAGE: Final = 1024
"""Touching every so many elements touches every page, whatever the type."""


class HfCheckpoint:
    """A directory."""

    def __init__(self, path: Path) -> None:
        """Opens every shard and checks every header. Raises CheckpointError."""
        self.path = path
        self.config: ModelConfig = read_hf_config(path / CONFIG_FILE)
        self._files = _open_shards(path)
        self._check()
        self._prefetcher: Prefetcher | None = None

    def read(self, name: str) -> StoredTensor:
        return self._files[name].read(name) if self._prefetcher is None else self._prefetcher.take(name)

    def prefetch(self, n_threads: int) -> None:
        if self._prefetcher is None:
            # Views of the file: the page cache bounds them.
            self._prefetcher = Prefetcher(self._bring_in, dict.fromkeys(expected_tensors(self.config), 0), n_threads)

    def close(self) -> None:
        if self._prefetcher is not None:
            self._prefetcher.close()

    def _bring_in(self, name: str) -> StoredTensor:
        """The view of the file, its pages read once."""
        stored = self._files[name].read(name)
        stored.values.reshape(-1)[::ELEMENTS_A_PAGE].max(initial=0)
        return stored

    def _check(self) -> None:
        expected = expected_tensors(self.config)
        found = {
            name: file.tensors[name].shape
            for name, file in self._files.items()
            if IGNORED.search(name) is None and not (self.config.tied and name == OUTPUT)
        }
        check_shapes(self._place, expected, found, self.config.architecture)
        for name in expected:
            self._files[name].check_readable(name)

    def _place(self, name: str) -> str:
        return str(self._files[name].path if name in self._files else self.path)


def _open_shards(path: Path) -> Mapping[str, SafetensorsFile]:
    """Tensor name → the file that has it."""
    if (path / INDEX_FILE).exists():
        return _indexed(path)
    found = sorted(path.glob("*.safetensors"))
    only = [path / SINGLE_FILE] if (path / SINGLE_FILE) in found else found
    if len(only) != 1:
        what = "no *.safetensors file" if not found else f"{len(found)} *.safetensors files and no {INDEX_FILE}"
        raise CheckpointError(f"{path}: the directory holds {what}; one file, or an index of several, is needed.")
    if SHARD.search(only[0].name):
        raise CheckpointError(f"{only[0]}: is one shard of several, and {INDEX_FILE} is missing beside it.")
    file = SafetensorsFile(only[0])
    return dict.fromkeys(file.tensors, file)


def _indexed(path: Path) -> Mapping[str, SafetensorsFile]:
    index = path / INDEX_FILE
    weight_map = read_json(index).fields("weight_map")
    shard_of = {name: weight_map.text(name) for name in weight_map.names}
    _check_shard_names(index, shard_of)
    files = {shard: SafetensorsFile(path / shard) for shard in sorted(set(shard_of.values()))}
    _check_against_index(index, shard_of, files)
    return {name: files[shard] for name, shard in shard_of.items()}


def _check_shard_names(index: Path, shard_of: Mapping[str, str]) -> None:
    for name, shard in shard_of.items():
        named = Path(shard).name == shard and len(shard.encode()) <= MAX_NAME_BYTES
        if not named or not shard.endswith(".safetensors"):
            raise CheckpointError(f"{index}: tensor '{name}' is said to be in {shard[:80]!r}, which is no file name.")
        if not (index.parent / shard).is_file():
            raise CheckpointError(f"{index.parent / shard}: the shard with tensor '{name}' is missing. Fetch it again.")
    listed = set(shard_of.values())
    for file in sorted(index.parent.glob("*.safetensors")):
        if SHARD.search(file.name) and file.name not in listed:
            raise CheckpointError(f"{file}: the shard is not named in {INDEX_FILE}; one of the two is from elsewhere.")


def _check_against_index(index: Path, shard_of: Mapping[str, str], files: Mapping[str, SafetensorsFile]) -> None:
    for name, shard in shard_of.items():
        if name not in files[shard].tensors:
            raise CheckpointError(f"{files[shard].path}: tensor '{name}' is missing; {INDEX_FILE} says it is there.")
    for shard, file in files.items():
        for name in file.tensors:
            if shard_of.get(name) != shard:
                raise CheckpointError(f"{index}: does not say that tensor '{name}' is in {shard}, where it is.")
