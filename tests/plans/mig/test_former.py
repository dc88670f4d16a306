"""Dividing what a node gives between its GPUs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.plans.mig.former import divided
from controllers.plans.mig.geometry import family
from controllers.plans.mig.layouts import WHOLE, Layout, is_possible, layout, maximal_layouts
from controllers.plans.mig.records import total

H100 = family("H100-80")
LAYOUTS = st.sampled_from([*maximal_layouts(H100), layout({"1g.10gb": 2}), layout({"3g.40gb": 1}), WHOLE])


def test_one_gpu_had_what_the_node_gives() -> None:
    given_ = layout({"4g.40gb": 1, "3g.40gb": 1})
    assert divided(H100, 1, given_) == (given_,)


def test_whole_gpus_alone_are_mig_switched_off() -> None:
    assert divided(H100, 2, layout({"gpu": 2})) is None
    assert divided(H100, 2, ()) is None


def test_what_no_gpus_can_give_has_no_division() -> None:
    assert divided(H100, 1, layout({"7g.80gb": 2})) is None
    assert divided(H100, 1, layout({"gpu": 1, "1g.10gb": 1})) is None
    assert divided(H100, 8, layout({"4g.40gb": 9})) is None


@settings(max_examples=60, deadline=None)
@given(st.lists(LAYOUTS, min_size=1, max_size=8))
def test_a_division_gives_exactly_what_the_node_gave(gpus: list[Layout]) -> None:
    found = divided(H100, len(gpus), total(gpus))
    if found is None:
        # Whole GPUs alone, or a search that was given up.
        assert len(gpus) > 2 or all(one == WHOLE for one in gpus)
    else:
        assert len(found) == len(gpus)
        assert total(found) == total(gpus)
        assert all(is_possible(H100, one) for one in found)


@pytest.mark.parametrize("gpus", [2, 4, 8])
def test_nodes_of_mixed_gpus_are_divided(gpus: int) -> None:
    mixed = [
        layout({"7g.80gb": 1}),
        layout({"1g.10gb": 7}),
        layout({"3g.40gb": 2}),
        layout({"2g.20gb": 3, "1g.10gb": 1}),
    ]
    wanted = total((mixed * 2)[:gpus])
    found = divided(H100, gpus, wanted)
    assert found is not None
    assert total(found) == wanted
