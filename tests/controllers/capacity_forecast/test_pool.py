"""Forecasts in processes: bounded, killed when they take too long, and never in the loop's way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from controllers.capacity_forecast.job import Job
from controllers.capacity_forecast.pool import CHILD, ForecastFailed, ForecastPool
from forecasting.series import Series

BAD = "tests.controllers.capacity_forecast.children"


def job(name: str = "demo/chat", values: list[float] | None = None) -> Job:
    return Job(Series(0.0, 600.0, np.array(values or [1.0, 2.0, 3.0]), name), 4)


@asynccontextmanager
async def pool(processes: int = 1, timeout_s: float = 60.0, module: str = CHILD) -> AsyncIterator[ForecastPool]:
    it = ForecastPool(processes, timeout_s, module=module)
    try:
        yield it
    finally:
        await it.close()


async def test_a_forecast_comes_back_from_another_process() -> None:
    async with pool() as it:
        first = await it.run(job())
        assert (first.steps, first.origin_s) == (4, 1800.0)
        again = await it.run(job(values=[5.0] * 200))
        assert again.median == pytest.approx([5.0] * 4, rel=0.05)


async def test_a_history_of_no_use_fails_with_its_reason_and_the_next_one_succeeds() -> None:
    async with pool() as it:
        with pytest.raises(ForecastFailed, match="none of its 2 steps is observed"):
            await it.run(job(values=[float("nan")] * 2))
        assert (await it.run(job())).steps == 4


async def test_a_job_that_takes_too_long_is_killed_and_the_pool_goes_on() -> None:
    async with pool(timeout_s=0.5, module=BAD) as it:
        with pytest.raises(ForecastFailed, match=r"more than 0\.5 s"):
            await it.run(job("hangs"))
    async with pool(module=BAD) as it:
        assert (await it.run(job())).steps == 4


async def test_a_process_that_dies_is_replaced() -> None:
    async with pool(module=BAD) as it:
        with pytest.raises(ForecastFailed, match="ended with code 7"):
            await it.run(job("dies"))
        assert (await it.run(job())).steps == 4


async def test_jobs_wait_for_a_free_process_and_a_cancelled_one_frees_its_place() -> None:
    async with pool(module=BAD) as it:
        hanging = asyncio.ensure_future(it.run(job("hangs")))
        waiting = asyncio.ensure_future(it.run(job()))
        done, _ = await asyncio.wait({hanging, waiting}, timeout=0.2)
        assert not done
        hanging.cancel()
        assert (await waiting).steps == 4
        await asyncio.gather(hanging, return_exceptions=True)


async def test_a_process_that_cannot_be_started_fails_its_job_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(*_: object, **__: object) -> None:
        raise BlockingIOError("no process is left")

    async with pool() as it:
        with monkeypatch.context() as patched:
            patched.setattr(asyncio, "create_subprocess_exec", refused)
            with pytest.raises(ForecastFailed, match="could not be started: no process is left"):
                await it.run(job())
        assert (await it.run(job())).steps == 4
