"""10,000 alerts of some thirty faults through the controller's own loop and disk, stopped and started in the middle.

What is measured is the operator's side: taking the alerts in as an Alertmanager sends them, writing them down,
gathering them, telling one receiver over HTTP. The receiver counts pages by incident.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from aiohttp import web

from benchmarks.alerting.faults import Fleet, fleet
from benchmarks.report import Better, Row
from controllers.alerting.courier import ADVICE, Courier
from controllers.alerting.desk import AlertDesk
from controllers.alerting.secrets import Secrets
from controllers.alerting.wishes import WishBoard
from controllers.guard import AddressGuard
from controllers.history.store import Store
from controllers.history.thread import StoreThread
from controllers.plans.alerting.book import Book, Policy
from controllers.plans.alerting.inbound import read
from controllers.plans.alerting.incidents import Sight
from controllers.plans.alerting.topology import GPU, MODEL, NODE, REVISION, WORKER, Part, Reach
from kube.informer import Informer, lean
from kube.resources import ALERT_POLICIES
from tests.fakes import FakeClient

ALERTS = 10_000
FAULTS = 30
CELLS = 60
"""Of the fleet: twelve services on a node each. Half of them are well."""
CHUNK = 1_000
"""Alerts of one message."""
SYSTEM = "foretide-system"


@dataclass
class Storm:
    """The fleet and what alerts in it; `truth` is by alertname, which is unique."""

    on: Fleet
    messages: list[bytes]
    truth: dict[str, str]
    faults: int


@dataclass
class Pager:
    """A receiver that counts."""

    port: int = 0
    bodies: list[dict[str, Any]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.json())
        return web.Response()

    def pages(self, status: str) -> Counter[str]:
        """Messages by incident."""
        return Counter(one["groupLabels"]["incident"] for one in self.bodies if one["status"] == status)


def storm(seed: int = 7) -> Storm:
    """Faults in cells that share nothing but the gateway: which alert belongs to which is then beyond doubt."""
    rng = random.Random(seed)
    cells = [fleet(rng, services=12, nodes=1, prefix=f"c{number}-") for number in range(CELLS)]
    on = Fleet(
        tuple(pod for cell in cells for pod in cell.pods),
        {place: model for cell in cells for place, model in cell.models.items()},
        {},
    )
    alerts: list[dict[str, Any]] = []
    truth: dict[str, str] = {}
    for number, cell in enumerate(cells[:FAULTS]):
        root = Part(NODE, f"c{number}-n0")
        below = sorted(part for part in cell.topology.downstream(root) if part.kind in ("service", WORKER, NODE))
        for at in range(ALERTS // FAULTS + (number < ALERTS % FAULTS)):
            name = f"f{number}-a{at}"
            truth[name] = str(root)
            alerts.append({"status": "firing", "labels": {"alertname": name, **labels_of(below[at % len(below)])}})
    rng.shuffle(alerts)
    chunks = [alerts[at : at + CHUNK] for at in range(0, len(alerts), CHUNK)]
    return Storm(on, [message(chunk) for chunk in chunks], truth, FAULTS)


def labels_of(part: Part) -> dict[str, str]:
    """As exporters and rules write them."""
    severity = {"severity": "critical"}
    if part.kind == NODE:
        return severity | {"node": part.name}
    namespace, _, name = part.name.partition("/")
    key = {WORKER: "pod", MODEL: "model", GPU: "gpu", REVISION: "revision"}.get(part.kind, part.kind)
    return severity | {"namespace": namespace, key: name}


def message(alerts: Sequence[dict[str, Any]], status: str = "firing") -> bytes:
    return json.dumps({"version": "4", "alerts": [one | {"status": status} for one in alerts]}).encode()


class View:
    """A policy without rules of its own, which sees the fleet."""

    def __init__(self, on: Fleet) -> None:
        self._sight = Sight(Reach(on.topology))

    async def facts(self, policy: Policy) -> list[Any]:
        return []

    def sight(self, policy: Policy, book: Book) -> Sight:
        return self._sight


class Marks:
    """Nobody reconciles here."""

    def add(self, key: object) -> None: ...
    def add_after(self, key: object, delay_s: float) -> None: ...


async def run() -> list[Row]:
    """All of it."""
    made, pager = storm(), Pager()
    app = web.Application(client_max_size=64 * 2**20)
    app.router.add_post("/", pager.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    pager.port = runner.addresses[0][1]
    try:
        with tempfile.TemporaryDirectory() as folder:
            return await _measured(made, pager, Path(folder) / "history.sqlite")
    finally:
        await runner.cleanup()


async def _measured(made: Storm, pager: Pager, disk: Path) -> list[Row]:
    spec = {
        "receive": {"matchers": []},
        "grouping": {"wait": "2s"},
        "receivers": [{"name": "pager", "webhook": {"url": f"http://127.0.0.1:{pager.port}/"}}],
    }
    client = FakeClient()
    client.put(ALERT_POLICIES, {"metadata": {"namespace": SYSTEM, "name": "platform"}, "spec": spec})
    policies = Informer(client, ALERT_POLICIES, keep=lean)
    watching = asyncio.create_task(policies.run())
    await policies.synced.wait()
    place, names = (SYSTEM, "platform"), set(made.truth)
    try:
        # The first operator takes everything in and is stopped at once.
        began_s, cpu_s = time.monotonic(), _cpu_s()
        taking_s = await _life(policies, made, disk, client, hear=True)
        # The second finds it all on the disk, and tells.
        found: dict[str, Any] = {}
        await _life(policies, made, disk, client, until=lambda desk: _told(desk, place, found))
        told_s, cpu_s = time.monotonic() - began_s, _cpu_s() - cpu_s
        kept = {one.labels["alertname"] for one in found["book"].alerts.values()}
        # The third is started again and again and has nothing to add.
        for _ in range(3):
            await _life(policies, made, disk, client, until=lambda desk: desk.book(place) is not None)
        again = pager.pages("firing")
        # It is over.
        await _life(policies, made, disk, client, resolve=True, until=lambda desk: not _open(desk, place))
    finally:
        watching.cancel()
    purity = _purity(found["book"], made.truth)
    return [
        _row("alerts lost over a stop", "alerts", len(names - kept), 0),
        _row("incidents of 30 faults", "incidents", len(found["book"].incidents), made.faults, peer=_groups(made)),
        Row(WORKLOAD, "alerts in the incident of their own fault", "share", purity, None, None, 0.99, Better.HIGHER),
        _row("pages", "pages", sum(again.values()), made.faults),
        _row("incidents paged more than once, over 5 starts", "incidents", sum(n > 1 for n in again.values()), 0),
        _row("incidents without a page", "incidents", made.faults - len(again) if len(again) < made.faults else 0, 0),
        _row("words that it is over", "messages", sum(pager.pages("resolved").values()), made.faults),
        _row("10,000 alerts taken in and written down", "s", taking_s, None),
        _row("first alert → last page, a restart and a wait of 2 s included", "s", told_s, None),
        _row("CPU for all of it", "s", cpu_s, 10),
    ]


WORKLOAD = "storm of 10,000 alerts"


def _row(metric: str, unit: str, ours: float, goal: float | None, peer: float | None = None) -> Row:
    return Row(WORKLOAD, metric, unit, float(ours), peer, "groups of Alertmanager by namespace and service", goal)


def _groups(made: Storm) -> float:
    """How many groups Alertmanager's usual `group_by: [namespace, service]` makes of it, with pods and nodes apart."""
    groups = set()
    for body in made.messages:
        for heard in read(body):
            labels = heard.labels
            groups.add((labels.get("namespace"), labels.get("service"), labels.get("pod"), labels.get("node")))
    return float(len(groups))


