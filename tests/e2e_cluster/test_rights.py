"""Granted and used rights are told apart, from lines that a real API server wrote."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from e2e.cluster import tools
from e2e.cluster.controlplane import ControlPlane, Settings
from e2e.cluster.shell import run, wait_until
from e2e.rights import (
    NAMESPACE,
    RARE,
    WIDEST,
    Difference,
    Request,
    Right,
    asked,
    compare,
    granted,
    rendered,
    written,
)

GATEWAY, OPERATOR = "foretide-gateway", "foretide-operator"
SLICES = Right(GATEWAY, "list", "discovery.k8s.io", "endpointslices")
WATCHED = SLICES._replace(verb="watch")
LISTED = Request(*SLICES[:4])
SECRETS = Request(GATEWAY, "list", "", "secrets")
KEYRING = Right(GATEWAY, "list", "", "secrets", NAMESPACE, frozenset({"foretide-keyring"}))


def line(user: str, decision: str = "allow", verb: str = "get", code: int = 200, at: str = "", **found: str) -> str:
    annotations = {"authorization.k8s.io/decision": decision}
    event = {"user": {"username": user}, "verb": verb, "objectRef": found, "annotations": annotations}
    return json.dumps(event | {"responseStatus": {"code": code}} | ({"stageTimestamp": at} if at else {}))


def account(name: str) -> str:
    return f"system:serviceaccount:{NAMESPACE}:{name}"


def test_what_is_granted_and_not_used_and_what_is_refused_are_told() -> None:
    found = compare(frozenset({SLICES, WATCHED}), frozenset({LISTED}), frozenset({SECRETS}))
    assert found == Difference(frozenset({WATCHED}), {}, frozenset({SECRETS}), frozenset())
    assert list(found.lines()) == [
        "DENIED  foretide-gateway: list secrets",
        "UNUSED  foretide-gateway: watch endpointslices.discovery.k8s.io",
    ]


def test_a_right_that_is_rarely_used_has_its_reason() -> None:
    lease = Right("foretide-gpu-pools", "create", "coordination.k8s.io", "leases", NAMESPACE)
    found = compare(frozenset({lease}), frozenset(), frozenset())
    assert found.unused == frozenset()
    assert "once in a cluster's life" in found.rare[lease]


def test_a_right_reaches_as_far_as_its_namespace_and_its_names() -> None:
    asked_for = SECRETS._replace(namespace=NAMESPACE, name="foretide-keyring")
    assert KEYRING.covers(asked_for)
    assert not KEYRING.covers(asked_for._replace(name="acme-key"))
    assert not KEYRING.covers(asked_for._replace(namespace="demo"))
    assert not KEYRING.covers(asked_for._replace(namespace=""))
    assert SLICES.covers(LISTED._replace(namespace="demo", name="any"))


def test_a_refusal_while_a_role_was_not_there_is_no_fault_of_the_roles() -> None:
    found = compare(frozenset({SLICES}), frozenset({LISTED}), frozenset({LISTED}))
    assert found.denied == frozenset()
    assert list(found.lines()) == ["unbound foretide-gateway: list endpointslices.discovery.k8s.io"]


def test_only_our_accounts_count_and_a_subresource_is_a_resource_of_its_own() -> None:
    allowed, denied = asked(
        [
            line(account(OPERATOR), resource="pods", subresource="eviction", namespace="demo", name="a"),
            line(account(OPERATOR), "forbid", resource="nodes"),
            line("system:node:a", resource="pods"),
            json.dumps({"user": {"username": account(OPERATOR)}, "verb": "get", "requestURI": "/version"}),
        ]
    )
    assert allowed == {Request(OPERATOR, "get", "", "pods/eviction", "demo", "a")}
    assert denied == {Request(OPERATOR, "get", "", "nodes")}


def test_an_apply_that_creates_uses_both_rights() -> None:
    made, changed = (line(account(OPERATOR), verb="patch", code=code, resource="services") for code in (201, 200))
    assert {one.verb for one in asked([made])[0]} == {"create", "patch"}
    assert {one.verb for one in asked([changed])[0]} == {"patch"}


def test_refusals_of_earlier_runs_are_not_this_ones_and_a_line_that_was_cut_off_is_nobodys() -> None:
    early, late = (
        line(account(OPERATOR), "forbid", resource=what, at=f"2026-01-01T{hour}:00:00.1Z")
        for what, hour in (("nodes", "09"), ("pods", "11"))
    )
    allowed, denied = asked([early, early[:40] + "\n", late], "2026-01-01T10:00:00")
    assert (allowed, denied) == (frozenset(), {Request(OPERATOR, "get", "", "pods")})


def test_the_log_is_read_in_the_order_of_its_rotations_and_to_its_last_whole_line(tmp_path: Path) -> None:
    (tmp_path / "audit.log").write_text("third\nfour")
    (tmp_path / "audit-2026-01-01T10-00-00.000.log").write_text("first\nsecond\n")
    assert list(written(tmp_path)) == ["first\n", "second\n", "third\n"]


def test_every_account_of_the_chart_is_granted_something_and_every_reason_is_about_a_right() -> None:
    found = granted(rendered(*WIDEST))
    accounts = {"foretide-operator", "foretide-gateway", "foretide-model-cache", "foretide-gpu-pools"}
    assert {right.account for right in found} >= accounts
    assert SLICES in found
    assert KEYRING in found
    assert [one for one in RARE if not any(one.is_about(right) for right in found)] == []


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
        nodes = Request(GATEWAY, "list", "", "nodes")
        wait_until(lambda: nodes in asked(written(plane.directory))[1], "the refusal is written down", 120.0)
        allowed, denied = asked(written(plane.directory))
    assert LISTED in allowed
    found = compare(granted(rendered()), allowed, denied)
    assert found.denied == {nodes}
    assert SLICES not in found.unused
