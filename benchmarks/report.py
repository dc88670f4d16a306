"""What a benchmark hands in: rows of numbers beside a peer's, written as JSON and as a page made from that JSON.

Rows are the facts; the page adds only the words of its benchmark and says openly which goals were missed. Measures
nothing.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "docs" / "benchmarks"


class Better(StrEnum):
    """Which direction is good."""

    LOWER = "lower"
    HIGHER = "higher"


@dataclass(frozen=True, slots=True)
class Row:
    """One number of ours, the peer's in the same run, and the goal if there is one."""

    workload: str
    metric: str
    unit: str
    ours: float | None
    peer: float | None = None
    peer_name: str | None = None
    goal: float | None = None
    better: Better = Better.LOWER

    @property
    def met(self) -> bool | None:
        """None without a goal; a number that is missing meets none."""
        if self.goal is None:
            return None
        if self.ours is None:
            return False
        return self.ours <= self.goal if self.better is Better.LOWER else self.ours >= self.goal


@dataclass(frozen=True, slots=True)
class Report:
    """One run of one benchmark."""

    machine: str
    commit: str
    date: str
    rows: tuple[Row, ...]

    @classmethod
    def of_now(cls, rows: Sequence[Row]) -> Report:
        """Rows measured just now, here, with the code as it is."""
        return cls(machine(), commit(), datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), tuple(rows))

    @classmethod
    def read(cls, path: Path) -> Report:
        raw = json.loads(path.read_text(encoding="utf-8"))
        rows = tuple(Row(**{**row, "better": Better(row["better"])}) for row in raw["rows"])
        return cls(raw["machine"], raw["commit"], raw["date"], rows)

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Words:
    """What the page of one benchmark says around its table. Paragraphs are Markdown."""

    title: str
    command: str
    about: Sequence[str]
    notes: Sequence[str] = ()


def publish(report: Report, words: Words, name: str, folder: Path = RESULTS) -> tuple[Path, Path]:
    """Write `<name>.json` and `<name>.md`; returns both paths."""
    numbers, page = folder / f"{name}.json", folder / f"{name}.md"
    report.write(numbers)
    page.write_text(render(report, words), encoding="utf-8")
    return numbers, page


def render(report: Report, words: Words) -> str:
    """The page."""
    return (
        "\n\n".join(
            [
                f"# {words.title}",
                *words.about,
                f"Measured {report.date} at commit `{report.commit}` on {report.machine}. Repeat it with"
                f" `{words.command}`; the numbers lie beside this page as JSON.",
                _goals(report.rows),
                *(_table(workload, rows) for workload, rows in _by_workload(report.rows).items()),
                *(["## How to read it\n\n" + "\n".join(f"- {note}" for note in words.notes)] if words.notes else []),
            ]
        ).rstrip()
        + "\n"
    )


def _goals(rows: Sequence[Row]) -> str:
    judged = [row for row in rows if row.met is not None]
    missed = [row for row in judged if not row.met]
    if not judged:
        return "No row has a goal."
    if not missed:
        return f"All goals ({len(judged)}) are met."
    return f"**{len(missed)} of {len(judged)} goals are missed:**\n\n" + "\n".join(f"- {_miss(row)}" for row in missed)


def _miss(row: Row) -> str:
    limit = "at most" if row.better is Better.LOWER else "at least"
    found = "was not measured" if row.ours is None else f"{number(row.ours)} {row.unit}"
    return f"{row.workload}, {row.metric}: {found}; the goal is {limit} {number(row.goal)} {row.unit}."


def _by_workload(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.workload, []).append(row)
    return found


def _table(workload: str, rows: Sequence[Row]) -> str:
    peer = next((row.peer_name for row in rows if row.peer_name), None)
    head = ["metric", "unit", "Foretide", *([peer] if peer else []), "goal"]
    lines = [_line(head), _line("---" if at < 2 else "---:" for at in range(len(head)))]
    lines += [_line(_cells(row, with_peer=peer is not None)) for row in rows]
    return f"## {workload[:1].upper()}{workload[1:]}\n\n" + "\n".join(lines)


def _cells(row: Row, *, with_peer: bool) -> list[str]:
    sign = "≤" if row.better is Better.LOWER else "≥"
    goal = "" if row.goal is None else f"{sign} {number(row.goal)}: {'met' if row.met else '**missed**'}"
    return [row.metric, row.unit, number(row.ours), *([number(row.peer)] if with_peer else []), goal]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def number(value: float | None) -> str:
    """Three significant digits, no exponent, thousands apart; `–` when there is none."""
    if value is None:
        return "–"
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def machine(cpuinfo: Path = Path("/proc/cpuinfo"), meminfo: Path = Path("/proc/meminfo")) -> str:
    """`2 CPUs (AMD EPYC), 24 GB, Linux 6.1, Python 3.11.2`"""
    model = _field(cpuinfo, "model name") or platform.machine()
    memory_kb = int((_field(meminfo, "MemTotal") or "0 kB").split()[0])
    cpus = len(os.sched_getaffinity(0))
    return (
        f"{cpus} CPU{'s' if cpus != 1 else ''} ({model}), {memory_kb * 1024 / 1e9:.0f} GB,"
        f" {platform.system()} {platform.release().split('-')[0]}, Python {platform.python_version()}"
    )


def _field(path: Path, name: str) -> str | None:
    for line in path.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None


def commit() -> str:
    """The commit checked out, with `-dirty` when tracked files differ from it; `unknown` outside of a repository.

    Results do not count: a benchmark that has written some of its own still runs the code that was committed.
    """
    try:
        found = _git("rev-parse", "--short=12", "HEAD")
        differs = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)docs/benchmarks")
        return f"{found}-dirty" if differs else found
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(REPOSITORY), *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()
