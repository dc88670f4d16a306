"""A Tenant's namespaces, children, keys and status."""

from __future__ import annotations

import base64
import json
from typing import Any

from controllers.plans.keyring import KeySecret, key_hash, keyring
from controllers.plans.tenancy import Demand, Tenant
from controllers.plans.tenant import Holding, assess, children, holding_of, stray
from crds.tenant import TenantSpec

PEPPER = b"p" * 32
KEY, OTHER_KEY = "k" * 24, "o" * 24


def tenant(name: str = "acme", namespaces: tuple[str, ...] = ("demo",), created: str = "1", **fields: Any) -> Tenant:
    spec = TenantSpec.model_validate({"namespaces": list(namespaces), **fields})
    return Tenant(name, f"uid-{name}", created, 4, spec)


def secret(name: str, **entries: str) -> KeySecret:
    data = {entry: base64.b64encode(value.encode()).decode() for entry, value in entries.items()}
    return KeySecret.of({"metadata": {"name": name}, "data": data})


def with_keys(name: str, *secrets: str, created: str = "1") -> Tenant:
    return tenant(name, created=created, apiKeys=[{"secret": one} for one in secrets])


def test_a_missing_namespace_and_a_taken_one_are_named() -> None:
    old = tenant("old", ("prod",), created="0")
    new = tenant("new", ("prod", "gone", "demo"))
    holding = holding_of(new, [new, old], {"prod", "demo"})
    assert holding.owned == ["demo"]
    assert [one.message for one in holding.problems] == [
        "Namespace 'gone' does not exist; create it or remove it from spec.namespaces.",
        "Namespace 'prod' belongs to Tenant 'old', which listed it first; remove it from one of the two.",
    ]


def test_each_owned_namespace_gets_a_policy_that_denies_and_a_quota_if_there_is_one() -> None:
    quiet = children(tenant(), ["demo"])
    assert [one["kind"] for one in quiet] == ["NetworkPolicy"]
    assert quiet[0]["spec"] == {
        "podSelector": {"matchLabels": {"app.kubernetes.io/managed-by": "foretide"}},
        "policyTypes": ["Ingress", "Egress"],
    }
    limited = children(tenant(quota={"cpu": 8, "memory": "32Gi"}), ["demo"])
    assert limited[1]["spec"] == {"hard": {"requests.cpu": "8", "requests.memory": "32Gi"}}
    assert limited[1]["metadata"]["ownerReferences"][0]["uid"] == "uid-acme"


def test_children_of_a_namespace_that_left_are_stray_and_those_of_others_are_not() -> None:
    acme = tenant(quota={"cpu": 1})
    wanted = children(acme, ["demo"])
    observed = [*wanted, *children(acme, ["left"]), *children(tenant("other"), ["left"])]
    assert [(one["kind"], one["metadata"]["namespace"]) for one in stray(wanted, observed, "acme")] == [
        ("NetworkPolicy", "left"),
        ("ResourceQuota", "left"),
    ]


def test_each_entry_of_a_secret_is_a_valid_key_so_that_keys_can_rotate() -> None:
    ring = keyring([with_keys("acme", "keys")], [secret("keys", old=KEY, new=OTHER_KEY + "\n")], PEPPER)
    assert ring.hashes == {"acme": sorted([key_hash(PEPPER, KEY), key_hash(PEPPER, OTHER_KEY)])}
    assert json.loads(ring.json()) == ring.hashes


def test_a_secret_that_is_missing_or_unlabelled_is_named_with_the_command() -> None:
    ring = keyring([with_keys("acme", "keys")], [], PEPPER)
    (problem,) = ring.problems["acme"]
    assert ring.hashes == {"acme": []}
    assert problem.message == (
        "Secret 'keys' is not in the operator's namespace or lacks the label foretide.dev/api-key: \"true\";"
        " create it there, or run: kubectl label secret keys foretide.dev/api-key=true"
    )


