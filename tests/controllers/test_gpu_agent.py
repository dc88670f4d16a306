"""The agent on a GPU node, without a GPU: recorded events, a stand-in of NVML, and a fake API server."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from controllers.gpu_agent.admin import STUCK_AFTER_S, Admin
from controllers.gpu_agent.agent import KEPT, Agent
from controllers.gpu_agent.sources import Event, NvmlSource, RecordedSource, SourceError
from controllers.gpu_agent.usage import GpuUsage, UsageMetrics
from controllers.plans.mig.faults import Fault, read_faults
from controllers.plans.mig.geometry import family, read_family
from crds.contract import ANNOTATION_FAULTS, ANNOTATION_MIG_GEOMETRY
from kube.errors import Unreachable
from kube.resources import NODES
from tests.fakes import FakeClient


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Scripted:
    """Events at once, in order."""

    def __init__(self, *events: Event) -> None:
        self.events = list(events)

    def wait(self, timeout_s: float) -> Event | None:
        return self.events.pop(0) if self.events else None

    def geometry(self) -> str | None:
        return None

    def usage(self) -> list[GpuUsage]:
        return []


def node() -> FakeClient:
    return FakeClient((NODES, {"metadata": {"name": "n0", "annotations": {"theirs": "kept"}}}))


def faults(api: FakeClient) -> tuple[Fault, ...]:
    return read_faults((api.now(NODES, None, "n0") or {})["metadata"]["annotations"].get(ANNOTATION_FAULTS))


async def test_a_fault_is_written_onto_the_node_beside_what_others_wrote() -> None:
    api = node()
    agent = Agent(
        api, "n0", Scripted(Event(79, "GPU-a"), Event(109, "GPU-b")), iter([10.0, 20.0]).__next__, UsageMetrics()
    )
    await agent.step()
    await agent.step()
    assert faults(api) == (Fault(10.0, 79, "GPU-a"), Fault(20.0, 109, "GPU-b"))
    assert (api.now(NODES, None, "n0") or {})["metadata"]["annotations"]["theirs"] == "kept"


async def test_faults_that_call_for_nothing_are_not_written() -> None:
    api = node()
    await Agent(api, "n0", Scripted(Event(63, "GPU-a")), lambda: 1.0, UsageMetrics()).step()
    assert api.writes == 0


async def test_only_the_last_faults_are_kept() -> None:
    api = node()
    times = iter(float(at) for at in range(100))
    agent = Agent(api, "n0", Scripted(*[Event(13, "GPU-a")] * 50), times.__next__, UsageMetrics())
    for _ in range(50):
        await agent.step()
    assert len(faults(api)) == KEPT
    assert faults(api)[-1].at_s == 49.0


async def test_a_fault_that_takes_the_node_out_of_use_is_not_lost_among_those_that_follow_it() -> None:
    """A GPU that fell off its bus lets every process on it fail."""
    api = node()
    times = iter(float(at) for at in range(100))
    events = [Event(79, "GPU-a"), *[Event(13, "GPU-a")] * 49]
    api.fail_next("get", NODES, *[Unreachable("get", "Node n0", "refused")] * 40)
    agent = Agent(api, "n0", Scripted(*events), times.__next__, UsageMetrics())
    for _ in range(50):
        await agent.step()
    assert len(faults(api)) == KEPT
    assert faults(api)[0] == Fault(0.0, 79, "GPU-a")
    assert faults(api)[-1].at_s == 49.0


async def test_a_fault_outlives_an_api_server_that_is_away() -> None:
    api = node()
    api.fail_next("get", NODES, Unreachable("get", "Node n0", "refused"))
    agent = Agent(api, "n0", Scripted(Event(79, "GPU-a")), lambda: 1.0, UsageMetrics())
    await agent.step()
    assert faults(api) == ()
    await agent.step()
    assert faults(api) == (Fault(1.0, 79, "GPU-a"),)


def test_recorded_events_come_at_their_time_and_then_none(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text('{"after_s": 0, "xid": 79, "gpu": "GPU-a"}\n\n{"after_s": 3600, "xid": 13, "gpu": "GPU-a"}\n')
    source = RecordedSource(file)
    assert source.wait(0.01) == Event(79, "GPU-a")
    assert source.wait(0.01) is None


@pytest.mark.parametrize("text", ["nonsense", "[]", '{"xid": 79}', '{"after_s": "x", "xid": 1, "gpu": "g"}'])
def test_a_recorded_line_that_makes_no_sense_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text(text)
    with pytest.raises(SourceError, match="line 1"):
        RecordedSource(file)
    with pytest.raises(SourceError, match="absent"):
        RecordedSource(tmp_path / "absent")


def nvml() -> Any:
    """What an H200 with driver 580 answered to these calls."""
    it: Any = types.ModuleType("pynvml")

    class NVMLError(Exception):
        pass

    class NVMLError_Timeout(NVMLError):
        pass

    h200 = [(19, "1g.18gb", 1), (14, "2g.35gb", 2), (9, "3g.71gb", 3), (5, "4g.71gb", 4), (0, "7g.141gb", 7)]
    h200 += [(20, "1g.18gb+me", 1), (15, "1g.35gb", 1)]
    it.NVMLError, it.NVMLError_Timeout = NVMLError, NVMLError_Timeout
    it.NVML_GPU_INSTANCE_PROFILE_COUNT, it.nvmlEventTypeXidCriticalError = 18, 8
    it.gpus = [ctypes.c_int(), ctypes.c_int()]
    it.nvmlInit, it.nvmlDeviceGetCount = lambda: None, lambda: 1
    it.nvmlDeviceGetHandleByIndex = lambda index: ctypes.pointer(it.gpus[index])
    it.nvmlEventSetCreate, it.nvmlDeviceRegisterEvents = lambda: "set", lambda gpu, kind, events: None
    it.nvmlDeviceGetUUID = lambda gpu: b"GPU-a"
    it.queue = [types.SimpleNamespace(eventData=109, device=ctypes.pointer(it.gpus[0]))]

    def wait(events: str, timeout_ms: int) -> Any:
        if not it.queue:
            raise NVMLError_Timeout
        return it.queue.pop(0)

    def info(gpu: str, number: int) -> Any:
        if number >= len(h200):
            raise NVMLError("Not Supported")
        profile_id, name, slices = h200[number]
        return types.SimpleNamespace(id=profile_id, name=f"MIG {name}".encode(), sliceCount=slices)

    class Placement(ctypes.Structure):
        _fields_ = (("start", ctypes.c_uint), ("size", ctypes.c_uint))

    def places(gpu: str, profile_id: int, found: Any, count: Any) -> None:
        name = next(name for known, name, _ in h200 if known == profile_id)
        profile = family("H200-141").profile(name)
        assert profile
        count._obj.value = len(profile.starts)
        for at, start in enumerate(profile.starts if found is not None else ()):
            found[at].start, found[at].size = start, profile.memory

    class NVMLError_NotSupported(NVMLError):
        pass

    class NVMLError_NoPermission(NVMLError):
        pass

    def cut(gpu: str) -> Any:
        raise NVMLError_NotSupported

    it.NVMLError_NotSupported, it.NVMLError_NoPermission = NVMLError_NotSupported, NVMLError_NoPermission
    it.NVML_TEMPERATURE_GPU, it.nvmlDeviceGetTemperature = 0, lambda gpu, sensor: 31
    it.nvmlDeviceGetUtilizationRates, it.nvmlDeviceGetPowerUsage = cut, lambda gpu: 118_250
    it.nvmlDeviceGetMemoryInfo = lambda gpu: types.SimpleNamespace(total=150_754_820_096, used=2**30)
    it.nvmlEventSetWait_v2, it.nvmlDeviceGetGpuInstanceProfileInfo = wait, info
    it.c_nvmlGpuInstancePlacement_t, it.nvmlDeviceGetGpuInstancePossiblePlacements = Placement, places
    return it


def test_the_driver_is_asked_for_faults_and_for_its_geometry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml())
    source = NvmlSource()
    assert source.wait(1.0) == Event(109, "GPU-a")
    assert source.wait(1.0) is None
    text = source.geometry()
    assert text
    found, listed = read_family("it", text), family("H200-141")
    assert (found.compute, found.memory) == (7, 8)
    assert set(found.profiles) == set(listed.profiles)


def test_a_gpu_that_fell_off_the_bus_is_named_though_it_tells_nothing_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = nvml()
    driver.nvmlDeviceGetCount = lambda: 2
    driver.nvmlDeviceGetUUID = lambda gpu: f"GPU-{[ctypes.addressof(one) for one in driver.gpus].index(at(gpu))}"
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    source = NvmlSource()

    def lost(gpu: Any) -> str:
        raise driver.NVMLError("GPU is lost")

    driver.nvmlDeviceGetUUID = lost
    stranger = ctypes.c_int()
    driver.queue = [
        types.SimpleNamespace(eventData=79, device=ctypes.pointer(one)) for one in (*reversed(driver.gpus), stranger)
    ]
    assert [source.wait(1.0) for _ in range(3)] == [Event(79, "GPU-1"), Event(79, "GPU-0"), Event(79, "unknown")]


def at(pointer: Any) -> int:
    return ctypes.addressof(pointer.contents)


async def test_the_page_has_what_the_driver_tells_and_the_faults_that_were_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml())
    source, metrics, clock = NvmlSource(), UsageMetrics(), Clock()
    agent = Agent(node(), "n0", source, lambda: 1.0, metrics, steady_clock=clock)
    await agent.step()
    admin = Admin(agent, source, metrics, host="127.0.0.1", port=0, clock=clock)
    await admin.start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{admin.port}") as session:
            async with session.get("/metrics") as answer:
                page = await answer.text()
            async with session.get("/healthz") as healthy:
                assert healthy.status == 200
            clock.now_s += STUCK_AFTER_S + 1
            async with session.get("/healthz") as stuck:
                assert (stuck.status, await stuck.text()) == (503, "The loop has not moved for 181 s (at most 180).\n")
    finally:
        await admin.stop()
    assert 'foretide_gpu_memory_used_bytes{gpu="GPU-a"} 1.073741824e+09' in page
    assert 'foretide_gpu_power_watts{gpu="GPU-a"} 118.25' in page
    assert 'foretide_gpu_faults_total{action="reset_gpu",gpu="GPU-a"} 1.0' in page
    assert "foretide_gpu_utilization{" not in page, "one that is cut does not tell it"


async def test_a_driver_that_is_gone_leaves_a_page_without_gpus() -> None:
    class Gone(Scripted):
        def usage(self) -> list[GpuUsage]:
            raise SourceError("NVML: Driver Not Loaded.")

    source, metrics = Gone(), UsageMetrics()
    metrics.gpus = (GpuUsage("GPU-a", power_w=100.0),)
    admin = Admin(Agent(node(), "n0", source, lambda: 1.0, metrics), source, metrics, host="127.0.0.1", port=0)
    await admin.start()
    try:
        async with (
            aiohttp.ClientSession(f"http://127.0.0.1:{admin.port}") as session,
            session.get("/metrics") as answer,
        ):
            page = await answer.text()
    finally:
        await admin.stop()
    assert "process_resident_memory_bytes" in page
    assert "foretide_gpu_power_watts{" not in page


async def test_the_geometry_is_written_once_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml())
    source, api = NvmlSource(), node()
    agent = Agent(api, "n0", source, lambda: 1.0, UsageMetrics())
    await agent._until_written({ANNOTATION_MIG_GEOMETRY: source.geometry() or ""})
    annotations = (api.now(NODES, None, "n0") or {})["metadata"]["annotations"]
    assert annotations[ANNOTATION_MIG_GEOMETRY].startswith("7/8;1g.18gb:1:1:0,1,2,3,4,5,6;")
    assert api.writes == 1


def test_without_the_library_the_process_ends_with_a_sentence() -> None:
    hidden = "import runpy, sys; sys.modules['pynvml'] = None; "
    code = hidden + "runpy.run_module('controllers.gpu_agent', {}, '__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code, "--node-name=n0"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "add the package nvidia-ml-py, or give --recorded" in done.stderr
