"""Services with what belongs to them: their forecast, their SLA, their alerts. Read once, joined by name.

What a person may not read, or an older release did not install, is missing, and a note says so; only the services
themselves must be readable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from cli.errors import CliError
from cli.kubectl import Kubectl, NotAllowed, NotServed
from controllers.plans.alerting.shown import firing_about
from controllers.plans.units import names_text
from crds.reading import explained, understood, unread_of

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Service:
    """One InferenceService. alerts: those that fire, the worst first."""

    object: Json
    forecast: Json | None = None
    sla: Json | None = None
    alerts: tuple[Json, ...] = ()

    @property
    def name(self) -> str:
        return str(self.object["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.object["metadata"]["namespace"])

    @property
    def spec(self) -> Json:
        return dict(self.object.get("spec") or {})

    @property
    def status(self) -> Json:
        return dict(self.object.get("status") or {})

    @property
    def expected(self) -> Json:
        """The status of its forecast; empty without one."""
        return dict((self.forecast or {}).get("status") or {})

    def condition(self, type_: str) -> Json | None:
        return next((one for one in self.status.get("conditions") or [] if one["type"] == type_), None)


@dataclass(frozen=True, slots=True)
class Fleet:
    """Services by namespace and name, and what could not be read."""

    services: tuple[Service, ...]
    notes: tuple[str, ...] = ()


def read_fleet(kubectl: Kubectl, namespace: str | None, *, everywhere: bool = False) -> Fleet:
    """Raises CliError where the services cannot be read."""
    notes: list[str] = []
    services = _understood(kubectl.objects("inferenceservices", namespace, everywhere=everywhere), notes)
    more: dict[str, list[Json]] = {}
    for plural in ("capacityforecasts", "slas", "alertpolicies"):
        try:
            more[plural] = _understood(kubectl.objects(plural, namespace, everywhere=everywhere), notes)
        except (NotAllowed, NotServed) as error:
            more[plural] = []
            notes.append(f"Without {plural}: {error}")
    return Fleet(joined(services, more["capacityforecasts"], more["slas"], more["alertpolicies"]), tuple(notes))


def _understood(objects: list[Json], notes: list[str]) -> list[Json]:
    """As much of each as this release can read; a note says what it cannot."""
    found = [understood(one) for one in objects]
    for one in found:
        if unread := unread_of(one):
            notes.append(f"{one['kind']} '{'/'.join(_key(one))}' is read in part: {explained(unread)}")
    return found


def joined(services: list[Json], forecasts: list[Json], slas: list[Json], policies: list[Json]) -> tuple[Service, ...]:
    """Each service with its own."""
    expected, agreed = _by_name(forecasts), _by_name(slas)
    found = [
        Service(
            one,
            expected.get(_key(one)),
            agreed.get((_key(one)[0], str((one.get("spec") or {}).get("sla")))),
            firing_about(policies, *_key(one)),
        )
        for one in services
    ]
    return tuple(sorted(found, key=lambda one: (one.namespace, one.name)))


def the_one(fleet: Fleet, name: str) -> Service:
    """The service of that name, out of a fleet of one namespace. Raises CliError as `named` does."""
    found = named("InferenceService", name, [one.object for one in fleet.services])
    return next(one for one in fleet.services if one.object is found)


def named(kind: str, name: str, objects: Sequence[Json]) -> Json:
    """The object of that name, out of those of one namespace.

    Raises:
        CliError: there is none; says which name was perhaps meant.
    """
    by_name = {str(one["metadata"]["name"]): one for one in objects}
    if name in by_name:
        return by_name[name]
    if not by_name:
        raise CliError(f"There is no {kind} '{name}', nor any other, in this namespace. Name another one with -n.")
    close = get_close_matches(name, by_name, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"there are {names_text(sorted(by_name))}."
    raise CliError(f"There is no {kind} '{name}' in namespace '{objects[0]['metadata']['namespace']}'; {hint}")


def _by_name(objects: list[Json]) -> dict[tuple[str, str], Json]:
    return {_key(one): one for one in objects}


def _key(one: Json) -> tuple[str, str]:
    return str(one["metadata"]["namespace"]), str(one["metadata"]["name"])
