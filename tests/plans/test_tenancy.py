"""Who owns a namespace, and what its services ask for."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from controllers.plans.tenancy import Demand, Tenant, demand_of, owner_of
from crds.inference_service import InferenceServiceSpec
from crds.tenant import TenantSpec


def tenant(name: str, created: str, *namespaces: str) -> Tenant:
    return Tenant(name, f"uid-{name}", created, 1, TenantSpec(namespaces=list(namespaces)))


def spec(**fields: Any) -> InferenceServiceSpec:
    return InferenceServiceSpec.model_validate({"model": "m", "accelerator": {"cpu": {}}, **fields})


def test_a_namespace_nobody_lists_has_no_owner() -> None:
    assert owner_of("demo", [tenant("acme", "2026-01-01T00:00:00Z", "prod")]) is None


def test_the_older_tenant_keeps_a_namespace_in_every_order() -> None:
    old, young = tenant("zeta", "2026-01-01T00:00:00Z", "demo"), tenant("acme", "2026-01-02T00:00:00Z", "demo")
    for order in itertools.permutations([old, young, tenant("else", "2025-01-01T00:00:00Z", "prod")]):
        assert owner_of("demo", order) is old


def test_tenants_of_the_same_second_are_decided_by_name() -> None:
    one, two = tenant("a", "2026-01-01T00:00:00Z", "demo"), tenant("b", "2026-01-01T00:00:00Z", "demo")
    assert owner_of("demo", [two, one]) is one


@pytest.mark.parametrize(
    ("fields", "desired", "expected"),
    [
        ({}, None, Demand(1, 1)),
        ({"replicas": 0}, None, Demand(1, 0)),
        ({"replicas": 3}, 7, Demand(1, 3)),
        ({"scaling": {"min": 2, "max": 5}}, None, Demand(1, 2)),
        ({"scaling": {"min": 2, "max": 5}}, 4, Demand(1, 4)),
        ({"scaling": {"min": 2, "max": 5}}, 9, Demand(1, 5)),
        ({"replicas": 2, "accelerator": {"gpu": {"count": 4}}}, None, Demand(1, 2, gpus=8)),
        (
            {"replicas": 2, "accelerator": {"mig": {"profile": "1g.10gb"}}},
            None,
            Demand(1, 2, mig_slices=2, mig_gigabytes=20),
        ),
    ],
)
def test_a_service_asks_for_its_replicas_times_its_accelerator(
    fields: dict[str, Any], desired: int | None, expected: Demand
) -> None:
    assert demand_of(spec(**fields), desired) == expected


def test_demands_add_up_over_services() -> None:
    assert sum([Demand(1, 2, 4), Demand(1, 1, 0, 1)], Demand()) == Demand(2, 3, 4, 1)
