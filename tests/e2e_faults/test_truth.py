"""What the campaigns compare is looked at only when Kubernetes, too, has done its part."""

from __future__ import annotations

import asyncio

from e2e.faults.truth import Truth
from kube.resources import CAPACITY_FORECASTS, INFERENCE_SERVICES
from tests.fakes import FakeClient
from tests.waiting import eventually


async def test_what_outlives_its_owner_is_left_behind_until_it_is_taken_away() -> None:
    api = FakeClient()
    service = api.put(INFERENCE_SERVICES, {"metadata": {"namespace": "demo", "name": "chat"}})
    owner = {key: service[key] for key in ("apiVersion", "kind")} | {
        key: service["metadata"][key] for key in ("name", "uid")
    }
    forecast = {"namespace": "demo", "name": "chat", "ownerReferences": [owner]}
    api.put(CAPACITY_FORECASTS, {"metadata": forecast})
    truth = Truth(api)
    looking = asyncio.create_task(truth.run())
    try:
        await truth.synced()
        assert truth.left_behind("demo") == []
        api.remove(INFERENCE_SERVICES, "demo", "chat")
        await eventually(lambda: truth.left_behind("demo") == ["CapacityForecast chat"], "it is left behind")
        assert truth.left_behind("others") == []
        api.remove(CAPACITY_FORECASTS, "demo", "chat")
        await eventually(lambda: truth.left_behind("demo") == [], "it is taken away")
    finally:
        looking.cancel()
