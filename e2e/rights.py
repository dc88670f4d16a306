"""Whether what our roles grant is what our processes use: an audit log of the API server beside the rendered roles.

`python -m e2e.rights [LOG]` prints both differences of the cluster that runs. The comparison is pure. What is granted
and was not asked for in the time of the log may still be needed: `RARE` says for what.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from e2e.cluster import tools
from e2e.cluster.paths import state_dir
from e2e.cluster.shell import run
from e2e.install import SYSTEM

NAMESPACE: Final = SYSTEM
CHART: Final = Path(__file__).parent.parent / "charts/foretide"
_USER: Final = f"system:serviceaccount:{NAMESPACE}:"


class Right(NamedTuple):
    """One verb on one resource, for one service account; `resource` has its subresource behind a slash."""

    account: str
    verb: str
    group: str
    resource: str

    def __str__(self) -> str:
        return f"{self.account}: {self.verb} {self.resource}{'.' + self.group if self.group else ''}"


RARE: Final[Mapping[str, str]] = {
    "delete": "only what a run removes is deleted in it",
    "deletecollection": "the same",
}
"""Verbs that a run need not have used, and why they are granted all the same."""


@dataclass(frozen=True)
class Difference:
    unused: frozenset[Right]
    """Granted, and not asked for in the log."""
    denied: frozenset[Right]
    """Asked for, and refused."""

    def lines(self) -> Iterator[str]:
        for right in sorted(self.denied):
            yield f"DENIED  {right}"
        for right in sorted(self.unused):
            why = f"  ({RARE[right.verb]})" if right.verb in RARE else ""
            yield f"unused  {right}{why}"


def compare(granted: frozenset[Right], allowed: frozenset[Right], denied: frozenset[Right]) -> Difference:
    return Difference(granted - allowed, denied)


def asked(log: Iterable[str]) -> tuple[frozenset[Right], frozenset[Right]]:
    """What our accounts asked for and were allowed, and what they were refused. Raises ValueError for no log."""
    allowed: set[Right] = set()
    denied: set[Right] = set()
    for line in log:
        event = json.loads(line)
        user, found = event["user"]["username"], event.get("objectRef")
        if not user.startswith(_USER) or found is None:
            continue
        resource = "/".join(filter(None, (found.get("resource"), found.get("subresource"))))
        right = Right(user.removeprefix(_USER), event["verb"], found.get("apiGroup", ""), resource)
        # Not the response's code: a missing object and a conflict were allowed.
        decision = event.get("annotations", {}).get("authorization.k8s.io/decision")
        (denied if decision == "forbid" else allowed).add(right)
    return frozenset(allowed), frozenset(denied)


def granted(objects: Iterable[Mapping[str, Any]]) -> frozenset[Right]:
    """By the roles and bindings among rendered objects, to service accounts of ours."""
    objects = list(objects)
    rules = {(one["kind"], one["metadata"]["name"]): one["rules"] for one in objects if "rules" in one}
    found: set[Right] = set()
    for binding in objects:
        if binding.get("kind") not in ("RoleBinding", "ClusterRoleBinding"):
            continue
        role = binding["roleRef"]
        for subject in binding["subjects"]:
            if subject["kind"] == "ServiceAccount":
                found |= set(_rights(subject["name"], rules.get((role["kind"], role["name"]), [])))
    return frozenset(found)


def _rights(account: str, rules: Iterable[Mapping[str, Any]]) -> Iterator[Right]:
    for rule in rules:
        for group in rule.get("apiGroups", ()):
            for resource in rule.get("resources", ()):
                for verb in rule["verbs"]:
                    yield Right(account, verb, group, resource)


def rendered() -> list[dict[str, Any]]:
    """The chart with its defaults."""
    said = run([tools.helm(), "template", "foretide", CHART, "-n", NAMESPACE, "--kube-version", "1.35.0"])
    return [one for one in yaml.safe_load_all(said) if one]


def main() -> None:
    log = Path(sys.argv[1]) if len(sys.argv) > 1 else state_dir() / "control-plane" / "audit.log"
    with log.open(encoding="utf-8") as lines:
        difference = compare(granted(rendered()), *asked(lines))
    print("\n".join(difference.lines()) or "every right is used, every use is granted")
    sys.exit(bool(difference.denied))


if __name__ == "__main__":
    main()
