"""Geometry: the counts that a correct model must reproduce, exhaustively, and how a node says which GPU it has."""

from __future__ import annotations

import itertools

import pytest

from controllers.plans.mig.geometry import (
    FAMILIES,
    Family,
    UnknownGpu,
    family,
    family_of,
    profile_of_resource,
    read_family,
    resource_name,
    write_family,
)
from controllers.plans.mig.layouts import (
    Place,
    can_add,
    completions,
    contains,
    is_possible,
    layout,
    layout_of,
    layout_text,
    maximal_layouts,
    maximal_placements,
    placements,
    useful_layouts,
)

SEVENS = [one for one in FAMILIES if one.compute == 7]
CLASSIC = ("1g", "2g", "3g", "4g", "7g")


def classic_profiles(name: str) -> frozenset[str]:
    """One profile for each size: without the 1g of double memory and without +me."""
    seen: dict[int, str] = {}
    for profile in family(name).profiles:
        seen.setdefault(profile.compute, profile.name)
    return frozenset(seen.values())


def counts(name: str, allowed: frozenset[str] | None) -> tuple[int, int, int]:
    """Placements (the empty one not counted), maximal placements, maximal layouts."""
    one = family(name)
    every = len(list(placements(one, allowed))) - 1
    return every, len(list(maximal_placements(one, allowed))), len(maximal_layouts(one, allowed))


@pytest.mark.parametrize("name", [one.name for one in SEVENS])
def test_the_five_classic_profiles_have_297_placements_19_of_them_maximal_and_14_layouts(name: str) -> None:
    placed, maximal, distinct = counts(name, classic_profiles(name))
    assert (placed, maximal, distinct) == (297, 19, 14)


@pytest.mark.parametrize("name", [one.name for one in SEVENS])
def test_with_the_1g_of_double_memory_there_are_722_placements_78_maximal_and_38_layouts(name: str) -> None:
    placed, maximal, distinct = counts(name, None)
    assert (placed, maximal, distinct) == (722, 78, 38)


def test_an_a30_has_25_placements_5_maximal_and_4_layouts() -> None:
    placed, maximal, distinct = counts("A30", None)
    assert (placed, maximal, distinct) == (25, 5, 4)


@pytest.mark.parametrize(("size", "most"), [("1g", 7), ("2g", 3), ("3g", 2), ("4g", 1), ("7g", 1)])
def test_no_gpu_takes_more_of_a_profile_than_the_table_says(size: str, most: int) -> None:
    for one in SEVENS:
        name = next(profile.name for profile in one.profiles if profile.name.startswith(size))
        assert is_possible(one, layout({name: most}))
        assert not is_possible(one, layout({name: most + 1}))


def test_a_gpu_gives_four_1g_of_double_memory_and_no_fifth() -> None:
    one = family("H100-80")
    assert is_possible(one, layout({"1g.20gb": 4}))
    assert not is_possible(one, layout({"1g.20gb": 5}))


def test_the_media_engines_are_given_to_one_slice_only() -> None:
    one = family("H100-80")
    assert is_possible(one, layout({"1g.10gb+me": 1, "1g.10gb": 6}))
    assert not is_possible(one, layout({"1g.10gb+me": 2}))


def test_every_placement_is_valid_and_every_valid_placement_is_found() -> None:
    """Beside brute force over all subsets of the places of an A30, and pairwise on an H100."""
    small = family("A30")
    places = [Place(start, profile) for profile in small.profiles for start in profile.starts]
    valid = set()
    for size in range(len(places) + 1):
        for chosen in itertools.combinations(places, size):
            taken = [i for place in chosen for i in range(place.start, place.start + place.profile.memory)]
            if len(taken) == len(set(taken)) and sum(place.profile.compute for place in chosen) <= small.compute:
                valid.add(frozenset(chosen))
    found = [frozenset(one) for one in placements(small)]
    assert len(found) == len(set(found))
    assert set(found) == valid
    for placed in placements(family("H100-80")):
        taken = [i for place in placed for i in range(place.start, place.start + place.profile.memory)]
        assert len(taken) == len(set(taken))
        assert sum(place.profile.compute for place in placed) <= 7


def test_nothing_can_be_added_to_a_maximal_placement() -> None:
    one = family("H100-80")
    for placed in maximal_placements(one):
        rest = [Place(start, p) for p in one.profiles if not p.media for start in p.starts]
        assert not any(can_add(one, placed, place) for place in rest)


