"""What an hour of one worker's accelerator costs in each capacity class: from the pools that may run it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from controllers.plans.mig.chosen import is_auto
from controllers.plans.mig.layouts import slices_of
from crds.fields import quantity
from crds.gpu_pool import CapacityClass, GPUPoolSpec
from crds.inference_service import InferenceServiceSpec
from forecasting.cost import Prices

SLICES: Final = 7
"""Compute slices of a GPU, by which its price is shared out. An A30 has four: its slices come out a little cheaper."""


def prices_of(spec: InferenceServiceSpec, pools: Iterable[GPUPoolSpec], otherwise: Prices) -> Prices:
    """`otherwise`, with the price of the cheapest pool of each class in the place of its own, for GPUs and slices.

    A slice costs its compute slices' share of the GPU.
    """
    mig = spec.accelerator.mig
    if (mig is None and spec.accelerator.gpu is None) or is_auto(spec):
        return otherwise
    share = slices_of(mig.profile) / SLICES if mig else 1.0
    found: dict[CapacityClass, float] = {}
    for pool in pools:
        if pool.price_per_gpu_hour is not None and _may_run(pool, mig.profile if mig else None):
            price = float(quantity(pool.price_per_gpu_hour)) * share
            found[pool.capacity_class] = min(price, found.get(pool.capacity_class, price))
    return replace(
        otherwise,
        reserved=found.get(CapacityClass.RESERVED, otherwise.reserved),
        on_demand=found.get(CapacityClass.ON_DEMAND, otherwise.on_demand) or otherwise.on_demand,
        spot=found.get(CapacityClass.SPOT, otherwise.spot),
    )


def _may_run(pool: GPUPoolSpec, profile: str | None) -> bool:
    if profile is None:
        return pool.whole_gpus
    return pool.profiles is None or profile in pool.profiles
