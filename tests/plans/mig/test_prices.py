"""Prices of pools in the cost plan."""

from __future__ import annotations

from typing import Any

import pytest

from controllers.plans.mig.prices import PricedPool, prices_of
from crds.gpu_pool import GPUPoolSpec, SharingStatus
from forecasting.cost import Prices
from tests.gen import service_spec

USUAL = Prices(on_demand=10.0, reserved=6.0, spot=3.0)


def pool(sharing: tuple[SharingStatus, ...] = (), **fields: Any) -> PricedPool:
    return PricedPool(GPUPoolSpec.model_validate({"nodeSelector": {"a": "b"}, **fields}), sharing)


def test_a_slice_costs_its_share_of_the_gpu() -> None:
    spec = service_spec(accelerator={"mig": {"profile": "3g.40gb"}})
    found = prices_of(spec, [pool(capacityClass="reserved", pricePerGpuHour="2.1")], USUAL)
    assert found.reserved == pytest.approx(0.9)
    assert (found.on_demand, found.spot) == (10.0, 3.0)


def test_the_cheapest_pool_of_a_class_counts_and_those_that_cannot_run_it_do_not() -> None:
    spec = service_spec(accelerator={"gpu": {"count": 2}})
    pools = [
        pool(capacityClass="spot", pricePerGpuHour="1.5"),
        pool(capacityClass="spot", pricePerGpuHour="1.2"),
        pool(capacityClass="spot", pricePerGpuHour="0.1", wholeGpus=False),
        pool(capacityClass="onDemand"),
    ]
    assert prices_of(spec, pools, USUAL) == Prices(on_demand=10.0, reserved=6.0, spot=1.2)
    sliced = service_spec(accelerator={"mig": {"profile": "1g.10gb"}})
    only = [pool(profiles=["3g.40gb"], pricePerGpuHour="7")]
    assert prices_of(sliced, only, USUAL) == USUAL


def test_workers_on_cpus_and_a_free_pool_keep_the_usual_prices() -> None:
    free = [pool(pricePerGpuHour="0")]
    assert prices_of(service_spec(), free, USUAL) == USUAL
    assert prices_of(service_spec(accelerator={"gpu": {}}), free, USUAL).on_demand == 10.0


def test_a_share_costs_its_part_of_the_cheapest_gpu_that_is_shared_so() -> None:
    def shares(strategy: str, replicas: int, gigabytes: int) -> SharingStatus:
        found = {"strategy": strategy, "replicas": replicas, "gigabytes": gigabytes, "shares": 8, "used": 0}
        return SharingStatus.model_validate(found)

    spec = service_spec(accelerator={"shared": {"strategy": "mps", "gigabytes": 20}})
    pools = [
        pool((shares("mps", 4, 21), shares("mps", 8, 10)), capacityClass="reserved", pricePerGpuHour="4"),
        pool((shares("timeSlicing", 4, 21),), capacityClass="spot", pricePerGpuHour="2"),
        pool(capacityClass="onDemand", pricePerGpuHour="1"),
    ]
    assert prices_of(spec, pools, USUAL) == Prices(on_demand=10.0, reserved=1.0, spot=3.0)