def test_useful_layouts_are_those_that_no_other_contains() -> None:
    for one in FAMILIES:
        useful, every = useful_layouts(one), maximal_layouts(one)
        assert all(any(contains(larger, smaller) for larger in useful) for smaller in every)
        assert not any(a != b and contains(a, b) for a in useful for b in useful)


def test_a_slice_in_the_wrong_place_keeps_the_large_ones_away() -> None:
    one = family("H100-80")
    single = one.profile("1g.10gb")
    assert single
    left = completions(one, (Place(0, single),))
    right = completions(one, (Place(6, single),))
    assert not any(dict(found).get("4g.40gb") for found in left)
    assert any(dict(found).get("4g.40gb") for found in right)
    assert all(contains(found, layout_of((Place(0, single),))) for found in left)


def test_a_layout_reads_from_large_to_small() -> None:
    assert layout_text(layout({"1g.10gb": 3, "4g.40gb": 1})) == "4g.40gb + 3×1g.10gb"
    assert layout_text(()) == "empty"


@pytest.mark.parametrize(
    ("product", "expected"),
    [
        ("NVIDIA-A30", "A30"),
        ("NVIDIA-A100-SXM4-40GB", "A100-40"),
        ("NVIDIA-A100-PCIE-40GB", "A100-40"),
        ("NVIDIA-A100-SXM4-80GB", "A100-80"),
        ("NVIDIA-A100-80GB-PCIe", "A100-80"),
        ("NVIDIA-H100-80GB-HBM3", "H100-80"),
        ("NVIDIA-H100-80GB-HBM3-MIG-1g.10gb", "H100-80"),
        ("NVIDIA-H100-PCIe-SHARED", "H100-80"),
        ("NVIDIA-H200", "H200-141"),
        ("NVIDIA-B200", "B200-180"),
        ("NVIDIA-GH200-96GB", None),
        ("NVIDIA-H100-NVL", None),
        ("Tesla-T4", None),
    ],
)
def test_a_product_is_one_family_or_none_but_never_a_guess(product: str, expected: str | None) -> None:
    labels = {"nvidia.com/gpu.product": product}
    if expected is None:
        with pytest.raises(UnknownGpu, match="is not known"):
            family_of("gpu-1", labels, {})
    else:
        assert family_of("gpu-1", labels, {}).name == expected


def test_a_gpu_that_is_not_listed_is_read_from_its_node() -> None:
    text = "7/8;1g.12gb:1:1:0,1,2,3,4,5,6;3g.48gb:3:4:0,4;7g.96gb:7:8:0"
    found = family_of("gpu-1", {"nvidia.com/gpu.product": "NVIDIA-GH200-96GB"}, {"foretide.dev/mig-geometry": text})
    assert found.name == "NVIDIA-GH200-96GB"
    assert is_possible(found, layout({"3g.48gb": 2}))
    assert write_family(found) == text


@pytest.mark.parametrize("one", FAMILIES, ids=lambda one: one.name)
def test_a_family_survives_being_written_and_read(one: Family) -> None:
    assert read_family(one.name, write_family(one)) == one


def test_the_table_of_an_h200_is_what_a_card_says_of_itself() -> None:
    """The driver's words (580.159) as the GPU agent writes them, on an NVIDIA H200 with 141 GB."""
    said = (
        "7/8;1g.18gb:1:1:0,1,2,3,4,5,6;1g.18gb+me:1:1:0,1,2,3,4,5,6;1g.35gb:1:2:0,2,4,6;2g.35gb:2:2:0,2,4;"
        "3g.71gb:3:4:0,4;4g.71gb:4:4:0;7g.141gb:7:8:0"
    )
    card, table = read_family("H200-141", said), family("H200-141")
    assert set(card.profiles) == set(table.profiles)
    assert (card.compute, card.memory) == (table.compute, table.memory)


@pytest.mark.parametrize(
    "text",
    ["", "7/8", "7;1g.10gb:1:1:0", "7/8;1g.10gb:1:1", "7/8;1g.10gb:9:1:0", "7/8;3g.40gb:3:4:6", "7/8;x:1:1:0", "7/8;"],
)
def test_a_geometry_that_makes_no_sense_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(UnknownGpu, match="MIG geometry of 'it'"):
        read_family("it", text)


def test_profiles_and_resource_names_are_the_same_thing_said_twice() -> None:
    for name in ("1g.10gb", "1g.10gb+me", "7g.80gb", "gpu"):
        assert profile_of_resource(resource_name(name)) == name
    assert resource_name("1g.10gb+me") == "nvidia.com/mig-1g.10gb.me"
    assert profile_of_resource("nvidia.com/mig-9g.x") is None
    assert profile_of_resource("cpu") is None
