"""What Tenants borrow is measured between publications, and outlives a restart by what was published."""

from __future__ import annotations

from typing import Any

import pytest

from controllers.plans.tenancy import Tenant
from controllers.tenant.usage import Meters

HOUR_S = 3600.0
TOLD = {"cohort": "lab", "halfLife": "1h", "sampledAt": "1970-01-01T01:00:00Z", "average": {"gpus": "8.000"}}


def borrower(cohort: str = "lab", told: Any = None) -> Tenant:
    spec = {"namespaces": ["demo"], "quota": {"gpus": 4}, "borrowing": {"cohort": cohort, "halfLife": "1h"}}
    return Tenant.of({"metadata": {"name": "acme", "uid": "u"}, "spec": spec, "status": {"fairShare": told or {}}})


def test_what_is_borrowed_counts_from_when_it_is_seen_until_it_changes() -> None:
    meters, acme = Meters(), borrower()
    assert meters.read(acme, {}, {"gpus": 8}, HOUR_S, HOUR_S).average == {}
    assert meters.read(acme, {}, {}, 2 * HOUR_S, HOUR_S).average == {"gpus": 4.0}
    assert meters.read(acme, {}, {}, 3 * HOUR_S, HOUR_S).average == {"gpus": 2.0}


def test_after_a_restart_the_published_average_goes_on() -> None:
    meters, acme = Meters(), borrower(told=TOLD)
    assert meters.read(acme, TOLD, {"gpus": 2}, 2 * HOUR_S, HOUR_S).average == {"gpus": 5.0}


def test_of_two_replicas_of_the_operator_the_one_that_led_last_is_believed() -> None:
    meters = Meters()
    meters.read(borrower(), {}, {"gpus": 100}, 0.5 * HOUR_S, HOUR_S)
    assert meters.read(borrower(told=TOLD), TOLD, {}, HOUR_S, HOUR_S).average == {"gpus": 8.0}


def test_what_was_published_before_does_not_count_what_is_measured_since_twice() -> None:
    meters, acme = Meters(), borrower(told=TOLD)
    meters.read(acme, TOLD, {"gpus": 8}, 2 * HOUR_S, HOUR_S)
    assert meters.read(acme, TOLD, {"gpus": 8}, 3 * HOUR_S, HOUR_S).average == {"gpus": pytest.approx(8.0)}


def test_another_cohort_begins_anew_and_the_former_is_kept_for_its_return() -> None:
    meters, acme = Meters(), borrower(told=TOLD)
    meters.read(acme, TOLD, {}, HOUR_S, HOUR_S)
    assert meters.read(borrower("other", TOLD), TOLD, {}, 2 * HOUR_S, HOUR_S).average == {}
    meters.forget("u")
    assert meters.read(borrower(), {}, {}, 2 * HOUR_S, HOUR_S).average == {}
    meters.keep(set())
    assert meters.read(acme, TOLD, {}, HOUR_S, HOUR_S).average == {"gpus": 8.0}


def test_what_was_published_here_counts_before_the_cache_shows_it() -> None:
    meters, newer = Meters(), TOLD | {"sampledAt": "1970-01-01T02:00:00Z"}
    assert meters.newest("u", TOLD) == TOLD
    meters.publish("u", newer)
    assert meters.newest("u", TOLD) == meters.newest("u", {}) == newer
    last = TOLD | {"sampledAt": "1970-01-01T03:00:00Z"}
    assert meters.newest("u", last) == last, "another operator led since"
    meters.forget("u")
    assert meters.newest("u", TOLD) == TOLD
