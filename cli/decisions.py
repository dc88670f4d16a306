"""The operator's recorded decisions of a service, off the leader's admin page, through the API server's proxy.

Only the leader knows them, and the Service `foretide-operator` is the leader. That takes the right to `get`
`services/proxy` of that one Service (the chart's role `foretide-reader`); who lacks it is told, and less is explained.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cli.errors import CliError
from cli.kubectl import Kubectl
from forecasting.policy import Direction, Policy, RecordInvalid, ScalingDecision, from_json

LEADER: Final = "foretide-operator:admin"
"""A Service and its port, as the API server's proxy and roles name them."""
MOST: Final = 500
"""Records that are asked for: at least the last 40 hours of a quiet service."""


@dataclass(frozen=True, slots=True)
class Record:
    """Decisions, oldest first, and what is missing."""

    decisions: tuple[ScalingDecision, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Newest:
    """The last decision of services by namespace and name, and what is missing."""

    decisions: Mapping[tuple[str, str], ScalingDecision]
    notes: tuple[str, ...] = ()


def read_decisions(kubectl: Kubectl, operator_namespace: str, namespace: str, service: str) -> Record:
    """Never fails: what cannot be read is a note."""
    try:
        return read_page(kubectl, decisions_path(operator_namespace), namespace, service, MOST)
    except CliError as error:
        return Record((), (f"The operator's record of decisions could not be read: {error}",))


def read_newest(kubectl: Kubectl, operator_namespace: str, services: Iterable[tuple[str, str]]) -> Newest:
    """The last decision of each service, by namespace and name. The first page that fails ends it with a note."""
    found: dict[tuple[str, str], ScalingDecision] = {}
    notes: list[str] = []
    try:
        path = decisions_path(operator_namespace)
        for key in services:
            record = read_page(kubectl, path, *key, 1)
            notes += [note for note in record.notes if note not in notes]
            if record.decisions:
                found[key] = record.decisions[-1]
    except CliError as error:
        notes.append(f"The operator's record of decisions could not be read: {error}")
    return Newest(found, tuple(notes))


def read_page(kubectl: Kubectl, path: str, namespace: str, service: str, most: int) -> Record:
    """The last `most` records of a service, from where `decisions_path` leads. Raises CliError."""
    return parsed(kubectl.page(f"{path}/{namespace}/{service}?limit={most}").splitlines())


def parsed(lines: Sequence[str]) -> Record:
    """Lines of another release are counted, not guessed at."""
    found: list[ScalingDecision] = []
    strange = ""
    for line in lines:
        try:
            found.append(from_json(line))
        except RecordInvalid as error:
            strange = strange or str(error)
    unread = len(lines) - len(found)
    note = f"{unread} of {len(lines)} records are not of this release ({strange}). Use the operator's version."
    return Record(tuple(found), (note,) if unread else ())


def changes(decisions: Sequence[ScalingDecision]) -> list[ScalingDecision]:
    """Those that asked for another number, newest first; what was asked for again is there once."""
    found: list[ScalingDecision] = []
    before: tuple[int, int] | None = None
    for one in decisions:
        asked = (one.inputs.current, one.wanted)
        advice = one.inputs.settings.policy is Policy.ADVISORY and one.wanted != one.inputs.current
        if (one.direction is not Direction.HOLD or advice) and asked != before:
            found.append(one)
        before = asked
    return found[::-1]


def decisions_path(namespace: str) -> str:
    """Where the operator that leads answers."""
    return f"/api/v1/namespaces/{namespace}/services/{LEADER}/proxy/decisions"
