"""The numbers and the page of the campaigns, made from their lines. Pure but for the writing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.report import Better, Report, Row, Words, machine, publish
from e2e.faults.campaign import CAMPAIGNS, CONTROLS
from e2e.faults.campaigns import ALONE
from e2e.faults.outcomes import Outcome

MUTATIONS: Final = 1000
NAME: Final = "operator_faults"


def rows(outcomes: Sequence[Outcome]) -> list[Row]:
    """All of the page's numbers."""
    return [row for name in CAMPAIGNS for row in (*_campaign(name, outcomes), *_control(name, outcomes))]


def _campaign(name: str, outcomes: Sequence[Outcome]) -> list[Row]:
    tried = [one for one in outcomes if one.campaign == name and not one.plant]
    met = [one for one in tried if one.met]
    wrong = float(sum(bool(one.wrong) for one in tried)) if tried else None
    made = [
        Row(name, "cases tried", "cases", float(len(tried))),
        Row(name, "cases whose fault came about", "cases", float(len(met))),
        Row(name, "cases in which something was wrong", "cases", wrong, goal=0),
    ]
    if tried:
        made += _numbers(name, tried)
        made.append(Row(name, "a case took, median", "s", median(one.took_s for one in tried)))
    return made


def _numbers(name: str, tried: Sequence[Outcome]) -> list[Row]:
    names = list(dict.fromkeys(number for one in tried for number in one.numbers))
    sums = {number: sum(one.numbers.get(number, 0.0) for one in tried) for number in names}
    goals = {"mutations": float(MUTATIONS)}
    return [
        Row(name, number, "s" if "seconds" in number else "", total, goal=goals.get(number), better=Better.HIGHER)
        for number, total in sums.items()
    ]


def _control(name: str, outcomes: Sequence[Outcome]) -> list[Row]:
    made = []
    for plant in CONTROLS[name]:
        tried = [one for one in outcomes if one.campaign == name and one.plant == plant]
        found = _is_found(tried) if tried else None
        made.append(Row(name, f"control: an operator that {plant} is found", "", found, goal=1, better=Better.HIGHER))
    return made


def _is_found(tried: Sequence[Outcome]) -> float:
    """The mistake shows under the fault, and not without one."""
    without = [one for one in tried if one.case == ALONE]
    return float(any(one.wrong for one in tried if one not in without) and not any(one.wrong for one in without))


def words(outcomes: Sequence[Outcome]) -> Words:
    """What the page says around its tables, with what went wrong in it."""
    first, last = (_minute(end(one.at for one in outcomes)) for end in (min, max))
    return Words(
        title="Faults between the operator and its API server",
        command="make bench-operator-faults",
        about=(
            "The operator's real process, under its own account, behind a proxy that meets single requests of it; a"
            " real etcd, API server and controller manager. Kubelets and node agents are a stand-in that makes pods"
            " ready and lets them go. A story (everything is declared, edited, made smaller, and ended) uses each kind"
            " that the operator manages for services. Every disturbed run must come to the states of an undisturbed"
            " one (without uids, times and random names), leave nothing behind, end no process by itself, and log no"
            " error."
            " [How and why](../decisions/0027-operator-fault-campaigns.md).",
            "- **Crash**: the operator is killed (SIGKILL) at each write of the story, before the server has it, and"
            " after its commit but before the reply.\n"
            "- **Stale read**: it begins with the view of an earlier moment, acts on it, and then sees the present, in"
            " which objects were made anew under their old names. It may delete nothing younger than its view, and no"
            " worker of the present may be lost.\n"
            "- **Missed event**: one event of a watch is lost on all streams, or its stream breaks and answers 410, or"
            " falls silent. Caches are compared with the server every 10 s here, every 15 minutes by default.\n"
            "- **Write faults**: a write is answered 409, 429, 500, 504 (before or after its commit), is reset (before"
            " or after), or gets no answer; once, or all alike for 8 s, in which no object may be tried more than 24"
            " times.\n"
            "- **Field mutation**: each field of each CRD at its bounds, beyond them, null, deleted, each value of its"
            " enum, nonsense. What the API server takes is edited in, compared with an object that is new with the same"
            " spec, and taken back.\n"
            "- **Quiet**: nothing changes; neither the operator that made it all nor one that has just begun writes.",
        ),
        notes=(
            "A control is the same code with a mistake planted in it (`e2e/faults/controls.py`); its goal is that the"
            " campaign finds it.",
            "A case whose fault did not come about was an undisturbed run: the write or event that it waits for is one"
            " that not every run has, such as one status more.",
            "*Updates too many* are of Deployments, beyond those of the undisturbed run: a crash may make a rollout"
            " take a step twice, which changes nothing at the end. *Lives* are begins of the operator.",
            "Renewals of the lease and Events do not count as writes.",
            "Campaigns may be broken off and gone on with, so the number of cases tried says how much of one has been"
            " run. Cases are drawn anew at each beginning, from what the undisturbed run wrote and heard then. Those"
            f" here ran from {first} to {last}; a case that found something ran again once that was mended, and the"
            " commit is that of the last.",
            *_troubles(outcomes),
        ),
    )


def _troubles(outcomes: Sequence[Outcome]) -> list[str]:
    """One line for each case in which something was wrong, and for each control that was not found."""
    wrong = [one for one in outcomes if one.wrong and not one.plant]
    return [f"{one.campaign.capitalize()}, {one.case}: {'; '.join(map(_shown, one.wrong[:2]))}." for one in wrong]


def _shown(said: str) -> str:
    """Without what follows its first line, and without paths of the machine that measured."""
    return re.sub(r" at /\S+", "", said.partition("\n")[0])[:240]


def _minute(at: str) -> str:
    return f"{at[:16].replace('T', ' ')} UTC"


def write(outcomes: Sequence[Outcome], commit: str) -> tuple[Path, Path]:
    """The page and its numbers, dated by the last case."""
    date = _minute(max(one.at for one in outcomes))
    return publish(Report(machine(), commit, date, tuple(rows(outcomes))), words(outcomes), NAME)
