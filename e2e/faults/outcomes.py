"""What became of each case of a campaign: one JSON line, so that a campaign goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    """One case. `wrong` is empty when everything held."""

    campaign: str
    case: str
    plant: str = ""
    """The mistake that was planted: then something must be wrong."""
    met: bool = True
    """Whether the fault came about."""
    wrong: tuple[str, ...] = ()
    took_s: float = 0.0
    at: str = ""
    numbers: dict[str, float] = field(default_factory=dict)
    """What was counted, by name."""

    @property
    def key(self) -> tuple[str, str, str]:
        return self.campaign, self.case, self.plant


def read(path: Path) -> dict[tuple[str, str, str], Outcome]:
    """By key; the last line of a case counts."""
    if not path.exists():
        return {}
    found = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    outcomes = (Outcome(**{**one, "wrong": tuple(one["wrong"])}) for one in found)
    return {one.key: one for one in outcomes}


def add(path: Path, outcomes: Iterable[Outcome]) -> None:
    """At the end of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for one in outcomes:
            file.write(json.dumps(asdict(one), ensure_ascii=False) + "\n")
