"""How a request stands among others: its class, whose it is, and when its answer is due. Values; decides nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CLASSES: Final = ("P0", "P1", "P2", "P3")
CLASS_TTFT_S: Final = (0.1, 1.0, 10.0, 60.0)
"""Time to first token that a class asks for. P3 is best effort: a minute stands for "some time"."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Times are seconds from the request's arrival."""

    priority: int = 2
    """Index into CLASSES: a lower one is more urgent."""
    tenant: str = ""
    weight: float = 1.0
    """The tenant's share against other tenants' shares."""
    deadline_s: float | None = None
    """The answer is of no use later than this."""
    ttft_target_s: float | None = None
    """Replaces the class's."""

    @property
    def due_s(self) -> float:
        """The first token should be there by then."""
        target = CLASS_TTFT_S[self.priority] if self.ttft_target_s is None else self.ttft_target_s
        return target if self.deadline_s is None else min(target, self.deadline_s)


ORDINARY: Final = Standing()
"""Of a request that says nothing."""