def _purity(book: Book, truth: dict[str, str]) -> float:
    by_incident: dict[str, Counter[str]] = defaultdict(Counter)
    for one in book.alerts.values():
        by_incident[one.incident or one.fingerprint][truth[one.labels["alertname"]]] += 1
    return sum(counts.most_common(1)[0][1] for counts in by_incident.values()) / max(len(book.alerts), 1)


def _told(desk: AlertDesk, place: tuple[str, str], found: dict[str, Any]) -> bool:
    book = desk.book(place)
    if book is None or not book.incidents:
        return False
    found["book"] = book
    homes = all(one.incident in book.incidents for one in book.alerts.values())
    return homes and all(
        one.deliveries and all(d.said for d in one.deliveries.values()) for one in book.incidents.values()
    )


def _open(desk: AlertDesk, place: tuple[str, str]) -> bool:
    book = desk.book(place)
    return book is None or any(
        one.resolved_s is None or any(d.said != "resolved" for d in one.deliveries.values())
        for one in book.incidents.values()
    )


async def _life(
    policies: Informer[Any],
    made: Storm,
    disk: Path,
    client: FakeClient,
    *,
    hear: bool = False,
    resolve: bool = False,
    until: Any = None,
) -> float:
    """One operator, from its start until its end; how long it took to take the messages in."""
    store = StoreThread(Store(disk))
    guard = AddressGuard([ip_network("127.0.0.1/32")], ADVICE)
    courier = Courier(guard, Secrets(client))
    desk = AlertDesk(policies, View(made.on), store, courier, Marks(), SYSTEM, WishBoard())
    task = asyncio.create_task(desk.run())
    began_s = time.monotonic()
    try:
        await asyncio.sleep(0)
        for body in made.messages if hear or resolve else ():
            text = body.replace(b'"status": "firing"', b'"status": "resolved"') if resolve else body
            await desk.hear(await asyncio.to_thread(read, text))
        taken_s = time.monotonic() - began_s
        deadline_s = time.monotonic() + 120
        while until is not None and not until(desk):
            if time.monotonic() > deadline_s:
                raise TimeoutError("The desk did not come to an end within 120 s.")
            await asyncio.sleep(0.02)
        return taken_s
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.close()


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
