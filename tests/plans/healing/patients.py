"""A service with workers that are not well, as plans see it; and what Kubernetes does with a worker that is deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from controllers.plans.healing.diagnose import diagnose
from controllers.plans.healing.plan import plan_healing
from controllers.plans.healing.values import Diagnosis, HealPlan, NodeFacts, Objection, Objections
from controllers.plans.snapshot import Revision, Snapshot, Worker
from controllers.plans.times import rfc3339, unix_s
from crds.healing import HealthStatus
from tests.gen import service_spec, snapshot

NOW_S = 1_800_000_000.0
"""Some time in 2027."""
LONG_AGO = rfc3339(NOW_S - 3600)
GATEWAYS = ("10.0.0.1", "10.0.0.2")


def well(name: str, node: str = "node-1", revision: str = "new", **fields: Any) -> Worker:
    values = {"ready": True, "started": True, "created": LONG_AGO, "ready_since": LONG_AGO, "uid": f"uid-{name}"}
    return Worker(name, revision, node=node, **values | fields)


def crashing(name: str, node: str = "node-1", revision: str = "new", **fields: Any) -> Worker:
    values = {
        "ready": False,
        "started": False,
        "ready_since": None,
        "unready_since": LONG_AGO,
        "restarts": 4,
        "waiting_reason": "CrashLoopBackOff",
        "ended_code": 1,
        "ended_reason": "Error",
    }
    return well(name, node, revision, **values | fields)


def lost(reason: str = "hung", for_s: float = 40.0) -> Objection:
    return Objection("lost", reason, for_s, f"no sign of life ({reason})")


def slow(times: int = 3, for_s: float = 40.0) -> Objection:
    return Objection("ejected", "LatencyOutlier", for_s, "latency 0.410 s, 10.8 × the 0.038 s elsewhere", times)


def by_all(**said: Objection) -> Objections:
    """Every gateway says the same. Names of workers are given with `_` for `-`."""
    told = {name.replace("_", "-"): one for name, one in said.items()}
    return Objections(dict.fromkeys(GATEWAYS, told), 0.5)


def by_one(**said: Objection) -> Objections:
    told = {name.replace("_", "-"): one for name, one in said.items()}
    return Objections({GATEWAYS[0]: told, GATEWAYS[1]: {}}, 0.5)


def nodes(*facts: NodeFacts) -> Mapping[str, NodeFacts]:
    return {one.name: one for one in facts}


def seen(*workers: Worker, healing: Mapping[str, Any] | None = None, **fields: Any) -> Snapshot:
    spec = service_spec(**({"healing": healing} if healing else {}), **fields.pop("spec_fields", {}))
    fields.setdefault("nodes", nodes(*(NodeFacts(one) for one in sorted({w.node for w in workers if w.node}))))
    fields.setdefault("health", HealthStatus(last_good="new"))
    names = {one.revision for one in workers} | {"new"}
    revisions = tuple(Revision(name, sum(w.revision == name for w in workers), LONG_AGO) for name in sorted(names))
    return replace(snapshot(spec=spec, **fields), workers=workers, revisions=fields.get("revisions", revisions))


def causes(view: Snapshot) -> list[str]:
    return [one.cause for one in diagnose(view, NOW_S)]


def the_one(view: Snapshot) -> Diagnosis:
    found = diagnose(view, NOW_S)
    assert len(found) == 1, found
    return found[0]


@dataclass
class Ward:
    """A service over time: each `look` remembers, and does to the pods what the plan says and Kubernetes would."""

    view: Snapshot
    desired: int
    wanted: str | None = "new"
    now_s: float = NOW_S
    lines: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    starts: bool = True
    """New pods become ready at once."""
    _made: int = 0

    def look(self, *, replace_pods: bool = True) -> HealPlan:
        plan = plan_healing(self.view, self.wanted, self.desired, self.now_s)
        assert plan is not None
        self.lines += [f"+{self.now_s - NOW_S:.0f} s {one.reason}: {one.message}" for one in plan.told]
        self.view = replace(self.view, health=HealthStatus.model_validate(plan.memory.dump()))
        if replace_pods:
            for one in plan.restarts:
                self.replace(one.pod)
        return plan

    def replace(self, name: str) -> str:
        """Its pod goes, and the Deployment makes another on the same node."""
        old = next(one for one in self.view.workers if one.name == name)
        self._made += 1
        self.deleted.append(name)
        made = f"{name.partition('+')[0]}+{self._made}"
        at = rfc3339(self.now_s)
        ready = {"ready_since": at} if self.starts else {"ready": False, "started": False, "unready_since": at}
        young = well(made, old.node or "node-1", old.revision, created=at, **ready)
        self.view = replace(self.view, workers=(*(one for one in self.view.workers if one is not old), young))
        return made

    def hears(self, objections: Objections | None) -> None:
        self.view = replace(self.view, objections=objections)

    def slow(self, *names: str) -> None:
        """These are slow, those younger than half a minute without anybody having noticed yet."""
        said: dict[str, Objection] = {}
        for one in self.view.workers:
            age_s = self.now_s - unix_s(one.created or LONG_AGO)
            if one.name in names and age_s >= 30:
                said[one.name] = slow(for_s=min(age_s, 40.0))
        self.hears(by_all(**said))

    def wait(self, seconds: float) -> None:
        self.now_s += seconds
