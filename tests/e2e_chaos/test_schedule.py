"""A campaign is drawn from its seed alone."""

from __future__ import annotations

import pytest

from e2e.chaos.campaign import INJECT
from e2e.chaos.schedule import BY_NAME, KINDS, Place, campaign

LANES = ("anna", "bela", "cara")


def test_a_whole_campaign_has_two_hundred_faults_of_twelve_kinds_and_more() -> None:
    faults = campaign(7, LANES, "gina")
    assert len(faults) >= 200
    assert len({fault.kind.name for fault in faults}) == len(KINDS) >= 12
    assert all(sum(fault.kind is kind for fault in faults) == kind.count for kind in KINDS)


def test_the_same_seed_is_the_same_campaign_with_the_same_chances_and_another_is_another() -> None:
    one, again, other = campaign(7, LANES, "gina"), campaign(7, LANES, "gina"), campaign(8, LANES, "gina")
    assert one == again != other
    assert [fault.chance().random() for fault in one] == [fault.chance().random() for fault in again]
    assert len({fault.chance().random() for fault in one}) == len(one)


def test_numbers_are_names_and_what_hits_everybody_comes_first() -> None:
    faults = campaign(7, LANES, "gina")
    assert [fault.number for fault in faults] == list(range(1, len(faults) + 1))
    places = [fault.kind.place for fault in faults]
    assert places == sorted(places, key=[Place.GPU, Place.ALONE, Place.LANE].index)


def test_lanes_take_turns_and_the_service_on_gpus_gets_its_own_faults_only() -> None:
    faults = campaign(7, LANES, "gina")
    each = [sum(fault.service == lane and fault.kind.place is Place.LANE for fault in faults) for lane in LANES]
    assert max(each) - min(each) <= 1
    assert {fault.kind.name for fault in faults if fault.service == "gina"} == {"XID event"}


def test_a_sample_has_what_was_asked_for_and_a_misspelt_kind_is_named() -> None:
    sample = campaign(7, LANES, "gina", {"process kill": 2, "operator kill": 1})
    assert [fault.kind.name for fault in sample] == ["operator kill", "process kill", "process kill"]
    with pytest.raises(ValueError, match="No fault is called 'proces kill'"):
        campaign(7, LANES, "gina", {"proces kill": 1})


def test_every_kind_can_be_injected() -> None:
    assert set(INJECT) == set(BY_NAME)
