"""Whether a file is the weights it claims to be: GGUF or safetensors, whole, and nothing that unpickles.

Reads headers only; tensors are the worker's matter. A file that passes can be opened, not necessarily run.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from controllers.model_cache.errors import WrongContent
from controllers.plans.units import bytes_text, names_text
from crds.model import ModelFormat

GGUF_MAGIC: Final = b"GGUF"
GGUF_VERSIONS: Final = (2, 3)
_GGUF_MOST: Final = 1_000_000
"""Tensors or metadata entries that a real file stays far below; more means garbage."""
JSON_MOST_BYTES: Final = 16 << 20
"""Of a safetensors header and of an index: an index of 700 billion parameters has 9 MB."""
JSON_MOST_MARKS: Final = 1_000_000
"""Commas, colons and brackets. What is made of them takes up to 80 bytes of memory each."""
INDEX: Final = "model.safetensors.index.json"


def check(folder: Path, files: Iterable[str], wanted: ModelFormat | None) -> ModelFormat:
    """The format of the weights in `folder`. Raises WrongContent with a sentence when they are none or another."""
    names = sorted(files)
    gguf = [name for name in names if _starts_with(folder / name, GGUF_MAGIC)]
    tensors = [name for name in names if name.endswith(".safetensors")]
    if gguf and not tensors:
        found = ModelFormat.GGUF
        for name in gguf:
            check_gguf(folder / name)
    elif tensors:
        found = ModelFormat.SAFETENSORS
        check_safetensors_set(folder, tensors, names)
    elif len(names) == 1 and _looks_like_safetensors(folder / names[0]):
        found = ModelFormat.SAFETENSORS
        check_safetensors(folder / names[0])
    else:
        start = _first_bytes(folder / names[0]) if names else b""
        raise WrongContent(
            f"No weights were found: {names_text(names) if names else 'nothing'} starts with {start!r}, which is"
            " neither GGUF nor safetensors. Check spec.source; pickled checkpoints (.bin, .pt) are not accepted."
        )
    if wanted is not None and wanted is not found:
        raise WrongContent(f"The weights are {found.value}, spec.format says {wanted.value}. Make a Model without it.")
    return found


def check_gguf(path: Path) -> None:
    """Magic, version, plausible counts, and a file that is longer than its own header says."""
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(24)
    if len(head) < 24:
        raise WrongContent(f"'{path.name}' ends after {size_bytes} bytes; a GGUF header has 24. It was cut short.")
    version, n_tensors, n_entries = struct.unpack("<IQQ", head[4:])
    if version not in GGUF_VERSIONS:
        raise WrongContent(f"'{path.name}' is GGUF version {version}; {GGUF_VERSIONS} can be read. Convert it anew.")
    if n_tensors == 0 or n_tensors > _GGUF_MOST or n_entries > _GGUF_MOST:
        raise WrongContent(
            f"'{path.name}' claims {n_tensors} tensors and {n_entries} metadata entries; that is no model. "
            "Check spec.source."
        )
    # The shortest tensor entry has 32 bytes (name length, dimensions, one size, type, offset), a metadata entry 13.
    least_bytes = 24 + 32 * n_tensors + 13 * n_entries
    if size_bytes < least_bytes:
        raise WrongContent(
            f"'{path.name}' has {bytes_text(size_bytes)}, its {n_tensors} tensors alone need more than"
            f" {bytes_text(least_bytes)}. It was cut short."
        )


def check_safetensors(path: Path) -> frozenset[str]:
    """Header length, JSON, and that the tensors fill the file exactly. Returns their names."""
    header, data_bytes = _safetensors_header(path)
    ends = [0]
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    extents = sorted(_extent(path, name, entry) for name, entry in tensors.items())
    for start, end in extents:
        if start != ends[-1]:
            raise WrongContent(f"'{path.name}' has a gap or an overlap at byte {ends[-1]} of its data. It is damaged.")
        ends.append(end)
    if not tensors:
        raise WrongContent(f"'{path.name}' holds no tensors. Check spec.source.")
    if ends[-1] != data_bytes:
        raise WrongContent(
            f"'{path.name}' holds {bytes_text(data_bytes)} of tensors, its header says {bytes_text(ends[-1])}."
            " It was cut short or has been changed."
        )
    return frozenset(tensors)


def check_safetensors_set(folder: Path, tensors: list[str], names: list[str]) -> None:
    """Each file by itself, and against the index, when there is one."""
    index_name = next((name for name in names if name.rsplit("/", 1)[-1] == INDEX), None)
    placed = {} if index_name is None else _placed(folder, index_name)
    for name in tensors:
        strangers = placed.pop(name, set[str]()) - check_safetensors(folder / name)
        if strangers:
            raise _misplaced(index_name, min(strangers), name)
    for name, missing in sorted(placed.items()):
        raise _misplaced(index_name, min(missing), name)


def _placed(folder: Path, index_name: str) -> dict[str, set[str]]:
    """Which tensors the index places in which file."""
    placed: dict[str, set[str]] = {}
    base = index_name.removesuffix(INDEX)
    what = f"'{index_name}'"
    with (folder / index_name).open("rb") as file:
        raw = file.read(_allowed(what, (folder / index_name).stat().st_size))
    try:
        for tensor, name in _json(what, raw)["weight_map"].items():
            placed.setdefault(f"{base}{name}", set()).add(tensor)
    except (KeyError, TypeError, AttributeError) as error:
        raise WrongContent(f"{what} has no object 'weight_map'. Check spec.source.") from error
    return placed


def _misplaced(index_name: str | None, tensor: str, file: str) -> WrongContent:
    return WrongContent(f"'{index_name}' places tensor '{tensor}' in '{file}', which has no such tensor.")


def _safetensors_header(path: Path) -> tuple[dict[str, Any], int]:
    size_bytes = path.stat().st_size
    what = f"The safetensors header of '{path.name}'"
    with path.open("rb") as file:
        head = file.read(8)
        length = int.from_bytes(head, "little")
        if len(head) < 8 or not 2 <= length <= size_bytes - 8:
            raise WrongContent(
                f"'{path.name}' has {bytes_text(size_bytes)} and claims a header of {length} bytes;"
                " it is no safetensors file, or was cut short."
            )
        raw = file.read(_allowed(what, length))
    header = _json(what, raw)
    if not isinstance(header, dict):
        raise WrongContent(f"{what} is not an object. It is damaged.")
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise WrongContent(f"{what} has a '__metadata__' that is not an object of strings. It is damaged.")
    return header, size_bytes - 8 - length


def _allowed(what: str, size_bytes: int) -> int:
    if size_bytes > JSON_MOST_BYTES:
        raise WrongContent(
            f"{what} has {bytes_text(size_bytes)}; at most {bytes_text(JSON_MOST_BYTES)} are read. Check spec.source."
        )
    return size_bytes


def _json(what: str, raw: bytes) -> Any:
    marks = sum(raw.count(mark) for mark in (b",", b":", b"[", b"{"))
    if marks > JSON_MOST_MARKS:
        raise WrongContent(
            f"{what} has {marks} commas, colons and brackets; at most {JSON_MOST_MARKS} are read. Check spec.source."
        )
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise WrongContent(f"{what} is not JSON. It is damaged.") from error


def _extent(path: Path, name: str, entry: object) -> tuple[int, int]:
    offsets = entry.get("data_offsets") if isinstance(entry, Mapping) else None
    if (
        not isinstance(offsets, list)
        or len(offsets) != 2
        or not all(isinstance(one, int) and not isinstance(one, bool) for one in offsets)
        or not 0 <= offsets[0] <= offsets[1]
    ):
        raise WrongContent(f"Tensor '{name}' of '{path.name}' has no valid data_offsets. It is damaged.")
    return offsets[0], offsets[1]


def _looks_like_safetensors(path: Path) -> bool:
    head = _first_bytes(path)
    return len(head) >= 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= JSON_MOST_BYTES


def _starts_with(path: Path, magic: bytes) -> bool:
    return _first_bytes(path).startswith(magic)


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return os.read(file.fileno(), 12)
