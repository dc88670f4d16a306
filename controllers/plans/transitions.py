"""Which Event a change of conditions is worth: one, when Ready changes its status or its reason. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crds.conditions import READY, STALLED


@dataclass(frozen=True, slots=True)
class Transition:
    """An Event to record."""

    reason: str
    message: str
    warning: bool


def transition(before: Sequence[Mapping[str, Any]] | None, after: Sequence[Mapping[str, Any]]) -> Transition | None:
    """What to tell, or None when Ready says the same as before."""
    old, new = _find(before or [], READY), _find(after, READY)
    if new is None or (old is not None and (old["status"], old["reason"]) == (new["status"], new["reason"])):
        return None
    return Transition(new["reason"], new["message"], warning=_find(after, STALLED) is not None)


def _find(conditions: Sequence[Mapping[str, Any]], type_: str) -> Mapping[str, Any] | None:
    return next((one for one in conditions if one["type"] == type_), None)
