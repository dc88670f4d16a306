"""What people declare in one namespace, from the first object to the last that goes: the life that faults disturb.

It uses each kind that the operator manages for services, makes it write every kind of child, and ends with nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from e2e.faults.ground import Ground
from e2e.faults.truth import State, differences
from e2e.install import SYSTEM, key_secret, resource
from kube.resources import ALERT_POLICIES, INFERENCE_SERVICES, MODELS, SECRETS, SLAS, TENANTS, Object

STAGES: Final = ("declared", "edited", "smaller", "ended")
SETTLED_S: Final = 3.0
"""Nothing changed for so long: longer than the operator waits before a look at something that moves."""


@dataclass(frozen=True)
class Story:
    """In the namespace `world`, whose name is also its Tenant's."""

    world: str

    def declared(self) -> list[Object]:
        """A tenant with a key, a model, an SLA, a service of two workers, one that scales, and an alert policy."""
        world = self.world
        return [
            key_secret(f"{world}-key", {"key": f"{world}-0123456789abcdef0123456789abcdef"}),
            resource("Tenant", world, namespaces=[world], apiKeys=[{"secret": f"{world}-key"}], quota={"replicas": 8}),
            resource("Model", "m", world, source="https://models.example.com/m.gguf", format="gguf"),
            resource("SLA", "s", world, priority="P1", targets={"ttft": "800ms", "tpot": "50ms"}),
            self.chat(),
            self.scaled(),
            self.policy(),
        ]

    def chat(self, replicas: int = 2, **engine: Any) -> Object:
        """The service that is edited."""
        rollout = {"drainTimeout": "2s", "maxSurge": 1, "maxUnavailable": 0}
        spec = {"model": "m", "sla": "s", "accelerator": {"cpu": {}}, "replicas": replicas, "rollout": rollout}
        return resource("InferenceService", "chat", self.world, **spec, engine=engine)

    def scaled(self) -> Object:
        """The service whose workers the operator numbers."""
        spec = {"model": "m", "accelerator": {"cpu": {}}, "scaling": {"policy": "predictive", "min": 1, "max": 3}}
        return resource("InferenceService", "scaled", self.world, **spec, rollout={"drainTimeout": "2s"})

    def policy(self, *, export: bool = True) -> Object:
        """Alerts about both, exported for Prometheus."""
        rules = [{"name": "down", "metric": "unservable", "threshold": {"above": "0"}, "for": "60m"}]
        return resource("AlertPolicy", "alerts", self.world, rules=rules, export=export)

    async def go(self, ground: Ground, stage: str) -> None:
        """What people do in this stage."""
        await {
            "declared": self._declare,
            "edited": self._edit,
            "smaller": self._shrink,
            "ended": self._end,
        }[stage](ground)

    async def _declare(self, ground: Ground) -> None:
        await ground.make_namespace(self.world)
        await ground.put(*self.declared())

    async def _edit(self, ground: Ground) -> None:
        await ground.put(self.chat(maxNumSeqs=4))

    async def _shrink(self, ground: Ground) -> None:
        tenant: dict[str, Any] = {
            "namespaces": [self.world],
            "apiKeys": [{"secret": f"{self.world}-key"}],
            "quota": {"replicas": 6},
        }
        sla: dict[str, Any] = {"priority": "P2", "targets": {"ttft": "5s"}}
        await ground.put(
            self.chat(1, maxNumSeqs=4),
            resource("Tenant", self.world, **tenant),
            resource("SLA", "s", self.world, **sla),
            self.policy(export=False),
        )

    async def _end(self, ground: Ground) -> None:
        for kind, names in (
            (INFERENCE_SERVICES, ("chat", "scaled")),
            (ALERT_POLICIES, ("alerts",)),
            (MODELS, ("m",)),
            (SLAS, ("s",)),
        ):
            for name in names:
                await ground.take_away(kind, self.world, name)
        await ground.take_away(TENANTS, None, self.world)
        await ground.take_away(SECRETS, SYSTEM, f"{self.world}-key")


# --- waiting ---------------------------------------------------------------------------------------------------------
async def settled(ground: Ground, world: str, within_s: float = 180.0) -> None:
    """Every status speaks of its spec, what had an owner is gone with it, and nothing has changed for a while. Raises
    TimeoutError.
    """
    deadline_s, seen, since_s = time.monotonic() + within_s, -1, time.monotonic()
    while time.monotonic() - since_s < SETTLED_S:
        now = ground.truth.changes + len(ground.proxy.writes)
        if now != seen or ground.truth.not_followed(world) or ground.truth.left_behind(world):
            seen, since_s = now, time.monotonic()
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"Changes do not end within {within_s:.0f} s.")
        await asyncio.sleep(0.05)


async def until(condition: Callable[[], object], within_s: float) -> bool:
    """Whether it held in time."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        await asyncio.sleep(0.05)
    return True


def all_of(state: State) -> State:
    """Nothing left out."""
    return state


async def reached(
    ground: Ground,
    world: str,
    wanted: State,
    within_s: float,
    look: Callable[[State], State] = all_of,
    over: Callable[[], bool] = lambda: False,
) -> list[str]:
    """How the world still differs from what is wanted when the time is over; nothing when it got there.

    `look` is what of a state is looked at; once `over` holds, nothing is waited for.
    """
    seen, found, wanted = -1, State(), look(wanted)

    def is_there() -> bool:
        nonlocal seen, found
        if ground.truth.changes != seen:  # Else it is as it was, and to compare costs milliseconds.
            seen, found = ground.truth.changes, look(ground.truth.state(world))
        return found == wanted or over()

    await until(is_there, within_s)
    return differences(found, wanted)
