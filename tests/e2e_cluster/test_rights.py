"""Granted and used rights are told apart, from lines that a real API server wrote."""

from __future__ import annotations

import json
import subprocess

import pytest
import yaml

from e2e.cluster import tools
from e2e.cluster.controlplane import ControlPlane, Settings
from e2e.cluster.shell import run, wait_until
from e2e.rights import NAMESPACE, Difference, Right, asked, compare, granted, rendered

SLICES = Right("foretide-gateway", "list", "discovery.k8s.io", "endpointslices")
SECRETS = Right("foretide-gateway", "list", "", "secrets")
WATCHED = Right("foretide-gateway", "watch", "discovery.k8s.io", "endpointslices")


def line(user: str, decision: str = "allow", **found: str) -> str:
    annotations = {"authorization.k8s.io/decision": decision}
    return json.dumps({"user": {"username": user}, "verb": "get", "objectRef": found, "annotations": annotations})


def test_what_is_granted_and_not_used_and_what_is_refused_are_told() -> None:
    found = compare(frozenset({SLICES, WATCHED}), frozenset({SLICES}), frozenset({SECRETS}))
    assert found == Difference(frozenset({WATCHED}), frozenset({SECRETS}))
    assert list(found.lines()) == [
        "DENIED  foretide-gateway: list secrets",
        "unused  foretide-gateway: watch endpointslices.discovery.k8s.io",
    ]


def test_only_our_accounts_count_and_a_subresource_is_a_resource_of_its_own() -> None:
    ours = f"system:serviceaccount:{NAMESPACE}:foretide-operator"
    allowed, denied = asked(
        [
            line(ours, resource="pods", subresource="eviction"),
            line(ours, "forbid", resource="nodes"),
            line("system:node:a", resource="pods"),
            json.dumps({"user": {"username": ours}, "verb": "get", "requestURI": "/version"}),
        ]
    )
    assert allowed == {Right("foretide-operator", "get", "", "pods/eviction")}
    assert denied == {Right("foretide-operator", "get", "", "nodes")}


def test_every_account_of_the_chart_is_granted_something() -> None:
    found = granted(rendered())
    assert {right.account for right in found} >= {"foretide-operator", "foretide-gateway", "foretide-model-cache"}
    assert SLICES in found
    assert SECRETS in found, "in its own namespace, for the keyring"


@pytest.mark.apiserver
def test_a_real_audit_log_tells_use_from_refusal() -> None:
    bound = [one for one in rendered() if one["kind"].endswith(("Role", "Binding")) or one["kind"] == "ServiceAccount"]
    roles = [one for one in bound if one["metadata"].get("namespace", NAMESPACE) == NAMESPACE]
    with ControlPlane(settings=Settings(audited=NAMESPACE)) as plane:
        kubectl = [tools.kubectl(), "--kubeconfig", plane.kubeconfig]
        run([*kubectl, "create", "namespace", NAMESPACE])
        manifest = plane.directory / "roles.yaml"
        manifest.write_text(yaml.safe_dump_all(roles))
        run([*kubectl, "apply", "-f", manifest])
        token = run([*kubectl, "-n", NAMESPACE, "create", "token", "foretide-gateway"]).strip()
        server = f"--server={plane.url}", f"--certificate-authority={plane.pki.certificate}"
        as_gateway = [tools.kubectl(), *server, f"--token={token}"]
        run([*as_gateway, "get", "endpointslices", "-A"])
        refused = subprocess.run([*as_gateway, "get", "nodes"], capture_output=True, text=True, check=False)
        assert "forbidden" in refused.stderr
        nodes = Right("foretide-gateway", "list", "", "nodes")
        wait_until(lambda: nodes in asked(written(plane))[1], "the refusal is written down", 120.0)
        allowed, denied = asked(written(plane))
    assert SLICES in allowed
    assert denied == {nodes}
    assert SLICES not in compare(granted(rendered()), allowed, denied).unused


def written(plane: ControlPlane) -> list[str]:
    """Whole lines of the log; the server writes them in batches."""
    log = plane.directory / "audit.log"
    return log.read_text().rpartition("\n")[0].splitlines() if log.exists() else []
