"""A GGUF reader that trusts nothing: every length is checked against the file before it is used.

The file is mapped, not read; tensors are views into the mapping. Only the header is parsed here: what the
bytes of a tensor mean is `quant`'s business. Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from math import isfinite, prod
from pathlib import Path
from typing import Final, NoReturn, TypeAlias

from worker_image.checkpoint.files import map_file
from worker_image.errors import CheckpointError

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)
MAX_DIMS: Final = 4
MAX_ARRAY_DEPTH: Final = 4

Value: TypeAlias = "int | float | bool | str | list[Value]"


class ValueType(IntEnum):
    """Types of metadata values."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


_SCALARS: Final = {
    ValueType.UINT8: "B",
    ValueType.INT8: "b",
    ValueType.UINT16: "H",
    ValueType.INT16: "h",
    ValueType.UINT32: "I",
    ValueType.INT32: "i",
    ValueType.FLOAT32: "f",
    ValueType.BOOL: "?",
    ValueType.UINT64: "Q",
    ValueType.INT64: "q",
    ValueType.FLOAT64: "d",
}


@dataclass(frozen=True)
class Encoding:
    """How a tensor's elements are stored: `block_bytes` hold `block_elements`."""

    name: str
    block_elements: int
    block_bytes: int


F32: Final = Encoding("F32", 1, 4)
F16: Final = Encoding("F16", 1, 2)
Q4_0: Final = Encoding("Q4_0", 32, 18)
Q4_1: Final = Encoding("Q4_1", 32, 20)
Q8_0: Final = Encoding("Q8_0", 32, 34)
Q4_K: Final = Encoding("Q4_K", 256, 144)
Q6_K: Final = Encoding("Q6_K", 256, 210)
BF16: Final = Encoding("BF16", 1, 2)
ENCODINGS: Final[Mapping[int, Encoding]] = {
    0: F32, 1: F16, 2: Q4_0, 3: Q4_1, 8: Q8_0, 12: Q4_K, 14: Q6_K, 30: BF16
}  # fmt: skip
# Only for the sentence that refuses them.
_KNOWN_BUT_UNSUPPORTED: Final = {
    6: "Q5_0", 7: "Q5_1", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 13: "Q5_K", 15: "Q8_K",
    16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS",
    24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0",
    39: "MXFP4",
}  # fmt: skip


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies. `shape` is row-major, slowest dimension first, as torch has it."""

    name: str
    shape: tuple[int, ...]
    encoding: Encoding
    start_byte: int
    n_bytes: int


class GgufFile:
    """An open, validated checkpoint. `data` gives a tensor's bytes without copying them."""

    def __init__(self, path: Path) -> None:
        """Raises CheckpointError naming the file, and the tensor where there is one."""
        self.path = path
        self._map = map_file(path)
        header = _Header(path, self._map)
        self.metadata: Mapping[str, Value] = header.metadata
        self.tensors: Mapping[str, TensorInfo] = header.tensors

    def data(self, name: str) -> memoryview:
        info = self.tensors[name]
        return memoryview(self._map)[info.start_byte : info.start_byte + info.n_bytes]

    def integer(self, key: str, default: int | None = None) -> int:
        value = self.metadata.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            self._refuse_key(key, value, "an integer")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.metadata.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            self._refuse_key(key, value, "a number")
        return float(value)

    def text(self, key: str, default: str | None = None) -> str:
        value = self.metadata.get(key, default)
        if not isinstance(value, str):
            self._refuse_key(key, value, "a string")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.metadata.get(key, default)
        if not isinstance(value, bool):
            self._refuse_key(key, value, "true or false")
        return value

    def texts(self, key: str) -> list[str]:
        value = self.metadata.get(key)
        if not isinstance(value, list):
            self._refuse_key(key, value, "a list of strings")
        strings = [item for item in value if isinstance(item, str)]
        if len(strings) != len(value):
            self._refuse_key(key, value[0], "a list of strings")
        return strings

    def integers(self, key: str) -> list[int]:
        value = self.metadata.get(key)
        if not isinstance(value, list):
            self._refuse_key(key, value, "a list of integers")
        integers = [item for item in value if isinstance(item, int)]
        if len(integers) != len(value):
            self._refuse_key(key, value[0], "a list of integers")
        return integers

    def numbers(self, key: str) -> list[float]:
        value = self.metadata.get(key)
        if not isinstance(value, list):
            self._refuse_key(key, value, "a list of numbers")
        numbers = [float(item) for item in value if isinstance(item, int | float)]
        if len(numbers) != len(value):
            self._refuse_key(key, value[0], "a list of numbers")
        return numbers

    def _refuse_key(self, key: str, found: object, wanted: str) -> NoReturn:
        what = "is absent" if found is None else f"is {str(found)[:40]!r}"
        raise CheckpointError(f"{self.path}: metadata key '{key}' {what}; it must be {wanted}.")


