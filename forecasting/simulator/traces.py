"""Readers of traces of single requests: the Azure, Mooncake and AIBrix formats and a plain CSV.

They take lines, not files. A row that cannot be read is refused with file and line; nothing is skipped in silence.

    Azure      TIMESTAMP,ContextTokens,GeneratedTokens      2023-11-16 18:15:46.6805900,374,44 (of 2024 with a zone)
    Mooncake   {"timestamp": ms, "input_length": …, "output_length": …}
    AIBrix     {"timestamp": ms, "requests": [{"Prompt Length": …, "Output Length": …}]}
    plain      arrival_s,input_tokens,output_tokens         0.25,512,64
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np

from forecasting.errors import ForecastingError
from forecasting.simulator.requests import Requests, of_columns

Row = tuple[float, int, int]

MOST_TOKENS = 10**9
"""Of one request."""
MOST_SPAN_S = 3660 * 86_400.0
"""Ten years: what is longer is no trace, and would take as long to replay."""


class TraceInvalid(ForecastingError):
    """A trace that cannot be read; says file and line."""


def read_requests(name: str, lines: Iterable[str]) -> Requests:
    """Requests of a trace in any of the formats, told apart by the first line. Times begin at 0.

    Raises:
        TraceInvalid: a row cannot be read, or there is none.
    """
    numbered = ((number, line.strip()) for number, line in enumerate(lines, 1))
    filled = ((number, line) for number, line in numbered if line)
    first = next(filled, None)
    if first is None:
        raise TraceInvalid(f"{name}: empty; a trace needs at least one request.")
    parse, is_header = _format_of(name, first[1])
    times, inputs, outputs = array("d"), array("q"), array("q")  # 24 bytes a request: traces have millions
    for arrival_s, input_tokens, output_tokens in _rows(name, parse, filled if is_header else _again(first, filled)):
        times.append(arrival_s)
        inputs.append(input_tokens)
        outputs.append(output_tokens)
    if not times:
        raise TraceInvalid(f"{name}: no request after the header; a trace needs at least one.")
    since_s = np.asarray(times) - min(times)
    if (span_s := float(since_s.max())) > MOST_SPAN_S:
        raise TraceInvalid(f"{name}: spans {span_s / 86_400:.4g} days; a trace has {MOST_SPAN_S / 86_400:.0f} at most.")
    return of_columns(since_s, np.asarray(inputs), np.asarray(outputs), span_s + 1.0)


def _again(first: tuple[int, str], rest: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    yield first
    yield from rest


def _format_of(name: str, first: str) -> tuple[Callable[[str], list[Row]], bool]:
    head = [column.strip().lower() for column in first.split(",")]
    if head == ["timestamp", "contexttokens", "generatedtokens"]:
        return _azure, True
    if head == ["arrival_s", "input_tokens", "output_tokens"]:
        return _plain, True
    if first.startswith("{"):
        return (_aibrix if '"requests"' in first else _mooncake), False
    raise TraceInvalid(
        f"{name}, line 1: {first[:60]!r} is no known format. A CSV begins with 'arrival_s,input_tokens,output_tokens'"
        " or 'TIMESTAMP,ContextTokens,GeneratedTokens'; JSON lines have 'timestamp' and 'input_length' or 'requests'."
    )


def _rows(name: str, parse: Callable[[str], list[Row]], lines: Iterable[tuple[int, str]]) -> Iterator[Row]:
    for number, line in lines:
        try:
            rows = parse(line)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise TraceInvalid(f"{name}, line {number}: cannot be read ({error}): {line[:80]!r}") from error
        for arrival_s, inputs, outputs in rows:
            # A request that asks for nothing still computes its prompt's last token and gives one.
            if not 0 <= arrival_s < float("inf") or not (0 <= inputs <= MOST_TOKENS and 0 <= outputs <= MOST_TOKENS):
                raise TraceInvalid(
                    f"{name}, line {number}: arrival {arrival_s}, {inputs} input and {outputs} output tokens;"
                    f" none may be negative, and tokens at most {MOST_TOKENS}."
                )
            yield arrival_s, max(inputs, 1), max(outputs, 1)


def _azure(line: str) -> list[Row]:
    stamp, inputs, outputs = line.split(",")
    at = datetime.fromisoformat(stamp.strip())
    return [((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp(), int(inputs), int(outputs))]


def _plain(line: str) -> list[Row]:
    arrival_s, inputs, outputs = line.split(",")
    return [(float(arrival_s), int(inputs), int(outputs))]


def _mooncake(line: str) -> list[Row]:
    raw = _object(line)
    return [(_number(raw, "timestamp") / 1000, int(_number(raw, "input_length")), int(_number(raw, "output_length")))]


def _aibrix(line: str) -> list[Row]:
    raw = _object(line)
    at_s = _number(raw, "timestamp") / 1000
    return [
        (at_s, int(_number(each, "Prompt Length")), int(_number(each, "Output Length"))) for each in raw["requests"]
    ]


def _object(line: str) -> dict[str, Any]:
    raw = json.loads(line)
    if not isinstance(raw, dict):
        raise ValueError("an object is needed")
    return raw


def _number(raw: dict[str, Any], key: str) -> float:
    value = raw[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{key} is {value!r}; a number is needed")
    return float(value)
