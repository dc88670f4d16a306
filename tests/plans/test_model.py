"""A Model's status from what the nodes report."""

from __future__ import annotations

from typing import Any

import pytest

from controllers.plans.model import Assessment, Facts, Node, assess
from controllers.plans.model_manifests import (
    Agents,
    is_released,
    persistent_volume,
    persistent_volume_claim,
    volume_problem,
    with_its_nodes,
)
from controllers.plans.model_volume import model_volume
from crds.model import ModelSpec, NodeCopy
from tests.plans.test_carried import H100

AA, BB = "sha256:" + "a" * 64, "sha256:" + "b" * 64
NODES = (Node("node-1", {}), Node("node-2", {}))


def copy(name: str, state: str, **fields: Any) -> NodeCopy:
    return NodeCopy.model_validate({"name": name, "state": state, **fields})


def cached(name: str, digest: str = AA) -> NodeCopy:
    return copy(name, "Cached", bytes=98_000_000, totalBytes=98_000_000, digest=digest, format="gguf")


def judged(*copies: NodeCopy, source: str = "https://models.example/m.gguf", **more: Any) -> Assessment:
    spec = {"source": source, **more.pop("spec", {})}
    return assess(
        Facts(
            spec=ModelSpec.model_validate(spec),
            generation=2,
            copies=copies,
            **{"nodes": NODES, **more},
        )
    )


def types(result: Assessment) -> dict[str, tuple[str, str]]:
    return {one["type"]: (one["status"], one["reason"]) for one in result.conditions}


def test_all_copies_verified_is_ready_and_nothing_else() -> None:
    result = judged(cached("node-1"), cached("node-2"), used_by=("chat",))
    assert result.fields == {
        "observedGeneration": 2,
        "usedBy": ["chat"],
        "cached": "2/2",
        "verified": True,
        "digest": AA,
        "format": "gguf",
        "sizeBytes": 98_000_000,
        "size": "98 MB",
        "state": "Cached",
    }
    assert types(result) == {"Ready": ("True", "Cached")}


def test_the_newest_measurement_of_each_accelerator_is_kept() -> None:
    newer = H100.model_copy(update={"measured": "2026-11-27T10:00:00Z", "alpha_us": "6000"})
    other = H100.model_copy(update={"accelerator": "gpu 1"})
    result = judged(cached("node-1"), profiles=[H100, other], measured=[newer])
    assert result.fields["profiles"] == [newer.dump(), other.dump()]


def test_one_verified_copy_is_ready_while_the_other_node_downloads() -> None:
    other = copy("node-2", "Downloading", bytes=61, totalBytes=100, bytesPerSecond=12_000_000)
    result = judged(cached("node-1"), other)
    assert result.fields["cached"] == "1/2"
    assert result.fields["state"] == "Downloading 61% (node-2, 12 MB/s)"
    assert types(result) == {"Ready": ("True", "Cached"), "Reconciling": ("True", "Cached")}


def test_before_any_agent_speaks_the_model_waits_for_its_nodes() -> None:
    result = judged()
    assert result.fields["state"] == "Pending on 'node-1' and 'node-2'"
    assert types(result)["Ready"] == ("False", "Pending")
    assert result.fields["verified"] is False


def test_a_full_disk_is_that_nodes_matter_and_in_the_message() -> None:
    full = copy("node-2", "Failed", message="Model 'demo/m' needs 98 MB; 2 MB of the cache's 10 MB are free.")
    result = judged(cached("node-1"), full)
    assert types(result) == {"Ready": ("True", "Cached")}
    assert result.fields["state"].startswith("Failed on node-2: Model 'demo/m' needs 98 MB")
    assert "1 of 2 nodes hold a verified copy. node-2: Model" in result.conditions[0]["message"]


def test_when_every_node_failed_a_person_has_to_act() -> None:
    result = judged(copy("node-1", "Failed", message="404."), copy("node-2", "Failed", message="404."))
    assert types(result) == {"Ready": ("False", "Failed"), "Stalled": ("True", "Failed")}
    assert result.fields["state"] == "Failed on node-1 (and on 1 more): 404."


