"""docs/benchmarks/index.md, made of the JSON beside the pages: each benchmark on a line, and each goal missed."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from benchmarks.report import RESULTS, Better, Report, Row, number

HEAD: Final = """\
# Benchmarks

<!-- Made by `make generate` from the JSON files of this folder; tests/handbook/benchmarks_page.py says how. -->

{met} of {all} goals are met. A goal stays where it is when it is missed; this page lists every miss.
Each page says on which machine, at which commit and with which command its numbers came about, and has the peers' of
the same run.

| benchmark | goals | met | missed | measured |
|---|---:|---:|---:|---|
"""


def page(folder: Path = RESULTS) -> str:
    """The whole file."""
    reports = {path: Report.read(path) for path in sorted(folder.glob("*.json"))}
    judged = [row for report in reports.values() for row in report.rows if row.met is not None]
    lines = "".join(_line(path, report) for path, report in reports.items())
    sections = "".join(_misses(path, report) for path, report in reports.items())
    return HEAD.format(met=sum(bool(row.met) for row in judged), all=len(judged)) + lines + sections


def _line(path: Path, report: Report) -> str:
    judged = [row for row in report.rows if row.met is not None]
    missed = sum(not row.met for row in judged)
    day = report.date.split()[0]
    return f"| {_link(path)} | {len(judged)} | {len(judged) - missed} | {missed or '–'} | {day} |\n"


def _misses(path: Path, report: Report) -> str:
    missed = [row for row in report.rows if row.met is False]
    if not missed:
        return ""
    return f"\n## Missed: {_link(path)}\n\n" + "".join(f"- {_miss(row)}\n" for row in missed)


def _miss(row: Row) -> str:
    found = "not measured" if row.ours is None else f"{number(row.ours)} {row.unit}"
    limit = "at most" if row.better is Better.LOWER else "at least"
    peer = "" if row.peer is None or row.peer_name is None else f" ({row.peer_name}: {number(row.peer)})"
    return f"{row.workload}, {row.metric}: {found}{peer}; the goal is {limit} {number(row.goal)}."


def _link(path: Path) -> str:
    title = path.with_suffix(".md").read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
    return f"[{title}]({path.stem}.md)"
