"""What is wrong with a service, for a terminal of 80 columns or as JSON. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cli import lines
from cli.fleet import Service
from cli.status_text import replicas_text, trouble_of
from controllers.plans.healing.values import Diagnosis
from controllers.plans.healing.words import found_text, told_of
from controllers.plans.snapshot import Snapshot
from crds.diagnosis import DiagnosisStatus
from crds.healing import HealingMode, HealthAction, HealthFinding

Json = dict[str, Any]

ACTIONS_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Picture:
    """`seen`: what pods and nodes show now."""

    service: Service
    view: Snapshot
    seen: tuple[Diagnosis, ...]

    @property
    def findings(self) -> Sequence[HealthFinding]:
        """The operator's own."""
        return (self.view.health.findings if self.view.health else None) or []

    @property
    def actions(self) -> Sequence[HealthAction]:
        return (self.view.health.actions if self.view.health else None) or []

    @property
    def others(self) -> list[Diagnosis]:
        """What the operator has not told."""
        causes = {one.cause for one in self.findings}
        workers = {name for one in self.findings for name in one.workers or ()}
        return [one for one in self.seen if one.cause not in causes and not workers.issuperset(one.workers)]

    @property
    def answer(self) -> DiagnosisStatus | None:
        """What was wrong when an alert last asked."""
        return self.view.status.diagnosis

    @property
    def mode(self) -> HealingMode:
        healing = self.view.spec.healing
        return healing.mode if healing else HealingMode.ACT


def plain(picture: Picture) -> Json:
    """For programs: `findings` as the status has them, `seen` beside them, `actions` newest first, the last `answer`
    to an alert."""
    return {
        "namespace": picture.service.namespace,
        "name": picture.service.name,
        "mode": picture.mode.value,
        "trouble": trouble_of(picture.service),
        "findings": [one.dump() for one in picture.findings],
        "seen": [_plain(one) for one in picture.others],
        "actions": [one.dump() for one in picture.actions],
        "answer": picture.answer.dump() if picture.answer else None,
    }


def _plain(one: Diagnosis) -> Json:
    return {
        "cause": one.cause,
        "errorClass": one.error_class.value,
        "workers": list(one.workers),
        "nodes": list(one.nodes),
        "evidence": one.evidence,
        "advice": one.advice,
        "effect": one.effect,
    }


def diagnosis_lines(picture: Picture, now: datetime) -> list[str]:
    """The worst first; where nothing is found, what was looked at."""
    one = picture.service
    made = lines.wrapped(f"{one.namespace}/{one.name}: {_head(picture)}")
    for finding in picture.findings:
        made += ["", *lines.facts(_finding(finding, picture, now))]
    for diagnosis in picture.others:
        made += ["", *lines.facts(_seen(diagnosis, picture))]
    trouble = trouble_of(one)
    if trouble is not None:
        text = f"{trouble['type']} is {trouble['status']}, {trouble['reason']}: {trouble['message']}"
        made += ["", *lines.facts([("condition", text)])]
    old = [each for each in picture.actions if each.cause not in {finding.cause for finding in picture.findings}]
    if old:
        made += ["", *lines.facts([("before", _done(old, now))])]
    if picture.answer is not None:
        made += ["", *lines.facts(_answer(picture.answer, now))]
    return made


def _head(picture: Picture) -> str:
    count = len(picture.findings) + len(picture.others)
    ready = replicas_text(picture.service)
    return f"{found_text(count, troubled=trouble_of(picture.service) is not None)}; {ready}"


def _finding(one: HealthFinding, picture: Picture, now: datetime) -> list[tuple[str, str]]:
    mine = [each for each in picture.actions if each.cause == one.cause]
    rows = [
        ("cause", f"{one.cause} ({one.error_class.value}) since {lines.moment(one.since, now)}"),
        ("evidence", one.evidence),
        ("done", _done(mine, now)),
        ("next", one.next),
        ("advice", one.advice),
        ("effect", one.effect),
    ]
    return [row for row in rows if row[1]]


def _seen(one: Diagnosis, picture: Picture) -> list[tuple[str, str]]:
    off = picture.mode is HealingMode.OFF
    return [
        ("cause", f"{one.cause} ({one.error_class.value})"),
        ("evidence", one.evidence),
        ("next", "nothing: spec.healing.mode is off" if off else "the operator has not told of it yet"),
        ("advice", one.advice),
        ("effect", one.effect),
    ]


def _answer(one: DiagnosisStatus, now: datetime) -> list[tuple[str, str]]:
    """All of its causes, the likeliest first."""
    rows = [("alert", f"'{one.alert}' of {one.policy} asked what is wrong; answered {lines.moment(one.time, now)}")]
    for each in one.causes:
        rows += [("cause", each.cause), ("evidence", each.evidence), ("advice", each.advice)]
    return rows


def _done(actions: Sequence[HealthAction], now: datetime) -> str:
    told = [f"{lines.moment(one.time, now)} {told_of(one)}" for one in actions[:ACTIONS_SHOWN]]
    return "; ".join(reversed(told))
