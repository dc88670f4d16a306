"""How a request stands among others and with whom it shares, as the gateway's headers say.

A header that cannot be read is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from crds.contract import (
    HEADER_CACHE_SALT,
    HEADER_CLASS,
    HEADER_DEADLINE_MS,
    HEADER_TENANT,
    HEADER_TTFT_TARGET_MS,
    HEADER_WEIGHT,
)
from worker_image.engine.standing import CLASSES, ORDINARY, Standing
from worker_image.errors import RequestError

MAX_TENANT_CHARS: Final = 256
"""Of a salt, too."""
MAX_WEIGHT: Final = 1_000_000
NAMES: Final = (HEADER_CLASS, HEADER_TENANT, HEADER_WEIGHT, HEADER_DEADLINE_MS, HEADER_TTFT_TARGET_MS)
_DECIMAL: Final = re.compile(r"[0-9]{1,7}(\.[0-9]{1,9})?", re.ASCII)
_MILLISECONDS: Final = re.compile(r"[0-9]{1,9}", re.ASCII)
_OPAQUE: Final = f"1 to {MAX_TENANT_CHARS} printable characters"

T = TypeVar("T")


def standing_of(headers: Mapping[str, str]) -> Standing:
    """Raises RequestError that names the header."""
    if not any(name in headers for name in NAMES):
        return ORDINARY
    return Standing(
        priority=_read(headers, HEADER_CLASS, _class, "P0, P1, P2 or P3", ORDINARY.priority),
        tenant=_read(headers, HEADER_TENANT, _opaque, _OPAQUE, ORDINARY.tenant),
        weight=_read(headers, HEADER_WEIGHT, _weight, f"a number above 0, at most {MAX_WEIGHT}", ORDINARY.weight),
        deadline_s=_read(headers, HEADER_DEADLINE_MS, _milliseconds, "a whole number above 0", None),
        ttft_target_s=_read(headers, HEADER_TTFT_TARGET_MS, _milliseconds, "a whole number above 0", None),
    )


def cache_salt_of(headers: Mapping[str, str]) -> str:
    """Empty where none is told. Raises RequestError."""
    return _read(headers, HEADER_CACHE_SALT, _opaque, _OPAQUE, "")


def _read(headers: Mapping[str, str], name: str, parse: Callable[[str], T | None], allowed: str, absent: T) -> T:
    text = headers.get(name)
    if text is None:
        return absent
    value = parse(text)
    if value is None:
        shown = ascii(text[:40])
        raise RequestError(f"header '{name}' is {shown}; it may be {allowed}.", param=name)
    return value


def _class(text: str) -> int | None:
    return CLASSES.index(text) if text in CLASSES else None


def _opaque(text: str) -> str | None:
    return text if text and len(text) <= MAX_TENANT_CHARS and text.isprintable() else None


def _weight(text: str) -> float | None:
    weight = float(text) if _DECIMAL.fullmatch(text) else 0.0
    return weight if 0 < weight <= MAX_WEIGHT else None


def _milliseconds(text: str) -> float | None:
    milliseconds = int(text) if _MILLISECONDS.fullmatch(text) else 0
    return milliseconds / 1000 if milliseconds else None
