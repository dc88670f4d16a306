"""The whole campaign: which cases of which campaign in which order, and the control of each. Seeded; runs nothing.

Blocks of the campaigns take turns, so that a run that is cut off has something of each.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

from e2e.faults import campaigns, missed
from e2e.faults.campaigns import Case
from e2e.faults.crash import Site, sample
from e2e.faults.ground import Ground
from e2e.faults.missed import Loss, Seen
from e2e.faults.mutants import mutations
from e2e.faults.mutations import Batch, batches
from e2e.faults.outcomes import Outcome
from e2e.faults.refusals import Refusal
from e2e.faults.telling import Reference, undisturbed

CAMPAIGNS: Final = ("crash", "stale read", "missed event", "write faults", "field mutation", "quiet")
CONTROLS: Final[Mapping[str, tuple[str, ...]]] = {
    "crash": ("remembers in the status",),
    "stale read": ("deletes by name",),
    "missed event": ("never lists again",),
    "write faults": ("takes a refusal for done", "tries again at once", "forgets the finalizer"),
    "field mutation": ("keeps what it saw first", "stumbles over zero"),
    "quiet": ("writes each look",),
}
"""By campaign: the mistakes that it must find."""
BLOCK: Final = 6
QUIET_S: Final = 240.0
CONTROL_QUIET_S: Final = 20.0
MOMENTS: Final = 48
DROPPED: Final = 96
OTHERWISE_LOST: Final = {Loss.EXPIRED: 24, Loss.STALLED: 8}


async def whole(
    ground: Ground, wanted: Sequence[str], rng: random.Random, already: Mapping[tuple[str, str, str], Outcome]
) -> AsyncIterator[Case]:
    """Everything of these campaigns that is not done already."""
    listening = missed.Listening()
    reference = await undisturbed(ground, listening, twice=True)
    for case in cases(ground, wanted, reference, listening.seen, rng):
        if case.key not in already:
            yield case


def cases(
    ground: Ground, wanted: Sequence[str], reference: Reference, events: Sequence[Seen], rng: random.Random
) -> list[Case]:
    """All of them, in order."""
    travels = campaigns.Travels(ground)
    makers: dict[str, Callable[[], list[Case]]] = {
        "crash": lambda: list(campaigns.crashes(ground, reference, reference.sites)),
        "stale read": lambda: list(travels.cases(MOMENTS)),
        "missed event": lambda: _missed(ground, reference, events, rng),
        "write faults": lambda: _write_faults(ground, reference, rng),
        "field mutation": lambda: list(campaigns.mutated(ground, list(batches(list(mutations()))))),
        "quiet": lambda: list(campaigns.quiets(ground, QUIET_S)),
    }
    made = {name: maker() for name, maker in makers.items()}
    rng.shuffle(made["crash"])
    rng.shuffle(made["field mutation"])
    controls = _controls(ground, reference, events)
    first = [case for name in CAMPAIGNS if name in wanted for case in controls[name]]
    return first + list(_in_turns([made[name] for name in CAMPAIGNS if name in wanted]))


def _in_turns(lists: Sequence[list[Case]]) -> Iterator[Case]:
    """Blocks of each in turn, until all are at their end."""
    left = [iter(one) for one in lists]
    while left:
        for one in list(left):
            block = list(islice(one, BLOCK))
            yield from block
            if len(block) < BLOCK:
                left.remove(one)


def _missed(ground: Ground, reference: Reference, events: Sequence[Seen], rng: random.Random) -> list[Case]:
    """A sample of all events lost, and others lost in other ways."""
    told = [one for one in dict.fromkeys(events) if one.resource not in _NOT_OURS]
    picked = rng.sample(told, len(told))
    found = list(campaigns.missed_events(ground, reference, picked[:DROPPED], (Loss.DROPPED,)))
    for loss, number in OTHERWISE_LOST.items():
        found += campaigns.missed_events(ground, reference, picked[:number], (loss,))
    rng.shuffle(found)
    return found


_NOT_OURS: Final = ("customresourcedefinitions.apiextensions.k8s.io", "nodes")


def _write_faults(ground: Ground, reference: Reference, rng: random.Random) -> list[Case]:
    """Each write refused in one way, and each verb and resource refused for a while."""
    once = list(campaigns.write_faults(ground, reference, reference.sites))
    of_site = len(once) // max(1, len(reference.sites))
    picked = [rng.choice(once[at : at + of_site]) for at in range(0, len(once), of_site)]
    lasting = list(campaigns.lasting_faults(ground, reference, sample(reference.sites)))
    slow = [one for one in lasting if one.name.startswith(Refusal.SILENT_AFTER.value)]
    bounded = [one for one in lasting if one not in slow]
    found = picked + rng.sample(bounded, len(bounded) // 2) + rng.sample(slow, min(4, len(slow)))
    rng.shuffle(found)
    return found


# --- controls --------------------------------------------------------------------------------------------------------
def _controls(ground: Ground, reference: Reference, events: Sequence[Seen]) -> dict[str, list[Case]]:
    """Of each campaign, the cases in which its planted mistakes must show."""
    return {
        name: [case for plant in plants for case in _control_of(ground, reference, events, name, plant)]
        for name, plants in CONTROLS.items()
    }


SHOW_THEMSELVES: Final = ("keeps what it saw first", "stumbles over zero", "writes each look")
"""Mistakes that need no fault from outside: the edit, or the quiet, is what finds them."""


def _control_of(
    ground: Ground, reference: Reference, events: Sequence[Seen], campaign: str, plant: str
) -> Iterator[Case]:
    if plant not in SHOW_THEMSELVES:
        yield campaigns.alone(ground, reference, campaign, plant)
    yield from _control(ground, reference, events, plant)


def _control(ground: Ground, reference: Reference, events: Sequence[Seen], plant: str) -> list[Case]:
    def at(verb: str, resource: str, name: str) -> Site:
        return next(one for one in reference.sites if (one.verb, one.resource, one.name) == (verb, resource, name))

    match plant:
        case "remembers in the status":
            site = at("apply", "networkpolicies.networking.k8s.io", "chat-worker")
            return list(campaigns.crashes(ground, reference, [site], plant))
        case "deletes by name":
            return list(campaigns.Travels(ground).cases(6, plant))
        case "never lists again":
            lost = [one for one in events if one.stage == "smaller" and one.resource == "slas.foretide.dev"]
            return list(campaigns.missed_events(ground, reference, lost[:1], (Loss.DROPPED,), plant))
        case "takes a refusal for done":
            site = at("apply", "persistentvolumeclaims", "m-model")
            refused = campaigns.write_faults(ground, reference, [site], plant)
            return [one for one in refused if one.name.startswith(Refusal.BROKEN.value)]
        case "tries again at once":
            site = at("apply", "services", "chat-worker")
            lasting = campaigns.lasting_faults(ground, reference, [site], plant)
            return [one for one in lasting if one.name.startswith(Refusal.BROKEN.value)]
        case "forgets the finalizer":
            site = at("patch", "inferenceservices.foretide.dev", "chat")
            ended = Site("ended", *_where(site), 0)
            refused = campaigns.write_faults(ground, reference, [ended], plant)
            return [one for one in refused if one.name.startswith(Refusal.BROKEN.value)]
        case "keeps what it saw first" | "stumbles over zero":
            field = "engine.maxNumSeqs" if plant.startswith("keeps") else "rollout.revisionHistoryLimit"
            chosen = [one for one in mutations() if one.kind == "InferenceService" and one.path == field]
            return list(campaigns.mutated(ground, [Batch("InferenceService", 0, tuple(chosen))], plant))
        case "writes each look":
            return list(campaigns.quiets(ground, CONTROL_QUIET_S, plant))
    raise KeyError(plant)


def _where(site: Site) -> tuple[str, str, str]:
    return site.verb, site.resource, site.name
