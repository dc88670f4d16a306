"""Decisions as lines of JSON and back, so that `foretide replay` can decide them again.

The format is the dataclasses' own: one object, field by field, tuples as arrays, infinities and NaN as the texts
"inf", "-inf" and "nan" (JSON has none). Unknown and missing fields are refused.
"""

from __future__ import annotations

import json
import math
import sys
import types
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from forecasting.errors import BadSetting
from forecasting.policy.values import RecordInvalid, ScalingDecision, ScalingInput

T = TypeVar("T")


def to_plain(value: object) -> Any:
    """Nothing but dicts, lists, texts, numbers, booleans and None."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple | list):
        return [to_plain(each) for each in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def to_json(decision: ScalingDecision) -> str:
    """One line, without its newline."""
    return json.dumps(to_plain(decision), separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def from_json(line: str) -> ScalingDecision:
    """Read a line of `to_json`.

    Raises:
        RecordInvalid: it is no such line; says which field is wrong.
    """
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RecordInvalid(f"not JSON: {error}") from error
    return from_plain(ScalingDecision, raw)


def input_from_plain(raw: Any) -> ScalingInput:
    """A ScalingInput out of plain values.

    Raises:
        RecordInvalid: a field is missing, unknown or of another type.
    """
    return from_plain(ScalingInput, raw)


def from_plain(kind: type[T], raw: Any) -> T:
    """A dataclass of `kind` out of what `to_plain` gave.

    Raises:
        RecordInvalid: a field is missing, unknown or of another type.
    """
    found: T = _read(kind, raw, kind.__name__)
    return found


def _read(kind: Any, raw: Any, at: str) -> Any:
    if isinstance(kind, type) and is_dataclass(kind):
        return _read_fields(kind, raw, at)
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return None if raw is None else _read(next(arm for arm in get_args(kind) if arm is not type(None)), raw, at)
    if origin is tuple:
        return _read_tuple(get_args(kind), raw, at)
    if isinstance(kind, type) and issubclass(kind, Enum):
        try:
            return kind(raw)
        except ValueError as error:
            allowed = ", ".join(str(each.value) for each in kind)
            raise RecordInvalid(f"{at} is {raw!r}; allowed: {allowed}") from error
    return _read_scalar(kind, raw, at)


def _read_fields(kind: Any, raw: Any, at: str) -> Any:
    if not isinstance(raw, dict):
        raise RecordInvalid(f"{at} is {type(raw).__name__}; an object is needed")
    hints, known = get_type_hints(kind), fields(kind)
    if unknown := sorted(set(raw) - {field.name for field in known}):
        raise RecordInvalid(f"{at} has no field {unknown[0]!r}; was it written by another version?")
    needed = {field.name for field in known if field.default is MISSING}
    if missing := sorted(needed - set(raw)):
        raise RecordInvalid(f"{at} lacks the field {missing[0]!r}")
    values = {name: _read(hints[name], value, f"{at}.{name}") for name, value in raw.items()}
    try:
        return kind(**values)
    except BadSetting as error:
        raise RecordInvalid(f"{at}: {error}") from error


def _read_tuple(arms: tuple[Any, ...], raw: Any, at: str) -> tuple[Any, ...]:
    if not isinstance(raw, list):
        raise RecordInvalid(f"{at} is {type(raw).__name__}; an array is needed")
    if len(arms) == 2 and arms[1] is Ellipsis:
        return tuple(_read(arms[0], each, f"{at}[{index}]") for index, each in enumerate(raw))
    if len(arms) != len(raw):
        raise RecordInvalid(f"{at} has {len(raw)} entries; {len(arms)} are needed")
    return tuple(_read(arm, each, f"{at}[{index}]") for index, (arm, each) in enumerate(zip(arms, raw, strict=True)))


def _read_scalar(kind: Any, raw: Any, at: str) -> Any:
    if kind is float:
        if raw in ("inf", "-inf", "nan"):
            return float(raw)
        if type(raw) is float or (type(raw) is int and abs(raw) <= sys.float_info.max):
            return float(raw)
    elif type(raw) is kind:  # not isinstance: True is an int
        return raw
    raise RecordInvalid(f"{at} is {raw!r}; a value of type {kind.__name__} is needed")
