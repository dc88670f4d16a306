"""More workers while an alert asks: never beyond what the service, its Tenant and the pools allow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controllers.plans.alerting.wishes import Floor, Wishes
from controllers.plans.floor import raised_floor, with_floor
from controllers.plans.service import ServicePlan
from controllers.plans.snapshot import Load, Snapshot
from tests.gen import plan, service_spec, snapshot, target_of, tenant, workers

NOW_S = 1000.0
WHY = "alert 'Busy' fires, and reaction 'more' of AlertPolicy demo/watch asks for 4 while it does, 30m at most"


def scaled(floor: int | None, *, until_s: float = NOW_S + 1800, status: Any = None, **scaling: Any) -> Snapshot:
    """A service with two workers that have nothing to do."""
    spec = service_spec(scaling={"min": 2, "max": 6} | scaling)
    seen = snapshot(spec=spec, status={"desiredReplicas": 2} | (status or {}))
    own = workers(target_of(seen), 2)
    wishes = Wishes() if floor is None else Wishes(floors=(Floor(floor, until_s, WHY),))
    loads = {worker.name: Load(0, 1.0) for worker in own}
    return replace(seen, workers=own, loads=loads, wishes=wishes)


def told(made: ServicePlan) -> dict[str, str]:
    return {one.reason: one.message for one in made.notes if one.reason.startswith("Floor")}


def test_an_alert_raises_the_floor_at_once_and_the_status_says_until_when_and_why() -> None:
    made = plan(scaled(4), now_s=NOW_S)
    assert made.status
    assert made.status["desiredReplicas"] == 4
    assert made.status["scaling"]["floor"] == {"workers": 4, "until": "1970-01-01T00:46:40Z", "message": f"{WHY}."}
    assert told(made) == {"FloorRaised": f"4 workers at least, until 1970-01-01T00:46:40Z: {WHY}."}
    assert made.look_again_s is not None
    assert made.look_again_s <= 1800


def test_it_is_told_once_and_its_end_too_and_the_load_decides_again() -> None:
    first = plan(scaled(4), now_s=NOW_S).status
    assert first
    again = plan(scaled(4, status=first), now_s=NOW_S)
    assert told(again) == {}
    assert again.status
    assert again.status["scaling"]["floor"] == first["scaling"]["floor"]
    for after in (scaled(None, status=first), scaled(4, until_s=NOW_S, status=first)):
        made = plan(after, now_s=NOW_S)
        assert told(made) == {"FloorEnded": "No alert asks for 4 workers at least any more; the load decides."}
        assert made.status
        assert "floor" not in made.status["scaling"]


def test_never_more_than_the_services_own_maximum_and_no_word_where_it_has_as_many_anyway() -> None:
    made = plan(scaled(40), now_s=NOW_S)
    assert made.status
    assert made.status["desiredReplicas"] == made.status["scaling"]["floor"]["workers"] == 6
    assert raised_floor(scaled(2), NOW_S) is None


def test_the_tenants_quota_bounds_it_and_says_so() -> None:
    seen = replace(scaled(5, min=1), tenant=tenant(quota={"replicas": 3}))
    free = plan(replace(seen, tenant=tenant()), now_s=NOW_S)
    bound = plan(seen, now_s=NOW_S)
    assert free.status
    assert bound.status
    assert (bound.status["desiredReplicas"], free.status["desiredReplicas"]) == (3, 5)
    assert "ScalingLimited" in {one.type for one in bound.conditions}


@pytest.mark.parametrize("replicas", [{"replicas": 2}, {"replicas": 2, "scaling": {"max": 6, "policy": "advisory"}}])
def test_a_number_that_is_a_persons_stays(replicas: dict[str, Any]) -> None:
    seen = replace(snapshot(spec=service_spec(**replicas)), wishes=Wishes(floors=(Floor(4, NOW_S + 60, WHY),)))
    made = plan(seen, now_s=NOW_S)
    assert made.status
    assert made.status["desiredReplicas"] == 2
    assert told(made) == {}


def test_another_autoscaler_keeps_its_number() -> None:
    assert raised_floor(replace(scaled(4), autoscaler="HorizontalPodAutoscaler 'x'"), NOW_S) is None


def test_every_window_of_the_week_gets_the_floor_within_its_own_maximum() -> None:
    windows = [
        {"name": "night", "start": "00:00", "end": "06:00", "timeZone": "UTC", "min": 0, "max": 3},
        {"name": "day", "start": "08:00", "end": "18:00", "timeZone": "UTC"},
    ]
    seen = scaled(4, schedule=windows)
    lifted = with_floor(seen.spec, raised_floor(seen, NOW_S)).scaling
    assert lifted
    assert lifted.schedule
    assert (lifted.min, [window.min for window in lifted.schedule]) == (4, [3, 4])
    assert [window.max for window in lifted.schedule] == [3, None]
