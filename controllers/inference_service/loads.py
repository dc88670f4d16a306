"""Loads of workers: scraped every few seconds for services that scale, and at once before a scale-down.

Between two scrapes of a worker lie its rates; from those of busy workers, what one of their kind carries is learned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from controllers.inference_service.admin_ports import AdminPorts
from controllers.inference_service.worker_report import Rates, WorkerReport, rates_between
from controllers.plans.capacity import learn, work_rate
from controllers.plans.snapshot import Load, Worker
from controllers.runtime.interface import Key, Marker

PERIOD_S: Final = 5.0
AT_ONCE: Final = 64


@dataclass(frozen=True, slots=True)
class Kind:
    """Workers that are alike, and how many requests one of them should hold."""

    profile: str
    target: int


@dataclass(frozen=True, slots=True)
class _Said:
    report: WorkerReport
    at_s: float
    rates: Rates = field(default_factory=Rates)


@dataclass(frozen=True, slots=True)
class _Followed:
    addresses: Mapping[str, str]
    """Pod name → address."""
    kind: Kind | None


class LoadBoard:
    """Who is followed, and what their workers last said."""

    def __init__(self, ports: AdminPorts, queue: Marker, clock: Callable[[], float]) -> None:
        self._ports, self._queue, self._clock = ports, queue, clock
        self._followed: dict[Key, _Followed] = {}
        self._said: dict[Key, dict[str, _Said]] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)
        self.capacities: dict[str, float] = {}
        """Profile → weighted tokens each second that one worker was seen to carry at its target."""

    def follow(self, key: Key, workers: Iterable[Worker], kind: Kind | None = None) -> None:
        """Scrape these workers from now on; each round wakes the key."""
        self._followed[key] = _Followed(_addresses(workers), kind)

    def forget(self, key: Key) -> None:
        """The service does not scale, or is gone."""
        self._followed.pop(key, None)
        self._said.pop(key, None)

    def last(self, key: Key) -> dict[str, Load]:
        """By pod name, with ages."""
        now_s = self._clock()
        return {name: _load(said, now_s) for name, said in self._said.get(key, {}).items()}

    async def scrape(self, workers: Iterable[Worker]) -> dict[str, Load]:
        """Ask these workers now; one that does not answer is left out."""
        reports = await self._ask(_addresses(workers))
        return {name: _load(_Said(report, 0.0), 0.0) for name, report in reports.items()}

    async def run(self) -> None:
        """Scrape all that are followed, again and again, until cancelled."""
        while True:
            await asyncio.gather(*(self._round(key) for key in list(self._followed)))
            await asyncio.sleep(PERIOD_S)

    async def _round(self, key: Key) -> None:
        if key not in self._followed:
            return  # It went between two turns of the loop.
        reports = await self._ask(self._followed[key].addresses)
        followed = self._followed.get(key)
        if followed is None:
            return
        before = self._said.get(key, {})
        now_s = self._clock()
        said = {name: _after(before.get(name), report, now_s) for name, report in reports.items()}
        self._learn(followed.kind, said)
        self._said[key] = {name: old for name, old in before.items() if name in followed.addresses} | said
        self._queue.add(key)

    def _learn(self, kind: Kind | None, said: Mapping[str, _Said]) -> None:
        if kind is None:
            return
        for one in said.values():
            rate = work_rate(one.rates.input_tokens_per_s, one.rates.output_tokens_per_s)
            learned = learn(self.capacities.get(kind.profile), rate, one.report.held, kind.target)
            if learned is not None:
                self.capacities[kind.profile] = learned

    async def _ask(self, addresses: Mapping[str, str]) -> dict[str, WorkerReport]:
        async def one(address: str) -> WorkerReport | None:
            async with self._slots:
                return await self._ports.worker_report(address)

        answers = await asyncio.gather(*(one(address) for address in addresses.values()))
        return {name: report for name, report in zip(addresses, answers, strict=True) if report is not None}


def _after(before: _Said | None, report: WorkerReport, now_s: float) -> _Said:
    rates = Rates() if before is None else rates_between(before.report, report, now_s - before.at_s)
    return _Said(report, now_s, rates)


def _load(said: _Said, now_s: float) -> Load:
    return Load(
        requests=said.report.held,
        age_s=now_s - said.at_s,
        waiting=said.report.waiting,
        kv_use=said.report.kv_use,
        requests_per_s=said.rates.requests_per_s,
        input_tokens_per_s=said.rates.input_tokens_per_s,
        output_tokens_per_s=said.rates.output_tokens_per_s,
    )


def _addresses(workers: Iterable[Worker]) -> dict[str, str]:
    return {worker.name: worker.ip for worker in workers if worker.ready and not worker.leaving and worker.ip}
