"""Workers on a node that will be cut anew or taken away: first a successor elsewhere, then the one there goes. Pure.

The number of workers rises by as many as must move until that many are ready elsewhere; then it falls again, and the
workers on such nodes are the cheapest to delete. Nobody is without a worker in between. Where no other node has room,
the successors wait, and it is the GPUPool's time limit that ends it, or the node's own end.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from controllers.plans.snapshot import Worker

LEAVES_FIRST = -1
"""Deletion cost of a worker on such a node: below that of any other, which is at least 0."""


def successors(workers: Sequence[Worker], evacuating: Collection[str], wanted: int) -> int:
    """Workers above `wanted` that should exist now."""
    staying = [worker for worker in workers if not worker.leaving]
    moving = sum(worker.node in evacuating for worker in staying)
    elsewhere = sum(worker.ready and worker.node not in evacuating for worker in staying)
    return min(moving, wanted) if moving and elsewhere < wanted else 0
