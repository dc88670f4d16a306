"""What a GPUPool says of GPUs that are shared without MIG: what there is, who uses it, and who waits. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from controllers.plans.mig.pool import PoolSnapshot
from controllers.plans.mig.sharing import Share, ShareServed

MOST_SHARES = 64
Fields = dict[str, Any]


def offered(seen: PoolSnapshot) -> Counter[Share]:
    """By usable nodes."""
    found: Counter[Share] = Counter()
    for node in seen.nodes:
        if node.share is not None and node.ready and not node.cordoned:
            found[node.share] += node.shares
    return found


def sharing_rows(seen: PoolSnapshot) -> list[Fields]:
    """One of each strategy, number and size."""
    places = {node.name: node.share for node in seen.nodes}
    counts: dict[tuple[str, int, int], list[int]] = {}
    for share, number in offered(seen).items():
        counts.setdefault(_key(share), [0, 0])[0] += number
    for pod in seen.pods:
        share_of_node = places.get(pod.node or "")
        if share_of_node is not None:
            counts.setdefault(_key(share_of_node), [0, 0])[1] += pod.shares
    return [
        {"strategy": strategy, "replicas": replicas, "gigabytes": size, "shares": number, "used": used}
        for (strategy, replicas, size), (number, used) in sorted(counts.items())
    ][:MOST_SHARES]


def _key(share: Share) -> tuple[str, int, int]:
    return share.strategy.value, share.replicas, share.gigabytes


def unmet_share(one: ShareServed) -> Fields:
    """As for slices."""
    want = one.want
    return {"service": want.service, "profile": want.text, "wanted": want.replicas, "served": one.replicas}


def missing_share(seen: PoolSnapshot, missing: Sequence[ShareServed]) -> str:
    """The arithmetic of the most important service that waits, and how many others do."""
    want, served = missing[0].want, missing[0].replicas
    fit = sum(number for share, number in offered(seen).items() if share.holds(want.strategy, want.gigabytes))
    more = f" {len(missing) - 1} other services wait, too." if len(missing) > 1 else ""
    return (
        f"{want.service} (P{want.priority}) wants {want.replicas} workers on {want.text} and gets {served}: {fit}"
        f" shares of the pool are of that kind and so large.{more} Let the device plugin share more GPUs, or ask for"
        " fewer gigabytes, fewer workers or a MIG slice."
    )
