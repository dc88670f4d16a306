"""Damage to bytes as hypothesis draws it: single bytes, pieces, numbers at their bounds, and values inside of JSON."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

import orjson
from hypothesis import strategies as st

NUMBERS: Final = (
    *(number.to_bytes(8, "little") for number in (0, 1, 0x7F, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1)),
    struct.pack("<f", float("nan")),
    struct.pack("<d", float("inf")),
)
TEXTS: Final = (
    b"\x00", b"\r\n", b"\n\n", b":", b",", b'"', b"{{", b"%}", b"-1", b"1e999", b"9" * 25, b"[" * 2000, b"\xff\xfe",
)  # fmt: skip
VALUES: Final[tuple[Any, ...]] = (
    None, True, -1, 0, 2**63 - 1, -(2**63), 1e308, 0.5, "", "\0", "a" * 300, [], [[]], {}, {"": {}}, [None],
    {"$ref": "#"},
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    seed = draw(st.sampled_from(seeds))
    value = _json(seed)
    if value is not None and draw(st.booleans()):
        for _ in range(draw(st.integers(1, 3))):
            value = _changed(draw, value)
        return orjson.dumps(value)
    data = bytearray(seed)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 4)):
            case 0:
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case 1:
                data[at:at] = draw(st.sampled_from(TEXTS))
            case 2:
                piece = draw(st.sampled_from(NUMBERS))
                data[at : at + len(piece)] = piece
            case 3:
                del data[at : at + draw(st.integers(1, 64))]
            case 4:
                data[at:at] = data[at : at + draw(st.integers(1, 64))]
    return bytes(data)


def _json(seed: bytes) -> Any:
    """None for bytes that are no JSON object."""
    try:
        value = orjson.loads(seed)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _changed(draw: st.DrawFn, value: Any) -> Any:
    """With another value somewhere in it."""
    if isinstance(value, dict | list) and value and draw(st.integers(0, 3)):
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = draw(st.sampled_from(keys))
        value[key] = _changed(draw, value[key])
        return value
    if isinstance(value, dict) and draw(st.booleans()):
        return value | {draw(st.sampled_from(["", "model", "type", "x" * 99])): draw(st.sampled_from(VALUES))}
    return draw(st.sampled_from(VALUES))