def test_nodes_that_disagree_stall_the_model() -> None:
    result = judged(cached("node-1", AA), cached("node-2", BB))
    assert types(result) == {"Ready": ("False", "DigestsDiffer"), "Stalled": ("True", "DigestsDiffer")}
    assert f"node-1 has {AA}, node-2 has {BB}" in result.conditions[0]["message"]
    assert result.fields["verified"] is False


def test_the_first_digest_stays_the_measure() -> None:
    assert judged(cached("node-1", BB), digest_before=AA).fields["digest"] == AA
    assert judged(cached("node-1", AA), spec={"digest": BB}, digest_before=AA).fields["digest"] == BB


def test_a_copy_with_another_digest_is_no_copy_and_about_to_be_fetched_anew() -> None:
    """Its agent compares it with the same digest."""
    changed = judged(cached("node-1", AA), cached("node-2", AA), spec={"digest": BB}, digest_before=AA)
    assert (changed.fields["verified"], changed.fields["cached"], changed.fields["digest"]) == (False, "0/2", BB)
    assert types(changed) == {"Ready": ("False", "Pending"), "Reconciling": ("True", "Pending")}
    one = judged(cached("node-1", AA), cached("node-2", BB), digest_before=BB)
    assert (one.fields["verified"], one.fields["cached"]) == (True, "1/2")
    assert types(one) == {"Ready": ("True", "Cached"), "Reconciling": ("True", "Cached")}


def test_entries_of_nodes_that_are_gone_count_for_nothing() -> None:
    result = judged(cached("node-1"), cached("node-2"), cached("lost", BB))
    assert result.strangers == ["lost"]
    assert types(result) == {"Ready": ("True", "Cached")}
    assert result.fields["cached"] == "2/2"


def test_a_selector_that_no_node_meets_is_said_with_the_labels() -> None:
    result = judged(spec={"nodeSelector": {"disk": "ssd", "zone": "a"}})
    assert types(result)["Stalled"] == ("True", "NoNode")
    assert "No node has the labels disk=ssd, zone=a;" in result.conditions[0]["message"]


def test_a_tainted_node_counts_once_its_agent_speaks() -> None:
    nodes = (Node("node-1", {}), Node("node-2", {}, tainted=True))
    assert judged(cached("node-1"), nodes=nodes).fields["cached"] == "1/1"
    assert judged(cached("node-1"), copy("node-2", "Pending"), nodes=nodes).fields["cached"] == "1/2"


def test_taints_of_the_moment_do_not_take_a_node_out() -> None:
    cordoned = {
        "metadata": {"name": "n"},
        "spec": {"taints": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]},
    }
    gpu = {"metadata": {"name": "n"}, "spec": {"taints": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]}}
    assert (Node.of(cordoned).tainted, Node.of(gpu).tainted) == (False, True)


def test_only_nodes_with_an_agent_count() -> None:
    nodes = (Node("node-1", {"cache": "yes"}), Node("node-2", {"cache": "no"}), Node("node-3", {}))
    result = judged(cached("node-1"), cached("node-2"), nodes=nodes, agents_on={"cache": "yes"})
    assert result.fields["cached"] == "1/1"
    assert types(result) == {"Ready": ("True", "Cached")}
    none = judged(nodes=nodes, agents_on={"cache": "here"})
    assert types(none)["Stalled"] == ("True", "NoNode")
    assert none.conditions[0]["message"] == (
        "No node has the labels cache=here;"
        " label a node or change spec.nodeSelector or Helm value modelCache.nodeSelector."
    )
    both = judged(nodes=nodes, agents_on={"cache": "here"}, spec={"nodeSelector": {"zone": "a"}})
    assert "No node has the labels cache=here, zone=a;" in both.conditions[0]["message"]


def test_an_evicted_copy_is_not_a_failure() -> None:
    result = judged(cached("node-1"), copy("node-2", "Evicted", message="m"))
    assert result.fields["state"] == "Cached, evicted on 'node-2'"
    assert types(result) == {"Ready": ("True", "Cached")}


