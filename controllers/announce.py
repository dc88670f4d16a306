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
    """Call it only after the status was written: a write that failed, or that the cache does not show yet, would be
    announced twice."""
    found = transition(before, after)
    if found is None:
        return
    record = recorder.warning if found.warning else recorder.normal
    record(obj, found.reason, found.message)
