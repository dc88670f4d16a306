"""The MIG manager's configuration (mig-parted): one entry for each layout that a Node names, and none beside.

Everything in it follows from what lies on the Nodes, so a lost ConfigMap is written again as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from controllers.plans.mig.layouts import WHOLE, Layout
from controllers.plans.mig.records import NodeView
from controllers.plans.mig.repartition import ALL_DISABLED, config_names


def layouts_of(nodes: Iterable[NodeView]) -> set[tuple[Layout, ...]]:
    """Every layout that some node has, should get, or may go back to."""
    found = set()
    for node in nodes:
        record = node.record
        known = (node.asked, record.gpus if record else None, record.before if record else None)
        found |= {one for one in known if one is not None}
    return found


def mig_configs(layouts: Iterable[tuple[Layout, ...]]) -> dict[str, Any]:
    """The file `config.yaml` of the ConfigMap, as a value."""
    entries: dict[str, Any] = {ALL_DISABLED: [{"devices": "all", "mig-enabled": False}]}
    for gpus in sorted(layouts):
        for name in config_names(gpus):
            entries[name] = _entry(gpus)
    return {"version": "v1", "mig-configs": entries}


def _entry(gpus: Sequence[Layout]) -> list[dict[str, Any]]:
    """GPUs with the same layout share a part; a GPU is either cut or whole, never both."""
    parts: dict[Layout, list[int]] = {}
    for index, one in enumerate(gpus):
        parts.setdefault(one, []).append(index)
    return [
        {"devices": devices, "mig-enabled": False}
        if one == WHOLE
        else {"devices": devices, "mig-enabled": True, "mig-devices": dict(one)}
        for one, devices in parts.items()
    ]