class _Header:
    """The parse itself: a cursor over the mapping that refuses to leave it."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path, self._data, self._at = path, data, 0
        n_tensors, n_keys = self._preamble()
        self.metadata: dict[str, Value] = {}
        for _ in range(n_keys):
            key = self._string("a metadata key")
            if key in self.metadata:
                raise CheckpointError(f"{path}: metadata key '{key}' appears twice.")
            self.metadata[key] = self._value(self._value_type(key), key, 0)
        self.tensors = self._tensors(n_tensors)

    def _preamble(self) -> tuple[int, int]:
        if self._data[:4] != MAGIC:
            raise CheckpointError(f"{self._path}: starts with {self._data[:4]!r}, so it is no GGUF file.")
        self._at = 4
        version = int(self._scalar("I", "the version"))
        if version not in VERSIONS:
            raise CheckpointError(f"{self._path}: is GGUF version {version}; this worker reads versions 2 and 3.")
        return int(self._scalar("Q", "the tensor count")), int(self._scalar("Q", "the key count"))

    def _take(self, n_bytes: int, what: str) -> bytes:
        end = self._at + n_bytes
        if end > len(self._data):
            self._truncated(what, end)
        piece = self._data[self._at : end]
        self._at = end
        return piece

    def _truncated(self, what: str, end: int) -> NoReturn:
        raise CheckpointError(
            f"{self._path}: is truncated: {what} reaches byte {end}, the file has {len(self._data)}. Fetch it again."
        )

    def _scalar(self, code: str, what: str) -> int | float | bool:
        (value,) = struct.unpack("<" + code, self._take(struct.calcsize("<" + code), what))
        result: int | float | bool = value
        return result

    def _string(self, what: str) -> str:
        length = int(self._scalar("Q", what))
        return self._take(length, what).decode("utf-8", "replace")

    def _value_type(self, what: str) -> ValueType:
        number = int(self._scalar("I", what))
        try:
            return ValueType(number)
        except ValueError:
            raise CheckpointError(f"{self._path}: metadata key '{what}' has unknown value type {number}.") from None

    def _value(self, kind: ValueType, key: str, depth: int) -> Value:
        if kind is ValueType.STRING:
            return self._string(f"metadata key '{key}'")
        if kind is ValueType.ARRAY:
            return self._array(key, depth)
        return self._scalar(_SCALARS[kind], f"metadata key '{key}'")

    def _array(self, key: str, depth: int) -> list[Value]:
        if depth == MAX_ARRAY_DEPTH:
            raise CheckpointError(f"{self._path}: metadata key '{key}' nests lists more than {MAX_ARRAY_DEPTH} deep.")
        kind = self._value_type(key)
        count = int(self._scalar("Q", f"metadata key '{key}'"))
        if kind in _SCALARS:
            code = _SCALARS[kind]
            n_bytes = count * struct.calcsize("<" + code)
            return list(struct.unpack(f"<{count}{code}", self._take(n_bytes, f"metadata key '{key}'")))
        read: Callable[[], Value] = lambda: self._value(kind, key, depth + 1)  # noqa: E731 - one line, two uses of the cursor
        return [read() for _ in range(count)]

    def _tensors(self, count: int) -> dict[str, TensorInfo]:
        raw = [self._tensor_entry() for _ in range(count)]
        alignment = self.metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment <= 0:
            raise CheckpointError(f"{self._path}: general.alignment is {alignment!r}; it must be a positive integer.")
        data_start = -(-self._at // alignment) * alignment
        tensors: dict[str, TensorInfo] = {}
        for name, shape, encoding, offset in raw:
            if name in tensors:
                raise CheckpointError(f"{self._path}: tensor '{name}' appears twice.")
            tensors[name] = self._place(name, shape, encoding, data_start + offset)
        in_order = sorted(tensors.values(), key=lambda tensor: (tensor.start_byte, tensor.n_bytes))
        for before, tensor in pairwise(in_order):
            if tensor.start_byte < before.start_byte + before.n_bytes:
                raise CheckpointError(f"{self._path}: tensor '{tensor.name}' overlaps '{before.name}'. Fetch it again.")
        return tensors

    def _tensor_entry(self) -> tuple[str, tuple[int, ...], Encoding, int]:
        name = self._string("the tensor list")
        n_dims = int(self._scalar("I", f"tensor '{name}'"))
        if not 1 <= n_dims <= MAX_DIMS:
            raise CheckpointError(
                f"{self._path}: tensor '{name}' has {n_dims} dimensions; 1 to {MAX_DIMS} are allowed."
            )
        shape = tuple(int(self._scalar("Q", f"tensor '{name}'")) for _ in range(n_dims))[::-1]
        number = int(self._scalar("I", f"tensor '{name}'"))
        encoding = ENCODINGS.get(number)
        if encoding is None:
            found = _KNOWN_BUT_UNSUPPORTED.get(number, f"type {number}")
            allowed = ", ".join(e.name for e in ENCODINGS.values())
            raise CheckpointError(
                f"{self._path}: tensor '{name}' is quantised as {found}; this worker reads {allowed}."
            )
        return name, shape, encoding, int(self._scalar("Q", f"tensor '{name}'"))

    def _place(self, name: str, shape: tuple[int, ...], encoding: Encoding, start: int) -> TensorInfo:
        if shape[-1] % encoding.block_elements:
            raise CheckpointError(
                f"{self._path}: tensor '{name}' has rows of {shape[-1]} elements, "
                f"no multiple of {encoding.name}'s {encoding.block_elements}."
            )
        n_bytes = prod(shape) // encoding.block_elements * encoding.block_bytes
        if start + n_bytes > len(self._data):
            self._truncated(f"tensor '{name}'", start + n_bytes)
        return TensorInfo(name, shape, encoding, start, n_bytes)
