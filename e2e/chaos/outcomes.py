"""What became of each fault, kept as lines of JSON, and the arithmetic over requests that decides it.

A request is *disturbed* when it fails or takes longer than SLOW_S; service is *moved* when GOOD_RUN requests in a row,
sent after the fault, are not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

SLOW_S: Final = 1.0
"""Ten times and more what a request takes when nothing is wrong."""
GOOD_RUN: Final = 10
LIMIT_S: Final = 180.0
"""Within it a fault must be healed to count as healed."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of an onlooker. `ended_s` is when its answer was whole, or the client was told that there is none."""

    sent_s: float
    ended_s: float
    trouble: str | None
    stream: bool = False

    @property
    def disturbed(self) -> bool:
        """Streams last long by nature: only what is wrong with them counts."""
        return self.trouble is not None or (not self.stream and self.ended_s - self.sent_s > SLOW_S)


@dataclass(frozen=True, slots=True)
class Lost:
    """Sums over requests."""

    requests: int = 0
    failed: int = 0
    streams: int = 0
    broken: int = 0
    """Streams that ended with an error, or not at all."""
    changed: int = 0
    """Streams with a token lost, repeated or altered."""

    def __add__(self, other: Lost) -> Lost:
        return Lost(*(a + b for a, b in zip(self.values(), other.values(), strict=True)))

    def values(self) -> tuple[int, ...]:
        return (self.requests, self.failed, self.streams, self.broken, self.changed)

    @property
    def lost(self) -> int:
        return self.failed + self.broken + self.changed


CHANGED: Final = "changed"
"""How the trouble of a stream begins that ended and was another than its undisturbed twin."""


def lost(asked: Iterable[Asked]) -> Lost:
    total = Lost()
    for one in asked:
        failed, changed = one.trouble is not None, (one.trouble or "").startswith(CHANGED)
        if one.stream:
            total += Lost(streams=1, broken=int(failed and not changed), changed=int(changed))
        else:
            total += Lost(requests=1, failed=int(failed))
    return total


def moved_after_s(asked: Sequence[Asked], since_s: float) -> float | None:
    """Seconds from a fault until requests flowed again: 0.0 when none was disturbed, None while they do not yet.

    What was in flight at the fault counts with its end; what was sent after it, with the run of good ones that began.
    """
    single = sorted((one for one in asked if not one.stream), key=lambda one: one.sent_s)
    after = [one for one in single if one.sent_s >= since_s]
    waited = [one.ended_s - since_s for one in single if one.sent_s < since_s < one.ended_s and one.disturbed]
    run, begun_s = 0, 0.0
    for one in after:
        if one.disturbed:
            run = 0
            continue
        begun_s = one.sent_s if run == 0 else begun_s
        run += 1
        if run == GOOD_RUN:
            undisturbed = begun_s == after[0].sent_s
            return max([0.0 if undisturbed else begun_s - since_s, *waited])
    return None


def flows(asked: Sequence[Asked], since_s: float, now_s: float) -> bool:
    """Whether the last GOOD_RUN requests that ended are good, and none that is due is still out."""
    recent = [one for one in asked if not one.stream and one.ended_s <= now_s and one.sent_s >= since_s][-GOOD_RUN:]
    return len(recent) == GOOD_RUN and not any(one.disturbed for one in recent)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one fault. Times count from the fault, but `back_s` from its end where it has one of its own (`lasted_s`)."""

    number: int
    kind: str
    service: str
    target: str
    at: str
    """When, in UTC."""
    detected_s: float | None
    sign: str
    """What showed it first."""
    moved_s: float | None
    back_s: float | None
    lasted_s: float
    """How long the harness held the fault; 0 for one that it only began."""
    healed: bool
    took: Lost
    """Requests since the fault before it, in this service."""
    wrong: tuple[str, ...]
    """False actions: on a worker without a fault, or before the fault was."""
    note: str = ""
    troubles: tuple[str, ...] = ()
    """What clients were told, the first few of them."""


@dataclass(frozen=True, slots=True)
class Quiet:
    """A while without a fault."""

    at: str
    lasted_s: float
    services: int
    took: Lost
    wrong: tuple[str, ...]
    troubles: tuple[str, ...] = ()


MOST_TROUBLES: Final = 3


def troubles(asked: Iterable[Asked]) -> tuple[str, ...]:
    """What was said to clients that lost something, each once, the first few."""
    said = dict.fromkeys(("stream " if one.stream else "") + one.trouble for one in asked if one.trouble)
    return tuple(said)[:MOST_TROUBLES]


def read(path: Path) -> tuple[dict[int, Outcome], list[Quiet]]:
    """Outcomes by number, the last of each, and the quiet periods. An absent file holds nothing."""
    outcomes: dict[int, Outcome] = {}
    quiet: list[Quiet] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        raw: dict[str, Any] = json.loads(line)
        was = raw.pop("was")
        raw["took"], raw["wrong"] = Lost(**raw["took"]), tuple(raw["wrong"])
        raw["troubles"] = tuple(raw.get("troubles", ()))
        if was == "fault":
            outcome = Outcome(**raw)
            outcomes[outcome.number] = outcome
        else:
            quiet.append(Quiet(**raw))
    return outcomes, quiet


def append(path: Path, what: Outcome | Quiet) -> None:
    """One line more, written at once: an interrupted campaign goes on after its last line."""
    was = "fault" if isinstance(what, Outcome) else "quiet"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"was": was, **asdict(what)}, ensure_ascii=False) + "\n")


def line(outcome: Outcome) -> str:
    """For people who watch the campaign."""
    times = (("found", outcome.detected_s), ("moved", outcome.moved_s), ("back", outcome.back_s))
    told = ", ".join(f"{name} {'–' if value is None else f'{value:.1f} s'}" for name, value in times)
    extra = f", {outcome.took.lost} lost" if outcome.took.lost else ""
    extra += f", {len(outcome.wrong)} false actions" if outcome.wrong else ""
    word = "healed" if outcome.healed else "NOT HEALED"
    return f"{outcome.number:>3} {outcome.kind:<22} {outcome.service:<8} {word}: {told}{extra} ({outcome.sign})"
