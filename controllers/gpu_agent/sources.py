"""Where faults and geometry are from: the driver through NVML, or a file of recorded events where there is no GPU.

`pynvml` (package nvidia-ml-py) is imported only by `NvmlSource`, so that everything else runs without it.
"""

from __future__ import annotations

import ctypes
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from controllers.gpu_agent.usage import GpuUsage
from controllers.plans.mig.geometry import Family, Profile, write_family

UNKNOWN: Final = "unknown"
"""In the place of a UUID."""


class SourceError(Exception):
    """The driver cannot be asked, or the file of recorded events makes no sense."""


@dataclass(frozen=True, slots=True)
class Event:
    """An XID of one GPU, by its UUID."""

    xid: int
    gpu: str


class Source(Protocol):
    """One node's GPUs. All methods block; call them in a thread."""

    def wait(self, timeout_s: float) -> Event | None:
        """The next fault, or None when the time is over."""
        ...

    def geometry(self) -> str | None:
        """As `plans.mig.geometry.write_family` writes it; None where the driver does not say."""
        ...

    def usage(self) -> list[GpuUsage]:
        """What each GPU does now. Raises SourceError when the driver cannot be asked any more."""
        ...


class NvmlSource:
    """NVML events of every GPU of the node, siblings' slices included: the driver reports by GPU."""

    def __init__(self) -> None:
        """Raises SourceError: no library, no driver, or no GPU."""
        try:
            import pynvml
        except ImportError as error:
            raise SourceError("pynvml is not installed: add the package nvidia-ml-py, or give --recorded.") from error
        self._nvml: Any = pynvml
        try:
            pynvml.nvmlInit()
            self._gpus = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
            self._uuids = {_address(gpu): _text(pynvml.nvmlDeviceGetUUID(gpu)) for gpu in self._gpus}
            self._events = pynvml.nvmlEventSetCreate()
            for gpu in self._gpus:
                pynvml.nvmlDeviceRegisterEvents(gpu, pynvml.nvmlEventTypeXidCriticalError, self._events)
        except pynvml.NVMLError as error:
            raise SourceError(f"NVML: {error}. Is the NVIDIA driver visible in this container?") from error
        if not self._gpus:
            raise SourceError("NVML sees no GPU on this node.")

    def wait(self, timeout_s: float) -> Event | None:
        try:
            event = self._nvml.nvmlEventSetWait_v2(self._events, int(timeout_s * 1000))
        except self._nvml.NVMLError_Timeout:
            return None
        except self._nvml.NVMLError as error:
            raise SourceError(f"NVML: {error}.") from error
        return Event(int(event.eventData), self._uuid_of(event.device))

    def _uuid_of(self, gpu: Any) -> str:
        """As it was told at the start: a GPU that has fallen off the bus (XID 79) tells nothing any more."""
        known = self._uuids.get(_address(gpu))
        if known is not None:
            return known
        try:
            return _text(self._nvml.nvmlDeviceGetUUID(gpu))
        except self._nvml.NVMLError:
            return UNKNOWN

    def usage(self) -> list[GpuUsage]:
        try:
            return [self._usage_of(gpu) for gpu in self._gpus]
        except self._nvml.NVMLError as error:
            raise SourceError(f"NVML: {error}.") from error

    def _usage_of(self, gpu: Any) -> GpuUsage:
        nvml = self._nvml
        busy = self._told(nvml.nvmlDeviceGetUtilizationRates, gpu)
        memory = self._told(nvml.nvmlDeviceGetMemoryInfo, gpu)
        power_mw = self._told(nvml.nvmlDeviceGetPowerUsage, gpu)
        return GpuUsage(
            gpu=_text(nvml.nvmlDeviceGetUUID(gpu)),
            utilization=None if busy is None else busy.gpu / 100.0,
            memory_bytes=None if memory is None else int(memory.total),
            memory_used_bytes=None if memory is None else int(memory.used),
            temperature_c=self._told(nvml.nvmlDeviceGetTemperature, gpu, nvml.NVML_TEMPERATURE_GPU),
            power_w=None if power_mw is None else power_mw / 1000.0,
        )

    def _told(self, ask: Any, *of: Any) -> Any:
        """None where this GPU does not tell it, as one that is cut into slices does not tell how busy it is."""
        try:
            return ask(*of)
        except (self._nvml.NVMLError_NotSupported, self._nvml.NVMLError_NoPermission):
            return None

    def geometry(self) -> str | None:
        profiles = sorted(self._profiles(), key=lambda one: (one.compute, one.memory, one.name))
        if not profiles:
            return None
        compute = max(one.compute for one in profiles)
        memory = max(start + one.memory for one in profiles for start in one.starts)
        return write_family(Family("", compute, memory, tuple(profiles)))

    def _profiles(self) -> Iterator[Profile]:
        nvml = self._nvml
        for number in range(nvml.NVML_GPU_INSTANCE_PROFILE_COUNT):
            try:
                info = nvml.nvmlDeviceGetGpuInstanceProfileInfo(self._gpus[0], number)
                places = self._places(info.id)
            except nvml.NVMLError:
                continue  # A number that this GPU has no profile for.
            name = _text(info.name).removeprefix("MIG ")
            if places and ("+" not in name or name.endswith("+me")) and "-" not in name:
                yield Profile(name, int(info.sliceCount), places[0][1], tuple(start for start, _ in places))

    def _places(self, profile_id: int) -> list[tuple[int, int]]:
        """Start and size in memory slices."""
        nvml, count = self._nvml, ctypes.c_uint(0)
        nvml.nvmlDeviceGetGpuInstancePossiblePlacements(self._gpus[0], profile_id, None, ctypes.byref(count))
        places = (nvml.c_nvmlGpuInstancePlacement_t * count.value)()
        nvml.nvmlDeviceGetGpuInstancePossiblePlacements(self._gpus[0], profile_id, places, ctypes.byref(count))
        return sorted((int(one.start), int(one.size)) for one in places[: count.value])


def _address(handle: Any) -> int | None:
    """What a handle of NVML points to, by which two of them are the same."""
    return ctypes.cast(handle, ctypes.c_void_p).value


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


class RecordedSource:
    """Events from a file, one JSON object a line: `{"after_s": 1.5, "xid": 79, "gpu": "GPU-…"}`; then silence."""

    def __init__(self, path: Path) -> None:
        """Raises SourceError: the file cannot be read, or a line makes no sense; says which."""
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(f"Recorded events '{path}': {error}.") from error
        self._events = [_recorded(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
        self._started_s = time.monotonic()

    def wait(self, timeout_s: float) -> Event | None:
        due_s = self._events[0][0] - (time.monotonic() - self._started_s) if self._events else timeout_s
        time.sleep(max(0.0, min(due_s, timeout_s)))
        if not self._events or due_s > timeout_s:
            return None
        return self._events.pop(0)[1]

    def geometry(self) -> str | None:
        return None

    def usage(self) -> list[GpuUsage]:
        return []


def _recorded(path: Path, number: int, line: str) -> tuple[float, Event]:
    try:
        raw = json.loads(line)
        return float(raw["after_s"]), Event(int(raw["xid"]), str(raw["gpu"]))
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(
            f"Recorded events '{path}', line {number}: {line[:80]!r}; an object with after_s, xid and gpu is needed."
        ) from error
