"""A safetensors reader that trusts nothing: header and offsets are checked against the file before they are used.

The file is mapped; tensors are views into the mapping, so that opening costs no memory and the pages of a tensor are
read when its values are. Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Final, NoReturn

import numpy as np

from worker_image.checkpoint.base import StoredTensor
from worker_image.checkpoint.files import map_file
from worker_image.checkpoint.json_fields import Fields, parse_json
from worker_image.errors import CheckpointError

LENGTH_BYTES: Final = 8
MAX_HEADER_BYTES: Final = 100_000_000
"""The limit of the format's own library."""
MAX_DIMS: Final = 8
ELEMENT_BYTES: Final[Mapping[str, int]] = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "F8_E8M0": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "F64": 8, "I64": 8, "U64": 8, "C64": 8,
}  # fmt: skip
READABLE: Final[Mapping[str, type[np.generic]]] = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start_byte: int
    n_bytes: int


class SafetensorsFile:
    """An open, validated file."""

    def __init__(self, path: Path) -> None:
        """Raises CheckpointError naming the file, and the tensor where there is one."""
        self.path = path
        self._map: mmap.mmap = map_file(path)
        header, data_start = self._header()
        self.tensors: Mapping[str, TensorEntry] = {
            name: self._entry(header, name, data_start) for name in header.names if name != "__metadata__"
        }
        self._check_layout(data_start)

    def read(self, name: str) -> StoredTensor:
        """Raises CheckpointError for a type this worker does not compute with."""
        entry = self.tensors[name]
        self.check_readable(name)
        raw = np.frombuffer(self._map, np.uint8, entry.n_bytes, entry.start_byte)
        values = raw.view(READABLE[entry.dtype]).reshape(entry.shape)
        if not values.flags.aligned:
            values = values.copy()
        return StoredTensor(values, bfloat16=entry.dtype == "BF16", in_file=True)

    def check_readable(self, name: str) -> None:
        """Raises CheckpointError for a type this worker does not compute with."""
        dtype = self.tensors[name].dtype
        if dtype not in READABLE:
            raise CheckpointError(
                f"{self.path}: tensor '{name}' has type {dtype}; this worker reads {', '.join(READABLE)}."
            )

    def _header(self) -> tuple[Fields, int]:
        size = len(self._map)
        if size < LENGTH_BYTES:
            self._truncated("the header's length", LENGTH_BYTES)
        length = int.from_bytes(self._map[:LENGTH_BYTES], "little")
        if length > MAX_HEADER_BYTES:
            raise CheckpointError(
                f"{self.path}: its header would have {length} bytes; at most {MAX_HEADER_BYTES} are allowed. "
                "Either it is no safetensors file or it is damaged: fetch it again."
            )
        if LENGTH_BYTES + length > size:
            self._truncated("the header", LENGTH_BYTES + length)
        return parse_json(
            f"{self.path}: header", self._map[LENGTH_BYTES : LENGTH_BYTES + length]
        ), LENGTH_BYTES + length

    def _entry(self, header: Fields, name: str, data_start: int) -> TensorEntry:
        fields = header.fields(name)
        dtype = fields.text("dtype")
        if dtype not in ELEMENT_BYTES:
            raise CheckpointError(f"{self.path}: tensor '{name}' has unknown type '{dtype[:40]}'.")
        shape, (begin, end) = self._numbers(fields, "shape", MAX_DIMS), self._offsets(fields)
        n_bytes = prod(shape) * ELEMENT_BYTES[dtype]
        if end - begin != n_bytes:
            raise CheckpointError(
                f"{self.path}: tensor '{name}' is {list(shape)} of {dtype}, {n_bytes} bytes, "
                f"but lies in {end - begin} (from {begin} to {end})."
            )
        if data_start + end > len(self._map):
            self._truncated(f"tensor '{name}'", data_start + end)
        return TensorEntry(name, dtype, shape, data_start + begin, n_bytes)

    def _offsets(self, fields: Fields) -> tuple[int, int]:
        offsets = self._numbers(fields, "data_offsets", 2)
        if len(offsets) != 2:
            raise CheckpointError(f"{fields.name}: data_offsets has {len(offsets)} numbers; it must have two.")
        return offsets[0], offsets[1]

    @staticmethod
    def _numbers(fields: Fields, key: str, most: int) -> tuple[int, ...]:
        value = fields.get(key)
        numbers = value if isinstance(value, list) else [None]
        if len(numbers) > most or not all(type(number) is int and number >= 0 for number in numbers):
            raise CheckpointError(
                f"{fields.name}: {key} is {str(value)[:60]}; it must be a list of at most {most} numbers from 0 on."
            )
        return tuple(numbers)

    def _check_layout(self, data_start: int) -> None:
        """The data are the tensors one after the other: no gap, no overlap, nothing behind."""
        at = data_start
        for entry in sorted(self.tensors.values(), key=lambda entry: (entry.start_byte, entry.n_bytes)):
            if entry.start_byte != at:
                what = "overlaps the one before" if entry.start_byte < at else "leaves a gap before it"
                raise CheckpointError(f"{self.path}: tensor '{entry.name}' {what} (byte {entry.start_byte} for {at}).")
            at += entry.n_bytes
        if at != len(self._map):
            raise CheckpointError(
                f"{self.path}: has {len(self._map)} bytes, its header accounts for {at}. Fetch it again."
            )

    def _truncated(self, what: str, end: int) -> NoReturn:
        raise CheckpointError(
            f"{self.path}: is truncated: {what} reaches byte {end}, the file has {len(self._map)}. Fetch it again."
        )
