"""Which of those who wait go together: whole steps by first-fit decreasing, or prompts of like length. Pure."""

from __future__ import annotations

from collections.abc import Sequence as Many


def first_fit_decreasing(sizes: Many[int], capacity: int) -> list[list[int]]:
    """Indexes of `sizes` in bins of `capacity`, the largest placed first, each where it fits first.

    One larger than a bin has one of its own. At most 11/9 of the fewest possible bins and 6/9 more (Dósa, 2007).
    """
    bins: list[list[int]] = []
    left: list[int] = []
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        size = sizes[index]
        at = next((b for b, room in enumerate(left) if size <= room), None)
        if at is None:
            bins.append([index])
            left.append(max(capacity - size, 0))
        else:
            bins[at].append(index)
            left[at] -= size
    return bins


def by_steps(sizes: Many[int], step_tokens: int) -> list[int]:
    """All indexes, those of one step together; the step that has the earliest of them first."""
    bins = first_fit_decreasing(sizes, step_tokens)
    return [index for each in sorted(bins, key=min) for index in sorted(each)]


def that_fit(needs: Many[int], room: int) -> list[int]:
    """Indexes, in order, of those that have room together: one that is too large lets smaller ones pass."""
    chosen = []
    for index, need in enumerate(needs):
        if need <= room:
            chosen.append(index)
            room -= need
    return chosen


def bucket_of(n_tokens: int) -> int:
    """Lengths of one bucket differ by less than a factor of two."""
    return n_tokens.bit_length()


def of_one_bucket(lengths: Many[int]) -> list[int]:
    """Indexes of those whose length is like the first's."""
    return [index for index, length in enumerate(lengths) if bucket_of(length) == bucket_of(lengths[0])]
