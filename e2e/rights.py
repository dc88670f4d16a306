"""Whether what our roles grant is what our processes use: an audit log of the API server beside the rendered roles.

`python -m e2e.rights [FOLDER]` prints both differences of the cluster that runs; the last scenario fails on them. The
comparison is pure. What is granted and need not be used in a run stands in `RARE`, with the reason.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from e2e.cluster import tools
from e2e.cluster.paths import state_dir
from e2e.cluster.shell import run
from e2e.install import SYSTEM

NAMESPACE: Final = SYSTEM
CHART: Final = Path(__file__).parent.parent / "charts/foretide"
WIDEST: Final = (
    "--set=gpuPools.enabled=true", "--set=alerting.secretNamespaces={demo}",
    "--set=gatewayAPI.parentRefs[0].name=edge", "--set=gatewayAPI.parentRefs[0].namespace=ingress",
    "--set=gateway.endpointPicker.enabled=true", "--set=gateway.endpointPicker.tlsSecret=picker",
)  # fmt: skip
"""Values of the chart that add rights."""
_USER: Final = f"system:serviceaccount:{NAMESPACE}:"


class Request(NamedTuple):
    """What one account asked for; `resource` has its subresource behind a slash. Without a namespace: everywhere."""

    account: str
    verb: str
    group: str
    resource: str
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        where = f" in {self.namespace}" if self.namespace else ""
        return f"{self.account}: {self.verb} {self.resource}{'.' + self.group if self.group else ''}{where}"


class Right(NamedTuple):
    """One verb on one resource, for one account; in one namespace and for some names, or (empty) for all."""

    account: str
    verb: str
    group: str
    resource: str
    namespace: str = ""
    names: frozenset[str] = frozenset()

    def covers(self, asked: Request) -> bool:
        return (
            self[:4] == asked[:4]
            and self.namespace in ("", asked.namespace)
            and (not self.names or asked.name in self.names)
        )

    def __str__(self) -> str:
        return str(Request(*self[:5]))


class Rare(NamedTuple):
    """Rights that a run need not have used, and why they are granted all the same. `*` stands for anything."""

    account: str
    verb: str
    resource: str
    why: str

    def is_about(self, right: Right) -> bool:
        pairs = zip(self[:3], (right.account, right.verb, right.resource), strict=True)
        return all(fnmatchcase(value, pattern) for pattern, value in pairs)


_NO_GATEWAY_API: Final = "no Gateway API is installed in the scenarios' cluster"
_NO_EXPORT: Final = "no scenario's AlertPolicy asks for rules"
_NO_CLAIMS: Final = "no scenario gives devices by ResourceClaims"
_NO_KEYS: Final = "no scenario's receiver of alerts needs a key"
_FIRST: Final = "made once in a cluster's life"

RARE: Final = (
    Rare("foretide-viewer", "*", "*", "a person signs in with it; the dashboard asks what it may, and reads by itself"),
    Rare("foretide-gpu-agent", "*", "*", "runs where NVIDIA's driver does"),
    Rare("*", "create", "leases", _FIRST),
    Rare("*", "patch", "events", "only where the same happens again within minutes"),
    Rare("foretide-operator", "create", "secrets", f"the keyring, {_FIRST}"),
    Rare("foretide-operator", "get", "secrets", _NO_KEYS),
    Rare("foretide-operator", "get", "alertpolicies", _NO_EXPORT),
    Rare("foretide-operator", "*", "configmaps", _NO_EXPORT),
    Rare("foretide-operator", "*", "prometheusrules", _NO_EXPORT),
    Rare("foretide-operator", "*", "inferencepools", _NO_GATEWAY_API),
    Rare("foretide-operator", "*", "httproutes", _NO_GATEWAY_API),
    Rare("foretide-operator", "get", "resourceclaimtemplates", _NO_CLAIMS),
    Rare("foretide-operator", "create", "resourceclaimtemplates", _NO_CLAIMS),
    Rare("foretide-operator", "patch", "resourceclaimtemplates", _NO_CLAIMS),
    Rare("foretide-operator", "delete", "resourceclaimtemplates", _NO_CLAIMS),
    Rare("foretide-operator", "delete", "capacityforecasts", "only where a service stops to scale and stays"),
    Rare("foretide-operator", "delete", "networkpolicies", "only where a Tenant gives a namespace up and stays"),
    Rare("foretide-operator", "*", "resourcequotas", "no scenario's Tenant limits cores or memory"),
    Rare("foretide-operator", "delete", "pods", "only where a worker is not well"),
    Rare(
        "foretide-operator",
        "update",
        "inferenceservices/finalizers",
        "asked where OwnerReferencesPermissionEnforcement is on",
    ),
    Rare("foretide-gpu-pools", "delete", "pods", "only where a worker found no other place before its node is cut"),
    Rare("foretide-gpu-pools", "create", "configmaps", _FIRST),
)


@dataclass(frozen=True)
class Difference:
    unused: frozenset[Right]
    """Granted, not asked for in the log, and without a reason in `RARE`."""
    rare: Mapping[Right, str]
    """Granted, not asked for in the log, with the reason."""
    denied: frozenset[Request]
    """Asked for, refused, and granted by no role of ours."""
    unbound: frozenset[Request]
    """Refused while its role was not there: the process started before, or ended after it."""

    def lines(self) -> Iterator[str]:
        yield from sorted(f"DENIED  {request}" for request in self.denied)
        yield from sorted(f"UNUSED  {right}" for right in self.unused)
        yield from sorted(f"rare    {right}  ({why})" for right, why in self.rare.items())
        yield from sorted(f"unbound {request}" for request in self.unbound)


def compare(granted: frozenset[Right], allowed: frozenset[Request], denied: frozenset[Request]) -> Difference:
    left = {right for right in granted if not any(right.covers(request) for request in allowed)}
    rare = {right: one.why for right in left for one in RARE if one.is_about(right)}
    unbound = {request for request in denied if any(right.covers(request) for right in granted)}
    return Difference(frozenset(left - rare.keys()), rare, denied - unbound, frozenset(unbound))


def asked(log: Iterable[str], refused_since: str = "") -> tuple[frozenset[Request], frozenset[Request]]:
    """What our accounts asked for and were allowed, and what they were refused from a time on (RFC 3339, UTC)."""
    allowed: set[Request] = set()
    denied: set[Request] = set()
    for line in log:
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            continue  # Cut off, where the server was killed.
        user, found = event["user"]["username"], event.get("objectRef")
        if not user.startswith(_USER) or found is None:
            continue
        resource = "/".join(filter(None, (found.get("resource"), found.get("subresource"))))
        place = found.get("apiGroup", ""), resource, found.get("namespace", ""), found.get("name", "")
        request = Request(user.removeprefix(_USER), event["verb"], *place)
        # Not the response's code: a missing object and a conflict were allowed.
        if event.get("annotations", {}).get("authorization.k8s.io/decision") == "forbid":
            if event.get("stageTimestamp", refused_since) >= refused_since:
                denied.add(request)
            continue
        allowed.add(request)
        if request.verb == "patch" and event.get("responseStatus", {}).get("code") == 201:
            allowed.add(request._replace(verb="create"))  # A server-side apply that creates needs both.
    return frozenset(allowed), frozenset(denied)


def granted(objects: Iterable[Mapping[str, Any]]) -> frozenset[Right]:
    """By the roles and bindings among rendered objects, to service accounts of ours."""
    objects = list(objects)
    rules = {_place(one): one["rules"] for one in objects if "rules" in one}
    found: set[Right] = set()
    for binding in objects:
        if binding.get("kind") not in ("RoleBinding", "ClusterRoleBinding"):
            continue
        namespace, role = binding["metadata"].get("namespace", ""), binding["roleRef"]
        for subject in binding["subjects"]:
            if subject["kind"] == "ServiceAccount":
                place = role["kind"], role["name"], namespace if role["kind"] == "Role" else ""
                found |= set(_rights(subject["name"], namespace, rules.get(place, [])))
    return frozenset(found)


def _place(role: Mapping[str, Any]) -> tuple[str, str, str]:
    return role["kind"], role["metadata"]["name"], role["metadata"].get("namespace", "")


def _rights(account: str, namespace: str, rules: Iterable[Mapping[str, Any]]) -> Iterator[Right]:
    for rule in rules:
        for group in rule.get("apiGroups", ()):
            for resource in rule.get("resources", ()):
                for verb in rule["verbs"]:
                    yield Right(account, verb, group, resource, namespace, frozenset(rule.get("resourceNames", ())))


def rendered(*flags: str) -> list[dict[str, Any]]:
    """The chart with its defaults, or with more values."""
    said = run([tools.helm(), "template", "foretide", CHART, "-n", NAMESPACE, "--kube-version", "1.35.0", *flags])
    return [one for one in yaml.safe_load_all(said) if one]


def written(control_plane: Path) -> Iterator[str]:
    """Whole lines of the API server's log, of the part before its last rotation first; it writes in batches."""
    parts = sorted(control_plane.glob("audit*.log"), key=lambda path: (path.name == "audit.log", path.name))
    for path in parts:
        with path.open(encoding="utf-8") as lines:
            yield from (line for line in lines if line.endswith("\n"))


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else state_dir() / "control-plane"
    difference = compare(granted(rendered(*WIDEST)), *asked(written(folder)))
    print("\n".join(difference.lines()) or "every right is used, every use is granted")
    sys.exit(bool(difference.denied or difference.unused))


if __name__ == "__main__":
    main()
