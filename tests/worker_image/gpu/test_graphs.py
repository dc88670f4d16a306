"""Which batch sizes get a graph, in which order, and what happens where there is no memory for one."""

from __future__ import annotations

from collections.abc import Callable

import torch

from tests.worker_image.gpu.engines import Rerun, rerun
from worker_image.engine.graphs import DecodeGraphs, bucket_sizes

NOTHING = torch.zeros(1)


def test_sizes_hold_every_batch_with_little_padding() -> None:
    assert bucket_sizes(1) == (1,)
    assert bucket_sizes(20) == (1, 2, 4, 8, 16, 20)
    sizes = bucket_sizes(512)
    assert sizes[-1] == 512
    for rows in range(1, 513):
        size = next(size for size in sizes if size >= rows)
        assert size - rows < (8 if rows <= 256 else 32)


def test_the_size_that_was_missed_gets_its_graph_first_then_the_largest() -> None:
    graphs = DecodeGraphs((1, 2, 4, 8), lambda size: NOTHING.clone(), rerun)
    assert not graphs.replay(2)
    assert [graphs.capture_next() for _ in range(5)] == [2, 8, 4, 1, None]
    assert graphs.replay(2)
    assert graphs.complete


def test_without_memory_for_a_graph_there_are_no_more_and_those_there_are_stay() -> None:
    def capture(work: Callable[[], torch.Tensor]) -> Rerun:
        if len(made) == 1:
            raise torch.OutOfMemoryError("no room")
        made.append(work)
        return rerun(work)

    made: list[object] = []
    graphs = DecodeGraphs((1, 2, 4), lambda size: NOTHING.clone(), capture)
    assert graphs.capture_next() == 4
    assert graphs.capture_next() is None
    assert graphs.complete
    assert graphs.replay(4)
    assert not graphs.replay(1)
