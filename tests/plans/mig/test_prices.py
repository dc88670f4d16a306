"""Prices of pools in the cost plan."""

from __future__ import annotations

from typing import Any

import pytest

from controllers.plans.mig.prices import prices_of
from crds.gpu_pool import GPUPoolSpec
from forecasting.cost import Prices
from tests.gen import service_spec

USUAL = Prices(on_demand=10.0, reserved=6.0, spot=3.0)


def pool(**fields: Any) -> GPUPoolSpec:
    return GPUPoolSpec.model_validate({"nodeSelector": {"a": "b"}, **fields})


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
