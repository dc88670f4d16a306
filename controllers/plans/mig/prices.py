"""What an hour of one worker's accelerator costs in each capacity class: from the pools that may run it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from controllers.plans.mig.chosen import is_auto
from controllers.plans.mig.layouts import slices_of
from crds.fields import quantity
from crds.gpu_pool import CapacityClass, GPUPoolSpec, SharingStatus
from crds.inference_service import Accelerator, InferenceServiceSpec
from forecasting.cost import Prices

SLICES: Final = 7
"""Compute slices of a GPU, by which its price is shared out. An A30 has four: its slices come out a little cheaper."""


@dataclass(frozen=True, slots=True)
class PricedPool:
    """One GPUPool: what it costs, and how its device plugins share GPUs, as its status says."""

    spec: GPUPoolSpec
    sharing: tuple[SharingStatus, ...] = ()


def prices_of(spec: InferenceServiceSpec, pools: Iterable[PricedPool], otherwise: Prices) -> Prices:
    """`otherwise`, with the price of the cheapest pool of each class in the place of its own, for GPUs and their parts.

    A slice costs its compute slices' share of the GPU; a share of one without MIG what is due of each who shares it.
    """
    if spec.accelerator.cpu or is_auto(spec):
        return otherwise
    found: dict[CapacityClass, float] = {}
    for pool in pools:
        part = _part(spec.accelerator, pool)
        if pool.spec.price_per_gpu_hour is not None and part is not None:
            price = float(quantity(pool.spec.price_per_gpu_hour)) * part
            found[pool.spec.capacity_class] = min(price, found.get(pool.spec.capacity_class, price))
    return replace(
        otherwise,
        reserved=found.get(CapacityClass.RESERVED, otherwise.reserved),
        on_demand=found.get(CapacityClass.ON_DEMAND, otherwise.on_demand) or otherwise.on_demand,
        spot=found.get(CapacityClass.SPOT, otherwise.spot),
    )


def _part(on: Accelerator, pool: PricedPool) -> float | None:
    """Of a GPU, for one worker (of one of its GPUs where it has several); None where the pool cannot run it."""
    if on.shared:
        fit = [
            1 / one.replicas
            for one in pool.sharing
            if one.strategy is on.shared.strategy and one.gigabytes >= on.shared.gigabytes
        ]
        return min(fit, default=None)
    if on.mig:
        profiles = pool.spec.profiles
        return slices_of(on.mig.profile) / SLICES if profiles is None or on.mig.profile in profiles else None
    return 1.0 if pool.spec.whole_gpus else None
