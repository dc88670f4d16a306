"""`profile: auto`: the smallest profile that fits, why the smaller ones do not, and that a choice stands."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.plans.mig.chosen import spec_of
from controllers.plans.mig.geometry import FAMILIES, family
from controllers.plans.mig.offers import GpuNode, Offer, offers_of
from controllers.plans.mig.prices import PricedPool, prices_of
from controllers.plans.mig.profile_choice import SliceFacts, choose
from controllers.plans.service import ServicePlan
from controllers.plans.snapshot import Revision, Snapshot
from controllers.plans.tenancy import demand_of
from controllers.plans.worker_pod import WorkerImages
from crds.gpu_pool import GPUPoolSpec
from crds.inference_service import InferenceServiceSpec, SliceChoice
from crds.model import MeasuredProfile, ModelFormat
from crds.sla import Targets
from forecasting.cost import Prices
from tests.gen import (
    EARLY,
    SETTINGS,
    measured_profile,
    model_view,
    plan,
    service_spec,
    snapshot,
    tenant,
    with_workers,
    workers,
)
from tests.plans.mig.pool_world import node

H100 = Offer(family("H100-80"), None)
ON_GPUS = replace(SETTINGS, images=WorkerImages("cpu", "gpu", "IfNotPresent"))
WHOLE = measured_profile("gpu 1")


def auto(**fields: Any) -> InferenceServiceSpec:
    return service_spec(**{"accelerator": {"mig": {"profile": "auto"}}} | fields)


def facts(gigabytes: float | None, *measured: MeasuredProfile, **fields: Any) -> SliceFacts:
    size = None if gigabytes is None else int(gigabytes * 1e9)
    values: dict[str, Any] = {"format": ModelFormat.SAFETENSORS, "offers": (H100,)} | fields
    return SliceFacts(model="uid-m", size_bytes=size, measured=measured, **values)


def targets(**said: Any) -> Targets:
    return Targets.model_validate(said)


def chosen(found: SliceFacts, said: Targets | None = None, **spec: Any) -> SliceChoice:
    made = choose(auto(**spec), said, found, None).status
    assert made is not None
    return made


# --- what fits -------------------------------------------------------------------------------------------------


def test_the_smallest_profile_that_holds_weights_and_cache_is_chosen_and_the_smaller_ones_say_why_not() -> None:
    made = chosen(facts(13.5), scaling={"max": 2})
    assert (made.profile, made.fits) == ("1g.20gb", True)
    assert made.reason == (
        "1g.20gb: 13.5 GB weights + 2.21 GB KV for 8 requests (2048 tokens each, 135 kB a token assumed) + 1 GB runtime"
        " ≤ 18 GB; no target for TTFT or TPOT"
    )
    assert made.smaller
    assert [(one.profile, one.reason) for one in made.smaller] == [
        (
            "1g.10gb",
            "1g.10gb: 13.5 GB weights + 2.21 GB KV for 8 requests (2048 tokens each, 135 kB a token assumed) + 1 GB"
            " runtime > 9 GB",
        )
    ]


def test_a_cache_that_the_spec_names_is_counted_as_it_is() -> None:
    made = chosen(facts(13.5), engine={"kvCache": "8Gi"})
    assert made.profile == "3g.40gb"
    assert "8.59 GB KV for 8 requests (engine.kvCache)" in made.reason


def test_targets_are_judged_by_the_whole_gpus_profile_scaled_by_compute_and_bandwidth() -> None:
    made = chosen(facts(1.0, WHOLE), targets(tpot="30ms"))
    assert made.profile == "3g.40gb"
    assert made.smaller
    # One step reads weights and cache: (7 ms + 39 ns × 16,384 tokens) × 8 of bandwidth, + 8 × 15 µs × 7 of compute.
    assert made.smaller[0].reason == (
        "1g.10gb: TPOT 62 ms > 30 ms with 8 requests (gpu 1 scaled: compute × 0.143, bandwidth × 0.125)"
    )
    assert [one.profile for one in made.smaller] == ["1g.10gb", "1g.20gb", "2g.20gb"]
    assert made.smaller[2].reason == (
        "2g.20gb: TPOT 31 ms > 30 ms with 8 requests (gpu 1 scaled: compute × 0.286, bandwidth × 0.25)"
    )
    assert made.reason.endswith("TPOT 15.6 ms ≤ 30 ms with 8 requests (gpu 1 scaled: compute × 0.429, bandwidth × 0.5)")


def test_a_slice_that_was_measured_itself_is_not_scaled() -> None:
    slow = WHOLE.model_copy(update={"accelerator": "mig 1g.10gb", "alpha_us": "9000", "kv_tokens": 50_000})
    made = chosen(facts(1.0, WHOLE, slow), targets(tpot="30ms", ttft="2s"))
    assert made.profile == "1g.10gb"
    assert made.reason.endswith("with 8 requests (measured on mig 1g.10gb)")
    assert "2048 tokens each, by mig 1g.10gb" in made.reason


def test_without_a_measurement_speed_is_not_judged_and_that_is_said() -> None:
    made = chosen(facts(1.0), targets(ttft="100ms"))
    assert made.profile == "1g.10gb"
    assert made.reason.endswith("TTFT and TPOT not judged: not measured on these GPUs yet")


def test_a_whole_gpu_of_unknown_family_says_nothing_about_two() -> None:
    both = (Offer(family("A100-80"), None), H100)
    assert "not judged" in chosen(facts(1.0, WHOLE, offers=both), targets(tpot="1ms")).reason


def test_a_profile_of_two_families_must_fit_both() -> None:
    """1g.10gb of an A100 with 40 GB has twice the share of the bandwidth that it has of an H100 with 80 GB."""
    one = WHOLE.model_copy(update={"accelerator": "mig 2g.10gb"})
    of_a100 = Offer(family("A100-40"), frozenset({"1g.10gb", "2g.10gb"}))
    alone = chosen(facts(1.0, one, offers=(of_a100,)), targets(tpot="20ms"))
    assert alone.profile == "1g.10gb"
    slower = WHOLE.model_copy(update={"accelerator": "mig 1g.10gb", "alpha_us": "90000"})
    both = chosen(facts(1.0, one, slower, offers=(of_a100, H100)), targets(tpot="20ms"))
    assert both.profile != "1g.10gb"


def test_media_engines_are_given_only_where_a_pool_names_them() -> None:
    named = Offer(H100.family, frozenset({"1g.10gb+me", "7g.80gb"}))
    assert chosen(facts(1.0, offers=(named,))).profile == "1g.10gb.me"
    assert all(not one.media for one in H100.profiles)


def test_requests_at_once_are_what_a_worker_should_hold_and_never_more_than_the_engine_runs() -> None:
    assert "for 20 requests" in chosen(facts(1.0), scaling={"max": 2, "targetConcurrency": 20}).reason
    both = chosen(facts(1.0), scaling={"max": 2, "targetConcurrency": 20}, engine={"maxNumSeqs": 4})
    assert "for 4 requests" in both.reason
    assert "for 5 requests" in chosen(facts(1.0), engine={"maxNumSeqs": 5}).reason


def test_where_none_fits_all_are_refused_with_the_next_step() -> None:
    made = choose(auto(), None, facts(100.0), None)
    assert made.reason == "NoSliceFits"
    assert made.message.startswith("None of 6 profiles fits; the largest is 7g.80gb: 100 GB weights + ")
    assert "> 72 GB. Allow larger ones, relax the SLA, or lower the concurrency" in made.message
    assert made.status is not None
    assert (made.status.profile, len(made.status.smaller or ())) == (None, 6)


@pytest.mark.parametrize(
    ("found", "reason", "needs_person"),
    [(facts(1.0, offers=()), "NoSlicesOffered", True), (facts(None), "ModelSizeUnknown", False)],
)
def test_what_cannot_be_known_yet_is_said(found: SliceFacts, reason: str, needs_person: bool) -> None:
    made = choose(auto(), None, found, None)
    assert (made.status, made.reason, made.needs_person) == (None, reason, needs_person)


def test_a_measurement_without_sense_is_left_out() -> None:
    broken = WHOLE.model_copy(update={"alpha_us": "0"})
    assert "not judged" in chosen(facts(1.0, broken), targets(tpot="1ms")).reason


# --- a choice stands -------------------------------------------------------------------------------------------


def test_a_choice_stands_while_pools_models_or_the_sla_are_away() -> None:
    before = chosen(facts(1.0), targets(tpot="30ms"))
    for found in (facts(1.0, offers=()), facts(None), facts(50.0, targets_known=False)):
        assert choose(auto(), None, found, before).status == before


def test_new_numbers_of_the_same_accelerator_change_nothing_and_a_first_measurement_does() -> None:
    said = targets(tpot="30ms")
    before = chosen(facts(1.0), said)
    assert before.profile == "1g.10gb"
    slow = WHOLE.model_copy(update={"accelerator": "mig 1g.10gb", "alpha_us": "60000", "kv_tokens": 50_000})
    after = choose(auto(), said, facts(1.0, slow), before).status
    assert after is not None
    assert after.profile != "1g.10gb"
    fast = slow.model_copy(update={"alpha_us": "1000"})
    assert choose(auto(), said, facts(1.0, fast), after).status == after


def test_a_smaller_profile_that_is_offered_later_is_taken_and_a_larger_one_is_not() -> None:
    few = Offer(H100.family, frozenset({"3g.40gb"}))
    before = chosen(facts(1.0, offers=(few,)))
    assert before.profile == "3g.40gb"
    larger = Offer(H100.family, frozenset({"3g.40gb", "7g.80gb"}))
    assert choose(auto(), None, facts(1.0, offers=(larger,)), before).status == before
    smaller = choose(auto(), None, facts(1.0, offers=(H100,)), before).status
    assert smaller is not None
    assert smaller.profile == "1g.10gb"


def test_when_nothing_fits_any_more_the_workers_keep_the_profile_they_have() -> None:
    before = chosen(facts(1.0))
    after = choose(auto(), None, facts(100.0), before)
    assert after.status is not None
    assert (after.reason, after.status.profile, after.status.fits) == ("NoSliceFits", "1g.10gb", False)
    assert choose(auto(), None, facts(100.0), after.status) == after


# --- whatever is asked -----------------------------------------------------------------------------------------

OFFERS = st.lists(
    st.sampled_from(FAMILIES).flatmap(
        lambda one: st.builds(
            Offer,
            st.just(one),
            st.none() | st.frozensets(st.sampled_from([each.name for each in one.profiles]), min_size=1),
        )
    ),
    min_size=1,
    max_size=3,
    unique=True,
).map(tuple)
ACCELERATORS = ("gpu 1", "gpu 2", "mig 1g.10gb", "mig 3g.40gb", "mig 1g.5gb", "cpu 4")
MEASURED = st.builds(
    lambda where, alpha_us, kv_tokens: WHOLE.model_copy(
        update={"accelerator": where, "alpha_us": str(alpha_us), "kv_tokens": kv_tokens}
    ),
    st.sampled_from(ACCELERATORS),
    st.integers(0, 200_000),
    st.integers(1, 1_000_000),
)
TARGETS = st.none() | st.builds(
    lambda ttft_ms, tpot_ms: targets(ttft=f"{ttft_ms}ms", tpot=f"{tpot_ms}ms"), st.integers(1, 9999), st.integers(1, 99)
)


@given(st.floats(0.01, 200), st.lists(MEASURED, max_size=4), OFFERS, TARGETS, st.integers(1, 300))
def test_the_choice_is_the_first_that_fits_and_choosing_again_changes_nothing(
    gigabytes: float, measured: list[MeasuredProfile], offers: tuple[Offer, ...], said: Targets | None, requests: int
) -> None:
    found = facts(gigabytes, *measured, offers=offers)
    spec = auto(engine={"maxNumSeqs": requests})
    made = choose(spec, said, found, None)
    assert made.status is not None
    refused = [one.profile for one in made.status.smaller or ()]
    offered = {one.name.replace("+me", ".me") for offer in offers for one in offer.profiles}
    if made.status.fits:
        assert made.status.profile in offered - set(refused)
        size = int(made.status.profile.split(".")[1].removesuffix("gb"))
        assert all(int(one.split(".")[1].removesuffix("gb")) <= size for one in refused)
        too_small = {one.replace(".me", "+me") for one in refused}
        alone = tuple(
            replace(one, allowed=frozenset(each.name for each in one.profiles if each.name in too_small))
            for one in offers
        )
        if refused:
            assert choose(spec, said, replace(found, offers=alone), None).reason == "NoSliceFits"
    else:
        assert set(refused) == offered
    assert choose(spec, said, found, made.status) == made
    assert SliceChoice.model_validate(made.status.dump()) == made.status


@given(st.floats(0.1, 60), st.integers(1, 64), st.floats(1.0, 4.0), st.integers(1, 64), TARGETS)
def test_more_to_hold_never_gets_a_smaller_slice(
    gigabytes: float, requests: int, heavier: float, more: int, said: Targets | None
) -> None:
    """Under the same measurement."""
    order = [one.name for one in sorted(H100.profiles, key=lambda one: (one.gigabytes, one.compute))]
    light = chosen(facts(gigabytes, WHOLE), said, engine={"maxNumSeqs": requests, "kvCache": "1Gi"})
    heavy = chosen(facts(gigabytes * heavier, WHOLE), said, engine={"maxNumSeqs": requests + more, "kvCache": "2Gi"})
    if not light.profile:
        assert not heavy.profile
    elif heavy.profile:
        assert order.index(heavy.profile) >= order.index(light.profile)


@settings(max_examples=50)
@given(st.lists(MEASURED, min_size=1, max_size=30), TARGETS)
def test_a_choice_changes_at_most_once_for_each_accelerator_that_is_measured(
    told: list[MeasuredProfile], said: Targets | None
) -> None:
    known: dict[str, MeasuredProfile] = {}
    now = choose(auto(), said, facts(2.0), None).status
    changes = 0
    for one in told:
        known[one.accelerator] = one
        after = choose(auto(), said, facts(2.0, *known.values()), now).status
        assert after is not None
        changes += after != now
        now = after
    assert changes <= len(known)


# --- what pools offer ------------------------------------------------------------------------------------------


def test_a_node_offers_what_the_first_pool_that_selects_it_allows() -> None:
    one, other = GpuNode.of(node("n0")), GpuNode.of(node("n1", 1, "NVIDIA-A30"))
    assert one
    assert other
    pools = {
        "b": GPUPoolSpec(node_selector={"pool": "gpus"}),
        "a": GPUPoolSpec(node_selector={"pool": "gpus"}, profiles=["1g.10gb.me", "1g.6gb"]),
    }
    found = offers_of(pools, [other, one, one], {})
    assert [(offer.family.name, [each.name for each in offer.profiles]) for offer in found] == [
        ("A30", ["1g.6gb"]),
        ("H100-80", ["1g.10gb+me"]),
    ]
    assert offers_of(pools, [one], {"zone": "z"}) == ()
    assert GpuNode.of({"metadata": {"name": "cpus"}}) is None


# --- the service, its quota and its price ----------------------------------------------------------------------


def condition(made: ServicePlan, type_: str) -> tuple[str, str] | None:
    return next(((one.reason, one.message) for one in made.conditions if one.type == type_), None)


def devices(made: ServicePlan) -> dict[str, str]:
    deployment = next(one for one in made.children if one["kind"] == "Deployment")
    limits = deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    return {name: count for name, count in limits.items() if name.startswith("nvidia.com/")}


def seen(**fields: Any) -> Snapshot:
    return snapshot(**{"spec": auto(replicas=2), "slices": facts(13.5)} | fields)


def test_workers_ask_for_the_chosen_slice_and_the_status_says_which_and_why() -> None:
    made = plan(seen(), settings=ON_GPUS)
    assert devices(made) == {"nvidia.com/mig-1g.20gb": "1"}
    assert made.status
    assert made.status["slice"]["profile"] == "1g.20gb"
    assert made.status["slice"]["smaller"][0]["profile"] == "1g.10gb"
    named = plan(seen(spec=service_spec(accelerator={"mig": {"profile": "1g.10gb"}}), slices=None), settings=ON_GPUS)
    assert named.status
    assert "slice" not in named.status


def test_another_choice_is_another_revision() -> None:
    small, large = (plan(seen(slices=facts(size)), settings=ON_GPUS) for size in (1.0, 13.5))
    assert small.status
    assert large.status
    assert small.status["currentRevision"] != large.status["currentRevision"]


def test_the_chosen_slice_counts_in_the_quota() -> None:
    made = plan(seen(tenant=tenant(quota={"migGigabytes": 20})), settings=ON_GPUS)
    assert made.over_quota
    assert made.status
    assert made.status["desiredReplicas"] == 1
    fits = plan(seen(tenant=tenant(quota={"migGigabytes": 40})), settings=ON_GPUS)
    assert not fits.over_quota


def test_a_model_that_fits_no_slice_starts_nothing_and_says_so() -> None:
    made = plan(seen(slices=facts(100.0)), settings=ON_GPUS)
    assert not [one for one in made.children if one["kind"] == "Deployment"]
    for type_ in ("Ready", "Stalled"):
        found = condition(made, type_)
        assert found
        assert found[0] == "NoSliceFits"
        assert "> 72 GB" in found[1]


def test_workers_that_run_go_on_when_their_model_fits_no_slice_any_more() -> None:
    before = chosen(facts(13.5))
    spec = spec_of({"spec": auto(replicas=2).dump(), "status": {"slice": before.dump()}})
    run = with_workers(
        seen(spec=spec, slices=facts(100.0), status={"slice": before.dump(), "currentRevision": "old"}),
        Revision("old", 2, EARLY),
        workers=workers("old", 2),
    )
    made = plan(run, settings=ON_GPUS)
    assert not made.remove
    assert all(move.after == 2 for move in made.moves)
    assert made.status
    assert made.status["slice"]["profile"] == before.profile


def test_a_model_on_its_way_is_told_once() -> None:
    made = plan(seen(slices=facts(None), model=model_view(ready=False, reason="Downloading")), settings=ON_GPUS)
    found = condition(made, "Ready")
    assert found
    assert found[0] == "ModelNotReady"
    assert "sizeBytes" not in found[1]


def test_everybody_counts_a_service_with_the_profile_in_its_status() -> None:
    service = {"spec": auto(replicas=3).dump(), "status": {"slice": chosen(facts(13.5)).dump()}}
    assert demand_of(spec_of(service), None).mig_gigabytes == 60
    unknown = spec_of({"spec": auto(replicas=3).dump()})
    assert (demand_of(unknown, None).mig_slices, demand_of(unknown, None).mig_gigabytes) == (3, 0)
    named = {"spec": service_spec(accelerator={"mig": {"profile": "1g.10gb"}}).dump(), "status": service["status"]}
    assert demand_of(spec_of(named), None).mig_gigabytes == 10, "what a person names is never replaced"


def test_a_slice_that_is_not_chosen_yet_has_the_usual_price() -> None:
    usual = Prices(on_demand=10.0, reserved=6.0, spot=3.0)
    pool = GPUPoolSpec(node_selector={"a": "b"}, price_per_gpu_hour="7")
    assert prices_of(auto(), [PricedPool(pool)], usual) == usual