@pytest.mark.parametrize(
    ("phase", "ready", "state"),
    [
        (None, ("False", "ClaimNotFound"), "Waiting for claim 'weights'"),
        ("Pending", ("False", "ClaimNotBound"), "Waiting for claim 'weights'"),
        ("Bound", ("True", "OnClaim"), "On claim 'weights'"),
    ],
)
def test_a_claim_of_the_user_must_exist_and_be_bound(phase: str | None, ready: tuple[str, str], state: str) -> None:
    result = judged(source="pvc://weights/m.gguf", claim_phase=phase)
    assert types(result)["Ready"] == ready
    assert result.fields["state"] == state
    assert "cached" not in result.fields
    assert "verified" not in result.fields


def test_a_model_being_deleted_says_who_holds_it() -> None:
    result = judged(cached("node-1"), cached("node-2"), used_by=("chat", "batch"), deleting=True)
    assert result.fields["state"] == "Being deleted, used by 'batch' and 'chat'"
    assert "stays until InferenceService 'batch' and 'chat' no longer names it" in result.conditions[0]["message"]


def test_a_long_state_is_cut_to_the_schemas_length() -> None:
    assert len(judged(copy("node-1", "Failed", message="x" * 500), nodes=NODES[:1]).fields["state"]) == 256


MODEL = {"metadata": {"namespace": "demo", "name": "m", "uid": "u1"}}
VOLUME = model_volume("demo", "m", "https://models.example/m.gguf")


def test_volume_and_claim_name_each_other_and_the_folder_on_the_node() -> None:
    pv = persistent_volume(MODEL, VOLUME, Agents("/var/lib/foretide/models/"))
    pvc = persistent_volume_claim(MODEL, VOLUME)
    assert pv["spec"]["local"]["path"] == "/var/lib/foretide/models/demo/m"
    assert pvc["spec"]["volumeName"] == pv["metadata"]["name"]
    assert (pv["spec"]["claimRef"]["namespace"], pv["spec"]["claimRef"]["name"]) == ("demo", "m-model")
    assert pvc["spec"]["storageClassName"] == ""
    assert pvc["metadata"]["ownerReferences"][0]["uid"] == "u1"


def terms(pv: dict[str, Any]) -> Any:
    return pv["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]


def test_a_volume_is_on_nodes_with_an_agent_and_stays_where_it_is() -> None:
    linux = {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}
    anywhere = persistent_volume(MODEL, VOLUME, Agents("/models"))
    chosen = persistent_volume(MODEL, VOLUME, Agents("/models", {"cache": "yes"}))
    assert terms(anywhere) == [{"matchExpressions": [linux]}]
    assert terms(chosen) == [{"matchExpressions": [linux, {"key": "cache", "operator": "In", "values": ["yes"]}]}]
    assert volume_problem(chosen, anywhere) is None
    assert with_its_nodes(chosen, anywhere) == anywhere
    assert with_its_nodes(chosen, None) == chosen


def test_a_volume_of_another_claim_or_another_folder_is_a_problem_with_a_way_out() -> None:
    wanted = persistent_volume(MODEL, VOLUME, Agents("/models"))
    assert volume_problem(wanted, None) is None
    assert volume_problem(wanted, wanted) is None
    moved = persistent_volume(MODEL, VOLUME, Agents("/old"))
    assert "points to '/old/demo/m', the node cache is at '/models/demo/m'" in (volume_problem(wanted, moved) or "")
    foreign = {**wanted, "spec": {**wanted["spec"], "claimRef": {"namespace": "x", "name": "y"}}}
    assert "belongs to claim 'x/y'" in (volume_problem(wanted, foreign) or "")


def test_a_volume_whose_claim_was_deleted_is_released_for_the_new_claim() -> None:
    pv = persistent_volume(MODEL, VOLUME, Agents("/models"))
    bound = {**pv, "spec": {**pv["spec"], "claimRef": {"uid": "old"}}, "status": {"phase": "Released"}}
    assert is_released(bound, {"metadata": {"uid": "new"}})
    assert is_released(bound, None)
    assert not is_released({**bound, "status": {"phase": "Bound"}}, {"metadata": {"uid": "old"}})
    assert not is_released(pv, None)
