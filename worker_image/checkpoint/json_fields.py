"""JSON files of a checkpoint, trusted as little as its tensors: bounded, every value's type checked when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Final, NoReturn

import orjson

from worker_image.errors import CheckpointError

MAX_BYTES: Final = 256 << 20
"""The largest tokenizer.json known is a tenth of it."""


class Fields:
    """An object of a JSON file; `name` is how errors call it: the file, and the key where it is nested."""

    def __init__(self, name: str, values: Mapping[str, object]) -> None:
        self.name = name
        self._values = values

    def __contains__(self, key: str) -> bool:
        """A key that is null counts as absent, as Hugging Face writes unset ones."""
        return self._values.get(key) is not None

    @property
    def names(self) -> list[str]:
        """Every key, null or not."""
        return list(self._values)

    def get(self, key: str) -> object:
        return self._values.get(key)

    def integer(self, key: str, default: int | None = None) -> int:
        value = self._given(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            self._refuse(key, value, "an integer")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self._given(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            self._refuse(key, value, "a number")
        return float(value)

    def text(self, key: str, default: str | None = None) -> str:
        value = self._given(key, default)
        if not isinstance(value, str):
            self._refuse(key, value, "a string")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self._given(key, default)
        if not isinstance(value, bool):
            self._refuse(key, value, "true or false")
        return value

    def texts(self, key: str) -> list[str]:
        value = self._values.get(key)
        strings = [item for item in value if isinstance(item, str)] if isinstance(value, list) else None
        if strings is None or not isinstance(value, list) or len(strings) != len(value):
            self._refuse(key, value, "a list of strings")
        return strings

    def fields(self, key: str) -> Fields:
        """The nested object; an empty one where the key is absent."""
        value = self._given(key, None)
        if value is None:
            return Fields(f"{self.name}: {key}", {})
        if not isinstance(value, dict):
            self._refuse(key, value, "an object")
        return Fields(f"{self.name}: {key}", value)

    def _given(self, key: str, default: object) -> object:
        value = self._values.get(key)
        return default if value is None else value

    def _refuse(self, key: str, found: object, wanted: str) -> NoReturn:
        what = "is absent" if found is None else f"is {str(found)[:40]!r}"
        raise CheckpointError(f"{self.name}: key '{key}' {what}; it must be {wanted}.")


def read_json(path: Path) -> Fields:
    """The object in the file. Raises CheckpointError."""
    return parse_json(str(path), read_bounded(path))


def read_bounded(path: Path) -> bytes:
    """Raises CheckpointError."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise CheckpointError(f"{path}: has {size} bytes; a JSON file of a checkpoint has at most {MAX_BYTES}.")
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}.") from None


def parse_json(name: str, raw: bytes) -> Fields:
    """Raises CheckpointError where the bytes are no JSON object."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise CheckpointError(f"{name}: is no JSON: {error}.") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{name}: holds a {type(value).__name__}; it must hold an object.")
    return Fields(name, value)
