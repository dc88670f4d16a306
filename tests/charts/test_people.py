"""What people may do who have the cluster's own roles view, edit and admin."""

from __future__ import annotations

from typing import Final

from crds.contract import GROUP
from crds.kinds import KINDS
from tests.charts.test_foretide import Object, objects

AGGREGATED: Final = "rbac.authorization.k8s.io/aggregate-to-"
LOOK: Final = {"get", "list", "watch"}
CHANGE: Final = {"create", "update", "patch", "delete", "deletecollection"}


def added(to: str, found: list[Object]) -> dict[str, set[str]]:
    """Verbs on each kind that the chart's roles add to the cluster's role `to`."""
    verbs: dict[str, set[str]] = {}
    for one in found:
        if one["kind"] == "ClusterRole" and one["metadata"]["labels"].get(AGGREGATED + to) == "true":
            for rule in one["rules"]:
                assert rule["apiGroups"] == [GROUP]
                for resource in rule["resources"]:
                    verbs.setdefault(resource, set()).update(rule["verbs"])
    return verbs


def test_whoever_may_view_sees_every_kind_with_the_dashboard_or_without() -> None:
    for flag in ("dashboard.enabled=true", "dashboard.enabled=false"):
        seen = added("view", objects("--set", flag))
        assert seen == {kind.plural: LOOK for kind in KINDS} | {"inferenceservices/scale": {"get"}}


def test_the_owner_of_a_namespace_declares_what_belongs_to_it_and_nothing_of_the_cluster() -> None:
    owned = {"inferenceservices", "models", "slas", "alertpolicies"}
    found = objects()
    for role in ("edit", "admin"):
        assert added(role, found) == dict.fromkeys(owned, CHANGE) | {"inferenceservices/scale": {"update", "patch"}}
    cluster_wide = {kind.plural for kind in KINDS if not kind.namespaced}
    assert owned.isdisjoint(cluster_wide)


def test_the_account_of_the_dashboard_goes_with_it() -> None:
    made = {(one["kind"], one["metadata"]["name"]) for one in objects("--set", "dashboard.enabled=false")}
    assert ("ServiceAccount", "foretide-viewer") not in made
    assert ("ClusterRoleBinding", "foretide-viewer") not in made
