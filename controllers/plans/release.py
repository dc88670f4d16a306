"""Which revision the spec calls for, when a new release of the operator would describe the same worker otherwise.

A worker that serves outlives the operator that made it: what changes only in our own part of the template (an image, a
probe) touches no worker by itself. The revision that was made of the same spec stays until a person edits the spec,
asks for a restart, or the administrator wants releases rolled out.
"""

from __future__ import annotations

from collections.abc import Sequence

from controllers.plans.snapshot import Revision
from controllers.plans.worker_pod import WorkerTemplate


def called_for(template: WorkerTemplate, revisions: Sequence[Revision], current: str | None, *, roll: bool) -> str:
    """Name of the revision: that of `template`, or one that an earlier release made of the same spec.

    Args:
        current: the revision that was called for until now; it wins, so that going back to an earlier release of the
            operator moves nothing either.
        roll: releases are rolled out to workers.
    """
    alike = {one.name: one for one in revisions if one.asked == template.asked and not one.leaving}
    if roll or template.revision == current or not alike:
        return template.revision
    if current in alike:
        return current
    if template.revision in alike:
        return template.revision
    return max(alike.values(), key=lambda one: (one.created, one.name)).name


def outdated(revision: str | None, template: WorkerTemplate | None, revisions: Sequence[Revision]) -> str | None:
    """What a person is told while `revision` is one that an earlier release made of this spec; None where it is not."""
    if template is None or revision is None or revision == template.revision:
        return None
    if not any(one.name == revision and one.asked == template.asked for one in revisions):
        return None
    return (
        f"Workers are of revision {revision}, which an earlier release of Foretide made of this spec; this release "
        f"would make {template.revision}. They stay as they are until the spec is edited. To roll the new ones out, "
        "set spec.rollout.restartedAt to the present time, as `kubectl foretide restart` does."
    )
