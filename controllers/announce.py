"""Tells people about a transition of Ready as one Event; says nothing when nothing changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from controllers.plans.transitions import transition
from kube.events import Recorder


def announce(
    recorder: Recorder,
    obj: Mapping[str, Any],
    before: Sequence[Mapping[str, Any]] | None,
    after: Sequence[Mapping[str, Any]],
) -> None:
    """Call it after the status was written, so that a failed write is not announced twice."""
    found = transition(before, after)
    if found is None:
        return
    record = recorder.warning if found.warning else recorder.normal
    record(obj, found.reason, found.message)
