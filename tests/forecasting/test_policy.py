"""The scaling policy: what it answers, and what it never does whatever it is told."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given as for_all
from hypothesis import settings as checks
from hypothesis import strategies as some

from forecasting.errors import BadSetting
from forecasting.policy import (
    Bounds,
    Capacity,
    Direction,
    Load,
    LoadForecast,
    Memory,
    Policy,
    PolicySettings,
    Reason,
    RecordInvalid,
    ScalingDecision,
    ScalingInput,
    Window,
    from_json,
    plan,
    to_json,
)
from forecasting.policy.need import BELIEVABLE_FACTOR, tokens

NOW_S = 1_000_000.0
ONE_TO_TWENTY = Bounds(1, 20)
DEFAULTS = PolicySettings()
SETTLED = Memory(since_s=0.0, busy_s=NOW_S)
LEVELS = (0.5, 0.95, 0.99)


def load(
    work: float = 0.0, *, running: float = 0.0, waiting: float = 0.0, kv: float = 0.0, age_s: float = 20.0
) -> Load:
    return Load(work / 500, work, 0.0, running, waiting, kv, age_s)


def forecast(*p95: float, issued_s: float = NOW_S, step_s: float = 60.0, calibrated: bool = True) -> LoadForecast:
    return LoadForecast(issued_s, step_s, LEVELS, tuple((0.8 * x, x, 1.1 * x) for x in p95), calibrated)


def asked(
    *,
    current: int = 4,
    ready: int | None = None,
    measured: Load | None = None,
    ahead: LoadForecast | None = None,
    bounds: Bounds = ONE_TO_TWENTY,
    memory: Memory = SETTLED,
    settings: PolicySettings = DEFAULTS,
    now_s: float = NOW_S,
) -> ScalingInput:
    return ScalingInput(
        now_s,
        bounds,
        current,
        current if ready is None else ready,
        measured,
        ahead,
        Capacity(work_per_s=900.0, running=40.0),
        lead_time_s=240.0,
        settings=settings,
        memory=memory,
    )


@pytest.mark.parametrize(
    ("rate_per_s", "text"), [(999.4, "999"), (999.6, "1k"), (5400.0, "5.4k"), (999_600.0, "1M"), (0.0, "0")]
)
def test_a_rate_that_is_rounded_up_to_the_next_unit_is_told_in_it(rate_per_s: float, text: str) -> None:
    assert tokens(rate_per_s) == f"{text} tok/s"


def test_capacity_is_bought_for_the_upper_quantile_at_the_lead_time() -> None:
    ahead = forecast(1000, 1000, 1000, 1000, 5400, 1000, 1000, 1000, 1000, 1000)
    decision = plan(asked(measured=load(1000), ahead=ahead))
    assert (decision.replicas, decision.direction, decision.reason) == (6, Direction.UP, Reason.FORECAST)
    assert decision.message == "6 replicas: p95 load 5.4k tok/s at +240 s ÷ 900 tok/s each"


def test_a_peak_before_the_lead_time_is_seen_too() -> None:
    ahead = forecast(1000, 4500, *[1000.0] * 10)
    assert plan(asked(measured=load(1000), ahead=ahead)).replicas == 5


def test_a_peak_after_lead_time_and_horizon_is_not_bought_yet() -> None:
    ahead = forecast(*[3600.0] * 10, 18_000)
    assert plan(asked(measured=load(3600), ahead=ahead)).replicas == 4


@pytest.mark.parametrize(
    ("measured", "replicas", "reason", "because"),
    [
        (load(6300), 7, Reason.WORK, "load 6.3k tok/s now ÷ 900 tok/s each"),
        (load(900, running=160, waiting=45), 6, Reason.CONCURRENCY, "160 running + 45 waiting ÷ 40 each"),
        (load(900, kv=0.95), 5, Reason.KV_CACHE, "4 ready × 95% of the KV cache ÷ 80%"),
    ],
)
def test_the_measured_load_is_a_floor_under_the_forecast(
    measured: Load, replicas: int, reason: Reason, because: str
) -> None:
    decision = plan(asked(measured=measured, ahead=forecast(*[900.0] * 12)))
    assert (decision.replicas, decision.reason) == (replicas, reason)
    assert because in decision.message


def test_reactive_does_not_look_at_the_forecast() -> None:
    settings = PolicySettings(policy=Policy.REACTIVE)
    decision = plan(asked(measured=load(3600), ahead=forecast(*[9000.0] * 12), settings=settings))
    assert (decision.replicas, decision.forecast_ignored) == (4, None)


def test_advisory_says_what_it_would_do_and_changes_nothing() -> None:
    settings = PolicySettings(policy=Policy.ADVISORY)
    decision = plan(asked(measured=load(3600), ahead=forecast(*[5400.0] * 12), settings=settings))
    assert (decision.replicas, decision.wanted, decision.reason) == (4, 6, Reason.ADVISORY)
    assert decision.message.startswith("4 held, advice: 6 replicas: p95 load")
    assert decision.direction is Direction.HOLD


@pytest.mark.parametrize(
    ("wild", "why"),
    [
        (forecast(*[math.nan] * 12), "not finite"),
        (forecast(*[math.inf] * 12), "not finite"),
        (forecast(*[-3600.0] * 12), "negative load"),
        (forecast(*[3_600_000.0] * 12), "beyond belief"),
        (forecast(*[5400.0] * 12, calibrated=False), "have not held"),
        (forecast(5400, 5400), "it ends +120 s from now, and the lead time is 240 s"),
        (forecast(*[5400.0] * 12, issued_s=NOW_S - 7200), "it ends"),
        (forecast(*[5400.0] * 12, issued_s=NOW_S + 7200), "issued 7200 s after now"),
    ],
)
def test_a_forecast_that_cannot_be_trusted_has_no_say_and_the_decision_says_why(wild: LoadForecast, why: str) -> None:
    decision = plan(asked(measured=load(3600), ahead=wild))
    assert (decision.replicas, decision.direction) == (4, Direction.HOLD)
    assert decision.forecast_ignored is not None
    assert why in decision.forecast_ignored
    assert "the forecast has no say" in decision.message


def test_a_forecast_from_a_clock_that_is_less_than_a_step_ahead_is_believed() -> None:
    ahead = forecast(*[5400.0] * 12, issued_s=NOW_S + 50)
    decision = plan(asked(measured=load(3600), ahead=ahead))
    assert (decision.replicas, decision.forecast_ignored) == (6, None)


def test_a_load_of_the_step_that_runs_is_said_to_be_now() -> None:
    ahead = forecast(5400, *[900.0] * 11, issued_s=NOW_S - 50)
    assert "p95 load 5.4k tok/s at +0 s" in plan(asked(measured=load(900), ahead=ahead)).message


def test_a_load_is_believed_up_to_a_multiple_of_what_all_replicas_can_do() -> None:
    most = BELIEVABLE_FACTOR * 4 * 900.0
    decisions = [
        plan(asked(ahead=LoadForecast(NOW_S, 60.0, (0.95,), ((work,),) * 12), measured=load(900)))
        for work in (0.99 * most, most, 1.01 * most)
    ]
    assert [decision.forecast_ignored is None for decision in decisions] == [True, True, False]


def test_quantiles_that_cross_never_ask_for_less() -> None:
    crossed = LoadForecast(NOW_S, 60.0, LEVELS, ((5400.0, 900.0, 900.0),) * 12)
    assert plan(asked(measured=load(900), ahead=crossed)).replicas == 6


def test_a_forecast_whose_levels_end_below_the_quantile_counts_with_its_highest() -> None:
    low = LoadForecast(NOW_S, 60.0, (0.5, 0.9), ((900.0, 5400.0),) * 12)
    decision = plan(asked(measured=load(900), ahead=low))
    assert decision.replicas == 6
    assert "p90 load 5.4k tok/s" in decision.message


def test_a_long_queue_asks_for_half_as_many_again_as_are_ready_and_one_more() -> None:
    wide = PolicySettings(up_replicas=100)
    decision = plan(asked(measured=load(running=160, waiting=9000), settings=wide))
    assert (decision.replicas, decision.reason) == (7, Reason.CONCURRENCY)
    assert "at most 7 while 4 are ready" in decision.message
    assert plan(asked(current=0, ready=0, measured=load(waiting=9000), settings=wide)).replicas == 3


@pytest.mark.parametrize("lost", [None, load(50_000, age_s=91), load(math.nan), load(-5)])
def test_missing_stale_or_broken_load_holds(lost: Load | None) -> None:
    decision = plan(asked(measured=lost, ahead=forecast(*[9000.0] * 12)))
    assert (decision.replicas, decision.reason) == (4, Reason.STALE)
    assert decision.message.startswith("4 held: ")


def test_without_load_the_bounds_still_hold() -> None:
    assert plan(asked(current=1, bounds=Bounds(3, 9))).replicas == 3
    assert plan(asked(current=12, bounds=Bounds(3, 9))).replicas == 9


def test_after_a_loss_of_metrics_the_next_step_down_waits_for_a_whole_window() -> None:
    lost = plan(asked(measured=None))
    found = plan(asked(measured=load(900), memory=lost.memory))
    assert (found.replicas, found.reason) == (4, Reason.STABILISING)


def test_a_step_up_is_bounded_and_says_what_it_was_cut_from() -> None:
    settings = PolicySettings(up_replicas=2, up_share=0.5)
    decision = plan(asked(measured=load(9000), settings=settings))
    assert decision.replicas == 6
    assert decision.message.startswith("6 replicas of 10: ")


def test_a_step_down_is_bounded_and_needs_the_load_to_fit_with_room_to_spare() -> None:
    assert plan(asked(current=12, measured=load(900))).replicas == 9
    assert plan(asked(current=4, measured=load(900 * 2.99))).replicas == 4
    assert plan(asked(current=4, measured=load(900 * 2.8))).replicas == 3


def test_a_step_down_goes_no_lower_than_the_needs_of_the_window() -> None:
    memory = replace(SETTLED, needs=((NOW_S - 200, 4), (NOW_S - 100, 2)))
    held = plan(asked(measured=load(900), memory=memory))
    assert (held.replicas, held.reason) == (4, Reason.STABILISING)
    later = plan(asked(measured=load(900), memory=held.memory, now_s=NOW_S + 101))
    assert later.replicas == 3
    assert [replicas for _, replicas in later.memory.needs] == [2]


def test_what_fits_but_leaves_no_room_for_fewer_is_not_said_to_be_held_for_what_was() -> None:
    memory = replace(SETTLED, needs=((NOW_S - 200, 6),))
    decision = plan(asked(measured=load(900 * 3.99), memory=memory))
    assert (decision.replicas, decision.reason) == (4, Reason.WORK)


def test_a_fresh_memory_only_makes_the_next_step_down_later() -> None:
    fresh = plan(asked(measured=load(900), memory=Memory()))
    assert (fresh.replicas, fresh.reason) == (4, Reason.STABILISING)
    later = plan(asked(measured=load(900), memory=fresh.memory, now_s=NOW_S + 300))
    assert later.replicas == 3
    assert plan(asked(measured=load(5400), memory=Memory())).replicas == 6


def test_a_clock_that_was_set_back_waits_no_longer_than_a_fresh_memory() -> None:
    tomorrow = NOW_S + 86_400
    memory = Memory(since_s=tomorrow, changed_s=tomorrow, busy_s=tomorrow)
    first = plan(asked(measured=load(900), memory=memory))
    assert (first.replicas, first.reason) == (4, Reason.STABILISING)
    assert plan(asked(measured=load(900), memory=first.memory, now_s=NOW_S + 300)).replicas == 3
    asleep = plan(asked(current=1, measured=load(), bounds=Bounds(0, 5), memory=memory)).memory
    assert plan(asked(current=1, measured=load(), bounds=Bounds(0, 5), memory=asleep, now_s=NOW_S + 600)).replicas == 0


def test_after_a_change_the_next_step_down_waits() -> None:
    memory = replace(SETTLED, changed_s=NOW_S - 20)
    decision = plan(asked(measured=load(900), memory=memory))
    assert (decision.replicas, decision.reason) == (4, Reason.COOLING_DOWN)
    assert "down again in 40 s" in decision.message


@pytest.mark.parametrize(("current", "replicas"), [(0, 2), (1, 1), (2, 2)])
def test_after_a_change_the_next_step_up_waits_unless_nothing_runs(current: int, replicas: int) -> None:
    settings = PolicySettings(cooldown_up_s=60)
    just_changed = replace(SETTLED, changed_s=NOW_S - 1)
    decision = plan(
        asked(current=current, measured=load(900 * (current + 1.5)), memory=just_changed, settings=settings)
    )
    assert decision.replicas == replicas
    assert (decision.reason is Reason.COOLING_DOWN) == (current > 0)


def test_a_tenants_limit_is_respected_and_named() -> None:
    decision = plan(asked(measured=load(9000), bounds=Bounds(1, 5, "tenant 'acme': quota 5")))
    assert (decision.replicas, decision.reason) == (5, Reason.BOUNDS)
    assert decision.message.endswith("at most 5 are allowed (tenant 'acme': quota 5)")


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("now", "least"),
    [
        ("2026-03-02 07:59", 1),  # Monday
        ("2026-03-02 08:00", 6),
        ("2026-03-02 17:59", 6),
        ("2026-03-02 18:00", 1),
        ("2026-03-07 12:00", 1),  # Saturday
        ("2026-03-07 23:30", 3),
        ("2026-03-08 01:59", 3),  # the night of Saturday goes on
        ("2026-03-08 02:00", 1),
        ("2026-03-09 01:00", 1),  # Sunday night has no window
    ],
)
def test_schedule_windows_set_other_bounds(now: str, least: int) -> None:
    settings = PolicySettings(
        windows=(
            Window((0, 1, 2, 3, 4), 8 * 60, 18 * 60, 6, 9),
            Window((5,), 23 * 60, 2 * 60, 3, 9),
        )
    )
    given = asked(current=1, settings=settings, now_s=at(now))
    assert plan(given).replicas == least


def test_a_window_is_in_its_own_time_zone_and_never_above_the_outer_limit() -> None:
    settings = PolicySettings(windows=(Window((0,), 8 * 60, 18 * 60, 6, 30, "Europe/Paris"),))
    paris_0830 = asked(current=1, settings=settings, bounds=Bounds(1, 4, "pool"), now_s=at("2026-03-02 07:30"))
    assert plan(paris_0830).replicas == 4


def test_scale_to_zero_only_after_the_quiet_time() -> None:
    bounds, quiet = Bounds(0, 5), load()
    busy = Memory(since_s=0.0, busy_s=NOW_S - 599)
    assert plan(asked(current=1, measured=quiet, bounds=bounds, memory=busy)).replicas == 1
    idle = Memory(since_s=0.0, busy_s=NOW_S - 600)
    decision = plan(asked(current=1, measured=quiet, bounds=bounds, memory=idle))
    assert (decision.replicas, decision.reason) == (0, Reason.IDLE)
    assert "nothing ran or waited for 600 s" in decision.message


def test_a_time_without_a_load_is_no_quiet_time() -> None:
    """Whatever ran meanwhile, nobody saw it."""

    def at(passed_s: float, measured: Load | None, memory: Memory) -> ScalingDecision:
        settings, bounds = PolicySettings(stabilisation_s=60.0), Bounds(0, 5)
        now_s = NOW_S + passed_s
        given = asked(current=1, measured=measured, bounds=bounds, memory=memory, settings=settings, now_s=now_s)
        return plan(given)

    unseen = at(590, None, Memory(since_s=0.0, busy_s=NOW_S))
    first = at(600, load(), unseen.memory)
    later = at(1199, load(), first.memory)
    last = at(1200, load(), first.memory)
    assert [one.replicas for one in (unseen, first, later, last)] == [1, 1, 1, 0]


def test_a_forecast_of_load_keeps_the_last_replica_and_wakes_a_sleeping_service() -> None:
    bounds, idle = Bounds(0, 5), Memory(since_s=0.0, busy_s=0.0)
    rise = forecast(0, 0, 0, 0, 100, 100, 100, 100, 100, 100)
    assert plan(asked(current=1, measured=load(), bounds=bounds, memory=idle, ahead=rise)).replicas == 1
    assert plan(asked(current=0, measured=load(), bounds=bounds, memory=idle, ahead=rise)).replicas == 1
    none = forecast(*[0.0] * 12)
    assert plan(asked(current=1, measured=load(), bounds=bounds, memory=idle, ahead=none)).replicas == 0
    assert plan(asked(current=0, measured=load(), bounds=bounds, memory=idle, ahead=none)).replicas == 0


def test_a_waiting_request_wakes_a_sleeping_service_at_once() -> None:
    settings = PolicySettings(cooldown_up_s=600.0)
    memory = Memory(since_s=NOW_S, changed_s=NOW_S - 1, busy_s=0.0)
    decision = plan(asked(current=0, measured=load(waiting=1), bounds=Bounds(0, 5), memory=memory, settings=settings))
    assert decision.replicas == 1


def test_a_long_idle_service_stays_awake_for_a_fresh_memory() -> None:
    assert plan(asked(current=1, measured=load(), bounds=Bounds(0, 5), memory=Memory())).replicas == 1


def test_bad_settings_are_refused_with_what_is_allowed() -> None:
    with pytest.raises(BadSetting, match="0 <= min_replicas <= max_replicas"):
        Bounds(3, 2)
    with pytest.raises(BadSetting, match=r"quantile is 1\.5"):
        PolicySettings(quantile=1.5)
    with pytest.raises(BadSetting, match="zone 'Europe' is unknown"):
        Window((0,), 0, 60, 1, 2, "Europe")
    with pytest.raises(BadSetting, match="zone 'Mars/Olympus' is unknown"):
        Window((0,), 0, 60, 1, 2, "Mars/Olympus")


# --- whatever it is told ---------------------------------------------------------------------------------------------

anything = some.floats(allow_nan=True, allow_infinity=True)
sound = some.floats(0, 1e6)


@some.composite
def loads(draw: some.DrawFn, number: some.SearchStrategy[float] = anything) -> Load:
    return Load(*(draw(number) for _ in range(7)))


@some.composite
def forecasts(draw: some.DrawFn) -> LoadForecast:
    steps = draw(some.integers(0, 12))
    rows = tuple(tuple(draw(anything) for _ in LEVELS) for _ in range(steps))
    return LoadForecast(
        NOW_S + draw(some.floats(-4000, 4000)), draw(some.sampled_from([15.0, 60.0, 600.0])), LEVELS, rows
    )


@some.composite
def memories(draw: some.DrawFn) -> Memory:
    times = some.none() | some.floats(0, 2 * NOW_S)
    needs = draw(some.lists(some.tuples(some.floats(0, 2 * NOW_S), some.integers(0, 50)), max_size=4))
    return Memory(draw(times), tuple(needs), draw(times), draw(times))


@some.composite
def inputs(draw: some.DrawFn) -> ScalingInput:
    least, most = sorted((draw(some.integers(0, 30)), draw(some.integers(0, 30))))
    settings = PolicySettings(
        policy=draw(some.sampled_from(Policy)),
        quantile=draw(some.floats(0.01, 0.99)),
        up_replicas=draw(some.integers(1, 5)),
        up_share=draw(some.floats(0, 2)),
        down_replicas=draw(some.integers(1, 5)),
        cooldown_up_s=draw(some.floats(0, 300)),
    )
    return ScalingInput(
        NOW_S,
        Bounds(least, most),
        draw(some.integers(0, 40)),
        draw(some.integers(0, 40)),
        draw(some.none() | loads() | loads(sound)),
        draw(some.none() | forecasts()),
        Capacity(900.0, 40.0),
        draw(some.floats(0, 1000)),
        settings,
        draw(memories()),
    )


@for_all(inputs())
@checks(max_examples=400, deadline=None)
def test_the_answer_is_within_the_bounds_whatever_was_measured_or_forecast(given: ScalingInput) -> None:
    decision = plan(given)
    assert given.bounds.min_replicas <= decision.replicas <= given.bounds.max_replicas
    assert given.bounds.min_replicas <= decision.wanted <= given.bounds.max_replicas
    assert decision.message


@for_all(inputs())
@checks(max_examples=400, deadline=None)
def test_a_step_never_passes_its_limits_but_to_reach_the_bounds(given: ScalingInput) -> None:
    decision, settings = plan(given), given.settings
    most = given.current + max(settings.up_replicas, math.floor(given.current * settings.up_share))
    fewest = given.current - max(settings.down_replicas, math.floor(given.current * settings.down_share))
    assert decision.replicas <= max(most, given.bounds.min_replicas)
    assert decision.replicas >= min(fewest, given.bounds.max_replicas)


@for_all(inputs())
@checks(max_examples=200, deadline=None)
def test_a_recorded_decision_reads_back_and_decides_the_same(given: ScalingInput) -> None:
    decision = plan(given)
    line = to_json(decision)
    assert "\n" not in line
    again = from_json(line)
    assert to_json(again) == line
    assert to_json(plan(again.inputs)) == line


@for_all(inputs(), loads(sound))
@checks(max_examples=200, deadline=None)
def test_more_load_never_asks_for_fewer(given: ScalingInput, measured: Load) -> None:
    given = replace(given, load=replace(measured, age_s=0.0))
    more = replace(given, load=replace(measured, input_tokens_per_s=measured.input_tokens_per_s * 2 + 1, age_s=0.0))
    assert plan(more).wanted >= plan(given).wanted


@for_all(work=some.floats(0, 15_000), running=some.floats(0, 500), kv=some.floats(0, 1), start=some.integers(1, 20))
@checks(max_examples=100, deadline=None)
def test_a_steady_load_settles_and_never_flaps(work: float, running: float, kv: float, start: int) -> None:
    current, memory, seen = start, Memory(), []
    for turn in range(120):
        # The cache's share follows the number of replicas, as it does in life.
        measured = load(work, running=running, kv=min(kv * start / max(current, 1), 1.0))
        ahead = forecast(*[work] * 12, issued_s=NOW_S + 30 * turn)
        decision = plan(asked(current=current, measured=measured, ahead=ahead, memory=memory, now_s=NOW_S + 30 * turn))
        current, memory = decision.replicas, decision.memory
        seen.append(decision.direction)
    ups = [at for at, each in enumerate(seen) if each is Direction.UP]
    downs = [at for at, each in enumerate(seen) if each is Direction.DOWN]
    assert not (ups and downs) or max(ups) < min(downs) or max(downs) < min(ups)
    assert set(seen[-10:]) == {Direction.HOLD}


def test_applying_a_decision_and_deciding_again_changes_nothing() -> None:
    given = asked(measured=load(900), ahead=forecast(*[5400.0] * 12))
    decision: ScalingDecision = plan(given)
    again = plan(replace(given, current=decision.replicas, memory=decision.memory))
    assert again.direction is Direction.HOLD


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "not JSON"),
        ("[]", "ScalingDecision is list; an object is needed"),
        ('{"colour": 1}', "has no field 'colour'"),
        ('{"replicas": 1}', "lacks the field 'direction'"),
    ],
)
def test_a_line_that_is_no_decision_is_refused(line: str, why: str) -> None:
    with pytest.raises(RecordInvalid, match="^.*" + why.replace("[", r"\[")):
        from_json(line)


def test_a_record_with_a_wrong_type_names_the_field() -> None:
    line = to_json(plan(asked(measured=load(900)))).replace('"lead_time_s":240.0', '"lead_time_s":"soon"')
    with pytest.raises(RecordInvalid, match=r"ScalingDecision\.inputs\.lead_time_s is 'soon'"):
        from_json(line)
