"""What each GPU of a node was cut into, where only the node's sum is known: somebody else cut it. Pure.

Any division that is possible gives the same slices, so any will do to go back to. The search is bounded: without an
answer in time there is none, and going back switches MIG off, as it does for whole GPUs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Final

from controllers.plans.mig.geometry import WHOLE_GPU, Family
from controllers.plans.mig.layouts import WHOLE, Layout, contains, is_possible, layout, layout_of, placements, slices_of

_TRIES: Final = 5000


def divided(family: Family, gpus: int, total: Layout) -> tuple[Layout, ...] | None:
    """Layouts of `gpus` GPUs that give exactly `total`; None for whole GPUs alone, and where none was found."""
    whole = dict(total).get(WHOLE_GPU, 0)
    slices = layout({name: count for name, count in total if name != WHOLE_GPU})
    if not slices or whole >= gpus:
        return None
    found = _even(family, gpus - whole, slices) or next(_ways(family, gpus - whole, slices, [_TRIES]), None)
    return None if found is None else (*found, *((WHOLE,) * whole))


def _even(family: Family, gpus: int, slices: Layout) -> tuple[Layout, ...] | None:
    if any(count % gpus for _, count in slices):
        return None
    each = layout({name: count // gpus for name, count in slices})
    return (each,) * gpus if is_possible(family, each) else None


def _ways(family: Family, gpus: int, rest: Layout, tries: list[int]) -> Iterator[tuple[Layout, ...]]:
    tries[0] -= 1
    if tries[0] <= 0:
        return
    if gpus == 0:
        if not rest:
            yield ()
        return
    for one in _layouts(family, frozenset(name for name, _ in rest)):
        if contains(rest, one):
            left = layout(Counter(dict(rest)) - Counter(dict(one)))
            for others in _ways(family, gpus - 1, left, tries):
                yield (one, *others)


@cache
def _layouts(family: Family, names: frozenset[str]) -> tuple[Layout, ...]:
    """Of one GPU, the fullest first; a GPU may also give nothing."""
    found = {layout_of(one) for one in placements(family, names)}
    return tuple(sorted(found, key=lambda one: (-sum(slices_of(name) * count for name, count in one), one)))
