"""What is measured while two revisions are compared: counts at the gateways, and answers to fixed prompts.

Every few seconds the gateways' pages are read and what came since the last reading is added to the evidence, in memory;
the plan writes it into the status, from which a new leader goes on. What nobody read in between is never counted.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from controllers.history.interface import ServiceId
from controllers.inference_service.admin_ports import AdminPorts
from controllers.inference_service.prompts import ask_prompts
from controllers.inference_service.revision_report import RevisionId, read_revisions
from controllers.plans.canary.evidence import Evidence, is_batch, learned
from controllers.plans.canary.outputs import OutputFinding
from controllers.plans.canary.samples import Sample
from controllers.plans.canary.values import Compared, Pair
from controllers.runtime.interface import Key, Marker
from crds.rollout import Rollout

PERIOD_S: Final = 5.0
RECENT_ROUNDS: Final = 12
"""A minute."""
Page = Mapping[RevisionId, Sample]


@dataclass(slots=True)
class _Subject:
    """One pair that is compared."""

    pair: Pair
    spec: Rollout
    evidence: Evidence
    candidate_is_ready: bool = False
    stable: Sample = field(default_factory=Sample)
    candidate: Sample = field(default_factory=Sample)
    """Counted, and too few yet for a batch."""
    recent: deque[Sample] = field(default_factory=lambda: deque(maxlen=RECENT_ROUNDS))
    outputs: OutputFinding | None = None
    asked_since_s: float | None = None
    tries: int = 0

    def add(self, stable: Sample, candidate: Sample) -> None:
        self.recent.append(candidate)
        self.stable, self.candidate = self.stable + stable, self.candidate + candidate
        if is_batch(self.stable, self.candidate):
            self.evidence = learned(self.evidence, self.stable, self.candidate, self.spec.comparison)
            self.stable = self.candidate = Sample()


class CanaryBoard:
    """Who is compared, and what is known of them."""

    def __init__(
        self,
        ports: AdminPorts,
        queue: Marker,
        gateways: Callable[[], frozenset[str]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ports, self._queue, self._gateways, self._clock = ports, queue, gateways, clock
        self._subjects: dict[Key, _Subject] = {}
        self._pages: dict[str, Page] = {}
        """The last page of each gateway."""

    def follow(self, key: Key, pair: Pair, spec: Rollout, remembered: Evidence, *, candidate_is_ready: bool) -> None:
        """Measure this pair from now on; `remembered` is where to go on from when nothing is known of it here."""
        subject = self._subjects.get(key)
        if subject is None or subject.pair != pair:
            subject = self._subjects[key] = _Subject(pair, spec, remembered)
        subject.spec, subject.candidate_is_ready = spec, candidate_is_ready

    def forget(self, key: Key) -> None:
        """Nothing is compared."""
        self._subjects.pop(key, None)

    def last(self, key: Key) -> Compared | None:
        """None while nothing is compared."""
        subject = self._subjects.get(key)
        if subject is None:
            return None
        asked_s = 0.0 if subject.asked_since_s is None else self._clock() - subject.asked_since_s
        return Compared(subject.pair, subject.evidence, sum(subject.recent, Sample()), subject.outputs, asked_s)

    async def run(self) -> None:
        """Read all gateways, again and again, while anything is compared; until cancelled."""
        while True:
            if self._subjects:
                await self.round()
            else:
                self._pages = {}
            await asyncio.sleep(PERIOD_S)

    async def run_prompts(self) -> None:
        """Ask the prompts of those that have not been asked; until cancelled."""
        while True:
            await asyncio.gather(*(self._ask(key) for key in list(self._subjects)))
            await asyncio.sleep(1.0)

    async def round(self) -> None:
        asked = sorted(self._gateways())
        texts = await asyncio.gather(*(self._ports.gateway_page(one) for one in asked))
        pages = {one: read_revisions(text) for one, text in zip(asked, texts, strict=True) if text is not None}
        counted = increments(self._pages, pages)
        # A gateway that was silent keeps its old page: its next one tells what came meanwhile.
        self._pages = {one: page for one, page in self._pages.items() if one in asked} | pages
        for key, subject in self._subjects.items():
            service = ServiceId.of(key)
            stable, candidate = (
                counted.get(RevisionId(service, name), Sample())
                for name in (subject.pair.stable, subject.pair.candidate)
            )
            subject.add(stable, candidate)
            self._queue.add(key)

    async def _ask(self, key: Key) -> None:
        subject, gateways = self._subjects.get(key), sorted(self._gateways())
        if subject is None or subject.outputs is not None or not subject.candidate_is_ready or not gateways:
            return
        now_s = self._clock()
        subject.asked_since_s = now_s if subject.asked_since_s is None else subject.asked_since_s
        # In turn: one gateway that does not reach a worker says nothing against it.
        gateway, subject.tries = gateways[subject.tries % len(gateways)], subject.tries + 1
        subject.outputs = await ask_prompts(self._ports, gateway, key, subject.pair, subject.spec.outputs)
        if subject.outputs is not None:
            self._queue.add(key)


def increments(before: Mapping[str, Page], now: Mapping[str, Page]) -> dict[RevisionId, Sample]:
    """What all gateways counted since their pages before. A new gateway tells only where its counting begins."""
    found: dict[RevisionId, Sample] = {}
    for gateway, page in now.items():
        if gateway not in before:
            continue
        for one, sample in page.items():
            found[one] = found.get(one, Sample()) + sample.since(before[gateway].get(one, Sample()))
    return found