def test_a_short_key_is_refused_without_showing_it() -> None:
    ring = keyring([with_keys("acme", "keys")], [secret("keys", a="hunter2", b=KEY)], PEPPER)
    (problem,) = ring.problems["acme"]
    assert problem.message.startswith("Entry 'a' of Secret 'keys' has 7 characters; a key needs at least 16.")
    assert "hunter2" not in problem.message
    assert len(ring.hashes["acme"]) == 1


def test_a_key_of_two_tenants_speaks_for_neither() -> None:
    ring = keyring([with_keys("a", "ka"), with_keys("b", "kb")], [secret("ka", x=KEY), secret("kb", y=KEY)], PEPPER)
    assert ring.hashes == {"a": [], "b": []}
    assert ring.problems["a"][0].reason == "KeyShared"
    assert "Tenant 'b'" in ring.problems["a"][0].message
    assert "Tenant 'a'" in ring.problems["b"][0].message


def test_two_secrets_of_one_tenant_may_hold_the_same_key() -> None:
    ring = keyring([with_keys("a", "k1", "k2")], [secret("k1", x=KEY), secret("k2", x=KEY)], PEPPER)
    assert (len(ring.hashes["a"]), ring.problems["a"]) == (1, [])


def test_binary_and_unsendable_keys_are_refused() -> None:
    binary = KeySecret.of({"metadata": {"name": "keys"}, "data": {"a": base64.b64encode(b"\xff" * 20).decode()}})
    spaced = secret("more", b="sixteen letters or more")
    ring = keyring([with_keys("acme", "keys", "more")], [binary, spaced], PEPPER)
    assert [one.reason for one in ring.problems["acme"]] == ["KeyNotText", "KeyNotSendable"]


def test_no_key_shows_in_the_repr_of_a_secret() -> None:
    assert KEY not in repr(secret("keys", a=KEY))


def test_the_same_keys_give_the_same_text_in_any_order() -> None:
    tenants = [with_keys("a", "ka"), with_keys("b", "kb")]
    secrets = [secret("ka", x=KEY, y=OTHER_KEY), secret("kb", z="z" * 20)]
    assert keyring(tenants, secrets, PEPPER).json() == keyring(tenants[::-1], secrets[::-1], PEPPER).json()


def test_the_status_counts_what_is_wanted_of_what_is_allowed() -> None:
    acme = tenant(quota={"replicas": 10, "gpus": 4}, apiKeys=[{"secret": "k"}])
    result = assess(acme, Holding(["demo"], []), [], 2, Demand(2, 3, 1, 5, 60))
    assert result.fields == {
        "observedGeneration": 4,
        "validKeys": 2,
        "services": 2,
        "replicas": "3/10",
        "gpus": "1/4",
        "migSlices": "5",
        "migGigabytes": "60",
        "sharedGigabytes": "0",
    }
    assert [one["message"] for one in result.conditions] == ["2 API keys speak for demo."]


def test_every_problem_is_in_the_message_and_the_first_gives_the_reason() -> None:
    holding = holding_of(tenant(namespaces=("gone", "lost")), [], set())
    ready, stalled = assess(tenant(), holding, [], 0, Demand()).conditions
    assert ready["reason"] == stalled["reason"] == "NamespaceNotFound"
    assert "'gone'" in ready["message"]
    assert "'lost'" in ready["message"]


def test_a_tenant_says_what_it_borrows_of_which_cohort() -> None:
    made = tenant(quota={"gpus": 4, "replicas": 9}, borrowing={"cohort": "lab"})
    holding = Holding(["demo"], ())
    said = assess(made, holding, (), 1, Demand(services=1, replicas=6, gpus=6)).conditions
    assert [(one["type"], one["message"]) for one in said[1:]] == [
        ("Borrowing", "Borrows 2 GPUs (has 6, its quota is 4) of cohort 'lab', until its others want them back.")
    ]
    assert len(assess(made, holding, (), 1, Demand(services=1, replicas=4, gpus=4)).conditions) == 1
