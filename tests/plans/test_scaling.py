"""Scaling: from a spec and what was measured and foretold to the policy's decision, and what the status says of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.plans.carried import Known, MeanLengths
from controllers.plans.scaling import Doubt, ScalingPlan, Signals, plan_scaling, settings_of
from controllers.plans.service import ServicePlan, plan_service
from controllers.plans.snapshot import Demanded, Load, Revision, Snapshot
from crds.inference_service import InferenceServiceSpec
from crds.scaling import Scaling
from crds.sla import Targets
from forecasting.policy import Direction, Judged, LoadForecast, Memory, from_json, plan, to_json
from forecasting.standing import Forecasted
from tests.gen import EARLY, SETTINGS, service_spec, snapshot, target_of, with_workers, workers
from tests.gen import plan as plan_whole
from tests.plans.test_carried import H100

LIMITS = {"min": 1, "max": 10, "targetConcurrency": 8, "scaleDownDelay": "5m"}
SCALED = service_spec(scaling=LIMITS)
AHEAD = service_spec(scaling=LIMITS | {"policy": "predictive", "tokensPerSecond": 100})
ASLEEP = service_spec(scaling=LIMITS | {"min": 0, "idlePeriod": "10m"})
NOW_S = 1_800_000_000.0
SETTLED = Memory(since_s=0.0)
UNREAD = Doubt("SLANotUnderstood", "spec.targets.ttft is '0.5s'.")


def fresh(*requests: int) -> list[Load | None]:
    return [Load(number, age_s=1.0) for number in requests]


def decide(
    current: int | None,
    loads: list[Load | None],
    now_s: float = 0.0,
    memory: Memory = SETTLED,
    spec: InferenceServiceSpec = SCALED,
    **seen: Any,
) -> ScalingPlan:
    return plan_scaling(spec, current, Signals(loads, **seen), memory, now_s)


def foretold(*work_per_s: float, trusted: bool = True, issued_s: float = NOW_S) -> Forecasted:
    """One value for each step of ten minutes; its quantiles are all the same."""
    values = tuple((value, value) for value in work_per_s)
    forecast = LoadForecast(issued_s, 600.0, (0.5, 0.95), values, calibrated=trusted)
    return Forecasted(forecast, trusted, "Calibrated" if trusted else "CoverageLost", "as it is")


def test_a_fixed_number_is_what_the_spec_says() -> None:
    assert decide(7, [], spec=service_spec(replicas=3)).replicas == 3
    assert decide(7, [], spec=service_spec(replicas=0)).replicas == 0


def test_without_replicas_and_scaling_there_is_one_worker() -> None:
    assert decide(None, [], spec=service_spec()).replicas == 1


def test_the_first_look_starts_at_the_minimum_and_never_at_nothing() -> None:
    assert decide(None, []).replicas == 1
    assert decide(None, [], spec=ASLEEP).replicas == 1


# --- the measured load ------------------------------------------------------------------------------------------------


def test_more_requests_than_the_target_add_workers_at_once_and_the_reason_is_arithmetic() -> None:
    decision = decide(2, fresh(11, 9))
    assert (decision.replicas, decision.direction, decision.reason) == (3, Direction.UP, "Concurrency")
    assert decision.message == "2 → 3 replicas: 20 running + 0 waiting ÷ 8 each"


def test_one_decision_at_most_doubles_or_adds_four_unless_the_spec_says_otherwise() -> None:
    assert 1 < decide(1, fresh(800)).replicas <= 5
    assert 5 < decide(5, fresh(800, 0, 0, 0, 0)).replicas <= 10
    careful = service_spec(scaling=LIMITS | {"stepUp": 2, "stepDown": 1})
    assert decide(5, fresh(800, 0, 0, 0, 0), spec=careful).replicas == 7
    assert decide(8, fresh(1, *[0] * 7), now_s=400, spec=careful).replicas == 7


def test_a_full_kv_cache_adds_a_worker_that_requests_alone_would_not() -> None:
    full: list[Load | None] = [Load(2, 1.0, kv_use=0.99)]
    assert (decide(1, full).replicas, decide(1, full).reason) == (2, "KVCache")


def test_fewer_requests_take_nothing_away_before_the_delay() -> None:
    assert decide(4, fresh(1, 0, 0, 0), now_s=299).direction is Direction.HOLD


def test_after_the_delay_at_most_half_goes_and_the_delay_starts_anew() -> None:
    decision = decide(8, fresh(1, *[0] * 7), now_s=300)
    assert (decision.replicas, decision.direction) == (4, Direction.DOWN)
    assert decide(4, fresh(1, 0, 0, 0), now_s=500, memory=decision.memory).replicas == 4
    assert decide(4, fresh(1, 0, 0, 0), now_s=600, memory=decision.memory).replicas == 2


def test_a_peak_within_the_delay_keeps_the_workers() -> None:
    peak = decide(4, fresh(30, 0, 0, 0), 200)
    later = decide(4, fresh(0, 0, 0, 0), 400, peak.memory)
    assert later.replicas == 4
    assert decide(4, fresh(0, 0, 0, 0), 600, later.memory).replicas == 2


@pytest.mark.parametrize("loads", [[], [None, None], [Load(0, age_s=60)], [Load(500, age_s=60)]])
def test_missing_and_stale_metrics_hold_the_number(loads: list[Load | None]) -> None:
    decision = decide(4, loads, now_s=10_000)
    assert (decision.replicas, decision.direction, decision.reason) == (4, Direction.HOLD, "MetricsStale")


def test_metrics_that_were_missing_start_the_delay_anew() -> None:
    gap = decide(4, [None], 1000)
    assert decide(4, fresh(0), 1100, gap.memory).replicas == 4


def test_one_silent_worker_does_not_block_growing_and_counts_as_full_when_shrinking() -> None:
    assert decide(2, [*fresh(40), None]).replicas > 2
    assert decide(3, [*fresh(8, 8), None], now_s=10_000).replicas == 3
    assert decide(3, [*fresh(1, 1), None], now_s=10_000).replicas == 2


def test_new_limits_are_honoured_at_once() -> None:
    assert decide(40, []).replicas == 10
    assert decide(2, [], spec=service_spec(scaling={"min": 5, "max": 9})).replicas == 5


def test_a_window_of_the_schedule_has_limits_of_its_own() -> None:
    window = {"name": "day", "days": ["Fri"], "start": "08:00", "end": "20:00", "timeZone": "Europe/Berlin", "min": 4}
    spec = service_spec(scaling=LIMITS | {"schedule": [window]})
    friday_10_in_berlin_s = 1_800_000_000.0 + 3600.0  # 2027-01-15 09:00 UTC
    assert decide(1, fresh(0), friday_10_in_berlin_s, spec=spec).replicas == 4
    assert decide(1, fresh(0), friday_10_in_berlin_s + 86_400, spec=spec).replicas == 1


@given(
    current=st.integers(1, 10),
    rounds=st.lists(st.lists(st.one_of(st.none(), st.integers(0, 200)), max_size=10), max_size=40),
    period_s=st.sampled_from([5.0, 60.0, 400.0]),
)
def test_the_number_stays_within_its_limits_and_never_falls_twice_within_the_delay(
    current: int, rounds: list[list[int | None]], period_s: float
) -> None:
    memory, fell_at_s = SETTLED, float("-inf")
    for number, requests in enumerate(rounds):
        now_s = number * period_s
        decision = decide(current, [None if one is None else Load(one, 0.0) for one in requests], now_s, memory)
        assert 1 <= decision.replicas <= 10
        if decision.replicas < current:
            assert now_s - fell_at_s >= 300
            assert any(one is not None for one in requests)
            fell_at_s = now_s
        current, memory = decision.replicas, decision.memory
        assert len(memory.needs) <= 301


# --- to zero and back -------------------------------------------------------------------------------------------------


QUIET = Demanded(open=0, waiting=0, idle_s=60.0)
BUSY = Demanded(open=1, waiting=0, idle_s=0.0)


def queue_of(number: int) -> Demanded:
    return Demanded(number, number, 0.0)


def test_a_request_that_waits_in_a_gateway_wakes_a_service_at_once() -> None:
    decision = decide(0, [], demand=queue_of(1), spec=ASLEEP)
    assert (decision.replicas, decision.message) == (1, "0 → 1 replicas: 0 running + 1 waiting ÷ 8 each")
    assert decide(0, [], demand=queue_of(20), spec=ASLEEP).replicas > 1


def test_nothing_wakes_it_without_a_request_and_silent_gateways_prove_nothing() -> None:
    assert decide(0, [], demand=QUIET, spec=ASLEEP).replicas == 0
    assert decide(0, [], demand=None, spec=ASLEEP).replicas == 0
    assert decide(1, [], demand=None, spec=ASLEEP, now_s=10_000).replicas == 1


def test_it_sleeps_after_the_idle_period_and_not_while_its_first_worker_starts() -> None:
    memory = Memory(since_s=0.0, busy_s=0.0)
    assert decide(1, fresh(0), 599, memory, ASLEEP, demand=QUIET).replicas == 1
    slept = decide(1, fresh(0), 601, memory, ASLEEP, demand=QUIET)
    assert (slept.replicas, slept.reason) == (0, "Idle")
    assert decide(1, [], 10_000, memory, ASLEEP, demand=QUIET).replicas == 1


def test_a_probe_of_ours_does_not_keep_it_awake_and_a_clients_request_between_two_scrapes_does() -> None:
    memory = Memory(since_s=0.0, busy_s=0.0)
    probed: list[Load | None] = [Load(1, 1.0, requests_per_s=0.2, output_tokens_per_s=0.2)]
    assert decide(1, probed, 601, memory, ASLEEP, demand=QUIET).replicas == 0
    awake = decide(1, fresh(0), 601, memory, ASLEEP, demand=Demanded(0, 0, 4.0))
    assert awake.replicas == 1
    assert decide(1, fresh(0), 1100, awake.memory, ASLEEP, demand=QUIET).replicas == 1
    assert decide(1, fresh(0), 601, memory, ASLEEP, demand=BUSY).replicas == 1


def test_what_waits_in_a_gateway_counts_beside_what_workers_hold() -> None:
    assert decide(1, fresh(8), demand=Demanded(17, 9, 0.0), spec=ASLEEP).replicas == 3


# --- ahead of the load ------------------------------------------------------------------------------------------------


def test_a_rise_that_is_foretold_adds_workers_before_it_comes() -> None:
    decision = decide(1, fresh(1), NOW_S, spec=AHEAD, forecast=foretold(50, 420, 60), lead_time_s=400)
    assert (decision.replicas, decision.reason) == (5, "Forecast")
    assert decision.message == "1 → 5 replicas: p95 load 420 tok/s at +600 s ÷ 100 tok/s each (as the spec says)"
    assert decide(1, fresh(1), NOW_S, forecast=foretold(50, 420, 60)).replicas == 1, "reactive does not look ahead"


@pytest.mark.parametrize(
    "work_per_s", [(float("nan"),) * 4, (1e12,) * 4, (-5.0,) * 4, (float("inf"),) * 4], ids=["NaN", "huge", "<0", "inf"]
)
def test_wild_forecasts_have_no_say_and_never_pass_the_limits(work_per_s: tuple[float, ...]) -> None:
    decision = decide(2, fresh(1, 1), NOW_S, Memory(), AHEAD, forecast=foretold(*work_per_s))
    assert decision.replicas == 2
    assert decision.decision
    assert decision.decision.forecast_ignored


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=5), st.integers(0, 200))
def test_whatever_is_foretold_the_limits_hold(work_per_s: list[float], requests: int) -> None:
    decision = decide(3, fresh(requests), NOW_S, spec=AHEAD, forecast=foretold(*work_per_s))
    assert 1 <= decision.replicas <= 10


def test_a_forecast_that_lost_its_calibration_leaves_the_measured_load_alone() -> None:
    forecast = foretold(900, 900, 900, trusted=False)
    assert decide(1, fresh(1), NOW_S, spec=AHEAD, forecast=forecast).replicas == 1


def test_without_a_known_capacity_a_forecast_cannot_be_turned_into_workers() -> None:
    unknown = service_spec(scaling=LIMITS | {"policy": "predictive"})
    assert decide(1, fresh(1), NOW_S, spec=unknown, forecast=foretold(900, 900, 900)).replicas == 1
    learned = decide(
        1, fresh(1), NOW_S, spec=unknown, forecast=foretold(900, 900, 900), known=Known(learned_work_per_s=300.0)
    )
    assert learned.replicas == 3


def test_what_a_worker_carries_within_its_sla_counts_and_is_in_the_reason() -> None:
    spec = service_spec(scaling=LIMITS | {"policy": "predictive", "max": 50})
    ahead = foretold(30_000, 30_000, 30_000)
    loose, tight = (
        decide(1, fresh(1), NOW_S, spec=spec, forecast=ahead, known=Known(targets, H100, MeanLengths(1000.0, 200.0)))
        for targets in (Targets(ttft="1s", tpot="50ms"), Targets(ttft="1s", tpot="20ms"))
    )
    assert loose.decision
    assert tight.decision
    assert loose.decision.wanted < tight.decision.wanted
    assert "input tokens), the most with TTFT ≤ 1 s and TPOT ≤ 20 ms for 99%" in tight.message


def test_advice_changes_nothing_whoever_sets_the_number() -> None:
    advisory = service_spec(replicas=2, scaling=LIMITS | {"policy": "advisory", "tokensPerSecond": 100})
    decision = decide(2, fresh(1, 1), NOW_S, spec=advisory, forecast=foretold(900, 900, 900))
    assert (decision.replicas, decision.direction) == (2, Direction.HOLD)
    assert decision.decision
    assert decision.decision.wanted == 6


def test_where_somebody_else_scales_the_number_is_kept() -> None:
    decision = decide(3, fresh(80, 80, 80), autoscaler="HorizontalPodAutoscaler 'x'")
    assert (decision.replicas, decision.reason, decision.decision) == (3, "OtherAutoscaler", None)


def test_every_decision_can_be_read_back_and_decided_again() -> None:
    made = decide(1, fresh(30), NOW_S, spec=AHEAD, forecast=foretold(50, 420, 60)).decision
    assert made
    read = from_json(to_json(made))
    assert plan(read.inputs) == made == read


def test_a_record_holds_no_more_of_a_forecast_than_the_decision_looked_at() -> None:
    made = decide(1, fresh(1), NOW_S, spec=AHEAD, forecast=foretold(*range(200))).decision
    assert made
    assert made.inputs.forecast
    assert len(made.inputs.forecast.values) == 3
    assert len(to_json(made)) < 2500


def test_defaults_are_as_the_fields_say() -> None:
    settings = settings_of(Scaling(max=3), None)
    assert (settings.up_replicas, settings.up_share, settings.down_share) == (4, 1.0, 0.5)
    assert (settings.stabilisation_s, settings.idle_after_s) == (300.0, 600.0)


# --- what people read -------------------------------------------------------------------------------------------------


def scaled_snapshot(spec: InferenceServiceSpec, number: int, requests: int, **fields: Any) -> Any:
    seen = snapshot(spec=spec, status={"desiredReplicas": number})
    target = target_of(seen)
    seen = with_workers(seen, Revision(target, number, EARLY), workers=workers(target, number))
    loads = {name: Load(requests, 1.0) for name in seen.ready_workers}
    return dataclasses.replace(seen, loads=loads, **fields)


def condition(made: Any, type_: str) -> tuple[str, str, str] | None:
    found = [one for one in made.conditions if one.type == type_]
    return (found[0].status.value, found[0].reason, found[0].message) if found else None


def test_the_status_says_who_decided_what_and_when() -> None:
    seen = scaled_snapshot(AHEAD, 1, 1, forecast=foretold(50, 420, 60), lead_time_s=412.0)
    made = plan_whole(seen, now_s=NOW_S)
    assert made.status
    assert made.status["scaling"] == {
        "policy": "predictive",
        "advisedReplicas": 5,
        "leadTime": "6m52s",
        "lastDecision": {
            "time": "2027-01-15T08:00:00Z",
            "before": 1,
            "after": 5,
            "reason": "Forecast",
            "message": "1 → 5 replicas: p95 load 420 tok/s at +600 s ÷ 100 tok/s each (as the spec says)",
        },
    }
    assert condition(made, "ForecastTrusted") == ("True", "Calibrated", "as it is")
    assert "ScaledUp" in [note.reason for note in made.moved]


def test_a_service_whose_forecast_is_not_trusted_is_reactive_and_says_why() -> None:
    made = plan_whole(scaled_snapshot(AHEAD, 1, 1, forecast=foretold(9, 9, 9, trusted=False)), now_s=NOW_S)
    assert made.status
    assert made.status["scaling"]["policy"] == "reactive"
    assert condition(made, "ForecastTrusted") == ("False", "CoverageLost", "as it is")
    pending = plan_whole(scaled_snapshot(AHEAD, 1, 1), now_s=NOW_S)
    assert (condition(pending, "ForecastTrusted") or ())[1] == "Pending"
    unknown = service_spec(scaling=LIMITS | {"policy": "predictive"})
    told = condition(
        plan_whole(scaled_snapshot(unknown, 1, 1, forecast=foretold(9, 9, 9)), now_s=NOW_S), "ForecastTrusted"
    )
    assert told
    assert told[1] == "CapacityUnknown"
    assert "m on cpu 1 carries is not known yet" in told[2]


def test_losing_and_regaining_trust_are_events() -> None:
    seen = scaled_snapshot(AHEAD, 1, 1, forecast=foretold(9, 9, 9, trusted=False))
    before = {
        "type": "ForecastTrusted",
        "status": "True",
        "reason": "Calibrated",
        "message": "",
        "lastTransitionTime": EARLY,
    }
    status = seen.status.model_validate({"desiredReplicas": 1, "conditions": [before]})
    notes = plan_whole(dataclasses.replace(seen, status=status), now_s=NOW_S).notes
    assert ("ForecastDemoted", True) in [(note.reason, note.warning) for note in notes]
    back = {**before, "status": "False"}
    status = seen.status.model_validate({"desiredReplicas": 1, "conditions": [back]})
    seen = dataclasses.replace(seen, status=status, forecast=foretold(9, 9, 9))
    assert ("ForecastTrusted", False) in [(note.reason, note.warning) for note in plan_whole(seen, now_s=NOW_S).notes]


def test_a_restart_of_the_operator_is_no_loss_of_trust() -> None:
    seen = scaled_snapshot(AHEAD, 1, 1)
    before = {"type": "ForecastTrusted", "status": "True", "reason": "Calibrated", "message": "as it was"}
    known = {"desiredReplicas": 1, "conditions": [before | {"lastTransitionTime": EARLY}]}
    made = plan_whole(dataclasses.replace(seen, status=seen.status.model_validate(known)), now_s=NOW_S)
    assert condition(made, "ForecastTrusted") == ("True", "Calibrated", "as it was")
    assert made.status
    assert made.status["scaling"]["policy"] == "predictive"
    assert "ForecastDemoted" not in [note.reason for note in made.notes]


def test_an_autoscaler_that_finds_no_number_to_set_is_told_of() -> None:
    unset = snapshot(spec=service_spec(replicas=None), autoscaler="HorizontalPodAutoscaler 'chat'")
    told = condition(plan_whole(unset), "ScalingHeld")
    assert told
    assert told[:2] == ("True", "ReplicasMissing")
    assert told[2].startswith("HorizontalPodAutoscaler 'chat' cannot read the scale of a service without spec.replicas")
    named = snapshot(spec=service_spec(replicas=2), autoscaler="HorizontalPodAutoscaler 'chat'")
    assert condition(plan_whole(named), "ScalingHeld") is None


def test_a_held_number_is_a_condition_with_the_next_step() -> None:
    told = condition(plan_whole(scaled_snapshot(SCALED, 1, 90, autoscaler="ScaledObject 'chat'")), "ScalingHeld")
    assert told
    assert told[:2] == ("True", "OtherAutoscaler")
    assert told[2].startswith("ScaledObject 'chat' also sets the number of workers")
    silent = dataclasses.replace(scaled_snapshot(SCALED, 1, 1), loads={})
    assert (condition(plan_whole(silent), "ScalingHeld") or ())[1] == "MetricsMissing"
    assert condition(plan_whole(scaled_snapshot(SCALED, 1, 1)), "ScalingHeld") is None


def test_a_reactive_service_has_no_words_about_forecasts() -> None:
    made = plan_whole(scaled_snapshot(SCALED, 1, 1))
    assert condition(made, "ForecastTrusted") is None
    assert made.status
    assert made.status["scaling"] == {"policy": "reactive", "advisedReplicas": 1}


# --- the promise of the SLA -------------------------------------------------------------------------------------------


def test_only_a_predictive_service_with_latency_targets_steers_its_quantile_by_them() -> None:
    targets = Targets.model_validate({"ttft": "1s", "percentile": 95})
    counted = Judged(NOW_S, 100.0, 90.0)

    def memory(spec: InferenceServiceSpec, targets: Targets | None) -> Memory:
        return decide(2, fresh(1, 1), NOW_S, spec=spec, known=Known(targets=targets), judged=counted).memory

    steering = memory(AHEAD, targets).steering
    assert steering
    assert steering.last == counted
    assert memory(AHEAD, None).steering is None
    assert memory(AHEAD, Targets.model_validate({"e2e": "10s"})).steering is None
    assert memory(SCALED, targets).steering is None


def test_while_the_targets_of_its_sla_cannot_be_read_no_worker_is_taken_away_and_more_may_come() -> None:
    now_s = 10_000.0
    assert decide(4, fresh(0, 0, 0, 0), now_s).direction is Direction.DOWN
    kept = decide(4, fresh(0, 0, 0, 0), now_s, doubt=UNREAD)
    assert (kept.replicas, kept.direction, kept.reason) == (4, Direction.HOLD, "SLANotUnderstood")
    assert kept.message == "4 kept: spec.targets.ttft is '0.5s'."
    assert kept.wished == 4
    assert decide(2, fresh(11, 9), now_s, doubt=UNREAD).replicas == 3


PROMISED = service_spec(scaling=LIMITS, sla="fast")
TIGHT = Known(Targets.model_validate({"ttft": "1s", "tpot": "50ms"}), H100)


def settled(seen: Snapshot) -> ServicePlan:
    """The plan when the load has been known for an hour."""
    return plan_service(seen, SETTINGS, Memory(since_s=NOW_S - 3600), NOW_S)


@pytest.mark.parametrize(
    ("found", "awaited", "known", "reason"),
    [
        (False, False, Known(), "SLANotFound"),
        (True, True, TIGHT, "LengthsUnknown"),
        (True, False, TIGHT, None),
        (True, True, Known(), None),
    ],
)
def test_what_is_not_known_of_a_workers_capacity_any_more_takes_no_worker_away(
    found: bool, awaited: bool, known: Known, reason: str | None
) -> None:
    """Too few requests are known to be few, and an SLA without targets is known to have none."""
    seen = scaled_snapshot(PROMISED, 4, 0, sla_found=found, lengths_awaited=awaited, known=known)
    made = settled(seen).scaling
    assert made
    assert made.replicas == (2 if reason is None else 4)
    if reason is not None:
        assert (made.reason, made.wished) == (reason, 4)
    more = scaled_snapshot(PROMISED, 4, 9, sla_found=found, lengths_awaited=awaited, known=known)
    grown = settled(more).scaling
    assert grown
    assert grown.replicas == 5


def test_a_persons_number_needs_no_lengths_and_a_history_that_is_not_read_is_told() -> None:
    said = service_spec(scaling=LIMITS | {"tokensPerSecond": 100}, sla="fast")
    seen = scaled_snapshot(said, 4, 0, sla_found=True, lengths_awaited=True, known=TIGHT)
    made = settled(seen)
    assert made.scaling
    assert made.scaling.replicas == 2
    assert condition(made, "ScalingHeld") is None
    gone = settled(dataclasses.replace(seen, sla_found=False, known=Known())).scaling
    assert gone
    assert gone.replicas == 2
    told = condition(settled(dataclasses.replace(seen, spec=PROMISED)), "ScalingHeld")
    assert told
    assert told[:2] == ("True", "LengthsUnknown")
    assert "so no worker is taken away" in told[2]
