"""One form of log lines for all processes: what is in a line, and that each process writes exactly that."""

from __future__ import annotations

import ast
import asyncio
import json
import logging
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from controllers.runtime import logs as operator_logs
from crds.log_lines import FIELDS, JsonFormatter, about
from worker_image import logs as worker_logs

ROOT = Path(__file__).parents[2]
ALWAYS = {"time", "level", "logger", "message"}
PACKAGES = ("controllers", "gateway", "kube", "worker_image")


def line_of(**fields: Any) -> dict[str, Any]:
    record = logging.makeLogRecord({"name": "n", "levelname": "INFO", "msg": "a %s", "args": ("b",), **fields})
    line: dict[str, Any] = json.loads(JsonFormatter().format(record))
    return line


def test_a_line_is_one_json_object_with_what_was_given() -> None:
    line = line_of(created=1_767_247_200.0, object="a", odd=Path("/x"))
    assert line == {
        "time": "2026-01-01T06:00:00.000+00:00", "level": "info", "logger": "n", "message": "a b", "object": "a",
        "odd": "/x",
    }  # fmt: skip


def test_an_exception_is_in_the_same_line() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        text = JsonFormatter().format(logging.getLogger("n").makeRecord("n", 40, "f", 1, "m", (), sys.exc_info()))
    assert "\n" not in text
    assert "ValueError: broken" in json.loads(text)["exception"]


def test_text_that_is_no_unicode_is_no_second_failure() -> None:
    assert line_of(endpoint="a\udcff")["endpoint"] == "a?"


def test_a_line_says_what_it_is_about_and_only_while_it_is() -> None:
    with about(request_id="r1"):
        with about(trace_id="t1"):
            assert line_of().items() >= {"request_id": "r1", "trace_id": "t1"}.items()
        assert line_of().keys() == ALWAYS | {"request_id"}
        assert line_of(request_id="r2")["request_id"] == "r2", "what the line itself says counts"
    assert line_of().keys() == ALWAYS


async def test_what_is_done_at_the_same_time_is_not_mixed_up() -> None:
    both = asyncio.Barrier(2)

    async def one(name: str) -> str:
        with about(request_id=name):
            await both.wait()
            said: str = (await asyncio.to_thread(line_of))["request_id"]
            return said

    assert tuple(await asyncio.gather(one("a"), one("b"))) == ("a", "b")


def test_every_process_writes_lines_in_this_form() -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        operator_logs.configure("info")
        assert isinstance(root.handlers[0].formatter, JsonFormatter)
        worker_logs.configure("json")
        assert isinstance(root.handlers[0].formatter, JsonFormatter)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    others = [
        path
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"class \w+\((logging\.)?Formatter\)", path.read_text())
    ]
    assert others == [], "a second form of log lines"
    assert "handler.setFormatter(JsonFormatter())" in (ROOT / "gateway/__main__.py").read_text()


def named_in(path: Path) -> set[str]:
    """Fields that `about(x=…)`, `log_fields(x=…)` and `extra={"x": …}` of a module give."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in ("about", "log_fields"):
            found |= {one.arg for one in node.keywords if one.arg}
        for one in node.keywords:
            if one.arg == "extra" and isinstance(one.value, ast.Dict) and called in ("info", "warning", "error", "log"):
                found |= {str(key.value) for key in one.value.keys if isinstance(key, ast.Constant)}
    return found


def test_every_field_that_a_module_gives_has_its_one_meaning() -> None:
    given = {name for package in PACKAGES for path in (ROOT / package).rglob("*.py") for name in named_in(path)}
    assert {"request_id", "endpoint"} <= given, "the search finds nothing any more"
    assert given <= FIELDS.keys()


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_every_field_is_in_the_handbook(name: str) -> None:
    assert f"| `{name}` |" in (ROOT / "docs/logs.md").read_text()
