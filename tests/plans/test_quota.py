"""Shares of a Tenant's quota."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from controllers.plans.quota import plan_quota
from controllers.plans.snapshot import Claim, Neighbour
from controllers.plans.tenancy import Demand, Tenant, demand_of
from crds.reading import understood
from crds.tenant import Borrowing, Quota
from tests.gen import claim, service_spec, tenant

LATE = "2026-02-01T00:00:00Z"


def test_without_a_quota_everything_is_granted() -> None:
    grant = plan_quota(tenant(), claim("chat", wanted=50), [])
    assert (grant.replicas, grant.reclaims) == (50, False)


def test_what_the_quota_leaves_is_granted_and_the_message_says_the_sum() -> None:
    grant = plan_quota(tenant(quota={"replicas": 8}), claim("chat", wanted=4, created=LATE), [claim("a", wanted=8)])
    assert (grant.replicas, grant.reclaims) == (0, False)
    assert grant.finding
    assert grant.finding.reason == "QuotaExceeded"
    assert grant.finding.message == (
        "Tenant 'acme' asks 12 replicas; its quota is 8, which leaves 'chat' 0 of 4 workers. "
        "Raise spec.quota.replicas of the Tenant or lower the replicas of its services."
    )


def test_the_older_service_goes_first() -> None:
    older, younger = claim("a", wanted=6), claim("b", wanted=6, created=LATE)
    quota = tenant(quota={"replicas": 8})
    assert plan_quota(quota, older, [younger]).replicas == 6
    assert plan_quota(quota, younger, [older]).replicas == 2


def test_what_runs_is_kept_when_the_quota_is_lowered() -> None:
    grant = plan_quota(tenant(quota={"replicas": 1}), claim("chat", wanted=4, held=3), [])
    assert grant.replicas == 3
    assert grant.finding


def test_gpus_are_counted_by_worker() -> None:
    grant = plan_quota(tenant(quota={"gpus": 5}), claim("chat", wanted=4, gpus_each=2), [])
    assert grant.replicas == 2
    assert grant.finding
    assert "asks 8 GPUs; its quota is 5" in grant.finding.message


def test_slices_are_counted_in_gigabytes_too() -> None:
    spec = service_spec(accelerator={"mig": {"profile": "3g.40gb"}}, replicas=3)
    mine = Claim("demo", "chat", LATE, demand_of(spec, None), Demand())
    grant = plan_quota(tenant(quota={"migSlices": 8, "migGigabytes": 90}), mine, [])
    assert grant.replicas == 2
    assert grant.finding
    assert "asks 120 GB of MIG slices; its quota is 90" in grant.finding.message
    assert "Raise spec.quota.migGigabytes" in grant.finding.message


def test_a_service_on_cpu_ignores_the_quota_of_gpus() -> None:
    assert plan_quota(tenant(quota={"gpus": 0}), claim("chat", wanted=4), []).replicas == 4


@given(
    allowed=st.integers(0, 20),
    claims=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8), st.booleans()), min_size=1, max_size=6),
)
def test_all_services_together_stay_within_the_quota_and_use_all_of_it(
    allowed: int, claims: list[tuple[int, int, bool]]
) -> None:
    made: list[Claim] = [
        claim(f"s{number}", wanted=wanted, held=min(held, wanted), created=LATE if late else "2026-01-01T00:00:00Z")
        for number, (wanted, held, late) in enumerate(claims)
    ]
    quota = tenant(quota={"replicas": allowed})
    granted = [plan_quota(quota, mine, [other for other in made if other is not mine]).replicas for mine in made]
    held = sum(one.held.replicas for one in made)
    wanted = sum(one.wanted.replicas for one in made)
    assert sum(granted) == min(wanted, max(allowed, held))
    assert all(number >= one.held.replicas for number, one in zip(granted, made, strict=True))


def test_shares_of_gpus_are_counted_in_gigabytes() -> None:
    spec = service_spec(accelerator={"shared": {"strategy": "mps", "gigabytes": 20}}, replicas=3)
    mine = Claim("demo", "chat", LATE, demand_of(spec, None), Demand())
    grant = plan_quota(tenant(quota={"sharedGigabytes": 50}), mine, [])
    assert grant.replicas == 2
    assert grant.finding
    assert "asks 60 GB of shared GPUs; its quota is 50" in grant.finding.message


def misread(status: Mapping[str, Any] | None = None, **spec: Any) -> Tenant:
    """Tenant `acme` as the operator keeps it."""
    meta = {"name": "acme", "uid": "uid-acme"}
    spec = {"namespaces": ["demo"], **spec}
    return Tenant.of(understood({"kind": "Tenant", "metadata": meta, "spec": spec, "status": status or {}}))


def test_a_quota_that_cannot_be_read_leaves_every_service_what_it_has() -> None:
    grant = plan_quota(misread(quota={"gpus": "four"}), claim("chat", wanted=4, held=3), [])
    assert grant.replicas == 3
    assert grant.finding
    assert grant.finding.reason == "TenantNotUnderstood"
    assert grant.finding.message.startswith(
        "Tenant 'acme', whose quota cannot be read, leaves 'chat' 3 of 4 workers. spec.quota.gpus is 'four'"
    )
    assert plan_quota(misread(quota={"gpus": "four"}), claim("chat", wanted=2, held=3), []).replicas == 2


def test_a_field_that_does_not_matter_to_the_quota_leaves_it_as_it_is() -> None:
    grant = plan_quota(misread(quota={"replicas": 5}, prices={"input": "much"}), claim("chat", wanted=9, held=3), [])
    assert grant.replicas == 5


def test_what_a_quota_that_cannot_be_read_was_last_is_neither_lost_to_its_cohort_nor_given_away() -> None:
    theirs = misread({"replicas": "3/8"}, quota={"replicas": "eight"}, borrowing={"cohort": "lab"})
    assert theirs.spec.quota == Quota(replicas=8)
    mine = Tenant(
        "beta", "uid-beta", LATE, 1, tenant(quota={"replicas": 2}).spec.model_copy(
            update={"borrowing": Borrowing(cohort="lab")}
        )
    )  # fmt: skip
    grown = Neighbour(theirs, (claim("chat", wanted=20, held=3),))
    grant = plan_quota(mine, claim("other", wanted=9, held=7), [], [grown])
    assert grant.replicas == 7, "five of its eight were lent before, and still are"
